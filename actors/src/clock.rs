//! The clock that the machines are shown.

use nix::time::{ClockId, clock_gettime};
use protocol::Nanos;

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
