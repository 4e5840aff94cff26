//! Decisions of one sort that the log has not answered yet.
//!
//! # Invariants
//!
//! * At most one decision per key is under way, and at most [`UNDER_WAY_MAX`] in all, which have [`BYTES_MAX`] bytes at most.
//! * A decision is handed out once, unless it is said to be dropped: then once more. As long as nothing else forbids to wait, what is
//!   handed out and not answered has at most [`HANDED_OUT_MAX`] bytes, or is one.

use std::collections::{BTreeMap, BTreeSet};

use crate::replica::WAITING_MAX;

/// What was decided by key, and which of it still has to be proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decisions<K, V> {
    /// With the size of each, in bytes.
    under_way: BTreeMap<K, (V, usize)>,
    fresh: BTreeSet<K>,
    /// How many bytes are under way.
    bytes: usize,
    /// How many of them are not fresh.
    handed_out: usize,
}

impl<K: Copy + Ord, V> Decisions<K, V> {
    /// Decides `value` about `key`, unless something is decided about it already or too much is under way.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        self.insert_sized(key, value, 0)
    }

    /// The same for something that takes so many bytes in the log.
    pub(super) fn insert_sized(&mut self, key: K, value: V, bytes: usize) -> bool {
        let has_room = self.under_way.len() < UNDER_WAY_MAX && (self.bytes == 0 || self.bytes + bytes <= BYTES_MAX);
        let is_new = has_room && !self.under_way.contains_key(&key);
        if is_new {
            self.bytes += bytes;
            self.under_way.insert(key, (value, bytes));
            self.fresh.insert(key);
        }
        is_new
    }

    /// The log has answered, or the question is gone.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let was_fresh = self.fresh.remove(key);
        let (value, bytes) = self.under_way.remove(key)?;
        self.bytes -= bytes;
        if !was_fresh {
            self.handed_out -= bytes;
        }
        Some(value)
    }

    /// Everything is to be proposed again.
    pub(super) fn forget_proposals(&mut self) {
        self.fresh = self.under_way.keys().copied().collect();
        self.handed_out = 0;
    }

    /// Hands out what has not been proposed since it was decided or dropped, as far as there is room.
    pub(super) fn take_fresh(&mut self) -> impl Iterator<Item = (K, &V)> {
        self.take_fresh_within(HANDED_OUT_MAX)
    }

    /// The same, however many bytes it has.
    pub(super) fn take_all_fresh(&mut self) -> impl Iterator<Item = (K, &V)> {
        self.take_fresh_within(usize::MAX)
    }

    fn take_fresh_within(&mut self, limit: usize) -> impl Iterator<Item = (K, &V)> {
        let mut taken = Vec::new();
        while let Some((key, bytes)) = self.next_fresh(limit) {
            self.fresh.remove(&key);
            self.handed_out += bytes;
            taken.push(key);
        }
        taken.into_iter().filter_map(|key| self.under_way.get(&key).map(|(value, _)| (key, value)))
    }

    /// What was decided about `key`.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.under_way.get(key).map(|(value, _)| value)
    }

    /// The keys from `first` to `last`, both included.
    pub(super) fn keys(&self, first: K, last: K) -> Vec<K> {
        self.under_way.range(first..=last).map(|(&key, _)| key).collect()
    }

    /// Says whether something has to be proposed, and may be.
    pub(super) fn has_fresh(&self) -> bool {
        self.next_fresh(HANDED_OUT_MAX).is_some()
    }

    /// The next one to hand out, and its size.
    fn next_fresh(&self, limit: usize) -> Option<(K, usize)> {
        let &key = self.fresh.first()?;
        let bytes = self.under_way.get(&key).map_or(0, |(_, bytes)| *bytes);
        (self.handed_out == 0 || self.handed_out + bytes <= limit).then_some((key, bytes))
    }
}

impl<K, V> Default for Decisions<K, V> {
    fn default() -> Self {
        Self { under_way: BTreeMap::new(), fresh: BTreeSet::new(), bytes: 0, handed_out: 0 }
    }
}

/// How many decisions of one sort may be under way. Whatever caused another one comes again.
pub(super) const UNDER_WAY_MAX: usize = 1024;

/// How many bytes of one sort may be under way, unless it is a single one. All of them, and what else the master decides, find room where
/// they wait for their entry: what stands behind one that does not would wait, too.
pub(super) const BYTES_MAX: usize = WAITING_MAX / 2;

/// How many bytes of one sort may be on their way through the log: far less than waits there before anything is dropped.
pub(super) const HANDED_OUT_MAX: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(decisions: &mut Decisions<u64, char>) -> Vec<(u64, char)> {
        decisions.take_fresh().map(|(key, value)| (key, *value)).collect()
    }

    #[test]
    fn a_decision_is_handed_out_once_and_again_only_when_dropped() {
        let mut decisions = Decisions::default();
        assert!(decisions.insert(1, 'a'));
        assert!(!decisions.insert(1, 'b'));
        assert_eq!(fresh(&mut decisions), [(1, 'a')]);
        assert_eq!(fresh(&mut decisions), []);
        decisions.forget_proposals();
        assert_eq!(fresh(&mut decisions), [(1, 'a')]);
        assert_eq!(decisions.remove(&1), Some('a'));
        assert!(decisions.insert(1, 'b'));
    }

    #[test]
    fn what_was_answered_before_it_was_proposed_is_not_proposed() {
        let mut decisions = Decisions::default();
        decisions.insert(1, 'a');
        decisions.remove(&1);
        assert_eq!(fresh(&mut decisions), []);
    }

    #[test]
    fn what_is_large_waits_for_the_answers_to_what_is_on_its_way() {
        let mut decisions = Decisions::default();
        for key in 0..4 {
            decisions.insert_sized(key, 'a', HANDED_OUT_MAX / 2);
        }
        assert_eq!(fresh(&mut decisions), [(0, 'a'), (1, 'a')]);
        assert!(!decisions.has_fresh());
        decisions.remove(&0);
        assert_eq!(fresh(&mut decisions), [(2, 'a')]);
        decisions.remove(&3);
        decisions.forget_proposals();
        assert_eq!(fresh(&mut decisions), [(1, 'a'), (2, 'a')]);
        decisions.insert_sized(9, 'b', HANDED_OUT_MAX);
        decisions.remove(&1);
        assert!(!decisions.has_fresh());
        decisions.remove(&2);
        assert_eq!(fresh(&mut decisions), [(9, 'b')], "alone it goes");
    }

    #[test]
    fn the_size_of_what_is_under_way_is_bounded() {
        let mut decisions = Decisions::default();
        assert!(decisions.insert_sized(0, 'a', 2 * BYTES_MAX), "a single one is taken, however large");
        assert!(!decisions.insert_sized(1, 'a', 1));
        decisions.remove(&0);
        assert!((1..=16).all(|key| decisions.insert_sized(key, 'a', BYTES_MAX / 16)));
        assert!(!decisions.insert_sized(17, 'a', 1));
        decisions.remove(&1);
        assert!(decisions.insert_sized(17, 'a', 1));
    }

    #[test]
    fn the_number_under_way_is_bounded() {
        let mut decisions = Decisions::default();
        for key in 0..2 * UNDER_WAY_MAX as u64 {
            decisions.insert(key, 'a');
        }
        assert_eq!(fresh(&mut decisions).len(), UNDER_WAY_MAX);
    }
}
