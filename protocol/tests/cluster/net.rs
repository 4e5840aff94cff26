//! Links between processes, and how messages travel on them.
//!
//! # Invariants
//!
//! * What a master and a worker say to each other keeps its order on a link and dies with it (F8).
//! * A cut is silent: nobody is told, and the link breaks only by its own deadline.

use std::collections::VecDeque;

use protocol::NodeId;
use protocol::message::Body;

/// All links of a world.
pub struct Net {
    hosts: usize,
    sides: Vec<Side>,
    generation: u64,
}

/// One direction between two processes, as its sender sees it.
#[derive(Clone, Default)]
pub struct Side {
    /// The link this side believes in.
    pub link: Option<Link>,
    /// Since when nothing passes in this direction.
    pub cut: Option<u64>,
    /// A try to connect is scheduled.
    pub is_connecting: bool,
    /// When the last ordered message arrives.
    pub last: u64,
    /// Ordered messages that wait for the end of a cut.
    pub stuck: VecDeque<Body>,
}

/// A link as one side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Grows with every new link anywhere.
    pub generation: u64,
    /// Who the peer is.
    pub peer: NodeId,
    /// The run of the peer.
    pub peer_run: u64,
}

impl Net {
    /// No links.
    pub fn new(hosts: usize) -> Self {
        Self { hosts, sides: vec![Side::default(); hosts * hosts], generation: 0 }
    }

    /// The direction from one host to another.
    pub fn side(&self, from: usize, to: usize) -> &Side {
        &self.sides[from * self.hosts + to]
    }

    /// The same, to be changed.
    pub fn side_mut(&mut self, from: usize, to: usize) -> &mut Side {
        &mut self.sides[from * self.hosts + to]
    }

    /// Says whether nothing passes in at least one direction.
    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.side(a, b).cut.is_some() || self.side(b, a).cut.is_some()
    }

    /// Says whether both sides believe in one link.
    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        let (one, other) = (self.side(a, b).link, self.side(b, a).link);
        one.is_some_and(|one| other.is_some_and(|other| one.generation == other.generation))
    }

    /// A new link: both sides believe in it from now on.
    pub fn connect(&mut self, a: (usize, NodeId, u64), b: (usize, NodeId, u64)) -> u64 {
        self.generation += 1;
        let generation = self.generation;
        for (from, (to, peer, peer_run)) in [(a.0, b), (b.0, a)] {
            let side = self.side_mut(from, to);
            side.link = Some(Link { generation, peer, peer_run });
            side.stuck.clear();
            side.last = 0;
        }
        generation
    }

    /// One side gives its link up.
    pub fn drop_side(&mut self, from: usize, to: usize) -> Option<Link> {
        let side = self.side_mut(from, to);
        side.stuck.clear();
        side.link.take()
    }
}
