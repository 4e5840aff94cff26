//! What a node costs that has nothing to do, and how soon a fresh cluster takes its first write.
//!
//! | figure | what |
//! |---|---|
//! | `node.start_to_first_write` | from the start of three processes over empty folders until a client's write is acknowledged |
//! | `node.rss_idle` | memory in RAM, of the node that holds most |
//! | `node.cpu_idle` | processor time, in percent of one processor, of the node that uses most |
//! | `node.disk_idle` | bytes written per second, of the node that writes most |

use std::time::{Duration, Instant};

use super::figure::{Figure, median_and_max};
use super::rig::Rig;
use super::usage::{Usage, resident_mib};
use crate::cli::{Diagnostic, Output};

/// Measures all of it; the start `rounds` times.
pub(super) async fn measure(rounds: u32, length: Duration, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut spans = Vec::new();
    for round in 1..=rounds {
        let begin = Instant::now();
        let rig = Rig::spawn().await?;
        rig.client.kv().put("bench/first", "write").await?;
        spans.push(begin.elapsed());
        output.note(format!("{START} {round}/{rounds}: {:.0} ms", spans[spans.len() - 1].as_secs_f64() * 1000.0));
    }
    let mut figures = Vec::from(median_and_max(START, &spans));
    figures.extend(at_rest(length).await?);
    Ok(figures)
}

/// A cluster that has worked a little, and then rests.
async fn at_rest(length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let rig = Rig::start(1).await?;
    rig.client.kv().put("bench/idle", "begins").await?;
    // Whatever begins with a cluster is over by then.
    tokio::time::sleep(length.min(SETTLED)).await;
    let pids: Vec<u32> = (0..rig.own()?.len()).filter_map(|place| rig.own().ok()?.pid(place)).collect();
    let before: Vec<Usage> = pids.iter().map(|&pid| Usage::of(pid)).collect();
    let begin = Instant::now();
    tokio::time::sleep(length).await;
    let seconds = begin.elapsed().as_secs_f64();
    let used: Vec<Usage> = pids.iter().zip(&before).map(|(&pid, &before)| Usage::of(pid).since(before)).collect();
    let greatest = |of: &dyn Fn(&Usage) -> f64| used.iter().map(of).fold(f64::NAN, f64::max);
    let resident = pids.iter().filter_map(|&pid| resident_mib(pid)).fold(f64::NAN, f64::max);
    Ok(vec![
        Figure::new("node.rss_idle", resident, "MiB"),
        Figure::new("node.cpu_idle", greatest(&|used| used.cpu_us) / seconds / 1e4, "%"),
        Figure::new("node.disk_idle", greatest(&|used| used.disk) / seconds, "B/s"),
    ])
}

const START: &str = "node.start_to_first_write";

const SETTLED: Duration = Duration::from_secs(2);
