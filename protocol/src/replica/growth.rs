//! How a replica grows its cluster when it leads, and how it serves when it has no place in the log.
//!
//! # Invariants
//!
//! * One change at a time, decided anew from what is there; the policy is asked only by the leader.
//! * A node outside the log answers nothing from its own state: what it is asked goes to the master, who tells all such
//!   nodes that it leads.

use std::time::Duration;

use super::policy::Next;
use super::{Replica, Waiter};
use crate::consensus::{self, Target};
use crate::effects::{Effects, Event, Part, Role};
use crate::founding;
use crate::state::{Answer, RosterView};
use crate::types::{Epoch, Nanos, NodeId};

/// What a master said of itself, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Herald {
    pub(super) node: NodeId,
    pub(super) epoch: Epoch,
    at: Nanos,
}

impl Replica {
    /// Takes the next step towards the roster, if this node leads and there is one.
    pub(super) fn tend_staff(&mut self, now: Nanos, effects: &mut Effects) {
        let (voters, learners) = match self.staff.look(now, &self.consensus, &self.serving, self.state.roster()) {
            Next::Nothing | Next::Wait(_) => return,
            Next::Change { voters, learners } => (voters, learners),
            Next::HandOver { voters, learners } => match self.staff.heir(now, &self.consensus, &voters) {
                Some(to) => return self.on_transfer(now, Some(to), effects),
                // It was tried and came to nothing: this leader goes last, when it is out.
                None => (voters, learners),
            },
        };
        effects.note(format!("the voters change to {} with {} learners", named(&voters), learners.len()));
        let target = Target { voters: voters.into_iter().collect(), learners: learners.into_iter().collect() };
        let (context, epoch) = (self.context(), self.consensus.epoch());
        self.core(now, consensus::Input::ProposeConf { context, epoch, target }, effects);
    }

    /// Tells every node without a place in the log that this one is at work as master, or that it was removed; or one of
    /// them, when it can be spoken to.
    pub(super) fn say_leads(&self, only: Option<NodeId>, effects: &mut Effects) {
        if !self.consensus.is_at_work() {
            return;
        }
        let Some(conf) = self.consensus.conf() else { return };
        let epoch = self.consensus.epoch();
        let holds =
            |node: &NodeId| [&conf.voters, &conf.outgoing, &conf.learners].iter().any(|list| list.contains(node));
        for &node in self.staff.links().iter().filter(|node| only.is_none_or(|only| only == **node) && !holds(node)) {
            let is_removed = self.state.roster().removed.contains(&node);
            let message = if is_removed { founding::Message::Removed } else { founding::Message::Leads { epoch } };
            effects.send(node, message);
            // It may still take itself for a learner: nobody sends it the entry that says otherwise.
            if let Some(dismissal) = self.consensus.dismissal(node) {
                effects.send(node, dismissal);
            }
        }
    }

    pub(super) fn say_leads_again(&mut self, now: Nanos, effects: &mut Effects) {
        if now >= self.leads_at {
            self.leads_at = now + self.profile.renewal;
            self.say_leads(None, effects);
        }
    }

    /// A master says that it leads. To a node without a place in the log, nobody else does.
    pub(super) fn on_master_heard(&mut self, now: Nanos, node: NodeId, epoch: Epoch, effects: &mut Effects) {
        let is_outranked = |herald: Herald| herald.epoch > epoch && self.is_heard(herald, now);
        if epoch > consensus::EPOCH_MAX || self.herald.is_some_and(is_outranked) {
            return;
        }
        self.removed_since = None;
        let is_news = self.herald.is_none_or(|herald| herald.node != node);
        self.herald = Some(Herald { node, epoch, at: now });
        if is_news && self.is_outside() {
            self.give_back_forwarded(|forwarded| forwarded.to != node, effects);
        }
    }

    /// A master says that this node is removed. To a process that was frozen this may be old news, and taken back since: it counts if it
    /// is still said after a renewal period, in which nobody sent entries.
    pub(super) fn on_removed(&mut self, now: Nanos, effects: &mut Effects) {
        // What was said long ago, and then no more, was taken back.
        let is_going_on = |(_, last): &(Nanos, Nanos)| now < *last + self.profile.renewal * 4;
        let since = self.removed_since.filter(is_going_on).map_or(now, |(since, _)| since);
        self.removed_since = (!self.consensus.is_fresh(now)).then_some((since, now));
        if self.removed_since.is_some() && now >= since + self.profile.renewal {
            effects.publish.push(Event::Removed);
        }
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        match self.herald {
            Some(herald) if self.is_outside() => Some(herald.node),
            _ => self.consensus.leader(),
        }
    }

    /// The epoch of that leader.
    pub(super) fn leader_epoch(&self) -> Epoch {
        self.herald.filter(|_| self.is_outside()).map_or(self.consensus.epoch(), |herald| herald.epoch)
    }

    /// Whether that leader is at work as master, as far as this node can know.
    pub(super) fn is_master_fresh(&self, now: Nanos) -> bool {
        if self.consensus.role() == Role::Leader {
            return self.consensus.has_authority(now);
        }
        match self.herald {
            Some(herald) if self.is_outside() => self.is_heard(herald, now),
            _ => self.consensus.is_fresh(now),
        }
    }

    /// Whether this node has no place in the log although it is in a cluster: its own state is empty or of long ago.
    pub(super) fn is_outside(&self) -> bool {
        // What anybody says counts only while no leader sends us entries, and while it is said.
        let leads = |herald: Herald| herald.epoch > self.consensus.epoch() && self.is_heard(herald, self.now);
        let is_overtaken = || !self.consensus.is_fresh(self.now) && self.herald.is_some_and(leads);
        self.consensus.is_founded() && (self.part() == Part::Outside || is_overtaken())
    }

    /// Whether a master said that it leads not long ago: it says so once in every renewal period.
    fn is_heard(&self, herald: Herald, now: Nanos) -> bool {
        now < herald.at + self.profile.renewal * 2 + self.profile.election_timeout
    }

    /// What this node is to the log.
    pub(super) fn part(&self) -> Part {
        let Some(conf) = self.consensus.conf().filter(|_| !self.consensus.is_dismissed()) else { return Part::Outside };
        if conf.voters.contains(&self.node) || conf.outgoing.contains(&self.node) {
            Part::Voter
        } else if conf.learners.contains(&self.node) {
            Part::Learner
        } else {
            Part::Outside
        }
    }

    /// Tells what this node is to the log, when that has changed.
    pub(super) fn tell_part(&mut self, effects: &mut Effects) {
        let part = self.part();
        if part != self.told_part {
            self.told_part = part;
            effects.publish.push(Event::Part(part));
        }
    }

    /// The roster, with what only the leader knows.
    pub(super) fn answer_roster(&self, waiter: Waiter, mut view: RosterView, effects: &mut Effects) {
        if self.consensus.role() == Role::Leader {
            (view.seats, view.waits_for) = self.staff.seats(self.now, &self.consensus, &self.serving);
        }
        self.respond(waiter, Ok(Answer::Roster(Box::new(view))), effects);
    }

    /// The link to a peer broke: what was heard of it is no longer worth a question.
    pub(super) fn forget_herald(&mut self, node: NodeId) {
        self.herald = self.herald.filter(|herald| herald.node != node);
    }
}

fn named(nodes: &std::collections::BTreeSet<NodeId>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How long a voter may be silent before it is replaced, unless an operator says otherwise.
pub const REPLACE_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
