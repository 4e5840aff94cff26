//! One queue for every timer of foca and the engine's own judgement of suspects, in the order of their deadlines.
//!
//! # Invariants
//!
//! * Timers come out in the order of their deadlines, equal ones in the order in which they were set: foca requires it.
//! * A stall moves all of them by the same span, so their order and their distances stay as they were.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Timer;
use protocol::Nanos;

use crate::identity::Identity;

/// What is due at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A timer of foca other than the one below.
    Foca(Timer<Identity>),
    /// The time of a suspect to refute is over.
    Suspicion {
        /// foca's timer.
        timer: Timer<Identity>,
        /// How often the engine kept it back for want of contact with others.
        held: u32,
    },
    /// Somebody held this name to be down, and it was told so: it should bear another by now.
    Doubt {
        /// The name.
        name: Identity,
        /// Since when it is doubted.
        since: Nanos,
        /// How often it was told.
        tries: u32,
    },
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeMap<(Nanos, u64), Due>,
    next: u64,
}

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, at: Nanos, due: Due) {
        self.queue.insert((at, self.next), due);
        self.next += 1;
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn pop(&mut self, now: Nanos) -> Option<Due> {
        let first = self.queue.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        Some(first.remove())
    }

    /// Moves every timer by `span`.
    pub(crate) fn shift(&mut self, span: Duration) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().map(|((at, order), due)| ((at + span, order), due)).collect();
    }

    /// Forgets every timer.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    /// When the earliest is due.
    pub(crate) fn first(&self) -> Option<Nanos> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(token: u8) -> Due {
        Due::Foca(Timer::ProbeRandomMember(token))
    }

    #[test]
    fn timers_come_out_by_deadline_and_then_by_order() {
        let mut timers = Timers::default();
        timers.set(Nanos(20), probe(1));
        timers.set(Nanos(10), probe(2));
        timers.set(Nanos(20), probe(3));
        assert_eq!(timers.pop(Nanos(9)), None);
        assert_eq!(timers.pop(Nanos(30)), Some(probe(2)));
        assert_eq!(timers.pop(Nanos(30)), Some(probe(1)));
        assert_eq!(timers.pop(Nanos(30)), Some(probe(3)));
    }

    #[test]
    fn a_stall_moves_all_timers_alike() {
        let mut timers = Timers::default();
        timers.set(Nanos(10), probe(1));
        timers.set(Nanos(15), probe(2));
        timers.shift(Duration::from_nanos(100));
        assert_eq!(timers.first(), Some(Nanos(110)));
        assert_eq!(timers.pop(Nanos(112)), Some(probe(1)));
        assert_eq!(timers.pop(Nanos(112)), None);
    }
}
