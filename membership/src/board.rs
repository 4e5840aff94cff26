//! What spreads beside the table of members: tags, farewells, and who is master.
//!
//! Each item is a small, versioned fact. foca carries items on the back of its packets and asks this board whether one
//! is news; push-pull brings those that gossip lost.
//!
//! # Invariants
//!
//! * A version, an epoch, an incarnation on the board never goes back.
//! * Nothing that arrives is an error to foca, which would drop the rest of the packet: noise is counted and ignored.
//! * The board holds at most [`MAX_OWNERS`] nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use protocol::wire::{self, WireError};
use protocol::{Epoch, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::member::{MAX_TAGS, Tags};

/// One fact that spreads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Item {
    /// Who is master. If lost, push-pull brings it; an old one has a lower epoch and is ignored.
    Master {
        /// Its epoch.
        epoch: Epoch,
        /// The master.
        node: NodeId,
    },
    /// What a node says of itself. If lost, it is asked for; an old one has a lower version.
    Tags {
        /// Whose.
        node: NodeId,
        /// The run that says so.
        incarnation: Incarnation,
        /// Counted from one in each run.
        version: u64,
        /// The encoded tags.
        tags: Bytes,
    },
    /// The node leaves. If lost, it is taken for a crash; a repetition changes nothing.
    Leave {
        /// Who.
        node: NodeId,
        /// The run that ends.
        incarnation: Incarnation,
    },
}

/// Everything that spread so far, as far as it still matters.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The master of the highest epoch heard of.
    pub(crate) master: Option<(Epoch, NodeId)>,
    /// Nodes whose tags changed since the engine looked.
    pub(crate) changed: BTreeSet<NodeId>,
    /// Nodes whose farewell came since the engine looked.
    pub(crate) farewells: BTreeSet<NodeId>,
    /// Whether the master changed since the engine looked.
    pub(crate) is_master_news: bool,
    /// Items that meant nothing to us.
    pub(crate) malformed: u64,
    tags: BTreeMap<NodeId, Tagged>,
    leaving: BTreeMap<NodeId, Incarnation>,
}

#[derive(Debug)]
struct Tagged {
    incarnation: Incarnation,
    version: u64,
    tags: Arc<Tags>,
    item: Bytes,
}

/// The board as foca and the engine share it. Never contended: both live on one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBoard(Arc<Mutex<Board>>);

/// Which queued item a newer one replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Master,
    Tags(NodeId),
    Leave(NodeId),
}

impl SharedBoard {
    /// The board.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().expect("nobody panics while holding the board")
    }
}

impl foca::BroadcastHandler<Identity> for SharedBoard {
    type Key = Key;
    type Error = Infallible;

    fn receive_item(&mut self, data: &[u8], _: Option<&Identity>) -> Result<Option<Key>, Infallible> {
        Ok(self.lock().post(data))
    }
}

impl foca::Invalidates for Key {
    fn invalidates(&self, other: &Self) -> bool {
        self == other
    }
}

impl Board {
    /// Takes an item in; `Some` if it is news that should spread on.
    pub(crate) fn post(&mut self, data: &[u8]) -> Option<Key> {
        match wire::decode(data, MAX_ITEM) {
            Ok(Item::Master { epoch, node }) => self.post_master(epoch, node),
            Ok(Item::Tags { node, incarnation, version, tags }) => {
                self.post_tags(node, incarnation, version, &tags, data)
            }
            Ok(Item::Leave { node, incarnation }) => self.post_leave(node, incarnation),
            Err(_) => {
                self.malformed += 1;
                None
            }
        }
    }

    /// Forgets a node.
    pub(crate) fn remove(&mut self, node: NodeId) {
        self.tags.remove(&node);
        self.leaving.remove(&node);
    }

    /// Forgets every node for which `is_known` is false.
    pub(crate) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.tags.retain(|node, _| is_known(*node));
        self.leaving.retain(|node, _| is_known(*node));
    }

    /// The tags of this run of the node, if they have arrived.
    pub(crate) fn tags(&self, node: NodeId, incarnation: Incarnation) -> Option<Arc<Tags>> {
        self.tags.get(&node).filter(|tagged| tagged.incarnation == incarnation).map(|tagged| tagged.tags.clone())
    }

    /// The version of the tags of this run of the node; zero if none arrived. A later run's tags count as newer.
    pub(crate) fn tags_version(&self, node: NodeId, incarnation: Incarnation) -> u64 {
        match self.tags.get(&node) {
            Some(tagged) if tagged.incarnation == incarnation => tagged.version,
            Some(tagged) if tagged.incarnation > incarnation => u64::MAX,
            _ => 0,
        }
    }

    /// The item that carries the node's tags.
    pub(crate) fn tags_item(&self, node: NodeId) -> Option<Bytes> {
        self.tags.get(&node).map(|tagged| tagged.item.clone())
    }

    /// Whether this run of the node said that it leaves.
    pub(crate) fn is_leaving(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.leaving.get(&node).is_some_and(|last| *last >= incarnation)
    }

    fn post_master(&mut self, epoch: Epoch, node: NodeId) -> Option<Key> {
        if self.master.is_some_and(|(known, _)| known >= epoch) {
            return None;
        }
        self.master = Some((epoch, node));
        self.is_master_news = true;
        Some(Key::Master)
    }

    fn post_tags(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        version: u64,
        encoded: &[u8],
        item: &[u8],
    ) -> Option<Key> {
        let is_old =
            self.tags.get(&node).is_some_and(|known| (known.incarnation, known.version) >= (incarnation, version));
        if is_old || (!self.tags.contains_key(&node) && self.tags.len() >= MAX_OWNERS) {
            return None;
        }
        let Ok(tags) = wire::decode::<Tags>(encoded, MAX_TAGS) else {
            self.malformed += 1;
            return None;
        };
        let item = Bytes::copy_from_slice(item);
        self.tags.insert(node, Tagged { incarnation, version, tags: Arc::new(tags), item });
        self.changed.insert(node);
        Some(Key::Tags(node))
    }

    fn post_leave(&mut self, node: NodeId, incarnation: Incarnation) -> Option<Key> {
        let is_full = !self.leaving.contains_key(&node) && self.leaving.len() >= MAX_OWNERS;
        if is_full || self.is_leaving(node, incarnation) {
            return None;
        }
        self.leaving.insert(node, incarnation);
        self.farewells.insert(node);
        Some(Key::Leave(node))
    }
}

/// The bytes of an item.
///
/// # Errors
///
/// [`WireError::TooLong`] if it is too long to spread.
pub(crate) fn item(item: &Item) -> Result<Bytes, WireError> {
    wire::encode(item, MAX_ITEM).map(Bytes::from)
}

/// The bytes of a node's tags.
///
/// # Errors
///
/// [`WireError::TooLong`] beyond [`MAX_TAGS`].
pub(crate) fn encode_tags(tags: &Tags) -> Result<Bytes, WireError> {
    wire::encode(tags, MAX_TAGS).map(Bytes::from)
}

/// The longest item: the longest tags and what surrounds them. Far below the length from which foca would keep an item
/// for ever without ever sending it.
const MAX_ITEM: usize = MAX_TAGS + 64;

/// How many nodes the board remembers.
const MAX_OWNERS: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(version: u64, incarnation: u64, label: &str) -> Bytes {
        let tags = encode_tags(&Tags::from([("label".into(), label.into())])).unwrap();
        item(&Item::Tags { node: NodeId(1), incarnation: Incarnation(incarnation), version, tags }).unwrap()
    }

    #[test]
    fn only_news_spreads_on() {
        let mut board = Board::default();
        assert_eq!(board.post(&tags(1, 5, "old")), Some(Key::Tags(NodeId(1))));
        assert_eq!(board.post(&tags(1, 5, "old")), None);
        assert_eq!(board.post(&tags(2, 5, "new")), Some(Key::Tags(NodeId(1))));
        assert_eq!(board.post(&tags(9, 4, "earlier run")), None);
        assert_eq!(board.tags(NodeId(1), Incarnation(5)).unwrap()["label"], "new");
        assert_eq!(board.tags(NodeId(1), Incarnation(6)), None);
    }

    #[test]
    fn the_master_of_the_highest_epoch_stands() {
        let mut board = Board::default();
        let master = |epoch, node| item(&Item::Master { epoch: Epoch(epoch), node: NodeId(node) }).unwrap();
        assert!(board.post(&master(3, 1)).is_some());
        assert!(board.post(&master(2, 2)).is_none());
        assert!(board.post(&master(3, 2)).is_none());
        assert_eq!(board.master, Some((Epoch(3), NodeId(1))));
    }

    #[test]
    fn noise_is_counted_and_never_an_error() {
        let mut board = Board::default();
        assert_eq!(board.post(b"noise"), None);
        let bad =
            Item::Tags { node: NodeId(1), incarnation: Incarnation(1), version: 1, tags: Bytes::from_static(b"x") };
        assert_eq!(board.post(&item(&bad).unwrap()), None);
        assert_eq!(board.malformed, 2);
    }

    #[test]
    fn tags_that_are_too_long_are_refused() {
        let long = Tags::from([("label".into(), "x".repeat(MAX_TAGS))]);
        assert!(matches!(encode_tags(&long), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn the_longest_tags_still_make_an_item() {
        let node = NodeId(u64::MAX);
        let tags = Bytes::from(vec![0; MAX_TAGS]);
        assert!(item(&Item::Tags { node, incarnation: Incarnation(u64::MAX), version: u64::MAX, tags }).is_ok());
    }
}
