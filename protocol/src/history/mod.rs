//! Is there an order in which one thing could have answered so?
//!
//! What clients saw of one thing (a key, a task, a lock) is a set of acts, each with a begin and, if its outcome is known, an end. It
//! is linearizable if the acts can be put into one order that respects what ended before something else began, so that a
//! single thing, asked in that order by one client after the other, gives the answers that were seen. An act of unknown
//! outcome may stand anywhere after its begin, or nowhere.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of Lowe ("Testing
//! for linearizability", 2017): what was done and where that led is searched once. Histories of different things are
//! searched apart, because each is linearizable alone or not at all.
//!
//! # Invariants
//!
//! * It knows nothing of logs, epochs or nodes: what it judges is what anybody outside could have written down.
//! * It gives no answer rather than a wrong one, where a history is too hard.

mod lock;
mod register;
mod search;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;

pub use lock::{Lock, LockAct, LockState};
pub use register::{Held, Register, RegisterAct, RegisterState, Since, WriteAnswer};
pub use search::{Fault, TRIES_MAX, check};
pub use task::{CancelAnswer, Ending, Stage, Standing, Task, TaskAct, TaskState};

/// How a thing behaves that is asked by one client after the other.
pub trait Model {
    /// What it holds, as far as the answers so far have told.
    type State: Clone + Ord;
    /// What is asked of it, with the answer.
    type Act: PartialEq;

    /// What it holds before anything was asked.
    fn initial(&self) -> Self::State;

    /// What it holds after this act; nothing if it could not have answered so. An act of unknown outcome took effect here:
    /// that it took none is the order in which it does not occur.
    fn after(&self, state: &Self::State, act: &Self::Act) -> Option<Self::State>;

    /// Whether two acts are the same to it, wherever they stand.
    fn is_same(&self, one: &Self::Act, other: &Self::Act) -> bool {
        one == other
    }

    /// What is told of the place of this act: those with a rank stand in the order of their ranks. It must follow from
    /// [`Model::after`] that they do; knowing it saves most of the search.
    fn rank(&self, act: &Self::Act) -> Option<u64> {
        let _ = act;
        None
    }
}

/// Something that was asked, when, and what came of it. Times only need to be comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<A> {
    /// When it was asked, or a little earlier.
    pub begin: u64,
    /// When it was answered, or a little later; `None` if the outcome is unknown: it may take effect at any later time, or
    /// never.
    pub end: Option<u64>,
    /// What it was.
    pub act: A,
}

/// What was seen of many things of one sort.
#[derive(Clone, Debug)]
pub struct History<K, A> {
    acts: BTreeMap<K, Vec<Timed<A>>>,
}

impl<K: Ord + Clone + Debug, A: PartialEq + Debug> History<K, A> {
    /// Writes an act down.
    pub fn add(&mut self, key: K, act: Timed<A>) {
        self.acts.entry(key).or_default().push(act);
    }

    /// How many acts were written down.
    #[must_use]
    pub fn len(&self) -> usize {
        self.acts.values().map(Vec::len).sum()
    }

    /// Says whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// What was seen of each thing.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &[Timed<A>])> {
        self.acts.iter().map(|(key, acts)| (key, acts.as_slice()))
    }

    /// Checks every thing by itself, against the model that `model` makes for what was seen of it. The first that has no order
    /// is told in words; otherwise it says how many histories were too hard to judge.
    pub fn check<M: Model<Act = A>>(&self, model: impl Fn(&[Timed<A>]) -> M) -> Result<usize, String> {
        let mut too_hard = 0;
        for (key, acts) in &self.acts {
            match check(&model(acts), acts) {
                Ok(()) => {}
                Err(Fault::TooHard) => too_hard += 1,
                Err(Fault::NoOrder { placed, stuck }) => return Err(no_order(key, acts, placed, stuck)),
            }
        }
        Ok(too_hard)
    }
}

impl<K, A> Default for History<K, A> {
    fn default() -> Self {
        Self { acts: BTreeMap::new() }
    }
}

/// An act that fits nowhere, with the acts beside it.
fn no_order<A: Debug>(key: &impl Debug, acts: &[Timed<A>], placed: usize, stuck: usize) -> String {
    let stuck = &acts[stuck];
    let is_near = |act: &&Timed<A>| act.end.is_none_or(|end| end >= stuck.begin) && Some(act.begin) <= stuck.end;
    let near: Vec<String> = acts.iter().filter(is_near).map(|act| format!("{act:?}")).collect();
    format!(
        "{key:?}: in no order could {stuck:?} be answered so; {placed} fit before it; beside it: {}",
        near.join("; ")
    )
}
