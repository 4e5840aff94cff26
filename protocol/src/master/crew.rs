//! One node as the master sees it: its session, its link, and what it holds.
//!
//! # Invariants
//!
//! * `expected` counts the tickets of the master that name this node.
//! * `grants` and `reserved` name exactly the tasks whose stage on the board names this node.
//! * Nothing is dispatched to a node before it was welcomed on the link of today: it knows its session by then.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::{NodeSession, Offer};
use crate::types::{ClusterTime, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};
use crate::worker::Held;

/// What the master knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Member {
    /// Its session, if it has one.
    pub(super) session: Option<NodeSession>,
    /// Whether it can be spoken to.
    pub(super) is_linked: bool,
    /// The run that said hello on the link of today, in this epoch.
    pub(super) greeted: Option<Incarnation>,
    /// Whether it was told on this link, since its hello, that its session lives.
    pub(super) is_welcome: bool,
    /// Whether there is evidence that the run of its session is dead, and no hello since.
    pub(super) is_dead: bool,
    /// Whether it handed something back since its last report: it has no room.
    pub(super) is_full: bool,
    /// What is granted to it.
    pub(super) grants: BTreeMap<Fence, TaskId>,
    /// Grants whose dispatch found no room on the link of today.
    pub(super) unsent: BTreeSet<Fence>,
    /// What is about to be granted to it.
    pub(super) reserved: BTreeSet<TaskId>,
    /// How many tasks that have no id yet are about to be granted to it.
    pub(super) expected: usize,
    /// A renewal that was asked for and is not proposed yet.
    pub(super) asked: Option<Asked>,
    /// A renewal that is on its way through the log.
    pub(super) proposed: Option<Asked>,
}

/// A worker's wish to have its session renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// When it was sent, by the worker's clock.
    pub(super) sent: Nanos,
    /// When it came, by cluster time.
    pub(super) at: ClusterTime,
}

/// A session that is to be opened, or whose facts have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Opening {
    pub(super) incarnation: Incarnation,
    pub(super) offer: Offer,
    /// When the worker asked for it, by its clock.
    pub(super) sent: Nanos,
    /// When that came, by cluster time.
    pub(super) at: ClusterTime,
}

/// What every report of a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Report {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    /// All that it holds.
    pub(super) held: Vec<Held>,
    /// When it was sent, by the worker's clock.
    pub(super) sent: Nanos,
}

impl Member {
    /// Its session, if this run opened it.
    pub(super) fn session_of(&self, incarnation: Incarnation) -> Option<&NodeSession> {
        self.session.as_ref().filter(|session| session.incarnation == incarnation)
    }

    /// The session under which it may be given work now.
    pub(super) fn usable(&self, now: ClusterTime) -> Option<&NodeSession> {
        let session = self.session_of(self.greeted?)?;
        let is_fit = self.is_linked && !self.is_dead && !self.is_full && session.deadline > now;
        is_fit.then_some(session)
    }

    /// Whether a grant under this session may be dispatched on the link of today.
    pub(super) fn can_hear_of(&self, session: SessionId) -> bool {
        self.is_linked
            && self.is_welcome
            && !self.is_dead
            && self.greeted.and_then(|run| self.session_of(run)).is_some_and(|own| own.session == session)
    }

    /// How many attempts it has or will have.
    pub(super) fn load(&self) -> usize {
        self.grants.len() + self.reserved.len() + self.expected
    }

    /// The link is new or gone: nothing said on the older one is known to have arrived.
    pub(super) fn relink(&mut self, is_linked: bool) {
        self.is_linked = is_linked;
        self.greeted = None;
        self.is_welcome = false;
        self.unsent.clear();
        self.asked = None;
        self.proposed = None;
    }
}
