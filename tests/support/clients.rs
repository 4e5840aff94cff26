//! Clients that write and read a few keys all the time, and remember what they were told.
//!
//! What they saw must be what one register per key could have answered, whatever was done to the cluster meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use protocol::Revision;
use protocol::history::{History, Register, RegisterAct, Timed, WriteAnswer};
use protocol::state::Expect;
use tenure::cli::{Cluster, Code, Request};
use tokio::task::JoinHandle;

use super::TestCluster;

/// Clients at work, each of which asks another node first.
pub struct Clients {
    clock: Arc<Clock>,
    clients: Vec<JoinHandle<Notes>>,
}

/// Acts and the key that each was about.
type Notes = Vec<(usize, Timed<RegisterAct>)>;

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
        let clients = (0..)
            .zip(cluster.spread(CLIENTS))
            .map(|(client, nodes)| {
                let clock = clock.clone();
                cluster.spawn(async move { drive(nodes.timeout(TRY), &clock, client).await })
            })
            .collect();
        Self { clock, clients }
    }

    /// Waits until so many more operations had a known outcome.
    pub fn go_on(&self, cluster: &TestCluster, answers: u64) {
        let before = self.clock.answers.load(Ordering::SeqCst);
        cluster.until("clients get answers", || self.clock.answers.load(Ordering::SeqCst) >= before + answers);
    }

    /// Waits for as many more answers as are twenty for each key, ends them and checks what they saw.
    pub fn check(self, cluster: &TestCluster) {
        self.go_on(cluster, 20 * KEYS as u64);
        self.clock.is_over.store(true, Ordering::SeqCst);
        let mut history = History::default();
        for client in self.clients {
            for (key, act) in cluster.wait(client).expect("a client does not panic") {
                history.add(key, act);
            }
        }
        let unknown = history.iter().flat_map(|(_, acts)| acts).filter(|act| act.end.is_none()).count();
        eprintln!("{} acts, {unknown} of unknown outcome", history.len());
        assert!(history.iter().all(|(_, acts)| acts.len() > 10), "each key was used");
        assert_eq!(history.check(Register::of), Ok(0), "every key has an order");
    }
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test is short")
    }
}

async fn drive(cluster: Cluster, clock: &Clock, seed: u64) -> Notes {
    let mut notes = Vec::new();
    let mut last_seen = [None; KEYS];
    let mut step = seed * 7;
    while !clock.is_over.load(Ordering::SeqCst) {
        step += 1;
        let key = (step % KEYS as u64) as usize;
        let value = clock.values.fetch_add(1, Ordering::SeqCst);
        let begin = clock.now();
        let seen = match (step / KEYS as u64 % 3, last_seen[key]) {
            (0, _) => put(&cluster, key, value).await,
            (1, Some(expect)) => cas(&cluster, key, value, expect).await,
            _ => get(&cluster, key).await,
        };
        let end = clock.now();
        if let Some((act, is_known)) = seen {
            if let RegisterAct::Read(Some((_, revision))) = act {
                last_seen[key] = Some(revision);
            }
            clock.answers.fetch_add(u64::from(is_known), Ordering::SeqCst);
            notes.push((key, Timed { begin, end: is_known.then_some(end), act }));
        }
        // Slow enough that a history stays short.
        tokio::time::sleep(PAUSE).await;
    }
    notes
}

fn path(key: usize) -> String {
    format!("/v1/kv/register-{key}")
}

/// What happened and whether its outcome is known; `None` if it certainly did not happen.
async fn put(cluster: &Cluster, key: usize, value: u64) -> Option<(RegisterAct, bool)> {
    let request = Request::new(Method::PUT, path(key)).bytes(value.to_string());
    write(cluster, request, value, Expect::Any).await
}

async fn cas(cluster: &Cluster, key: usize, value: u64, expect: Revision) -> Option<(RegisterAct, bool)> {
    let request = Request::new(Method::PUT, path(key)).bytes(value.to_string());
    let request = request.header("if-match", &expect.0.to_string());
    write(cluster, request, value, Expect::Revision(expect)).await
}

async fn write(cluster: &Cluster, request: Request, value: u64, expect: Expect) -> Option<(RegisterAct, bool)> {
    let answer = match cluster.send(request).await {
        Ok(reply) => WriteAnswer::Done(revision(&reply)?),
        Err(error) if error.maybe_applied => WriteAnswer::Unknown,
        Err(error) if error.code == Code::Conflict => WriteAnswer::Conflict(None),
        Err(_) => return None,
    };
    Some((RegisterAct::Write { value: Some(value), expect, answer }, answer != WriteAnswer::Unknown))
}

async fn get(cluster: &Cluster, key: usize) -> Option<(RegisterAct, bool)> {
    match cluster.send(Request::get(path(key))).await {
        Ok(reply) => {
            let value = std::str::from_utf8(&reply.body).ok()?.parse().ok()?;
            Some((RegisterAct::Read(Some((value, revision(&reply)?))), true))
        }
        Err(error) if error.code == Code::NotFound => Some((RegisterAct::Read(None), true)),
        Err(_) => None,
    }
}

fn revision(reply: &tenure::cli::http::Reply) -> Option<Revision> {
    reply.headers.get("x-revision")?.to_str().ok()?.parse().ok().map(Revision)
}

const CLIENTS: usize = 4;

const KEYS: usize = 8;

const TRY: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(5);
