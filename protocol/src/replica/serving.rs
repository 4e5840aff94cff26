//! Our images on their way to others, and what must stay here until they have them.
//!
//! A sender answers what it is asked. It remembers how many chunks its store is reading for whom, and who was sent a chunk of
//! which image last: an image of which the log has been forgotten since is of no use to the one who fetches it, so the log
//! waits for fetches that are under way, and so does the image, in the store, when a newer one takes its place.
//!
//! # Invariants
//!
//! * At most twice [`WANTED_MAX`] chunks are read for one peer, for at most [`PEERS_MAX`] peers.
//! * Nobody holds up the log or the disk for ever, however often he asks: only our snapshot and the one before it count, so
//!   the second snapshot after his forgets both. While anybody fetches, a snapshot is due as [`Compaction::while_served`] says.
//!
//! [`Compaction::while_served`]: super::Compaction::while_served

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::effects::Effects;
use crate::image::{Message, WANTED_MAX, Work};
use crate::types::{Index, LogId, Nanos, NodeId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Serving {
    /// For how long a fetch counts as under way after its last chunk. What follows an image is asked for within that time too.
    patience: Duration,
    /// For how many chunks of whom the store was asked.
    reading: BTreeMap<NodeId, u32>,
    /// Who was sent a chunk of which image last, and when.
    served: BTreeMap<NodeId, (LogId, Nanos)>,
    /// The snapshot before ours, which the store keeps until it is told to forget it.
    former: Option<LogId>,
}

impl Serving {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, reading: BTreeMap::new(), served: BTreeMap::new(), former: None }
    }

    /// A peer asks for a chunk of our snapshot.
    pub(super) fn wanted(&mut self, from: NodeId, last: LogId, place: u32, effects: &mut Effects) {
        let under_way = self.reading.get(&from).copied().unwrap_or(0);
        if under_way >= 2 * WANTED_MAX || (under_way == 0 && self.reading.len() >= PEERS_MAX) {
            return; // It asks again.
        }
        self.reading.insert(from, under_way + 1);
        effects.images.push(Work::Read { to: from, last, place });
    }

    /// The store has read a chunk, or has not found it.
    pub(super) fn read(
        &mut self,
        now: Nanos,
        to: NodeId,
        (last, place): (LogId, u32),
        found: Option<(u32, Bytes)>,
        effects: &mut Effects,
    ) {
        if let Some(under_way) = self.reading.get_mut(&to) {
            *under_way -= 1;
            if *under_way == 0 {
                self.reading.remove(&to);
            }
        }
        let message = match found {
            Some((count, chunk)) => {
                self.note_served(now, to, last);
                Message::Chunk { last, place, count, crc: crc32c::crc32c(&chunk), chunk }
            }
            None => Message::Gone { last },
        };
        effects.send(to, message);
    }

    fn note_served(&mut self, now: Nanos, to: NodeId, last: LogId) {
        self.forget_stale(now);
        if self.served.len() < PEERS_MAX || self.served.contains_key(&to) {
            self.served.insert(to, (last, now));
        }
    }

    /// Says whether anybody fetches an image of ours.
    pub(super) fn is_busy(&self, now: Nanos) -> bool {
        self.served.values().any(|(_, at)| now < *at + self.patience)
    }

    /// Says whether this peer fetches an image of ours.
    pub(super) fn serves(&self, now: Nanos, peer: NodeId) -> bool {
        self.served.get(&peer).is_some_and(|(_, at)| now < *at + self.patience)
    }

    /// A new snapshot of ours is durable, and the store keeps the one before it. Answers with the last entry of the oldest
    /// image that is still fetched.
    pub(super) fn replaced(&mut self, now: Nanos, former: Option<LogId>, effects: &mut Effects) -> Option<Index> {
        self.former = former;
        // Who fetches an even older one will hear that it is gone.
        self.served.retain(|_, (last, _)| Some(*last) == former);
        self.tick(now, effects);
        self.served.values().map(|(last, _)| last.index).min()
    }

    /// Another node's snapshot is ours from here on: the store has forgotten all others.
    pub(super) fn installed(&mut self) {
        self.former = None;
        self.served.clear();
    }

    /// Forgets the snapshot before ours when nobody fetches it any more.
    pub(super) fn tick(&mut self, now: Nanos, effects: &mut Effects) {
        self.forget_stale(now);
        if let Some(last) = self.former.take_if(|former| !self.served.values().any(|(last, _)| last == former)) {
            effects.images.push(Work::Forget { last });
        }
    }

    /// When [`Serving::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Nanos {
        let Some(former) = self.former else { return Nanos::NEVER };
        let fetches = self.served.values().filter(|(last, _)| *last == former);
        fetches.map(|(_, at)| *at + self.patience).max().unwrap_or(Nanos(0))
    }

    fn forget_stale(&mut self, now: Nanos) {
        let patience = self.patience;
        self.served.retain(|_, (_, at)| now < *at + patience);
    }
}

/// For how many peers the store reads at once, and whose fetches are waited for.
const PEERS_MAX: usize = 16;
