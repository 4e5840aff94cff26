//! Node sessions: which runs of which nodes may hold attempts.
//!
//! # Invariants
//!
//! * A node has at most one session: that of its newest run heard of.
//! * A newer run of the same data folder is proof that the older one is dead (F12); an older run never comes back.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{MAX_NODES, MAX_OFFERED, check_offer, check_ttl};
use super::sessions::{Session, Sessions};
use crate::state::{NodeSession, NodeView, Offer, Refused};
use crate::types::{ClusterTime, Incarnation, NodeId, Revision, SessionId};

/// The live node sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    sessions: Sessions<Run>,
    by_node: OrdMap<NodeId, SessionId>,
    /// What all that is offered takes.
    offered: usize,
    digest: Sum,
}

/// One run of a node, as it introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The node.
    pub(super) node: NodeId,
    /// Its run.
    pub(super) incarnation: Incarnation,
    /// What it offers.
    pub(super) offer: Offer,
    digest: u64,
}

impl Nodes {
    /// Says why this offer cannot be kept, if so.
    pub(super) fn check(&self, node: NodeId, offer: &Offer, ttl: Duration) -> Result<(), Refused> {
        check_offer(offer)?;
        check_ttl(ttl)?;
        if self.sessions.len() >= MAX_NODES && !self.by_node.contains_key(&node) {
            return Err(Refused::Quota(format!("the cluster is full: {MAX_NODES} nodes are here")));
        }
        let known = self.by_node.get(&node).and_then(|id| self.sessions.get(*id));
        let others = self.offered - known.map_or(0, |known| known.holder.offer.size());
        if others + offer.size() > MAX_OFFERED {
            let words = "kinds and labels of all nodes may take";
            return Err(Refused::Quota(format!("the cluster is full: {words} {} KiB together", MAX_OFFERED >> 10)));
        }
        Ok(())
    }

    /// Opens a session under the revision of its grant. The node has none.
    pub(super) fn open(
        &mut self,
        revision: Revision,
        now: ClusterTime,
        (node, incarnation): (NodeId, Incarnation),
        offer: &Offer,
        ttl: Duration,
    ) -> SessionId {
        let id = SessionId::from(revision);
        let run = Run::new(id, node, incarnation, offer);
        self.digest.add(run.digest);
        self.offered += offer.size();
        self.sessions.open(id, ttl, now, run);
        let earlier = self.by_node.insert(node, id);
        assert!(earlier.is_none(), "node {node} has two sessions");
        id
    }

    /// Takes what the run of an open session says of itself now, and renews the session.
    pub(super) fn update(&mut self, id: SessionId, now: ClusterTime, offer: &Offer, ttl: Duration) {
        self.sessions.revive(id, ttl, now);
        let Some(run) = self.sessions.holder_mut(id) else { return };
        self.digest.remove(run.digest);
        self.offered = self.offered - run.offer.size() + offer.size();
        *run = Run::new(id, run.node, run.incarnation, offer);
        self.digest.add(run.digest);
    }

    /// Ends a session and returns whose it was.
    pub(super) fn close(&mut self, id: SessionId) -> Option<NodeId> {
        let run = self.sessions.close(id)?.holder;
        self.by_node.remove(&run.node);
        self.digest.remove(run.digest);
        self.offered -= run.offer.size();
        Some(run.node)
    }

    /// See [`Sessions::renew`].
    pub(super) fn renew(&mut self, id: SessionId, now: ClusterTime) -> Option<ClusterTime> {
        self.sessions.renew(id, now)
    }

    /// The session of a node, and of which run it is.
    pub(super) fn of_node(&self, node: NodeId) -> Option<(SessionId, Incarnation)> {
        let &id = self.by_node.get(&node)?;
        self.sessions.get(id).map(|session| (id, session.holder.incarnation))
    }

    /// Takes a session as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(
        &mut self,
        id: SessionId,
        ttl: Duration,
        deadline: ClusterTime,
        (node, incarnation): (NodeId, Incarnation),
        offer: &Offer,
    ) -> bool {
        let run = Run::new(id, node, incarnation, offer);
        self.digest.add(run.digest);
        self.offered += offer.size();
        let is_first = self.by_node.insert(node, id).is_none();
        self.sessions.restore(id, Session { ttl, deadline, holder: run }) && is_first
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.sessions.into_iter().map(|(id, session)| {
            let Session { ttl, deadline, holder } = Arc::unwrap_or_clone(session);
            let Run { node, incarnation, offer, .. } = holder;
            Item::Node { id, ttl, deadline, node, incarnation, offer }
        })
    }

    /// The sessions themselves.
    pub(super) fn sessions(&self) -> &Sessions<Run> {
        &self.sessions
    }

    /// The hash of all sessions.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value().wrapping_add(self.sessions.digest().value())
    }
}

impl Run {
    fn new(id: SessionId, node: NodeId, incarnation: Incarnation, offer: &Offer) -> Self {
        let digest = digest(id, node, incarnation, offer);
        Self { node, incarnation, offer: offer.clone(), digest }
    }
}

impl Offer {
    /// About how many bytes it takes in a message or in the log.
    pub(crate) fn size(&self) -> usize {
        let kinds = self.kinds.iter().map(|kind| kind.len() + WORD_BYTES);
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len() + 2 * WORD_BYTES);
        self.label.len() + kinds.chain(labels).sum::<usize>()
    }
}

impl NodeView {
    /// The same for two lists that name the same sessions with the same offers, in whatever order and however busy they are; another
    /// one for others, as far as 64 bits can tell.
    #[must_use]
    pub fn sum(nodes: &[Self]) -> u64 {
        let digests = nodes.iter().map(|view| digest(view.session, view.node, view.incarnation, &view.offer));
        digests.fold(0, u64::wrapping_add)
    }
}

impl Session<Run> {
    /// The session as the master sees it.
    pub(super) fn for_master(&self, id: SessionId) -> NodeSession {
        let Run { node, incarnation, ref offer, .. } = self.holder;
        NodeSession { node, incarnation, session: id, offer: offer.clone(), ttl: self.ttl, deadline: self.deadline }
    }

    /// The session as it is shown.
    pub(super) fn view(&self, id: SessionId, assigned: u32) -> NodeView {
        let Run { node, incarnation, ref offer, .. } = self.holder;
        NodeView { node, incarnation, session: id, offer: offer.clone(), ttl: self.ttl, assigned }
    }
}

/// What a word takes in a message beside its letters.
const WORD_BYTES: usize = 8;

fn digest(id: SessionId, node: NodeId, incarnation: Incarnation, offer: &Offer) -> u64 {
    fingerprint(Tag::Run, &(id, node, incarnation, offer))
}

#[cfg(test)]
impl Nodes {
    /// Recomputes hashes and indexes from the sessions, and compares.
    pub(super) fn assert_coherent(&self) {
        self.sessions.assert_coherent();
        let mut digest = Sum::default();
        let mut by_node = OrdMap::new();
        let mut offered = 0;
        for (id, session) in self.sessions.iter() {
            let run = &session.holder;
            digest.add(Run::new(id, run.node, run.incarnation, &run.offer).digest);
            by_node.insert(run.node, id);
            offered += run.offer.size();
        }
        assert_eq!(offered, self.offered, "what is offered was counted wrongly");
        assert_eq!(digest, self.digest, "the digest of the nodes drifted");
        assert_eq!(by_node, self.by_node, "the index of nodes drifted");
    }
}
