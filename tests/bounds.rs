//! How much memory a node holds for others: bounded, whoever is frozen and however much is asked of it at once.
//!
//! What a node is asked to keep (keys, results) is its state and has limits of its own; the loads here keep that small, so that what
//! grows is queues, and the backlog of tasks.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tenure::{Client, Error};

use crate::support::TestCluster;

#[test]
fn a_frozen_peer_costs_the_others_no_memory() {
    let mut cluster = TestCluster::start();
    let client = cluster.library();
    let (master, _) = cluster.master_after(0);
    let frozen = (master + 1) % 3;
    // What allocators and caches take once is taken before.
    cluster.wait(load(&client, WARM_UP));
    let before = Memory::of_others(&cluster, frozen);
    cluster.processes.pause(frozen);
    let (answered, busy) = cluster.wait(load(&client, freeze()));
    let after = Memory::of_others(&cluster, frozen);
    cluster.processes.resume(frozen);
    eprintln!("frozen for {:?}: {answered} writes, {busy} refused as busy; {}", freeze(), after.growth(&before));
    assert!(answered > 100, "two of three go on");
    after.check(&before);
    cluster.ready();
    cluster.put("thawed", "yes").expect("all are back");
}

#[test]
fn a_million_submits_at_once_are_refused_or_done_and_cost_no_memory() {
    let cluster = TestCluster::with(|settings| settings.slots = 64);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| cluster.library()).collect();
    cluster.wait(load(&clients[0], WARM_UP));
    let before = Memory::of_others(&cluster, usize::MAX);
    let offers = clients.iter().map(|client| submit_all_at_once(client, OFFERED / CLIENTS));
    let counts = cluster.wait(futures_util::future::join_all(offers));
    let after = Memory::of_others(&cluster, usize::MAX);
    let (recorded, busy) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    eprintln!("{OFFERED} offered: {recorded} recorded, {busy} refused as busy; {}", after.growth(&before));
    assert_eq!(recorded + busy, OFFERED);
    assert!(recorded > 1000 && busy > 1000, "{recorded} recorded, {busy} busy");
    after.check(&before);
    cluster.until("every task that was recorded has ended", || {
        let counts = cluster.status(0).map(|status| status["tasks"].clone()).unwrap_or_default();
        counts["pending"] == 0 && counts["assigned"] == 0
    });
}

/// Begins all of them before it waits for any.
async fn submit_all_at_once(client: &Client, count: usize) -> (usize, usize) {
    let (mut recorded, mut busy) = (0, 0);
    let mut judge = |result: Result<(), Error>| match result {
        Ok(()) => recorded += 1,
        Err(Error::Busy) => busy += 1,
        Err(error) => panic!("{error:?}"),
    };
    let mut under_way = FuturesUnordered::new();
    for number in 0..count {
        let submit = client.submit_raw("tenure.noop", "").keep(Duration::from_millis(1));
        under_way.push(async move { submit.await.map(drop) });
        // The first look at each is what offers it.
        if let std::task::Poll::Ready(Some(result)) = futures_util::poll!(under_way.next()) {
            judge(result);
        }
        if number % 1000 == 999 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(result) = under_way.next().await {
        judge(result);
    }
    (recorded, busy)
}

/// Many writers of a few keys at once: how many writes were answered, and how many refused because too much was under way.
async fn load(client: &Client, length: Duration) -> (usize, usize) {
    let begin = Instant::now();
    let writers = (0..WRITERS).map(|writer| async move {
        let (kv, key, mut counts) = (client.kv(), format!("bounds/{}", writer % 64), (0, 0));
        while begin.elapsed() < length {
            match kv.put(key.as_str(), VALUE).await {
                Ok(_) => counts.0 += 1,
                Err(Error::Busy) => counts.1 += 1,
                Err(error) => panic!("{error:?}"),
            }
            // The log keeps what was written for a while: that is memory, too, and no queue.
            tokio::time::sleep(PAUSE).await;
        }
        counts
    });
    let counts = futures_util::future::join_all(writers).await;
    counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
}

/// What processes hold resident, in KiB.
struct Memory(Vec<u64>);

impl Memory {
    fn of_others(cluster: &TestCluster, but: usize) -> Self {
        let pids = (0..3).filter(|place| *place != but).filter_map(|place| cluster.processes.pid(place));
        Self(pids.map(resident).collect())
    }

    fn growth(&self, before: &Self) -> String {
        let pairs = self.0.iter().zip(&before.0);
        let each: Vec<String> = pairs
            .map(|(after, before)| format!("{} + {}", before / 1024, after.saturating_sub(*before) / 1024))
            .collect();
        format!("MiB resident: {}", each.join(", "))
    }

    fn check(&self, before: &Self) {
        let is_small = |(after, before): (&u64, &u64)| after.saturating_sub(*before) <= GROWTH_MAX;
        assert!(self.0.iter().zip(&before.0).all(is_small), "{}", self.growth(before));
    }
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// How long a peer is frozen: a minute before a release (`TENURE_FREEZE_S=60`), less on every change.
fn freeze() -> Duration {
    let seconds = std::env::var("TENURE_FREEZE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

const OFFERED: usize = 1_000_000;

const WARM_UP: Duration = Duration::from_secs(2);

/// More than one session takes at once.
const WRITERS: usize = 1024;

const PAUSE: Duration = Duration::from_millis(250);

const VALUE: &[u8] = &[b'v'; 256];

/// Each has a session of its own, and so may have 512 requests under way.
const CLIENTS: usize = 16;

/// In KiB: what all queues of a node together may hold, the backlog of tasks included.
const GROWTH_MAX: u64 = 64 * 1024;
