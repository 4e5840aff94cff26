//! What founders and the founded say to each other.

use serde::{Deserialize, Serialize};

use crate::durable::{Ballot, Genesis};
use crate::types::{ClusterId, Epoch, NodeId};

/// What founders and the founded say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// "May I found?" Lost: asked again. Repeated: answered again.
    Found {
        /// The cluster's name.
        name: String,
        /// The join list, in order.
        list: Vec<String>,
        /// The wish for voters.
        voters: u8,
        /// The founder's bid, durable at the founder.
        ballot: Ballot,
    },
    /// The answer.
    FoundReply {
        /// The ballot it answers.
        ballot: Ballot,
        /// The answer itself.
        answer: FoundAnswer,
    },
    /// "Accept this, unless you promised more than its ballot." Lost: sent again. Repeated: accepted again, changing nothing.
    Genesis(Genesis),
    /// The same from an elected leader of that genesis: a majority has accepted it, so it binds whatever was promised.
    Established(Genesis),
    /// "I am in this cluster."
    GenesisReply {
        /// The genesis that the sender is founded on, so that a founder can hand exactly that one on.
        genesis: Genesis,
    },
    /// "I am at work as master", to nodes that hold no log and hear of it in no other way. Lost: said again every renewal
    /// period. Repeated: heard again.
    Leads {
        /// The master's epoch.
        epoch: Epoch,
    },
    /// "An operator removed you from the cluster: stop." In the place of `Leads`. Lost: said again. Repeated: believed, if a
    /// renewal period lies between.
    Removed,
}

impl Message {
    /// The highest round of a ballot that is named here and would be heeded.
    pub(super) fn round(&self) -> u64 {
        let ballot = match self {
            Self::Found { ballot, .. } | Self::FoundReply { answer: FoundAnswer::Promised(ballot), .. } => *ballot,
            Self::Genesis(genesis) | Self::Established(genesis) => genesis.ballot,
            Self::FoundReply { answer: FoundAnswer::Member { genesis, .. }, .. } => genesis.ballot,
            Self::FoundReply { .. } | Self::GenesisReply { .. } | Self::Leads { .. } | Self::Removed => {
                Ballot::default()
            }
        };
        ballot.round
    }
}

/// What an address says to a founder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FoundAnswer {
    /// In a cluster already: found nothing, hand that genesis on.
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// What it was founded on.
        genesis: Genesis,
    },
    /// Started with another name, list or wish for voters: stop.
    Mismatch {
        /// The other name.
        name: String,
        /// The other list.
        list: Vec<String>,
        /// The other wish.
        voters: u8,
    },
    /// Promised to a higher ballot: try again above it.
    Promised(Ballot),
    /// Free; and no genesis with a smaller ballot is accepted from here on. Sent after that promise is durable.
    Clean(NodeId),
}
