//! What the core is told, and what follows from it.
//!
//! # Invariants
//!
//! * Effects are carried out in their order; a message waits for the batch that its `after` names.
//! * Entries are applied by the caller in the step that says so; the core counts them as applied from then on.

use std::time::Duration;

use bytes::Bytes;

use crate::durable::{Persist, SnapMeta};
use crate::effects::{Authority, Role};
use crate::types::{Epoch, Incarnation, Index, LogId, NodeId};

use super::{Message, Refusal, Target};

/// What the core is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// A message came.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: Message,
    },
    /// Append one entry with this payload, if we still lead `epoch`.
    Propose {
        /// Comes back in [`Effect::Accepted`] or [`Effect::Dropped`].
        context: u64,
        /// The epoch in which this was decided (F7).
        epoch: Epoch,
        /// Encoded commands.
        payload: Bytes,
    },
    /// Begin a change of voters and learners, if we still lead `epoch`. [`Effect::Accepted`] names the place of the joint
    /// configuration; the change is done when a configuration that is not joint is applied after it.
    ProposeConf {
        /// Comes back in [`Effect::Accepted`] or [`Effect::Dropped`].
        context: u64,
        /// The epoch in which this was decided (F7).
        epoch: Epoch,
        /// Who is to vote and to listen.
        target: Target,
    },
    /// Hand leadership over to this voter.
    Transfer {
        /// Comes back in [`Effect::Dropped`] if it is refused.
        context: u64,
        /// The heir.
        to: NodeId,
    },
    /// The answer to [`Effect::Surrender`]: the master of this epoch has stopped, and everything it said is on its way (F6).
    Surrendered {
        /// Its epoch.
        epoch: Epoch,
    },
    /// A linearizable read: tell the index to wait for. A node that follows a leader asks it.
    Read {
        /// Comes back in [`Effect::ReadReady`] or [`Effect::Dropped`].
        context: u64,
        /// Whether a valid lease may confirm it.
        mode: ReadMode,
    },
    /// A snapshot of our own, named by [`Consensus::snap_meta`], is durable.
    ///
    /// [`Consensus::snap_meta`]: super::Consensus::snap_meta
    Saved {
        /// What it stands for.
        meta: SnapMeta,
        /// How many of the entries in it are kept.
        trailing: u64,
    },
    /// The image asked for by [`Effect::Fetch`] is staged, whole and readable. Followed by [`Effect::Installed`] when it is
    /// installed; by nothing if it is no longer needed.
    Staged {
        /// What it stands for.
        meta: SnapMeta,
    },
    /// All batches up to this one are durable.
    Persisted {
        /// The batch.
        seq: u64,
    },
    /// The store failed: final.
    StorageFailed {
        /// Its words.
        why: String,
    },
    /// Proof-like, but untrusted: the link was closed by the peer's side and a new dial was refused, both seen here (F4).
    Evidence {
        /// Who seems to be dead.
        node: NodeId,
        /// The run of it.
        incarnation: Incarnation,
    },
    /// The link to this peer broke: what was in flight is lost.
    Unreachable {
        /// The peer.
        node: NodeId,
    },
    /// Gossip suspects the leader: a pre-vote may come sooner (E9).
    Suspected {
        /// The suspect.
        node: NodeId,
    },
}

/// How a read is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// By one round of heartbeats started after it came.
    Quorum,
    /// By the lease if it is valid, else as `Quorum`.
    Lease,
}

/// What follows from an input, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make this durable.
    Persist(Persist),
    /// Send this when `after` is durable.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to say.
        message: Message,
        /// The batch that must be durable before.
        after: Option<u64>,
    },
    /// These entries (both ends included) are committed and durable here: apply them.
    Apply {
        /// The first.
        from: Index,
        /// The last.
        to: Index,
    },
    /// Fetch the image of this snapshot and stage it. Said again whenever the leader says it; what is under way goes on.
    Fetch {
        /// Who has it.
        from: NodeId,
        /// What it stands for.
        meta: SnapMeta,
    },
    /// A staged snapshot is installed and durable: the state is that of its image from here on, before anything else is
    /// applied.
    Installed {
        /// What it stands for.
        meta: SnapMeta,
    },
    /// The read may be answered from a state that has applied this much.
    ReadReady {
        /// Of the read.
        context: u64,
        /// What must be applied; it already is when this effect comes after the `Apply` of the same step.
        index: Index,
    },
    /// The proposal has this place. It is done iff the entry applied there has this epoch (F30).
    Accepted {
        /// Of the proposal.
        context: u64,
        /// Its place.
        id: LogId,
    },
    /// The proposal or read was certainly not done.
    Dropped {
        /// Of the proposal or read.
        context: u64,
        /// Why.
        why: Drop,
    },
    /// The role, the epoch or the leader changed.
    Role {
        /// The role now.
        role: Role,
        /// The epoch now.
        epoch: Epoch,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The lease that may be shown began, was extended or ended.
    Authority(Option<Authority>),
    /// Leadership is being handed over: the master of this epoch must stop, then comes [`Input::Surrendered`].
    Surrender {
        /// Its epoch.
        epoch: Epoch,
        /// Who shall lead.
        heir: NodeId,
        /// Why.
        why: HandOverCause,
    },
    /// The hand-over was given up: the master of this epoch may work again. Its lease stays off.
    Resume {
        /// Its epoch.
        epoch: Epoch,
    },
    /// Stop the process.
    Fatal(String),
}

/// Why leadership is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandOverCause {
    /// The shell said so: this node stops, or an operator wants it.
    Told,
    /// This leader is slow, by the worst sign of it (E8).
    Slow(Symptom, Duration),
}

/// What shows that a leader is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symptom {
    /// The age of the oldest batch that the disk has not answered.
    Disk,
    /// How much later than a heartbeat interval a quorum answered last.
    Links,
    /// How late our own timer fires.
    Timer,
}

impl std::fmt::Display for HandOverCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told => f.write_str("it was told to"),
            Self::Slow(Symptom::Disk, span) => write!(f, "its disk has not answered for {} ms", span.as_millis()),
            Self::Slow(Symptom::Links, span) => write!(f, "a quorum answers {} ms late", span.as_millis()),
            Self::Slow(Symptom::Timer, span) => write!(f, "its timers fire {} ms late", span.as_millis()),
        }
    }
}

/// Why a proposal or read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drop {
    /// We do not lead.
    NotLeader,
    /// We lead, but in another epoch than the one in which it was decided.
    Epoch,
    /// Too much is under way.
    Busy,
    /// Leadership is being handed over: ask again soon, here or elsewhere.
    HandOver,
    /// The leader confirmed the read, but the log did not bring in time what it must show: ask elsewhere.
    Behind,
    /// Leadership can be handed over only to another voter.
    NoVoter,
    /// The configuration cannot be changed like this, or not now.
    Change(Refusal),
}
