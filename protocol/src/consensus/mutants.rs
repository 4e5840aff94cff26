//! Ways to break the core on purpose, to see that the simulator finds them, and to free it from time for a model checker.
//!
//! Only with the cargo feature `mutants`; without it nothing of this is compiled.

use crate::types::Nanos;

use super::Consensus;
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
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
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
    /// stalls, and no deadline comes by itself. What the log does must be safe then too.
    pub fn forget_time(&mut self) {
        (self.now, self.deadline, self.heartbeat_due) = (Nanos(1), Nanos::NEVER, Nanos::NEVER);
        (self.elected_at, self.read_round, self.random) = (Nanos(1), Nanos(0), 0);
        (self.contact, self.boot, self.waived, self.told_authority) = (None, None, false, None);
        self.peers.iter_mut().for_each(Progress::forget_time);
        self.forget_batch_times();
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
