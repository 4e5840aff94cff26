//! Lines become tasks, and tasks come to an end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Line, Template};
use crate::builtin::exec::{Exec, KIND};
use crate::cli::{Code, Diagnostic, Patient};
use crate::http::decoded;

/// Records tasks.
pub(super) struct Submitter {
    pub(super) cluster: Patient,
    pub(super) template: Template,
    pub(super) folder: PathBuf,
    pub(super) retries: u32,
    pub(super) attempt_timeout: Duration,
    /// Names this run: no other run has the same once keys.
    pub(super) run: String,
    pub(super) open: Open,
}

/// The tasks that are recorded and have not ended, as far as is known here.
#[derive(Clone, Debug, Default)]
pub(super) struct Open(Arc<Mutex<BTreeSet<String>>>);

/// A recorded line. While it lives it counts as under way.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) line: Line,
    pub(super) id: String,
    permit: Option<OwnedSemaphorePermit>,
}

/// A line whose task has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) task: Task,
    pub(super) attempts: u64,
    /// What the command left behind, also if it failed.
    pub(super) output: Option<Vec<u8>>,
    pub(super) failure: Option<String>,
}

impl Submitter {
    /// Records a task for every line, as many as may be under way, in batches. When nobody takes `tasks` any more, it ends as soon as it is
    /// known what is recorded.
    pub(super) async fn submit_all(
        &self,
        lines: &mut mpsc::Receiver<Result<Line, Diagnostic>>,
        permits: &Arc<Semaphore>,
        tasks: mpsc::Sender<Task>,
    ) -> Result<(), Diagnostic> {
        loop {
            let next = async {
                match lines.recv().await? {
                    Ok(line) => Some(Ok((line, acquire(permits).await))),
                    Err(error) => Some(Err(error)),
                }
            };
            let first = tokio::select! {
                biased;
                () = tasks.closed() => None,
                next = next => next,
            };
            let Some(first) = first else { return Ok(()) };
            let mut batch = vec![first?];
            let mut size = 0;
            // Whatever more is there already and may be under way goes along; nothing waits to fill a batch.
            while batch.len() < BATCH_MAX && size < BATCH_BYTES {
                let Ok(permit) = permits.clone().try_acquire_owned() else { break };
                let Ok(line) = lines.try_recv() else { break };
                let line = match line {
                    Ok(line) => line,
                    Err(error) => {
                        self.submit(batch, &tasks).await?;
                        return Err(error);
                    }
                };
                size += line.text.len() + self.template_size();
                batch.push((line, permit));
            }
            self.submit(batch, &tasks).await?;
        }
    }

    async fn submit(
        &self,
        batch: Vec<(Line, OwnedSemaphorePermit)>,
        tasks: &mpsc::Sender<Task>,
    ) -> Result<(), Diagnostic> {
        let specs: Vec<Value> = batch.iter().map(|(line, _)| self.spec(line)).collect();
        let answer = self.cluster.post("/v1/tasks:batch", &json!({ "tasks": specs })).await?;
        let ids = answer["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        if ids.len() != batch.len() {
            let message = format!("{} tasks were recorded for {} lines", ids.len(), batch.len());
            return Err(Diagnostic::new(Code::Internal, message));
        }
        let ids: Vec<String> = ids.iter().map(|id| id["id"].as_str().unwrap_or_default().to_owned()).collect();
        self.open.lock().extend(ids.iter().cloned());
        for ((line, permit), id) in batch.into_iter().zip(ids) {
            // Nobody waits any more only if something else failed, which is reported there.
            let _ = tasks.send(Task { line, id, permit: Some(permit) }).await;
        }
        Ok(())
    }

    fn spec(&self, line: &Line) -> Value {
        let exec =
            Exec { command: self.template.fill(&line.text), folder: Some(self.folder.clone()), ..Exec::default() };
        json!({
            "kind": KIND,
            "payload": exec,
            "retries": self.retries,
            "backoff_ms": BACKOFF_MS,
            "timeout_ms": u64::try_from(self.attempt_timeout.as_millis()).unwrap_or(u64::MAX),
            "once_key": format!("{}-{}", self.run, line.number),
        })
    }

    fn template_size(&self) -> usize {
        self.template.fill("").iter().map(String::len).sum::<usize>() + self.folder.as_os_str().len() + FRAME_BYTES
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    permits.clone().acquire_owned().await.expect("it is never closed")
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// Waits for tasks.
pub(super) struct Waiter {
    pub(super) cluster: Patient,
    pub(super) open: Open,
}

impl Waiter {
    /// Ends what has not ended, as far as that is possible in a moment. Says how many tasks were ended and how many not.
    pub(super) async fn cancel_all(&self) -> (usize, usize) {
        let open = std::mem::take(&mut *self.open.lock());
        let count = open.len();
        let reason = json!({ "reason": "the `tenure map` that wanted it was interrupted" });
        let mut cancelled = 0;
        let all = async {
            let mut answers = stream::iter(open)
                .map(|task| {
                    let path = format!("/v1/tasks/{task}/cancel");
                    let reason = &reason;
                    async move {
                        let answer = self.cluster.post(&path, reason).await;
                        answer.map_or_else(|error| error.code == Code::Ended, |_| true)
                    }
                })
                .buffer_unordered(CANCELS_AT_ONCE);
            while let Some(is_done) = answers.next().await {
                cancelled += usize::from(is_done);
            }
        };
        // Whoever interrupts does not want to wait.
        let _ = tokio::time::timeout(CANCEL_PATIENCE, all).await;
        (cancelled, count - cancelled)
    }

    /// Waits until the task has ended, for as long as it takes. Then it no longer counts as under way.
    pub(super) async fn wait(&self, mut task: Task) -> Result<Ended, Diagnostic> {
        let view = self.cluster.ended(&task.id).await?;
        self.open.lock().remove(&task.id);
        task.permit = None;
        let state = view["state"].as_str().unwrap_or_default();
        let failure = (state != "done").then(|| match view["message"].as_str() {
            Some(message) => format!("{state}: {message}"),
            None => state.to_owned(),
        });
        Ok(Ended {
            attempts: view["attempts"].as_u64().unwrap_or_default(),
            output: decoded(&view, "output"),
            failure,
            task,
        })
    }
}

const BATCH_MAX: usize = 200;

/// All payloads of a batch go into one command of the log.
const BATCH_BYTES: usize = 512 * 1024;

/// What surrounds the words of a command in a payload, generously.
const FRAME_BYTES: usize = 128;

const BACKOFF_MS: u64 = 250;

const CANCELS_AT_ONCE: usize = 32;

const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::cli::Cluster;

    #[tokio::test]
    async fn what_was_on_its_way_when_nobody_wanted_more_is_known_by_its_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Cluster::new([listener.local_addr().unwrap().to_string()]);
        let (open, (tasks, nobody)) = (Open::default(), mpsc::channel(1));
        let node = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"]}") {
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            drop(nobody);
            let body = r#"{"tasks":[{"id":"t7"}]}"#;
            let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        });
        let submitter = Submitter {
            cluster: Patient::new(cluster, Duration::from_secs(60)),
            template: Template::new(vec!["echo".into()]),
            folder: PathBuf::from("/"),
            retries: 0,
            attempt_timeout: Duration::ZERO,
            run: "map".into(),
            open: open.clone(),
        };
        let (lines, mut read) = mpsc::channel(2);
        for number in 1..=2 {
            lines.send(Ok(Line { number, text: "a".into() })).await.unwrap();
        }
        // One line may be under way, and there will be more of them: it ends all the same.
        submitter.submit_all(&mut read, &Arc::new(Semaphore::new(1)), tasks).await.unwrap();
        assert_eq!(*open.lock(), BTreeSet::from(["t7".to_owned()]));
        node.join().unwrap();
        drop(lines);
    }
}
