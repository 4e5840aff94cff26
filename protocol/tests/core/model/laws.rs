//! What must hold in every state: the laws of the log, and of the lease where time is modelled.

use protocol::consensus::Consensus;
use protocol::effects::Role;
use protocol::{Index, LogId};
use stateright::Property;

use super::Bounds;
use super::state::{Committed, State};

pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always("No core breaks", no_core_breaks),
        Property::always("Election Safety", election_safety),
        Property::always("Leader Completeness", leader_completeness),
        Property::always("State Machine Safety", state_machine_safety),
        Property::always("Log Matching", log_matching),
        Property::always("Commit on a durable quorum", commit_on_a_durable_quorum),
        Property::always("At most one lease", at_most_one_lease),
    ]
}

fn no_core_breaks(_: &Bounds, state: &State) -> bool {
    state.broken.is_none()
}

/// At most one leader per epoch.
fn election_safety(_: &Bounds, state: &State) -> bool {
    let epochs = || state.history.elected.iter().map(|(epoch, _)| epoch);
    epochs().zip(epochs().skip(1)).all(|(one, next)| one != next)
}

/// A leader holds everything that was committed in an older epoch.
fn leader_completeness(_: &Bounds, state: &State) -> bool {
    let leads = |core: &&Consensus| core.role() == Role::Leader;
    cores(state).filter(leads).all(|core| {
        let is_older = |known: &&Committed| known.epoch < core.epoch();
        state.history.committed.iter().filter(is_older).all(|known| may_hold(core, known.entry.id))
    })
}

/// Nobody believes that something else is committed.
fn state_machine_safety(_: &Bounds, state: &State) -> bool {
    cores(state).all(|core| {
        let held = core.entries(Index(2)..=core.commit());
        held.iter().all(|entry| {
            let known = state.history.committed.get((entry.id.index.0 - 2) as usize);
            known.is_some_and(|known| known.entry == *entry)
        })
    })
}

/// Epochs never fall along a log, and where two logs have the same entry, they are the same up to it.
fn log_matching(_: &Bounds, state: &State) -> bool {
    let logs: Vec<Vec<LogId>> = cores(state).map(log).collect();
    let is_ordered = |log: &Vec<LogId>| log.is_sorted();
    let match_up = |one: &Vec<LogId>, other: &Vec<LogId>| {
        let first = one[0].index.max(other[0].index);
        let from = |log: &[LogId]| log.iter().position(|id| id.index == first).unwrap_or(log.len());
        let (one, other) = (&one[from(one)..], &other[from(other)..]);
        let agree = one.iter().zip(other).rposition(|(one, other)| one == other).map_or(0, |at| at + 1);
        one[..agree] == other[..agree]
    };
    let mut pairs = logs.iter().enumerate().flat_map(|(at, one)| logs[at + 1..].iter().map(move |other| (one, other)));
    logs.iter().all(is_ordered) && pairs.all(|(one, other)| match_up(one, other))
}

fn commit_on_a_durable_quorum(_: &Bounds, state: &State) -> bool {
    state.history.committed.iter().all(|known| known.is_durable)
}

/// At any instant at most one node holds a valid lease by its own clock.
fn at_most_one_lease(bounds: &Bounds, state: &State) -> bool {
    let holds = |at: &usize| state.nodes[*at].core.lease_until(state.now(*at, bounds)).is_some();
    bounds.clock.is_none() || (0..state.nodes.len()).filter(holds).count() <= 1
}

fn cores(state: &State) -> impl Iterator<Item = &Consensus> {
    state.nodes.iter().map(|node| &node.core)
}

/// The base and what follows it.
fn log(core: &Consensus) -> Vec<LogId> {
    let held = core.entries(core.base().index.next()..=core.last().index).iter().map(|entry| entry.id);
    std::iter::once(core.base()).chain(held).collect()
}

/// Whether the log holds this entry, or has forgotten it: what was forgotten was applied before.
fn may_hold(core: &Consensus, id: LogId) -> bool {
    let held = core.entries(id.index..=id.index).first();
    id.index <= core.base().index || held.is_some_and(|held| held.id == id)
}
