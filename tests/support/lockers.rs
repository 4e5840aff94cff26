//! Clients that take a few locks, now and then as readers, give them back, and remember what they were told.
//!
//! What they saw must be what one lock per name could have answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use protocol::history::{History, Lock, LockAct, Timed};
use protocol::{ClaimId, Fence};
use serde_json::{Value, json};
use tenure::cli::{Cluster, Code, Request};
use tokio::task::JoinHandle;

use super::TestCluster;

/// Clients at work, each of which asks another node first.
pub struct Lockers {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Notes>>,
}

/// Acts and the lock that each was about.
type Notes = Vec<(usize, Timed<LockAct>)>;

/// What all of them share.
struct Shared {
    begin: Instant,
    /// How many claims nobody was told the name of.
    unnamed: AtomicU64,
    is_over: AtomicBool,
}

impl Lockers {
    /// Lets them begin.
    pub fn start(cluster: &TestCluster) -> Self {
        let shared =
            Arc::new(Shared { begin: Instant::now(), unnamed: AtomicU64::new(0), is_over: AtomicBool::new(false) });
        let clients = (0..)
            .zip(cluster.spread(CLIENTS))
            .map(|(client, nodes)| {
                let shared = shared.clone();
                cluster.spawn(async move { drive(nodes.timeout(TRY), &shared, client).await })
            })
            .collect();
        Self { shared, clients }
    }

    /// Ends them and checks what they saw.
    pub fn check(self, cluster: &TestCluster) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let mut history = History::default();
        for client in self.clients {
            for (lock, act) in cluster.wait(client).expect("a client does not panic") {
                history.add(lock, act);
            }
        }
        let acts = || history.iter().flat_map(|(_, acts)| acts);
        let grants = acts().filter(|act| act.end.is_some() && matches!(act.act, LockAct::Grant { .. })).count();
        eprintln!("{grants} grants, {} acts of unknown outcome", acts().filter(|act| act.end.is_none()).count());
        assert!(grants > 20, "locks were granted");
        assert_eq!(history.check(Lock::of), Ok(0), "every lock has an order");
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test is short")
    }
}

async fn drive(cluster: Cluster, shared: &Shared, client: usize) -> Notes {
    let mut notes = Vec::new();
    let mut session = None;
    for step in client.. {
        if shared.is_over.load(Ordering::SeqCst) {
            break;
        }
        let Some(owner) = open(&cluster, &mut session).await else { continue };
        let (lock, is_shared) = (step % LOCKS, step % 3 == 0);
        if !hold(&cluster, shared, &owner, (lock, is_shared), &mut notes).await {
            // What was claimed and is not known goes with its session.
            session = None;
            end(&cluster, &owner).await;
        }
        // Slow enough that a history stays short.
        tokio::time::sleep(PAUSE).await;
    }
    notes
}

/// The session in which claims are made.
async fn open(cluster: &Cluster, session: &mut Option<String>) -> Option<String> {
    if session.is_none() {
        let request = Request::post("/v1/sessions").json(&json!({ "ttl_ms": TTL_MS }));
        let opened = cluster.send(request).await.and_then(|reply| reply.json()).ok()?;
        *session = opened["session"].as_str().map(str::to_owned);
    }
    session.clone()
}

async fn end(cluster: &Cluster, session: &str) {
    let cluster = cluster.clone().patient();
    let request = || Request::new(Method::DELETE, format!("/v1/sessions/{session}")).repeatable();
    while cluster.send(request()).await.is_err_and(|error| error.code != Code::NotFound) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes a lock and gives it back; says whether it is known what became of that.
async fn hold(
    cluster: &Cluster,
    shared: &Shared,
    session: &str,
    (lock, is_shared): (usize, bool),
    notes: &mut Notes,
) -> bool {
    let path = format!("/v1/locks/lock-{lock}");
    let begin = shared.now();
    let claim = json!({ "session": session, "shared": is_shared, "wait_ms": WAIT_MS });
    let answer = cluster.send(Request::post(&path).json(&claim)).await.and_then(|reply| reply.json());
    let Some((claim, fence)) = answer.ok().as_ref().and_then(grant) else {
        // A node may have stood in line for us, and have been granted what it then gave back.
        let claim = ClaimId(u64::MAX - shared.unnamed.fetch_add(1, Ordering::SeqCst));
        notes.push((lock, Timed { begin, end: None, act: LockAct::Grant { claim, fence: None, is_shared } }));
        notes.push((lock, Timed { begin, end: None, act: LockAct::End(claim) }));
        return false;
    };
    let act = LockAct::Grant { claim, fence: Some(fence), is_shared };
    notes.push((lock, Timed { begin, end: Some(shared.now()), act }));
    tokio::time::sleep(PAUSE).await;

    let begin = shared.now();
    let request = Request::new(Method::DELETE, format!("{path}/claims/{claim}?session={session}")).repeatable();
    let is_known = cluster.clone().patient().send(request).await.is_ok();
    notes.push((lock, Timed { begin, end: is_known.then(|| shared.now()), act: LockAct::End(claim) }));
    is_known
}

fn grant(document: &Value) -> Option<(ClaimId, Fence)> {
    let claim = document["claim"].as_str()?.trim_start_matches('c').parse().ok()?;
    Some((ClaimId(claim), Fence(document["fence"].as_u64()?)))
}

const CLIENTS: usize = 4;

const LOCKS: usize = 2;

const TRY: Duration = Duration::from_secs(3);

const WAIT_MS: u64 = 1_000;

/// Longer than a test lasts: nobody renews.
const TTL_MS: u64 = 600_000;

const PAUSE: Duration = Duration::from_millis(20);
