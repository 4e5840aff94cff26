//! What a node remembers over a restart, and the batches in which it is told to remember more.
//!
//! # Invariants
//!
//! * One [`Persist`] becomes durable as a whole or not at all, and batches become durable in the order of their `seq`.
//! * Nothing here is removed for a [`NodeId`] but a truncated suffix of the log (never a committed one) and a prefix that a
//!   snapshot stands for.
//! * `hard_state` only grows in `(epoch, vote)`, also over restarts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::image::{Done, Work};
use crate::types::{ClusterId, ClusterTime, Epoch, Incarnation, Index, LogId, NodeId};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands and who wrote it.
    pub id: LogId,
    /// Cluster time, stamped by the leader; never decreasing along the log.
    pub time: ClusterTime,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// The first entry of every epoch.
    Noop,
    /// A configuration, in force from the moment it is appended.
    Config(ConfState),
    /// Encoded commands of the state machine; opaque to `consensus`.
    Commands(Bytes),
}

impl Payload {
    /// How many bytes of commands it carries.
    #[must_use]
    pub fn command_bytes(&self) -> usize {
        match self {
            Self::Commands(bytes) => bytes.len(),
            Self::Noop | Self::Config(_) => 0,
        }
    }
}

/// Who votes and who listens. Every list is sorted and free of duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfState {
    /// The voters, or the incoming half of a joint configuration.
    pub voters: Vec<NodeId>,
    /// The outgoing half of a joint configuration; empty outside one.
    pub outgoing: Vec<NodeId>,
    /// Those who hold the log without a vote.
    pub learners: Vec<NodeId>,
    /// Outgoing voters that become learners when the joint configuration is left.
    pub learners_next: Vec<NodeId>,
}

/// What must be durable before a vote or an acknowledgement leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The highest epoch heard of.
    pub epoch: Epoch,
    /// Whom we voted for in it.
    pub vote: Option<NodeId>,
}

/// What a snapshot stands for: the state after `last`, and who voted there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapMeta {
    /// The last entry in it.
    pub last: LogId,
    /// The cluster time of that entry: what follows is never earlier, also where the entry itself is not held any more.
    pub time: ClusterTime,
    /// The configuration as of that entry (C1, S1).
    pub conf: ConfState,
}

impl SnapMeta {
    /// Whether it stands for more than the snapshot held, if there is one.
    #[must_use]
    pub fn is_newer_than(&self, held: Option<&Self>) -> bool {
        held.is_none_or(|held| held.last.index < self.last.index)
    }
}

/// A snapshot as it is stored: the image of the state in chunks, as [`crate::image`] makes and reads them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// What it stands for.
    pub meta: SnapMeta,
    /// The image.
    pub chunks: Vec<Bytes>,
}

/// A founder's bid: a higher one wins. Ordered by round, then node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every try.
    pub round: u64,
    /// Who bids.
    pub node: NodeId,
}

/// How a cluster begins: handed from founder to founder, accepted once by every initial voter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Genesis {
    /// The new cluster's identity.
    pub cluster: ClusterId,
    /// The ballot under which it is proposed.
    pub ballot: Ballot,
    /// All initial voters, sorted.
    pub voters: Vec<NodeId>,
    /// How many voters the cluster wants to have.
    pub target: u8,
}

/// One batch of changes, durable as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Persist {
    /// Grows by one with every batch; `Persisted { seq }` answers for it and for all before it.
    pub seq: u64,
    /// The founding promise: no genesis under a smaller ballot is accepted from here on.
    pub promised: Option<Ballot>,
    /// The genesis accepted: sets the cluster identity, the configuration, `HardState { epoch: 1 }` and the log's base
    /// `LogId { epoch: 1, index: 1 }`.
    pub genesis: Option<Genesis>,
    /// The new epoch and vote.
    pub hard_state: Option<HardState>,
    /// Remove this entry and all that follow, before appending.
    pub truncate_from: Option<Index>,
    /// Take the staged image as the snapshot, before appending, and forget what it stands for: if the log holds the entry
    /// `last` of it, with that epoch, only the entries up to there, else the whole log (S3). `last` becomes the base.
    pub install: Option<Box<SnapMeta>>,
    /// Forget the entries up to this one, which a stored snapshot stands for; it becomes the base.
    pub compact_to: Option<LogId>,
    /// Add these at the end; their indexes follow one another and the log's last.
    pub append: Vec<Entry>,
    /// An optimisation for the next start: this much is known to be committed. Losing it loses nothing.
    pub commit_hint: Option<Index>,
}

/// All that a node remembered, read once at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Durable {
    /// Who we are.
    pub node: NodeId,
    /// This run; already durable when it is handed out.
    pub incarnation: Incarnation,
    /// The founding promise.
    pub promised: Ballot,
    /// The genesis accepted, if any.
    pub genesis: Option<Genesis>,
    /// Epoch and vote.
    pub hard_state: HardState,
    /// The newest snapshot. `base <= snapshot.last` (F16).
    pub snapshot: Option<Snapshot>,
    /// The one before it, while it may still be read; a store may forget it.
    pub former: Option<Snapshot>,
    /// The entry before the first one held.
    pub base: LogId,
    /// The log after `base`.
    pub entries: Vec<Entry>,
    /// Known to be committed when it was written; may be behind.
    pub commit_hint: Index,
    /// The chunks of the image that is being received, and the snapshot that it will be; a store may forget it.
    pub staged: Option<(LogId, Vec<Bytes>)>,
}

impl Durable {
    /// A node that starts for the first time.
    #[must_use]
    pub fn fresh(node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            promised: Ballot::default(),
            genesis: None,
            hard_state: HardState::default(),
            snapshot: None,
            former: None,
            base: LogId::default(),
            entries: Vec::new(),
            commit_hint: Index(0),
            staged: None,
        }
    }

    /// Applies one batch, as a store must. The in-memory store and the simulator's disk are this function.
    ///
    /// # Panics
    ///
    /// If the batch leaves a gap in the log or installs what is not staged: that is a bug of the caller.
    pub fn apply(&mut self, batch: &Persist) {
        if let Some(ballot) = batch.promised {
            self.promised = ballot;
        }
        if let Some(genesis) = &batch.genesis {
            self.genesis = Some(genesis.clone());
            self.hard_state = HardState { epoch: GENESIS.epoch, vote: None };
            self.base = GENESIS;
            self.entries.clear();
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(index) = batch.truncate_from {
            self.entries.retain(|entry| entry.id.index < index);
        }
        if let Some(meta) = &batch.install {
            let staged = self.staged.take().filter(|(last, _)| *last == meta.last);
            let (_, chunks) = staged.expect("an image is staged before it is installed");
            self.snapshot = Some(Snapshot { meta: (**meta).clone(), chunks });
            self.former = None;
            let holds = self.entries.iter().any(|entry| entry.id == meta.last);
            self.entries.retain(|entry| holds && entry.id.index > meta.last.index);
            self.base = meta.last;
        }
        if let Some(base) = batch.compact_to.filter(|base| *base > self.base) {
            self.entries.retain(|entry| entry.id.index > base.index);
            self.base = base;
        }
        for entry in &batch.append {
            assert_eq!(entry.id.index, self.last_index().next(), "the log has no gaps");
            self.entries.push(entry.clone());
        }
        if let Some(index) = batch.commit_hint {
            self.commit_hint = index;
        }
    }

    /// Does a piece of work on images at once, as a store does it bit by bit, and answers it.
    ///
    /// # Panics
    ///
    /// If a chunk is to be staged behind one that is not there: that is a bug of the caller.
    pub fn perform(&mut self, work: Work) -> Option<Done> {
        match work {
            Work::Save { meta, state } => {
                let last = meta.last;
                self.keep(meta, || state.image().collect());
                Some(Done::Saved { last })
            }
            Work::Forget { last } => {
                self.forget(last);
                None
            }
            Work::Read { to, last, place } => Some(Done::Read { to, last, place, found: self.chunk(last, place) }),
            Work::Stage { last, turn, place, chunk } => {
                self.stage(last, place, chunk);
                Some(Done::Staged { turn, place })
            }
        }
    }

    /// Takes up a snapshot of our own; the one before it stays beside it.
    pub fn keep(&mut self, meta: SnapMeta, chunks: impl FnOnce() -> Vec<Bytes>) {
        // What was installed meanwhile is newer, and the log may begin after what this one stands for.
        if meta.is_newer_than(self.snapshot.as_ref().map(|held| &held.meta)) {
            self.former = self.snapshot.replace(Snapshot { meta, chunks: chunks() });
        }
    }

    /// Forgets the snapshot before ours, if it ends with this entry.
    pub fn forget(&mut self, last: LogId) {
        self.former.take_if(|former| former.meta.last == last);
    }

    /// One chunk of our snapshot or the one before it, and how many there are.
    #[must_use]
    pub fn chunk(&self, last: LogId, place: u32) -> Option<(u32, Bytes)> {
        let held = self.snapshot.iter().chain(&self.former).find(|held| held.meta.last == last)?;
        let count = u32::try_from(held.chunks.len()).expect("an image has fewer chunks than that");
        held.chunks.get(place as usize).map(|chunk| (count, chunk.clone()))
    }

    /// Stages a chunk of an image that is being received.
    ///
    /// # Panics
    ///
    /// If it is to be staged behind one that is not there: that is a bug of the caller.
    pub fn stage(&mut self, last: LogId, place: u32, chunk: Bytes) {
        if place == 0 {
            self.staged = Some((last, Vec::new()));
        }
        let staged = self.staged.as_mut().filter(|(staged, _)| *staged == last);
        let (_, chunks) = staged.expect("a chunk is staged behind those of the same image");
        assert_eq!(place as usize, chunks.len(), "chunks are staged without gaps");
        chunks.push(chunk);
    }

    /// The last entry's place, or the base's.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.entries.last().map_or(self.base.index, |entry| entry.id.index)
    }

    /// The cluster we are in.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.genesis.as_ref().map_or(ClusterId::NONE, |genesis| genesis.cluster)
    }
}

/// The place that the genesis takes in the log of every initial voter.
pub const GENESIS: LogId = LogId { epoch: Epoch(1), index: Index(1) };
