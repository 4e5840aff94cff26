//! One thing that is asked, from its beginning to its answer.
//!
//! # Invariants
//!
//! * `refused <= sent`; their difference is the number of tries of which nobody knows what became.

use std::time::Duration;

use super::message::{Consistency, Denied};
use crate::state::{Operation, Query};
use crate::types::{Epoch, Nanos, NodeId, Seq, SessionId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) purpose: Purpose,
    pub(super) phase: Phase,
    /// When it was asked for.
    pub(super) begun: Nanos,
    /// When it is given up.
    pub(super) deadline: Nanos,
    /// How long that is from the beginning.
    pub(super) timeout: Duration,
    /// Which try this is, counted over everything; never reset.
    pub(super) turn: u32,
    /// How often it was asked.
    sent: u32,
    /// How many of these tries were certainly refused.
    refused: u32,
    /// How often it had to wait before the next try.
    pauses: u32,
    /// Why the last try failed.
    pub(super) last: Option<Denied>,
    /// The node that should not be asked next.
    pub(super) avoid: Option<NodeId>,
    /// The node that kept silent last: it is asked only if there is no other.
    pub(super) silent: Option<NodeId>,
    /// Whether it may be asked next nevertheless.
    pub(super) is_pardoned: bool,
}

/// What is asked, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// A write of the application, with its place in a session once it has one. A session that it opens may be ours to keep.
    Write { call: u64, operation: Operation, place: Option<(SessionId, Seq)>, is_kept: bool },
    /// A read of the application.
    Read { call: u64, query: Query, consistency: Consistency },
    /// An operator's order to the master.
    HandOver { call: u64, to: Option<NodeId>, epoch: Epoch },
    /// A session that the application renews by itself.
    RenewOnce { call: u64, session: SessionId },
    /// Our own: open a session.
    Register,
    /// Our own: keep that session, and those of the application.
    Renew(Vec<SessionId>),
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// A place in a session.
    Queued,
    /// A node that can be asked.
    Stranded,
    /// The answer of this node, at most until then.
    Asked(NodeId, Nanos),
    /// The end of a pause.
    Pausing(Nanos),
}

impl Call {
    pub(super) fn new(purpose: Purpose, now: Nanos, timeout: Duration) -> Self {
        Self {
            purpose,
            phase: Phase::Stranded,
            begun: now,
            deadline: now + timeout,
            timeout,
            turn: 0,
            sent: 0,
            refused: 0,
            pauses: 0,
            last: None,
            avoid: None,
            silent: None,
            is_pardoned: false,
        }
    }

    /// One more try is on its way.
    pub(super) fn ask(&mut self, node: NodeId, until: Nanos) {
        self.sent += 1;
        self.phase = Phase::Asked(node, until);
    }

    /// One try was certainly refused.
    pub(super) fn refuse(&mut self) {
        self.refused = self.sent.min(self.refused + 1);
    }

    /// It was certainly not done: as if it had never been asked.
    pub(super) fn start_over(&mut self) {
        self.sent = 0;
        self.refused = 0;
    }

    /// How many tries may have been done.
    pub(super) fn doubts(&self) -> u32 {
        self.sent - self.refused
    }

    /// Whether it is a write that may have been done.
    pub(super) fn may_be_applied(&self) -> bool {
        matches!(self.purpose, Purpose::Write { .. }) && self.doubts() > 0
    }

    /// How long to wait before the next try: longer each time, spread by the call's number so that clients do not march in
    /// step.
    pub(super) fn pause(&mut self, number: u64) -> Duration {
        // Whoever is busy gets nothing done while he is asked.
        let max = if self.last == Some(Denied::Busy) { BUSY_PAUSE_MAX } else { PAUSE_MAX };
        let longest = PAUSE_MIN.saturating_mul(1 << self.pauses.min(8)).min(max);
        self.pauses += 1;
        let spread = (longest - PAUSE_MIN).as_micros() as u64;
        PAUSE_MIN + Duration::from_micros(scramble(number ^ (u64::from(self.pauses) << 48)) % (spread + 1))
    }

    /// Says whether the next try may be one in four.
    pub(super) fn has_paused_often(&self) -> bool {
        self.pauses % 4 == 3
    }

    /// When it needs attention even if nothing happens.
    pub(super) fn wake(&self) -> Nanos {
        match self.phase {
            Phase::Queued | Phase::Stranded => self.deadline,
            Phase::Asked(_, until) | Phase::Pausing(until) => until.min(self.deadline),
        }
    }
}

/// Spreads neighbouring numbers over the whole range (the finish of SplitMix64).
fn scramble(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The shortest wait before another try.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The longest where too much is under way.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let mut call = Call::new(Purpose::Register, Nanos(0), Duration::ZERO);
        let pauses: Vec<Duration> = (0..100).map(|_| call.pause(7)).collect();
        assert_eq!(pauses[0], PAUSE_MIN);
        assert!(pauses.iter().all(|pause| (PAUSE_MIN..=PAUSE_MAX).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause > PAUSE_MAX / 2));
        assert_ne!(Call::new(Purpose::Register, Nanos(0), Duration::ZERO), call);
    }
}
