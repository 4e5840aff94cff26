//! Sessions: something that lives as long as somebody keeps saying so.
//!
//! Clients and nodes have sessions of the same kind; what hangs on them differs (`clients`, `nodes`). Time here is
//! cluster time: a session is never ended by a clock, only by an entry of the log that says how late it is.
//!
//! The maps are persistent ones, here and in the other parts of the state: a copy costs nothing and shares what does not
//! change, so that a state can be frozen and written down while it goes on (F28).
//!
//! # Invariants
//!
//! * A deadline only moves later.
//! * Every live session stands in `deadlines` once, under its own deadline.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};

use super::digest::{Sum, Tag, fingerprint};
use crate::types::{ClusterTime, SessionId};

/// The live sessions of one kind, with what hangs on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sessions<T> {
    live: OrdMap<SessionId, Arc<Session<T>>>,
    deadlines: OrdSet<(ClusterTime, SessionId)>,
    digest: Sum,
}

/// One live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session<T> {
    /// For how long it lives without a renewal.
    pub(super) ttl: Duration,
    /// When it ends without one.
    pub(super) deadline: ClusterTime,
    /// What hangs on it.
    pub(super) holder: T,
}

impl<T: Clone> Sessions<T> {
    /// Opens a session.
    pub(super) fn open(&mut self, id: SessionId, ttl: Duration, now: ClusterTime, holder: T) {
        let is_new = self.restore(id, Session { ttl, deadline: now + ttl, holder });
        assert!(is_new, "session {id} was handed out twice");
    }

    /// Takes a session as it was elsewhere; says whether there was none of that id.
    pub(super) fn restore(&mut self, id: SessionId, session: Session<T>) -> bool {
        if self.live.contains_key(&id) {
            return false;
        }
        self.digest.add(session.fingerprint(id));
        self.deadlines.insert((session.deadline, id));
        self.live.insert(id, Arc::new(session));
        true
    }

    /// Ends a session and returns what it was.
    pub(super) fn close(&mut self, id: SessionId) -> Option<Session<T>> {
        let session = Arc::unwrap_or_clone(self.live.remove(&id)?);
        self.deadlines.remove(&(session.deadline, id));
        self.digest.remove(session.fingerprint(id));
        Some(session)
    }

    /// Moves a session's deadline to a full time to live from now, unless it is later already. Returns the deadline.
    pub(super) fn renew(&mut self, id: SessionId, now: ClusterTime) -> Option<ClusterTime> {
        let ttl = self.live.get(&id)?.ttl;
        self.revive(id, ttl, now)
    }

    /// Renews a session with another time to live.
    pub(super) fn revive(&mut self, id: SessionId, ttl: Duration, now: ClusterTime) -> Option<ClusterTime> {
        let session = Arc::make_mut(self.live.get_mut(&id)?);
        let deadline = session.deadline.max(now + ttl);
        if deadline == session.deadline && ttl == session.ttl {
            return Some(deadline);
        }
        self.digest.remove(session.fingerprint(id));
        self.deadlines.remove(&(session.deadline, id));
        (session.ttl, session.deadline) = (ttl, deadline);
        self.deadlines.insert((deadline, id));
        self.digest.add(session.fingerprint(id));
        Some(deadline)
    }

    /// What hangs on a session, to be changed.
    pub(super) fn holder_mut(&mut self, id: SessionId) -> Option<&mut T> {
        self.live.get_mut(&id).map(|session| &mut Arc::make_mut(session).holder)
    }

    /// One live session.
    pub(super) fn get(&self, id: SessionId) -> Option<&Session<T>> {
        self.live.get(&id).map(Arc::as_ref)
    }

    /// All live sessions, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session<T>)> {
        self.live.iter().map(|(&id, session)| (id, session.as_ref()))
    }

    /// The live sessions with greater ids, oldest first.
    pub(super) fn after(&self, id: SessionId) -> impl Iterator<Item = (SessionId, &Session<T>)> {
        self.live.range((Bound::Excluded(id), Bound::Unbounded)).map(|(&id, session)| (id, session.as_ref()))
    }

    /// All live sessions of a copy, oldest first.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (SessionId, Arc<Session<T>>)> {
        self.live.into_iter()
    }

    /// The ids of all live sessions, oldest first.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.live.keys().copied().collect()
    }

    /// The session that ends first, if that is not after `time`.
    pub(super) fn due(&self, time: ClusterTime) -> Option<SessionId> {
        self.deadlines.get_min().filter(|(deadline, _)| *deadline <= time).map(|&(_, id)| id)
    }

    /// When the first session ends, if nothing renews it.
    pub(super) fn next_expiry(&self) -> Option<ClusterTime> {
        self.deadlines.get_min().map(|&(deadline, _)| deadline)
    }

    /// How many live.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// The hash of times to live and deadlines; what hangs on the sessions is hashed by its owner.
    pub(super) fn digest(&self) -> Sum {
        self.digest
    }
}

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self { live: OrdMap::new(), deadlines: OrdSet::new(), digest: Sum::default() }
    }
}

impl<T> Session<T> {
    fn fingerprint(&self, id: SessionId) -> u64 {
        fingerprint(Tag::Session, &(id, self.ttl, self.deadline))
    }
}

#[cfg(test)]
impl<T: Clone> Sessions<T> {
    /// Recomputes hash and index from the sessions, and compares.
    pub(super) fn assert_coherent(&self) {
        let mut digest = Sum::default();
        let mut deadlines = OrdSet::new();
        for (id, session) in self.iter() {
            digest.add(session.fingerprint(id));
            deadlines.insert((session.deadline, id));
        }
        assert_eq!(digest, self.digest, "the digest of the sessions drifted");
        assert_eq!(deadlines, self.deadlines, "the index of deadlines drifted");
    }
}
