//! Which machine hears what: the one place that knows, for the actors and for the simulator alike.

use crate::effects::Local;
use crate::message::Body;
use crate::types::{Incarnation, NodeId};
use crate::{client, master, replica, worker};

/// The machine for whom a message of an authenticated peer is meant.
#[must_use]
pub fn receive(from: NodeId, incarnation: Incarnation, to: NodeId, body: Body) -> Local {
    match body {
        Body::Consensus(message) => Local::Replica(replica::Input::Consensus { from, message }),
        Body::Image(message) => Local::Replica(replica::Input::Image { from, message }),
        Body::Founding(message) => Local::Replica(replica::Input::Founding { from, message }),
        Body::ToWorker(message) => Local::Worker(worker::Input::Message { from, message }),
        Body::ToMaster(message) => Local::Master(master::Input::Message { from, incarnation, message }),
        Body::Request(request) => Local::Replica(replica::Input::Request { from, request }),
        Body::Response(response) if response.origin.node == to => Local::Client(client::Input::Response(response)),
        Body::Response(response) => Local::Replica(replica::Input::Response(response)),
    }
}

/// Who must know that a link to a peer came up. An outside client is no node: only requests come from it.
#[must_use]
pub fn link_up(node: NodeId, incarnation: Incarnation, is_node: bool) -> Vec<Local> {
    if !is_node {
        return Vec::new();
    }
    vec![
        Local::Replica(replica::Input::LinkUp { node }),
        Local::Master(master::Input::LinkUp { node, incarnation }),
        Local::Worker(worker::Input::LinkUp { node }),
        Local::Client(client::Input::LinkUp { node }),
    ]
}

/// Who must know that a message was not sent, because the link to a peer has no room.
#[must_use]
pub fn unsent(to: NodeId, body: &Body) -> Option<Local> {
    match body {
        Body::ToWorker(master::ToWorker::Dispatch { grant, .. }) => {
            Some(Local::Master(master::Input::Unsent { node: to, task: grant.attempt.task, fence: grant.fence }))
        }
        _ => None,
    }
}

/// Who must know that it has room again.
#[must_use]
pub fn writable(node: NodeId) -> Local {
    Local::Master(master::Input::Writable { node })
}

/// Who must know that the link to a peer broke.
#[must_use]
pub fn link_down(node: NodeId, incarnation: Incarnation, is_node: bool) -> Vec<Local> {
    if !is_node {
        return Vec::new();
    }
    vec![
        Local::Replica(replica::Input::LinkDown { node }),
        Local::Master(master::Input::LinkDown { node, incarnation }),
        Local::Worker(worker::Input::LinkDown { node }),
        Local::Client(client::Input::LinkDown { node }),
    ]
}

/// Who must know that a peer's side closed its link and refuses a new one.
#[must_use]
pub fn evidence(node: NodeId, incarnation: Incarnation) -> Vec<Local> {
    vec![
        Local::Replica(replica::Input::Evidence { node, incarnation }),
        Local::Master(master::Input::Evidence { node, incarnation }),
    ]
}
