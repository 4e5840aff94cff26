//! Counters: numbers that everybody adds to, each addition once.
//!
//! An addition may be marked with a key. The same key again adds nothing and is answered with the first one's result, for
//! [`MARK_KEEP`] after it. Marks are never evicted by count: when there is no room for one, the addition is refused (F9).
//!
//! # Invariants
//!
//! * Every mark stands in `deadlines` once, under its own end.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::Step;
use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{COUNTER_BYTES, MARK_BYTES, check_key, full};
use crate::state::{Answer, Refused};
use crate::types::{ClusterTime, Revision};

/// How long a mark is remembered.
pub const MARK_KEEP: Duration = Duration::from_secs(3600);

/// An addition to a counter, which is zero before the first one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Add {
    /// The counter's name.
    pub counter: Arc<str>,
    /// May be negative. What leaves the 64 bits is refused.
    pub by: i64,
    /// Adds only if nothing was added under this mark within [`MARK_KEEP`].
    pub once: Option<Arc<str>>,
}

/// What can be done with counters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CounterOperation {
    /// Add to one. Answered with [`Answer::Counted`].
    ///
    /// [`Answer::Counted`]: crate::state::Answer::Counted
    Add(Add),
    /// Remove one. Answered with [`Answer::Written`]. Its marks stay: what was added once is not added again to its successor.
    ///
    /// [`Answer::Written`]: crate::state::Answer::Written
    Remove(Arc<str>),
}

/// A counter's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counted {
    /// The value, behind the addition that this answers.
    pub value: i64,
    /// The revision of that addition; for a question, of the last one; zero if there was none.
    pub revision: Revision,
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    values: OrdMap<Arc<str>, Counted>,
    marks: OrdMap<(Arc<str>, Arc<str>), Mark>,
    deadlines: OrdSet<(ClusterTime, Arc<str>, Arc<str>)>,
    bytes: u64,
    digest: Sum,
}

/// What an addition came to that must not be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    counted: Counted,
    until: ClusterTime,
}

impl CounterOperation {
    /// How many bytes its encoding takes at most.
    pub(crate) fn size(&self) -> usize {
        let names = match self {
            Self::Add(Add { counter, once, .. }) => counter.len() + once.as_ref().map_or(0, |once| once.len()),
            Self::Remove(counter) => counter.len(),
        };
        40 + names
    }
}

impl Counters {
    /// Does what a client asks. `room` is how many bytes may be added.
    pub(super) fn execute(
        &mut self,
        operation: &CounterOperation,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Answer, Refused> {
        match operation {
            CounterOperation::Add(add) => self.add(add, room, step).map(Answer::Counted),
            CounterOperation::Remove(counter) => self.remove(counter, step).map(Answer::Written),
        }
    }

    fn add(&mut self, add: &Add, room: u64, step: &mut Step<'_>) -> Result<Counted, Refused> {
        let Add { counter, by, once } = add;
        check_key(counter)?;
        if let Some(once) = once {
            check_key(once)?;
            if let Some(mark) = self.marks.get(&(counter.clone(), once.clone())) {
                return Ok(mark.counted);
            }
        }
        let mark = once.as_ref().map_or(0, |once| mark_weight(counter, once));
        let room = room.checked_sub(mark).ok_or_else(full)?;
        let counted = self.increase(counter, *by, room, step.upcoming())?;
        step.grant();
        if let Some(once) = once {
            self.restore_mark(counter.clone(), once.clone(), Mark { counted, until: step.time + MARK_KEEP });
        }
        Ok(counted)
    }

    /// Adds to a counter under this revision. `room` is how many bytes may be added.
    pub(super) fn increase(
        &mut self,
        counter: &Arc<str>,
        by: i64,
        room: u64,
        revision: Revision,
    ) -> Result<Counted, Refused> {
        let before = self.values.get(counter).copied();
        let value =
            before.unwrap_or_default().value.checked_add(by).ok_or_else(|| {
                Refused::Invalid("the sum leaves the range of 64-bit integers: nothing was added".into())
            })?;
        if before.is_none() && weight(counter) > room {
            return Err(full());
        }
        let counted = Counted { value, revision };
        if let Some(before) = before {
            self.forget_value(counter, before);
        }
        self.restore(counter.clone(), counted);
        Ok(counted)
    }

    fn remove(&mut self, counter: &str, step: &mut Step<'_>) -> Result<Revision, Refused> {
        let counted = self.values.get(counter).copied().ok_or(Refused::NotFound)?;
        self.forget_value(counter, counted);
        Ok(step.grant())
    }

    /// Forgets a mark whose time is over; says whether there was one.
    pub(super) fn forget_one(&mut self, time: ClusterTime) -> bool {
        let Some((until, counter, once)) = self.deadlines.get_min().filter(|(until, ..)| *until <= time).cloned()
        else {
            return false;
        };
        self.deadlines.remove(&(until, counter.clone(), once.clone()));
        let key = (counter, once);
        let mark = self.marks.remove(&key).expect("it is in the index of deadlines");
        self.digest.remove(fingerprint(Tag::Mark, &(&key, mark)));
        self.bytes -= mark_weight(&key.0, &key.1);
        true
    }

    /// A counter's value.
    pub(super) fn get(&self, counter: &str) -> Counted {
        self.values.get(counter).copied().unwrap_or_default()
    }

    /// When the first mark is forgotten.
    pub(super) fn next_expiry(&self) -> Option<ClusterTime> {
        self.deadlines.get_min().map(|(until, ..)| *until)
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hash of all counters and marks.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        let values = self.values.into_iter().map(|(counter, counted)| Item::Counter(counter, counted));
        values.chain(self.marks.into_iter().map(|((counter, once), mark)| Item::Mark(counter, once, mark)))
    }

    /// Takes a counter as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(&mut self, counter: Arc<str>, counted: Counted) -> bool {
        self.digest.add(fingerprint(Tag::Counter, &(&counter, counted)));
        self.bytes += weight(&counter);
        let is_sound = check_key(&counter).is_ok();
        self.values.insert(counter, counted).is_none() && is_sound
    }

    /// Takes a mark as it was elsewhere; says whether it can stand here.
    pub(super) fn restore_mark(&mut self, counter: Arc<str>, once: Arc<str>, mark: Mark) -> bool {
        let key = (counter, once);
        self.digest.add(fingerprint(Tag::Mark, &(&key, mark)));
        self.bytes += mark_weight(&key.0, &key.1);
        self.deadlines.insert((mark.until, key.0.clone(), key.1.clone()));
        let is_sound = check_key(&key.0).is_ok() && check_key(&key.1).is_ok();
        self.marks.insert(key, mark).is_none() && is_sound
    }

    fn forget_value(&mut self, counter: &str, counted: Counted) {
        self.digest.remove(fingerprint(Tag::Counter, &(counter, counted)));
        self.bytes -= weight(counter);
        self.values.remove(counter);
    }
}

fn weight(counter: &str) -> u64 {
    COUNTER_BYTES + counter.len() as u64
}

fn mark_weight(counter: &str, once: &str) -> u64 {
    MARK_BYTES + (counter.len() + once.len()) as u64
}

#[cfg(test)]
impl Counters {
    /// Recomputes size, hash and index from the records, and compares.
    pub(super) fn assert_coherent(&self) {
        let mut fresh = Self::default();
        for (counter, counted) in &self.values {
            assert!(fresh.restore(counter.clone(), *counted));
        }
        for ((counter, once), mark) in &self.marks {
            assert!(fresh.restore_mark(counter.clone(), once.clone(), *mark));
        }
        assert_eq!(&fresh, self, "an index, size or hash of the counters drifted");
    }
}
