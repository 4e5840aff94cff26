//! What the worker is told, what it orders, and what it says to the master.
//!
//! # Invariants
//!
//! * What a worker says about an attempt names its fence: the log judges by that alone (F13).
//! * Times in messages are the worker's own clock and come back to it unchanged.

use serde::{Deserialize, Serialize};

use crate::master::{Grant, ToWorker};
use crate::state::{Begun, Offer, Outcome};
use crate::types::{Attempt, Epoch, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};

/// What the worker is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A master said something, on the newest link of that peer.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: ToWorker,
    },
    /// The handler of this attempt ended by itself.
    Finished {
        /// The grant under which it ran.
        fence: Fence,
        /// How.
        outcome: Outcome,
    },
    /// A link to a node came up.
    LinkUp {
        /// The peer.
        node: NodeId,
    },
    /// The link to a node broke.
    LinkDown {
        /// The peer.
        node: NodeId,
    },
    /// Take no more work; hand back what has not started; say goodbye when all is done.
    Drain,
    /// The time for that is over: stop what still runs, and say goodbye within an election timeout.
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// An attempt to start: the executor's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The right and what it needs.
    pub grant: Grant,
    /// The epoch whose master sent it.
    pub epoch: Epoch,
}

/// Why an attempt must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortCause {
    /// A client cancelled the task, or it was taken back.
    Cancelled,
    /// The worker's session has ended by its own clock, or the master does not know it any more.
    SessionLost,
    /// It ran longer than it may.
    TimedOut,
    /// This node goes, and has waited long enough.
    Leaving,
}

/// What a worker says to the master.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToMaster {
    /// "I am here, this is what I offer and hold." The answer to `Here` and `Unknown`. Lost: sent again every renewal period.
    /// Repeated: harmless.
    Hello {
        /// The master's epoch that it answers.
        epoch: Epoch,
        /// What it offers.
        offer: Offer,
        /// What it holds.
        held: Vec<Held>,
        /// When it was sent, by the worker's clock.
        sent: Nanos,
    },
    /// "I still live." Lost: the next one follows. Repeated: harmless.
    Renew {
        /// The master's epoch.
        epoch: Epoch,
        /// The session.
        session: SessionId,
        /// All attempts held: running, or ended and not yet judged.
        held: Vec<Held>,
        /// The highest fence dispatched since the last hello: what is below it and not held was lost on the way or is gone.
        seen: Fence,
        /// When it was sent, by the worker's clock.
        sent: Nanos,
    },
    /// "This attempt ended so." Lost: sent again every renewal period, and to every new master. Repeated: judged once.
    Finish {
        /// The task.
        task: TaskId,
        /// The grant.
        fence: Fence,
        /// How it ended.
        outcome: Outcome,
    },
    /// "I do not run this: take it back." Sent when draining or full, and for what ended here without a result and is
    /// dispatched again. Lost: dispatched again after the next report.
    HandBack {
        /// The task.
        task: TaskId,
        /// The grant.
        fence: Fence,
        /// Whether it certainly never started here, and never will: then even what may run only once goes again.
        never_started: bool,
    },
    /// "I go. Of what I was granted I had begun this; the rest never began here, and never will." Lost: the session expires.
    Goodbye {
        /// The session.
        session: SessionId,
        /// What may have begun under it and was not judged.
        begun: Begun,
    },
}

/// One attempt that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Held {
    /// Which run of which task.
    pub attempt: Attempt,
    /// Its grant.
    pub fence: Fence,
}

/// Who runs this worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// What it offers.
    pub offer: Offer,
    /// The timers.
    pub profile: crate::Profile,
}
