//! Linearizable reads on a node that does not lead: it asks the leader how far the log is committed, and waits until it has
//! applied that much itself. So readers are served by every node that holds the log, and the leader sends a number instead
//! of answers.
//!
//! Reads that come while a question is under way wait for the next one: an index is good only for reads that came before
//! the leader was asked. However many there are, one question at a time is under way.
//!
//! # Invariants
//!
//! * A read is answered only with an index that was asked for after the read came, and only when that is applied here.
//! * The leader confirms a question exactly as a read of its own (F24).
//! * What waits is bounded. A question is given up after an election timeout or when the leader changes, and what was confirmed
//!   an election timeout after that, if the log has not brought it: certainly not done.

use std::collections::VecDeque;

use crate::effects::Role;
use crate::types::{Epoch, Index, Nanos, NodeId};

use super::lease::{Asker, READS_MAX};
use super::{Consensus, Drop, Effect, Message, ReadMode, broken};

/// The reads of a node that does not lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Asks {
    /// Not asked for yet.
    waiting: Vec<(u64, ReadMode)>,
    /// The question under way.
    asked: Option<Question>,
    /// Each waits for its index to be applied here.
    confirmed: VecDeque<Confirmed>,
    count: usize,
}

/// One question to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    number: u64,
    leader: NodeId,
    reads: Vec<u64>,
    may_lease: bool,
    first_sent: Nanos,
    last_sent: Nanos,
}

/// Reads that the leader has answered for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Confirmed {
    index: Index,
    reads: Vec<u64>,
    /// When they are given up.
    until: Nanos,
}

impl Asks {
    /// When there is something to do: a question may have been lost, or what was confirmed never came.
    pub(super) fn due(&self, heartbeat: std::time::Duration) -> Nanos {
        let again = self.asked.as_ref().map_or(Nanos::NEVER, |question| question.last_sent + heartbeat);
        again.min(self.confirmed.front().map_or(Nanos::NEVER, |oldest| oldest.until))
    }

    /// Whether the question under way may have been lost.
    fn is_late(&self, now: Nanos, heartbeat: std::time::Duration) -> bool {
        self.asked.as_ref().is_some_and(|question| now >= question.last_sent + heartbeat)
    }

    /// Takes what is not confirmed.
    fn take_unconfirmed(&mut self) -> Vec<u64> {
        let asked = self.asked.take().map(|question| question.reads).unwrap_or_default();
        let waiting = self.waiting.drain(..).map(|(context, _)| context);
        let all: Vec<u64> = asked.into_iter().chain(waiting).collect();
        self.count -= all.len();
        all
    }
}

impl Consensus {
    /// A read on a node that does not lead.
    pub(super) fn on_read_elsewhere(&mut self, context: u64, mode: ReadMode, effects: &mut Vec<Effect>) {
        let follows = self.role == Role::Follower && self.leader.is_some() && self.is_member();
        let why = match follows {
            false => Drop::NotLeader,
            true if self.asks.count >= READS_MAX => Drop::Busy,
            true => {
                self.asks.count += 1;
                self.asks.waiting.push((context, mode));
                return self.ask_leader(effects);
            }
        };
        effects.push(Effect::Dropped { context, why });
    }

    /// Sends the next question if none is under way.
    fn ask_leader(&mut self, effects: &mut Vec<Effect>) {
        let Some(leader) = self.leader.filter(|_| self.asks.asked.is_none() && !self.asks.waiting.is_empty()) else {
            return;
        };
        // A number that no earlier run of this node can have used.
        let number = self.draw(u64::MAX);
        let may_lease = self.asks.waiting.iter().all(|(_, mode)| *mode == ReadMode::Lease);
        let reads = self.asks.waiting.drain(..).map(|(context, _)| context).collect();
        let (first_sent, last_sent) = (self.now, self.now);
        self.asks.asked = Some(Question { number, leader, reads, may_lease, first_sent, last_sent });
        self.send_question(effects);
    }

    fn send_question(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        let Some(question) = &mut self.asks.asked else { return };
        question.last_sent = now;
        let message =
            Message::ReadIndex { epoch: self.hard.epoch, number: question.number, may_lease: question.may_lease };
        let to = question.leader;
        effects.push(Effect::Send { to, message, after: self.hard_pending() });
    }

    /// Asks again what may be lost, gives up what is hopeless, and answers what is applied. Called at the end of every step.
    pub(super) fn tend_asks(&mut self, effects: &mut Vec<Effect>) {
        if self.asks.count == 0 {
            return;
        }
        let (heartbeat, patience) = (self.profile.heartbeat, self.profile.election_timeout);
        let is_hopeless = match &self.asks.asked {
            Some(asked) => self.leader != Some(asked.leader) || self.now >= asked.first_sent + patience,
            None => self.leader.is_none(),
        };
        if is_hopeless || self.role != Role::Follower {
            for context in self.asks.take_unconfirmed() {
                effects.push(Effect::Dropped { context, why: Drop::NotLeader });
            }
        } else if self.asks.is_late(self.now, heartbeat) {
            self.send_question(effects);
        }
        self.answer_confirmed(effects);
    }

    /// Answers what is applied by now, and gives up what the log did not bring in time.
    fn answer_confirmed(&mut self, effects: &mut Vec<Effect>) {
        let (applied, now) = (self.applied, self.now);
        let is_over = |oldest: &mut Confirmed| oldest.index <= applied || oldest.until <= now;
        while let Some(Confirmed { index, reads, .. }) = self.asks.confirmed.pop_front_if(is_over) {
            self.asks.count -= reads.len();
            effects.extend(reads.into_iter().map(|context| match index <= applied {
                true => Effect::ReadReady { context, index },
                false => Effect::Dropped { context, why: Drop::Behind },
            }));
        }
    }

    /// A node asks how far the log is committed. Whoever does not lead says so.
    pub(super) fn on_read_index(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        number: u64,
        may_lease: bool,
        effects: &mut Vec<Effect>,
    ) {
        if epoch > self.hard.epoch {
            self.follow(epoch, None, effects);
        }
        let mode = if may_lease { ReadMode::Lease } else { ReadMode::Quorum };
        match self.role {
            Role::Leader => self.queue_read(Asker::Node(from, number), mode, effects),
            _ => self.answer_question(from, number, None, effects),
        }
    }

    /// The answer to a question of another node.
    pub(super) fn answer_question(&self, to: NodeId, number: u64, index: Option<Index>, effects: &mut Vec<Effect>) {
        let message = Message::ReadIndexReply { epoch: self.hard.epoch, number, index };
        effects.push(Effect::Send { to, message, after: self.hard_pending() });
    }

    /// The leader's answer, or somebody's that it does not lead.
    pub(super) fn on_read_index_reply(
        &mut self,
        epoch: Epoch,
        number: u64,
        index: Option<Index>,
        effects: &mut Vec<Effect>,
    ) {
        if epoch > self.hard.epoch {
            return self.follow(epoch, None, effects);
        }
        let is_any = broken!(self, ReadsByOldAnswers);
        let Some(question) = self.asks.asked.take_if(|question| is_any || question.number == number) else { return };
        match index {
            Some(index) => {
                let until = self.now + self.profile.election_timeout;
                self.asks.confirmed.push_back(Confirmed { index, reads: question.reads, until });
            }
            None => {
                self.asks.count -= question.reads.len();
                for context in question.reads {
                    effects.push(Effect::Dropped { context, why: Drop::NotLeader });
                }
            }
        }
        self.ask_leader(effects);
    }
}
