//! What lies between hosts: messages on their way, links that come up and break.
//!
//! # Invariants
//!
//! * What a master and a worker say to each other keeps its order, is never repeated, and dies with its link (F8).
//! * A request is never repeated: no answer could be certain of what the other copy does (D9).

use std::net::SocketAddr;

use protocol::durable::GENESIS;
use protocol::effects::Local;
use protocol::message::Body;
use protocol::replica::Replica;
use protocol::{ClusterId, Incarnation, NodeId, replica, route};

use crate::host::{Host, Part};
use crate::options::MS;
use crate::world::{Happening, World};

impl World {
    /// Sends a message on its way, if there is one.
    pub fn transmit(&mut self, from: usize, node: NodeId, body: Body) {
        let verdict = self.check.a_node_votes_once(self.hosts[from].id, node, &body);
        self.judge(verdict);
        let to = place(node);
        if node == self.hosts[from].id {
            let (id, run) = (self.hosts[from].id, self.hosts[from].run);
            let part = source(&body);
            return self.hand_on(from, part, route::receive(id, Incarnation(run), id, body));
        }
        // Whoever had lost its disk has another name: what is meant for the old one has no link (F8).
        if self.net.side(from, to).link.is_none_or(|link| link.peer != node) || (self.lose)(from, to, &body) {
            return;
        }
        if is_ordered(&body) {
            if self.options.busy > 0 && !self.is_calm && self.dice.happens(self.options.busy) {
                return self.find_no_room(from, node, &body);
            }
            if self.net.side(from, to).cut.is_some() {
                return self.net.side_mut(from, to).stuck.push_back(body);
            }
            return self.transmit_in_order(from, to, body);
        }
        if self.net.side(from, to).cut.is_some() || (!self.is_calm && self.dice.happens(self.options.loss)) {
            return;
        }
        // A request is never repeated by a link: no answer could be certain of what the other copy does (D9).
        let may_repeat = !self.is_calm && !matches!(body, Body::Request(_));
        if may_repeat && self.options.twice > 0 && self.dice.happens(self.options.twice) {
            let due = self.time + self.way_of(&body);
            self.fly(from, to, due, body.clone());
        }
        let due = self.time + self.way_of(&body);
        self.fly(from, to, due, body);
    }

    /// A message is not sent, and its sender is told so where that matters. After a while there is room again, unless nobody says so.
    fn find_no_room(&mut self, from: usize, node: NodeId, body: &Body) {
        let Some(unsent) = route::unsent(node, body) else { return };
        self.hand_on(from, source(body), unsent);
        if self.dice.happens(750) {
            let (due, run) = (self.time + self.way(), self.hosts[from].run);
            self.queue.add(due, Happening::Input { at: from, run, local: route::writable(node) });
        }
    }

    /// Sends a message behind all that went this way before.
    pub fn transmit_in_order(&mut self, from: usize, to: usize, body: Body) {
        let arrival = self.time + self.way();
        let side = self.net.side_mut(from, to);
        side.last = side.last.max(arrival);
        let due = side.last;
        self.fly(from, to, due, body);
    }

    /// A message will reach the other end at `due`.
    pub fn fly(&mut self, from: usize, to: usize, due: u64, body: Body) {
        let Some(link) = self.net.side(from, to).link else { return };
        let (node, from_run) = (self.hosts[from].id, self.hosts[from].run);
        let (generation, to_run) = (link.generation, link.peer_run);
        let cluster = self.hosts[from].cluster();
        self.queue.add(due, Happening::Arrival { from, node, to, generation, from_run, to_run, cluster, body });
    }

    /// How long this message travels.
    fn way_of(&mut self, body: &Body) -> u64 {
        if self.options.slow_founding > 0 && !self.is_calm && matches!(body, Body::Founding(_)) {
            return self.dice.between(MS, self.options.slow_founding);
        }
        self.way()
    }

    /// How long a message travels.
    pub fn way(&mut self) -> u64 {
        let (least, most) = self.options.delay;
        if self.options.slow > 0 && !self.is_calm && self.dice.happens(self.options.slow) {
            return self.dice.between(least, self.options.slow_delay.max(most));
        }
        self.dice.between(least, most)
    }

    /// Tries to connect two hosts a little later, unless that is under way already.
    pub fn redial(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        let is_pair = a != b && a < self.options.nodes;
        if !is_pair || self.net.side(a, b).is_connecting {
            return;
        }
        self.net.side_mut(a, b).is_connecting = true;
        let wait = self.dice.between(MS, 150 * MS);
        self.queue.add(self.time + wait, Happening::Connect { a, b });
    }

    /// Makes a link if both ends are there and anything passes.
    pub fn connect(&mut self, a: usize, b: usize) {
        self.net.side_mut(a, b).is_connecting = false;
        let are_up = self.hosts[a].machines.is_some() && self.hosts[b].machines.is_some();
        if !are_up || self.net.is_linked(a, b) {
            return; // Whoever starts dials again.
        }
        if !are_compatible(self.hosts[a].cluster(), self.hosts[b].cluster()) {
            return;
        }
        let are_awake = self.hosts[a].paused_until <= self.time && self.hosts[b].paused_until <= self.time;
        if !are_awake || self.net.is_cut(a, b) {
            return self.redial(a, b);
        }
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(link) = self.net.side(at, peer).link {
                self.break_side(at, peer, link.generation);
            }
        }
        let [one, other] = [a, b].map(|at| (at, self.hosts[at].id, self.hosts[at].run));
        self.net.connect(one, other);
        for (at, peer) in [(a, b), (b, a)] {
            let (node, run, is_node) = (self.hosts[peer].id, self.hosts[peer].run, self.hosts[peer].is_node);
            self.tell(at, || format!("link to n{} up", peer + 1));
            for local in route::link_up(node, Incarnation(run), is_node) {
                self.hand_on(at, Part::Gateway, local);
            }
            if is_node {
                self.gossip(at, node, true);
            }
            // Where something is committed, the list is no matter any more.
            let has_begun = |replica: &Replica| replica.consensus().commit() > GENESIS.index;
            if is_node && !self.hosts[at].replica().is_none_or(has_begun) {
                self.resolve(at, peer);
            }
        }
    }

    /// A host finds a peer behind an address of its list. Behind its own address it has found itself.
    fn resolve(&mut self, at: usize, peer: usize) {
        let Host { id: node, home, is_at_home, .. } = self.hosts[peer];
        if is_at_home && home != self.hosts[at].home {
            let resolved = replica::Input::Resolved { place: self.hosts[at].listed(home), node };
            self.hand_on(at, Part::Gateway, Local::Replica(resolved));
        }
    }

    /// One end gives its link up, and says so to its machines and, if anything passes, to the other end.
    pub fn break_side(&mut self, at: usize, peer: usize, generation: u64) {
        let Some(link) = self.net.side(at, peer).link.filter(|link| link.generation == generation) else { return };
        self.net.drop_side(at, peer);
        if self.hosts[at].machines.is_none() {
            return;
        }
        self.tell(at, || format!("link to n{} down", peer + 1));
        let is_node = self.hosts[peer].is_node;
        for local in route::link_down(link.peer, Incarnation(link.peer_run), is_node) {
            self.hand_on(at, Part::Gateway, local);
        }
        // Our end closes: the other hears of it if anything passes.
        if self.net.side(at, peer).cut.is_none() {
            let wait = self.dice.between(MS / 5, 3 * MS);
            self.queue.add(self.time + wait, Happening::Broken { at: peer, peer: at, generation });
        }
        self.redial(at, peer);
    }

    /// Ends the link between two hosts, if there is one.
    pub fn break_link(&mut self, at: usize, peer: usize) {
        if let Some(link) = self.net.side(at, peer).link {
            self.break_side(at, peer, link.generation);
        }
    }

    /// Gossip tells a node of a member.
    pub fn gossip(&mut self, at: usize, node: NodeId, is_alive: bool) {
        if self.hosts[at].machines.is_some() && self.hosts[at].is_node {
            let address = SocketAddr::from(([127, 0, 0, 1], 7400 + self.hosts[place(node)].home as u16));
            let member = replica::Input::Member { node, address, is_alive, is_forgetful: false };
            self.hand_on(at, Part::Gateway, Local::Replica(member));
        }
    }

    /// Tells a host that a run of a peer seems to be dead, truly or not.
    pub fn tell_evidence(&mut self, at: usize, peer: usize, run: u64) {
        if self.hosts[at].machines.is_some() && self.hosts[at].is_node && self.hosts[peer].is_node {
            self.tell(at, || format!("evidence that n{} is dead", peer + 1));
            for local in route::evidence(self.hosts[peer].id, Incarnation(run)) {
                self.hand_on(at, Part::Gateway, local);
            }
        }
    }
}

/// Where the node with this identity lives, or lived: see [`identity`].
pub fn place(node: NodeId) -> usize {
    (node.0 % LIVES) as usize - 1
}

/// The identity of the host at a place. Whoever loses its disk comes back as somebody else at the same address.
pub fn identity(at: usize, disks_lost: u64) -> NodeId {
    NodeId(disks_lost * LIVES + at as u64 + 1)
}

/// More than there are hosts, so that identities show where they live.
const LIVES: u64 = 100;

/// Says whether two nodes may speak to each other: a link refuses what comes from another cluster.
pub fn are_compatible(one: Option<ClusterId>, other: Option<ClusterId>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Says whether a message keeps its order on a link and dies with it (F8).
pub fn is_ordered(body: &Body) -> bool {
    matches!(body, Body::ToWorker(_) | Body::ToMaster(_))
}

/// The machine that says such a thing.
fn source(body: &Body) -> Part {
    match body {
        Body::Consensus(_) | Body::Founding(_) | Body::Image(_) | Body::Response(_) => Part::Replica,
        Body::ToWorker(_) => Part::Master,
        Body::ToMaster(_) => Part::Worker,
        Body::Request(_) => Part::Client,
    }
}
