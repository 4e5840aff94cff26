//! What every figure should be: the table of the plan, in one place.

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// It should not be greater.
    AtMost(f64),
    /// It should not be smaller.
    AtLeast(f64),
}

impl Target {
    /// The target of the figure of this name, if it has one.
    pub(super) fn of(name: &str) -> Option<Self> {
        TARGETS.iter().find(|(named, _)| *named == name).map(|(_, target)| *target)
    }

    /// Whether a value is as it should be. What was not measured is not.
    pub(super) fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// The number in it.
    pub(super) fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }

    /// How a value compares with the number if all is well.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::AtMost(_) => "<=",
            Self::AtLeast(_) => ">=",
        }
    }
}

use Target::{AtLeast, AtMost};

/// Times in milliseconds, rates per second, memory in MiB, processors in percent of one.
const TARGETS: [(&str, Target); 54] = [
    ("kv.write_1.p50", AtMost(0.5)),
    ("kv.write_128.per_s", AtLeast(20_000.0)),
    ("kv.write_512.per_s", AtLeast(30_000.0)),
    ("kv.read_lin_1.p50", AtMost(0.15)),
    ("kv.read_lin_128.per_s", AtLeast(50_000.0)),
    ("tasks.1.p50", AtMost(1.4)),
    ("tasks.256.per_s", AtLeast(10_000.0)),
    ("failover.master_killed.median", AtMost(150.0)),
    ("failover.master_killed.max", AtMost(1000.0)),
    ("failover.master_paused.median", AtMost(900.0)),
    ("failover.master_paused.max", AtMost(1500.0)),
    ("failover.graceful.median", AtMost(30.0)),
    ("failover.graceful.max", AtMost(150.0)),
    ("failover.worker_killed.median", AtMost(10.0)),
    ("failover.worker_killed.max", AtMost(500.0)),
    ("failover.both_killed.median", AtMost(1000.0)),
    ("failover.both_killed.max", AtMost(2000.0)),
    ("failover.master_killed_task.median", AtMost(200.0)),
    ("failover.netns.killed.median", AtMost(800.0)),
    ("failover.netns.killed.max", AtMost(1500.0)),
    ("failover.netns.frozen.median", AtMost(1000.0)),
    ("failover.netns.frozen.max", AtMost(2500.0)),
    ("failover.netns.cut_off.median", AtMost(1000.0)),
    ("failover.netns.cut_off.max", AtMost(2500.0)),
    ("failover.netns.deaf.median", AtMost(1000.0)),
    ("failover.netns.deaf.max", AtMost(2500.0)),
    ("failover.netns.mute.median", AtMost(1000.0)),
    ("failover.netns.mute.max", AtMost(2500.0)),
    ("failover.netns.all_killed.median", AtMost(1500.0)),
    ("failover.netns.all_killed.max", AtMost(2500.0)),
    ("failover.netns.quorum_regained.median", AtMost(1000.0)),
    ("failover.netns.quorum_regained.max", AtMost(2000.0)),
    ("failover.netns.minority_acks", AtMost(0.0)),
    ("failover.netns.lost_acks", AtMost(0.0)),
    ("failover.netns.healed.median", AtMost(1000.0)),
    ("failover.netns.healed.max", AtMost(2000.0)),
    ("failover.netns.healed_epochs", AtMost(0.0)),
    ("failover.netns.bridge.longest_gap", AtMost(300.0)),
    ("failover.netns.bridge.leader_changes", AtMost(1.0)),
    ("failover.netns.ring.longest_gap", AtMost(300.0)),
    ("failover.netns.ring.leader_changes", AtMost(1.0)),
    ("failover.netns.loss_5.rate_share", AtLeast(70.0)),
    ("failover.netns.loss_5.leader_changes", AtMost(1.0)),
    ("failover.netns.loss_10.rate_share", AtLeast(30.0)),
    ("failover.netns.loss_10.leader_changes", AtMost(1.0)),
    ("failover.netns.loss_20.rate_share", AtLeast(5.0)),
    ("failover.netns.loss_20.leader_changes", AtMost(1.0)),
    ("node.start_to_first_write.median", AtMost(400.0)),
    ("node.rss_idle", AtMost(20.0)),
    ("node.cpu_idle", AtMost(1.0)),
    ("watch.write_to_notify.p50", AtMost(0.8)),
    ("session.holder_killed.median", AtMost(100.0)),
    ("lock.handover.holder_killed.median", AtMost(100.0)),
    // The time to live of 2 s, and a tenth of it.
    ("lock.handover.holder_frozen.max", AtMost(2200.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_meets_no_target() {
        assert!(TARGETS.iter().all(|(_, target)| !target.is_met_by(f64::NAN)));
    }

    #[test]
    fn a_target_says_in_which_direction_it_lies() {
        assert!(AtLeast(10.0).is_met_by(11.0) && !AtLeast(10.0).is_met_by(9.0));
        assert!(AtMost(10.0).is_met_by(9.0) && !AtMost(10.0).is_met_by(11.0));
        assert_eq!(Target::of("kv.write_1.p50"), Some(AtMost(0.5)));
        assert_eq!(Target::of("kv.write_1.p99"), None);
    }
}
