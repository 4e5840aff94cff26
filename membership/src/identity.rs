//! Who a member is, to foca.
//!
//! The table of members is keyed by the node, so a node may come back at another address. Two identities of one node
//! are told apart by the run of the process first (`incarnation`) and by how often that run had to take its name anew
//! (`bump`) after it. Sessions hang on `(node, incarnation)`; a changed `bump` is not a restart.
//!
//! # Invariants
//!
//! * The order of identities of one node is total and agrees with equality; foca would flip-flop for ever between two
//!   unequal identities of which neither wins.
//! * `incarnation` changes only when the process restarts, `bump` only in `renew`.

use std::net::SocketAddr;

use protocol::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// One name that a member bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The node.
    pub(crate) node: NodeId,
    /// The run of its process.
    pub(crate) incarnation: Incarnation,
    /// How often this run was declared down and came back.
    pub(crate) bump: u32,
    /// Where its gossip is heard.
    pub(crate) addr: SocketAddr,
    /// Where its links are accepted.
    pub(crate) link: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foca::Identity as _;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// An identity drawn from so few values that equal and nearly equal ones are common.
    pub(crate) fn drawn(rng: &mut SmallRng) -> Identity {
        let addr = |rng: &mut SmallRng| match rng.random_range(0..3u8) {
            0 => SocketAddr::from(([127, 0, 0, 1], rng.random_range(1..3))),
            1 => SocketAddr::from(([10, 0, 0, rng.random_range(1..3)], 7400)),
            _ => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], rng.random_range(1..3))),
        };
        Identity {
            node: NodeId(rng.random_range(1..4)),
            incarnation: Incarnation(rng.random_range(1..3)),
            bump: rng.random_range(0..3),
            addr: addr(rng),
            link: addr(rng),
        }
    }

    #[test]
    fn of_two_identities_of_a_node_exactly_one_wins() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let (a, b, c) = (drawn(&mut rng), drawn(&mut rng), drawn(&mut rng));
            if a == b {
                assert!(!a.win_addr_conflict(&b) && !b.win_addr_conflict(&a));
            } else {
                assert_ne!(a.win_addr_conflict(&b), b.win_addr_conflict(&a), "{a:?} and {b:?}");
            }
            if a.win_addr_conflict(&b) && b.win_addr_conflict(&c) {
                assert!(a.win_addr_conflict(&c), "{a:?}, {b:?}, {c:?}");
            }
        }
    }

    #[test]
    fn a_renewed_identity_wins_and_a_restart_wins_over_any_renewal() {
        let old = drawn(&mut SmallRng::seed_from_u64(2));
        let renewed = old.renew().unwrap();
        assert!(renewed.win_addr_conflict(&old));
        let restarted = Identity { incarnation: old.incarnation.next(), bump: 0, ..old };
        assert!(restarted.win_addr_conflict(&Identity { bump: u32::MAX, ..old }));
        assert_eq!(Identity { bump: u32::MAX, ..old }.renew(), None);
    }
}
