//! Tasks that do nothing: what the cluster itself costs.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use protocol::state::TaskSpec;

use super::figure::Figure;
use super::load::Load;
use super::rig::Rig;
use crate::cli::Diagnostic;
use crate::{Client, Error};

/// Measures all of it.
pub(super) async fn measure(rig: &Rig, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for width in WIDTHS {
        let name = format!("tasks.{width}");
        let load = Load { name: &name, width, length };
        // From the submission to the moment when the result is known.
        let once = async |_| rig.client.submit_raw(KIND, "").keep(KEEP).await?.result().await.map(drop);
        figures.extend(load.run(rig, once).await?);
    }
    let (submit, finish) = batch(&rig.client).await?;
    figures.push(Figure::new("tasks.batch_submit.per_s", f64::from(BATCH) / submit.as_secs_f64(), "1/s"));
    figures.push(Figure::new("tasks.batch_finish.per_s", f64::from(BATCH) / finish.as_secs_f64(), "1/s"));
    Ok(figures)
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

const WIDTHS: [usize; 2] = [1, 256];

const BATCH: u32 = 5000;

const PIECE: u32 = 500;

const WAITS: usize = 64;

/// Long enough to be read, short enough not to fill the cluster.
const KEEP: Duration = Duration::from_secs(120);
