//! What follows from a step, in the order in which a shell carries it out: persist, send, hand on, publish.
//!
//! Every machine has one shape, `step(now, input, &mut effects)` and `next_deadline()`, and all of them write into this
//! one buffer, which the caller owns and empties.
//!
//! # Invariants
//!
//! * A message whose `after` names a batch leaves only when that batch is durable.
//! * Messages to one node keep their order, and so do inputs to one machine.

use serde::{Deserialize, Serialize};

use crate::durable::Persist;
use crate::message::Body;
use crate::types::{Attempt, Epoch, Fence, Nanos, NodeId, SessionId};
use crate::{client, image, master, replica, worker};

/// The buffer that a step fills and a shell empties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects {
    /// 1. Make these durable, in this order.
    pub persist: Vec<Persist>,
    /// Then, in this order and in the order of the store: work on images of the state.
    pub images: Vec<image::Work>,
    /// 2. Send these, each when its `after` is durable.
    pub send: Vec<Outgoing>,
    /// 3. Hand these to other machines of the same node. Each is an actor of its own, so the hop takes time.
    pub local: Vec<Local>,
    /// 4. Tell the application.
    pub publish: Vec<Event>,
}

/// A message to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outgoing {
    /// The receiver; may be this node itself, then it takes the same way without a link.
    pub to: NodeId,
    /// What to say.
    pub body: Body,
    /// The batch that must be durable before it leaves.
    pub after: Option<u64>,
}

/// An input to one machine of this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// To consensus and state.
    Replica(replica::Input),
    /// To the master, if this node has one.
    Master(master::Input),
    /// To the worker.
    Worker(worker::Input),
    /// To the client.
    Client(client::Input),
}

/// What the application or the operator may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The role of this node changed.
    Role {
        /// The new role.
        role: Role,
        /// In this epoch.
        epoch: Epoch,
        /// Who leads, as far as we know.
        leader: Option<NodeId>,
    },
    /// This node is in a cluster from here on, and that is durable: links and gossip may say so.
    Founded(crate::durable::Genesis),
    /// What this node is to the log has changed: who dials whom follows from it.
    Part(Part),
    /// An operator removed this node from the cluster: it is to end, in its own time.
    Removed,
    /// The authority that may be shown to the application; `None` takes it back.
    Authority(Option<Authority>),
    /// Run this attempt.
    Start(worker::Run),
    /// Stop this attempt: its right ends.
    Abort {
        /// Which one.
        attempt: Attempt,
        /// The grant that ends.
        fence: Fence,
        /// Why.
        why: worker::AbortCause,
    },
    /// The worker was told to drain and holds nothing any more.
    Drained,
    /// A call of the local client is answered.
    Completed {
        /// The number under which it was made.
        call: u64,
        /// Its result.
        result: Result<crate::state::Answer, client::CallError>,
    },
    /// A session of the application lives at least until then by this node's clock; it is renewed without being asked.
    Kept {
        /// The session.
        session: SessionId,
        /// Its end, if it is not renewed.
        until: Nanos,
    },
    /// A session of the application is over for it. Nothing more follows about it.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        why: client::Loss,
    },
    /// Something worth one line in the log, in words.
    Note(String),
    /// This node must stop: its promise to remember is broken.
    Fatal(String),
}

/// What a node is in the eyes of consensus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows a leader or waits for one.
    #[default]
    Follower,
    /// Asks whether an election would succeed.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Won its epoch.
    Leader,
    /// Storage failed, or the log was given up: neither votes nor acknowledges again.
    Halted,
}

/// What a node is to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// It holds none: a plain member, worker and client.
    #[default]
    Outside,
    /// It holds the log without a vote.
    Learner,
    /// It holds the log and votes.
    Voter,
}

/// Mastership as the application may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The epoch, which is also the fence of mastership among epochs.
    pub epoch: Epoch,
    /// The end of the lease by this node's clock: nobody else acts as master before it.
    pub until: Nanos,
}

impl Effects {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends `body` without waiting for the disk.
    pub fn send(&mut self, to: NodeId, body: impl Into<Body>) {
        self.send.push(Outgoing { to, body: body.into(), after: None });
    }

    /// Adds one line for the log.
    pub fn note(&mut self, line: impl Into<String>) {
        self.publish.push(Event::Note(line.into()));
    }

    /// Says whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.images.is_empty()
            && self.send.is_empty()
            && self.local.is_empty()
            && self.publish.is_empty()
    }
}
