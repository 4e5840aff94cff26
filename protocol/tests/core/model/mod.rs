//! Every order of events of a small cluster of real cores, looked at by a model checker.
//!
//! The machines are those of the product. Beside them stand their disks, a network from which nothing is ever removed, which is
//! loss, repetition and reordering in one, and a history of what was elected and committed. What may happen next is an [`Action`];
//! what must hold in every state is a property in [`laws`].
//!
//! There are two kinds of worlds. In most of them time is taken out of the cores: a promise never holds anyone back and a timer may
//! fire at any moment, so more can happen than in any real cluster, and the log must be safe all the same. Pre-votes are skipped
//! there, for they can only prevent elections. In worlds with a clock time passes in steps, every node measures it at its own rate,
//! all promises bind, and at most one lease may be valid.
//!
//! `TENURE_STATES=30000000 cargo test --profile sim -p tenure-protocol --features mutants --test core model -- --nocapture` raises the
//! bound on states that the larger worlds stop at.
//!
//! # Invariants
//!
//! * States are told apart by a fingerprint of all that may matter later; what only counts or only measures is forgotten.
//! * The same actions lead to the same state, or no counter-example could be shown.

#![allow(clippy::disallowed_types, reason = "says how long it took")]

mod laws;
mod state;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use protocol::consensus::{Bug, Target};
use protocol::{NodeId, Profile};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::swarm::words;
use state::{Action, State};

/// How large a small world is.
#[derive(Clone, Debug)]
pub struct Bounds {
    nodes: u64,
    voters: u64,
    /// Nobody campaigns in an epoch above this one; the genesis has the first.
    epoch: u64,
    /// Heartbeats, which repeat what was lost and tell what is committed.
    beats: u8,
    proposals: u8,
    crashes: u8,
    /// Leaders that lose touch with their quorum.
    losses: u8,
    transfers: u8,
    snapshots: u8,
    /// Changes of the configuration, in this order.
    targets: Vec<Target>,
    /// The first node leads already, and the second one follows.
    is_led: bool,
    /// Disks answer whenever they like, not at once.
    has_late_disks: bool,
    /// Only the first so many nodes campaign.
    campaigners: u64,
    /// From whom to whom messages arrive, if not from everyone to everyone.
    links: Vec<(u64, u64)>,
    /// Only this law is looked at, if one is named: a bug is to be found by what it leads to.
    law: Option<&'static str>,
    clock: Option<Clock>,
    /// States that are looked at, repeated ones included, unless there are fewer.
    states: usize,
    bug: Option<Bug>,
}

/// How time passes.
#[derive(Clone, Debug)]
pub struct Clock {
    profile: Profile,
    /// Global time in one step, in nanoseconds.
    step: u64,
    steps: u8,
    /// How fast the clock of each node runs, in percent.
    rates: Vec<u64>,
    /// Nodes that are told that their leader is dead.
    evidence: u8,
}

impl Bounds {
    /// Three voters, two elections, and nothing else.
    fn new() -> Self {
        Self {
            nodes: 3,
            voters: 3,
            epoch: 3,
            beats: 0,
            proposals: 0,
            crashes: 0,
            losses: 0,
            transfers: 0,
            snapshots: 0,
            targets: Vec::new(),
            is_led: false,
            has_late_disks: false,
            campaigners: u64::MAX,
            links: Vec::new(),
            law: None,
            clock: None,
            states: asked().unwrap_or(1_500_000),
            bug: None,
        }
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            state.actions(self, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let mut next = last.clone();
            next.take(&action, self);
            next
        }));
        let next = taken.unwrap_or_else(|panic| State { broken: Some(words(panic)), ..last.clone() });
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        laws::all().into_iter().filter(|law| self.law.is_none_or(|name| name == law.name)).collect()
    }
}

/// What was seen of a world that keeps all laws.
struct Seen {
    words: String,
    /// There is no state that was not looked at.
    is_all: bool,
}

/// Looks at all states, up to the bound on them; if a law is broken, says in words which, and how.
fn explore(name: &str, bounds: Bounds) -> Result<Seen, String> {
    let (began, cap) = (Instant::now(), bounds.states);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    let checker = bounds.checker().threads(cores).target_state_count(cap).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let (all, depth, took) = (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f32());
    let is_all = checker.state_count() < cap;
    let part = if is_all { "all" } else { "the first" };
    let words = format!("{name}: {part} {all} states, depth {depth}, {:.1} s", took);
    match checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len()) {
        None => Ok(Seen { words, is_all }),
        Some((law, path)) => {
            let why = path.last_state().broken.clone().unwrap_or_default();
            let steps: Vec<String> = path.into_actions().iter().map(|action| format!("  {action:?}")).collect();
            Err(format!("{law} is broken {why}\n{}\n{words}", steps.join("\n")))
        }
    }
}

/// The bound on states that was asked for.
fn asked() -> Option<usize> {
    let number = std::env::var("TENURE_STATES").ok()?;
    Some(number.parse().expect("TENURE_STATES is a number"))
}

fn conf(voters: &[u64], learners: &[u64]) -> Target {
    let nodes = |list: &[u64]| list.iter().map(|node| NodeId(*node)).collect();
    Target { voters: nodes(voters), learners: nodes(learners) }
}

/// Three nodes that measure time differently, as differently as they may: the clock of the first leader is slow.
fn leases(steps: u8, evidence: u8) -> Bounds {
    let clock = Clock { profile: Profile::DEV, step: 30_000_000, steps, rates: vec![100, 110, 110], evidence };
    Bounds { clock: Some(clock), is_led: true, ..Bounds::new() }
}

/// Two leaders, each with a change of its own in an epoch of its own, one follower of the second, and one node that hears both.
fn changes() -> Bounds {
    Bounds {
        nodes: 4,
        voters: 4,
        epoch: 4,
        losses: 1,
        is_led: true,
        campaigners: 2,
        links: vec![(1, 4), (4, 1), (2, 1), (2, 3), (3, 2), (2, 4), (4, 2)],
        targets: vec![conf(&[1, 2, 4], &[]), conf(&[2, 3, 4], &[])],
        ..Bounds::new()
    }
}

/// Some are looked at as a whole, and of the larger ones as much as the bound on states allows.
fn worlds() -> Vec<(&'static str, Bounds)> {
    let one = || Bounds { epoch: 2, ..Bounds::new() };
    let led = || Bounds { is_led: true, ..Bounds::new() };
    let led_with_time = |beats, evidence| Bounds { beats, ..leases(4, evidence) };
    vec![
        ("an election and a heartbeat", Bounds { beats: 1, ..one() }),
        ("an election and a lost quorum", Bounds { losses: 1, ..one() }),
        ("an election, late disks, a crash", Bounds { crashes: 1, has_late_disks: true, ..one() }),
        ("an election, late disks, an entry", Bounds { proposals: 1, has_late_disks: true, ..one() }),
        ("a second election, an entry, a crash", Bounds { proposals: 1, crashes: 1, ..led() }),
        ("a second election, an entry, a lost quorum", Bounds { proposals: 1, losses: 1, ..led() }),
        ("a second election, an entry, a hand-over", Bounds { proposals: 1, transfers: 1, ..led() }),
        ("a second election, an entry, a snapshot", Bounds { proposals: 1, snapshots: 1, ..led() }),
        ("a second election, a voter leaves", Bounds { targets: vec![conf(&[1, 2], &[])], ..led() }),
        ("a second election, the leader leaves", Bounds { targets: vec![conf(&[2, 3], &[])], ..led() }),
        (
            "a learner votes",
            Bounds {
                voters: 2,
                beats: 1,
                epoch: 2,
                targets: vec![conf(&[1, 2], &[3]), conf(&[1, 2, 3], &[])],
                ..led()
            },
        ),
        ("two changes, each of a leader of its own", changes()),
        ("a third election, an entry", Bounds { epoch: 4, proposals: 1, ..led() }),
        (
            "two elections, an entry, a crash",
            Bounds { proposals: 1, crashes: 1, has_late_disks: true, ..Bounds::new() },
        ),
        ("leases, a heartbeat, evidence", led_with_time(1, 1)),
        ("leases, a crash, evidence", Bounds { crashes: 1, ..led_with_time(0, 1) }),
        ("leases, a hand-over, evidence", Bounds { transfers: 1, ..led_with_time(0, 1) }),
    ]
}

/// The worlds that go on behind the bound on states: docs/testing.md says what makes each of them large.
const LARGE: [&str; 7] = [
    "a second election, an entry, a hand-over",
    "two changes, each of a leader of its own",
    "a third election, an entry",
    "two elections, an entry, a crash",
    "leases, a heartbeat, evidence",
    "leases, a crash, evidence",
    "leases, a hand-over, evidence",
];

/// What each of these breaks, and the smallest world in which that was seen.
fn broken_worlds() -> Vec<(Bug, Bounds)> {
    let one = || Bounds { epoch: 2, ..Bounds::new() };
    let late = || Bounds { has_late_disks: true, ..one() };
    vec![
        (Bug::ForgetsVote, Bounds { crashes: 1, ..one() }),
        (Bug::TellsUnsyncedVotes, Bounds { crashes: 1, ..late() }),
        (Bug::CountsUnsynced, late()),
        (Bug::AcksUnsynced, late()),
        (Bug::TruncatesAlways, one()),
        (Bug::CountsTruncated, Bounds { is_led: true, epoch: 3, proposals: 1, ..late() }),
        (Bug::NewHalfDecides, Bounds { targets: vec![conf(&[1], &[])], ..one() }),
        (Bug::ConfiguresLate, Bounds { targets: vec![conf(&[1], &[])], ..one() }),
        (Bug::ChangesTooEarly, Bounds { law: Some("Leader Completeness"), ..changes() }),
        (Bug::CountsItself, Bounds { targets: vec![conf(&[2, 3], &[])], ..one() }),
        (Bug::LeaseFromWinning, Bounds { is_led: false, ..leases(0, 0) }),
        (Bug::LeaseFromReceipt, Bounds { beats: 1, ..leases(2, 1) }),
        (Bug::EvidenceWaivesPromise, leases(0, 1)),
        (Bug::BreaksOwnPromise, leases(0, 0)),
        (Bug::VotesAtBoot, Bounds { crashes: 1, ..leases(0, 0) }),
        (Bug::TransferKeepsLease, Bounds { transfers: 1, ..leases(0, 0) }),
    ]
}

#[test]
fn every_small_world_is_safe() {
    let asked = std::env::var("TENURE_WORLD").ok();
    for (name, bounds) in worlds().into_iter().filter(|(name, _)| asked.as_ref().is_none_or(|asked| asked == name)) {
        let cap = bounds.states;
        let seen = explore(name, bounds).unwrap_or_else(|why| panic!("{why}"));
        println!("{}", seen.words);
        assert!(seen.is_all || LARGE.contains(&name), "{name} has grown: it is not whole any more within {cap} states");
    }
}

#[test]
fn every_deliberate_bug_that_fits_a_small_world_is_found() {
    std::panic::set_hook(Box::new(|_| {})); // Each is expected to break laws; the words are printed below.
    let mut survivors = Vec::new();
    for (bug, bounds) in broken_worlds() {
        // It ends where the bug is found: the bound is only there for one that is not.
        let seen = explore(&format!("{bug:?}"), Bounds { bug: Some(bug), states: 10_000_000, ..bounds });
        survivors.extend(seen.is_ok().then_some(bug));
        println!("{}", seen.map_or_else(|why| why, |seen| seen.words));
    }
    let _ = std::panic::take_hook();
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
