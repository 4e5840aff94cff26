//! Holds back what must not be seen before it is durable.
//!
//! # Invariants
//!
//! * A message whose `after` names a batch passes only when [`Gate::open`] was told of that batch or a later one.
//! * Messages that are held pass in the order in which they came.

use std::collections::VecDeque;

use crate::effects::Outgoing;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Message;
    use crate::types::{Epoch, NodeId};

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
}
