//! Majorities, also of joint configurations.
//!
//! # Invariants
//!
//! * What is decided holds in every voter set: in `voters`, and in `outgoing` while that is not empty.
//! * An empty set of voters decides nothing.
//!
//! The values are sorted anew each time, on the stack: clever incremental forms of this were wrong elsewhere
//! (openraft#1802), and nine values sort in a few nanoseconds.

use crate::durable::ConfState;
use crate::types::NodeId;

/// Where a ballot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    /// A quorum granted.
    Won,
    /// A quorum can no longer grant.
    Lost,
    /// Not known yet.
    Pending,
}

/// The greatest value that a quorum of every voter set has reached.
pub(super) fn reached(conf: &ConfState, value: impl Fn(NodeId) -> u64) -> u64 {
    let incoming = reached_by(&conf.voters, &value);
    if conf.outgoing.is_empty() { incoming } else { incoming.min(reached_by(&conf.outgoing, &value)) }
}

/// The state of a ballot; `vote` says what a voter answered, if it did.
pub(super) fn tally(conf: &ConfState, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
    let granted = reached(conf, |node| u64::from(vote(node) == Some(true)));
    let possible = reached(conf, |node| u64::from(vote(node) != Some(false)));
    match (granted, possible) {
        (1, _) => Tally::Won,
        (_, 0) => Tally::Lost,
        _ => Tally::Pending,
    }
}

/// Whether `node` votes in either half.
pub(super) fn votes(conf: &ConfState, node: NodeId) -> bool {
    conf.voters.contains(&node) || conf.outgoing.contains(&node)
}

/// Whether `node` holds the log under this configuration.
pub(super) fn holds(conf: &ConfState, node: NodeId) -> bool {
    votes(conf, node) || conf.learners.contains(&node)
}

/// Everyone who holds the log under this configuration, without duplicates, sorted.
pub(super) fn members(conf: &ConfState) -> Vec<NodeId> {
    let lists = [&conf.voters, &conf.outgoing, &conf.learners];
    let mut all: Vec<NodeId> = lists.into_iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn reached_by(set: &[NodeId], value: &impl Fn(NodeId) -> u64) -> u64 {
    let mut small = [0; 9];
    let mut large = Vec::new();
    let values = match small.get_mut(..set.len()) {
        Some(values) => values,
        None => {
            large.resize(set.len(), 0);
            &mut large[..]
        }
    };
    for (slot, node) in values.iter_mut().zip(set) {
        *slot = value(*node);
    }
    values.sort_unstable();
    // Of n ascending values, the one before the middle has a majority at or above it.
    if values.is_empty() { 0 } else { values[(values.len() - 1) / 2] }
}

#[cfg(test)]
mod oracle_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        let list = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        ConfState { voters: list(voters), outgoing: list(outgoing), ..ConfState::default() }
    }

    /// The definition, word for word: try every value, count who is at or above it.
    fn naive(conf: &ConfState, values: &[u64]) -> u64 {
        let has =
            |set: &[NodeId], t: u64| set.iter().filter(|node| values[node.0 as usize] >= t).count() * 2 > set.len();
        (0..=8)
            .rev()
            .find(|t| has(&conf.voters, *t) && (conf.outgoing.is_empty() || has(&conf.outgoing, *t)))
            .unwrap_or(0)
    }

    #[test]
    fn the_quorum_value_is_that_of_the_definition() {
        let mut seed = 7_u64;
        let mut draw = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for _ in 0..20_000 {
            let mut pick = |least: u64| {
                let mut ids: Vec<u64> = (0..least + draw(6)).map(|_| draw(12)).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            };
            let conf = conf(&pick(1), &pick(0));
            let values: Vec<u64> = (0..12).map(|_| draw(9)).collect();
            assert_eq!(reached(&conf, |node| values[node.0 as usize]), naive(&conf, &values), "{conf:?} {values:?}");
        }
    }

    #[test]
    fn a_joint_ballot_needs_both_halves() {
        let conf = conf(&[1, 2, 3], &[3, 4, 5]);
        assert_eq!(tally(&conf, |node| (node.0 <= 3).then_some(true)), Tally::Pending);
        assert_eq!(tally(&conf, |node| Some(node.0 <= 4)), Tally::Won);
        assert_eq!(tally(&conf, |node| (node.0 > 3).then_some(false)), Tally::Lost);
        assert_eq!(tally(&ConfState::default(), |_| Some(true)), Tally::Lost);
    }
}
