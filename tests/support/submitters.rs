//! Clients that submit tasks, look at them and cancel some, and remember what they were told.
//!
//! What they saw, and what the ledger says of starts, must be what one task per id could have answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::history::{CancelAnswer, Ending, History, Standing, Task, TaskAct, Timed};
use protocol::state::Delivery;
use protocol::types::Fence;
use serde_json::{Value, json};
use tenure::cli::{Cluster, Code, Diagnostic, Request};
use tokio::task::JoinHandle;

use super::{Ledger, TestCluster};

/// Clients at work, each of which asks another node first.
pub struct Submitters {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Notes>>,
}

/// What all of them share.
struct Shared {
    begin: Instant,
    tokens: AtomicU64,
    starts: Ledger,
    is_over: AtomicBool,
}

/// What one of them saw.
#[derive(Default)]
struct Notes {
    acts: Vec<(String, Timed<TaskAct>)>,
    /// Submissions of unknown outcome by the token that their script writes.
    doubtful: Vec<(u64, Timed<TaskAct>)>,
    /// The tasks that were acknowledged.
    tasks: Vec<String>,
}

impl Submitters {
    /// Lets them begin.
    pub fn start(cluster: &TestCluster) -> Self {
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            tokens: AtomicU64::new(1),
            starts: cluster.ledger("starts"),
            is_over: AtomicBool::new(false),
        });
        let clients = cluster
            .spread(CLIENTS)
            .map(|nodes| {
                let shared = shared.clone();
                cluster.spawn(async move { drive(nodes.timeout(TRY), &shared).await })
            })
            .collect();
        Self { shared, clients }
    }

    /// Ends them, waits for all tasks that were acknowledged, and checks what was seen.
    pub fn check(self, cluster: &TestCluster) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let (mut history, mut doubtful, mut tasks) = (History::default(), BTreeMap::new(), Vec::new());
        for client in self.clients {
            let notes = cluster.wait(client).expect("a client does not panic");
            notes.acts.into_iter().for_each(|(task, act)| history.add(task, act));
            doubtful.extend(notes.doubtful);
            tasks.extend(notes.tasks);
        }
        assert!(tasks.len() > 10, "tasks were submitted");
        eprintln!("{} tasks, {} submissions of unknown outcome", tasks.len(), doubtful.len());
        for task in tasks {
            let begin = self.shared.now();
            let act = TaskAct::Look(Some(standing(&cluster.ended(&task))));
            history.add(task, Timed { begin, end: Some(self.shared.now()), act });
        }
        for line in self.shared.starts.lines() {
            let (token, task, start) = parse_start(&line).unwrap_or_else(|| panic!("in the ledger: {line}"));
            if let Some(submit) = doubtful.remove(&token) {
                history.add(task.clone(), submit);
            }
            // The ledger does not know when.
            history.add(task, Timed { begin: 0, end: Some(u64::MAX), act: start });
        }
        assert_eq!(history.check(|_| Task), Ok(0), "every task has an order");
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test is short")
    }
}

async fn drive(cluster: Cluster, shared: &Shared) -> Notes {
    let mut notes = Notes::default();
    for step in 0_usize.. {
        if shared.is_over.load(Ordering::SeqCst) {
            break;
        }
        let recent = notes.tasks.len().checked_sub(1 + step % 4).map(|place| notes.tasks[place].clone());
        match (step % 5, recent) {
            (1 | 2, Some(task)) => look(&cluster, shared, task, &mut notes).await,
            (3, Some(task)) if step % 3 == 0 => cancel(&cluster, shared, task, &mut notes).await,
            _ => submit(&cluster, shared, step % 2 == 0, &mut notes).await,
        }
        // Slow enough that the nodes keep up.
        tokio::time::sleep(PAUSE).await;
    }
    notes
}

async fn submit(cluster: &Cluster, shared: &Shared, is_once: bool, notes: &mut Notes) {
    let token = shared.tokens.fetch_add(1, Ordering::SeqCst);
    let line = format!("{token} $TENURE_TASK $TENURE_ATTEMPT $TENURE_FENCE");
    let script = format!("{}; echo $TENURE_FENCE", shared.starts.append(&line));
    let name = if is_once { "at-most-once" } else { "at-least-once" };
    let task = json!({ "kind": "exec", "payload": { "command": ["sh", "-c", script] }, "delivery": name });
    let begin = shared.now();
    let answer = cluster.send(Request::post("/v1/tasks").json(&task)).await;
    let end = shared.now();
    let act = TaskAct::Submit(if is_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce });
    match answer.map(|reply| reply.json()) {
        Ok(Ok(document)) => {
            let task = document["id"].as_str().expect("a task has an id").to_owned();
            notes.tasks.push(task.clone());
            notes.acts.push((task, Timed { begin, end: Some(end), act }));
        }
        Err(error) if !error.maybe_applied => {}
        _ => notes.doubtful.push((token, Timed { begin, end: None, act })),
    }
}

async fn look(cluster: &Cluster, shared: &Shared, task: String, notes: &mut Notes) {
    let begin = shared.now();
    let seen = match cluster.send(Request::get(format!("/v1/tasks/{task}"))).await {
        Ok(reply) => Some(standing(&reply.json().expect("a task is JSON"))),
        Err(Diagnostic { code: Code::NotFound, .. }) => None,
        Err(_) => return,
    };
    notes.acts.push((task, Timed { begin, end: Some(shared.now()), act: TaskAct::Look(seen) }));
}

async fn cancel(cluster: &Cluster, shared: &Shared, task: String, notes: &mut Notes) {
    let begin = shared.now();
    let request = Request::post(format!("/v1/tasks/{task}/cancel")).json(&json!({ "reason": "no use" }));
    let answer = match cluster.send(request).await {
        Ok(_) => CancelAnswer::Done,
        Err(error) if error.maybe_applied => CancelAnswer::Unknown,
        Err(Diagnostic { code: Code::Ended, .. }) => CancelAnswer::Ended,
        Err(_) => return,
    };
    let end = (answer != CancelAnswer::Unknown).then(|| shared.now());
    notes.acts.push((task, Timed { begin, end, act: TaskAct::Cancel(answer) }));
}

/// Where a task stands; its result is the fence of the attempt that was recorded.
fn standing(task: &Value) -> Standing {
    Standing::Ended(match task["state"].as_str().expect("a task has a state") {
        "pending" | "assigned" => {
            let attempts = task["attempts"].as_u64().and_then(|count| count.try_into().ok());
            return Standing::Live(attempts.expect("attempts are counted"));
        }
        "done" => Ending::Done(Fence(printed(task).unwrap_or_else(|| panic!("no fence was printed: {task}")))),
        "failed" => Ending::Failed,
        "cancelled" => Ending::Cancelled,
        "lost" => Ending::Lost,
        other => panic!("no state {other}"),
    })
}

fn printed(task: &Value) -> Option<u64> {
    let output: Value = serde_json::from_str(task["output"].as_str()?).ok()?;
    output["stdout"].as_str()?.trim().parse().ok()
}

/// The token, the task and the start that a line of the ledger names.
fn parse_start(line: &str) -> Option<(u64, String, TaskAct)> {
    let mut words = line.split(' ');
    let (token, task, attempt, fence) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let number = attempt.rsplit_once('#')?.1.parse().ok()?;
    Some((token.parse().ok()?, task.to_owned(), TaskAct::Start { number, fence: Fence(fence.parse().ok()?) }))
}

const CLIENTS: usize = 3;

const TRY: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(50);
