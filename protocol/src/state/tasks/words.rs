//! What is said about tasks: how one is described, how an attempt ends, and how a task is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::TaskEffect;
use crate::types::{ClusterTime, Fence, NodeId, Seq, SessionId, TaskId};

/// A task as its submitter describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Which handler runs it.
    pub kind: String,
    /// The handler's input.
    pub payload: Bytes,
    /// How often it may run.
    pub delivery: Delivery,
    /// How many failed attempts are followed by another one. Not with [`Delivery::AtMostOnce`].
    pub retries: u32,
    /// The wait before the first retry; it doubles with every further one.
    pub backoff: Duration,
    /// How long one attempt may run; zero means without end.
    pub timeout: Duration,
    /// Higher goes first.
    pub priority: i32,
    /// A second submission with the same key returns the first one's task.
    pub once_key: Option<String>,
    /// How long the record, and with it the once key, is kept after the task ended; at least [`limits::MIN_KEEP`].
    ///
    /// [`limits::MIN_KEEP`]: crate::state::limits::MIN_KEEP
    pub keep: Duration,
    /// Runs only on workers that have all of these labels.
    pub needs: BTreeMap<String, String>,
}

impl TaskSpec {
    /// A task with the defaults: at least once, three retries a second apart and doubling, no time-out, kept for an hour.
    #[must_use]
    pub fn new(kind: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            payload: payload.into(),
            delivery: Delivery::AtLeastOnce,
            retries: 3,
            backoff: Duration::from_secs(1),
            timeout: Duration::ZERO,
            priority: 0,
            once_key: None,
            keep: Duration::from_secs(3600),
            needs: BTreeMap::new(),
        }
    }
}

/// How often a task may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// Until one attempt is recorded; an attempt whose worker vanished is followed by another.
    #[default]
    AtLeastOnce,
    /// Assigned once; it ends `Lost` if its worker vanishes.
    AtMostOnce,
}

/// How an attempt ended at its worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran to its end.
    Done {
        /// What it produced.
        output: Bytes,
        /// What is written in the step that records this, and only then. Refused, the attempt has failed for good.
        effects: Vec<TaskEffect>,
    },
    /// It failed; `retry` says whether another attempt makes sense.
    Failed {
        /// In words.
        message: String,
        /// Whether another attempt makes sense.
        retry: bool,
        /// What it produced nevertheless.
        output: Bytes,
    },
}

impl Outcome {
    /// It produced this, and writes nothing.
    #[must_use]
    pub fn done(output: impl Into<Bytes>) -> Self {
        Self::Done { output: output.into(), effects: Vec::new() }
    }

    /// About how many bytes it takes in the log.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Done { output, effects } => output.len() + effects.iter().map(TaskEffect::size).sum::<usize>(),
            Self::Failed { message, output, .. } => message.len() + output.len(),
        }
    }
}

/// Names a task by the request that submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket {
    /// The client's session.
    pub client: SessionId,
    /// Which request of it.
    pub seq: Seq,
    /// Which of its tasks, counted from zero.
    pub place: u32,
}

/// One task that a submission recorded or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub task: TaskId,
    /// Whether this submission made it.
    pub fresh: bool,
}

/// Why an attempt is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseCause {
    /// The worker's connection was closed and a new dial refused.
    Evidence,
    /// The worker's session ended.
    SessionEnded,
    /// The worker is here and does not hold it, and may have begun it (F11).
    NotHeld,
    /// It ran longer than it may.
    TimedOut,
    /// It certainly never started, and will not: its worker says so, or was never told of it.
    HandedBack,
}

/// A task as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Which handler runs it.
    pub kind: String,
    /// Where it stands.
    pub state: TaskState,
    /// How many attempts were granted.
    pub attempts: u32,
    /// Its once key.
    pub once_key: Option<String>,
    /// When it was recorded.
    pub submitted: ClusterTime,
    /// What happened to it, oldest first; bounded, the oldest lines go.
    pub history: Vec<HistoryLine>,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Waits for a worker, not before this time.
    Pending {
        /// The end of its backoff.
        not_before: ClusterTime,
    },
    /// Granted to a worker.
    Assigned {
        /// Which attempt.
        number: u32,
        /// The grant.
        fence: Fence,
        /// The worker.
        node: NodeId,
        /// The worker's session.
        session: SessionId,
        /// When.
        since: ClusterTime,
    },
    /// Ended with a result.
    Done {
        /// The result.
        output: Bytes,
        /// When.
        at: ClusterTime,
    },
    /// Ended without one.
    Failed {
        /// In words.
        message: String,
        /// What it produced nevertheless.
        output: Bytes,
        /// When.
        at: ClusterTime,
    },
    /// Ended by a client's wish.
    Cancelled {
        /// In words.
        reason: String,
        /// When.
        at: ClusterTime,
    },
    /// May or may not have run: it was allowed to run only once and its worker vanished.
    Lost {
        /// When.
        at: ClusterTime,
    },
}

impl TaskState {
    /// Says whether nothing more will happen to it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Pending { .. } | Self::Assigned { .. })
    }
}

/// One event in a task's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HistoryLine {
    /// When.
    pub at: ClusterTime,
    /// Which attempt it is about; zero for the task as a whole.
    pub attempt: u32,
    /// What happened.
    pub what: HistoryEvent,
}

/// What can happen to a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HistoryEvent {
    /// Granted to this node.
    Assigned(NodeId),
    /// Taken back.
    Released(ReleaseCause),
    /// The attempt's result was recorded.
    Done,
    /// The attempt failed.
    Failed(String),
    /// A result came under a fence that was no longer current, and was refused.
    LateResultRefused(Fence),
    /// A client ended it.
    Cancelled,
}
