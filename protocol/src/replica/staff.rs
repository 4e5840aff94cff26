//! Who is here, and what the leader makes of it: the facts under the policy.
//!
//! Gossip names members and places, links show who can be spoken to, acknowledgements show which voters live. Every node
//! keeps the first two, so that a new leader knows them at once; how long somebody has been silent begins anew with it.
//!
//! # Invariants
//!
//! * Gossip and links call and place nodes; whether a voter lives, only its acknowledgements say, and of its disk only those of
//!   entries: heartbeats are answered without it.
//! * Nothing here is replicated or durable: forgetting it costs time only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Config;
use super::policy::{self, Next};
use super::serving::Serving;
use crate::consensus::{Consensus, Follower};
use crate::profile::Profile;
use crate::state::{Roster, Seat};
use crate::types::{Nanos, NodeId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Staff {
    node: NodeId,
    profile: Profile,
    /// How long a voter may be silent before it is given up.
    replace_after: Duration,
    /// Whether this node remembers nothing over a restart.
    is_forgetful: bool,
    members: BTreeMap<NodeId, Acquaintance>,
    links: BTreeSet<NodeId>,
    /// Since when each voter and learner has been silent, or its disk, as far as this leader knows.
    silent: BTreeMap<NodeId, Nanos>,
    /// When to look again.
    look_at: Nanos,
    /// This leadership was offered to an heir.
    has_offered: bool,
    /// What the next step waits for.
    waits_for: Option<String>,
}

/// A member in the words of gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Acquaintance {
    pub(super) address: SocketAddr,
    pub(super) is_alive: bool,
    /// Whether it remembers nothing over a restart.
    pub(super) is_forgetful: bool,
}

/// Everybody who votes, listens or may, in the eyes of the leader.
#[derive(Default)]
struct Picture {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// Who answers.
    answering: BTreeSet<NodeId>,
    /// Who answers and takes what it is sent.
    heard: BTreeSet<NodeId>,
    caught_up: BTreeSet<NodeId>,
    candidates: BTreeSet<NodeId>,
    /// Who does not vote unasked.
    unfit: BTreeSet<NodeId>,
}

impl Staff {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            node: config.node,
            profile: config.profile,
            replace_after: config.replace_after,
            is_forgetful: config.is_forgetful,
            members: BTreeMap::new(),
            links: BTreeSet::new(),
            silent: BTreeMap::new(),
            look_at: Nanos(0),
            has_offered: false,
            waits_for: None,
        }
    }

    /// Gossip knows of a member. Where it is stays known when it dies: its successor may appear there.
    pub(super) fn note_member(&mut self, node: NodeId, member: Acquaintance) {
        if !self.members.contains_key(&node) && self.members.len() >= MEMBERS_MAX {
            let dead = self.members.iter().find(|(_, known)| !known.is_alive).map(|(&node, _)| node);
            let Some(dead) = dead else { return };
            self.members.remove(&dead);
        }
        self.members.insert(node, member);
    }

    pub(super) fn link_up(&mut self, node: NodeId) {
        self.links.insert(node);
    }

    /// Nodes that can be spoken to.
    pub(super) fn links(&self) -> &BTreeSet<NodeId> {
        &self.links
    }

    pub(super) fn link_down(&mut self, node: NodeId) {
        self.links.remove(&node);
    }

    /// Something has changed: look at the next tick.
    pub(super) fn stir(&mut self) {
        self.look_at = Nanos(0);
    }

    /// A leadership begins: what an earlier one knew of silences is too old.
    pub(super) fn begin(&mut self) {
        self.silent.clear();
        self.has_offered = false;
        self.stir();
    }

    /// The next step towards the roster, if this node leads and it is time to look.
    pub(super) fn look(&mut self, now: Nanos, consensus: &Consensus, serving: &Serving, roster: &Roster) -> Next {
        if now < self.look_at || !consensus.may_begin_change() {
            return Next::Nothing;
        }
        self.look_at = now + self.profile.election_timeout / 2;
        let picture = self.picture(now, consensus, serving);
        let lost = self.lost(now, &picture);
        let next = policy::next(&policy::View {
            leader: self.node,
            roster,
            voters: &picture.voters,
            learners: &picture.learners,
            heard: &picture.heard,
            caught_up: &picture.caught_up,
            lost: &lost,
            candidates: &picture.candidates,
            unfit: &picture.unfit,
        });
        self.waits_for = match &next {
            Next::Wait(what) => Some(what.clone()),
            _ => None,
        };
        next
    }

    /// Whom this node should hand mastership to before it loses its vote to `voters`; asked once in a leadership.
    pub(super) fn heir(&mut self, now: Nanos, consensus: &Consensus, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
        if std::mem::replace(&mut self.has_offered, true) {
            return None;
        }
        let is_heir = |follower: &Follower| follower.keeps_up && voters.contains(&follower.node);
        consensus.followers(now).find(is_heir).map(|follower| follower.node)
    }

    /// What an operator may see of it, on the leader.
    pub(super) fn seats(&self, now: Nanos, consensus: &Consensus, serving: &Serving) -> (Vec<Seat>, Option<String>) {
        let picture = self.picture(now, consensus, serving);
        let all = picture.voters.union(&picture.learners).chain(&picture.candidates);
        let seat = |&node: &NodeId| Seat {
            node,
            is_here: picture.heard.contains(&node) || picture.candidates.contains(&node),
            is_caught_up: picture.caught_up.contains(&node),
        };
        (all.map(seat).collect(), self.waits_for.clone())
    }

    fn picture(&self, now: Nanos, consensus: &Consensus, serving: &Serving) -> Picture {
        let Some(conf) = consensus.conf() else { return Picture::default() };
        let mut picture = Picture {
            voters: conf.voters.iter().copied().collect(),
            learners: conf.learners.iter().copied().collect(),
            heard: BTreeSet::from([self.node]),
            ..Picture::default()
        };
        for follower in consensus.followers(now) {
            if follower.is_heard {
                picture.answering.insert(follower.node);
            }
            // Whoever fetches an image takes no entries meanwhile.
            if follower.keeps_up || (follower.is_heard && serving.serves(now, follower.node)) {
                picture.heard.insert(follower.node);
            }
            if follower.is_caught_up {
                picture.caught_up.insert(follower.node);
            }
        }
        let is_new = |node: &NodeId| !picture.voters.contains(node) && !picture.learners.contains(node);
        let is_alive = |node: &NodeId| self.members.get(node).is_some_and(|known| known.is_alive);
        picture.candidates = self.links.iter().filter(|node| is_new(node) && is_alive(node)).copied().collect();
        picture.unfit = self.unfit(&picture.voters);
        picture
    }

    /// Nodes that remember nothing over a restart, unless one of them votes already: where all voters remember, a cluster that
    /// is restarted must not depend on them.
    fn unfit(&self, voters: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let forgetful = self.members.iter().filter(|(_, known)| known.is_forgetful).map(|(&node, _)| node);
        let forgetful: BTreeSet<NodeId> = forgetful.collect();
        if self.is_forgetful || !forgetful.is_disjoint(voters) { BTreeSet::new() } else { forgetful }
    }

    /// Who is given up: silent for too long, or its disk, or silent while another node answers at the same address (F27).
    fn lost(&mut self, now: Nanos, picture: &Picture) -> BTreeSet<NodeId> {
        let members: BTreeSet<NodeId> = picture.voters.union(&picture.learners).copied().collect();
        self.silent.retain(|node, _| members.contains(node) && !picture.heard.contains(node));
        let mut lost = BTreeSet::new();
        for &node in members.difference(&picture.heard) {
            let since = *self.silent.entry(node).or_insert(now);
            // A learner that is dropped too early is called again; a voter is worth more patience, and so is a disk that is slow.
            let is_worth_more = picture.voters.contains(&node) || picture.answering.contains(&node);
            let patience =
                if is_worth_more { self.replace_after } else { self.replace_after.min(self.profile.session * 2) };
            if now >= since + patience || self.is_displaced(node) {
                lost.insert(node);
            }
        }
        lost
    }

    /// Whether another node is here at the address of this one.
    fn is_displaced(&self, node: NodeId) -> bool {
        let Some(known) = self.members.get(&node).filter(|_| !self.links.contains(&node)) else { return false };
        let is_there = |(other, at): (&NodeId, &Acquaintance)| {
            *other != node && at.address == known.address && at.is_alive && self.links.contains(other)
        };
        self.members.iter().any(is_there)
    }
}

/// How many members are remembered. Those that are forgotten are named again by gossip.
const MEMBERS_MAX: usize = 8192;
