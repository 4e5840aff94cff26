//! Ways to break the machines around the core on purpose, to see that the simulator finds them.
//!
//! The core has its own (`consensus::Bug`). These are switched on for a thread and not for a machine, because the state that a
//! checker keeps must be broken like those that it checks: a bug that all replicas share is found by what it leads to.
//!
//! # Invariants
//!
//! * Without the cargo feature `mutants` nothing of this is compiled but a constant `false`.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A request that comes twice is executed twice (1.8).
    SkipsDedupe,
    /// Evidence of death takes back what may run only once (F8).
    EvidenceMovesAll,
    /// A result is judged by its task alone, not by its fence (F13).
    JudgesWithoutFence,
    /// A grant does not ask whether the task waits for it (F7).
    AssignsBlindly,
    /// Messages leave before what they promise is durable (1.2).
    GateStandsOpen,
    /// A refusal of one try is taken for an answer to all (D9).
    RefusalSpeaksForAll,
    /// A worker does not look at its own clock (D5).
    OutlivesItsSession,
    /// A worker starts again what it has finished (F8).
    StartsTwice,
    /// A session ends before its time in the log (F10).
    ExpiresEarly,
    /// A leader answers reads from what it has, without asking whether it still leads (L5).
    ReadsBlindly,
    /// What was proposed and not seen applied is said to be certainly not done (F30).
    UnknownIsNo,
    /// A write is answered when it has its place, not when that is committed (I7).
    AnswersEarly,
    /// Attempts that their worker does not hold are not taken back (F11).
    NeverReconciles,
    /// A new run of a node keeps the session of the old one (F12).
    RunsShareSessions,
    /// The answers that clients may ask for again are not in an image (S1).
    ForgetsReplies,
    /// Evidence of death ends sessions that asked for proof (F12).
    EndsOnSuspicion,
    /// A session's end for its application is counted from the answer to a renewal, not from its question (F10).
    CountsFromAnswer,
    /// A session is not over for its application before the cluster says so (F10).
    WaitsToBeTold,
    /// Work under a right goes on until somebody says that it is over; the clock is not asked, also not after a pause.
    WorksUntilTold,
    /// Work under a right ends its margin after that, not before it.
    MarginBehindTheEnd,
    /// Work under a right goes on as long as the session lives, whatever the cluster says of the claim.
    HeedsSessionsOnly,
    /// A write at a revision is done at a later one too: an update is lost (F5).
    ComparesLoosely,
    /// A transaction reads what was there before its own writes.
    TransactionReadsOld,
    /// A session's end leaves one of its keys (I6).
    EphemeralOutlivesSession,
    /// A watch is told the first change of a revision and takes it for all.
    WatchSkipsATransactionHalf,
    /// A replica that took its state from a snapshot claims to know what happened before.
    HistoryHasAHole,
    /// A grant of a right has the fence of the one before it (F5).
    FencesRepeat,
    /// Whoever came last is granted a right first.
    BargesQueue,
    /// A reader is granted a lock that a writer holds.
    ReadsBesideWriter,
    /// A session ends and what it claims stays.
    ClaimsOutliveSessions,
    /// A once is settled by somebody who does not hold it.
    SettlesWithoutRight,
    /// The effects of an attempt that was replaced are done, though its result is refused.
    EffectsOfTheFenced,
    /// A claim is released for whoever knows its name.
    ReleasesForAnybody,
    /// A transaction under a right asks whether anybody holds that (F5).
    HeldByAnybody,
    /// A goodbye does not name what was begun (F8).
    GoodbyeNamesNothing,
    /// A goodbye is taken for the end of what never began, too (F8).
    GoodbyeLosesAll,
    /// A founder is content with the promises of a majority (F1).
    FoundsOnMajority,
    /// A genesis is accepted whatever was promised since (F1).
    AcceptsBelowPromise,
    /// A founder founds although somebody has accepted a genesis already (F1).
    FoundsBesideMember,
    /// A founder accepts its own genesis before anybody else has (F1).
    AcceptsAlone,
    /// A founder whose genesis is refused for a higher ballot does not bid again (F1).
    StaysOutbid,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 41] = [
        Self::SkipsDedupe,
        Self::EvidenceMovesAll,
        Self::JudgesWithoutFence,
        Self::AssignsBlindly,
        Self::GateStandsOpen,
        Self::RefusalSpeaksForAll,
        Self::OutlivesItsSession,
        Self::StartsTwice,
        Self::ExpiresEarly,
        Self::ReadsBlindly,
        Self::UnknownIsNo,
        Self::AnswersEarly,
        Self::NeverReconciles,
        Self::RunsShareSessions,
        Self::ForgetsReplies,
        Self::EndsOnSuspicion,
        Self::CountsFromAnswer,
        Self::WaitsToBeTold,
        Self::WorksUntilTold,
        Self::MarginBehindTheEnd,
        Self::HeedsSessionsOnly,
        Self::ComparesLoosely,
        Self::TransactionReadsOld,
        Self::EphemeralOutlivesSession,
        Self::WatchSkipsATransactionHalf,
        Self::HistoryHasAHole,
        Self::FencesRepeat,
        Self::BargesQueue,
        Self::ReadsBesideWriter,
        Self::ClaimsOutliveSessions,
        Self::SettlesWithoutRight,
        Self::EffectsOfTheFenced,
        Self::ReleasesForAnybody,
        Self::HeldByAnybody,
        Self::GoodbyeNamesNothing,
        Self::GoodbyeLosesAll,
        Self::FoundsOnMajority,
        Self::AcceptsBelowPromise,
        Self::FoundsBesideMember,
        Self::AcceptsAlone,
        Self::StaysOutbid,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Breaks all machines that this thread steps from now on, or none of them.
    pub fn set(bug: Option<Bug>) {
        BUG.set(bug);
    }

    /// Whether they are broken in this way.
    pub fn is_on(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is_on, set};

/// Whether the machines are broken in this way: never in a product.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_: Bug) -> bool {
    false
}
