//! Whether work under a right may go on, when to ask again, and why it is over.
//!
//! A right ends with its session, whose end is counted by the clock of whoever holds it (F10); or before that, when somebody gave this one
//! claim back in its name and the cluster says so. Timers tell neither: they may be late, and stand still while the machine sleeps. So the
//! clock is asked before each step of the work.
//!
//! # Invariants
//!
//! * A step that takes no longer than the margin has ended before its right.
//! * What was said to be over allows nothing, whatever time it is.

use std::time::Duration;

use super::message::Loss;
use crate::mutants::{Bug, is_on};
use crate::types::Nanos;

/// How a session of this process stands, or a claim under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It lives at least until then, by the clock of whoever holds it.
    Until(Nanos),
    /// It is over.
    Ended(Loss),
}

impl Standing {
    /// How a claim stands under a session that stands like this, if the cluster has said or not that it `has_ended`.
    #[must_use]
    pub fn of_claim(self, has_ended: bool) -> Self {
        match self {
            Self::Until(_) if has_ended && !is_on(Bug::HeedsSessionsOnly) => Self::Ended(Loss::Gone),
            standing => standing,
        }
    }

    /// For how long it certainly lasts from `now` on.
    #[must_use]
    pub fn left(self, now: Nanos) -> Duration {
        match self {
            Self::Until(until) => until.since(now),
            Self::Ended(_) => Duration::ZERO,
        }
    }
}

/// How carefully something is kept within a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarding {
    /// How long before the end of the right it stops: time for a step, and for the scheduler to be late.
    pub margin: Duration,
    /// How often the clock is asked at least while nothing happens.
    pub look: Duration,
}

impl Guarding {
    /// Whatever ends exactly with its session.
    pub const SESSION: Self = Self { margin: Duration::ZERO, look: Duration::from_millis(100) };
    /// Work within this process, which stops between two steps.
    pub const WORK: Self = Self { margin: Duration::from_millis(20), look: Duration::from_millis(100) };
    /// A process of its own, which is killed.
    pub const COMMAND: Self = Self { margin: Duration::from_millis(100), look: Duration::from_millis(50) };

    /// One step may begin at `now`. This is asked again before the next one, and at the returned time if there is none before.
    ///
    /// # Errors
    ///
    /// Why no step may begin any more.
    pub fn step(self, standing: Standing, now: Nanos) -> Result<Nanos, Loss> {
        let end = match standing {
            Standing::Until(until) if is_on(Bug::MarginBehindTheEnd) => until + self.margin,
            Standing::Until(until) => until - self.margin,
            Standing::Ended(why) => return Err(why),
        };
        if end <= now && !is_on(Bug::WorksUntilTold) {
            return Err(Loss::Silence);
        }
        Ok(end.min(now + self.look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// What it must come to, in words of milliseconds.
    fn may_step(until: u64, now: u64) -> Result<u64, Loss> {
        let standing = Standing::Until(Nanos(until * MS));
        Guarding::WORK.step(standing, Nanos(now * MS)).map(|look| look.0 / MS)
    }

    #[test]
    fn work_goes_on_until_a_margin_before_the_end_and_asks_again_then() {
        assert_eq!(may_step(1_000, 0), Ok(100));
        assert_eq!(may_step(1_000, 900), Ok(980));
        assert_eq!(may_step(1_000, 979), Ok(980));
        assert_eq!(may_step(1_000, 980), Err(Loss::Silence));
        assert_eq!(may_step(1_000, 5_000), Err(Loss::Silence), "also after a sleep");
        assert_eq!(may_step(10, 0), Err(Loss::Silence), "a right that lasts no longer than the margin allows nothing");
    }

    #[test]
    fn a_claim_that_has_ended_allows_nothing_though_its_session_lives() {
        let session = Standing::Until(Nanos(1_000 * MS));
        assert_eq!(session.of_claim(false), session);
        let claim = session.of_claim(true);
        assert_eq!(Guarding::WORK.step(claim, Nanos(0)), Err(Loss::Gone));
        assert_eq!((claim.left(Nanos(0)), session.left(Nanos(MS))), (Duration::ZERO, Duration::from_millis(999)));
    }

    #[test]
    fn the_end_of_the_session_says_why_whatever_became_of_the_claim() {
        let ended = Standing::Ended(Loss::Closed);
        assert_eq!(Guarding::SESSION.step(ended.of_claim(true), Nanos(0)), Err(Loss::Closed));
    }
}
