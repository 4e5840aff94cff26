//! Clients that write and read a few keys all the time, and remember what they were told.
//!
//! What they saw must be what one register per key could have answered, whatever was done to the cluster meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use tenure::cli::{Cluster, Code, Request};
use tokio::task::JoinHandle;

use super::TestCluster;
use crate::linear::{Cas, Operation, What, is_linearizable};

/// Clients at work, each of which asks another node first.
pub struct Clients {
    clock: Arc<Clock>,
    clients: Vec<JoinHandle<History>>,
}

/// Operations and the key that each was about.
type History = Vec<(usize, Operation)>;

/// What all clients share.
struct Clock {
    begin: Instant,
    /// Every written value is another one.
    values: AtomicU64,
    /// How many operations had a known outcome.
    answers: AtomicU64,
    is_over: AtomicBool,
}

impl Clients {
    /// Lets them begin.
    pub fn start(cluster: &TestCluster) -> Self {
        let clock = Arc::new(Clock {
            begin: Instant::now(),
            values: AtomicU64::new(1),
            answers: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let addresses = cluster.processes.https();
        let clients = (0..CLIENTS)
            .map(|client| {
                let mut nodes = addresses.clone();
                let len = nodes.len();
                nodes.rotate_left(client % len);
                let clock = clock.clone();
                let cluster_of_client = Cluster::new(nodes).timeout(TRY);
                cluster.spawn(async move { drive(cluster_of_client, &clock, client as u64).await })
            })
            .collect();
        Self { clock, clients }
    }

    /// Waits until so many more operations had a known outcome.
    pub fn go_on(&self, cluster: &TestCluster, answers: u64) {
        let before = self.clock.answers.load(Ordering::SeqCst);
        cluster.until("clients get answers", || self.clock.answers.load(Ordering::SeqCst) >= before + answers);
    }

    /// Ends them and checks what they saw.
    pub fn check(self, cluster: &TestCluster) {
        self.clock.is_over.store(true, Ordering::SeqCst);
        let mut registers: Vec<Vec<Operation>> = vec![Vec::new(); KEYS];
        for client in self.clients {
            for (key, operation) in cluster.wait(client).expect("a client does not panic") {
                registers[key].push(operation);
            }
        }
        let unknown = registers.iter().flatten().filter(|operation| operation.end.is_none()).count();
        eprintln!("{} operations, {unknown} of unknown outcome", registers.iter().map(Vec::len).sum::<usize>());
        for (key, mut history) in registers.into_iter().enumerate() {
            history.sort_by_key(|operation| operation.begin);
            assert!(history.len() > 10, "key {key} was hardly used");
            assert!(is_linearizable(&history), "key {key}: {history:#?}");
        }
    }
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test is short")
    }
}

async fn drive(cluster: Cluster, clock: &Clock, seed: u64) -> History {
    let mut history = Vec::new();
    let mut last_seen = [None; KEYS];
    let mut step = seed * 7;
    while !clock.is_over.load(Ordering::SeqCst) {
        step += 1;
        let key = (step % KEYS as u64) as usize;
        let value = clock.values.fetch_add(1, Ordering::SeqCst);
        let begin = clock.now();
        let what = match (step / KEYS as u64 % 3, last_seen[key]) {
            (0, _) => put(&cluster, key, value).await,
            (1, Some(expect)) => cas(&cluster, key, value, expect).await,
            _ => get(&cluster, key).await,
        };
        let end = clock.now();
        if let Some((what, is_known)) = what {
            if let What::Get(Some((_, revision))) = what {
                last_seen[key] = Some(revision);
            }
            clock.answers.fetch_add(u64::from(is_known), Ordering::SeqCst);
            history.push((key, Operation { begin, end: is_known.then_some(end), what }));
        }
        // Slow enough that a history stays short enough to be judged.
        tokio::time::sleep(PAUSE).await;
    }
    history
}

fn path(key: usize) -> String {
    format!("/v1/kv/register-{key}")
}

/// What happened and whether its outcome is known; `None` if it certainly did not happen.
async fn put(cluster: &Cluster, key: usize, value: u64) -> Option<(What, bool)> {
    match cluster.send(Request::new(Method::PUT, path(key)).bytes(value.to_string())).await {
        Ok(reply) => Some((What::Put { value, revision: revision(&reply) }, true)),
        Err(error) => error.maybe_applied.then_some((What::Put { value, revision: None }, false)),
    }
}

async fn cas(cluster: &Cluster, key: usize, value: u64, expect: u64) -> Option<(What, bool)> {
    let request = Request::new(Method::PUT, path(key)).bytes(value.to_string()).header("if-match", &expect.to_string());
    let (outcome, is_known) = match cluster.send(request).await {
        Ok(reply) => (Cas::Done(revision(&reply)?), true),
        Err(error) if error.maybe_applied => (Cas::Unknown, false),
        Err(error) if error.code == Code::Conflict => (Cas::Refused, true),
        Err(_) => return None,
    };
    Some((What::Cas { expect, value, outcome }, is_known))
}

async fn get(cluster: &Cluster, key: usize) -> Option<(What, bool)> {
    match cluster.send(Request::get(path(key))).await {
        Ok(reply) => {
            let value = std::str::from_utf8(&reply.body).ok()?.parse().ok()?;
            Some((What::Get(Some((value, revision(&reply)?))), true))
        }
        Err(error) if error.code == Code::NotFound => Some((What::Get(None), true)),
        Err(_) => None,
    }
}

fn revision(reply: &tenure::cli::http::Reply) -> Option<u64> {
    reply.headers.get("x-revision")?.to_str().ok()?.parse().ok()
}

const CLIENTS: usize = 4;

const KEYS: usize = 8;

const TRY: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(5);
