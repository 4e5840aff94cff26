//! Deliberate bugs: the swarm must find every one of them, else it would not find the next real one either.
//!
//! `cargo test -p tenure-protocol --features mutants --test core every_deliberate_bug -- --nocapture`

use std::panic;

use protocol::consensus::Bug;

use crate::swarm::{Run, play};

/// Seeds that a bug may survive before the swarm counts as blind to it.
const SEEDS: u64 = 12_000;

#[test]
fn every_deliberate_bug_is_found() {
    panic::set_hook(Box::new(|_| {})); // Each is expected to break laws; the words are printed below.
    let mut survivors = Vec::new();
    let asked = std::env::var("TENURE_BUG").ok();
    for bug in Bug::ALL.into_iter().filter(|bug| asked.as_ref().is_none_or(|asked| format!("{bug:?}") == *asked)) {
        let mut steps = 0;
        let found = (0..SEEDS).find_map(|seed| {
            let mut run = Run::with_bug(seed, bug);
            // This one breaks no law but keeps a cluster from healing.
            run.must_heal = bug == Bug::IgnoresHigherEpochs;
            let outcome = play(run);
            outcome.map(|run| steps += run.world.steps).err().map(|why| (seed, why))
        });
        match found {
            Some((seed, why)) => println!("{bug:?}: seed {seed}, after {steps} steps: {why}"),
            None => survivors.push(bug),
        }
    }
    let _ = panic::take_hook();
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
