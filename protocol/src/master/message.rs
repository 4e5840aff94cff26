//! What the master is told, and what it says to workers.
//!
//! # Invariants
//!
//! * Every message to a worker carries the epoch in which it was decided.
//! * Every message may be lost or come twice: its doc sentence says what happens then.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::{ClusterChange, Delivery, MasterView, Refused, Ticket};
use crate::types::{Attempt, ClusterTime, Epoch, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};
use crate::worker::ToMaster;

/// What the master is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// This node leads and has applied the first entry of the epoch: be the master, beginning with this copy.
    Begin(Box<MasterView>),
    /// What the entries applied since the copy changed, in order.
    Applied {
        /// The epoch of the leadership to which this belongs.
        epoch: Epoch,
        /// Cluster time of the last entry.
        time: ClusterTime,
        /// The changes.
        changes: Vec<ClusterChange>,
    },
    /// Tasks whose submission is about to become an entry, which waits for the answer, [`crate::replica::Input::Placed`]: whoever
    /// can be granted at once is granted in the same entry (D8).
    Submitting {
        /// The epoch of the leadership to which this belongs.
        epoch: Epoch,
        /// The tasks, in the order of their submission.
        tasks: Vec<Coming>,
    },
    /// Proposals were not taken (too much under way, or the epoch is over): decide again.
    Dropped {
        /// Of these decisions.
        epoch: Epoch,
    },
    /// Leadership ended: drop everything.
    End {
        /// Of this epoch.
        epoch: Epoch,
    },
    /// Leadership is being handed over: drop everything, then tell the replica that nothing more comes (F6).
    Surrender {
        /// Of this epoch.
        epoch: Epoch,
    },
    /// A worker said something.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// Its run, from the envelope.
        incarnation: Incarnation,
        /// What it said.
        message: ToMaster,
    },
    /// A link to a node came up.
    LinkUp {
        /// The peer.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// The link to a node broke.
    LinkDown {
        /// The peer.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// The link to a node had no room for a dispatch: it was not sent.
    Unsent {
        /// To whom.
        node: NodeId,
        /// The task.
        task: TaskId,
        /// Under which grant.
        fence: Fence,
    },
    /// A link that had no room has some again.
    Writable {
        /// The peer.
        node: NodeId,
    },
    /// The node seems to be dead: see [`crate::consensus::Input::Evidence`].
    Evidence {
        /// The node.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// A deadline may have passed.
    Tick,
}

/// A task that is about to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coming {
    /// Its name until it has an id.
    pub ticket: Ticket,
    /// Which handler runs it.
    pub kind: String,
    /// Labels that the worker must have.
    pub needs: BTreeMap<String, String>,
    /// Higher is granted first.
    pub priority: i32,
}

/// What the master says to a worker. Every message carries the epoch; a worker that has seen a higher one refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToWorker {
    /// "I am the master." Sent on every new link and at the beginning of an epoch. Lost: repeated with the next heartbeat of
    /// sessions. Repeated: answered again.
    Here {
        /// The epoch.
        epoch: Epoch,
    },
    /// "Your session is open", or "it is renewed". Lost: the worker asks again. Repeated: the later end counts.
    Welcome {
        /// The epoch.
        epoch: Epoch,
        /// The run that it is for: a new one may listen on its link already.
        incarnation: Incarnation,
        /// The worker's session.
        session: SessionId,
        /// For how long it lives without a renewal, counted from `sent`.
        ttl: Duration,
        /// When the worker sent the request that this answers, by the worker's clock.
        sent: Nanos,
    },
    /// "You have no session any more: say hello." Lost: sent again after the next renewal.
    Unknown {
        /// The epoch.
        epoch: Epoch,
    },
    /// "The cluster does not take you." Lost: said again when the worker's hello is tried again. Repeated: no change.
    Refused {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        why: Refused,
    },
    /// "Run this." Sent after the grant is committed. Lost: found by the comparison of what is held (F11). Repeated:
    /// recognised by the fence.
    Dispatch {
        /// The epoch.
        epoch: Epoch,
        /// What to run.
        grant: Grant,
    },
    /// "Stop this." Lost: sent again while the worker says that it holds it. Repeated: nothing to stop.
    Cancel {
        /// The epoch.
        epoch: Epoch,
        /// Which attempt.
        attempt: Attempt,
        /// Its grant.
        fence: Fence,
    },
    /// "The log has judged this result: forget it." Lost: the worker sends the result again. Repeated: forgotten already.
    FinishAck {
        /// The epoch.
        epoch: Epoch,
        /// The task.
        task: TaskId,
        /// The grant.
        fence: Fence,
        /// Whether this result is the one that counts.
        recorded: bool,
    },
}

impl ToWorker {
    /// The epoch in which it was said.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match *self {
            Self::Here { epoch }
            | Self::Welcome { epoch, .. }
            | Self::Unknown { epoch }
            | Self::Refused { epoch, .. }
            | Self::Dispatch { epoch, .. }
            | Self::Cancel { epoch, .. }
            | Self::FinishAck { epoch, .. } => epoch,
        }
    }
}

/// The right to run one attempt, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Which run of which task.
    pub attempt: Attempt,
    /// The fence of the right.
    pub fence: Fence,
    /// The worker's session under which it was granted.
    pub session: SessionId,
    /// Which handler.
    pub kind: String,
    /// Its input.
    pub payload: Bytes,
    /// How often the task may run.
    pub delivery: Delivery,
    /// How long the attempt may run; zero means without end.
    pub timeout: Duration,
    /// The task's once key, equal in all attempts.
    pub once_key: Option<String>,
}
