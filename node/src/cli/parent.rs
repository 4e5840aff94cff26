//! Processes that end with their parent, whatever ends it.
//!
//! A node started by `dev`, `demo` or a test, and a command started by an `exec` task, must not outlive a parent that was
//! killed without a chance to clean up. Linux delivers a signal to a child when its parent dies, if the child asks for it;
//! so the child asks for it itself, before it does anything else.
//!
//! # Invariants
//!
//! * After [`die_with`] returned well, this process is killed when its parent ends, or was a child of it no more already and
//!   then says so.
//!
//! The kernel's signal comes when the *thread* that started the child ends: start children from a thread that lives long.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::Signal;

use super::Exit;
use crate::diagnostic::{Code, Diagnostic};

/// The hidden verb that wraps a command.
pub const VERB: &str = crate::builtin::exec::WRAPPER;

/// `tenure with-parent PID -- CMD ARGS…`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process to end with
    parent: i32,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// Asks to be killed when the parent ends.
///
/// # Errors
///
/// If the parent is not (or no more) the process `parent`, or the kernel refuses.
pub fn die_with(parent: i32) -> Result<(), Diagnostic> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| Diagnostic::new(Code::Internal, format!("cannot end with the parent: {error}")))?;
    // The parent may have ended before the request was made: then somebody else is our parent already.
    if nix::unistd::getppid().as_raw() != parent {
        return Err(Diagnostic::new(Code::Internal, format!("the parent {parent} has gone")));
    }
    Ok(())
}

/// Becomes the command.
pub(super) fn run(args: Args) -> Result<Exit, Diagnostic> {
    die_with(args.parent)?;
    let (program, rest) = args.command.split_first().expect("clap asks for at least one word");
    // Only comes back if the command cannot be started. The request for the signal survives the change of program.
    let error = Command::new(program).args(rest).exec();
    eprintln!("{}: {error}", program.display());
    Ok(Exit(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
}
