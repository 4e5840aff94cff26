//! Who leads: pre-vote, vote, stickiness, stepping down.
//!
//! A follower that heard a leader promises to help nobody else for P: the leader's lease rests on that and nothing waives
//! it. From P to E it merely protects a healthy leader from disturbance, and evidence of death waives that part (F4).
//!
//! A restarted node does not know when it promised, so it keeps the promise from its start; how long is its profile's P. A
//! node that is restarted with a shorter P must therefore stay down until the old promise is over. Only lease reads rest on
//! that.
//!
//! # Invariants
//!
//! * An epoch is raised and a vote given only together with a batch; no message tells of either before that is durable.
//! * An equal epoch never clears a vote.
//! * A sticky node counts neither its own pre-vote nor begins a candidature (F3).
//! * Handling a pre-vote changes nothing.

use crate::durable::{ConfState, Payload};
use crate::effects::Role;
use crate::types::{Epoch, Index, LogId, Nanos, NodeId};

use super::lease::Asker;
use super::quorum::{self, Tally};
use super::{Consensus, Drop, Effect, Message, broken};

impl Consensus {
    /// A deadline may have passed.
    pub(super) fn on_tick(&mut self, effects: &mut Vec<Effect>) {
        match self.role {
            Role::Leader if self.now >= self.heartbeat_due => self.on_beat(effects),
            Role::Leader if self.now >= self.tell_at => self.tell_commit(effects),
            Role::Leader | Role::Halted => {}
            _ if self.now < self.deadline || !self.may_campaign() => {}
            _ => self.on_election_deadline(effects),
        }
    }

    /// A heartbeat is due. How late this comes is itself a sign of health.
    fn on_beat(&mut self, effects: &mut Vec<Effect>) {
        let late = self.now.since(self.heartbeat_due);
        if late >= self.profile.heartbeat {
            self.health.note_lag(self.now, late);
        }
        self.heartbeat_all(effects);
        self.check_health(effects);
    }

    /// Nobody was heard for a while: E8 (a node whose disk stalls, or that is about to stop, does not campaign, unless nobody else
    /// does for long, F29), then E3.
    fn on_election_deadline(&mut self, effects: &mut Vec<Effect>) {
        let heard = self.contact.map(|(at, _)| at).max(self.boot).unwrap_or(Nanos(0));
        let is_abandoned = self.now >= heard + self.profile.election_timeout * 4;
        self.deadline = self.draw_deadline();
        let is_fit = self.now < self.stalls_at() && !self.is_leaving;
        if is_fit || is_abandoned {
            self.pre_campaign(effects);
        }
    }

    /// Asks whether an election would succeed (E3).
    pub(super) fn pre_campaign(&mut self, effects: &mut Vec<Effect>) {
        self.role = Role::PreCandidate;
        if !self.is_sticky() {
            self.leader = None;
        }
        self.votes.clear();
        let message = Message::PreVote { epoch: self.hard.epoch.next(), last: self.log.last() };
        self.ask_voters(&message, None, effects);
        self.count_pre_votes(effects);
    }

    /// Asks for votes (E4), because nobody leads or because the leader wants it (T1).
    pub(super) fn campaign(&mut self, transfer: bool, effects: &mut Vec<Effect>) {
        let epoch = self.hard.epoch.next();
        self.role = Role::Candidate;
        self.leader = None;
        self.votes.clear();
        self.set_hard(epoch, Some(self.node), effects);
        self.deadline = self.draw_patience();
        let message = Message::Vote { epoch, last: self.log.last(), transfer };
        self.ask_voters(&message, self.hard_pending(), effects);
    }

    fn ask_voters(&self, message: &Message, after: Option<u64>, effects: &mut Vec<Effect>) {
        let Some(conf) = self.conf() else { return };
        let outgoing = conf.outgoing.iter().filter(|node| !conf.voters.contains(node));
        for to in conf.voters.iter().chain(outgoing).filter(|node| **node != self.node) {
            effects.push(Effect::Send { to: *to, message: message.clone(), after });
        }
    }

    /// Any message from another node; nobody outside a cluster is heard before a genesis is accepted here.
    pub(super) fn on_message(&mut self, from: NodeId, message: Message, effects: &mut Vec<Effect>) {
        let is_absurd = message.epoch() > EPOCH_MAX;
        if matches!(message, Message::PreVote { .. } | Message::Vote { .. } | Message::AppendReply(_)) {
            self.answer_outsider(from, effects);
        }
        if !self.is_founded() || from == self.node || self.role == Role::Halted || is_absurd {
            return;
        }
        match message {
            Message::PreVote { epoch, last } => self.on_pre_vote(from, epoch, last, effects),
            Message::PreVoteReply { epoch, granted } => self.on_pre_vote_reply(from, epoch, granted, effects),
            Message::Vote { epoch, last, transfer } => self.on_vote(from, epoch, last, transfer, effects),
            Message::VoteReply { epoch, granted } => self.on_vote_reply(from, epoch, granted, effects),
            Message::Append(append) => self.on_append(from, append, effects),
            Message::AppendReply(reply) => self.on_append_reply(from, &reply, effects),
            Message::Snapshot(snapshot) => self.on_snapshot(from, *snapshot, effects),
            Message::SnapshotReply(reply) => self.on_snapshot_reply(from, &reply, effects),
            Message::ReadIndex { epoch, number, may_lease } => {
                self.on_read_index(from, epoch, number, may_lease, effects);
            }
            Message::ReadIndexReply { epoch, number, index } => {
                self.on_read_index_reply(epoch, number, index, effects);
            }
            Message::TimeoutNow { epoch } => self.on_timeout_now(from, epoch, effects),
            Message::NotMember { epoch, config } => self.on_not_member(from, epoch, config, effects),
        }
    }

    fn on_pre_vote(&mut self, from: NodeId, epoch: Epoch, last: LogId, effects: &mut Vec<Effect>) {
        let granted = epoch > self.hard.epoch && last >= self.log.last() && !self.is_sticky();
        let named = if granted { epoch } else { self.hard.epoch };
        // A rejection tells our own epoch, which may have been raised a moment ago.
        let after = if granted { None } else { self.hard_pending() };
        effects.push(Effect::Send { to: from, message: Message::PreVoteReply { epoch: named, granted }, after });
    }

    fn on_pre_vote_reply(&mut self, from: NodeId, epoch: Epoch, granted: bool, effects: &mut Vec<Effect>) {
        if !granted && epoch > self.hard.epoch && !broken!(self, IgnoresHigherEpochs) {
            return self.follow(epoch, None, effects);
        }
        let is_ours = if granted { epoch == self.hard.epoch.next() } else { epoch <= self.hard.epoch };
        if self.role == Role::PreCandidate && is_ours {
            self.note_vote(from, granted);
            self.count_pre_votes(effects);
        }
    }

    /// A sticky node does not count itself and never goes further (F3).
    fn count_pre_votes(&mut self, effects: &mut Vec<Effect>) {
        let is_bound = self.is_sticky() && !broken!(self, BreaksOwnPromise);
        let own = (!is_bound).then_some(true);
        match self.tally(own) {
            Tally::Won if !is_bound => self.campaign(false, effects),
            Tally::Lost => self.role = Role::Follower,
            Tally::Won | Tally::Pending => {}
        }
    }

    fn on_vote(&mut self, from: NodeId, epoch: Epoch, last: LogId, transfer: bool, effects: &mut Vec<Effect>) {
        if epoch < self.hard.epoch || (!transfer && self.is_sticky()) {
            return; // E2, E5: not even its epoch is adopted.
        }
        if epoch > self.hard.epoch {
            self.follow(epoch, None, effects);
        }
        let is_free = self.hard.vote.is_none() || self.hard.vote == Some(from);
        let is_idle = matches!(self.role, Role::Follower | Role::PreCandidate) && self.leader.is_none();
        let granted = is_free && is_idle && last >= self.log.last();
        if granted {
            if self.hard.vote.is_none() {
                self.set_hard(epoch, Some(from), effects);
            }
            self.role = Role::Follower;
            self.deadline = self.draw_patience();
        }
        let message = Message::VoteReply { epoch: self.hard.epoch, granted };
        let after = if broken!(self, TellsUnsyncedVotes) { None } else { self.hard_pending() };
        effects.push(Effect::Send { to: from, message, after });
    }

    fn on_vote_reply(&mut self, from: NodeId, epoch: Epoch, granted: bool, effects: &mut Vec<Effect>) {
        if epoch > self.hard.epoch {
            self.follow(epoch, None, effects);
        } else if epoch == self.hard.epoch && self.role == Role::Candidate {
            if !granted {
                // Its vote is another's: nobody may win this epoch, and a whole timeout would be too long a wait to find out.
                self.deadline = self.deadline.min(self.draw_short_patience());
            }
            self.note_vote(from, granted);
            self.count_votes(effects);
        }
    }

    /// Our own vote counts when it is durable (E6, F25).
    pub(super) fn count_votes(&mut self, effects: &mut Vec<Effect>) {
        let own = self.hard_pending().is_none().then_some(true);
        match self.tally(own) {
            Tally::Won => self.win(effects),
            Tally::Lost => self.role = Role::Follower,
            Tally::Pending => {}
        }
    }

    /// Takes the lead (E6). Nothing that was acknowledged before counts for the lease (L2).
    fn win(&mut self, effects: &mut Vec<Effect>) {
        self.role = Role::Leader;
        self.leader = Some(self.node);
        self.votes.clear();
        self.waived = false;
        self.elected_at = self.now;
        self.time_base = self.log.last_time();
        self.uncommitted = 0;
        self.read_round = Nanos(0);
        self.told_leavers = Index(0);
        self.health.reset();
        (self.is_lease_off, self.owes_surrender) = (false, false);
        self.reset_peers();
        self.noop = self.write(Payload::Noop, effects).index;
        self.heartbeat_all(effects);
    }

    /// Follows `leader` in `epoch`, or waits for one: E1 if the epoch is higher, else a step-down that keeps the vote.
    pub(super) fn follow(&mut self, epoch: Epoch, leader: Option<NodeId>, effects: &mut Vec<Effect>) {
        assert!(epoch >= self.hard.epoch, "an epoch never falls");
        if epoch > self.hard.epoch && self.waived {
            // An election is under way: it gets its chance before we ask again.
            self.deadline = self.deadline.max(self.draw_patience());
        }
        if epoch > self.hard.epoch || (broken!(self, ClearsVote) && self.role != Role::Follower) {
            self.set_hard(epoch, None, effects);
        }
        if matches!(self.role, Role::Leader | Role::Candidate) {
            self.drop_reads(effects);
            self.peers.clear();
            self.transfer = None;
            self.deadline = self.draw_deadline();
        }
        self.role = Role::Follower;
        self.leader = leader;
    }

    /// E7 and E8: a leader that lost touch with its quorum, or with its own disk, stops at once.
    pub(super) fn check_leadership(&mut self, effects: &mut Vec<Effect>) {
        if self.role != Role::Leader {
            return;
        }
        let is_alone = self.now > self.quorum_contact() + self.profile.election_timeout;
        if is_alone || self.now >= self.stalls_at() {
            self.follow(self.hard.epoch, None, effects);
        }
    }

    /// Evidence of death (F4): waives what is left of stickiness once the promise is over. It is not believed further than
    /// that, so the incarnation it names does not matter here.
    pub(super) fn on_evidence(&mut self, node: NodeId) {
        if self.role == Role::Leader {
            return self.on_unreachable(node);
        }
        if self.contact.is_some_and(|(_, leader)| leader == node) && !self.waived {
            self.waived = true;
            let jitter = self.draw(nanos(self.profile.heartbeat) / 4);
            let begin = self.promise_end().max(self.now);
            self.deadline = self.deadline.min(Nanos(begin.0.saturating_add(jitter)));
        }
    }

    /// Gossip suspects a node (E9): if it is our leader, a pre-vote comes sooner. It moves no right.
    ///
    /// All hear of it at about the same moment, and candidates of one moment split the votes. So whoever could win waits for a moment
    /// of its own; whoever cannot, because it is still bound to the leader, asks at once whether there is a newer one.
    pub(super) fn on_suspected(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let is_leader = self.leader == Some(node) && node != self.node;
        if !is_leader || self.role != Role::Follower || !self.may_campaign() || self.now >= self.stalls_at() {
            return;
        }
        let timeout = self.profile.election_timeout;
        let free = self.contact.map_or(self.now, |(at, _)| self.now.max(at + timeout));
        let wait = self.draw(nanos(timeout) / 2);
        self.deadline = self.deadline.min(Nanos(free.0.saturating_add(wait)));
        if self.is_sticky() {
            self.pre_campaign(effects);
        }
    }

    /// When the next election begins here: E to 2E from now; soon again while evidence of death stands.
    pub(super) fn draw_deadline(&mut self) -> Nanos {
        let (least, spread) = match self.waived {
            true => (nanos(self.profile.heartbeat) / 4, nanos(self.profile.heartbeat) / 2),
            false => (nanos(self.profile.election_timeout), nanos(self.profile.election_timeout)),
        };
        Nanos(self.now.0.saturating_add(least).saturating_add(self.draw(spread)))
    }

    /// When an election that is under way is given up.
    fn draw_patience(&mut self) -> Nanos {
        if self.waived {
            return self.draw_short_patience();
        }
        let timeout = nanos(self.profile.election_timeout);
        Nanos(self.now.0.saturating_add(timeout).saturating_add(self.draw(timeout)))
    }

    /// The same on evidence of death, or when the votes are split: sooner, but never as soon as a pre-vote: disks must be able to
    /// answer, or elections would overtake each other for ever.
    fn draw_short_patience(&mut self) -> Nanos {
        let half = nanos(self.profile.election_timeout) / 2;
        Nanos(self.now.0.saturating_add(half).saturating_add(self.draw(half)))
    }

    /// Whether this node votes in the configuration in force or in the latest committed one (C5), and is not about to exchange its log.
    pub(super) fn may_campaign(&self) -> bool {
        let votes = |conf: &ConfState| quorum::votes(conf, self.node);
        let committed = || self.confs.iter().rev().find(|(index, _)| *index <= self.commit.index);
        let is_whole = !self.is_dismissed() && self.installing.is_none();
        is_whole && (self.conf().is_some_and(votes) || committed().is_some_and(|(_, conf)| votes(conf)))
    }

    /// Whether nobody else votes, for certain: then nobody else can lead, and no promise was made to anyone who does (E5).
    /// A configuration that is not known to be committed may have been appended by a leader who is not in it.
    pub(super) fn is_alone(&self) -> bool {
        let newest = self.confs.last().filter(|(since, _)| *since <= self.commit.index);
        newest.is_some_and(|(_, conf)| conf.outgoing.is_empty() && conf.voters == [self.node])
    }

    /// Whether this node must neither help nor begin an election (E5).
    pub(super) fn is_sticky(&self) -> bool {
        let timeout = self.profile.election_timeout;
        if self.role == Role::Leader {
            return self.now < self.lease_end() || self.now < self.quorum_contact() + timeout;
        }
        if self.now < self.promise_end() && !(self.waived && broken!(self, EvidenceWaivesPromise)) {
            return true;
        }
        let is_recent = |since: Option<Nanos>| since.is_some_and(|since| self.now < since + timeout);
        !self.waived && (is_recent(self.contact.map(|(at, _)| at)) || is_recent(self.boot))
    }

    /// When the promise to the last leader ends, also to one forgotten in a crash; nothing waives it.
    fn promise_end(&self) -> Nanos {
        let since = self.contact.map(|(at, _)| at).max(self.boot);
        since.map_or(Nanos(0), |since| since + self.profile.promise)
    }

    /// Notes what a voter answered. A grant is final; a rejection may have been for an earlier, stickier moment.
    fn note_vote(&mut self, from: NodeId, granted: bool) {
        if !self.conf().is_some_and(|conf| quorum::votes(conf, from)) {
            return;
        }
        match self.votes.iter_mut().find(|(node, _)| *node == from) {
            Some(vote) => vote.1 |= granted,
            None => self.votes.push((from, granted)),
        }
    }

    fn tally(&self, own: Option<bool>) -> Tally {
        let vote = |voter: NodeId| {
            if voter == self.node {
                return own;
            }
            self.votes.iter().find(|(node, _)| *node == voter).map(|(_, granted)| *granted)
        };
        let Some(conf) = self.conf() else { return Tally::Lost };
        #[cfg(feature = "mutants")]
        let conf = &self.bent(conf);
        quorum::tally(conf, vote)
    }

    /// Fails the reads that were waiting: certainly not done.
    pub(super) fn drop_reads(&mut self, effects: &mut Vec<Effect>) {
        for read in self.reads.drain(..) {
            // Another node sees that the leader changes, or asks again.
            if let Asker::Here(context) = read.asker {
                effects.push(Effect::Dropped { context, why: Drop::NotLeader });
            }
        }
    }
}

/// No cluster lives to see this epoch; whoever names a higher one would leave us without a next.
pub(crate) const EPOCH_MAX: Epoch = Epoch(1 << 62);

/// A span as the number of its nanoseconds.
pub(super) fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
