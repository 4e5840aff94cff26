//! The guardian of a command that runs under a right: the right does not pass on while anything of the command lives.
//!
//! `tenure lock` may be killed without a chance to clean up, and what its command has started would go on. So the command is started by a
//! process of its own, to which all falls that loses its parent below it. It kills all of that when the command has ended, when the right is
//! about to end, and when `tenure lock` is gone; and the witness takes the session for dead only when both of them are.
//!
//! It hears until when the right lasts, at the beginning and with each renewal, and keeps that time by itself: `tenure lock` may be frozen,
//! and its command is not.
//!
//! # Invariants
//!
//! * Whatever descends from the command descends from its guardian, also in a process group or session of its own; the guardian ends after
//!   the last of it. Killed itself, it leaves all of it to the process that started it, which then does the same.
//! * The command begins when the witness was told of its guardian, and never when its right is about to end.
//! * What is left of the command is killed the margin of `Guarding::COMMAND` before the end of the right that was heard of last, by a clock
//!   that goes on while the machine sleeps; it is told to end (SIGTERM) its grace before that.
//!
//! Killed both at once, they leave the command itself to be killed by the kernel, and nobody to end what that has started. Nobody here can
//! kill a process of another user, or one that was started by a service on behalf of the command.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use protocol::Nanos;
use protocol::client::{Guarding, Loss, Standing};

use super::{Exit, parent, parse};
use crate::diagnostic::{Code, Diagnostic};
use crate::witness::Watched;

/// The hidden verb of the guardian.
pub(super) const VERB: &str = "guardian";

/// `tenure guardian SOCKET GRACE -- CMD ARGS…`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where whoever started it listens
    socket: String,
    /// How long the command has between SIGTERM and SIGKILL
    #[arg(value_parser = parse::duration)]
    grace: Duration,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A command with its guardian. Dropped, all of it is killed in the background.
pub(super) struct Guarded {
    guardian: tokio::process::Child,
    /// Closed, the guardian kills all.
    link: Option<UnixStream>,
    command: Pid,
}

/// What a command finds in its environment: this value, or none, whatever is there.
pub(super) type Variable = (&'static str, Option<OsString>);

/// How a command ended.
pub(super) enum Ended {
    /// With this code; a signal counts 128 and its number. [`Exit::LOST`] if its right was about to end.
    Guarded(u8),
    /// Somebody killed its guardian.
    Unguarded,
}

impl Guarded {
    /// Starts a command under a right that lasts until `until`; `grace` is between SIGTERM and SIGKILL. Nothing of it outlives what
    /// `watched` is about. Dropped before it has begun, it never begins, or is killed.
    pub(super) async fn start(
        command: &[OsString],
        environment: &[Variable],
        (until, grace): (Nanos, Duration),
        watched: Option<&mut Watched>,
    ) -> Result<Self, Diagnostic> {
        let failed = |error: std::io::Error| wrong(&format!("cannot start a process: {error}"));
        set_child_subreaper(true).map_err(|error| failed(error.into()))?;
        let name = format!("tenure-guardian-{:032x}", rand::random::<u128>());
        let listener = UnixListener::bind_addr(&address(&name).map_err(failed)?).map_err(failed)?;
        let mut starts = tokio::process::Command::new("/proc/self/exe");
        starts.arg0("tenure").args([VERB, &name, &format!("{}ms", grace.as_millis()), "--"]).args(command);
        for (name, value) in environment {
            match value {
                Some(value) => starts.env(name, value),
                None => starts.env_remove(name),
            };
        }
        let mut guardian = starts.process_group(0).spawn().map_err(failed)?;
        let id = guardian.id().ok_or_else(|| wrong("a process has ended before it began"))?;
        let meeting = tokio::time::timeout(DEADLINE, meet(listener, id));
        let link = tokio::select! {
            link = meeting => link.map_err(|_| wrong("a process does not begin"))?.map_err(failed)?,
            status = guardian.wait() => {
                let status = status.map_err(failed)?;
                return Err(wrong(&format!("a process has ended before it began: {status}")));
            }
        };
        if let Some(watched) = watched {
            // The witness that does not hear of it knows nothing of us either.
            let _ = watched.together_with(id);
        }
        match begin(link, until).await {
            Ok((link, command)) => Ok(Self { guardian, link: Some(link), command }),
            Err(error) if guardian.wait().await.map_err(failed)?.code() == Some(Exit::LOST.0.into()) => {
                tracing::debug!(%error, "the guardian began nothing");
                Err(Diagnostic::new(Code::Lost, "the right was over before the command began"))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Says until when the right lasts.
    pub(super) fn lasts(&mut self, until: Nanos) {
        if let Some(link) = &mut self.link {
            // A guardian that has ended, or is frozen and has a thousand of these before it, hears nothing more.
            let _ = link.write(&until.0.to_be_bytes());
        }
    }

    /// Sends a signal to the command's process group.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = killpg(self.command, signal); // It may be over already.
    }

    /// Waits until nothing of it is left, unless its guardian was killed. Cancellation safe.
    pub(super) async fn ended(&mut self) -> Result<Ended, Diagnostic> {
        let status = self.guardian.wait().await.map_err(|error| wrong(&format!("cannot wait: {error}")))?;
        match status.code() {
            Some(code) => Ok(Ended::Guarded(u8::try_from(code).unwrap_or(1))),
            None => {
                // All that was its guardian's has fallen to us.
                let _ = tokio::task::spawn_blocking(end_children).await;
                Ok(Ended::Unguarded)
            }
        }
    }

    /// Kills all of it, and waits until nothing is left.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.link = None;
        let _ = self.ended().await;
    }
}

/// Waits for the guardian to call.
async fn meet(listener: UnixListener, guardian: u32) -> std::io::Result<tokio::net::UnixStream> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let (link, _) = listener.accept().await?;
        if link.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(guardian) {
            return Ok(link);
        }
    }
}

/// Lets the guardian begin; answers with the id of the command.
async fn begin(mut link: tokio::net::UnixStream, until: Nanos) -> std::io::Result<(UnixStream, Pid)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    link.write_u64(until.0).await?;
    let command = link.read_i32().await?;
    Ok((link.into_std()?, Pid::from_raw(command)))
}

/// Guards a command until all of it is gone.
pub(super) fn run(args: &Args) -> Result<Exit, Diagnostic> {
    let failed = |error: std::io::Error| wrong(&format!("cannot guard a command: {error}"));
    set_child_subreaper(true).map_err(|error| failed(error.into()))?;
    let mut link = UnixStream::connect_addr(&address(&args.socket).map_err(failed)?).map_err(failed)?;
    let mut until = [0; 8];
    link.read_exact(&mut until).map_err(|_| wrong("whoever started the guardian has gone"))?;
    let mut right = Right { until: Nanos(u64::from_be_bytes(until)), grace: args.grace, is_told: Arc::default() };
    if right.step(Guarding::COMMAND).is_err() {
        return Ok(Exit::LOST);
    }
    let started = Command::new("/proc/self/exe")
        .arg0("tenure")
        .args([parent::VERB, &getpid().to_string(), "--"])
        .args(&args.command)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let id = i32::try_from(started.id()).map_err(|_| wrong("a process has a strange number"))?;
    // Whoever hears this, or has gone, is heard of below.
    let _ = link.write_all(&id.to_be_bytes());
    let (command, is_told) = (Pid::from_raw(id), right.is_told.clone());
    std::thread::spawn(move || {
        right.watch(link, command);
        end_children();
        std::process::exit(Exit::LOST.0.into());
    });
    let code = code_of(command);
    end_children(); // Whatever it left behind must not outlive the right either.
    Ok(if is_told.load(Ordering::SeqCst) { Exit::LOST } else { Exit(code) })
}

/// How long the command may live.
struct Right {
    until: Nanos,
    grace: Duration,
    /// Whether the command was told to end.
    is_told: Arc<AtomicBool>,
}

impl Right {
    /// For how long whatever is guarded like this may go on before this is asked again.
    fn step(&self, guarding: Guarding) -> Result<Duration, Loss> {
        let now = actors::now();
        guarding.step(Standing::Until(self.until), now).map(|look| look.since(now))
    }

    /// Returns when the command must be killed: the right is about to end, or nobody is there any more to say how long it lasts. Tells the
    /// command before.
    fn watch(&mut self, mut link: UnixStream, command: Pid) {
        let untold = Guarding { margin: self.grace.saturating_add(Guarding::COMMAND.margin), ..Guarding::COMMAND };
        loop {
            if self.step(untold).is_err() && !self.is_told.swap(true, Ordering::SeqCst) {
                let _ = killpg(command, Signal::SIGTERM); // It may be over already.
            }
            let Ok(look) = self.step(Guarding::COMMAND) else { return };
            if link.set_read_timeout(Some(look)).is_err() {
                return;
            }
            let mut until = [0; 8];
            match link.read(&mut until) {
                Ok(8) => self.until = Nanos(u64::from_be_bytes(until)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                _ => return,
            }
        }
    }
}

/// Waits for the end of the command itself.
fn code_of(command: Pid) -> u8 {
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(child, code)) if child == command => return u8::try_from(code).unwrap_or(1),
            Ok(WaitStatus::Signaled(child, signal, _)) if child == command => return 128 + signal as u8,
            Err(Errno::ECHILD) => return Exit::LOST.0, // We were told to end it meanwhile.
            _ => {}
        }
    }
}

/// Kills all children of this process, and theirs, which become ours by that, until none is left that it may kill.
fn end_children() {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                let refusals: Vec<bool> = children().into_iter().map(refuses_to_die).collect();
                // Those of another user would hold the right for as long as they like.
                if !refusals.is_empty() && refusals.into_iter().all(|refuses| refuses) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
            Err(Errno::ECHILD) => return,
            _ => {}
        }
    }
}

/// Kills a child; says whether it is one of those that this process may not kill.
fn refuses_to_die(child: Pid) -> bool {
    kill(child, Signal::SIGKILL) == Err(Errno::EPERM)
}

/// The children of this process, as far as one look shows.
fn children() -> Vec<Pid> {
    let own = getpid().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may have anything in it, brackets too.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(own.as_str())
    };
    pids.filter(is_child).map(Pid::from_raw).collect()
}

fn address(name: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

fn wrong(why: &str) -> Diagnostic {
    Diagnostic::new(Code::Internal, why)
}

/// How long a guardian has to begin.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at what was killed.
const LOOK: Duration = Duration::from_millis(1);
