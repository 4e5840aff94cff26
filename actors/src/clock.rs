//! The clock that the machines are shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use protocol::Nanos;

/// The clock of one node: that of the machine, or one beside it that runs at another rate. Cheap to clone, and clones are the same
/// clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    rated: Option<Arc<Mutex<Rated>>>,
}

/// A clock that showed `shown` at `since`, and has run at `rate` from then on.
#[derive(Debug)]
struct Rated {
    since: Nanos,
    shown: Nanos,
    rate: f64,
}

impl Clock {
    /// A clock whose rate can be changed: for tests.
    #[must_use]
    pub fn rated() -> Self {
        let now = now();
        Self { rated: Some(Arc::new(Mutex::new(Rated { since: now, shown: now, rate: 1.0 }))) }
    }

    /// What it shows. It never goes back.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.rated.as_ref().map_or_else(now, |rated| lock(rated).at(now()))
    }

    /// From now on it measures at this rate: 1.02 goes ahead by 20 ms in a second. What waits for it already is woken by the rate
    /// of before.
    ///
    /// # Panics
    ///
    /// If it is not a [rated](Clock::rated) clock, or the rate is not within 0.1 to 10.
    pub fn set_rate(&self, rate: f64) {
        assert!((0.1..=10.0).contains(&rate), "a clock runs at 0.1 to 10, not at {rate}");
        let mut rated = lock(self.rated.as_ref().expect("the clock of the machine has one rate"));
        let now = now();
        *rated = Rated { since: now, shown: rated.at(now), rate };
    }

    /// How long the machine's timers must run until this clock shows `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Nanos) -> Duration {
        let span = deadline.since(self.now());
        self.rated.as_ref().map_or(span, |rated| span.div_f64(lock(rated).rate))
    }
}

impl Rated {
    fn at(&self, now: Nanos) -> Nanos {
        self.shown + now.since(self.since).mul_f64(self.rate)
    }
}

fn lock(rated: &Mutex<Rated>) -> std::sync::MutexGuard<'_, Rated> {
    rated.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since the machine booted, suspend included: a lease must not outlive a closed lid.
///
/// # Panics
///
/// If the system has no such clock, which Linux has had since 2.6.39.
#[must_use]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists");
    let seconds = u64::try_from(time.tv_sec()).expect("the boot clock began at zero");
    let nanos = u64::try_from(time.tv_nsec()).expect("a part of a second");
    Nanos(seconds * 1_000_000_000 + nanos)
}

/// Milliseconds since 1970 by the wall clock: only for incarnations and for people.
#[must_use]
pub fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rated_clock_never_goes_back_and_measures_at_its_rate() {
        let begin = Nanos(5_000);
        let mut rated = Rated { since: begin, shown: begin, rate: 1.0 };
        assert_eq!(rated.at(begin + SECOND), begin + SECOND);
        rated = Rated { since: begin + SECOND, shown: rated.at(begin + SECOND), rate: 1.5 };
        assert_eq!(rated.at(begin + SECOND), begin + SECOND);
        assert_eq!(rated.at(begin + 3 * SECOND), begin + 4 * SECOND);
    }

    #[test]
    fn a_timer_of_a_fast_clock_is_shorter() {
        let clock = Clock::rated();
        clock.set_rate(2.0);
        let wait = clock.until(clock.now() + 1_000 * SECOND);
        assert!(wait <= 500 * SECOND && wait > 400 * SECOND, "{wait:?}");
    }
}
