//! The lease, and the reads that it or a round of heartbeats confirms.
//!
//! A follower that answered a message sent at `s` helps nobody else before its own clock shows P more; with clocks within
//! the bound that is not before `s + P / (1 + rho)` here. The lease ends when a quorum of such promises may have ended.
//!
//! # Invariants
//!
//! * Winning an election gives no lease; only acknowledgements in this epoch do (L2).
//! * A lease is valid only on a leader whose no-op is applied and who has not begun to hand over (L3, L4). No write rests
//!   on it.
//! * A read is confirmed by acknowledgements of messages sent at or after its arrival, and by nothing older.

use crate::effects::Role;
use crate::profile::shortened;
use crate::types::{Index, Nanos, NodeId};

use super::election::nanos;
use super::{Consensus, Drop, Effect, ReadMode, broken};

/// A read that waits: for the no-op, for a round of heartbeats, for its index to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRead {
    /// Who gets the answer.
    pub(super) asker: Asker,
    /// When it arrived.
    at: Nanos,
    /// What must be applied; taken when the no-op of this epoch is committed (F24).
    index: Option<Index>,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A caller on this node, by context.
    Here(u64),
    /// Another node, which waits for its own applied index, by the number of its question.
    Node(NodeId, u64),
}

impl Consensus {
    /// A linearizable read.
    pub(super) fn on_read(&mut self, context: u64, mode: ReadMode, effects: &mut Vec<Effect>) {
        if self.role != Role::Leader {
            return self.on_read_elsewhere(context, mode, effects);
        }
        self.queue_read(Asker::Here(context), mode, effects);
    }

    /// A read on the leader, for a caller here or for another node; one that the lease confirms is answered at once.
    pub(super) fn queue_read(&mut self, asker: Asker, mode: ReadMode, effects: &mut Vec<Effect>) {
        if self.reads.len() >= READS_MAX {
            if let Asker::Here(context) = asker {
                effects.push(Effect::Dropped { context, why: Drop::Busy });
            }
            return; // Another node asks again.
        }
        let index = (self.commit.index >= self.noop).then_some(self.commit.index);
        let is_current = index.is_some_and(|index| index <= self.applied);
        if mode == ReadMode::Lease && is_current && self.lease_until(self.now).is_some() {
            return self.answer_read(asker, self.commit.index, effects);
        }
        self.reads.push_back(PendingRead { asker, at: self.now, index });
    }

    fn answer_read(&mut self, asker: Asker, index: Index, effects: &mut Vec<Effect>) {
        match asker {
            Asker::Here(context) => effects.push(Effect::ReadReady { context, index }),
            Asker::Node(node, number) => {
                self.tell_commit_to(node, index, effects);
                self.answer_question(node, number, Some(index), effects);
            }
        }
    }

    /// Answers what is confirmed and applied, oldest first, and starts one round of heartbeats for all that is not.
    pub(super) fn answer_reads(&mut self, effects: &mut Vec<Effect>) {
        if self.reads.is_empty() {
            return;
        }
        let confirmed = if broken!(self, ReadsByOldRounds) { self.now } else { self.quorum_ack() };
        if self.commit.index >= self.noop {
            let commit = self.commit.index;
            let unplaced = self.reads.iter_mut().rev().take_while(|read| read.index.is_none());
            unplaced.for_each(|read| read.index = Some(commit));
        }
        let applied = self.applied;
        let is_ready = |read: &mut PendingRead| {
            let is_elsewhere = matches!(read.asker, Asker::Node(..));
            read.at <= confirmed && read.index.is_some_and(|index| index <= applied || is_elsewhere)
        };
        while let Some(read) = self.reads.pop_front_if(is_ready) {
            let index = read.index.expect("a read is ready only with its index");
            self.answer_read(read.asker, index, effects);
        }
        let newest = self.reads.back().map_or(Nanos(0), |read| read.at);
        let is_round_over = self.read_round <= confirmed;
        if newest > confirmed && is_round_over && newest > self.read_round {
            self.read_round = self.now;
            self.heartbeat_all(effects);
        }
    }

    /// When our lease ends, if it is valid now: what lease reads and the authority shown to applications rest on (L3).
    #[must_use]
    pub fn lease_until(&self, now: Nanos) -> Option<Nanos> {
        let is_begun = self.applied >= self.noop || broken!(self, LeaseFromWinning);
        let is_master = self.role == Role::Leader && is_begun && !self.is_lease_off;
        is_master.then(|| self.lease_end()).filter(|end| now < *end)
    }

    /// Whether this node may act as master: it leads, its no-op is applied and it is in touch with a quorum (F4). Its acts
    /// are committed by the log, so this needs no clock bound.
    #[must_use]
    pub fn has_authority(&self, now: Nanos) -> bool {
        self.is_at_work() && self.is_in_touch(now)
    }

    /// Whether this node's master may exist: the node leads, its no-op is applied, and it is not handing over.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.role == Role::Leader && self.applied >= self.noop && self.transfer.is_none()
    }

    /// Whether what this node knows of the leader is recent: on the leader itself, that it is in touch with a quorum;
    /// elsewhere, that it was heard within the election timeout.
    #[must_use]
    pub fn is_fresh(&self, now: Nanos) -> bool {
        match self.role {
            Role::Leader => self.is_in_touch(now),
            _ => {
                let heard = self.contact.filter(|(_, leader)| self.leader == Some(*leader));
                heard.is_some_and(|(at, _)| now < at + self.profile.election_timeout)
            }
        }
    }

    /// On a leader: the voters that keep up, itself included: within the last election timeout each answered something sent in it,
    /// and took something if it lacks anything that our own disk has.
    #[must_use]
    pub fn heard(&self, now: Nanos) -> Vec<NodeId> {
        if self.role != Role::Leader {
            return Vec::new();
        }
        let (within, durable) = (self.profile.election_timeout, self.log.durable());
        let peers = self.peers.iter().filter(|peer| peer.keeps_up(now, within, durable)).map(|peer| peer.node);
        let mut heard: Vec<NodeId> = peers.chain([self.node]).collect();
        heard.retain(|node| self.conf().is_some_and(|conf| super::quorum::votes(conf, *node)));
        heard.sort_unstable();
        heard
    }

    /// The latest time such that a quorum answered something that we sent at or after it.
    pub(super) fn quorum_ack(&self) -> Nanos {
        Nanos(self.reached(self.now.0, |peer| peer.acked.0))
    }

    /// [`Consensus::quorum_ack`] for check-quorum: a new leader has one election timeout to hear from its quorum (E7).
    pub(super) fn quorum_contact(&self) -> Nanos {
        self.quorum_ack().max(self.elected_at)
    }

    /// When a quorum of promises may have ended (L1).
    pub(super) fn lease_end(&self) -> Nanos {
        let own = self.now + shortened(self.profile.promise);
        let promised = |acked: Nanos, promise| if acked == Nanos(0) { 0 } else { acked.0 + nanos(shortened(promise)) };
        Nanos(self.reached(own.0, |peer| promised(peer.acked, peer.promise)))
    }

    fn is_in_touch(&self, now: Nanos) -> bool {
        now <= self.quorum_contact() + self.profile.election_timeout
    }
}

/// Reads that may wait at once.
pub(super) const READS_MAX: usize = 16 * 1024;
