//! Evidence of death (F4): the peer's side closed the link, and a bare connection to its address is refused.
//!
//! # Invariants
//!
//! * Both halves were seen by this node, and the link was not closed by us.
//! * Evidence names the run whose link ended. It is not reported any more once that node has a link again.
//! * Asking is bounded: a fixed series of connections, and a limited number of suspects.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Shared;
use crate::links::{LinkEvent, Peer};

/// What a bare connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody listens there.
    Refused,
    /// Somebody does, or nothing can be said.
    Otherwise,
}

/// Peers whose side closed the link and of whom no evidence was reported yet.
#[derive(Default)]
pub(super) struct Suspects(BTreeMap<NodeId, Peer>);

impl Suspects {
    fn add(&mut self, peer: Peer) {
        if self.0.len() >= MAX_SUSPECTS {
            // The oldest link is the one that matters least.
            let oldest = self.0.values().min_by_key(|peer| peer.generation).map(|peer| peer.node);
            oldest.and_then(|node| self.0.remove(&node));
        }
        self.0.insert(peer.node, peer);
    }

    pub(super) fn of(&self, node: NodeId) -> Option<Peer> {
        self.0.get(&node).copied()
    }

    /// Ends the suspicion of a node that has a link again.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// Ends a suspicion. False if it was not, or is no longer, about this run.
    fn remove(&mut self, peer: Peer) -> bool {
        let is_this = self.0.get(&peer.node) == Some(&peer);
        if is_this {
            self.0.remove(&peer.node);
        }
        is_this
    }
}

/// Connects once and says what it met.
pub(super) async fn ask(addr: SocketAddr) -> Answered {
    match timeout(ASK_DEADLINE, TcpStream::connect(addr)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Answered::Refused,
        _ => Answered::Otherwise,
    }
}

/// Reports evidence about `peer` if its address was refused, or asks for a while until it is.
pub(super) fn gather(shared: &Arc<Shared>, peer: Peer, is_refused: bool) {
    shared.suspects().add(peer);
    if is_refused {
        conclude(shared, peer);
    } else {
        ask_for_a_while(shared.clone(), peer);
    }
}

/// Asks about `peer`, again and again with growing pauses, until there is evidence or a link.
pub(super) fn ask_for_a_while(shared: Arc<Shared>, peer: Peer) {
    if !shared.may_dial(peer.addr) {
        return;
    }
    let stop = shared.stop.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        // A process that is being killed closes its sockets one by one, so the first answer may come too early.
        for pause_ms in PAUSES_MS {
            if shared.table.link(peer.node).is_some() || shared.suspects().of(peer.node) != Some(peer) {
                return;
            }
            if ask(peer.addr).await == Answered::Refused {
                return conclude(&shared, peer);
            }
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }));
}

fn conclude(shared: &Shared, peer: Peer) {
    if shared.suspects().remove(peer) && shared.table.link(peer.node).is_none() {
        let Peer { node, incarnation, .. } = peer;
        shared.table.report(LinkEvent::Evidence { node, incarnation });
    }
}

/// The pauses between connections, in milliseconds.
const PAUSES_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/// How long one connection may take.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

const MAX_SUSPECTS: usize = 1024;
