//! What the exit codes mean.

use std::process::ExitCode;

use crate::diagnostic::Code;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Done.
    pub const OK: Self = Self(0);
    /// The job, task or node failed.
    pub const FAILED: Self = Self(1);
    /// The right was lost while something ran under it.
    pub const LOST: Self = Self(75);
    /// `--timeout` ran out.
    pub const TIMEOUT: Self = Self(124);
    /// Interrupted from the keyboard.
    pub const INTERRUPTED: Self = Self(130);
    /// Asked to end by a signal, and ended at once.
    pub const TERMINATED: Self = Self(143);
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        Self(code.exit())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// The text of `tenure help exit-codes`.
pub const EXIT_CODES: &str = "\
Exit codes of tenure

    0  done
    1  the job, task or node failed
    2  usage: the command line, or a value in it, makes no sense
    3  no node was reached
    4  no quorum, or no master at the moment: try again later
    5  not found
    6  conflict: the key is at another revision, the task has ended, the cluster is full,
       somebody else holds the right, or it has passed to a later holder
   75  the right (lock, leadership, permit, turn) was lost, and the command was stopped before that
  124  --timeout ran out
  130  interrupted (Ctrl-C)
  143  terminated

With -o json an error is one line of JSON on stderr: a problem document (RFC 9457) with `code`, `retryable`,
`maybe_applied`, `master`, `causes` and `hint`. `maybe_applied` says whether it may have been done nevertheless.
";
