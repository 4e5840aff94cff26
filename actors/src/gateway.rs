//! The way in: takes events and messages off the links and hands each to the machine that it is for.
//!
//! # Invariants
//!
//! * What a peer sent is decoded here, bounded and fallibly; what cannot be read is dropped and counted.
//! * The order of one link's events and messages is kept.
//! * A message's credit goes with it into the mailbox and back to the peer only when it was handled: what all mailboxes hold
//!   of a peer is bounded by that peer's windows, however slow a machine is.

use std::net::SocketAddr;

use protocol::message::Body;
use protocol::{ClusterId, NodeId, route, wire};
use ractor::ActorRef;
use tokio::sync::watch;

use crate::election::Views;
use crate::links::{Inbox, LinkEvent, Refusal, Role};
use crate::members;
use crate::outlet::Outlet;

/// Whom the gateway serves, which decides what a refusal means.
pub(crate) enum Home {
    /// A node.
    Node(Views),
    /// An outside client that no node has let in yet: it shows the last refusal to whoever waits for an answer in vain.
    Outside(watch::Sender<Option<String>>),
    /// An outside client that a node has let in. It is right here, whatever an address says that leads elsewhere.
    LetIn,
}

/// Runs until the links are shut down.
pub(crate) async fn run(
    node: NodeId,
    mut inbox: Inbox,
    outlet: Outlet,
    members: Option<ActorRef<members::Message>>,
    mut home: Home,
) {
    while let Some((event, credit)) = inbox.take().await {
        match event {
            LinkEvent::Message { peer, body, .. } => match wire::decode::<Body>(&body, wire::MAX_MESSAGE) {
                Ok(body) => outlet.deliver_held(route::receive(peer.node, peer.incarnation, node, body), credit),
                Err(error) => {
                    metrics::counter!("tenure_messages_malformed_total").increment(1);
                    tracing::debug!(from = %peer.node, %error, "a message could not be read");
                }
            },
            LinkEvent::Up(peer) => {
                tracing::info!(peer = %peer.node, incarnation = %peer.incarnation, addr = %peer.addr, "link up");
                let is_node = peer.role == Role::Node;
                home.on_up();
                route::link_up(peer.node, peer.incarnation, is_node)
                    .into_iter()
                    .for_each(|local| outlet.deliver(local));
            }
            LinkEvent::Down { peer, why } => {
                tracing::info!(peer = %peer.node, incarnation = %peer.incarnation, ?why, "link down");
                let is_node = peer.role == Role::Node;
                route::link_down(peer.node, peer.incarnation, is_node)
                    .into_iter()
                    .for_each(|local| outlet.deliver(local));
            }
            LinkEvent::Evidence { node, incarnation } => {
                tracing::info!(peer = %node, %incarnation, "evidence of death: its side closed the link and refuses a new one");
                route::evidence(node, incarnation).into_iter().for_each(|local| outlet.deliver(local));
            }
            LinkEvent::Identified { addr, node } => {
                if let Some(members) = &members {
                    let _ = members.cast(members::Message::Identified { addr, node });
                }
            }
            LinkEvent::Refused { addr, why } => home.on_refused(addr, &why),
            LinkEvent::Writable { node, .. } => outlet.deliver(route::writable(node)),
        }
    }
}

impl Home {
    fn on_up(&mut self) {
        if let Self::Outside(refusal) = self {
            refusal.send_replace(None);
            *self = Self::LetIn;
        }
    }

    fn on_refused(&self, addr: SocketAddr, why: &Refusal) {
        match self {
            // A node that is in no cluster yet and was sent to another one was started wrongly: it would wait for ever.
            Self::Node(views) => {
                let is_lost = matches!(why, Refusal::OtherName { .. } | Refusal::OtherSecret);
                if is_lost && views.mastership.borrow().cluster == ClusterId::NONE {
                    views.fatal.raise(format!("it cannot join through {addr}: {why}"));
                }
            }
            Self::Outside(refusal) => drop(refusal.send_replace(Some(format!("{addr}: {why}")))),
            Self::LetIn => {}
        }
    }
}
