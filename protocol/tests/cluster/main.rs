//! Whole nodes in a virtual world: every machine, the real routing, and all the weather that a network, a disk and a clock
//! can make, with every invariant checked after every step.
//!
//! `TENURE_SEEDS=500 cargo test -p tenure-protocol --test cluster swarm -- --nocapture` runs that many seeds, and
//! `TENURE_SEED=123 cargo test -p tenure-protocol --test cluster replay -- --nocapture` tells the story of one.
//! With `TENURE_TRACE=1` the story has every heartbeat.

#![allow(clippy::disallowed_methods)] // The machines have no environment and no threads; their test has both.
#![allow(dead_code)] // Parts of the shared dice are for other tests.

mod beginning;
mod book;
mod check;
mod claims;
#[path = "../core/dice.rs"]
mod dice;
mod faults;
mod guards;
mod host;
mod keys;
mod locks;
#[cfg(feature = "mutants")]
mod mutants;
mod net;
mod options;
mod oracle;
mod queue;
mod rights;
mod run;
mod script;
mod sessions;
mod swarm;
mod travel;
mod witness;
mod work;
mod world;

use options::Options;

#[test]
fn a_calm_cluster_elects_replicates_and_runs_tasks() {
    for nodes in [1, 3, 5] {
        let report = run::run(nodes as u64, Options::calm(nodes), false).expect("nothing goes wrong in calm weather");
        assert!(report.tasks > 10 && report.answered > 10 * report.unanswered, "{report:?}");
    }
}

#[test]
fn replay() {
    let Some(seed) = number("TENURE_SEED") else { return };
    #[cfg(feature = "mutants")]
    protocol::mutants::set(mutants::asked());
    let report = run::run(seed, Options::draw(seed), true);
    println!("{:#?}", Options::draw(seed));
    println!("{:#?}", report.unwrap_or_else(|why| panic!("seed {seed} {why}")));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn swarm() {
    let count = number("TENURE_SEEDS").unwrap_or(300);
    let first = number("TENURE_FIRST_SEED").unwrap_or(0);
    swarm::run_all(first..first + count, Options::draw);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 17] {
        let once = run::run(seed, Options::draw(seed), false);
        assert_eq!(once, run::run(seed, Options::draw(seed), false));
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    let text = include_str!("seeds.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for seed in lines.filter_map(|line| line.split_whitespace().next()) {
        let seed: u64 = seed.parse().expect("a line of seeds.txt begins with a seed");
        let outcome = run::run(seed, Options::draw(seed), false);
        assert!(outcome.is_ok(), "seed {seed} {}\n    {}", outcome.unwrap_err(), swarm::replay(seed));
    }
}
