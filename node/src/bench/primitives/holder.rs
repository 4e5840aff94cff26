//! A process that holds a session and a lock, to be killed or frozen.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::SessionId;

use super::super::figure::{Figure, median_and_max};
use super::super::rig::{CLUSTER, Rig};
use super::PATIENCE;
use crate::cli::{Code, Diagnostic, Exit, Output};
use crate::{Client, ClientSettings, LockGuard, Profile};

/// `tenure hold CLUSTER LINK,LINK… --lock NAME --ttl MS`: the process that is killed or frozen.
#[derive(Debug, clap::Args)]
pub struct Holder {
    /// The cluster's name
    cluster: String,
    /// Where its nodes listen for links
    #[arg(value_delimiter = ',')]
    links: Vec<String>,
    /// The lock to hold
    #[arg(long)]
    lock: String,
    /// For how long its session lives without a renewal, in milliseconds
    #[arg(long)]
    ttl: u64,
    /// Links beyond this machine's loopback
    #[arg(long)]
    insecure: bool,
}

/// The hidden verb of that process.
pub const VERB: &str = "hold";

/// Runs that process: it opens a session, takes the lock under it, and holds both until its standard input ends.
///
/// # Errors
///
/// If the session or the lock is refused.
pub async fn hold(args: Holder) -> Result<Exit, Diagnostic> {
    let Holder { cluster, links: nodes, insecure, .. } = args;
    let settings = ClientSettings { cluster, nodes, profile: Profile::LAN, insecure };
    let client = Client::connect_with(settings).await.map_err(|error| *error.0)?;
    let session = client.session(Duration::from_millis(args.ttl)).label("holder").await?;
    let guard = client.lock(args.lock).session(&session).await?;
    println!("{}", session.id().0);
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = ended.await;
    drop(guard);
    Ok(Exit::OK)
}

/// Measures how soon the cluster lets go of what a process held, `rounds` times each.
pub(super) async fn measure(rig: &Rig, rounds: u32, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (name, case) in CASES {
        let mut spans = Vec::new();
        for round in 1..=rounds {
            let span = match case {
                Case::Gone => to_the_end_of_the_session(rig).await?,
                Case::Killed => to_the_next_holder(rig, Signal::SIGKILL, HOUR).await?,
                Case::Frozen => to_the_next_holder(rig, Signal::SIGSTOP, TTL).await?,
            };
            output.note(format!("{name} {round}/{rounds}: {:.1} ms", span.as_secs_f64() * 1000.0));
            spans.push(span);
        }
        figures.extend(median_and_max(name, &spans));
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Case {
    Gone,
    Killed,
    Frozen,
}

const CASES: [(&str, Case); 3] = [
    ("session.holder_killed", Case::Gone),
    ("lock.handover.holder_killed", Case::Killed),
    ("lock.handover.holder_frozen", Case::Frozen),
];

/// A process that does not outlive a failed measurement.
struct Running(Child);

impl Running {
    /// Starts it, and waits until it holds.
    async fn start(rig: &Rig, lock: &str, ttl: Duration) -> Result<(Self, SessionId), Diagnostic> {
        let links: Vec<String> = rig.own()?.links().iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().map_err(internal)?);
        command.args([VERB, CLUSTER, &links.join(",")]);
        command.args(["--lock", lock, "--ttl", &ttl.as_millis().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        tokio::task::spawn_blocking(move || Self::speaks(command)).await.map_err(internal)?
    }

    fn speaks(mut command: Command) -> Result<(Self, SessionId), Diagnostic> {
        let mut running = Self(command.spawn().map_err(internal)?);
        let mut line = String::new();
        if let Some(stdout) = running.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(internal)?;
        }
        let session = line.trim().parse().map_err(|_| internal("the holder holds nothing"))?;
        Ok((running, SessionId(session)))
    }

    fn signal(&self, signal: Signal) -> Result<(), Diagnostic> {
        let id = i32::try_from(self.0.id()).expect("process numbers are small");
        kill(Pid::from_raw(id), signal).map_err(internal)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn to_the_end_of_the_session(rig: &Rig) -> Result<Duration, Diagnostic> {
    let (holder, session) = Running::start(rig, LOCK, HOUR).await?;
    tokio::time::sleep(SETTLED).await;
    let before = SessionId(session.0.saturating_sub(1));
    let begin = Instant::now();
    holder.signal(Signal::SIGKILL)?;
    while rig.client.sessions(before, 1).await?.iter().any(|view| view.id == session) {
        if begin.elapsed() > PATIENCE {
            return Err(Diagnostic::new(Code::Deadline, "the session of a killed process lives on"));
        }
    }
    Ok(begin.elapsed())
}

async fn to_the_next_holder(rig: &Rig, signal: Signal, ttl: Duration) -> Result<Duration, Diagnostic> {
    let (holder, _) = Running::start(rig, LOCK, ttl).await?;
    let client = rig.client.clone();
    let next = tokio::spawn(async move { client.lock(LOCK).wait(PATIENCE).await });
    tokio::time::sleep(SETTLED).await;
    let begin = Instant::now();
    holder.signal(signal)?;
    let guard: LockGuard = next.await.map_err(internal)??;
    let span = begin.elapsed();
    guard.release().await?;
    Ok(span)
}

fn internal(error: impl ToString) -> Diagnostic {
    Diagnostic::new(Code::Internal, error.to_string())
}

const LOCK: &str = "bench";

/// A session that no measurement waits to expire.
const HOUR: Duration = Duration::from_secs(3600);

/// Of the session of a process that is frozen.
const TTL: Duration = Duration::from_secs(2);

/// By then all nodes of this machine watch the process and the next one stands in line: what is measured is the end, not the beginning.
const SETTLED: Duration = Duration::from_millis(700);
