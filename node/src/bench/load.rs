//! One operation over and over, so many at a time: how long each took, how many were done, and what that cost the nodes.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::figure::{Figure, Latencies};
use super::rig::Rig;
use super::usage::Usage;
use crate::Error;

/// A load and what it is called.
pub(super) struct Load<'a> {
    pub(super) name: &'a str,
    /// How many are under way at once.
    pub(super) width: usize,
    pub(super) length: Duration,
}

impl Load<'_> {
    /// Calls `once` with its place among the `width` until the time is over. A tenth of it before is not counted.
    pub(super) async fn run<F>(&self, rig: &Rig, once: impl Fn(usize) -> F) -> Result<Vec<Figure>, Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        self.repeat(self.length / 10, &once).await?;
        let before = rig.usage();
        let (latencies, took) = self.repeat(self.length, &once).await?;
        let used = rig.usage().zip(before).map(|(after, before)| after.since(before));
        let rate = latencies.count() as f64 / took.as_secs_f64();
        let mut figures = vec![Figure::new(format!("{}.per_s", self.name), rate, "1/s")];
        figures.extend(latencies.figures(self.name));
        figures.extend(used.into_iter().flat_map(|used: Usage| used.figures(self.name, latencies.count())));
        Ok(figures)
    }

    async fn repeat<F>(&self, length: Duration, once: &impl Fn(usize) -> F) -> Result<(Latencies, Duration), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let begin = Instant::now();
        let loops = (0..self.width).map(|place| async move {
            let mut latencies = Latencies::new();
            while begin.elapsed() < length {
                let at = Instant::now();
                once(place).await?;
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
}
