//! What voters say to each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durable::{Entry, SnapMeta};
use crate::types::{Epoch, Index, LogId, Nanos};

/// One message between two replicas. One-way; it may be lost, repeated and overtaken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// "Would you vote for me in `epoch`?" Changes nothing at the receiver. Lost: asked again after the next time-out.
    /// Repeated: answered again.
    PreVote {
        /// The epoch that the sender would campaign in.
        epoch: Epoch,
        /// The end of its log.
        last: LogId,
    },
    /// The answer to [`Message::PreVote`]: a grant names the asked epoch, a rejection the receiver's own.
    PreVoteReply {
        /// See above.
        epoch: Epoch,
        /// Whether the sender would vote.
        granted: bool,
    },
    /// "Vote for me in `epoch`." Lost: the candidate starts again. Repeated: granted again to the same candidate.
    Vote {
        /// The epoch of the candidature.
        epoch: Epoch,
        /// The end of the candidate's log.
        last: LogId,
        /// The old leader asked for this: stickiness does not apply.
        transfer: bool,
    },
    /// The answer to [`Message::Vote`]; a grant leaves only after it is durable.
    VoteReply {
        /// The receiver's epoch.
        epoch: Epoch,
        /// Whether it voted for the candidate.
        granted: bool,
    },
    /// Entries after `prev`, or none: then it is a heartbeat. Lost: sent again after the next answer or heartbeat.
    /// Repeated: entries already held are skipped.
    Append(Append),
    /// The answer to [`Message::Append`]. An acceptance leaves only after what it acknowledges is durable.
    AppendReply(AppendReply),
    /// "What you lack is forgotten here: fetch my snapshot." The image itself travels beside this. Lost: said again after an
    /// election timeout. Repeated: the transfer goes on.
    Snapshot(Box<Snapshot>),
    /// How much the receiver of [`Message::Snapshot`] holds by now; leaves when that is durable. Lost: the snapshot is
    /// named again, or a heartbeat's answer says the same. Repeated: `index` only grows.
    SnapshotReply(SnapshotReply),
    /// "You have no place in the committed configuration that begins at `config`", from a leader: the receiver stops asking
    /// for votes unless it knows a newer one (C6, F21). Lost: it asks again and is told again. Repeated: no change.
    NotMember {
        /// The leader's epoch.
        epoch: Epoch,
        /// Where that configuration begins.
        config: Index,
    },
    /// "Campaign at once, I want you to lead." From the leader of this epoch, when its master has stopped and the receiver holds
    /// its whole log (T1). Lost: sent again every heartbeat interval. Repeated: the epoch is another by then.
    TimeoutNow {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// "How far is the log committed?" From a node that is to answer a read. Lost: asked again. Repeated: answered again.
    ReadIndex {
        /// The asker's epoch.
        epoch: Epoch,
        /// Names the question.
        number: u64,
        /// Whether a valid lease may confirm it.
        may_lease: bool,
    },
    /// The answer to [`Message::ReadIndex`]. Lost: the question comes again. Repeated: recognised by the number.
    ReadIndexReply {
        /// The sender's epoch.
        epoch: Epoch,
        /// Of the question.
        number: u64,
        /// What must be applied; `None` from a node that does not lead.
        index: Option<Index>,
    },
}

/// See [`Message::Append`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Append {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The entry before the first one sent. `LogId(0, 0)` always matches.
    pub prev: LogId,
    /// What follows it.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: Index,
    /// When it was sent, by the leader's clock; echoed.
    pub sent: Nanos,
}

/// See [`Message::Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// What its snapshot stands for.
    pub meta: SnapMeta,
    /// When it was sent, by the leader's clock; echoed.
    pub sent: Nanos,
}

/// See [`Message::SnapshotReply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// The follower's epoch.
    pub epoch: Epoch,
    /// It holds everything up to here, committed and durable.
    pub index: Index,
    /// `sent` of the message it answers.
    pub sent: Nanos,
    /// The follower's own promise P, as in [`AppendReply`].
    pub promise: Duration,
}

/// See [`Message::AppendReply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppendReply {
    /// The follower's epoch.
    pub epoch: Epoch,
    /// Whether the log matched at `prev`.
    pub verdict: Verdict,
    /// `sent` of the message it answers.
    pub sent: Nanos,
    /// The follower's own promise P: how long after that message it helps nobody else.
    pub promise: Duration,
    /// Whether somebody waits there for what is committed: then it is told at once.
    pub is_eager: bool,
}

/// Whether a follower's log matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The follower's durable log agrees with the leader's up to here.
    Matched(Index),
    /// It did not match.
    Rejected {
        /// `prev.index` of the message.
        at: Index,
        /// Where the logs may still agree: the last entry of the follower at or before `at` whose epoch is not above `prev`'s.
        hint: LogId,
    },
}

impl Message {
    /// The epoch that it names.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::PreVote { epoch, .. }
            | Self::PreVoteReply { epoch, .. }
            | Self::Vote { epoch, .. }
            | Self::VoteReply { epoch, .. }
            | Self::NotMember { epoch, .. }
            | Self::TimeoutNow { epoch }
            | Self::ReadIndex { epoch, .. }
            | Self::ReadIndexReply { epoch, .. } => *epoch,
            Self::Append(append) => append.epoch,
            Self::AppendReply(reply) => reply.epoch,
            Self::Snapshot(snapshot) => snapshot.epoch,
            Self::SnapshotReply(reply) => reply.epoch,
        }
    }

    /// Says whether this message is small and bound to time: it travels in the control class.
    #[must_use]
    pub fn is_control(&self) -> bool {
        !matches!(self, Self::Append(append) if !append.entries.is_empty())
    }
}
