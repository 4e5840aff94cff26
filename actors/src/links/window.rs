//! How much may be in flight: a window at the sender, a ledger at the receiver, cumulative credit between them.
//!
//! # Invariants
//!
//! * In flight = taken by the sender and not yet freed by the receiver; it never exceeds the window.
//! * Credit is cumulative: announcing a total twice, or skipping one, changes nothing. Credit for more than was sent is
//!   ignored as far as it exceeds.
//! * The receiver announces at the latest when an eighth of the window waits for announcement, so a full window always
//!   opens again without a timer.

use serde::{Deserialize, Serialize};

use super::Class;

/// Messages and bytes, counted since the link began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Total {
    pub messages: u64,
    pub bytes: u64,
}

/// The sender's half.
#[derive(Clone, Debug)]
pub(super) struct Window {
    limit: Total,
    sent: Total,
    freed: Total,
}

/// The receiver's half.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    limit: Total,
    received: Total,
    freed: Total,
    announced: Total,
}

impl Window {
    pub(super) fn new(class: Class) -> Self {
        Self { limit: limit(class), sent: Total::default(), freed: Total::default() }
    }

    /// Takes credit for one frame of `cost`, unless the window has no room for it.
    pub(super) fn take(&mut self, cost: u64) -> bool {
        let has_room = self.sent.messages - self.freed.messages < self.limit.messages
            && self.sent.bytes - self.freed.bytes + cost <= self.limit.bytes;
        if has_room {
            self.sent.add(1, cost);
        }
        has_room
    }

    /// Notes what the receiver says it has taken off so far. True if that opened the window.
    pub(super) fn credit(&mut self, freed: Total) -> bool {
        let before = self.freed;
        self.freed.messages = before.messages.max(freed.messages.min(self.sent.messages));
        self.freed.bytes = before.bytes.max(freed.bytes.min(self.sent.bytes));
        self.freed != before
    }
}

impl Ledger {
    pub(super) fn new(class: Class) -> Self {
        Self { limit: limit(class), received: Total::default(), freed: Total::default(), announced: Total::default() }
    }

    /// Notes the arrival of one frame. False if the sender had no credit for it.
    pub(super) fn receive(&mut self, cost: u64) -> bool {
        self.received.add(1, cost);
        self.received.messages - self.announced.messages <= self.limit.messages
            && self.received.bytes - self.announced.bytes <= self.limit.bytes
    }

    /// Notes that frames were taken off. True if it is time to announce.
    pub(super) fn free(&mut self, messages: u64, bytes: u64) -> bool {
        self.freed.add(messages, bytes);
        self.freed.messages - self.announced.messages >= self.limit.messages / ANNOUNCE_PART
            || self.freed.bytes - self.announced.bytes >= self.limit.bytes / ANNOUNCE_PART
    }

    /// The total to announce now.
    pub(super) fn announce(&mut self) -> Total {
        self.announced = self.freed;
        self.freed
    }
}

impl Total {
    fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }
}

/// What a frame of `len` bytes costs: its bytes, and what carrying it takes however short it is.
pub(super) fn cost(len: usize) -> u64 {
    len as u64 + OVERHEAD
}

/// The limit of a class, in messages and bytes.
pub(super) fn limit(class: Class) -> Total {
    match class {
        Class::Control => Total { messages: 64, bytes: 64 * 1024 },
        Class::Data => Total { messages: 1 << 20, bytes: 448 * 1024 },
        Class::Bulk => Total { messages: 1 << 20, bytes: 512 * 1024 },
    }
}

/// Header, allocation and queue slots of one frame, roughly, in bytes.
pub(super) const OVERHEAD: u64 = 64;

/// The receiver announces when this part of the window waits for it.
const ANNOUNCE_PART: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_opens_when_the_receiver_takes_off() {
        let (mut window, mut ledger) = (Window::new(Class::Data), Ledger::new(Class::Data));
        let mut sent = 0;
        while window.take(1000) {
            sent += 1;
            assert!(ledger.receive(1000));
        }
        assert_eq!(sent, 448 * 1024 / 1000);
        let mut taken = 1;
        while !ledger.free(1, 1000) {
            taken += 1;
        }
        window.credit(ledger.announce());
        assert_eq!((0..1000).filter(|_| window.take(1000)).count(), taken);
    }

    #[test]
    fn control_is_bounded_in_messages_too() {
        let mut window = Window::new(Class::Control);
        assert_eq!((0..1000).filter(|_| window.take(cost(1))).count(), 64);
    }

    #[test]
    fn credit_for_what_was_never_sent_is_worth_nothing() {
        let mut window = Window::new(Class::Control);
        assert!(window.take(100));
        window.credit(Total { messages: u64::MAX, bytes: u64::MAX });
        assert_eq!((0..1000).filter(|_| window.take(cost(1))).count(), 64);
    }

    #[test]
    fn credit_that_comes_late_or_twice_takes_nothing_back() {
        let mut window = Window::new(Class::Control);
        for _ in 0..64 {
            assert!(window.take(100));
        }
        window.credit(Total { messages: 32, bytes: 3200 });
        window.credit(Total { messages: 16, bytes: 1600 });
        window.credit(Total { messages: 32, bytes: 3200 });
        assert_eq!((0..1000).filter(|_| window.take(100)).count(), 32);
    }

    #[test]
    fn a_sender_beyond_its_window_is_seen() {
        let mut ledger = Ledger::new(Class::Control);
        assert!((0..64).all(|_| ledger.receive(100)));
        assert!(!ledger.receive(100));
    }
}
