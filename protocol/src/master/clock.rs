//! Cluster time as the master knows it between two entries.
//!
//! # Invariants
//!
//! * It never runs ahead of the time that the leader would stamp on an entry now: an entry was stamped before we heard of
//!   it, and both run on the same clock. What is due by this clock is due for the entry that a decision lands in.
//! * It never goes back.

use std::time::Duration;

use crate::types::{ClusterTime, Nanos};

/// Cluster time at one point of the local clock, and so at every later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Clock {
    time: ClusterTime,
    at: Nanos,
}

impl Clock {
    /// It was `time` (or later) at `now`.
    pub(super) fn new(now: Nanos, time: ClusterTime) -> Self {
        Self { time, at: now }
    }

    /// An entry stamped `time` was heard of at `now`.
    pub(super) fn observe(&mut self, now: Nanos, time: ClusterTime) {
        if time > self.time(now) {
            *self = Self::new(now, time);
        }
    }

    /// Cluster time at `now`, at least.
    pub(super) fn time(&self, now: Nanos) -> ClusterTime {
        self.time + now.since(self.at)
    }

    /// When by the local clock it will be `time`.
    pub(super) fn local(&self, time: ClusterTime) -> Nanos {
        if time == ClusterTime::NEVER {
            return Nanos::NEVER;
        }
        self.at + Duration::from_millis(time.0.saturating_sub(self.time.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_runs_on_between_entries_and_never_goes_back() {
        let start = Nanos(5_000_000_000);
        let mut clock = Clock::new(start, ClusterTime(100));
        assert_eq!(clock.time(start + SECOND), ClusterTime(1100));
        clock.observe(start + SECOND, ClusterTime(1050));
        assert_eq!(clock.time(start + SECOND), ClusterTime(1100));
        clock.observe(start + SECOND, ClusterTime(1200));
        assert_eq!(clock.time(start + SECOND), ClusterTime(1200));
    }

    #[test]
    fn what_is_due_at_a_time_is_due_when_the_clock_shows_it() {
        let clock = Clock::new(Nanos(7), ClusterTime(100));
        assert_eq!(clock.time(clock.local(ClusterTime(350))), ClusterTime(350));
        assert_eq!(clock.local(ClusterTime(50)), Nanos(7));
        assert_eq!(clock.local(ClusterTime::NEVER), Nanos::NEVER);
    }
}
