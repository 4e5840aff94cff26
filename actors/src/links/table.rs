//! All links of a process: who is linked, which link is the current one, and where a frame belongs.
//!
//! # Invariants
//!
//! * One link per node. Installing a new one closes the old one first, and its leftovers in the inbox die with it.
//! * A frame counts only if every field of its envelope is right; otherwise it is dropped and counted.
//! * Lock order: the table, then a link. Nothing is called back under either.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, Incarnation, NodeId};
use tokio::sync::mpsc;

use super::counts::{Counters, Dropped};
use super::envelope::{Envelope, VERSION};
use super::inbox::{Inbox, Item};
use super::link::{Common, Heard, Link, Wire};
use super::{Class, Closed, Identity, LinkEvent, Peer, Role, SendError};

/// The links of one process.
pub(super) struct Table {
    pub identity: Identity,
    pub common: Arc<Common>,
    all: RwLock<All>,
}

#[derive(Default)]
struct All {
    current: BTreeMap<NodeId, Arc<Link>>,
    /// Links that ended, as long as somebody holds them: the inbox may still hold messages of theirs.
    ended: Vec<Weak<Link>>,
    /// Nothing is admitted any more.
    is_shut: bool,
}

/// Who is at the other end of a new link, as the hello said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub role: Role,
    pub addr: SocketAddr,
    /// Our name for the link.
    pub name: u64,
    /// The peer's name for it.
    pub peers_name: u64,
}

impl Table {
    pub(super) fn new(identity: Identity) -> (Arc<Self>, Inbox) {
        let (events, items) = mpsc::unbounded_channel();
        let common = Arc::new(Common {
            node: identity.node,
            incarnation: identity.incarnation,
            cluster: RwLock::new(identity.cluster),
            counters: Counters::default(),
            events,
        });
        let inbox = Inbox::new(items, common.clone());
        (Arc::new(Self { identity, common, all: RwLock::default() }), inbox)
    }

    /// Makes a link the current one of its node, unless an existing one is to be kept. `generation` must come from
    /// [`next_generation`].
    pub(super) fn admit(
        &self,
        newcomer: Newcomer,
        generation: u64,
        wire: Box<dyn Wire>,
        dialler: NodeId,
    ) -> Option<Arc<Link>> {
        let Newcomer { node, incarnation, role, addr, name, peers_name } = newcomer;
        let peer = Peer { node, incarnation, role, generation, addr };
        let link = Link::new(peer, (name, peers_name), dialler, self.common.clone(), wire);
        let mut all = self.all.write().expect("nobody panics under this lock");
        if all.is_shut || all.current.get(&node).is_some_and(|old| self.is_preferred(old, &link)) {
            return None;
        }
        if let Some(old) = all.current.insert(node, link.clone()) {
            old.supersede();
            old.close(Closed::Replaced);
        }
        all.ended.iter().filter_map(Weak::upgrade).filter(|old| old.peer.node == node).for_each(|old| old.supersede());
        Some(link)
    }

    /// Ends a link. False if it had ended before.
    pub(super) fn close(&self, link: &Arc<Link>, why: Closed) -> bool {
        let mut all = self.all.write().expect("nobody panics under this lock");
        if all.current.get(&link.peer.node).is_some_and(|current| Arc::ptr_eq(current, link)) {
            all.current.remove(&link.peer.node);
            all.ended.retain(|old| old.strong_count() > 0);
            all.ended.push(Arc::downgrade(link));
        }
        drop(all);
        link.close(why)
    }

    /// Ends the link to `node`.
    pub(super) fn close_node(&self, node: NodeId, why: Closed) {
        if let Some(link) = self.link(node) {
            self.close(&link, why);
        }
    }

    /// Ends the link to `node` if it was silent for that long.
    pub(super) fn close_if_silent(&self, node: NodeId, silence: Duration) {
        if let Some(link) = self.link(node)
            && link.silent_for() >= silence
        {
            self.close(&link, Closed::Idle);
        }
    }

    pub(super) fn send(&self, to: NodeId, class: Class, body: Bytes) -> Result<(), SendError> {
        self.link(to).ok_or(SendError::NoLink)?.send(class, body)
    }

    /// Takes a frame that came over some wire.
    pub(super) fn receive(&self, frame: &[u8]) {
        let Ok(envelope) = Envelope::decode(frame) else {
            return self.common.counters.count(Dropped::Malformed);
        };
        let link = match self.link(envelope.from) {
            Some(link) if self.is_for(&link, &envelope) => link,
            // The leftovers of an older link look like this too.
            _ => return self.common.counters.count(Dropped::Foreign),
        };
        if !are_compatible(self.cluster(), envelope.cluster) {
            self.common.counters.count(Dropped::Foreign);
            self.close(&link, Closed::OtherCluster);
            return;
        }
        match link.receive(envelope.body) {
            Ok(Heard::Something) => {}
            Ok(Heard::Goodbye) => {
                self.close(&link, Closed::ByPeer);
            }
            Err(why) => {
                self.common.counters.count(Dropped::Malformed);
                self.close(&link, why);
            }
        }
    }

    pub(super) fn set_cluster(&self, cluster: ClusterId) {
        *self.common.cluster.write().expect("nobody panics under this lock") = cluster;
    }

    pub(super) fn cluster(&self) -> ClusterId {
        *self.common.cluster.read().expect("nobody panics under this lock")
    }

    pub(super) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.all.read().expect("nobody panics under this lock").current.get(&node).cloned()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.all.read().expect("nobody panics under this lock").current.values().cloned().collect()
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        self.links().iter().filter(|link| link.is_up()).map(|link| link.peer).collect()
    }

    pub(super) fn report(&self, event: LinkEvent) {
        let _ = self.common.events.send(Item::Event(event));
    }

    /// Says goodbye on every link and waits until the peers closed them, at most for `patience`.
    pub(super) async fn leave(&self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline && !self.links().is_empty() {
            for link in self.links() {
                link.leave();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.end();
    }

    /// Closes every link and ends the inbox.
    pub(super) fn end(&self) {
        self.all.write().expect("nobody panics under this lock").is_shut = true;
        for link in self.links() {
            self.close(&link, Closed::BySelf);
        }
        let _ = self.common.events.send(Item::End);
    }

    /// Shall `old` stay, although `new` was agreed on? Whoever dials has no link, so a link of the same two runs is half
    /// open and gives way, except while both may be dialling at once: then the dial of the greater node counts.
    fn is_preferred(&self, old: &Link, new: &Link) -> bool {
        let (ours, theirs) = (self.identity.node, new.peer.node);
        match old.peer.incarnation.cmp(&new.peer.incarnation) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                let greater = ours.max(theirs);
                old.dialler == greater && new.dialler != greater && old.born.elapsed() < SIMULTANEOUS
            }
        }
    }

    fn is_for(&self, link: &Link, envelope: &Envelope) -> bool {
        envelope.version == VERSION
            && envelope.link == link.name
            && envelope.from_incarnation == link.peer.incarnation
            && envelope.to == self.identity.node
            && envelope.to_incarnation == self.identity.incarnation
    }
}

/// May nodes of these clusters talk? Yes if they are the same, or if one is in none yet.
pub(super) fn are_compatible(ours: ClusterId, theirs: ClusterId) -> bool {
    ours == theirs || ours == ClusterId::NONE || theirs == ClusterId::NONE
}

/// The generation of the next link of this process.
pub(super) fn next_generation() -> u64 {
    GENERATIONS.fetch_add(1, atomic::Ordering::Relaxed)
}

/// For so long after a link was made, the other side may still be in the middle of its own dial.
const SIMULTANEOUS: Duration = Duration::from_secs(1);

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::links::envelope::{Body, MAX_PIECE};
    use crate::links::tests::identity;

    /// A wire on which nothing comes and from which nothing is heard.
    struct NoWire;

    impl Wire for NoWire {
        fn is_ready(&self) -> bool {
            true
        }
        fn put(&self, _: Vec<u8>) {}
        fn cut(&self) {}
        fn silent_for(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// Node 1 with a link to node 2, and what node 2 would write on it.
    fn linked() -> (Arc<Table>, Inbox, Envelope) {
        let (table, mut inbox) = Table::new(Identity { cluster: ClusterId(5), ..identity(1) });
        let newcomer = Newcomer {
            node: NodeId(2),
            incarnation: Incarnation(1),
            role: Role::Node,
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            name: 77,
            peers_name: 88,
        };
        let link =
            table.admit(newcomer, next_generation(), Box::new(NoWire), NodeId(2)).expect("the first of its node");
        link.raise();
        assert!(matches!(inbox.try_recv(), Some(LinkEvent::Up(_))));
        let envelope = Envelope {
            version: VERSION,
            cluster: ClusterId(5),
            from: NodeId(2),
            from_incarnation: Incarnation(1),
            to: NodeId(1),
            to_incarnation: Incarnation(1),
            link: 77,
            body: Body::Whole { class: Class::Data, bytes: Bytes::from_static(b"hi") },
        };
        (table, inbox, envelope)
    }

    fn down(inbox: &mut Inbox) -> Option<Closed> {
        std::iter::from_fn(|| inbox.try_recv()).find_map(|event| match event {
            LinkEvent::Down { why, .. } => Some(why),
            _ => None,
        })
    }

    #[test]
    fn an_envelope_with_any_wrong_field_is_dropped_and_counted() {
        let (table, mut inbox, good) = linked();
        let wrong = [
            Envelope { version: 9, ..good.clone() },
            Envelope { from: NodeId(3), ..good.clone() },
            Envelope { from_incarnation: Incarnation(2), ..good.clone() },
            Envelope { to: NodeId(3), ..good.clone() },
            Envelope { to_incarnation: Incarnation(2), ..good.clone() },
            Envelope { link: 78, ..good.clone() },
        ];
        for envelope in &wrong {
            table.receive(&envelope.encode());
        }
        assert_eq!(table.common.counters.read().foreign, wrong.len() as u64);
        assert_eq!(inbox.try_recv(), None);
        table.receive(&good.encode());
        assert!(matches!(inbox.try_recv(), Some(LinkEvent::Message { body, .. }) if body == "hi"));
    }

    #[test]
    fn a_node_of_no_cluster_may_talk_and_one_of_another_is_cut() {
        let (table, mut inbox, good) = linked();
        table.receive(&Envelope { cluster: ClusterId::NONE, ..good.clone() }.encode());
        assert!(matches!(inbox.try_recv(), Some(LinkEvent::Message { .. })));
        table.receive(&Envelope { cluster: ClusterId(6), ..good }.encode());
        assert_eq!(down(&mut inbox), Some(Closed::OtherCluster));
    }

    #[test]
    fn a_peer_that_ignores_its_window_is_cut() {
        let (table, mut inbox, good) = linked();
        let bytes = Bytes::from(vec![0; MAX_PIECE]);
        for _ in 0..9 {
            let body = Body::Whole { class: Class::Bulk, bytes: bytes.clone() };
            table.receive(&Envelope { body, ..good.clone() }.encode());
        }
        assert_eq!(down(&mut inbox), Some(Closed::Violation));
    }

    #[test]
    fn pieces_that_do_not_fit_together_cut_the_link() {
        let piece =
            |class, total, is_last, length| Body::Piece { class, total, is_last, bytes: Bytes::from(vec![0; length]) };
        let whole = Body::Whole { class: Class::Data, bytes: Bytes::new() };
        let cases = [
            vec![piece(Class::Data, None, false, 10)],
            vec![piece(Class::Data, Some(u32::MAX), false, 10)],
            vec![piece(Class::Data, Some(10), true, 10)],
            vec![piece(Class::Control, Some(70_000), false, 10)],
            vec![piece(Class::Data, Some(70_000), true, 60_000)],
            vec![piece(Class::Data, Some(70_000), false, 60_000), piece(Class::Data, Some(70_000), false, 1)],
            vec![piece(Class::Data, Some(70_000), false, 60_000), piece(Class::Data, None, true, 10_001)],
            vec![piece(Class::Data, Some(70_000), false, 60_000), piece(Class::Data, None, false, 10_000)],
            vec![piece(Class::Data, Some(70_000), false, 60_000), whole],
        ];
        for bodies in cases {
            let (table, mut inbox, good) = linked();
            for body in bodies.clone() {
                table.receive(&Envelope { body, ..good.clone() }.encode());
            }
            assert_eq!(down(&mut inbox), Some(Closed::Violation), "{bodies:?}");
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic() {
        let mut random = SmallRng::seed_from_u64(7);
        let (table, mut inbox, good) = linked();
        let good = good.encode();
        for _ in 0..20_000 {
            let mut frame = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..frame.len());
                frame[at] = random.random();
            }
            frame.truncate(random.random_range(0..=frame.len()));
            table.receive(&frame);
            while inbox.try_recv().is_some() {}
        }
    }

    #[test]
    fn of_two_dials_at_once_the_greater_nodes_one_stays_on_both_sides() {
        let newcomer = |node| Newcomer {
            node: NodeId(node),
            incarnation: Incarnation(1),
            role: Role::Node,
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            name: 1,
            peers_name: 2,
        };
        for (us, them) in [(1, 2), (2, 1)] {
            for order in [[1, 2], [2, 1]] {
                let (table, _inbox) = Table::new(identity(us));
                for dialler in order {
                    table.admit(newcomer(them), next_generation(), Box::new(NoWire), NodeId(dialler));
                }
                assert_eq!(table.link(NodeId(them)).expect("one stays").dialler, NodeId(2));
            }
        }
    }

    #[test]
    fn an_older_run_never_replaces_a_newer_one() {
        let (table, mut inbox, _) = linked();
        let run = |incarnation| Newcomer {
            node: NodeId(2),
            incarnation: Incarnation(incarnation),
            role: Role::Node,
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            name: 1,
            peers_name: 2,
        };
        assert!(table.admit(run(0), next_generation(), Box::new(NoWire), NodeId(2)).is_none());
        assert_eq!(inbox.try_recv(), None);
        assert!(table.admit(run(2), next_generation(), Box::new(NoWire), NodeId(1)).is_some());
        assert_eq!(down(&mut inbox), Some(Closed::Replaced));
    }
}
