//! All timers, derived from one knob.
//!
//! # Invariants
//!
//! * `2H <= P <= E`: the lease promise outlives two heartbeats and never exceeds the election timeout.
//! * `session / (1 + rho) - grace - renewal >= 4E + 2H`: a slow failover does not cancel the work of healthy workers, who stop that
//!   much before their session ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::worker::GRACE;

/// The bound on how much faster one node's clock may run than another's: 10 %. Safety never rests on it; lease reads and
/// the `until` shown to applications do.
pub const CLOCK_BOUND_PERCENT: u64 = 10;

/// The timers of a node. Every node of a cluster should use the same, but no safety rests on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// H: how often the leader sends to each follower.
    pub heartbeat: Duration,
    /// P: for how long after hearing the leader a follower helps nobody else to be elected, whatever happens.
    pub promise: Duration,
    /// E: how long silence lasts before an election; the real time-out is drawn from `E..2E`.
    pub election_timeout: Duration,
    /// How long a node's session lives without a renewal.
    pub session: Duration,
    /// How often a session is renewed.
    pub renewal: Duration,
}

impl Profile {
    /// For tests and experiments on one machine.
    pub const DEV: Self = Self::new(25, 50, 150, 1000, 150);
    /// The default: one data centre.
    pub const LAN: Self = Self::new(50, 100, 500, 3000, 500);
    /// Several data centres.
    pub const WAN: Self = Self::new(250, 500, 2000, 15000, 2500);

    const fn new(heartbeat: u64, promise: u64, election_timeout: u64, session: u64, renewal: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            promise: Duration::from_millis(promise),
            election_timeout: Duration::from_millis(election_timeout),
            session: Duration::from_millis(session),
            renewal: Duration::from_millis(renewal),
        }
    }

    /// How long a session of an application lives for which nobody named a time. It is renewed after every third of that, and outlives a slow
    /// failover together with the time after which a request that nobody answered is sent again.
    #[must_use]
    pub fn application_session(&self) -> Duration {
        (self.session * 2).max(Duration::from_secs(6))
    }

    /// Checks the invariants of this module and says in words which one fails.
    ///
    /// # Errors
    ///
    /// The sentence to show to whoever set the values.
    pub fn validate(&self) -> Result<(), String> {
        let Self { heartbeat, promise, election_timeout, session, renewal } = *self;
        if heartbeat.is_zero() || renewal.is_zero() {
            return Err("heartbeat and renewal must be longer than zero".into());
        }
        if heartbeat * 2 > promise || promise > election_timeout {
            return Err(format!(
                "the promise ({promise:?}) must lie between two heartbeats ({:?}) and the election timeout ({election_timeout:?})",
                heartbeat * 2
            ));
        }
        let least = election_timeout * 4 + heartbeat * 2;
        if shortened(session) < renewal + least + GRACE {
            return Err(format!(
                "a session of {session:?} renewed every {renewal:?} does not outlive a slow failover ({least:?}) by the {GRACE:?} in which its handlers return"
            ));
        }
        Ok(())
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::LAN
    }
}

/// `span` as the fastest allowed clock sees the slowest one measure it: divided by `1 + rho`.
#[must_use]
pub fn shortened(span: Duration) -> Duration {
    span * 100 / (100 + u32::try_from(CLOCK_BOUND_PERCENT).expect("a percentage"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_consistent() {
        for profile in [Profile::DEV, Profile::LAN, Profile::WAN] {
            assert_eq!(profile.validate(), Ok(()), "{profile:?}");
        }
    }

    #[test]
    fn a_session_without_a_time_of_its_own_outlives_a_slow_failover() {
        let slow = Profile { election_timeout: Duration::from_secs(4), ..Profile::WAN };
        for profile in [Profile::DEV, Profile::LAN, Profile::WAN, Profile { session: Duration::from_secs(24), ..slow }]
        {
            assert_eq!(profile.validate(), Ok(()), "{profile:?}");
            let ttl = profile.application_session();
            let failover = profile.election_timeout * 4 + profile.heartbeat * 2;
            assert!(shortened(ttl) - ttl / 3 >= failover + profile.election_timeout * 2, "{profile:?}");
        }
    }

    #[test]
    fn an_inconsistent_profile_is_refused_in_words() {
        let late = Profile { promise: Duration::from_millis(60), ..Profile::LAN };
        assert!(late.validate().unwrap_err().contains("promise"));
        let short = Profile { session: Duration::from_secs(1), ..Profile::LAN };
        assert!(short.validate().unwrap_err().contains("slow failover"));
    }
}
