//! One key: written, compared and written, removed, read.
//!
//! # Invariants
//!
//! * Every write has a revision greater than all before it, told or not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Timed};
use crate::state::Expect;
use crate::types::Revision;

/// A key that holds nothing at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// Values that were written by one act only, with the revision at which they were seen. What nobody was told is known
    /// from the answers of others then, long before the search comes to them.
    seen: BTreeMap<u64, Revision>,
    /// Every value that was read.
    read: BTreeSet<u64>,
}

/// What is asked of a key, with the answer. Values are known by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterAct {
    /// A write of this value, or of nothing, if the key is as expected.
    Write {
        /// What is written; nothing removes the key.
        value: Option<u64>,
        /// Only if.
        expect: Expect,
        /// What came of it.
        answer: WriteAnswer,
    },
    /// A read that saw this value and its revision, or nothing.
    Read(Option<(u64, Revision)>),
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAnswer {
    /// It was done at this revision.
    Done(Revision),
    /// The key was not as expected but at this revision, if the answer says: zero where it holds nothing.
    Conflict(Option<Revision>),
    /// There was nothing to remove.
    NotFound,
    /// Nobody knows.
    Unknown,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisterState {
    /// The value, if there is one.
    pub value: Option<Held>,
    /// When it was written or removed.
    pub since: Since,
}

/// A value, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// This one.
    Value(u64),
    /// One that nobody has ever seen: it is like any other of them.
    Unseen,
}

/// A revision, as far as answers told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// This one.
    At(Revision),
    /// A later one.
    After(Revision),
}

impl Register {
    /// The model for these acts.
    #[must_use]
    pub fn of(acts: &[Timed<RegisterAct>]) -> Self {
        let mut writes: BTreeMap<u64, usize> = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for timed in acts {
            match timed.act {
                RegisterAct::Write { value: Some(value), .. } => *writes.entry(value).or_default() += 1,
                RegisterAct::Read(Some((value, revision))) => {
                    seen.insert(value, revision);
                }
                _ => {}
            }
        }
        let read = seen.keys().copied().collect();
        seen.retain(|value, _| writes.get(value) == Some(&1));
        Self { seen, read }
    }

    fn held(&self, value: u64) -> Held {
        if self.read.contains(&value) { Held::Value(value) } else { Held::Unseen }
    }

    /// What came of a write, by its own answer or those of others.
    fn told(&self, value: Option<u64>, answer: WriteAnswer) -> WriteAnswer {
        match value.and_then(|value| self.seen.get(&value)) {
            Some(revision) if answer == WriteAnswer::Unknown => WriteAnswer::Done(*revision),
            _ => answer,
        }
    }
}

impl Model for Register {
    type State = RegisterState;
    type Act = RegisterAct;

    fn initial(&self) -> RegisterState {
        RegisterState { value: None, since: Since::At(Revision(0)) }
    }

    fn after(&self, state: &RegisterState, act: &RegisterAct) -> Option<RegisterState> {
        match act {
            RegisterAct::Write { value, expect, answer } => {
                state.write(value.map(|value| self.held(value)), *expect, self.told(*value, *answer))
            }
            RegisterAct::Read(None) => state.value.is_none().then_some(*state),
            RegisterAct::Read(Some((value, revision))) => {
                state.found(*revision).filter(|_| state.value == Some(self.held(*value)))
            }
        }
    }

    fn is_same(&self, one: &RegisterAct, other: &RegisterAct) -> bool {
        match (one, other) {
            (
                RegisterAct::Write { value: Some(one), expect, answer },
                RegisterAct::Write { value: Some(other), expect: other_expect, answer: other_answer },
            ) => self.held(*one) == self.held(*other) && (expect, answer) == (other_expect, other_answer),
            _ => one == other,
        }
    }

    fn rank(&self, act: &RegisterAct) -> Option<u64> {
        let revision = match act {
            RegisterAct::Write { value, answer, .. } => match self.told(*value, *answer) {
                WriteAnswer::Done(revision) | WriteAnswer::Conflict(Some(revision)) => revision,
                WriteAnswer::Conflict(None) | WriteAnswer::NotFound | WriteAnswer::Unknown => return None,
            },
            RegisterAct::Read(found) => found.as_ref()?.1,
        };
        (revision != Revision(0)).then_some(revision.0)
    }
}

impl RegisterState {
    fn write(self, value: Option<Held>, expect: Expect, answer: WriteAnswer) -> Option<Self> {
        match answer {
            WriteAnswer::Done(revision) => {
                let before = self.as_expected(expect)?;
                let is_done = before.may_be_written(value) && before.since.may_precede(revision);
                is_done.then_some(Self { value, since: Since::At(revision) })
            }
            WriteAnswer::Unknown => {
                let before = self.as_expected(expect)?;
                let (Since::At(last) | Since::After(last)) = before.since;
                before.may_be_written(value).then_some(Self { value, since: Since::After(last) })
            }
            WriteAnswer::Conflict(None) => self.may_differ(expect).then_some(self),
            WriteAnswer::Conflict(Some(current)) => {
                let found = self.found(current)?;
                found.as_expected(expect).is_none().then_some(found)
            }
            WriteAnswer::NotFound => {
                let is_conflict = matches!(expect, Expect::Revision(wanted) if wanted != Revision(0));
                (self.value.is_none() && !is_conflict).then_some(self)
            }
        }
    }

    /// The state if the key turns out to be as expected, if it can be.
    fn as_expected(self, expect: Expect) -> Option<Self> {
        match expect {
            Expect::Any => Some(self),
            Expect::Absent => self.value.is_none().then_some(self),
            Expect::Present => self.value.is_some().then_some(self),
            Expect::Revision(wanted) => self.found(wanted),
        }
    }

    /// Whether it can be otherwise.
    fn may_differ(self, expect: Expect) -> bool {
        match (expect, self.since) {
            (Expect::Revision(_), Since::After(_)) if self.value.is_some() => true,
            _ => self.as_expected(expect).is_none(),
        }
    }

    /// The state if the key turns out to be at this revision, if it can be; zero means that there is nothing.
    fn found(self, revision: Revision) -> Option<Self> {
        if revision == Revision(0) || self.value.is_none() {
            return (revision == Revision(0) && self.value.is_none()).then_some(self);
        }
        let is_so = match self.since {
            Since::At(known) => known == revision,
            Since::After(last) => last < revision,
        };
        is_so.then_some(Self { since: Since::At(revision), ..self })
    }

    /// Only what is there can be removed.
    fn may_be_written(self, value: Option<Held>) -> bool {
        value.is_some() || self.value.is_some()
    }
}

impl Since {
    fn may_precede(self, revision: Revision) -> bool {
        let (Self::At(last) | Self::After(last)) = self;
        last < revision
    }
}
