//! Ten thousand sessions, and then ten thousand watches beside them: what each costs.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::super::figure::Figure;
use super::super::rig::Rig;
use super::super::usage::{Usage, resident_mib};
use crate::cli::{Code, Diagnostic, Output};
use crate::kv::Watch;
use crate::{Client, Session};

/// Measures both, on a fresh cluster: what others left free in memory would hide what is used.
pub(super) async fn measure(length: Duration, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let rig = Rig::start(1).await?;
    let nodes = Nodes::of(&rig)?;
    let (begin, before) = (Instant::now(), nodes.resident());
    let opened = stream::iter(0..MANY).map(|_| async { rig.client.session(MINUTE).await }).buffer_unordered(AT_ONCE);
    let sessions: Vec<Session> = opened.try_collect().await?;
    let per_s = MANY as f64 / begin.elapsed().as_secs_f64();
    output.note(format!("{MANY} sessions are open"));
    // The first renewals are due after a third of the time to live: they are part of what is measured.
    tokio::time::sleep(MINUTE / 3).await;
    let cpu = nodes.cpu(length.max(MINUTE / 3)).await;
    let mut figures = vec![
        Figure::new("session.open_256.per_s", per_s, "/s"),
        Figure::new("session.rss_each", nodes.grown_kib(&before) / MANY as f64, "KiB"),
        Figure::new("session.cpu", cpu, "%"),
    ];
    figures.extend(watches(&rig, &nodes, length, output).await?);
    if sessions.iter().any(Session::is_lost) {
        return Err(Diagnostic::new(Code::SessionExpired, "a session was lost while it was measured"));
    }
    Ok(figures)
}

/// A third of them at each node. Each is polled once: from then on its question waits at the node.
async fn watches(rig: &Rig, nodes: &Nodes, length: Duration, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut clients: Vec<Client> = Vec::new();
    for place in 0..rig.own()?.len() {
        clients.push(rig.client_of(place).await?);
    }
    let before = nodes.resident();
    let begun = stream::iter(0..MANY).map(|number| {
        let kv = clients[number % clients.len()].kv();
        async move { kv.watch(format!("bench/watches/{number}/")).await }
    });
    let watches: Vec<Watch> = begun.buffer_unordered(AT_ONCE).try_collect().await?;
    let waiting = tokio::spawn(stream::select_all(watches).for_each(|_| std::future::ready(())));
    output.note(format!("{MANY} watches wait"));
    let cpu = nodes.cpu(length.max(ALL_AGAIN)).await;
    let grown = nodes.grown_kib(&before);
    // It would go on for ever: that it has ended means that watches failed.
    if waiting.is_finished() {
        return Err(Diagnostic::new(Code::Internal, "the watches ended"));
    }
    waiting.abort();
    // Of the watches of one node: they are spread evenly.
    let each = grown * clients.len() as f64 / MANY as f64;
    Ok(vec![Figure::new("watch.rss_each", each, "KiB"), Figure::new("watch.cpu", cpu, "%")])
}

/// The processes of a cluster.
struct Nodes(Vec<u32>);

impl Nodes {
    fn of(rig: &Rig) -> Result<Self, Diagnostic> {
        let processes = rig.own()?;
        Ok(Self((0..processes.len()).filter_map(|place| processes.pid(place)).collect()))
    }

    fn resident(&self) -> Vec<f64> {
        self.0.iter().map(|&pid| resident_mib(pid).unwrap_or(f64::NAN)).collect()
    }

    /// By how much the one grew that grew most.
    fn grown_kib(&self, before: &[f64]) -> f64 {
        let grown = self.resident().into_iter().zip(before).map(|(after, before)| after - before);
        grown.fold(f64::NAN, f64::max) * 1024.0
    }

    /// Processor time of the one that uses most, in percent of one processor.
    async fn cpu(&self, length: Duration) -> f64 {
        let before: Vec<Usage> = self.0.iter().map(|&pid| Usage::of(pid)).collect();
        let begin = Instant::now();
        tokio::time::sleep(length).await;
        let seconds = begin.elapsed().as_secs_f64();
        let used = self.0.iter().zip(&before).map(|(&pid, &before)| Usage::of(pid).since(before).cpu_us);
        used.fold(f64::NAN, f64::max) / seconds / 1e4
    }
}

/// How many sessions one client keeps, and how many watches wait.
const MANY: usize = 10_000;

const AT_ONCE: usize = 256;

const MINUTE: Duration = Duration::from_secs(60);

/// By then each watch has asked anew: a node answers a question of which nothing comes within nine seconds.
const ALL_AGAIN: Duration = Duration::from_secs(10);
