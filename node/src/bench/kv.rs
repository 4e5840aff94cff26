//! Reads and writes of keys, one after the other and many at once.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::figure::{Figure, Latencies};
use crate::cli::Diagnostic;
use crate::{Client, Error};

/// Measures all of it.
pub(super) async fn measure(client: &Client, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (kind, name) in [(Kind::Put, "put"), (Kind::Get, "get"), (Kind::GetStale, "get_stale")] {
        for width in WIDTHS {
            let (latencies, took) = repeat(client, kind, width, length).await?;
            let name = format!("kv.{name}_{width}");
            figures.push(Figure::new(format!("{name}.rate"), latencies.count() as f64 / took.as_secs_f64(), "1/s"));
            figures.extend(latencies.figures(&name));
        }
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Get,
    GetStale,
}

/// Does the same over and over, `width` at a time.
async fn repeat(client: &Client, kind: Kind, width: usize, length: Duration) -> Result<(Latencies, Duration), Error> {
    let begin = Instant::now();
    let loops = (0..width).map(|place| async move {
        let (kv, key) = (client.kv(), format!("bench/{place}"));
        let mut latencies = Latencies::new();
        while begin.elapsed() < length {
            let at = Instant::now();
            match kind {
                Kind::Put => drop(kv.put(key.as_str(), VALUE).await?),
                Kind::Get => drop(kv.get(key.as_str()).await?),
                Kind::GetStale => drop(kv.get_stale(key.as_str()).await?),
            }
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

/// How many calls are under way at once.
const WIDTHS: [usize; 3] = [1, 64, 512];

/// A hundred bytes, like a small record.
const VALUE: &[u8] = &[b'v'; 100];
