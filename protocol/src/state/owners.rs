//! Sessions that own things: what is said when one is opened, and how they are shown.
//!
//! Every client session may own keys and rights, and everything that it owns ends with it. Those that are opened for that
//! say who they are, and may name the node's run in whose process they live: the end of that run is then proof of theirs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{MAX_KIND, check_size, check_ttl};
use crate::state::Refused;
use crate::types::{Incarnation, NodeId, SessionId};

/// Opens a session that may own things.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenSession {
    /// For how long it lives without a renewal.
    pub ttl: Duration,
    /// What it says of itself.
    pub about: About,
}

/// What a session says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct About {
    /// Its name for people.
    pub label: String,
    /// The run in whose process it lives, if that is a node's: a newer run of the same node is proof that it is dead (F12).
    pub host: Option<Host>,
    /// Whether evidence of its host's death is enough to end it. Whoever wants that accepts that a refused connection may lie.
    pub fast_release: bool,
}

/// One run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Host {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// A client session as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// For how long it lives without a renewal.
    pub ttl: Duration,
    /// How much of that is left, seen from the last entry of the log.
    pub left: Duration,
    /// What it says of itself.
    pub about: About,
    /// How many keys it owns.
    pub keys: u32,
    /// How many rights it holds or waits for.
    pub claims: u32,
}

impl OpenSession {
    /// Says why such a session cannot be kept, if so.
    pub(super) fn check(&self) -> Result<(), Refused> {
        check_ttl(self.ttl)?;
        check_size(self.about.label.len(), MAX_KIND)?;
        if self.about.fast_release && self.about.host.is_none() {
            return Err(Refused::Invalid("only a session that a node hosts can be released on evidence".into()));
        }
        Ok(())
    }
}
