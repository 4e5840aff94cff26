//! Ways to break the core on purpose, to see that the simulator finds them, and to free it from time for a model checker.
//!
//! Only with the cargo feature `mutants`; without it nothing of this is compiled.

use crate::durable::ConfState;
use crate::effects::Role;
use crate::types::{Nanos, NodeId};

use super::Consensus;
use super::change::leave;
use super::progress::Progress;

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A leader commits entries of older epochs by counting (R7).
    CommitsOldEpochs,
    /// A restarted node forgets that it may have promised something (E5).
    VotesAtBoot,
    /// A follower commits whatever its log holds, not only what the leader just confirmed (R4).
    CommitsUnverified,
    /// The vote does not survive a crash (E4).
    ForgetsVote,
    /// An append truncates a suffix that matches (R3).
    TruncatesAlways,
    /// Stepping down in the same epoch clears the vote (E1).
    ClearsVote,
    /// The lease counts from the arrival of an acknowledgement instead of from the send time (L1).
    LeaseFromReceipt,
    /// Winning an election counts as an acknowledgement by everyone, and the lease begins with it (L2, L3). With the
    /// no-op applied first, a quorum has acknowledged something sent after the win, and the bug would hardly show.
    LeaseFromWinning,
    /// Evidence of death waives the promise too (F4).
    EvidenceWaivesPromise,
    /// A sticky node counts its own pre-vote and campaigns (F3).
    BreaksOwnPromise,
    /// The leader counts its own log before it is durable (1.2).
    CountsUnsynced,
    /// A follower acknowledges before its log is durable (R5).
    AcksUnsynced,
    /// The answer to a vote does not wait for the disk (1.2).
    TellsUnsyncedVotes,
    /// A completion of an old batch counts for entries that were truncated and written anew (1.2).
    CountsTruncated,
    /// A read is confirmed by an answer to something sent before it came (F24).
    ReadsByOldRounds,
    /// A follower does not look at the epoch of the entry before the new ones (R2).
    TrustsPlaces,
    /// A follower takes a previous entry that it has forgotten for one that it never had (R1).
    DeniesForgotten,
    /// A configuration is in force when it is committed, not when it is appended (C1).
    ConfiguresLate,
    /// A leader changes one voter in one step, and before an entry of its own epoch is committed: the bug that Raft had until
    /// 2015 (C2, MC1). Where every change is joint, that clause alone can be removed without harm: every joint configuration
    /// that may follow the committed one needs a quorum of that one.
    ChangesTooEarly,
    /// In a joint configuration the new half decides alone (C3).
    NewHalfDecides,
    /// Whoever gave up its log starts again under its old identity (F2): a bug of the simulator's disk, for the core never
    /// knows. In a node the store keeps this rule.
    RetiredVotes,
    /// A follower takes the answer to an older question for one to its own (F24).
    ReadsByOldAnswers,
    /// A hand-over leaves the lease valid (L4).
    TransferKeepsLease,
    /// An heir is told to campaign before it holds the whole log (T1).
    TransferSkipsMatch,
    /// A rejected pre-vote with a higher epoch is not adopted (E3).
    IgnoresHigherEpochs,
    /// A leader counts itself although it has no vote (C4).
    CountsItself,
    /// An install keeps what stands behind the snapshot, although the logs part before that (S3).
    KeepsConflicts,
    /// An install drops a suffix that matches (S3).
    DropsSuffix,
    /// An install keeps the configurations of the log that it replaced (F16).
    ForgetsConfs,
    /// A snapshot is said to be of what is committed, not of what is applied (S1).
    NamesCommit,
    /// The log is cut where it is applied, not where the durable snapshot ends (F16).
    CutsUnsaved,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::CommitsOldEpochs,
        Self::VotesAtBoot,
        Self::CommitsUnverified,
        Self::ForgetsVote,
        Self::TruncatesAlways,
        Self::ClearsVote,
        Self::LeaseFromReceipt,
        Self::LeaseFromWinning,
        Self::EvidenceWaivesPromise,
        Self::BreaksOwnPromise,
        Self::CountsUnsynced,
        Self::AcksUnsynced,
        Self::TellsUnsyncedVotes,
        Self::CountsTruncated,
        Self::ReadsByOldRounds,
        Self::TrustsPlaces,
        Self::DeniesForgotten,
        Self::ConfiguresLate,
        Self::NewHalfDecides,
        Self::RetiredVotes,
        Self::ReadsByOldAnswers,
        Self::TransferKeepsLease,
        Self::TransferSkipsMatch,
        Self::IgnoresHigherEpochs,
        Self::CountsItself,
        Self::KeepsConflicts,
        Self::DropsSuffix,
        Self::ForgetsConfs,
        Self::NamesCommit,
        Self::CutsUnsaved,
    ];
}

impl Consensus {
    /// Breaks this core. Call it right after [`Consensus::new`].
    #[must_use]
    pub fn with_bug(mut self, bug: Option<Bug>) -> Self {
        self.bug = bug;
        match bug {
            Some(Bug::VotesAtBoot) => self.boot = None,
            Some(Bug::ForgetsVote) => self.hard.vote = None,
            _ => {}
        }
        self
    }

    /// Forgets when anything happened, so that a model checker meets the same state again: every promise is over, nothing
    /// stalls, and a heartbeat is due at every tick. What the log does must be safe then too. Answers as
    /// [`Consensus::forget_steps`].
    pub fn forget_time(&mut self) -> u64 {
        (self.elected_at, self.read_round) = (Nanos(1), Nanos(0));
        (self.contact, self.boot, self.waived, self.told_authority) = (None, None, false, None);
        self.asks = super::Asks::default();
        self.peers.iter_mut().for_each(Progress::forget_time);
        self.forget_batch_times();
        self.forget_steps(Nanos(2))
    }

    /// Forgets how many steps were made before `now` and what only chance decides: no deadline comes by itself, and the next step is
    /// made at `now` again. No read may wait, for a read rests on the order of steps (F24). Answers by how much the numbers of
    /// batches fell.
    pub fn forget_steps(&mut self, now: Nanos) -> u64 {
        assert!(self.reads.is_empty(), "reads tell steps apart");
        (self.now, self.deadline, self.heartbeat_due) = (Nanos(now.0 - 1), Nanos::NEVER, Nanos(0));
        (self.tell_at, self.random, self.health) = (Nanos::NEVER, 0, super::Health::default());
        self.votes.sort_unstable();
        self.peers.iter_mut().for_each(|peer| peer.forget_lateness(now));
        self.forget_batch_numbers()
    }

    /// The configuration as a core counts it that is broken in this.
    pub(super) fn bent(&self, conf: &ConfState) -> ConfState {
        let mut bent = conf.clone();
        if self.has_bug(Bug::NewHalfDecides) {
            bent.outgoing.clear();
        }
        if self.has_bug(Bug::CountsItself) && !conf.voters.contains(&self.node) && self.role == Role::Leader {
            bent.voters.push(self.node);
        }
        bent
    }

    /// A change of one voter as a core makes it that is broken in this.
    pub(super) fn unjoined(&self, joint: ConfState) -> ConfState {
        let only = |one: &[NodeId], other: &[NodeId]| one.iter().filter(|node| !other.contains(node)).count();
        let moved = only(&joint.voters, &joint.outgoing) + only(&joint.outgoing, &joint.voters);
        if self.has_bug(Bug::ChangesTooEarly) && moved <= 1 { leave(&joint) } else { joint }
    }

    /// Whether it is broken in this way.
    #[inline]
    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether votes are broken, so that the asserts about them leave the finding to the simulator.
    #[inline]
    pub(super) fn has_bug_with_votes(&self) -> bool {
        matches!(self.bug, Some(Bug::ForgetsVote | Bug::ClearsVote))
    }
}
