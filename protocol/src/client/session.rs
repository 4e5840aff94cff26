//! The session of a client, and the numbers of its requests.
//!
//! # Invariants
//!
//! * A number is handed out once per session, in order and without gaps.
//! * `incomplete` names exactly the numbers whose answers the client still waits for.

use std::collections::BTreeSet;

use crate::state::limits::WINDOW;
use crate::types::{Nanos, Seq, SessionId};

/// Whether there is a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Session {
    /// No.
    #[default]
    None,
    /// It was asked for, under this request number.
    Opening(u64),
    /// Yes.
    Open(Open),
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub(super) id: SessionId,
    /// When to ask for the next renewal; never while one is asked for.
    pub(super) renew_at: Nanos,
    next: Seq,
    incomplete: BTreeSet<Seq>,
}

impl Open {
    pub(super) fn new(id: SessionId, renew_at: Nanos) -> Self {
        Self { id, renew_at, next: Seq(1), incomplete: BTreeSet::new() }
    }

    /// The next number, if the window has room for it.
    pub(super) fn take(&mut self) -> Option<Seq> {
        let seq = self.next;
        if seq.0 >= self.first_incomplete().0 + WINDOW {
            return None;
        }
        self.next = seq.next();
        self.incomplete.insert(seq);
        Some(seq)
    }

    /// The answer to this number is here, or nobody waits for it.
    pub(super) fn complete(&mut self, seq: Seq) {
        self.incomplete.remove(&seq);
    }

    /// The client holds the answers of all requests before this one.
    pub(super) fn first_incomplete(&self) -> Seq {
        self.incomplete.first().copied().unwrap_or(self.next)
    }

    /// Says whether no write is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.incomplete.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_full_until_the_oldest_request_is_complete() {
        let mut open = Open::new(SessionId(1), Nanos(0));
        for expected in 1..=WINDOW {
            assert_eq!(open.take(), Some(Seq(expected)));
        }
        open.complete(Seq(2));
        assert_eq!(open.take(), None);
        open.complete(Seq(1));
        assert_eq!(open.first_incomplete(), Seq(3));
        assert_eq!(open.take(), Some(Seq(WINDOW + 1)));
    }
}
