//! One child process and the power to stop, continue and kill it.
//!
//! # Invariants
//!
//! * A signal goes only to a process that was not waited for yet: its number cannot belong to another one.
//! * Dropping kills, also a stopped process, and leaves no zombie.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};

use std::os::unix::process::CommandExt as _;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::launcher;

/// A running (or ended) child in a process group of its own.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Child {
    /// Starts `program` with `args`, behind the words of `wrapper`; it ends with this process. What it prints goes to the end
    /// of the file `log`.
    pub(super) fn spawn(program: &Path, wrapper: &[String], args: &[String], log: &Path) -> io::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        // The wrapper asks for the parent's death signal, checks that we are still its parent and becomes the program.
        command
            .args(["with-parent", &std::process::id().to_string(), "--"])
            .args(wrapper)
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .process_group(0);
        Ok(Self { process: launcher::spawn(command)?, ended: None, log: log.to_owned() })
    }

    /// Its process number.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal to its process group. Nothing happens if it has ended.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let group = i32::try_from(self.pid()).expect("process numbers are small");
            // It can only fail because the process ended in this very moment.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    /// Kills it and waits until it has ended.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Waits until it has ended.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.wait().ok();
        }
        self.ended
    }

    /// The last lines that it printed.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).into_owned();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

const LOG_TAIL: usize = 64 * 1024;
