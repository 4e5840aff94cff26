//! What to change next so that those vote who shall: a pure function of the roster and of what the leader knows.
//!
//! It is asked again and again, by whoever leads, and answers with one step; the step after it follows from what is there
//! then. So nothing of an operation has to be remembered, and a failover between two steps loses nothing.
//!
//! # Invariants
//!
//! * The voters change only if a majority of the old ones **and** of the new ones was heard (F27).
//! * A new voter was a learner that is caught up; whoever has no learner ready to take its place keeps it, unless an
//!   operator wants it gone and nobody can come.
//! * A cluster that wants three voters or more never has its second one join the first alone, unless an operator named it.
//! * Who was only silent for a while, or is merely suspected, keeps its place: `lost` is for the caller to say.
//! * When nothing is missing and nobody has to go, there are no learners: plain members hold no log.

use std::collections::BTreeSet;

use crate::state::Roster;
use crate::types::NodeId;

/// What the leader knows, between two changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// This node, which leads.
    pub(super) leader: NodeId,
    /// What shall be.
    pub(super) roster: &'a Roster,
    /// Who votes.
    pub(super) voters: &'a BTreeSet<NodeId>,
    /// Who listens.
    pub(super) learners: &'a BTreeSet<NodeId>,
    /// Voters and learners that answered lately and take what they are sent, the leader included.
    pub(super) heard: &'a BTreeSet<NodeId>,
    /// Learners that hold all but the newest entries.
    pub(super) caught_up: &'a BTreeSet<NodeId>,
    /// Voters and learners that are given up: silent for too long, or another node has their address.
    pub(super) lost: &'a BTreeSet<NodeId>,
    /// Members that are here and neither vote nor listen.
    pub(super) candidates: &'a BTreeSet<NodeId>,
    /// Those who vote only if an operator named them: they remember nothing over a restart, and all who vote do.
    pub(super) unfit: &'a BTreeSet<NodeId>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Those vote who shall.
    Nothing,
    /// Nothing can be done now; it waits for this, in words.
    Wait(String),
    /// As `Change`, but this node is to lose its vote: another one should lead first.
    HandOver {
        /// The voters.
        voters: BTreeSet<NodeId>,
        /// The learners.
        learners: BTreeSet<NodeId>,
    },
    /// Change the configuration to this.
    Change {
        /// The voters.
        voters: BTreeSet<NodeId>,
        /// The learners.
        learners: BTreeSet<NodeId>,
    },
}

/// See the module.
pub(super) fn next(view: &View<'_>) -> Next {
    let seats = Seats::of(view);
    let voters = seats.voters(view);
    let learners = seats.learners(&voters);
    let moves_votes = voters != *view.voters;
    if moves_votes && has_majority(view, view.voters) && has_majority(view, &voters) {
        // Where no voter that is here goes on, the leader leaves last, and by itself.
        let has_heir = view.voters.intersection(&voters).any(|node| view.heard.contains(node));
        let goes = !voters.contains(&view.leader) && has_heir;
        return if goes { Next::HandOver { voters, learners } } else { Next::Change { voters, learners } };
    }
    // Who listens may change meanwhile.
    let learners = if moves_votes { seats.learners(view.voters) } else { learners };
    if learners != *view.learners && has_majority(view, view.voters) {
        return Next::Change { voters: view.voters.clone(), learners };
    }
    match seats.obstacle(view, moves_votes) {
        Some(obstacle) => Next::Wait(obstacle),
        None => Next::Nothing,
    }
}

/// Whether a majority of `voters` was heard.
pub(super) fn has_majority(view: &View<'_>, voters: &BTreeSet<NodeId>) -> bool {
    voters.intersection(view.heard).count() > voters.len() / 2
}

/// Who has a seat, who gives one up, and who may take one.
struct Seats {
    /// Voters that shall go on.
    staying: BTreeSet<NodeId>,
    /// How many seats are to be filled.
    missing: usize,
    /// Learners that take a seat now.
    ready: BTreeSet<NodeId>,
    /// Learners that take one as soon as they are caught up.
    coming: BTreeSet<NodeId>,
    /// Members that shall listen, so that they can take one.
    called: BTreeSet<NodeId>,
}

impl Seats {
    fn of(view: &View<'_>) -> Self {
        let roster = view.roster;
        let is_out = |node: &NodeId| view.lost.contains(node) || roster.excluded.contains(node);
        let may_come = |node: &NodeId| !is_out(node) && (!view.unfit.contains(node) || roster.preferred.contains(node));
        let staying: BTreeSet<NodeId> = view.voters.iter().filter(|node| !is_out(node)).copied().collect();
        let missing = usize::from(roster.target).saturating_sub(staying.len());

        // Seats that operators promised to somebody are for nobody else.
        let free = missing.saturating_sub(roster.preferred.len());
        let (wanted, others): (Vec<NodeId>, Vec<NodeId>) =
            view.learners.iter().filter(|node| may_come(node)).partition(|node| roster.preferred.contains(node));
        // Who is caught up takes a free seat before who is not.
        let (fast, slow): (Vec<NodeId>, Vec<NodeId>) = others.into_iter().partition(|node| is_ready(view, *node));
        let takers = wanted.iter().chain(fast.iter().chain(&slow).take(free)).take(missing);
        let (ready, coming): (BTreeSet<NodeId>, BTreeSet<NodeId>) = takers.partition(|node| is_ready(view, **node));

        let filled = ready.union(&coming).filter(|node| !roster.preferred.contains(node)).count();
        let (wanted, others): (Vec<NodeId>, Vec<NodeId>) =
            view.candidates.iter().filter(|node| may_come(node)).partition(|node| roster.preferred.contains(node));
        let room = missing - ready.len() - coming.len();
        let called =
            wanted.into_iter().chain(others.into_iter().take(free.saturating_sub(filled))).take(room).collect();

        let mut seats = Self { staying, missing, ready, coming, called };
        if seats.waits_for_company(view) {
            seats.coming.append(&mut seats.ready);
        }
        seats
    }

    /// Two voters need both for everything, four need three: a number between is not worth a stop while one more comes. At two, where
    /// more are wanted, the cluster stops only for whom an operator named: if the second died with its disk, the first could never
    /// go on, and alone it can.
    fn waits_for_company(&self, view: &View<'_>) -> bool {
        let count = self.staying.len() + self.ready.len();
        let is_growth = self.staying.len() == view.voters.len() && !self.ready.is_empty();
        let comes = self.coming.iter().any(|node| view.heard.contains(node));
        let is_trap = count == 2 && view.roster.target > 2 && self.ready.is_disjoint(&view.roster.preferred);
        is_growth && (is_trap || comes && count.is_multiple_of(2))
    }

    /// The voters after the next change of them.
    fn voters(&self, view: &View<'_>) -> BTreeSet<NodeId> {
        let mut voters: BTreeSet<NodeId> = self.staying.union(&self.ready).copied().collect();
        let leaving_later = (view.voters.len() - self.staying.len()).saturating_sub(self.ready.len());
        let mut unfilled = usize::from(view.roster.target).saturating_sub(voters.len()).min(leaving_later);
        let comes = !self.coming.is_empty() || !self.called.is_empty();
        let excluded = |node: &NodeId| view.roster.excluded.contains(node);
        let mut leaving: Vec<NodeId> = view.voters.difference(&self.staying).copied().collect();
        // A seat is kept warm by those first who can still answer.
        leaving.sort_by_key(|node| (view.lost.contains(node), excluded(node)));
        for node in leaving {
            // Without a successor in sight, a lost voter keeps its seat, for it may come back; one that shall go goes.
            if unfilled > 0 && (comes || !excluded(&node)) {
                voters.insert(node);
                unfilled -= 1;
            }
        }
        if voters.is_empty() { view.voters.clone() } else { voters }
    }

    /// The learners beside these voters.
    fn learners(&self, voters: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let all = self.ready.iter().chain(&self.coming).chain(&self.called);
        all.filter(|node| !voters.contains(node)).copied().collect()
    }

    /// Why there is nothing to be done although not all is as it shall be.
    fn obstacle(&self, view: &View<'_>, moves_votes: bool) -> Option<String> {
        if moves_votes {
            return Some("a majority of the voters, old and new".into());
        }
        if let Some(node) = self.coming.iter().find(|node| !is_ready(view, **node)) {
            return Some(format!("{node} to catch up"));
        }
        if self.missing == 0 {
            return None;
        }
        let absent = view.roster.preferred.iter().find(|node| !view.candidates.contains(node));
        Some(match absent {
            Some(node) => format!("{node} to be here"),
            None => format!(
                "{} more members that may vote",
                self.missing.saturating_sub(self.called.len() + self.coming.len())
            ),
        })
    }
}

fn is_ready(view: &View<'_>, node: NodeId) -> bool {
    view.caught_up.contains(&node) && view.heard.contains(&node)
}

#[cfg(test)]
mod tests;
