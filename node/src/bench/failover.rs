//! How long it takes until the cluster works again, as its users see it.
//!
//! | figure | from | to |
//! |---|---|---|
//! | `master_killed` | `kill -9` to the master | the next write is acknowledged |
//! | `master_paused` | SIGSTOP to the master | the next write is acknowledged |
//! | `graceful` | SIGTERM to the master | the next write is acknowledged |
//! | `master_killed_task` | `kill -9` to the master | a task that is submitted then runs |
//! | `worker_killed` | `kill -9` to the node that runs a task and is not master | the task's next attempt runs |
//! | `both_killed` | `kill -9` to the master, which runs a task as well | the task's next attempt runs |
//!
//! That an attempt runs is seen in a file to which the task's command appends the time: the wall clock of one machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::TaskId;
use protocol::state::TaskState;

use super::figure::{Figure, median_and_max};
use super::rig::Rig;
use crate::Client;
use crate::builtin::exec::{Exec, KIND};
use crate::cli::{Code, Diagnostic, Output};

/// Measures all of it, `rounds` times each.
pub(super) async fn measure(rig: &mut Rig, rounds: u32, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (name, case) in CASES {
        let mut spans = Vec::new();
        for round in 1..=rounds {
            rig.mend().await?;
            let span = match case {
                Case::MasterKilled => to_next_write(rig, Harm::Kill).await?,
                Case::MasterPaused => to_next_write(rig, Harm::Pause).await?,
                Case::Graceful => to_next_write(rig, Harm::Terminate).await?,
                Case::MasterKilledTask => to_new_run(rig).await?,
                Case::WorkerKilled => to_next_run(rig, false).await?,
                Case::BothKilled => to_next_run(rig, true).await?,
            };
            output.note(format!("{name} {round}/{rounds}: {:.0} ms", span.as_secs_f64() * 1000.0));
            spans.push(span);
        }
        figures.extend(median_and_max(name, &spans));
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Case {
    MasterKilled,
    MasterPaused,
    Graceful,
    MasterKilledTask,
    WorkerKilled,
    BothKilled,
}

#[derive(Clone, Copy)]
enum Harm {
    Kill,
    Pause,
    Terminate,
}

const CASES: [(&str, Case); 6] = [
    ("failover.master_killed", Case::MasterKilled),
    ("failover.master_paused", Case::MasterPaused),
    ("failover.graceful", Case::Graceful),
    ("failover.worker_killed", Case::WorkerKilled),
    ("failover.both_killed", Case::BothKilled),
    ("failover.master_killed_task", Case::MasterKilledTask),
];

/// The client has its session and has found the master before anything happens: what is measured is the failover.
async fn warm_up(client: &Client) -> Result<(), Diagnostic> {
    for _ in 0..3 {
        client.kv().put(KEY, "before").await?;
    }
    Ok(())
}

async fn to_next_write(rig: &mut Rig, harm: Harm) -> Result<Duration, Diagnostic> {
    warm_up(&rig.client).await?;
    let master = rig.master().await?;
    let client = rig.client.clone();
    let processes = rig.own_mut()?;
    let begin = Instant::now();
    match harm {
        Harm::Kill => processes.kill(master),
        Harm::Pause => processes.pause(master),
        Harm::Terminate => processes.ask_to_end(master),
    }
    let written = client.kv().put(KEY, "after").await;
    let span = begin.elapsed();
    processes.resume(master);
    written?;
    if let Harm::Terminate = harm {
        // It is started again only after it has ended by itself: that, too, belongs to the end of a node.
        let begin = Instant::now();
        while rig.own_mut()?.is_alive(master) && begin.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(span)
}

/// The writes before have gone on; now it is a task that is submitted at once.
async fn to_new_run(rig: &mut Rig) -> Result<Duration, Diagnostic> {
    warm_up(&rig.client).await?;
    let master = rig.master().await?;
    let ledger = new_ledger(rig)?;
    let exec = Exec { command: ["sh", "-c", &script(&ledger)].map(String::from).into(), ..Exec::default() };
    let begin = since_epoch();
    rig.own_mut()?.kill(master);
    let task = rig.client.submit_raw(KIND, exec.payload()).retries(5).await?.id();
    let result = until(|| !runs(&ledger).is_empty(), "the new task does not run").await;
    let first = runs(&ledger).first().copied().unwrap_or_default();
    rig.client.task(task).cancel("measured").await?;
    result?;
    Ok(first.saturating_sub(begin))
}

async fn to_next_run(rig: &mut Rig, on_master: bool) -> Result<Duration, Diagnostic> {
    warm_up(&rig.client).await?;
    let master = rig.master().await?;
    let node = rig.node(master).await?;
    let ledger = new_ledger(rig)?;
    let (task, runner) = placed(&rig.client, &node, on_master, &ledger).await?;
    until(|| runs(&ledger).len() == 1, "the first attempt does not run").await?;
    let place = place_of(rig, &runner).await?;
    let begin = since_epoch();
    rig.own_mut()?.kill(place);
    let result = until(|| runs(&ledger).len() >= 2, "the task does not run again").await;
    let again = runs(&ledger).get(1).copied().unwrap_or_default();
    rig.client.task(task).cancel("measured").await?;
    result?;
    Ok(again.saturating_sub(begin))
}

/// Submits tasks until one runs where it should; the others are ended.
async fn placed(client: &Client, master: &str, on_master: bool, ledger: &Path) -> Result<(TaskId, String), Diagnostic> {
    let script = script(ledger);
    let idle = Exec { command: ["sleep", "600"].map(String::from).into(), ..Exec::default() };
    // What takes the places where the measured task should not go.
    let mut fillers = Vec::new();
    let mut found = None;
    for _ in 0..PLACEMENTS_MAX {
        let filler = client.submit_raw(KIND, idle.payload()).retries(5).await?.id();
        let node = runner(client, filler).await?;
        fillers.push(filler);
        if (node == master) == on_master {
            // The next one would go elsewhere, so this one's place is given to the task.
            client.task(filler).cancel("makes room").await?;
            let exec = Exec { command: ["sh", "-c", &script].map(String::from).into(), ..Exec::default() };
            let task = client.submit_raw(KIND, exec.payload()).retries(5).await?.id();
            let node = runner(client, task).await?;
            if (node == master) == on_master {
                found = Some((task, node));
                break;
            }
            client.task(task).cancel("runs elsewhere").await?;
            std::fs::remove_file(ledger).ok();
        }
    }
    for filler in fillers {
        // The one that made room has ended already.
        client.task(filler).cancel("not needed").await.ok();
    }
    found.ok_or_else(|| Diagnostic::new(Code::Internal, "no task went where it should"))
}

/// The node that runs a task.
async fn runner(client: &Client, task: TaskId) -> Result<String, Diagnostic> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let TaskState::Assigned { node, .. } = client.task(task).view().await?.state {
            return Ok(node.to_string());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Diagnostic::new(Code::Timeout, format!("{task} is not assigned")))
}

async fn place_of(rig: &Rig, node: &str) -> Result<usize, Diagnostic> {
    for place in 0..rig.own()?.len() {
        if rig.node(place).await? == node {
            return Ok(place);
        }
    }
    Err(Diagnostic::new(Code::Internal, format!("no process is the node {node}")))
}

async fn until(is_so: impl Fn() -> bool, otherwise: &str) -> Result<(), Diagnostic> {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > PATIENCE {
            return Err(Diagnostic::new(Code::Timeout, format!("{otherwise} within {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// A file of its own for one round.
fn new_ledger(rig: &Rig) -> Result<PathBuf, Diagnostic> {
    Ok(rig.own()?.folder().join(format!("ledger-{:016x}", rand::random::<u64>())))
}

/// Says in the ledger when it began to run, and goes on for long.
fn script(ledger: &Path) -> String {
    format!("date +%s%N >> '{}'; exec sleep 600", ledger.display())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When attempts began to run, since the epoch of Unix.
fn runs(ledger: &Path) -> Vec<Duration> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    // A line that is being written has no end yet.
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n')?.parse().ok())
        .map(Duration::from_nanos)
        .collect()
}

const KEY: &str = "bench/failover";

const PLACEMENTS_MAX: usize = 12;

const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(2);
