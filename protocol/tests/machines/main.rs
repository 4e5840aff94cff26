//! Masters, workers and clients in a world of their own: links break, nodes die and come back, leadership moves, and the log
//! is one perfect state. What consensus does is tested elsewhere; here every fault is the fault of these three machines.
//!
//! A failing seed prints itself; `TENURE_SEED=7 cargo test -p tenure-protocol --test machines -- --nocapture` runs it alone.

#![allow(clippy::disallowed_methods)] // It is told its seed by the environment, which no machine has.

mod world;

use std::env;
use std::panic;

use world::World;

/// Runs one seed: faults and work at first, then work alone until everything is done.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run();
    world.check_end();
    world
}

#[test]
fn everything_asked_for_is_done_once_whatever_breaks() {
    if let Some(seed) = env::var("TENURE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{}", run(seed).summary());
        return;
    }
    let seeds = env::var("TENURE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    for seed in 1..=seeds {
        if let Err(cause) = panic::catch_unwind(|| run(seed)) {
            println!(
                "seed {seed} fails: TENURE_SEED={seed} cargo test -p tenure-protocol --test machines -- --nocapture"
            );
            panic::resume_unwind(cause);
        }
    }
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(run(1).summary(), run(1).summary());
}
