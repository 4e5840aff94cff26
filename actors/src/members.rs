//! The actor that knows where the others are: it turns the join list and what membership hears into links, and tells the
//! machines what gossip suspects. All of it is hints; no right ever moves by it.
//!
//! # Invariants
//!
//! * A node that holds no log keeps links to those who do, and to nobody else, as soon as it knows one of them: so a thousand
//!   workers stay possible.
//! * An address belongs to the node that was heard there last.
//! * What is wrong with a name is said when it is new, and else ever more seldom: looking it up goes on once a second, for as long as it takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use protocol::effects::{Local, Part};
use protocol::{Incarnation, NodeId, replica};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::links::{Role, Target};
use crate::outlet::Outlet;

/// What membership knows, in words that do not name a gossip protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A member is here and listens for links there.
    Here {
        /// The member.
        node: NodeId,
        /// Where it listens.
        link: SocketAddr,
        /// What it says that it is to the log.
        part: Part,
        /// Whether it says that it remembers nothing over a restart.
        is_forgetful: bool,
    },
    /// A member was there at an earlier time; whether it still is, nobody said.
    Was {
        /// The member.
        node: NodeId,
        /// Where it listened.
        link: SocketAddr,
    },
    /// A member does not answer probes.
    Suspected(NodeId),
    /// A member was declared dead: its link is closed if it has been silent, too.
    Down {
        /// The member.
        node: NodeId,
        /// The run of it.
        incarnation: Incarnation,
    },
    /// A member left on purpose.
    Left(NodeId),
    /// A cluster with our name exists already.
    ClusterExists,
}

/// What the actor is told.
pub(crate) enum Message {
    /// Membership knows something new.
    Fact(Fact),
    /// A link found out who is behind an address.
    Identified {
        /// The address.
        addr: SocketAddr,
        /// Who is there; may be this node.
        node: NodeId,
    },
    /// What this node is to the log, once it is in a cluster.
    Part(Part),
    /// Look up again the names of the join list that have no address yet.
    Resolve,
    /// Look again at the link of a member that was declared dead: it may have been silent for too short a time then.
    LookAgain(NodeId),
}

impl ractor::Message for Message {}

/// See the module.
pub(crate) struct Members;

pub(crate) struct State {
    outlet: Outlet,
    node: NodeId,
    join: Vec<String>,
    /// The address of each place of the join list, once it is known.
    places: BTreeMap<usize, SocketAddr>,
    /// What was said of the places that have none.
    complaints: BTreeMap<usize, Complaint>,
    members: BTreeMap<NodeId, Acquaintance>,
    /// What this node is to the log; nothing before it is in a cluster.
    part: Option<Part>,
    /// Who answered at which address.
    identified: BTreeMap<SocketAddr, NodeId>,
}

/// A member that is here, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acquaintance {
    link: SocketAddr,
    part: Part,
    is_forgetful: bool,
}

/// What the actor begins with.
pub(crate) struct Arguments {
    pub(crate) outlet: Outlet,
    pub(crate) node: NodeId,
    pub(crate) join: Vec<String>,
}

impl Actor for Members {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { outlet, node, join } = arguments;
        myself.cast(Message::Resolve)?;
        let (places, complaints, members, identified) = Default::default();
        Ok(State { outlet, node, join, places, complaints, members, part: None, identified })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Fact(fact) => {
                state.on_fact(fact);
                if let Fact::Down { node, .. } = fact {
                    myself.send_after(SILENCE, move || Message::LookAgain(node));
                }
            }
            Message::LookAgain(node) => state.look_again(node),
            Message::Identified { addr, node } => state.on_identified(addr, node),
            Message::Part(part) => {
                state.part = Some(part);
                state.dial();
            }
            Message::Resolve => {
                if !state.resolve().await {
                    myself.send_after(RESOLVE_AGAIN, || Message::Resolve);
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn on_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Here { node, link, part, is_forgetful } => {
                self.on_here(node, Acquaintance { link, part, is_forgetful })
            }
            Fact::Was { node, link } => {
                if !self.members.contains_key(&node) {
                    self.tell_member(node, Acquaintance { link, part: Part::Outside, is_forgetful: false }, false);
                }
            }
            Fact::Suspected(node) => self.outlet.deliver(Local::Replica(replica::Input::Suspected { node })),
            Fact::Down { node, .. } => {
                self.on_gone(node);
                self.outlet.links().close_if_silent(node, SILENCE);
            }
            Fact::Left(node) => self.on_gone(node),
            Fact::ClusterExists => self.outlet.deliver(Local::Replica(replica::Input::ClusterExists)),
        }
    }

    fn on_here(&mut self, node: NodeId, member: Acquaintance) {
        if node == self.node || self.members.insert(node, member) == Some(member) {
            return;
        }
        // Two processes cannot listen at one address: whoever was there before is gone.
        let before = self
            .members
            .iter()
            .find(|(other, known)| **other != node && known.link == member.link)
            .map(|(&other, _)| other);
        if let Some(before) = before {
            self.on_gone(before);
        }
        self.tell_member(node, member, true);
        self.dial();
    }

    fn on_gone(&mut self, node: NodeId) {
        if let Some(member) = self.members.remove(&node) {
            self.tell_member(node, member, false);
        }
        self.dial();
    }

    fn tell_member(&self, node: NodeId, member: Acquaintance, is_alive: bool) {
        let Acquaintance { link: address, is_forgetful, .. } = member;
        self.outlet.deliver(Local::Replica(replica::Input::Member { node, address, is_alive, is_forgetful }));
    }

    /// A link through which nothing can come is better dialled anew than waited for: the kernel repeats what was lost on it
    /// ever more seldom.
    fn look_again(&self, node: NodeId) {
        if !self.members.contains_key(&node) {
            self.outlet.links().close_if_silent(node, SILENCE);
        }
    }

    fn on_identified(&mut self, addr: SocketAddr, node: NodeId) {
        self.identified.insert(addr, node);
        for (&place, _) in self.places.iter().filter(|(_, at)| **at == addr) {
            self.outlet.deliver(Local::Replica(replica::Input::Resolved { place, node }));
        }
    }

    /// Looks up what has no address yet; says whether all of it has one now.
    async fn resolve(&mut self) -> bool {
        for (place, name) in self.join.iter().enumerate() {
            if self.places.contains_key(&place) {
                continue;
            }
            let why = match tokio::net::lookup_host(name).await.map(|mut found| found.next()) {
                Ok(Some(addr)) => {
                    self.places.insert(place, addr);
                    if self.complaints.remove(&place).is_some() {
                        tracing::info!(name, %addr, "a name of the join list has an address now");
                    }
                    if let Some(&node) = self.identified.get(&addr) {
                        self.outlet.deliver(Local::Replica(replica::Input::Resolved { place, node }));
                    }
                    continue;
                }
                Ok(None) => "it has no address".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(pause) = self.complaints.entry(place).or_default().says(&why, Instant::now()) {
                tracing::warn!(
                    name,
                    why,
                    again_s = pause.as_secs(),
                    "a name of the join list cannot be looked up: trying once a second"
                );
            }
        }
        self.dial();
        self.places.len() == self.join.len()
    }

    fn dial(&self) {
        let known = |(&node, member): (&NodeId, &Acquaintance)| Target { addr: member.link, node: Some(node) };
        if self.part == Some(Part::Outside) {
            let holders: Vec<Target> =
                self.members.iter().filter(|(_, member)| member.part != Part::Outside).map(known).collect();
            if !holders.is_empty() {
                self.outlet.links().set_targets(holders);
                return self.close_needless();
            }
        }
        let listed = self.places.values().map(|&addr| Target { addr, node: None });
        // An address that is in both lists is dialled for whoever is there: the join list may name a successor's.
        let known =
            self.members.iter().map(known).filter(|target| !self.places.values().any(|addr| *addr == target.addr));
        self.outlet.links().set_targets(listed.chain(known).collect());
    }

    /// Closes links to nodes that hold no log either: they come from the time when that was not known.
    fn close_needless(&self) {
        let links = self.outlet.links();
        let is_plain = |node: &NodeId| self.members.get(node).is_some_and(|member| member.part == Part::Outside);
        links
            .peers()
            .iter()
            .filter(|peer| peer.role == Role::Node && is_plain(&peer.node))
            .for_each(|peer| links.close(peer.node));
    }
}

/// What was said of something that goes on being wrong.
#[derive(Default)]
struct Complaint {
    why: String,
    /// When it is said again although nothing has changed, and how long that pause is.
    again: Option<(Instant, Duration)>,
}

impl Complaint {
    /// Whether to say so now; if so, it is not said again for the pause that is returned, unless the reason changes.
    fn says(&mut self, why: &str, now: Instant) -> Option<Duration> {
        let pause = match self.again {
            Some((at, _)) if self.why == why && now < at => return None,
            Some((_, pause)) if self.why == why => (pause * 2).min(SAY_AGAIN_MAX),
            _ => SAY_AGAIN,
        };
        self.again = Some((now + pause, pause));
        why.clone_into(&mut self.why);
        Some(pause)
    }
}

/// A link that has carried nothing for so long is closed when gossip declares its peer dead: a healthy leader's heartbeats
/// come forty times as often (F15).
const SILENCE: Duration = Duration::from_secs(2);

/// How long to wait before looking up a name again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// How long nothing is said again of a name that cannot be looked up, at first; every pause is twice as long as the one before.
const SAY_AGAIN: Duration = Duration::from_secs(10);
const SAY_AGAIN_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_wrong_is_said_ever_more_seldom_and_a_new_reason_at_once() {
        let (mut complaint, begin) = (Complaint::default(), Instant::now());
        let mut said = |seconds: u64, why: &str| {
            complaint.says(why, begin + Duration::from_secs(seconds)).map(|pause| pause.as_secs())
        };
        let times: Vec<u64> = (0..100).filter(|second| said(*second, "no such name").is_some()).collect();
        assert_eq!(times, [0, 10, 30, 70]);
        assert_eq!(said(100, "the server does not answer"), Some(10));
        assert_eq!(said(101, "the server does not answer"), None);
        assert_eq!(said(102, "no such name"), Some(10));
        let pauses: Vec<u64> = (103..2_000).filter_map(|second| said(second, "no such name")).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 600, 600, 600]);
    }
}
