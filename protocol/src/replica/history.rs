//! What happened to keys lately, for those who watch them.
//!
//! The history follows from the log: it is in no image and no digest, and after a restart it begins where the snapshot ends.
//! It forgets by itself, oldest first, and says so instead of showing a gap.
//!
//! # Invariants
//!
//! * All changes of revisions above `floor` are here, in order, and none at or below it.
//! * A revision is remembered whole or not at all, and told whole or not at all.

use std::collections::VecDeque;

use crate::mutants::{Bug, is_on};
use crate::state::{Changes, KeyChange, KeyEvent, Watch};
use crate::types::Revision;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct History {
    changes: VecDeque<KeyChange>,
    bytes: usize,
    /// The last revision that is forgotten.
    floor: Revision,
}

impl History {
    /// Nothing is known of what happened up to this revision.
    pub(super) fn from(floor: Revision) -> Self {
        let floor = if is_on(Bug::HistoryHasAHole) { Revision(0) } else { floor };
        Self { changes: VecDeque::new(), bytes: 0, floor }
    }

    /// Remembers a change, and forgets the oldest for it.
    pub(super) fn note(&mut self, change: KeyChange) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.changes.len() > CHANGES_MAX || self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// What a watch is to be told, up to `newest`: that of the state. Fails with the floor if some of it is forgotten.
    pub(super) fn since(&self, watch: &Watch, newest: Revision) -> Result<Changes, Revision> {
        if watch.after < self.floor {
            return Err(self.floor);
        }
        let begin = self.changes.partition_point(|change| change.revision <= watch.after);
        let mut told = Changes { changes: Vec::new(), next: watch.after.max(newest) };
        let (mut bytes, mut whole) = (0, 0);
        for change in self.changes.range(begin..).filter(|change| change.key.starts_with(&watch.prefix)) {
            let is_same = told.changes.last().is_some_and(|last| last.revision == change.revision);
            if !is_same {
                whole = told.changes.len();
            } else if is_on(Bug::WatchSkipsATransactionHalf) {
                continue;
            }
            bytes += weight(change);
            if whole > 0 && bytes > ANSWER_BYTES_MAX {
                told.changes.truncate(whole);
                told.next = told.changes[whole - 1].revision;
                break;
            }
            told.changes.push(change.clone());
        }
        Ok(told)
    }

    /// Forgets a whole revision.
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.changes.front().map(|change| change.revision) else { return };
        self.floor = oldest;
        while let Some(change) = self.changes.pop_front_if(|change| change.revision == oldest) {
            self.bytes -= weight(&change);
        }
    }
}

fn weight(change: &KeyChange) -> usize {
    let value = match &change.what {
        KeyEvent::Put(value) => value.value.len(),
        KeyEvent::Deleted(_) => 0,
    };
    CHANGE_BYTES + change.key.len() + value
}

/// How many changes are remembered.
const CHANGES_MAX: usize = 16_384;

/// How many bytes they may take.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a change takes beside key and value.
const CHANGE_BYTES: usize = 160;

/// How much one answer tells, unless a single revision is larger.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::KeyEnd;

    fn change(revision: u64, key: &str) -> KeyChange {
        KeyChange { revision: Revision(revision), key: key.into(), what: KeyEvent::Deleted(KeyEnd::Deleted) }
    }

    fn large(revision: u64, len: usize) -> KeyChange {
        let value = crate::state::Value {
            value: vec![7; len].into(),
            created: Revision(1),
            modified: Revision(revision),
            owner: None,
            expires: None,
        };
        KeyChange { what: KeyEvent::Put(value), ..change(revision, "k") }
    }

    fn watch(prefix: &str, after: u64) -> Watch {
        Watch { prefix: prefix.into(), after: Revision(after) }
    }

    fn told(changes: &Changes) -> Vec<u64> {
        changes.changes.iter().map(|change| change.revision.0).collect()
    }

    #[test]
    fn a_watch_is_told_what_matches_in_order_and_where_to_go_on() {
        let mut history = History::from(Revision(5));
        [change(6, "a/1"), change(7, "b"), change(9, "a/2"), change(9, "a")]
            .into_iter()
            .for_each(|change| history.note(change));
        let all = history.since(&watch("a/", 5), Revision(12)).unwrap();
        assert_eq!((told(&all), all.next), (vec![6, 9], Revision(12)));
        let rest = history.since(&watch("", 7), Revision(12)).unwrap();
        assert_eq!((told(&rest), rest.next), (vec![9, 9], Revision(12)));
        let none = history.since(&watch("a/", 9), Revision(12)).unwrap();
        assert_eq!((told(&none), none.next), (vec![], Revision(12)));
        let ahead = history.since(&watch("", 40), Revision(12)).unwrap();
        assert_eq!((told(&ahead), ahead.next), (vec![], Revision(40)), "who knows more already is not sent back");
    }

    #[test]
    fn what_happened_before_the_history_begins_is_forgotten_and_not_skipped() {
        let history = History::from(Revision(5));
        assert_eq!(history.since(&watch("", 4), Revision(9)), Err(Revision(5)));
        assert!(history.since(&watch("", 5), Revision(9)).is_ok());
    }

    #[test]
    fn it_forgets_whole_revisions_oldest_first() {
        let mut history = History::from(Revision(0));
        [change(1, "a"), change(1, "b")].into_iter().for_each(|change| history.note(change));
        (2..=CHANGES_MAX as u64).for_each(|revision| history.note(change(revision, "a")));
        assert_eq!(history.floor, Revision(1));
        assert_eq!(history.since(&watch("", 0), Revision(9)), Err(Revision(1)));
        let count = history.changes.len();
        (0..9).for_each(|more| history.note(large(1_000_000 + more, BYTES_MAX / 8)));
        assert!(history.changes.len() < count && history.bytes <= BYTES_MAX);
        assert!(history.floor < history.changes[0].revision);
    }

    #[test]
    fn an_answer_is_cut_between_revisions_and_never_inside_one() {
        let mut history = History::from(Revision(0));
        let half = ANSWER_BYTES_MAX / 2;
        for (revision, len) in [(1, half), (2, half), (2, half), (2, half), (3, 10)] {
            history.note(large(revision, len));
        }
        let first = history.since(&watch("", 0), Revision(9)).unwrap();
        assert_eq!((told(&first), first.next), (vec![1], Revision(1)));
        let second = history.since(&watch("", 1), Revision(9)).unwrap();
        assert_eq!((told(&second), second.next), (vec![2, 2, 2], Revision(2)), "one revision, however large");
        let third = history.since(&watch("", 2), Revision(9)).unwrap();
        assert_eq!((told(&third), third.next), (vec![3], Revision(9)));
    }
}
