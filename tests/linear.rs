//! Is there an order in which one register could have answered so?
//!
//! The history of one key is a set of operations, each with a begin and, if its outcome is known, an end. It is linearizable
//! if the operations can be put into one order that respects what ended before something else began, so that a single
//! register, asked in that order, gives the answers that were seen. An operation of unknown outcome may stand anywhere after
//! its begin, or nowhere.

use std::collections::HashSet;

/// One operation on one register. Times only need to be comparable.
#[derive(Clone, Debug)]
pub struct Operation {
    pub begin: u64,
    /// `None` if its outcome is unknown: it may still be done at any later time.
    pub end: Option<u64>,
    pub what: What,
}

/// What was asked, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A write of this value; the revision it got, if that is known.
    Put { value: u64, revision: Option<u64> },
    /// A write of this value that is only done at revision `expect`.
    Cas { expect: u64, value: u64, outcome: Cas },
    /// A read that saw this value and revision, or nothing.
    Get(Option<(u64, u64)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cas {
    Done(u64),
    Refused,
    Unknown,
}

/// The value, and its revision as far as any answer told it.
type State = Option<(u64, Option<u64>)>;

/// Which operations stand in the order already.
type Done = [u64; WORDS];

/// Longer histories are not written here: every client pauses between two operations.
pub const OPERATIONS_MAX: usize = WORDS * 64;

const WORDS: usize = 32;

/// Looks for such an order.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    assert!(operations.len() <= OPERATIONS_MAX, "one bit per operation");
    let mut seen = HashSet::new();
    search(operations, [0; WORDS], None, &mut seen)
}

fn search(operations: &[Operation], done: Done, state: State, seen: &mut HashSet<(Done, State)>) -> bool {
    let open = || operations.iter().enumerate().filter(|(place, _)| done[place / 64] & (1 << (place % 64)) == 0);
    if open().all(|(_, operation)| operation.end.is_none()) {
        return true;
    }
    if !seen.insert((done, state)) {
        return false;
    }
    // Whatever is next must have begun before the first of the others ended.
    let first_end = open().filter_map(|(_, operation)| operation.end).min().unwrap_or(u64::MAX);
    open().filter(|(_, operation)| operation.begin <= first_end).any(|(place, operation)| {
        let mut done = done;
        done[place / 64] |= 1 << (place % 64);
        next(&operation.what, state).is_some_and(|state| search(operations, done, state, seen))
    })
}

/// The register after an operation, if it can have answered so.
fn next(what: &What, state: State) -> Option<State> {
    match what {
        What::Put { value, revision } => Some(Some((*value, *revision))),
        What::Get(None) => state.is_none().then_some(None),
        What::Get(Some((value, revision))) => match state {
            Some((here, at)) if here == *value && at.is_none_or(|at| at == *revision) => {
                Some(Some((here, Some(*revision))))
            }
            _ => None,
        },
        What::Cas { expect, value, outcome } => {
            let may_match = state.is_some_and(|(_, at)| at.is_none_or(|at| at == *expect));
            let may_differ = state.is_none_or(|(_, at)| at != Some(*expect));
            match outcome {
                Cas::Done(revision) => may_match.then_some(Some((*value, Some(*revision)))),
                // Done, if it can be; that it was not done is the order in which it does not occur.
                Cas::Unknown => may_match.then_some(Some((*value, None))),
                Cas::Refused => may_differ.then_some(state),
            }
        }
    }
}

fn at(begin: u64, end: u64, what: What) -> Operation {
    Operation { begin, end: Some(end), what }
}

fn put(value: u64, revision: u64) -> What {
    What::Put { value, revision: Some(revision) }
}

#[test]
fn a_read_that_misses_an_acknowledged_write_is_found() {
    let stale = [at(0, 1, put(7, 1)), at(2, 3, put(8, 2)), at(4, 5, What::Get(Some((7, 1))))];
    assert!(!is_linearizable(&stale));
    let overlapping = [at(0, 1, put(7, 1)), at(2, 6, put(8, 2)), at(4, 5, What::Get(Some((7, 1))))];
    assert!(is_linearizable(&overlapping));
}

#[test]
fn a_write_of_unknown_outcome_may_come_later_or_never_but_not_come_and_go() {
    let unknown = Operation { begin: 2, end: None, what: What::Put { value: 8, revision: None } };
    let first = at(0, 1, put(7, 1));
    let old = |begin| at(begin, begin + 1, What::Get(Some((7, 1))));
    let new = |begin| at(begin, begin + 1, What::Get(Some((8, 2))));
    assert!(is_linearizable(&[first.clone(), unknown.clone(), old(4), new(6)]));
    assert!(is_linearizable(&[first.clone(), unknown.clone(), old(4), old(6)]));
    assert!(!is_linearizable(&[first, unknown, new(4), old(6)]));
}

#[test]
fn two_writes_on_one_revision_are_found() {
    let cas = |value, revision| What::Cas { expect: 1, value, outcome: Cas::Done(revision) };
    assert!(!is_linearizable(&[at(0, 1, put(7, 1)), at(2, 5, cas(8, 2)), at(3, 6, cas(9, 3))]));
    let refused = What::Cas { expect: 1, value: 9, outcome: Cas::Refused };
    assert!(is_linearizable(&[at(0, 1, put(7, 1)), at(2, 5, cas(8, 2)), at(3, 6, refused.clone())]));
    assert!(!is_linearizable(&[at(0, 1, put(7, 1)), at(2, 3, refused)]));
}
