//! What the primitives cost, and how soon the cluster lets go of what a killed process held.
//!
//! | figure | what |
//! |---|---|
//! | `txn_1`, `txn_128` | transactions of one condition and two writes, one after the other and many at once |
//! | `watch.write_to_notify` | from the begin of a write through the master until a client that watches at a follower has the change |
//! | `session.holder_killed` | from `kill -9` to a client process until another client reads that its session is gone |
//! | `lock.handover.holder_killed` | from `kill -9` to the process that holds a lock until the next in line, in another process, holds it |
//! | `lock.handover.holder_frozen` | the same from SIGSTOP: nothing proves a death, so the session has to end by its time to live of 2 s |
//! | `session.open_256.per_s` | sessions opened by one client, 256 at once |
//! | `session.rss_each`, `watch.rss_each` | memory of the node that grew most, for each of ten thousand |
//! | `session.cpu` | processor time of the node that uses most, in percent of one, while one client renews ten thousand sessions |
//! | `watch.cpu` | the same while ten thousand watches wait, spread over three nodes, and nothing happens |

mod holder;
mod many;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::figure::{Figure, Latencies};
use super::load::Load;
use super::rig::Rig;
use crate::cli::{Code, Diagnostic, Output};
use crate::kv::{Watch, WatchEvent, put, rev_of};
use crate::{Client, Error};

pub use holder::{Holder, VERB, hold};

/// Measures all of it; what is killed or frozen `rounds` times.
pub(super) async fn measure(rounds: u32, length: Duration, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let rig = Rig::start(1).await?;
    let mut figures = transactions(&rig, length).await?;
    figures.extend(notifications(&rig, length).await?);
    figures.extend(holder::measure(&rig, rounds, output).await?);
    drop(rig);
    figures.extend(many::measure(length, output).await?);
    Ok(figures)
}

async fn transactions(rig: &Rig, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for width in [1, 128] {
        let name = format!("txn_{width}");
        let once = async |place: usize| {
            let key = |part: &str| format!("bench/{place}/{part}");
            let transaction = rig.client.kv().txn().when(rev_of(key("barred")).is_absent());
            transaction.then(put(key("one"), VALUE)).then(put(key("two"), VALUE)).await.map(drop)
        };
        figures.extend(Load { name: &name, width, length }.run(rig, once).await?);
    }
    Ok(figures)
}

/// Writes through the master, one after the other, and watches at another node.
async fn notifications(rig: &Rig, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let master = rig.master().await?;
    let follower = (master + 1) % rig.own()?.len();
    let (writer, watcher) = (rig.client_of(master).await?, rig.client_of(follower).await?);
    let watch = watcher.kv().watch(WATCHED).await?;
    let (sender, arrivals) = mpsc::channel(1);
    let told = tokio::spawn(note_arrivals(watch, sender));
    let latencies = write_and_wait(&writer, arrivals, length).await;
    told.abort();
    Ok(latencies?.figures("watch.write_to_notify").into())
}

/// Says when each change arrived, and asks for the next one at once: whoever writes finds the watch in its place.
async fn note_arrivals(mut watch: Watch, arrivals: mpsc::Sender<Result<Instant, Error>>) {
    while let Some(event) = watch.next().await {
        let arrival = match event {
            Ok(WatchEvent::Put { .. }) => Ok(Instant::now()),
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

async fn write_and_wait(
    writer: &Client,
    mut arrivals: mpsc::Receiver<Result<Instant, Error>>,
    length: Duration,
) -> Result<Latencies, Diagnostic> {
    let mut latencies = Latencies::new();
    let begin = Instant::now();
    // The first one finds connections and sessions: it is not counted.
    let mut is_first = true;
    while is_first || begin.elapsed() < length {
        let at = Instant::now();
        writer.kv().put(WATCHED, VALUE).await?;
        let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
        let late = || Diagnostic::new(Code::Deadline, "a watch is not told of a write");
        let arrival = arrival.ok().flatten().ok_or_else(late)??;
        if !is_first {
            latencies.add(arrival - at);
        }
        is_first = false;
    }
    Ok(latencies)
}

const WATCHED: &str = "bench/watched";

const PATIENCE: Duration = Duration::from_secs(30);

/// Like a small record.
const VALUE: &[u8] = &[b'v'; 256];
