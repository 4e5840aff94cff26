//! The state as bytes: cut into chunks by one replica, put together again by another.
//!
//! An image is a row of records, each with its length before it: the head with all counters and the digest, the roster, then client
//! sessions with their kept answers, node sessions, tasks, keys, rights with their items and
//! claims, and counters, each kind in the order of its ids. Chunks are cut between records. Indexes, counts and hashes are not in it: they follow from the records, and the digest says whether
//! they came out as they were.
//!
//! # Invariants
//!
//! * Equal states have equal images, chunk by chunk; an image restores to the state that it was made of, or to nothing.
//! * Making an image needs nothing but a copy of the state, and no more memory than a chunk beside it.
//! * Arbitrary bytes never panic, and claim no more memory than a state may take (`limits`).

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::State;
use super::counters::{Counted, Mark};
use super::limits::{
    MAX_BYTES_WITH_RESULTS, MAX_KIND, MAX_NODES, MAX_REPLY_BYTES, MAX_SESSIONS, check_offer, check_size,
};
use super::rights::{Head as RightHead, ItemKey, RightId, Standing};
use super::tasks::{Record, Totals};
use crate::image::CHUNK_BYTES;
use crate::mutants::{Bug, is_on};
use crate::state::{About, Answer, MAX_VOTERS, Offer, Roster, Value};
use crate::types::{ClaimId, ClusterTime, Incarnation, NodeId, Revision, Seq, SessionId};
use crate::wire::{self, WireError};

impl State {
    /// The image of this state, chunk by chunk, from a copy that costs nothing and is made at once.
    pub fn image(&self) -> impl Iterator<Item = Bytes> + use<> {
        Chunks { items: self.items(), next: None }
    }

    fn items(&self) -> impl Iterator<Item = Item> + use<> {
        let Self { time, revision, clients, nodes, tasks, keys, rights, counters, roster, .. } = self.clone();
        let head = Head { time, revision, totals: tasks.totals(), digest: self.digest() };
        [Item::Head(head), Item::Roster(roster)]
            .into_iter()
            .chain(clients.into_items())
            .chain(nodes.into_items())
            .chain(tasks.into_items())
            .chain(keys.into_items())
            .chain(rights.into_items())
            .chain(counters.into_items())
    }
}

/// A state that is put together from the chunks of an image, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Restore {
    head: Option<Head>,
    state: State,
    /// The client to whom the replies that follow belong.
    client: Option<SessionId>,
    /// The input of the task that follows.
    payload: Option<Bytes>,
    /// The right to which the items and claims that follow belong.
    right: Option<RightId>,
}

/// Why an image is not that of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A record cannot be read.
    #[error("a record of the image cannot be read: {0}")]
    Unreadable(#[from] WireError),
    /// A record does not belong where it stands, or stands there twice.
    #[error("the image has {0}")]
    Misplaced(&'static str),
    /// The records make another state than the head says.
    #[error("the image makes a state of digest {found:x}, its head says {expected:x}")]
    Digest {
        /// What the records make.
        found: u64,
        /// What the head says.
        expected: u64,
    },
}

/// One record of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Item {
    /// First of all.
    Head(Head),
    /// Who shall vote.
    Roster(Roster),
    /// A client session; its kept answers follow.
    Client { id: SessionId, ttl: Duration, deadline: ClusterTime, first_incomplete: Seq, about: About },
    /// A kept answer of the client before it.
    Reply { seq: Seq, answer: Answer },
    /// A node session.
    Node { id: SessionId, ttl: Duration, deadline: ClusterTime, node: NodeId, incarnation: Incarnation, offer: Offer },
    /// The input of the task that follows, where both input and result are large: no record is larger than a message.
    Payload(Bytes),
    /// A task.
    Task(Arc<Record>),
    /// A key.
    Key(Arc<str>, Value),
    /// A right; its items and claims follow.
    Right(RightId, RightHead),
    /// An item of the queue before it.
    Queued(ItemKey, Bytes),
    /// A claim to the right before it.
    Claim(ClaimId, Standing),
    /// A counter.
    Counter(Arc<str>, Counted),
    /// The mark of an addition to a counter.
    Mark(Arc<str>, Arc<str>, Mark),
}

/// Everything that is in no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Head {
    time: ClusterTime,
    revision: Revision,
    totals: Totals,
    digest: u64,
}

impl Restore {
    /// Takes the next chunk.
    ///
    /// # Errors
    ///
    /// If it is not the next chunk of an image; nothing more can be done with this restoration then.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (len, after) = rest.split_first_chunk::<4>().ok_or(ImageError::Misplaced("a torn record"))?;
            let len = u32::from_le_bytes(*len) as usize;
            let (record, after) = after.split_at_checked(len).ok_or(ImageError::Misplaced("a torn record"))?;
            self.add(wire::decode(record, wire::MAX_MESSAGE)?)?;
            rest = after;
        }
        Ok(())
    }

    /// The state, after the last chunk.
    ///
    /// # Errors
    ///
    /// If something is missing or came out different from what it was.
    pub fn finish(mut self) -> Result<State, ImageError> {
        let head = self.head.ok_or(ImageError::Misplaced("no head"))?;
        if self.payload.is_some() {
            return Err(ImageError::Misplaced("an input without its task"));
        }
        self.state.next_expiry = self.state.upcoming();
        match self.state.digest() {
            found if found == head.digest || is_on(Bug::ForgetsReplies) => Ok(self.state),
            found => Err(ImageError::Digest { found, expected: head.digest }),
        }
    }

    fn add(&mut self, item: Item) -> Result<(), ImageError> {
        if self.head.is_none() != matches!(item, Item::Head(_)) {
            return Err(ImageError::Misplaced("its head elsewhere than at its beginning"));
        }
        if self.payload.is_some() && !matches!(item, Item::Task(_)) {
            return Err(ImageError::Misplaced("an input without its task"));
        }
        let state = &mut self.state;
        let is_placed = match item {
            Item::Head(head) => {
                (state.time, state.revision) = (head.time, head.revision);
                state.tasks.restore_totals(head.totals);
                self.head = Some(head);
                head.revision.0 <= COUNTER_MAX && head.totals.is_sound(COUNTER_MAX)
            }
            Item::Roster(roster) => {
                state.roster = roster;
                state.roster.wished().len() <= MAX_VOTERS
            }
            Item::Client { id, ttl, deadline, first_incomplete, about } => {
                self.client = Some(id);
                check_size(about.label.len(), MAX_KIND).is_ok()
                    && state.clients.restore(id, ttl, deadline, first_incomplete, about)
                    && state.clients.sessions().len() <= MAX_SESSIONS
            }
            Item::Reply { .. } if is_on(Bug::ForgetsReplies) => true,
            Item::Reply { seq, answer } => {
                let client = self.client.ok_or(ImageError::Misplaced("an answer without its client"))?;
                state.clients.restore_reply(client, seq, answer) && state.clients.bytes() <= 2 * MAX_REPLY_BYTES
            }
            Item::Node { id, ttl, deadline, node, incarnation, offer } => {
                check_offer(&offer).is_ok()
                    && state.nodes.restore(id, ttl, deadline, (node, incarnation), &offer)
                    && state.nodes.sessions().len() <= MAX_NODES
            }
            Item::Payload(payload) => {
                self.payload = Some(payload);
                true
            }
            Item::Task(record) => state.tasks.restore(Arc::unwrap_or_clone(record), self.payload.take()),
            Item::Key(key, value) => state.keys.restore(key, value, state.revision, &state.clients),
            Item::Right(right, head) => {
                self.right = Some(right.clone());
                state.rights.restore(right, head)
            }
            Item::Queued(key, value) => {
                let queue = self.right.as_ref().ok_or(ImageError::Misplaced("an item without its queue"))?;
                state.rights.restore_item(queue, key, value)
            }
            Item::Claim(id, claim) => {
                let right = self.right.as_ref().ok_or(ImageError::Misplaced("a claim without its right"))?;
                state.clients.sessions().get(claim.session).is_some() && state.rights.restore_claim(right, id, claim)
            }
            Item::Counter(counter, counted) => state.counters.restore(counter, counted),
            Item::Mark(counter, once, mark) => state.counters.restore_mark(counter, once, mark),
        };
        if !is_placed || state.bytes() > CONTENT_MAX {
            return Err(ImageError::Misplaced("a record that cannot stand where it stands"));
        }
        Ok(())
    }
}

/// Records, gathered into chunks.
struct Chunks<I> {
    items: I,
    /// A record that did not fit into the chunk before.
    next: Option<Vec<u8>>,
}

impl<I: Iterator<Item = Item>> Iterator for Chunks<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        while let Some(record) = self.next.take().or_else(|| self.items.next().map(|item| encode(&item))) {
            if !chunk.is_empty() && chunk.len() + record.len() + 4 > CHUNK_BYTES {
                self.next = Some(record);
                break;
            }
            chunk.put_u32_le(u32::try_from(record.len()).expect("no record is larger than a message"));
            chunk.put_slice(&record);
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

fn encode(item: &Item) -> Vec<u8> {
    wire::encode(item, wire::MAX_MESSAGE).expect("limits keep every record below the size of a message")
}

/// What all of it may take at most: single results of accepted work, and texts, go beyond the limit for results.
const CONTENT_MAX: u64 = 2 * MAX_BYTES_WITH_RESULTS;

/// No cluster lives to see these counters so high; whoever names higher ones would leave us without a next.
const COUNTER_MAX: u64 = 1 << 62;
