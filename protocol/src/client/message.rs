//! What the client is told, what it asks nodes, and how they answer.
//!
//! # Invariants
//!
//! * A request carries all that is needed to recognise it when it comes twice: its origin, and for a write its session and
//!   number.
//! * [`Denied`] and [`CallError`] separate "certainly not done" from "maybe done" (D9).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::{Answer, OpenSession, Operation, Query};
use crate::types::{Epoch, Nanos, NodeId, Seq, SessionId};

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Do this and complete `call` with the result.
    Call {
        /// Comes back in [`crate::effects::Event::Completed`].
        call: u64,
        /// What to do.
        work: Work,
        /// Give up after this long.
        timeout: Duration,
    },
    /// Nobody waits for this call any more.
    Forget {
        /// The call.
        call: u64,
    },
    /// An answer came.
    Response(Response),
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
    /// End the session.
    Close,
    /// A deadline may have passed.
    Tick,
}

/// What a client may want.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// A write, executed once.
    Write(Operation),
    /// A read.
    Read(Query, Consistency),
    /// An order to the master; see [`RequestBody::HandOver`].
    HandOver {
        /// The heir; the best one if nobody is named.
        to: Option<NodeId>,
        /// The epoch that is to end.
        epoch: Epoch,
    },
    /// Open a session and keep it until it is ended or lost; see [`crate::effects::Event::Kept`].
    Keep(OpenSession),
    /// Renew a session that somebody else keeps. Completed with [`Answer::Renewed`].
    Renew(SessionId),
}

/// What a read may miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// Nothing that was acknowledged before it began.
    #[default]
    Linearizable,
    /// Whatever the asked node has not applied yet.
    Stale,
}

/// A request to a node. Lost: sent again under the same number. Repeated: a write is recognised by session and seq.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Who asks: the answer finds its way back by this.
    pub origin: Origin,
    /// Whether a node has forwarded it already: it is forwarded at most once.
    pub forwarded: bool,
    /// What is asked.
    pub body: RequestBody,
}

/// Names one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node or outside process whose client asks.
    pub node: NodeId,
    /// The request's number there; a retry carries the same.
    pub number: u64,
    /// Which try of it: tells a late or repeated refusal of one try from the answer to another.
    pub turn: u32,
}

impl Origin {
    /// The request, whichever try of it this is.
    #[must_use]
    pub fn request(self) -> Self {
        Self { turn: 0, ..self }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestBody {
    /// Open a session.
    Register {
        /// For how long it lives without a renewal.
        ttl: Duration,
    },
    /// Keep sessions alive. Answered with [`Answer::Renewed`].
    Renew {
        /// The sessions, at most [`MAX_RENEWED`](crate::state::limits::MAX_RENEWED).
        sessions: Vec<SessionId>,
        /// The own session, if it is among them, and its first request of which the client has no answer: those before it are kept
        /// for nobody.
        heard: Option<(SessionId, Seq)>,
    },
    /// Execute once.
    Write {
        /// The session.
        session: SessionId,
        /// Which request of it.
        seq: Seq,
        /// The client holds the answers of all requests before this one.
        first_incomplete: Seq,
        /// What to do.
        operation: Operation,
    },
    /// Answer from the state.
    Read {
        /// The question.
        query: Query,
        /// What it may miss.
        consistency: Consistency,
    },
    /// Hand mastership over. Answered with [`Answer::Ok`] when that begins. Only the leader of this epoch heeds it, so that it
    /// may be asked twice.
    HandOver {
        /// The heir; the best one if nobody is named.
        to: Option<NodeId>,
        /// The epoch that is to end.
        epoch: Epoch,
    },
}

/// The answer to a request. Lost: the client asks again. Repeated: nobody waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Response {
    /// The request it answers.
    pub origin: Origin,
    /// The node that led when it was answered, as far as the answering node knows.
    pub leader: Option<NodeId>,
    /// The answer.
    pub result: Result<Answer, Denied>,
}

/// Why a node did not answer the question itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Denied {
    /// Certainly not done: this node is not the leader and knows no better one than `leader`.
    #[error("not the master")]
    NotMaster,
    /// Certainly not done: too much is under way.
    #[error("too much is under way")]
    Busy,
    /// Maybe done: leadership ended while it was under way.
    #[error("outcome unknown")]
    Unknown,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallError {
    /// Nobody who can answer was reached in time. `maybe_applied` says whether it may have been done nevertheless.
    #[error("no answer within {waited:?}")]
    Deadline {
        /// Whether it may have been done.
        maybe_applied: bool,
        /// How long.
        waited: Duration,
        /// The node that led last, as far as we know.
        leader: Option<NodeId>,
        /// Why the last try failed.
        last: Option<Denied>,
    },
    /// The session ended. `maybe_applied` is false only if this was the first try (F9).
    #[error("the session has expired")]
    SessionExpired {
        /// Whether it may have been done.
        maybe_applied: bool,
    },
    /// This client has too many calls under way.
    #[error("too many calls under way")]
    Busy,
}

/// Why a session of the application is over for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Loss {
    /// The application ended it.
    #[error("it was closed")]
    Closed,
    /// Nobody answered a renewal in time: it may live on in the cluster for a moment.
    #[error("nobody renewed it in time")]
    Silence,
    /// The cluster says that it does not live: somebody ended it, or it had expired.
    #[error("the cluster has ended it")]
    Gone,
}

/// Who runs this client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The node or outside process.
    pub node: NodeId,
    /// Whether a replica of this process can be asked first.
    pub local_replica: bool,
    /// The session's time to live.
    pub ttl: Duration,
    /// How long to wait for an answer before asking another node.
    pub patience: Duration,
    /// Where the numbers of requests begin: different in every run of the same node.
    pub first_number: u64,
    /// Now.
    pub now: Nanos,
}
