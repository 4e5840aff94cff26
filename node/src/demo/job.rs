//! The job: one task per frame, and what became of each.
//!
//! # Invariants
//!
//! * A frame is one task, however often its submission had to be repeated.
//! * Results are read through whichever node answers; the node that recorded one may be dead by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::handler::KIND;
use super::picture;
use super::render::{FRAMES, Frame};
use crate::cli::{Code, Diagnostic, Patient};
use crate::http::decoded;

/// The tasks of all frames that were submitted so far.
#[derive(Debug)]
pub(super) struct Job {
    cluster: Patient,
    run: String,
    /// How many frames were submitted.
    submitted: u32,
}

/// How far the job is.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    /// Recorded and not ended, as far as is known here.
    pub(super) tasks: BTreeSet<String>,
    /// How many have ended.
    pub(super) ended: u32,
}

/// What became of one frame.
#[derive(Clone, Debug)]
pub(super) struct Result {
    pub(super) frame: u32,
    pub(super) task: String,
    /// The frame, or why there is none.
    pub(super) drawn: std::result::Result<Frame, String>,
}

impl Job {
    pub(super) fn new(cluster: Patient) -> Self {
        Self { cluster, run: format!("demo-{:032x}", rand::random::<u128>()), submitted: 0 }
    }

    /// Records tasks for the next `count` frames; returns the frame of each task.
    pub(super) async fn submit(&mut self, count: u32) -> std::result::Result<Vec<(u32, String)>, Diagnostic> {
        let frames: Vec<u32> =
            (self.submitted..(self.submitted + count).min(FRAMES)).map(|place| place * STRIDE % FRAMES).collect();
        let specs: Vec<Value> = frames
            .iter()
            .map(|frame| {
                json!({ "kind": KIND, "payload": frame, "retries": 3, "backoff_ms": 100, "once_key": format!("{}-{frame}", self.run) })
            })
            .collect();
        let answer = self.cluster.post("/v1/tasks:batch", &json!({ "tasks": specs })).await?;
        let ids: Vec<String> = answer["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|task| task["id"].as_str())
            .map(str::to_owned)
            .collect();
        if ids.len() != frames.len() {
            let message = format!("{} tasks were recorded for {} frames", ids.len(), frames.len());
            return Err(Diagnostic::new(Code::Internal, message));
        }
        self.submitted += count;
        Ok(frames.into_iter().zip(ids).collect())
    }
}

/// Waits for all tasks that come through `tasks` until it closes and all have ended. `open` shows those that have not.
pub(super) async fn collect(
    cluster: Patient,
    mut tasks: mpsc::Receiver<(u32, String)>,
    open: watch::Sender<Open>,
) -> std::result::Result<BTreeMap<u32, Result>, Diagnostic> {
    let mut waits = FuturesUnordered::new();
    let mut results = BTreeMap::new();
    let mut is_open = true;
    loop {
        tokio::select! {
            task = tasks.recv(), if is_open => match task {
                Some((frame, task)) => {
                    open.send_modify(|open| {
                        open.tasks.insert(task.clone());
                    });
                    waits.push(wait(&cluster, frame, task));
                }
                None => is_open = false,
            },
            Some(result) = waits.next() => {
                let result: Result = result?;
                open.send_modify(|open| {
                    open.tasks.remove(&result.task);
                    open.ended += 1;
                });
                results.insert(result.frame, result);
            }
            else => return Ok(results),
        }
    }
}

async fn wait(cluster: &Patient, frame: u32, task: String) -> std::result::Result<Result, Diagnostic> {
    let view = cluster.ended(&task).await?;
    let drawn = match view["state"].as_str() {
        Some("done") => match decoded(&view, "output") {
            // Reading a picture takes a moment of pure computing.
            Some(file) => tokio::task::block_in_place(|| picture::decode(&file)),
            None => Err("the result is not readable".to_owned()),
        },
        state => Err(format!("{}: {}", state.unwrap_or("?"), view["message"].as_str().unwrap_or("no message"))),
    };
    Ok(Result { frame, task, drawn })
}

/// What happened to a task, oldest first: the documents of its history.
pub(super) async fn history(cluster: &Patient, task: &str) -> std::result::Result<Vec<Value>, Diagnostic> {
    let mut view = cluster.get(&format!("/v1/tasks/{task}")).await?;
    Ok(view["history"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// Which of these tasks a node runs at this moment.
pub(super) async fn held(
    cluster: &Patient,
    tasks: &BTreeSet<String>,
    node: &str,
) -> std::result::Result<Vec<String>, Diagnostic> {
    let views = tasks.iter().map(|task| async move { cluster.get(&format!("/v1/tasks/{task}")).await });
    let views = futures_util::future::try_join_all(views).await?;
    let is_held = |view: &Value| view["state"] == "assigned" && view["node"] == node;
    Ok(tasks.iter().zip(views).filter(|(_, view)| is_held(view)).map(|(task, _)| task.clone()).collect())
}

/// How long the job goes on without any node that answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Neighbouring frames cost alike. In steps of this, which has no divisor in common with their number, cheap and dear ones
/// are mixed from the first task to the last.
const STRIDE: u32 = 29;
