//! What a membership must be told before it starts, and why it may refuse.
//!
//! # Invariants
//!
//! * Without `insecure`, no address outside loopback is bound, advertised or asked: datagrams are not sealed yet.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use protocol::{Incarnation, NodeId};

use crate::engine::TagsTooLong;
use crate::timing::Timing;

/// How a membership starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// This run of it: greater than that of every earlier run over the same data folder, or nobody will listen.
    pub incarnation: Incarnation,
    /// The cluster's name. Datagrams of another name are counted and dropped.
    pub cluster: String,
    /// The UDP address to listen at; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Where others reach that address, if it is not `bind` itself. Port 0 stands for the bound port.
    pub advertise: Option<SocketAddr>,
    /// Where others reach this node's links.
    pub link: SocketAddr,
    /// UDP addresses at which other nodes may be found. One that answers is enough; our own is ignored.
    pub seeds: Vec<SocketAddr>,
    /// The timers.
    pub timing: Timing,
    /// What this node says of itself, at most [`crate::MAX_TAGS`] bytes when encoded.
    pub tags: BTreeMap<String, String>,
    /// Whether addresses outside loopback are allowed although nothing is sealed.
    pub insecure: bool,
}

/// Why a membership did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address outside loopback without leave to use it.
    #[error("{what} address {addr} is outside loopback, and gossip is not sealed yet")]
    NotLoopback {
        /// Which of the addresses.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// Others could not reach us at the address that they would be told.
    #[error("{0} is not an address that others can reach; an address to advertise is needed")]
    Unreachable(SocketAddr),
    /// The timers do not fit each other.
    #[error("{0}")]
    Timing(String),
    /// The tags are too long to spread.
    #[error(transparent)]
    Tags(#[from] TagsTooLong),
    /// The node must have an identity.
    #[error("the node's id must not be zero")]
    NoNode,
    /// The address is taken, or may not be bound.
    #[error("cannot bind UDP address {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else that we need.
    #[error("cannot start the membership thread: {0}")]
    System(#[from] io::Error),
}

impl Config {
    /// A node of this cluster that listens on loopback, at a port of the system's choice, and knows nobody.
    #[must_use]
    pub fn loopback(node: NodeId, incarnation: Incarnation, cluster: impl Into<String>, link: SocketAddr) -> Self {
        Self {
            node,
            incarnation,
            cluster: cluster.into(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            link,
            seeds: Vec::new(),
            timing: Timing::default(),
            tags: BTreeMap::new(),
            insecure: false,
        }
    }

    /// Checks everything that can be checked without the system.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), StartError> {
        if self.node == NodeId(0) {
            return Err(StartError::NoNode);
        }
        self.timing.validate().map_err(StartError::Timing)?;
        let seeds = self.seeds.iter().map(|seed| ("seed", *seed));
        let own = [("bind", Some(self.bind)), ("advertised", self.advertise), ("link", Some(self.link))];
        let own = own.into_iter().filter_map(|(what, addr)| Some((what, addr?)));
        for (what, addr) in own.chain(seeds) {
            if !self.insecure && !addr.ip().is_loopback() {
                return Err(StartError::NotLoopback { what, addr });
            }
        }
        let reached = self.advertise.unwrap_or(self.bind);
        if reached.ip().is_unspecified() {
            return Err(StartError::Unreachable(reached));
        }
        Ok(())
    }

    /// What others are told, once the port is known.
    pub(crate) fn advertised(&self, bound: SocketAddr) -> SocketAddr {
        match self.advertise {
            Some(addr) if addr.port() == 0 => SocketAddr::new(addr.ip(), bound.port()),
            Some(addr) => addr,
            None => bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::loopback(NodeId(1), Incarnation(1), "photos", SocketAddr::from(([127, 0, 0, 1], 7400)))
    }

    #[test]
    fn an_address_outside_loopback_needs_leave() {
        let outside = SocketAddr::from(([192, 0, 2, 1], 7400));
        let seeded = Config { seeds: vec![outside], ..config() };
        assert!(matches!(seeded.validate(), Err(StartError::NotLoopback { what: "seed", .. })));
        assert!(Config { insecure: true, ..seeded }.validate().is_ok());
        let bound = Config { bind: outside, ..config() };
        assert!(bound.validate().unwrap_err().to_string().contains("bind address 192.0.2.1:7400"));
    }

    #[test]
    fn an_address_that_stands_for_all_must_be_advertised_by_another() {
        let bind = SocketAddr::from(([0, 0, 0, 0], 7400));
        let open = Config { bind, insecure: true, ..config() };
        assert!(matches!(open.validate(), Err(StartError::Unreachable(_))));
        let named = Config { advertise: Some(SocketAddr::from(([192, 0, 2, 1], 0))), ..open };
        assert!(named.validate().is_ok());
        assert_eq!(named.advertised(bind), SocketAddr::from(([192, 0, 2, 1], 7400)));
    }
}
