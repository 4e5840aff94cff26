//! Changing who votes and who listens: into a joint configuration, and out of it.
//!
//! Every change takes the same two steps, whatever its size (C3). The first enters a joint configuration, in which
//! everything needs a quorum of the old voters **and** of the new ones; the second leaves it, once it is committed. So no
//! two configurations that follow each other can decide without knowing of each other, and no case needs a rule of its own.
//!
//! A configuration is in force from the moment at which it is appended, and no longer when it is truncated (C1): waiting
//! for its commit would let two majorities live side by side.
//!
//! # Invariants
//!
//! * One change at a time: a joint configuration is left before the next one is entered.
//! * A leader begins a change only after an entry of its own epoch is committed (C2), so a change that an older leader left
//!   behind can no longer be committed beside it.
//! * A new voter already holds the log: it was a learner that is caught up and was heard.

use std::time::Duration;

use crate::durable::{ConfState, Payload};
use crate::effects::Role;
use crate::types::{Epoch, Index, Nanos, NodeId};

use super::follower::INDEX_MAX;
use super::{Consensus, Drop, Effect, Message, broken, quorum};

/// Who is to vote and who is to listen after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The voters.
    pub voters: Vec<NodeId>,
    /// Those who hold the log without a vote.
    pub learners: Vec<NodeId>,
}

/// Why a change was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Another change is under way, or the leader is too new to know whether one is: try again soon.
    #[error("another change is under way, or may be")]
    UnderWay,
    /// The node would become a voter but is not a learner that is caught up and was heard: try again when it is.
    #[error("node {0} is not a learner that is caught up")]
    Behind(NodeId),
    /// Too few of the new voters were heard: the change could not be completed.
    #[error("too few of the new voters were heard")]
    Unheard,
    /// There must be one to seven voters, and no node with two places.
    #[error("one to seven voters, and no node in two places")]
    Malformed,
}

/// The joint configuration on the way from `conf` to `target`. A voter that is to become a learner keeps its vote until
/// the joint configuration is left.
pub(super) fn enter(conf: &ConfState, target: &Target) -> Result<ConfState, Refusal> {
    if is_joint(conf) {
        return Err(Refusal::UnderWay);
    }
    let target = Target { voters: sorted(&target.voters), learners: sorted(&target.learners) };
    let is_twice = target.learners.iter().any(|node| target.voters.contains(node));
    if conf.voters.is_empty() || is_twice || !(1..=VOTERS_MAX).contains(&target.voters.len()) {
        return Err(Refusal::Malformed);
    }
    let (learners_next, learners) = target.learners.into_iter().partition(|node| conf.voters.contains(node));
    Ok(ConfState { voters: target.voters, outgoing: conf.voters.clone(), learners, learners_next })
}

/// The configuration after a joint one.
pub(super) fn leave(joint: &ConfState) -> ConfState {
    let learners: Vec<NodeId> = joint.learners.iter().chain(&joint.learners_next).copied().collect();
    ConfState { voters: joint.voters.clone(), learners: sorted(&learners), ..ConfState::default() }
}

/// Whether a configuration is on the way from one to another.
pub(super) fn is_joint(conf: &ConfState) -> bool {
    !conf.outgoing.is_empty()
}

/// One follower in the eyes of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    /// Who.
    pub node: NodeId,
    /// Whether it answered something sent within the last election timeout.
    pub is_heard: bool,
    /// Whether its disk lives, too: within that time it also took something, if it lacks anything that the leader's disk has.
    pub keeps_up: bool,
    /// Whether it is a learner that may become a voter (C2).
    pub is_caught_up: bool,
}

impl Consensus {
    /// Begins a change, if this node leads the epoch in which it was decided and all of C2 holds.
    pub(super) fn on_propose_conf(&mut self, context: u64, epoch: Epoch, target: &Target, effects: &mut Vec<Effect>) {
        match self.may_change(epoch, target) {
            Ok(joint) => {
                let id = self.write(Payload::Config(joint), effects);
                effects.push(Effect::Accepted { context, id });
                self.send_all(effects);
            }
            Err(why) => effects.push(Effect::Dropped { context, why }),
        }
    }

    /// C2.
    fn may_change(&self, epoch: Epoch, target: &Target) -> Result<ConfState, Drop> {
        if let Some(why) = self.refuses_proposals(epoch) {
            return Err(why);
        }
        let knows_its_past = self.commit.index >= self.noop || broken!(self, ChangesTooEarly);
        let (since, conf) = self.confs.last().expect("a leader has a configuration");
        if *since > self.commit.index || !knows_its_past {
            return Err(Drop::Change(Refusal::UnderWay));
        }
        let joint = enter(conf, target).map_err(Drop::Change)?;
        let late = joint.voters.iter().find(|node| !conf.voters.contains(node) && !self.is_caught_up(conf, **node));
        if let Some(late) = late {
            return Err(Drop::Change(Refusal::Behind(*late)));
        }
        let new = ConfState { voters: joint.voters.clone(), ..ConfState::default() };
        let keeps_up = |node, within| node == self.node || self.keeps_up(node, within);
        let of_quorum = |node: NodeId| u64::from(keeps_up(node, self.profile.election_timeout));
        if quorum::reached(&new, of_quorum) == 0 && !broken!(self, ChangesTooEarly) {
            return Err(Drop::Change(Refusal::Unheard));
        }
        // With two voters left, or one, a single one that is dead, or whose disk is, keeps the cluster from ever leaving what it
        // entered (D4); one that is far behind keeps it from that for long, and may die meanwhile.
        let shrinks = new.voters.len() < conf.voters.len() && new.voters.len() < VOTERS_SAFE;
        let lately = self.profile.heartbeat * 2;
        let is_sound = |node| node == self.node || (self.keeps_up(node, lately) && self.is_close(node));
        if shrinks && !new.voters.iter().all(|node| is_sound(*node)) && !broken!(self, ChangesTooEarly) {
            return Err(Drop::Change(Refusal::Unheard));
        }
        #[cfg(feature = "mutants")]
        let joint = self.unjoined(joint);
        Ok(joint)
    }

    /// Whether this node leads and could begin a change now, if that is a good one (C2).
    #[must_use]
    pub fn may_begin_change(&self) -> bool {
        let is_settled = |(since, conf): &(Index, ConfState)| *since <= self.commit.index && !is_joint(conf);
        self.is_at_work() && self.commit.index >= self.noop && self.confs.last().is_some_and(is_settled)
    }

    /// On a leader: how the others who hold the log are.
    pub fn followers(&self, now: Nanos) -> impl Iterator<Item = Follower> {
        let peers = if self.role == Role::Leader { self.peers.as_slice() } else { &[] };
        peers.iter().map(move |peer| Follower {
            node: peer.node,
            is_heard: peer.was_heard(now, self.profile.election_timeout),
            keeps_up: peer.keeps_up(now, self.profile.election_timeout, self.log.durable()),
            is_caught_up: self.conf().is_some_and(|conf| self.is_caught_up(conf, peer.node)),
        })
    }

    /// Whether a leader said that this node has no place in a configuration newer than any it knows (C6).
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.confs.last().is_some_and(|(since, _)| *since < self.excluded_at)
    }

    /// Whether a learner may become a voter.
    fn is_caught_up(&self, conf: &ConfState, node: NodeId) -> bool {
        conf.learners.contains(&node) && self.keeps_up(node, self.profile.election_timeout) && self.is_close(node)
    }

    /// Whether a follower holds all but the newest entries.
    fn is_close(&self, node: NodeId) -> bool {
        let end = self.log.last().index.0;
        self.peers.iter().any(|peer| peer.node == node && peer.matched.0 + CATCH_UP >= end)
    }

    /// On a leader: whether a follower answered something sent within this span.
    pub(super) fn was_heard(&self, node: NodeId, within: Duration) -> bool {
        self.peers.iter().any(|peer| peer.node == node && peer.was_heard(self.now, within))
    }

    /// On a leader: whether a follower answered something sent within this span, and its disk lives.
    fn keeps_up(&self, node: NodeId, within: Duration) -> bool {
        let durable = self.log.durable();
        self.peers.iter().any(|peer| peer.node == node && peer.keeps_up(self.now, within, durable))
    }

    /// Leaves a joint configuration when it is committed (C3), also one that an older leader entered; and goes when the
    /// configuration without this leader is committed (C4). Called whenever the commit index of a leader has moved.
    pub(super) fn follow_up_change(&mut self, effects: &mut Vec<Effect>) {
        let Some((since, conf)) = self.confs.last().filter(|(since, _)| *since <= self.commit.index) else { return };
        if is_joint(conf) {
            let next = leave(conf);
            self.write(Payload::Config(next), effects);
            return self.send_all(effects);
        }
        if *since > self.told_leavers {
            self.told_leavers = *since;
            self.tell_leavers(effects);
            if !self.may_campaign() {
                self.heartbeat_all(effects);
                self.follow(self.hard.epoch, None, effects);
            }
        }
    }

    /// Those who are out of the configuration that was just committed are told so; nobody sends them entries any more.
    fn tell_leavers(&self, effects: &mut Vec<Effect>) {
        let [.., (_, old), (_, new)] = &self.confs[..] else { return };
        let left = quorum::members(old).into_iter().filter(|node| *node != self.node && !quorum::holds(new, *node));
        for node in left {
            self.say_not_member(node, effects);
        }
    }

    /// A leader answers whoever has no place in a committed configuration, so that a removed node stops asking (C6).
    pub(super) fn answer_outsider(&self, from: NodeId, effects: &mut Vec<Effect>) {
        let Some((since, conf)) = self.confs.last() else { return };
        if self.role == Role::Leader && *since <= self.commit.index && !quorum::holds(conf, from) {
            self.say_not_member(from, effects);
        }
    }

    /// What a leader says to whoever has no place in a committed configuration and does not ask: a learner that was dropped
    /// while it was cut off has no reason to. `None` for everybody else.
    #[must_use]
    pub fn dismissal(&self, node: NodeId) -> Option<Message> {
        let (since, conf) = self.confs.last()?;
        let is_out = self.is_at_work() && *since <= self.commit.index && !quorum::holds(conf, node);
        is_out.then_some(Message::NotMember { epoch: self.hard.epoch, config: *since })
    }

    fn say_not_member(&self, to: NodeId, effects: &mut Vec<Effect>) {
        let config = self.confs.last().expect("a leader has a configuration").0;
        let message = Message::NotMember { epoch: self.hard.epoch, config };
        effects.push(Effect::Send { to, message, after: self.hard_pending() });
    }

    /// A leader says that we have no place in the configuration that begins at `config`. What we hold ourselves may be
    /// newer: then it is the leader who is behind (F21). It may also be untrue: it counts only until a leader sends us
    /// entries, and not at all while another one than `from` leads us, in its epoch or a later one.
    pub(super) fn on_not_member(&mut self, from: NodeId, epoch: Epoch, config: Index, effects: &mut Vec<Effect>) {
        let is_led_by_another = epoch <= self.hard.epoch && self.leader.is_some_and(|leader| leader != from);
        if is_led_by_another || config.0 > INDEX_MAX {
            return;
        }
        if epoch > self.hard.epoch {
            self.follow(epoch, None, effects);
        }
        let newest = self.confs.last().map_or(Index(0), |(since, _)| *since);
        if config > newest && self.role != Role::Leader {
            self.excluded_at = self.excluded_at.max(config);
            self.role = Role::Follower;
        }
    }

    /// The log of a leader's followers is sent to those who have a place in the configuration that was just appended.
    pub(super) fn adjust_peers(&mut self) {
        let (next, now) = (self.log.last().index.next(), self.now);
        let members = self.conf().map(quorum::members).unwrap_or_default();
        self.peers.retain(|peer| members.binary_search(&peer.node).is_ok());
        for node in members.into_iter().filter(|node| *node != self.node) {
            if !self.peers.iter().any(|peer| peer.node == node) {
                self.peers.push(super::progress::Progress::new(node, next, now));
            }
        }
        self.peers.sort_unstable_by_key(|peer| peer.node);
    }
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// More voters make every commit slower and protect nobody (C2).
const VOTERS_MAX: usize = 7;
/// With this many voters, one of them may die.
const VOTERS_SAFE: usize = 3;
/// A learner this close to the end of the log is caught up: what it lacks is on its way (C2).
const CATCH_UP: u64 = 64;

#[cfg(test)]
mod oracle_tests;
