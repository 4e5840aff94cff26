//! What the links dropped, and why: nothing is lost without being counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many messages were dropped, by reason, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Control messages that found their window full.
    pub control_full: u64,
    /// Messages of a link that a newer one had replaced.
    pub stale: u64,
    /// Envelopes that were not for us, not from the peer of their link, or from another cluster.
    pub foreign: u64,
    /// Bytes that were no envelope at all, or broke the rules of the windows.
    pub malformed: u64,
    /// Connections closed before they were a link: silence, garbage, or too many at once.
    pub strangers: u64,
}

/// Why a message or connection was dropped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dropped {
    ControlFull,
    Stale,
    Foreign,
    Malformed,
    Stranger,
}

/// The living counters behind [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    control_full: AtomicU64,
    stale: AtomicU64,
    foreign: AtomicU64,
    malformed: AtomicU64,
    strangers: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, why: Dropped) {
        let (counter, label) = match why {
            Dropped::ControlFull => (&self.control_full, "control_full"),
            Dropped::Stale => (&self.stale, "stale"),
            Dropped::Foreign => (&self.foreign, "foreign"),
            Dropped::Malformed => (&self.malformed, "malformed"),
            Dropped::Stranger => (&self.strangers, "stranger"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("tenure_links_dropped_total", "why" => label).increment(1);
    }

    pub(super) fn read(&self) -> Counts {
        Counts {
            control_full: self.control_full.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            foreign: self.foreign.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            strangers: self.strangers.load(Ordering::Relaxed),
        }
    }
}
