//! Byte messages between nodes, over links that come and go.
//!
//! A link joins this process to one run of another. Whoever owns the [`Inbox`] hears when it comes up and goes down, in
//! order with the messages that crossed it. Two implementations share everything above the bare wire: [`cluster`] speaks
//! ractor_cluster over our own streams, [`memory`] joins several nodes of one process.
//!
//! # Invariants
//!
//! * Nobody outside this folder knows which implementation is there, or that ractor_cluster exists.
//! * At most one link per peer is current; a link of a newer incarnation replaces an older one at once, and what an older
//!   link still had in the inbox is dropped when it is taken off.
//! * What is in flight to a peer is bounded by the windows of its classes, and a window opens again only when the consumer
//!   drops the [`Credit`] that came with a message. So neither end ever holds a growing queue.
//! * Within one class of one link, messages arrive in the order of sending, once or not at all. Across classes and links
//!   there is no order.
//! * Evidence of death is reported only when the peer's side closed the link *and* a bare connection to the peer's
//!   address was refused, both seen by this node. A link that we closed ourselves never yields evidence.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use protocol::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

pub mod cluster;
mod counts;
mod envelope;
mod inbox;
mod link;
pub mod memory;
mod table;
mod window;

pub use counts::Counts;
pub use inbox::{Credit, Inbox};
pub use link::MAX_CONTROL;
pub use protocol::message::Class;

/// Links to other nodes. Events and messages arrive at the [`Inbox`] that came with it.
pub trait Links: Send + Sync + 'static {
    /// Sends `body`. `Ok` means accepted, not delivered: the link may break on the way.
    ///
    /// # Errors
    ///
    /// [`SendError`]: nothing was sent. A full control class is no error: the message is dropped and counted.
    fn send(&self, to: NodeId, class: Class, body: Bytes) -> Result<(), SendError>;

    /// Says to whom there shall be links. Replaces the previous list; links that exist are kept.
    fn set_targets(&self, targets: Vec<Target>);

    /// Says which cluster we are in. Until then we are in none, and talk to nodes of any cluster of our name.
    fn set_cluster(&self, cluster: ClusterId);

    /// Closes the link to `node`, if there is one. It is dialled again if it is still a target.
    fn close(&self, node: NodeId);

    /// Closes the link to `node` if nothing was heard on it for `silence`. For suspicions of the gossip, which are wrong
    /// too often to close a link that talks (F15).
    fn close_if_silent(&self, node: NodeId, silence: std::time::Duration);

    /// Asks for evidence about a node whose link its side closed. Done by itself for a while after each such close; this
    /// asks again. The answer, if it is evidence, is an event.
    fn probe(&self, node: NodeId);

    /// The peers whose links are up.
    fn peers(&self) -> Vec<Peer>;

    /// The address others reach us at.
    fn address(&self) -> SocketAddr;

    /// What was dropped, since the start.
    fn counts(&self) -> Counts;

    /// Says goodbye: waits a bounded time until the peers took what was sent to them, then closes everything. The inbox
    /// ends after the last event.
    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// What a process is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A node: it listens and is dialled.
    Node,
    /// An outside process that only dials and is never dialled.
    Client,
}

/// Who this process is, as it tells its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name every node of the cluster was started with.
    pub cluster_name: String,
    /// The cluster, or [`ClusterId::NONE`] before we are in one.
    pub cluster: ClusterId,
    /// Our node.
    pub node: NodeId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// What we are.
    pub role: Role,
}

/// The other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// What it is.
    pub role: Role,
    /// Grows with every link of this process, so two links are never confused.
    pub generation: u64,
    /// Where it listens; for a client, where it connected from.
    pub addr: SocketAddr,
}

/// An address there shall be a link to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where to dial.
    pub addr: SocketAddr,
    /// Who must answer there. `None` (an address of the join list) accepts anyone, and reports who it was.
    pub node: Option<NodeId>,
}

/// What happens on the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link works, both ways.
    Up(Peer),
    /// A link that was up is gone. What was on its way may or may not have arrived.
    Down {
        /// The link.
        peer: Peer,
        /// How it ended.
        why: Closed,
    },
    /// This run of the node is dead, as far as one node can see (F4): its side closed the link, and its address refused a
    /// connection. Untrusted input: it may waive manners, never a promise.
    Evidence {
        /// The node.
        node: NodeId,
        /// The run that died.
        incarnation: Incarnation,
    },
    /// A message arrived.
    Message {
        /// Over which link. The sender is authenticated as far as the link is.
        peer: Peer,
        /// In which window it travelled.
        class: Class,
        /// What was sent.
        body: Bytes,
    },
    /// The peer took messages off after a `Busy`: sending is worth a new try.
    Writable {
        /// The peer.
        node: NodeId,
        /// The window that opened.
        class: Class,
    },
    /// Behind this target address answered that node, possibly ourselves. Said once, and again when it changes.
    Identified {
        /// An address of the targets.
        addr: SocketAddr,
        /// Who answered.
        node: NodeId,
    },
    /// No link is possible with whoever is at that address. Said once per reason.
    Refused {
        /// The address dialled.
        addr: SocketAddr,
        /// Why not.
        why: Refusal,
    },
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The peer's side closed it: end of stream, a reset, or a goodbye.
    ByPeer,
    /// We closed it.
    BySelf,
    /// Nothing was heard for too long.
    Idle,
    /// Bytes could not be written, or were not acknowledged, for too long.
    Stalled,
    /// A newer link to the same node took its place.
    Replaced,
    /// The peer turned out to be in another cluster.
    OtherCluster,
    /// The peer broke the rules of the link: it sent more than its windows allow, or nonsense.
    Violation,
}

/// Why no link is possible.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The other side was started with another cluster name.
    #[error("it belongs to the cluster named {theirs:?}")]
    OtherName {
        /// The name over there.
        theirs: String,
    },
    /// Same name, but another founding.
    #[error("it belongs to another cluster of the same name, {theirs}")]
    OtherCluster {
        /// The identity over there.
        theirs: ClusterId,
    },
    /// Same name, but the other side was started with another secret.
    #[error("it was started with another secret")]
    OtherSecret,
    /// Another node than the expected one answers there.
    #[error("node {found} answers there instead of {expected}")]
    OtherNode {
        /// Who should be there.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// The address is not on loopback, and plain streams may not leave the machine.
    #[error("{0} is not a loopback address, and links are not encrypted")]
    NotLoopback(SocketAddr),
    /// A later run of this node (or of the other one) is known already.
    #[error("a newer incarnation, {newer}, is known")]
    OldIncarnation {
        /// The newer run.
        newer: Incarnation,
    },
    /// It speaks another version of the protocol, or something else altogether.
    #[error("it does not speak this protocol")]
    Version,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// The window is full. Try again after [`LinkEvent::Writable`].
    #[error("the peer is busy")]
    Busy,
    /// There is no link to that node.
    #[error("no link to the peer")]
    NoLink,
    /// Longer than [`protocol::wire::MAX_MESSAGE`], or than [`MAX_CONTROL`] in the control class.
    #[error("a message of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// Log targets that tell the reader nothing and print every payload at `debug`: whoever sets up logging turns them off.
pub const NOISY_TARGETS: [&str; 2] = ["ractor", "ractor_cluster"];

#[cfg(test)]
mod tests;
