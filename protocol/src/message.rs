//! Everything that one node says to another.
//!
//! Messages are one-way; any may be lost, repeated or overtaken, and every machine copes. `docs/protocol.md` has the table
//! of them all: from, to, purpose, if lost, if repeated.
//!
//! # Invariants
//!
//! * Variants are appended, never changed: an older node must be able to say that it does not know one.
//! * A message of a master carries its epoch; a worker that has seen a higher one refuses it.

use serde::{Deserialize, Serialize};

use crate::{client, consensus, founding, image, master, worker};

/// The body of an envelope, by the machine that receives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Replica to replica: elections and replication.
    Consensus(consensus::Message),
    /// Replica to replica: how a cluster begins.
    Founding(founding::Message),
    /// Master to worker.
    ToWorker(master::ToWorker),
    /// Worker to master.
    ToMaster(worker::ToMaster),
    /// Client to a node, or node to the leader on a client's behalf.
    Request(client::Request),
    /// Back to the client, or to the node that asked on its behalf.
    Response(client::Response),
    /// Replica to replica: the image of a snapshot, chunk by chunk.
    Image(image::Message),
}

/// Which of a link's three windows a message travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Votes, heartbeats, acknowledgements: small, and useless when late. 64 messages and 64 KiB in flight; when full, the
    /// message is dropped.
    Control,
    /// Requests, answers, dispatches, entries. 448 KiB in flight; when full, the link is busy.
    Data,
    /// Snapshots and other large things. 512 KiB in flight; when full, the link is busy.
    Bulk,
}

impl Body {
    /// The class in which this message travels.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Consensus(message) if message.is_control() => Class::Control,
            Self::Founding(_) => Class::Control,
            Self::Image(image::Message::Chunk { .. }) => Class::Bulk,
            Self::Image(_) => Class::Control,
            _ => Class::Data,
        }
    }
}

impl From<consensus::Message> for Body {
    fn from(message: consensus::Message) -> Self {
        Self::Consensus(message)
    }
}

impl From<founding::Message> for Body {
    fn from(message: founding::Message) -> Self {
        Self::Founding(message)
    }
}

impl From<image::Message> for Body {
    fn from(message: image::Message) -> Self {
        Self::Image(message)
    }
}

impl From<master::ToWorker> for Body {
    fn from(message: master::ToWorker) -> Self {
        Self::ToWorker(message)
    }
}

impl From<worker::ToMaster> for Body {
    fn from(message: worker::ToMaster) -> Self {
        Self::ToMaster(message)
    }
}

impl From<client::Request> for Body {
    fn from(message: client::Request) -> Self {
        Self::Request(message)
    }
}

impl From<client::Response> for Body {
    fn from(message: client::Response) -> Self {
        Self::Response(message)
    }
}
