//! Many seeds on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::options::Options;
use crate::run::{Report, run};

/// Runs all seeds, prints what they came to, and fails if one of them did.
pub fn run_all(seeds: Range<u64>, draw: impl Fn(u64) -> Options + Sync) {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new((Report::default(), Vec::new()));
    let spent = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(16));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        spent.fetch_add(cpu_nanos(), Ordering::Relaxed);
                        return;
                    }
                    let outcome = run(seed, draw(seed), false);
                    let mut all = all.lock().expect("no holder of the lock panics");
                    match outcome {
                        Ok(report) => all.0.add(&report),
                        Err(why) => {
                            println!("seed {seed} {why}\n    {}", replay(seed));
                            all.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let (sum, failed) = all.into_inner().expect("no holder of the lock panics");
    let seconds = spent.into_inner() as f64 / 1e9;
    println!(
        "{} seeds, {:.0} simulated seconds, {} steps, {:.0} steps per CPU-second, {seconds:.1} CPU-seconds, {} violations",
        seeds.end - seeds.start,
        sum.nanos as f64 / 1e9,
        sum.steps,
        sum.steps as f64 / seconds.max(1e-9),
        failed.len()
    );
    println!("{sum:?}");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

/// The line that tells the story of a seed.
pub fn replay(seed: u64) -> String {
    format!("TENURE_SEED={seed} cargo test -p tenure-protocol --test cluster replay -- --nocapture")
}

/// For how long this thread has run.
#[cfg(feature = "mutants")]
pub fn cpu_seconds() -> f64 {
    cpu_nanos() as f64 / 1e9
}

/// For how long this thread has run; zero where the system does not say.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.nanos += other.nanos;
        self.steps += other.steps;
        self.trace ^= other.trace;
        self.committed += other.committed;
        self.tasks += other.tasks;
        self.leaders += other.leaders;
        self.taken_back += other.taken_back;
        self.lost += other.lost;
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.unjudged += other.unjudged;
        self.grants += other.grants;
        self.worked += other.worked;
        self.watched += other.watched;
    }
}
