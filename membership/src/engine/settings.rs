//! foca's settings.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use crate::packet::MAX_BODY;
use crate::timing::Timing;

/// foca's settings that follow from ours. None of them may change later: foca cannot take a larger packet size.
pub(super) fn foca_config(timing: &Timing) -> foca::Config {
    let fanout = NonZeroUsize::new(timing.fanout).unwrap_or(NonZeroUsize::MIN);
    foca::Config {
        probe_period: timing.probe_period,
        probe_rtt: timing.probe_rtt,
        num_indirect_probes: NonZeroUsize::new(3).expect("three is not zero"),
        max_transmissions: NonZeroU8::new(TRANSMISSIONS).expect("sixteen is not zero"),
        suspect_to_down_after: timing.suspicion,
        // The engine forgets members itself, so that no timer waits for a day.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(MAX_BODY).expect("a packet has a size"),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: ANNOUNCE_EVERY, num_members: NonZeroUsize::MIN }),
        // Push-pull with an absent member does more, and does not stop when nobody is left.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: timing.gossip, num_members: fanout }),
    }
}

/// How often each piece of news is sent. foca's own formula gives two for three nodes, and news gets lost.
const TRANSMISSIONS: u8 = 16;

/// How often a member is asked for others it knows.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
