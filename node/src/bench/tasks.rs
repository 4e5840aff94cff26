//! Tasks that do nothing: what the cluster itself costs.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use protocol::state::TaskSpec;

use super::figure::{Figure, Latencies};
use crate::cli::Diagnostic;
use crate::{Client, Error};

/// Measures all of it.
pub(super) async fn measure(client: &Client, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for width in WIDTHS {
        let (latencies, took) = round_trips(client, width, length).await?;
        let name = format!("tasks.round_trip_{width}");
        figures.push(Figure::new(format!("{name}.rate"), latencies.count() as f64 / took.as_secs_f64(), "1/s"));
        figures.extend(latencies.figures(&name));
    }
    let (submit, finish) = batch(client).await?;
    figures.push(Figure::new("tasks.batch_submit.rate", f64::from(BATCH) / submit.as_secs_f64(), "1/s"));
    figures.push(Figure::new("tasks.batch_finish.rate", f64::from(BATCH) / finish.as_secs_f64(), "1/s"));
    Ok(figures)
}

/// Submits a task and waits for its result, over and over, `width` at a time.
async fn round_trips(client: &Client, width: usize, length: Duration) -> Result<(Latencies, Duration), Error> {
    let begin = Instant::now();
    let loops = (0..width).map(|_| async {
        let mut latencies = Latencies::new();
        while begin.elapsed() < length {
            let at = Instant::now();
            client.submit_raw(KIND, "").keep(KEEP).await?.result().await?;
            latencies.add(at.elapsed());
        }
        Ok::<_, Error>(latencies)
    });
    let mut all = Latencies::new();
    for latencies in try_join_all(loops).await? {
        all.merge(&latencies);
    }
    Ok((all, begin.elapsed()))
}

/// Records many tasks at once, and waits for all: how long the recording took, and the whole.
async fn batch(client: &Client) -> Result<(Duration, Duration), Error> {
    let begin = Instant::now();
    let spec = TaskSpec { keep: KEEP, ..TaskSpec::new(KIND, "") };
    let mut tasks = Vec::new();
    for _ in 0..BATCH / PIECE {
        tasks.extend(client.submit_all(vec![spec.clone(); PIECE as usize]).await?);
    }
    let submit = begin.elapsed();
    // In the order of submission: most have ended when they are asked for.
    stream::iter(tasks)
        .map(|task| async move { client.task(task.task).result().await })
        .buffered(WAITS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok((submit, begin.elapsed()))
}

const KIND: &str = "tenure.noop";

const WIDTHS: [usize; 2] = [1, 64];

const BATCH: u32 = 5000;

const PIECE: u32 = 500;

const WAITS: usize = 64;

/// Long enough to be read, short enough not to fill the cluster.
const KEEP: Duration = Duration::from_secs(120);
