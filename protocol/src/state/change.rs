//! What applying an entry changed, as the master sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::state::{ClientEnd, Host, KeyChange, Offer, Refused, RightChange, TaskSpec, Ticket};
use crate::types::{Attempt, ClusterTime, Epoch, Fence, Incarnation, NodeId, SessionId, TaskId};

/// The part of the state that the master works on, copied when its leadership begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MasterView {
    /// The epoch of this leadership.
    pub epoch: Epoch,
    /// Cluster time of the last entry applied.
    pub time: ClusterTime,
    /// All tasks that have not ended.
    pub tasks: Vec<LiveTask>,
    /// All node sessions.
    pub nodes: Vec<NodeSession>,
    /// The earliest time at which a session or record ends, if nothing renews it.
    pub next_expiry: ClusterTime,
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LiveTask {
    /// Its id.
    pub id: TaskId,
    /// What was asked for: the same that the record holds, not a copy of it.
    pub spec: Arc<TaskSpec>,
    /// How many attempts were granted so far.
    pub attempts: u32,
    /// Waits until then if it is pending.
    pub not_before: ClusterTime,
    /// The grant, if it is assigned.
    pub assigned: Option<Assigned>,
}

/// A live grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// Which attempt.
    pub number: u32,
    /// The fence.
    pub fence: Fence,
    /// The worker.
    pub node: NodeId,
    /// The worker's session.
    pub session: SessionId,
    /// Since when.
    pub since: ClusterTime,
}

/// A node's live session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeSession {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// The session.
    pub session: SessionId,
    /// What it offers.
    pub offer: Offer,
    /// For how long it lives without a renewal.
    pub ttl: Duration,
    /// When it ends without one.
    pub deadline: ClusterTime,
}

/// One change that the master must know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClusterChange {
    /// A task was recorded.
    Submitted(Box<LiveTask>),
    /// A grant was made: it may be dispatched now.
    Assigned {
        /// Which attempt.
        attempt: Attempt,
        /// The grant.
        grant: Assigned,
    },
    /// A task is pending again: its attempt failed or was taken back.
    Pending {
        /// The attempt that is over.
        attempt: Attempt,
        /// Its fence: void from here on.
        fence: Fence,
        /// Wait until then.
        not_before: ClusterTime,
    },
    /// A task ended. `fence` names the grant that was live, if one was.
    Ended {
        /// The task.
        task: TaskId,
        /// The grant that is over.
        fence: Option<(NodeId, Attempt, Fence)>,
        /// Whether its worker must be told to stop (cancel), or has itself reported (finish).
        by_worker: bool,
    },
    /// A result was judged: its worker may forget it.
    Judged {
        /// The task.
        task: TaskId,
        /// The grant under which it came.
        fence: Fence,
        /// Whether it is the one that counts.
        recorded: bool,
    },
    /// A decision of the master met other facts than it was decided on, and changed nothing. A result is no decision: it is
    /// always answered with `Judged`.
    Void {
        /// The task it was about, if any.
        task: Option<TaskId>,
    },
    /// A node's session could not be opened or changed.
    NotOpened {
        /// Whose.
        node: NodeId,
        /// Why.
        why: Refused,
    },
    /// A decision about a task that had no id is over, whatever came of it: if it was granted, `Assigned` stands before this.
    Redeemed {
        /// How the decision named the task.
        ticket: Ticket,
    },
    /// A node's session was opened, or its facts changed.
    NodeOpened(Box<NodeSession>),
    /// Node sessions were renewed up to these deadlines (some may stand there already). Client sessions are not the master's
    /// business.
    Renewed(Vec<(SessionId, ClusterTime)>),
    /// A node's session ended; its attempts follow as `Pending` or `Ended`.
    NodeEnded {
        /// The session.
        session: SessionId,
        /// The node.
        node: NodeId,
    },
    /// A client's session ended, and with it everything that it owned. The master has no use for this; whoever watches does.
    ClientEnded {
        /// The session.
        session: SessionId,
        /// Why.
        cause: ClientEnd,
    },
    /// The client sessions in this run's process that wanted no proof of its death have ended.
    Released {
        /// The run.
        host: Host,
    },
    /// A key changed. The master has no use for this; whoever watches does.
    Key(KeyChange),
    /// A right changed. The master has no use for this; whoever waits for a claim or watches the right does.
    Right(Box<RightChange>),
    /// The earliest time at which a session or record ends has changed. Also follows every `Expire`, changed or not: one of
    /// them ends a bounded number, and if this time is over already there is more.
    NextExpiry(ClusterTime),
}
