//! What sessions cost, and how soon the cluster lets go of what a killed process held.
//!
//! | figure | what |
//! |---|---|
//! | `session.holder_killed` | from `kill -9` to a client process until another client reads that its session is gone |
//! | `session.open_256.per_s` | sessions opened by one client, 256 at once |
//! | `session.rss_each` | memory of the node that grew most, for each of ten thousand sessions |
//! | `session.cpu` | processor time of the node that uses most, in percent of one, while one client renews ten thousand sessions |

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use protocol::SessionId;

use super::figure::{Figure, median_and_max};
use super::rig::Rig;
use super::usage::{Usage, resident_mib};
use crate::cli::{Code, Diagnostic, Exit, Output};
use crate::{Client, Session};

/// `tenure hold-session CLUSTER LINK,LINK…`: the process that is killed.
#[derive(Debug, clap::Args)]
pub struct Holder {
    /// The cluster's name
    cluster: String,
    /// Where its nodes listen for links
    #[arg(value_delimiter = ',')]
    links: Vec<String>,
}

/// The hidden verb of the process that is killed.
pub const VERB: &str = "hold-session";

/// Measures all of it; the kill `rounds` times.
pub(super) async fn measure(rounds: u32, length: Duration, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let rig = Rig::start(1).await?;
    let mut spans = Vec::new();
    for round in 1..=rounds {
        let span = to_the_end_of_a_killed_holder(&rig).await?;
        output.note(format!("{KILLED} {round}/{rounds}: {:.1} ms", span.as_secs_f64() * 1000.0));
        spans.push(span);
    }
    let mut figures = Vec::from(median_and_max(KILLED, &spans));
    figures.extend(many(&rig, length).await?);
    Ok(figures)
}

/// Runs the process that is killed: it opens a session and holds it until its standard input ends.
///
/// # Errors
///
/// If no session can be opened.
pub async fn hold(args: Holder) -> Result<Exit, Diagnostic> {
    let client = Client::connect(args.cluster, args.links).await.map_err(|error| *error.0)?;
    let session = client.session(HOUR).label("holder").await?;
    println!("{}", session.id().0);
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = ended.await;
    Ok(Exit::OK)
}

/// A holder that does not outlive a failed measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn to_the_end_of_a_killed_holder(rig: &Rig) -> Result<Duration, Diagnostic> {
    let links: Vec<String> = rig.own()?.links().iter().map(ToString::to_string).collect();
    let (mut holder, session) = tokio::task::spawn_blocking(move || start(&links)).await.map_err(internal)??;
    // Until all nodes of this machine watch it: what is measured is the end, not the beginning.
    tokio::time::sleep(SETTLED).await;
    let before = SessionId(session.0.saturating_sub(1));
    let begin = Instant::now();
    holder.0.kill().map_err(internal)?;
    while rig.client.sessions(before, 1).await?.iter().any(|view| view.id == session) {
        if begin.elapsed() > PATIENCE {
            return Err(Diagnostic::new(Code::Deadline, "the session of a killed process lives on"));
        }
    }
    Ok(begin.elapsed())
}

fn start(links: &[String]) -> Result<(Running, SessionId), Diagnostic> {
    let program = std::env::current_exe().map_err(internal)?;
    let mut command = Command::new(program);
    command.args([VERB, super::rig::CLUSTER, &links.join(",")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Running(command.spawn().map_err(internal)?);
    let mut line = String::new();
    if let Some(stdout) = holder.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(internal)?;
    }
    let session = line.trim().parse().map_err(|_| internal("the holder opened no session"))?;
    Ok((holder, SessionId(session)))
}

async fn many(rig: &Rig, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let pids: Vec<u32> = (0..rig.own()?.len()).filter_map(|place| rig.own().ok()?.pid(place)).collect();
    let resident = || pids.iter().map(|&pid| resident_mib(pid).unwrap_or(f64::NAN)).collect::<Vec<f64>>();
    let before = resident();
    let begin = Instant::now();
    let opened = stream::iter(0..MANY).map(|_| async { rig.client.session(MINUTE).await });
    let opened: Vec<Result<Session, crate::Error>> = opened.buffer_unordered(AT_ONCE).collect().await;
    let per_s = MANY as f64 / begin.elapsed().as_secs_f64();
    let sessions = opened.into_iter().collect::<Result<Vec<Session>, _>>()?;
    // The first renewals are due after a third of the time to live: they are part of what is measured.
    tokio::time::sleep(MINUTE / 3).await;
    let used: Vec<Usage> = pids.iter().map(|&pid| Usage::of(pid)).collect();
    let begin = Instant::now();
    tokio::time::sleep(length.max(MINUTE / 3)).await;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu =
        pids.iter().zip(&used).map(|(&pid, &before)| Usage::of(pid).since(before).cpu_us).fold(f64::NAN, f64::max);
    let grown = resident().iter().zip(&before).map(|(after, before)| after - before).fold(f64::NAN, f64::max);
    if sessions.iter().any(Session::is_lost) {
        return Err(Diagnostic::new(Code::SessionExpired, "a session was lost while it was measured"));
    }
    Ok(vec![
        Figure::new("session.open_256.per_s", per_s, "/s"),
        Figure::new("session.rss_each", grown * 1024.0 / MANY as f64, "KiB"),
        Figure::new("session.cpu", cpu / seconds / 1e4, "%"),
    ])
}

fn internal(error: impl ToString) -> Diagnostic {
    Diagnostic::new(Code::Internal, error.to_string())
}

const KILLED: &str = "session.holder_killed";

/// How many sessions one client keeps.
const MANY: usize = 10_000;

const AT_ONCE: usize = 256;

const MINUTE: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);

const SETTLED: Duration = Duration::from_millis(500);

const PATIENCE: Duration = Duration::from_secs(30);
