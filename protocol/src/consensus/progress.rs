//! What the leader knows of one follower, and how much it may send.
//!
//! # Invariants
//!
//! * `matched < next`, and `matched` only grows.
//! * At most [`APPENDS_MAX`] appends and [`BYTES_MAX`] bytes are in flight, or a single append of any size.
//! * While probing, at most one append is in flight.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{Index, Nanos, NodeId};

/// One follower in the eyes of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// Who.
    pub(super) node: NodeId,
    /// Its durable log agrees with ours up to here.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// Whether we know where its log agrees.
    pub(super) pace: Pace,
    /// The latest of our send times that it has echoed in this epoch; zero before the first.
    pub(super) acked: Nanos,
    /// The promise that it stated then, no longer than our own election timeout.
    pub(super) promise: Duration,
    /// When it last took something, or began to lack what our own disk has; of no account while it lacks nothing of that.
    pub(super) took: Nanos,
    /// The commit index that it was last told.
    pub(super) told: Index,
    /// Somebody there waits for what is committed.
    pub(super) is_eager_for_commits: bool,
    /// The appends under way, oldest first.
    flight: VecDeque<InFlight>,
    bytes: usize,
}

/// How entries are sent to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pace {
    /// One append at a time, until one matches.
    Probe,
    /// One append after the other, without waiting.
    Replicate,
    /// Heartbeats only: what it lacks is forgotten here, and it was told of our snapshot.
    Snapshot {
        /// When it was told.
        since: Nanos,
    },
}

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    last: Index,
    sent: Nanos,
    bytes: usize,
}

impl Progress {
    /// A follower about which nothing is known.
    pub(super) fn new(node: NodeId, next: Index, now: Nanos) -> Self {
        Self {
            node,
            matched: Index(0),
            next,
            pace: Pace::Probe,
            acked: Nanos(0),
            promise: Duration::ZERO,
            took: now,
            told: Index(0),
            is_eager_for_commits: false,
            flight: VecDeque::new(),
            bytes: 0,
        }
    }

    /// What was in flight is lost: begins again after what is known to match, or where it was still asking.
    pub(super) fn lose_flight(&mut self) {
        let next = match self.pace {
            Pace::Probe => self.next,
            Pace::Replicate | Pace::Snapshot { .. } => self.matched.next(),
        };
        self.probe_from(next);
    }

    /// Goes back to asking where the logs agree, and forgets what was in flight.
    pub(super) fn probe_from(&mut self, next: Index) {
        self.pace = Pace::Probe;
        self.next = next.max(self.matched.next());
        self.flight.clear();
        self.bytes = 0;
    }

    /// It needs the snapshot that ends with `last` and was told so.
    pub(super) fn begin_snapshot(&mut self, last: Index, now: Nanos) {
        self.pace = Pace::Snapshot { since: now };
        self.next = last.next();
        self.flight.clear();
        self.bytes = 0;
    }

    /// Notes that the follower holds everything up to `index`, while our log begins after `base`. Whatever image brought it
    /// to the base or beyond, perhaps an older one than it was told of last: what it lacks now is held here.
    ///
    /// A probe must be answered itself, or the one that it repeats: that what came before it matches says nothing of whoever does not
    /// take it.
    pub(super) fn note_matched(&mut self, index: Index, base: Index, now: Nanos) {
        let (is_verified, is_taken) = (index.next() >= self.next, index >= self.next);
        if index > self.matched {
            (self.matched, self.took) = (index, now);
        }
        self.next = self.next.max(self.matched.next());
        while let Some(oldest) = self.flight.front().filter(|oldest| oldest.last <= self.matched) {
            self.bytes -= oldest.bytes;
            self.flight.pop_front();
        }
        if matches!(self.pace, Pace::Snapshot { .. }) && self.matched >= base {
            self.probe_from(self.matched.next());
        } else if self.pace == Pace::Probe && (is_taken || (is_verified && self.flight.is_empty())) {
            self.pace = Pace::Replicate;
            self.flight.clear();
            self.bytes = 0;
        }
    }

    /// Notes an append that ends at `last`.
    pub(super) fn note_sent(&mut self, last: Index, bytes: usize, sent: Nanos) {
        self.flight.push_back(InFlight { last, sent, bytes });
        self.bytes += bytes;
        if self.pace == Pace::Replicate {
            self.next = last.next();
        }
    }

    /// Whether one more append of `bytes` may leave.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        match self.pace {
            Pace::Probe => self.flight.is_empty(),
            Pace::Snapshot { .. } => false,
            Pace::Replicate if self.flight.is_empty() => true,
            Pace::Replicate => self.flight.len() < APPENDS_MAX && self.bytes + bytes <= BYTES_MAX,
        }
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Whether so little is in flight that a new proposal need not wait for company.
    pub(super) fn is_eager(&self) -> bool {
        self.pace == Pace::Replicate && self.flight.len() < EAGER_MAX
    }

    /// Forgets since when it lacks something: it keeps up.
    #[cfg(feature = "mutants")]
    pub(super) fn forget_lateness(&mut self, now: Nanos) {
        self.took = now;
    }

    /// Forgets when anything was sent or answered, but not whether.
    #[cfg(feature = "mutants")]
    pub(super) fn forget_time(&mut self) {
        self.acked = self.acked.min(Nanos(1));
        self.flight.iter_mut().for_each(|append| append.sent = Nanos(1));
        if let Pace::Snapshot { since, .. } = &mut self.pace {
            *since = Nanos(1);
        }
    }

    /// Whether it answered something that was sent within this span before `now`.
    pub(super) fn was_heard(&self, now: Nanos, within: Duration) -> bool {
        self.acked > Nanos(0) && now <= self.acked + within
    }

    /// The same, and whether its disk lives: heartbeats are answered without it (F19), so it must also have taken something within
    /// that span, if it lacks anything of what our own disk has up to `durable`.
    pub(super) fn keeps_up(&self, now: Nanos, within: Duration, durable: Index) -> bool {
        self.was_heard(now, within) && (self.matched >= durable || now <= self.took + within)
    }

    /// When the oldest append in flight was sent.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        self.flight.front().map(|oldest| oldest.sent)
    }
}

/// Appends in flight to one follower (R8).
pub(super) const APPENDS_MAX: usize = 64;
/// Bytes in flight to one follower (R8).
pub(super) const BYTES_MAX: usize = 384 * 1024;
/// With this many in flight, new proposals are gathered until an answer comes: fewer and larger messages, and a delay of
/// at most a part of one round trip.
const EAGER_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating() -> Progress {
        let mut peer = Progress::new(NodeId(2), Index(2), Nanos(1));
        peer.note_matched(Index(1), Index(0), Nanos(2));
        assert_eq!(peer.pace, Pace::Replicate);
        peer
    }

    #[test]
    fn appends_and_bytes_in_flight_are_bounded() {
        let mut peer = replicating();
        let mut sent = 0;
        while peer.has_room(100) {
            sent += 1;
            peer.note_sent(Index(1 + sent), 100, Nanos(1));
        }
        assert_eq!(sent, APPENDS_MAX as u64);
        peer.note_matched(Index(1 + sent), Index(0), Nanos(2));
        assert!(peer.is_idle() && peer.has_room(100), "an answer makes room again");
        peer.note_sent(Index(100), BYTES_MAX - 50, Nanos(2));
        assert!(!peer.has_room(100));
    }

    #[test]
    fn a_single_append_of_any_size_may_leave_alone() {
        let mut peer = replicating();
        assert!(peer.has_room(10 * BYTES_MAX));
        peer.note_sent(Index(2), 10 * BYTES_MAX, Nanos(1));
        assert!(!peer.has_room(1));
    }

    #[test]
    fn a_probe_that_is_answered_late_has_done_its_work_although_a_longer_one_repeats_it() {
        let mut peer = Progress::new(NodeId(2), Index(2), Nanos(1));
        peer.note_sent(Index(2), 1, Nanos(1));
        peer.lose_flight();
        peer.note_sent(Index(5), 4, Nanos(2));
        peer.note_matched(Index(1), Index(0), Nanos(3));
        assert_eq!(peer.pace, Pace::Probe, "a heartbeat was answered");
        peer.note_matched(Index(2), Index(0), Nanos(4));
        assert_eq!((peer.pace, peer.next, peer.bytes), (Pace::Replicate, Index(3), 0));
    }

    #[test]
    fn a_probe_is_alone_until_its_own_place_matches() {
        let mut peer = Progress::new(NodeId(2), Index(9), Nanos(1));
        peer.note_sent(Index(9), 1, Nanos(1));
        assert!(!peer.has_room(1));
        peer.note_matched(Index(3), Index(0), Nanos(2));
        assert_eq!((peer.pace, peer.matched, peer.next), (Pace::Probe, Index(3), Index(9)));
        peer.note_matched(Index(9), Index(0), Nanos(2));
        assert_eq!((peer.pace, peer.matched, peer.next), (Pace::Replicate, Index(9), Index(10)));
    }

    #[test]
    fn what_was_lost_in_flight_is_sent_again_from_what_matches() {
        let mut peer = replicating();
        peer.note_sent(Index(5), 1, Nanos(1));
        assert_eq!(peer.next, Index(6));
        peer.lose_flight();
        assert_eq!((peer.pace, peer.next, peer.is_idle()), (Pace::Probe, Index(2), true));
    }
}
