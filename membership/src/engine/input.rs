//! What an engine is told, and what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{Epoch, Incarnation, NodeId};

use crate::board;
use crate::member::{Event, MAX_TAGS, Tags};
use crate::timing::Timing;

/// What an engine must know from the start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub node: NodeId,
    /// This run of it; greater than that of every earlier run.
    pub incarnation: Incarnation,
    /// The cluster's name.
    pub cluster: String,
    /// Where others reach this node's gossip.
    pub addr: SocketAddr,
    /// Where others reach this node's links.
    pub link: SocketAddr,
    /// Where other nodes may be found.
    pub seeds: Vec<SocketAddr>,
    /// The timers.
    pub timing: Timing,
    /// What this node says of itself.
    pub tags: CheckedTags,
    /// Whether addresses outside loopback are spoken to.
    pub insecure: bool,
    /// Where this engine's choices start.
    pub seed: u64,
}

/// Tags that are short enough to spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTags {
    pub(super) tags: Arc<Tags>,
    pub(super) encoded: Bytes,
}

/// These tags are too long to spread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tags take more than {MAX_TAGS} bytes")]
pub struct TagsTooLong;

impl TryFrom<Tags> for CheckedTags {
    type Error = TagsTooLong;

    fn try_from(tags: Tags) -> Result<Self, TagsTooLong> {
        let encoded = board::encode_tags(&tags).map_err(|_| TagsTooLong)?;
        Ok(Self { tags: Arc::new(tags), encoded })
    }
}

/// What an engine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A datagram arrived.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Time has passed. Must come after every datagram that had arrived by then, or a stall of this process would be
    /// held against the others.
    Time,
    /// This node now says this of itself.
    Tags(CheckedTags),
    /// This master was elected.
    Master {
        /// Its epoch.
        epoch: Epoch,
        /// The master.
        node: NodeId,
    },
    /// Say farewell.
    Leave,
}

/// What must follow.
#[derive(Debug, Default)]
pub struct Effects {
    /// Datagrams to send.
    pub sends: Vec<(SocketAddr, Vec<u8>)>,
    /// What the application should know, in order.
    pub events: Vec<Event>,
}
