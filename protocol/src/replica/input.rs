//! What a replica is told, and what it tells of itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::client::{Request, Response};
use crate::state::Command;
use crate::types::{Epoch, Incarnation, NodeId};
use crate::{consensus, founding, image};

/// What the replica is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// From another replica.
    Consensus {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: consensus::Message,
    },
    /// From another replica, about how the cluster begins.
    Founding {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: founding::Message,
    },
    /// From another replica, about an image of the state.
    Image {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: image::Message,
    },
    /// The store did its work on an image.
    ImageDone(image::Done),
    /// The node behind a place of the join list is known (it may be this one).
    Resolved {
        /// Which address, counted from zero.
        place: usize,
        /// Who is there.
        node: NodeId,
    },
    /// An operator's word: found without these places of the join list, counted from zero (F1).
    FoundWithout {
        /// The places.
        places: BTreeSet<usize>,
    },
    /// Gossip or a link knows of a cluster with our name: never found another one.
    ClusterExists,
    /// A client's request, directly or forwarded.
    Request {
        /// The authenticated sender: the client itself, or the node that forwards; this node for its own client.
        from: NodeId,
        /// What it asks.
        request: Request,
    },
    /// A response on its way to a client for whom this node asked the leader.
    Response(Response),
    /// Decisions of the master, in order.
    Propose {
        /// The epoch in which they were decided (F7).
        epoch: Epoch,
        /// The decisions.
        commands: Vec<Command>,
    },
    /// Change who votes and who listens, as decided in this epoch. What becomes of it shows in [`Status::voters`].
    Configure {
        /// The epoch in which this was decided (F7).
        epoch: Epoch,
        /// Who is to vote and to listen.
        target: consensus::Target,
    },
    /// Hand leadership over, so that another node becomes master.
    Transfer {
        /// The heir; the best one if nobody is named.
        to: Option<NodeId>,
    },
    /// This node is about to stop: from here on it leads only if nobody else does for long, and is no heir. Mastership that it has, it
    /// keeps until it is told to hand it over.
    Leave,
    /// The master of this epoch has stopped, as it was asked to.
    Surrendered {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The master's answer to [`crate::master::Input::Submitting`]: decisions that belong behind the submissions that it was
    /// asked about.
    Placed {
        /// The epoch in which they were decided (F7).
        epoch: Epoch,
        /// The decisions, none where nobody has room.
        commands: Vec<Command>,
    },
    /// All batches up to this one are durable.
    Persisted {
        /// The batch.
        seq: u64,
    },
    /// The store failed: final.
    StorageFailed {
        /// Its words.
        why: String,
    },
    /// See [`consensus::Input::Evidence`].
    Evidence {
        /// Who seems to be dead.
        node: NodeId,
        /// The run of it.
        incarnation: Incarnation,
    },
    /// A link to this peer came up.
    LinkUp {
        /// The peer.
        node: NodeId,
    },
    /// The link to this peer broke.
    LinkDown {
        /// The peer.
        node: NodeId,
    },
    /// Gossip knows of a member, or that it is gone.
    Member {
        /// The member.
        node: NodeId,
        /// Where it listens.
        address: SocketAddr,
        /// Whether it is here.
        is_alive: bool,
        /// Whether it remembers nothing over a restart.
        is_forgetful: bool,
    },
    /// Gossip suspects this node.
    Suspected {
        /// The suspect.
        node: NodeId,
    },
}

/// What a node knows of the cluster, read atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: crate::types::ClusterId,
    /// The role of this node.
    pub role: crate::effects::Role,
    /// The epoch.
    pub epoch: Epoch,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Whether that leader is at work as master, as far as this node can know: on the leader itself, that its no-op is
    /// applied and check-quorum holds; elsewhere, that it was heard within the election timeout.
    pub master_fresh: bool,
    /// On the leader: how long the lease is still valid, zero if it is not.
    pub lease_ms: u64,
    /// The commit index.
    pub commit: u64,
    /// How much is applied.
    pub applied: u64,
    /// The state's hash at `applied`.
    pub state_hash: u64,
    /// The revision at `applied`.
    pub revision: u64,
    /// What this node is to the log.
    pub part: crate::effects::Part,
    /// The voters, as far as this node knows: one without a place in the log does not.
    pub voters: Vec<NodeId>,
    /// Those who hold the log without a vote.
    pub learners: Vec<NodeId>,
    /// On the leader: which voters answered within the election timeout.
    pub heard: Vec<NodeId>,
    /// The last entry that is forgotten: what this node holds of the log begins after it.
    pub log_base: u64,
    /// The last entry in this node's own snapshot, zero if it has none.
    pub snapshot: u64,
    /// The image that this node fetches, if it lacks what the others have forgotten.
    pub fetching: Option<Fetching>,
    /// What this node waits for, until it has heard a master or holds a log.
    pub waits_for: Option<founding::Wait>,
}

/// How far an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fetching {
    /// Who sends it.
    pub from: NodeId,
    /// The last entry in it.
    pub last: u64,
    /// How many chunks are staged.
    pub staged: u32,
    /// How many there are; zero before the first one has said so.
    pub count: u32,
}
