//! What must be true after every step, whatever happens: one function for each sentence.
//!
//! The checks are incremental: each looks at what the step touched and nothing else.
//!
//! # Invariants
//!
//! * A check never changes what is checked.

use std::collections::{BTreeMap, BTreeSet};

use protocol::consensus::{Consensus, Message};
use protocol::durable::{ConfState, Entry, GENESIS, Genesis, HardState, Payload, Persist};
use protocol::effects::Role;
use protocol::message::Body;
use protocol::replica::Replica;
use protocol::state::Delivery;
use protocol::worker::Run;
use protocol::{ClusterId, Epoch, Fence, Index, LogId, Nanos, NodeId, Profile};

use crate::oracle::Oracle;

/// A sentence that is not true.
pub type Verdict = Result<(), String>;

/// All that was seen so far.
pub struct Checker {
    /// The committed log and its meaning.
    pub oracle: Oracle,
    /// The cluster under whose genesis the first entry was committed.
    cluster: Option<ClusterId>,
    /// Which initial voters have ever accepted a genesis, by the cluster that it begins.
    accepted: BTreeMap<ClusterId, BTreeSet<NodeId>>,
    /// The committed entries, beginning with the first after the genesis.
    pub committed: Vec<(LogId, u64)>,
    /// For each of them, the epoch of whoever committed it first.
    committers: Vec<Epoch>,
    /// Who was elected in which epoch.
    leaders: BTreeMap<Epoch, NodeId>,
    /// Who voted for whom.
    votes: BTreeMap<(NodeId, Epoch), NodeId>,
    /// Entries that were ever written anywhere, by index: epoch, content, epoch of the entry before.
    written: Vec<Vec<(Epoch, u64, Epoch)>>,
    /// Attempts that were started, anywhere.
    started: BTreeMap<Fence, NodeId>,
    /// What is remembered of each host.
    nodes: Vec<Seen>,
    /// Whether clocks keep their bound.
    is_clock_bound_kept: bool,
    profile: Profile,
}

/// What was seen of one node.
#[derive(Clone, Default)]
struct Seen {
    commit: u64,
    applied: u64,
    lease: Option<(Epoch, u64)>,
    leads: Option<Epoch>,
    elected_at: Nanos,
    contacts: Vec<(NodeId, Nanos)>,
}

impl Checker {
    /// Nothing was seen yet.
    pub fn new(hosts: usize, is_clock_bound_kept: bool, profile: Profile) -> Self {
        Self {
            oracle: Oracle::default(),
            cluster: None,
            accepted: BTreeMap::new(),
            committed: Vec::new(),
            committers: Vec::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            written: Vec::new(),
            started: BTreeMap::new(),
            nodes: vec![Seen::default(); hosts],
            is_clock_bound_kept,
            profile,
        }
    }

    /// In how many epochs somebody led.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// The cluster in which something was committed.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// A node crashed: what it knew is gone.
    pub fn forget(&mut self, at: usize) {
        self.nodes[at] = Seen::default();
    }

    /// I2: on the disk, epoch and vote only grow, and a vote is never changed.
    pub fn hard_state_only_grows(&self, old: HardState, new: HardState) -> Verdict {
        let grows = new.epoch > old.epoch || (new.epoch == old.epoch && (old.vote.is_none() || old.vote == new.vote));
        if grows { Ok(()) } else { Err(format!("I2 the disk went from {old:?} to {new:?}")) }
    }

    /// I2: a node votes for one candidate in an epoch, over all of its runs.
    pub fn a_node_votes_once(&mut self, from: NodeId, to: NodeId, body: &Body) -> Verdict {
        let (epoch, candidate) = match body {
            Body::Consensus(Message::VoteReply { epoch, granted: true }) => (*epoch, to),
            Body::Consensus(Message::Vote { epoch, .. }) => (*epoch, from),
            _ => return Ok(()),
        };
        let earlier = *self.votes.entry((from, epoch)).or_insert(candidate);
        if earlier == candidate {
            return Ok(());
        }
        Err(format!("I2 {from} voted in epoch {epoch} for {earlier} and for {candidate}"))
    }

    /// Log matching: two entries of one index and epoch are equal, and so are all before them.
    pub fn logs_match(&mut self, core: &Consensus, batch: &Persist) -> Verdict {
        for entry in &batch.append {
            let LogId { epoch, index } = entry.id;
            let before = match core.entries(Index(index.0 - 1)..=Index(index.0 - 1)) {
                [before] => before.id.epoch,
                _ => core.base().epoch,
            };
            let content = fingerprint(entry);
            let place = index.0 as usize;
            if self.written.len() <= place {
                self.written.resize(place + 1, Vec::new());
            }
            match self.written[place].iter().find(|(known, ..)| *known == epoch) {
                None => self.written[place].push((epoch, content, before)),
                Some(&known) if known == (epoch, content, before) => {}
                Some(_) => return Err(format!("I1 two different entries at {}", entry.id)),
            }
        }
        Ok(())
    }

    /// I1: at most one leader per epoch; and it holds every entry that was committed in an earlier one (leader completeness).
    /// One that wins an old epoch late, when a newer leader is at work already, need not have what that one committed.
    pub fn one_complete_leader_per_epoch(&mut self, at: usize, node: NodeId, now: Nanos, core: &Consensus) -> Verdict {
        let seen = &mut self.nodes[at];
        if core.role() != Role::Leader {
            seen.leads = None;
            return Ok(());
        }
        let epoch = core.epoch();
        if seen.leads == Some(epoch) {
            return Ok(());
        }
        (seen.leads, seen.elected_at) = (Some(epoch), now);
        seen.contacts.clear();
        let other = *self.leaders.entry(epoch).or_insert(node);
        if other != node {
            return Err(format!("I1 {other} and {node} both lead in epoch {epoch}"));
        }
        let earlier = self.committers.partition_point(|committer| *committer < epoch);
        if let Some(&(last, _)) = self.committed[..earlier].last()
            && core.entries(last.index..=last.index).first().map(|entry| entry.id) != Some(last)
            && core.base().index < last.index
        {
            return Err(format!("I1 {node} leads in epoch {epoch} without the committed entry {last}"));
        }
        Ok(())
    }

    /// A peer answered: for [`Self::a_leader_alone_steps_down`].
    pub fn note_contact(&mut self, at: usize, now: Nanos, from: NodeId, message: &Message) {
        let seen = &mut self.nodes[at];
        let is_answer = matches!(message, Message::AppendReply(_) | Message::SnapshotReply(_));
        if is_answer && seen.leads == Some(message.epoch()) {
            seen.contacts.retain(|(node, _)| *node != from);
            seen.contacts.push((from, now));
        }
    }

    /// I7: a leader that heard from no quorum for an election timeout leads no more after its next step.
    pub fn a_leader_alone_steps_down(&self, at: usize, own: NodeId, now: Nanos, core: &Consensus) -> Verdict {
        let seen = &self.nodes[at];
        let Some(conf) = core.conf().filter(|_| core.role() == Role::Leader) else { return Ok(()) };
        let least = now - self.profile.election_timeout - SLACK;
        let heard = |node: NodeId| seen.contacts.iter().any(|(peer, contact)| *peer == node && *contact >= least);
        if seen.elected_at >= least || has_quorum(conf, |node| node == own || heard(node)) {
            return Ok(());
        }
        Err(format!("I7 a leader in epoch {} has not heard from a quorum of {conf:?}", core.epoch()))
    }

    /// I7: at any instant at most one lease is valid, as long as clocks keep their bound. `until` is global time.
    pub fn one_valid_lease(&mut self, at: usize, time: u64, lease: Option<(Epoch, u64)>) -> Verdict {
        self.nodes[at].lease = lease;
        let Some((epoch, _)) = lease.filter(|_| self.is_clock_bound_kept) else { return Ok(()) };
        for (other, seen) in self.nodes.iter().enumerate() {
            if let Some((rival, until)) = seen.lease
                && other != at
                && until > time
            {
                let left = (until - time) / 1000;
                return Err(format!("I7 a lease in epoch {epoch} while that of epoch {rival} lasts for {left} us"));
            }
        }
        Ok(())
    }

    /// F1: of all geneses that are on disks, one at most ever reaches a majority of its voters.
    pub fn one_genesis_has_a_majority(&mut self, node: NodeId, genesis: &Genesis) -> Verdict {
        if !genesis.voters.contains(&node) || !self.accepted.entry(genesis.cluster).or_default().insert(node) {
            return Ok(());
        }
        let has_majority = |nodes: &BTreeSet<NodeId>| nodes.len() * 2 > genesis.voters.len();
        let chosen: Vec<_> = self.accepted.iter().filter(|(_, nodes)| has_majority(nodes)).collect();
        if chosen.len() <= 1 { Ok(()) } else { Err(format!("I1 two geneses have a majority: {chosen:?}")) }
    }

    /// F1: entries are committed under one genesis only, whatever was lost while the cluster began.
    pub fn one_cluster(&mut self, replica: &Replica) -> Verdict {
        let Some(genesis) = replica.founding().genesis().filter(|_| replica.consensus().commit() > GENESIS.index)
        else {
            return Ok(());
        };
        match self.cluster {
            Some(cluster) if cluster == genesis.cluster => Ok(()),
            Some(cluster) => Err(format!("I1 {} commits beside {cluster}", genesis.cluster)),
            None => {
                self.cluster = Some(genesis.cluster);
                self.oracle.found(genesis);
                Ok(())
            }
        }
    }

    /// I7: what a node takes for committed is on the disks of a quorum; nobody commits anything else at that place.
    /// `holds` says whether the disk of a node holds an entry.
    pub fn commits_are_durable_and_agree(
        &mut self,
        at: usize,
        core: &Consensus,
        holds: impl Fn(NodeId, LogId) -> bool,
    ) -> Verdict {
        let commit = core.commit().0;
        let seen = self.nodes[at].commit;
        if commit <= seen {
            return Ok(());
        }
        self.nodes[at].commit = commit;
        let known = self.committed.len() as u64 + 1;
        for entry in core.entries(Index(seen.max(1) + 1)..=Index(commit.min(known))) {
            let (id, content) = self.committed[entry.id.index.0 as usize - 2];
            if id != entry.id || content != fingerprint(entry) {
                return Err(format!("I1 committed {} where {id} was committed", entry.id));
            }
        }
        for entry in core.entries(Index(known + 1)..=Index(commit)) {
            if entry.id.index.0 != self.committed.len() as u64 + 2 {
                return Err(format!("I1 committed {} and holds nothing before it", entry.id));
            }
            self.committed.push((entry.id, fingerprint(entry)));
            let newest = self.committers.last().copied().unwrap_or_default();
            self.committers.push(core.epoch().max(newest));
            self.oracle.apply(entry)?;
        }
        if commit <= known {
            return Ok(());
        }
        let last = self.committed.last().ok_or("I1 something was committed, and nobody holds it")?.0;
        let conf = core.conf().ok_or("I1 something was committed where nobody votes")?;
        if has_quorum(conf, |node| holds(node, last)) {
            return Ok(());
        }
        Err(format!("I7 {last} is committed, but not on the disks of a quorum of {conf:?}"))
    }

    /// I9, I12: replicas that have applied the same entries have the same state, and replaying the log gives it too.
    pub fn equal_state_at_equal_index(&mut self, at: usize, replica: &Replica) -> Verdict {
        let applied = replica.consensus().applied().0;
        let seen = &mut self.nodes[at].applied;
        if applied == *seen {
            return Ok(());
        }
        if applied < *seen {
            return Err(format!("I9 applied index went from {seen} to {applied}"));
        }
        *seen = applied;
        let Some(place) = applied.checked_sub(2) else { return Ok(()) };
        let Some(&expected) = self.oracle.digests.get(place as usize) else {
            return Err(format!("I9 applied {applied}, which is not committed"));
        };
        let found = replica.state().digest();
        if found == expected {
            return Ok(());
        }
        Err(format!("I9 the state at {applied} has digest {found:x}, the log means {expected:x}"))
    }

    /// I5: an attempt is started once, after its grant is committed, under the fence of that grant; and what may run once
    /// is started once in the whole cluster.
    pub fn an_attempt_starts_once(&mut self, node: NodeId, run: &Run) -> Verdict {
        let (attempt, fence) = (run.grant.attempt, run.grant.fence);
        if let Some(other) = self.started.insert(fence, node) {
            return Err(format!("I5 {attempt} under {fence} was started by {other} and by {node}"));
        }
        let task =
            self.oracle.task(attempt.task).ok_or_else(|| format!("I5 {attempt} was started and never recorded"))?;
        if task.fences.get(attempt.number as usize - 1) != Some(&fence) {
            return Err(format!("I5 {attempt} was started under {fence}, which was not granted for it"));
        }
        task.starts += 1;
        if task.delivery == Delivery::AtMostOnce && task.starts > 1 {
            return Err(format!("I5 {attempt} may run only once and was started {} times", task.starts));
        }
        Ok(())
    }
}

/// The hash of an entry's content.
pub fn fingerprint(entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        Payload::Commands(bytes) => {
            let (words, rest) = bytes.as_chunks::<8>();
            let begin = mix(bytes.len() as u64, 3);
            let all = words.iter().fold(begin, |sum, word| mix(sum, u64::from_le_bytes(*word)));
            rest.iter().fold(all, |sum, byte| mix(sum, u64::from(*byte)))
        }
        Payload::Noop => 1,
        Payload::Config(ConfState { voters, outgoing, learners, learners_next }) => {
            let lists = [voters, outgoing, learners, learners_next];
            let add =
                |sum, list: &Vec<NodeId>| list.iter().fold(mix(sum, list.len() as u64), |sum, node| mix(sum, node.0));
            lists.into_iter().fold(2, add)
        }
    };
    mix(mix(payload, entry.id.epoch.0), entry.time.0)
}

/// Stirs a number into a hash.
pub fn mix(sum: u64, number: u64) -> u64 {
    let mixed = (sum ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Says whether most voters agree, in both halves of a joint configuration.
pub fn has_quorum(conf: &ConfState, agrees: impl Fn(NodeId) -> bool) -> bool {
    let is_most = |voters: &[NodeId]| voters.iter().filter(|node| agrees(**node)).count() * 2 > voters.len();
    is_most(&conf.voters) && (conf.outgoing.is_empty() || is_most(&conf.outgoing))
}

/// Rounding between clocks.
const SLACK: std::time::Duration = std::time::Duration::from_micros(10);
