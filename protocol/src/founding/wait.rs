//! What a node without a cluster that works waits for: where nothing goes on by itself, the operator should know why.

use serde::{Deserialize, Serialize};

use super::Founding;

/// What a node waits for that is in no cluster, or in one that it has never seen at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wait {
    /// This node founds, and each of these addresses of the join list must answer first.
    Answers(Vec<String>),
    /// The node at this address founds, as it stands first in the join list.
    Founder(String),
    /// A cluster with the same name is known to exist: this node founds none, and a master must let it in.
    Master,
    /// This node has a vote by the genesis that it holds, and no master of that was ever heard here.
    Majority {
        /// The first address of the join list, if that is another node's: another one there would hand the genesis on.
        founder: Option<String>,
    },
}

impl Founding {
    /// What this node waits for, if it has seen nothing yet of a cluster at work; `None` if it has something to do by itself.
    #[must_use]
    pub fn waits_for(&self) -> Option<Wait> {
        let address = |place: usize| self.config.list[place].clone();
        let first = self.remaining().next();
        if let Some(genesis) = &self.genesis {
            let founder = first.filter(|_| !self.is_founder()).map(address);
            return genesis.voters.contains(&self.config.node).then_some(Wait::Majority { founder });
        }
        if self.exists {
            return Some(Wait::Master);
        }
        let first = first?;
        if !self.is_founder() {
            return Some(Wait::Founder(address(first)));
        }
        let silent: Vec<String> = self.remaining().filter(|place| !self.has_answered(*place)).map(address).collect();
        (!silent.is_empty()).then_some(Wait::Answers(silent))
    }

    /// Whether the node behind a place of the list did what this founder asks of it at the moment.
    fn has_answered(&self, place: usize) -> bool {
        let Some(node) = self.resolved.get(&place) else { return false };
        match (&self.proposal, &self.bid) {
            (Some(proposal), _) => self.confirmed.contains(node) || !proposal.voters.contains(node),
            (None, Some(bid)) => bid.clean.contains(node),
            (None, None) => true,
        }
    }
}
