//! Keys under fire: what several clients saw while masters died must be what one register could have answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use tenure::cli::{Cluster, Code, Request};

use crate::linear::{Cas, Operation, What, is_linearizable};
use crate::support::TestCluster;

#[test]
fn what_clients_see_of_keys_while_masters_die_is_linearizable() {
    let mut cluster = TestCluster::start();
    let clock = Arc::new(Clock { begin: Instant::now(), values: AtomicU64::new(1), is_over: AtomicBool::new(false) });
    let addresses = cluster.processes.https();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            // Every client asks another node first.
            let mut nodes = addresses.clone();
            let len = nodes.len();
            nodes.rotate_left(client % len);
            let (clock, seed) = (clock.clone(), client as u64);
            cluster.spawn(async move { drive(Cluster::new(nodes).timeout(TRY), &clock, seed).await })
        })
        .collect();
    let (mut master, mut epoch) = cluster.master_after(0);
    for harm in [Harm::Kill, Harm::Pause, Harm::Kill] {
        let before = clock.values.load(Ordering::SeqCst);
        cluster.until("clients are at work", || clock.values.load(Ordering::SeqCst) > before + 60);
        match harm {
            Harm::Kill => cluster.processes.kill(master),
            Harm::Pause => cluster.processes.pause(master),
        }
        let next = cluster.master_after(epoch);
        let after = clock.values.load(Ordering::SeqCst);
        cluster.until("clients are at work again", || clock.values.load(Ordering::SeqCst) > after + 60);
        match harm {
            Harm::Kill => cluster.processes.restart(master).expect("it starts again"),
            Harm::Pause => cluster.processes.resume(master),
        }
        cluster.ready();
        (master, epoch) = next;
        if !cluster.status(master).is_some_and(|status| status["role"] == "leader") {
            (master, epoch) = cluster.master_after(0);
        }
    }
    clock.is_over.store(true, Ordering::SeqCst);
    let mut registers: Vec<Vec<Operation>> = vec![Vec::new(); KEYS];
    for client in clients {
        for (key, operation) in cluster.wait(client).expect("a client does not panic") {
            registers[key].push(operation);
        }
    }
    for (key, mut history) in registers.into_iter().enumerate() {
        history.sort_by_key(|operation| operation.begin);
        eprintln!(
            "key {key}: {} operations, {} of unknown outcome",
            history.len(),
            history.iter().filter(|operation| operation.end.is_none()).count()
        );
        assert!(history.len() > 50, "key {key} was hardly used");
        assert!(is_linearizable(&history), "key {key}: {history:#?}");
    }
}

enum Harm {
    Kill,
    Pause,
}

/// What all clients share.
struct Clock {
    begin: Instant,
    /// Every written value is another one.
    values: AtomicU64,
    is_over: AtomicBool,
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test is short")
    }
}

async fn drive(cluster: Cluster, clock: &Clock, seed: u64) -> Vec<(usize, Operation)> {
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

const CLIENTS: usize = 3;

const KEYS: usize = 3;

const TRY: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(10);
