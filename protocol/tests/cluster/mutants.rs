//! Deliberate bugs in the machines: the swarm must find every one of them, else it would not find the next real one either.
//!
//! `cargo test -p tenure-protocol --features mutants --test cluster every_deliberate_bug -- --nocapture`; with
//! `TENURE_BUG=StartsTwice` it looks for that one only.

use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::mutants::{Bug, set};

use crate::options::Options;
use crate::run::run;
use crate::swarm::cpu_seconds;

#[test]
fn every_deliberate_bug_is_found() {
    panic::set_hook(Box::new(|_| {})); // Each is expected to break something; the words are printed below.
    // A founder that is outbid by one that is no more is too rare for chance: the search beside `founding` finds it.
    let is_for_chance = |bug: &Bug| *bug != Bug::StaysOutbid;
    let bugs = asked().map_or_else(|| Bug::ALL.into_iter().filter(is_for_chance).collect(), |bug| vec![bug]);
    // Seeds that a bug may survive before the swarm counts as blind to it: a minute of processor time, in the `sim` profile.
    let seeds = crate::number("TENURE_SEEDS").unwrap_or(1_400);
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get().min(16)) {
            scope.spawn(|| {
                while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    set(Some(bug));
                    let before = cpu_seconds();
                    match (0..seeds).find_map(|seed| run(seed, Options::draw(seed), false).err().map(|why| (seed, why)))
                    {
                        Some((seed, why)) => {
                            println!("{bug:?}: {:.1} CPU-seconds, seed {seed} {why}", cpu_seconds() - before);
                        }
                        None => survivors.lock().expect("no holder of the lock panics").push(bug),
                    }
                }
            });
        }
    });
    let _ = panic::take_hook();
    let survivors = survivors.into_inner().expect("no holder of the lock panics");
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// The one bug that was asked for.
pub fn asked() -> Option<Bug> {
    let name = std::env::var("TENURE_BUG").ok()?;
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    Some(bug.unwrap_or_else(|| panic!("there is no bug {name}")))
}
