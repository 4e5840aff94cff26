//! Handing leadership over on purpose: before a node stops, when it is sick, or because an operator asked.
//!
//! Three steps, in this order (T1, F6). The leader gives up its lease for the rest of its epoch and tells the shell that its
//! master must stop; nothing is proposed any more. When the master has answered that its last output is out, and the heir
//! holds the whole log, the heir is told to campaign at once. The heir's request for votes says that the old leader wants
//! it, so no promise binds the voters: that is safe because the lease which rested on those promises is over.
//!
//! # Invariants
//!
//! * No lease is shown or used between the first step and the end of the epoch, also when the hand-over is given up.
//! * Only a voter of the new configuration that holds the whole log is told to campaign.
//! * One at a time, and the next one only when the master has answered to the one before.
//! * A hand-over ends after an election timeout at the latest: by a new leader, or by resuming.

use crate::effects::Role;
use crate::types::{Epoch, Nanos, NodeId};

use super::progress::Progress;
use super::{Consensus, Drop, Effect, HandOverCause, Message, broken};

/// A hand-over under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    /// The heir.
    to: NodeId,
    /// When it is given up.
    pub(super) until: Nanos,
    /// Whether the master has stopped.
    is_surrendered: bool,
    /// When the heir was told last.
    told_at: Option<Nanos>,
}

impl Consensus {
    /// Begins to hand over to a voter.
    pub(super) fn on_transfer(&mut self, context: u64, to: NodeId, effects: &mut Vec<Effect>) {
        let is_voter = to != self.node && self.conf().is_some_and(|conf| conf.voters.contains(&to));
        let why = match self.role {
            Role::Leader if !self.may_hand_over() => Drop::HandOver,
            Role::Leader if !is_voter => Drop::NoVoter,
            Role::Leader => return self.begin_transfer(to, HandOverCause::Told, effects),
            _ => Drop::NotLeader,
        };
        effects.push(Effect::Dropped { context, why });
    }

    /// Whether no hand-over is under way; a late answer of the master to an earlier one must not count for the next.
    pub(super) fn may_hand_over(&self) -> bool {
        self.transfer.is_none() && !self.owes_surrender
    }

    pub(super) fn begin_transfer(&mut self, to: NodeId, why: HandOverCause, effects: &mut Vec<Effect>) {
        let until = self.now + self.profile.election_timeout;
        self.transfer = Some(Transfer { to, until, is_surrendered: false, told_at: None });
        self.owes_surrender = true;
        self.is_lease_off = !broken!(self, TransferKeepsLease);
        self.tell(effects);
        effects.push(Effect::Surrender { epoch: self.hard.epoch, heir: to, why });
    }

    /// The master of this epoch has given its last output.
    pub(super) fn on_surrendered(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        if epoch != self.hard.epoch {
            return;
        }
        self.owes_surrender = false;
        if let Some(transfer) = &mut self.transfer {
            transfer.is_surrendered = true;
            self.urge_heir(effects);
        }
    }

    /// Tells the heir to campaign, once per heartbeat interval, if everything is ready for it.
    pub(super) fn urge_heir(&mut self, effects: &mut Vec<Effect>) {
        let Some(transfer) = &self.transfer else { return };
        let last = self.log.last().index;
        let holds_all = self.peers.iter().any(|peer| peer.node == transfer.to && peer.matched == last);
        let is_told = transfer.told_at.is_some_and(|at| self.now < at + self.profile.heartbeat);
        let is_ready = transfer.is_surrendered && (holds_all || broken!(self, TransferSkipsMatch));
        if !is_ready || is_told {
            return;
        }
        let message = Message::TimeoutNow { epoch: self.hard.epoch };
        effects.push(Effect::Send { to: transfer.to, message, after: self.hard_pending() });
        let now = self.now;
        self.transfer.as_mut().expect("seen above").told_at = Some(now);
    }

    /// Gives a hand-over up when its time is over. The lease stays off: the heir may still campaign.
    pub(super) fn check_transfer(&mut self, effects: &mut Vec<Effect>) {
        if let Some(given_up) = self.transfer.take_if(|transfer| self.now >= transfer.until) {
            self.unwilling = Some((self.hard.epoch, given_up.to));
            effects.push(Effect::Resume { epoch: self.hard.epoch });
        }
    }

    /// Our leader wants us to lead: campaigns without asking first (T1).
    pub(super) fn on_timeout_now(&mut self, from: NodeId, epoch: Epoch, effects: &mut Vec<Effect>) {
        let is_leader = self.role == Role::Follower && self.leader == Some(from) && epoch == self.hard.epoch;
        if is_leader && self.may_campaign() && self.now < self.stalls_at() && !self.is_leaving {
            self.campaign(true, effects);
        }
    }

    /// The best voter to hand over to: heard within half an election timeout, and of those the one that holds most. Whoever did not
    /// take over in this epoch when it was asked last is the last choice: it may be about to stop.
    #[must_use]
    pub fn heir(&self) -> Option<NodeId> {
        self.heir_among(|_| true)
    }

    /// The same among those that meet a condition.
    pub(super) fn heir_among(&self, is_fit: impl Fn(&Progress) -> bool) -> Option<NodeId> {
        let conf = self.conf().filter(|_| self.role == Role::Leader)?;
        let is_heard = |node: NodeId| self.was_heard(node, self.profile.election_timeout / 2);
        let is_voter = |node: NodeId| conf.voters.contains(&node) && is_heard(node);
        let voters = self.peers.iter().filter(|peer| is_voter(peer.node) && is_fit(peer));
        let is_willing = |node: NodeId| self.unwilling != Some((self.hard.epoch, node));
        voters.max_by_key(|peer| (is_willing(peer.node), peer.matched, peer.acked)).map(|peer| peer.node)
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.transfer.is_some()
    }
}
