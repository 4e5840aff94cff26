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

use crate::durable::Payload;
use crate::state::Command;
use crate::{client, consensus, founding, image, master, wire, worker};

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
    /// Votes, heartbeats, acknowledgements, and what keeps the sessions of nodes alive: small, useless when late, and
    /// said again if lost. 64 messages and 64 KiB in flight; when full, the message is dropped.
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
            Self::Consensus(message) if message.is_control() || is_upkeep(message) => Class::Control,
            Self::ToMaster(worker::ToMaster::Renew { held, .. }) if held.len() <= HELD_MAX => Class::Control,
            Self::ToWorker(master::ToWorker::Welcome { .. }) => Class::Control,
            Self::Founding(_) => Class::Control,
            Self::Image(image::Message::Chunk { .. }) => Class::Bulk,
            Self::Image(_) => Class::Control,
            _ => Class::Data,
        }
    }
}

/// A renewal of a worker that holds no more than this is small.
const HELD_MAX: usize = 64;

/// Whether these are entries for which nobody waits: few renewals of sessions and nothing else.
fn is_upkeep(message: &consensus::Message) -> bool {
    let is_renewal = |payload: &Payload| match payload {
        Payload::Commands(bytes) => wire::decode::<Vec<Command>>(bytes, UPKEEP_BYTES_MAX)
            .is_ok_and(|commands| commands.iter().all(|command| matches!(command, Command::Renew { .. }))),
        Payload::Noop | Payload::Config(_) => false,
    };
    match message {
        consensus::Message::Append(append) => append.entries.iter().all(|entry| is_renewal(&entry.payload)),
        _ => false,
    }
}

/// The longest entry that is looked into: renewals of a dozen sessions. Longer ones cost nothing to tell.
const UPKEEP_BYTES_MAX: usize = 128;

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::durable::Entry;
    use crate::state::Operation;
    use crate::{ClusterTime, Epoch, Fence, Index, LogId, Nanos, Seq, SessionId};

    #[test]
    fn what_keeps_nodes_at_rest_alive_travels_with_the_heartbeats() {
        let session = SessionId(u64::MAX);
        let renew = Command::Renew { sessions: vec![session; 3] };
        let write = Command::Client { session, seq: Seq(1), first_incomplete: Seq(1), operation: Operation::Close };
        assert_eq!(append(vec![]), Class::Control);
        assert_eq!(append(vec![vec![renew.clone()], vec![renew.clone(), renew.clone()]]), Class::Control);
        assert_eq!(append(vec![vec![renew.clone()], vec![renew.clone(), write.clone()]]), Class::Data);
        assert_eq!(append(vec![vec![write]]), Class::Data);
        assert_eq!(append(vec![vec![Command::Renew { sessions: vec![session; 100] }]]), Class::Data);
        let renew =
            worker::ToMaster::Renew { epoch: Epoch(1), session, held: vec![], seen: Fence::default(), sent: Nanos(1) };
        assert_eq!(Body::ToMaster(renew).class(), Class::Control);
    }

    /// The class in which these entries travel.
    fn append(entries: Vec<Vec<Command>>) -> Class {
        let entry = |(index, commands): (u64, Vec<Command>)| Entry {
            id: LogId { epoch: Epoch(1), index: Index(index) },
            time: ClusterTime(1),
            payload: Payload::Commands(Bytes::from(wire::encode(&commands, wire::MAX_MESSAGE).expect("it is short"))),
        };
        let append = consensus::Append {
            epoch: Epoch(1),
            prev: LogId::default(),
            entries: (1..).zip(entries).map(entry).collect(),
            commit: Index(0),
            sent: Nanos(1),
        };
        Body::Consensus(consensus::Message::Append(append)).class()
    }
}
