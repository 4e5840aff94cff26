//! Holds back what must not be seen before it is durable.
//!
//! # Invariants
//!
//! * A message whose `after` names a batch passes only when [`Gate::open`] was told of that batch or a later one.
//! * Messages that are held pass in the order in which they came.
//! * However often a leader sends again what a disk that hangs does not take, what is held does not grow: an acknowledgement
//!   takes the place of one that says no more and waits for the same batch.

use std::collections::VecDeque;

use crate::consensus::{Message, Verdict};
use crate::effects::Outgoing;
use crate::message::Body;
use crate::mutants::{Bug, is_on};

/// Between a replica and the links: in the actors and in the simulator alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gate {
    durable: u64,
    held: VecDeque<Outgoing>,
}

impl Gate {
    /// Passes `outgoing` on if it may leave now, and keeps it otherwise.
    pub fn pass(&mut self, outgoing: Outgoing) -> Option<Outgoing> {
        if outgoing.after.is_none_or(|seq| seq <= self.durable) || is_on(Bug::GateStandsOpen) {
            return Some(outgoing);
        }
        self.held.retain(|held| !is_said_by(held, &outgoing));
        self.held.push_back(outgoing);
        None
    }

    /// All batches up to `seq` are durable: hands out what waited for them.
    pub fn open(&mut self, seq: u64) -> Vec<Outgoing> {
        self.durable = self.durable.max(seq);
        let may_leave = |outgoing: &Outgoing| outgoing.after.is_none_or(|after| after <= self.durable);
        let (free, held) = self.held.drain(..).partition(may_leave);
        self.held = held;
        Vec::from(free)
    }
}

/// Whether a later acknowledgement, which leaves at the same moment, says all that an earlier one does.
fn is_said_by(earlier: &Outgoing, later: &Outgoing) -> bool {
    let (Body::Consensus(Message::AppendReply(old)), Body::Consensus(Message::AppendReply(new))) =
        (&earlier.body, &later.body)
    else {
        return false;
    };
    let says_no_less = match (old.verdict, new.verdict) {
        (Verdict::Matched(old), Verdict::Matched(new)) => old <= new,
        // Where to try is asked anew with every probe.
        (Verdict::Rejected { .. }, _) => true,
        (Verdict::Matched(_), Verdict::Rejected { .. }) => false,
    };
    says_no_less && earlier.to == later.to && earlier.after == later.after && old.epoch == new.epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::AppendReply;
    use crate::types::{Epoch, Index, Nanos, NodeId};

    fn outgoing(epoch: u64, after: Option<u64>) -> Outgoing {
        let message = Message::VoteReply { epoch: Epoch(epoch), granted: true };
        Outgoing { to: NodeId(1), body: message.into(), after }
    }

    #[test]
    fn a_vote_waits_until_it_is_durable() {
        let mut gate = Gate::default();
        assert_eq!(gate.pass(outgoing(1, Some(3))), None);
        assert_eq!(gate.pass(outgoing(2, Some(4))), None);
        assert_eq!(gate.pass(outgoing(3, None)), Some(outgoing(3, None)));
        assert_eq!(gate.open(2), []);
        assert_eq!(gate.open(3), [outgoing(1, Some(3))]);
        assert_eq!(gate.pass(outgoing(4, Some(3))), Some(outgoing(4, Some(3))));
        assert_eq!(gate.open(9), [outgoing(2, Some(4))]);
    }

    fn reply(verdict: Verdict, sent: u64, after: u64) -> Outgoing {
        let promise = std::time::Duration::ZERO;
        let reply = AppendReply { epoch: Epoch(1), verdict, sent: Nanos(sent), promise, is_eager: false };
        Outgoing { to: NodeId(1), body: Message::AppendReply(reply).into(), after: Some(after) }
    }

    #[test]
    fn what_a_disk_that_hangs_holds_back_does_not_grow() {
        let mut gate = Gate::default();
        let refused = Verdict::Rejected { at: Index(9), hint: crate::types::LogId::default() };
        for sent in 1..1_000 {
            for verdict in [refused, Verdict::Matched(Index(7)), Verdict::Matched(Index(8))] {
                assert_eq!(gate.pass(reply(verdict, sent, 3)), None);
            }
            assert_eq!(gate.pass(reply(Verdict::Matched(Index(9)), sent, 4)), None);
        }
        assert_eq!(gate.open(3), [reply(Verdict::Matched(Index(8)), 999, 3)], "it need not wait for what came later");
        assert_eq!(gate.open(4), [reply(Verdict::Matched(Index(9)), 999, 4)]);
    }
}
