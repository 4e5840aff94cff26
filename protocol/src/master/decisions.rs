//! Decisions of one sort that the log has not answered yet.
//!
//! # Invariants
//!
//! * At most one decision per key is under way, and at most [`UNDER_WAY_MAX`] in all.
//! * A decision is handed out once, unless it is said to be dropped: then once more.

use std::collections::{BTreeMap, BTreeSet};

/// What was decided by key, and which of it still has to be proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decisions<K, V> {
    under_way: BTreeMap<K, V>,
    fresh: BTreeSet<K>,
}

impl<K: Copy + Ord, V> Decisions<K, V> {
    /// Decides `value` about `key`, unless something is decided about it already or too much is under way.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        let is_new = self.under_way.len() < UNDER_WAY_MAX && !self.under_way.contains_key(&key);
        if is_new {
            self.under_way.insert(key, value);
            self.fresh.insert(key);
        }
        is_new
    }

    /// The log has answered, or the question is gone.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.fresh.remove(key);
        self.under_way.remove(key)
    }

    /// Everything is to be proposed again.
    pub(super) fn forget_proposals(&mut self) {
        self.fresh = self.under_way.keys().copied().collect();
    }

    /// Hands out what has not been proposed since it was decided or dropped.
    pub(super) fn take_fresh(&mut self) -> impl Iterator<Item = (K, &V)> {
        let Self { under_way, fresh } = self;
        std::mem::take(fresh).into_iter().filter_map(|key| under_way.get(&key).map(|value| (key, value)))
    }

    /// What was decided about `key`.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.under_way.get(key)
    }

    /// The keys from `first` to `last`, both included.
    pub(super) fn keys(&self, first: K, last: K) -> Vec<K> {
        self.under_way.range(first..=last).map(|(&key, _)| key).collect()
    }

    /// Says whether something has to be proposed.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }
}

impl<K, V> Default for Decisions<K, V> {
    fn default() -> Self {
        Self { under_way: BTreeMap::new(), fresh: BTreeSet::new() }
    }
}

/// How many decisions of one sort may be under way. Whatever caused another one comes again.
pub(super) const UNDER_WAY_MAX: usize = 1024;

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
    fn the_number_under_way_is_bounded() {
        let mut decisions = Decisions::default();
        for key in 0..2 * UNDER_WAY_MAX as u64 {
            decisions.insert(key, 'a');
        }
        assert_eq!(fresh(&mut decisions).len(), UNDER_WAY_MAX);
    }
}
