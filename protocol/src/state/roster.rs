//! The roster: who shall vote, in the words of operators.
//!
//! It is a wish and not a configuration. Each verb of an operator changes it with one command; the leader brings the
//! configuration there, one joint change at a time, and whoever leads after it goes on from the same wish. So a failover
//! loses nothing of an operation, and repeating a verb changes nothing.
//!
//! # Invariants
//!
//! * Whoever is removed is excluded. No node is excluded and preferred at once, and whoever votes is preferred no longer: that wish is fulfilled.
//! * Of the voters that a configuration has after its last change, at least one is not excluded.
//! * There are at most [`MAX_VOTERS`] voters, pending promotions included, and at most [`MAX_EXCLUDED`] excluded nodes: one that
//!   was removed and has no place any more is forgotten for the next one.
//! * The target is no lower than the number of those who shall vote: a seat that is promised is never one that is taken, and a
//!   lost voter can be replaced however many promises wait.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::digest::{Tag, fingerprint};
use crate::durable::ConfState;
use crate::state::{Refused, RosterChange};
use crate::types::NodeId;

/// Who shall vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roster {
    /// How many voters there shall be; zero before the cluster is founded.
    pub target: u8,
    /// The voters after the last complete change.
    pub voters: BTreeSet<NodeId>,
    /// Who held the log without a vote then.
    pub learners: BTreeSet<NodeId>,
    /// Whom an operator does not want to vote.
    pub excluded: BTreeSet<NodeId>,
    /// Those of them who shall not even be members: they are told to stop.
    pub removed: BTreeSet<NodeId>,
    /// Whom an operator wants to vote and who does not yet.
    pub preferred: BTreeSet<NodeId>,
}

impl Roster {
    /// The voters there would be if every wish were fulfilled and nobody else came.
    #[must_use]
    pub fn wished(&self) -> BTreeSet<NodeId> {
        self.voters.difference(&self.excluded).chain(&self.preferred).copied().collect()
    }

    /// Begins with the voters of the genesis.
    pub(super) fn found(&mut self, voters: &[NodeId], target: u8) {
        self.target = target;
        self.voters = voters.iter().copied().collect();
    }

    /// Takes over a configuration. A joint one is only on its way.
    pub(super) fn configure(&mut self, conf: &ConfState) {
        if !conf.outgoing.is_empty() {
            return;
        }
        self.voters = conf.voters.iter().copied().collect();
        self.learners = conf.learners.iter().copied().collect();
        self.preferred.retain(|node| !self.voters.contains(node));
        self.make_room();
    }

    /// The last empty seat may have been promised to somebody just before somebody else took it: there is one more then, or, where
    /// no more are allowed, one promise less.
    fn make_room(&mut self) {
        while self.wished().len() > MAX_VOTERS && self.preferred.pop_last().is_some() {}
        self.target = self.target.max(u8::try_from(self.wished().len().min(MAX_VOTERS)).expect("at most seven"));
    }

    /// Does what an operator asks for.
    pub(super) fn change(&mut self, change: RosterChange) -> Result<(), Refused> {
        match change {
            RosterChange::Promote(node) => self.promote(node),
            RosterChange::Demote(node) => self.demote(node),
            RosterChange::Remove(node) => self.remove(node),
        }
    }

    fn promote(&mut self, node: NodeId) -> Result<(), Refused> {
        let mut wished = self.wished();
        wished.insert(node);
        if wished.len() > MAX_VOTERS {
            return Err(Refused::Invalid(format!("there are {MAX_VOTERS} voters, and no more are allowed")));
        }
        self.excluded.remove(&node);
        self.removed.remove(&node);
        if !self.voters.contains(&node) {
            self.preferred.insert(node);
        }
        self.target = self.target.max(u8::try_from(wished.len()).expect("at most seven"));
        Ok(())
    }

    fn demote(&mut self, node: NodeId) -> Result<(), Refused> {
        let had_seat = self.wished().contains(&node);
        self.exclude(node)?;
        self.removed.remove(&node);
        if had_seat {
            self.target = self.target.saturating_sub(1).max(1);
        }
        Ok(())
    }

    fn remove(&mut self, node: NodeId) -> Result<(), Refused> {
        self.exclude(node)?;
        self.removed.insert(node);
        Ok(())
    }

    fn exclude(&mut self, node: NodeId) -> Result<(), Refused> {
        if self.voters.iter().all(|voter| *voter == node || self.excluded.contains(voter)) {
            return Err(Refused::Invalid(format!("{node} is the only voter: promote another node first")));
        }
        if self.excluded.len() >= MAX_EXCLUDED && !self.excluded.contains(&node) && !self.forget_one() {
            return Err(Refused::Quota(format!("{MAX_EXCLUDED} nodes are excluded already")));
        }
        self.preferred.remove(&node);
        self.excluded.insert(node);
        Ok(())
    }

    /// Forgets somebody who was removed and has gone. Says whether there is one.
    fn forget_one(&mut self) -> bool {
        let is_gone = |node: &&NodeId| !self.voters.contains(node) && !self.learners.contains(node);
        let Some(node) = self.removed.iter().find(is_gone).copied() else { return false };
        self.removed.remove(&node);
        self.excluded.remove(&node)
    }

    /// The hash of a roster; none before the cluster is founded.
    pub(super) fn digest(&self) -> u64 {
        if self.target == 0 { 0 } else { fingerprint(Tag::Roster, self) }
    }
}

/// More voters make every write slower and protect nobody.
pub const MAX_VOTERS: usize = 7;

/// So many of those that were removed stay named here, so that they are not taken in again.
pub const MAX_EXCLUDED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[u64]) -> BTreeSet<NodeId> {
        list.iter().copied().map(NodeId).collect()
    }

    fn roster(voters: &[u64]) -> Roster {
        let mut roster = Roster::default();
        roster.found(&Vec::from_iter(nodes(voters)), u8::try_from(voters.len()).unwrap());
        roster
    }

    fn configure(roster: &mut Roster, voters: &[u64]) {
        let voters = Vec::from_iter(nodes(voters));
        roster.configure(&ConfState { voters, ..ConfState::default() });
    }

    fn apply(roster: &mut Roster, change: RosterChange) {
        roster.change(change).unwrap();
        let copy = roster.clone();
        roster.change(change).unwrap();
        assert_eq!(*roster, copy, "a verb that is repeated changes nothing");
    }

    #[test]
    fn two_promotions_in_a_row_make_two_more_voters() {
        let mut roster = roster(&[1, 2, 3]);
        apply(&mut roster, RosterChange::Promote(NodeId(4)));
        apply(&mut roster, RosterChange::Promote(NodeId(5)));
        assert_eq!((roster.target, &roster.preferred), (5, &nodes(&[4, 5])));
        configure(&mut roster, &[1, 2, 3, 4]);
        assert_eq!((roster.target, &roster.preferred), (5, &nodes(&[5])), "the first wish is fulfilled");
    }

    #[test]
    fn a_demotion_lowers_the_target_and_a_removal_does_not() {
        let mut roster = roster(&[1, 2, 3, 4, 5]);
        apply(&mut roster, RosterChange::Demote(NodeId(5)));
        assert_eq!((roster.target, &roster.excluded), (4, &nodes(&[5])));
        apply(&mut roster, RosterChange::Remove(NodeId(4)));
        assert_eq!((roster.target, &roster.excluded), (4, &nodes(&[4, 5])));
        configure(&mut roster, &[1, 2, 3]);
        apply(&mut roster, RosterChange::Demote(NodeId(9)));
        assert_eq!(roster.target, 4, "whoever has no seat gives none up");
    }

    #[test]
    fn a_demotion_takes_one_seat_where_others_are_still_empty() {
        let mut roster = roster(&[1, 2, 3]);
        roster.target = 5;
        apply(&mut roster, RosterChange::Demote(NodeId(3)));
        assert_eq!(roster.target, 4);
    }

    #[test]
    fn a_promotion_takes_back_a_demotion() {
        let mut roster = roster(&[1, 2, 3]);
        let before = roster.clone();
        apply(&mut roster, RosterChange::Demote(NodeId(3)));
        apply(&mut roster, RosterChange::Promote(NodeId(3)));
        assert_eq!(roster, before);
    }

    #[test]
    fn a_node_that_was_removed_may_be_a_member_again() {
        for change in [RosterChange::Promote(NodeId(3)), RosterChange::Demote(NodeId(3))] {
            let mut roster = roster(&[1, 2, 3]);
            apply(&mut roster, RosterChange::Remove(NodeId(3)));
            assert_eq!(roster.removed, nodes(&[3]));
            apply(&mut roster, change);
            assert_eq!(roster.removed, nodes(&[]));
        }
    }

    #[test]
    fn a_promotion_that_was_taken_back_leaves_no_seat_for_others() {
        let mut roster = roster(&[1, 2, 3]);
        apply(&mut roster, RosterChange::Promote(NodeId(4)));
        apply(&mut roster, RosterChange::Demote(NodeId(4)));
        assert_eq!((roster.target, roster.preferred.len()), (3, 0));
    }

    #[test]
    fn the_last_voter_stays() {
        let mut roster = roster(&[1, 2]);
        apply(&mut roster, RosterChange::Remove(NodeId(1)));
        for change in [RosterChange::Demote(NodeId(2)), RosterChange::Remove(NodeId(2))] {
            assert!(matches!(roster.change(change), Err(Refused::Invalid(_))));
        }
    }

    #[test]
    fn the_thousandth_removal_is_not_the_last() {
        let mut roster = roster(&[1, 2, 3]);
        apply(&mut roster, RosterChange::Remove(NodeId(3)));
        apply(&mut roster, RosterChange::Demote(NodeId(9)));
        for node in 10..2_000 {
            apply(&mut roster, RosterChange::Remove(NodeId(node)));
        }
        assert_eq!(roster.excluded.len(), MAX_EXCLUDED);
        let kept = [NodeId(3), NodeId(9), NodeId(1_999)];
        assert!(roster.excluded.is_superset(&kept.into()), "a voter, whoever was demoted, the last one");
        for node in 2_000..4_000 {
            let _ = roster.change(RosterChange::Demote(NodeId(node)));
        }
        let more = roster.change(RosterChange::Remove(NodeId(4_000)));
        assert!(matches!(more, Err(Refused::Quota(_))), "nobody is left to be forgotten: {more:?}");
        assert_eq!(roster.removed, nodes(&[3]));
    }

    #[test]
    fn there_is_no_eighth_voter() {
        let mut roster = roster(&[1, 2, 3, 4, 5]);
        apply(&mut roster, RosterChange::Promote(NodeId(6)));
        apply(&mut roster, RosterChange::Promote(NodeId(7)));
        assert!(matches!(roster.change(RosterChange::Promote(NodeId(8))), Err(Refused::Invalid(_))));
    }

    #[test]
    fn a_seat_that_was_taken_when_it_was_promised_is_one_more() {
        let mut roster = roster(&[1, 2, 3]);
        roster.target = 4;
        apply(&mut roster, RosterChange::Promote(NodeId(9)));
        assert_eq!(roster.target, 4, "one seat is empty");
        configure(&mut roster, &[1, 2, 3, 4]);
        assert_eq!((roster.target, &roster.preferred), (5, &nodes(&[9])));
    }

    #[test]
    fn no_eighth_seat_is_promised_while_somebody_takes_the_seventh() {
        let mut roster = roster(&[1, 2, 3, 4, 5]);
        roster.target = 7;
        apply(&mut roster, RosterChange::Promote(NodeId(8)));
        apply(&mut roster, RosterChange::Promote(NodeId(9)));
        configure(&mut roster, &[1, 2, 3, 4, 5, 6]);
        assert_eq!((roster.target, roster.wished()), (7, nodes(&[1, 2, 3, 4, 5, 6, 8])));
    }

    #[test]
    fn a_configuration_on_its_way_changes_nothing() {
        let mut roster = roster(&[1, 2, 3]);
        let before = roster.clone();
        let (voters, outgoing) = (vec![NodeId(4)], vec![NodeId(1), NodeId(2), NodeId(3)]);
        roster.configure(&ConfState { voters, outgoing, ..ConfState::default() });
        assert_eq!(roster, before);
    }

    #[test]
    fn a_cluster_that_is_not_founded_has_no_roster() {
        assert_eq!(Roster::default().digest(), 0);
        assert_ne!(roster(&[1]).digest(), roster(&[2]).digest());
    }
}
