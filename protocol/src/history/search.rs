//! Looks for an order, and forgets no dead end.
//!
//! # Invariants
//!
//! * Acts stand in the order only behind everything that had ended before they began.
//! * An act of unknown outcome is put into the order only where it makes a difference to the act behind it: without it the
//!   same order would do. So a write that nobody saw costs next to nothing, however many there are.
//! * What was reached with fewer acts of unknown outcome is not searched again with more: what is left over may never happen.

use std::collections::BTreeMap;

use super::{Model, Timed};

/// Why a history was not found to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no order.
    NoOrder {
        /// How many acts of known outcome the longest one has that was found.
        placed: usize,
        /// The place in the history of the act that does not fit behind it.
        stuck: usize,
    },
    /// Nobody knows: the search was given up after [`TRIES_MAX`] tries.
    TooHard,
}

/// Looks for an order in which `model` could have answered so.
pub fn check<M: Model>(model: &M, acts: &[Timed<M::Act>]) -> Result<(), Fault> {
    Search::new(model, acts).run()
}

struct Search<'a, M: Model> {
    model: &'a M,
    acts: &'a [Timed<M::Act>],
    /// The places of the acts of known outcome, by their begin.
    known: Vec<usize>,
    /// The places of the others, by their begin.
    doubtful: Vec<usize>,
    /// Those of `known` that have a rank, by their ranks.
    ranked: Vec<(u64, usize)>,
    /// What stands in the order.
    done: Done,
    /// What was searched already: the acts of known outcome in an order and where it led, and each choice of the others.
    seen: BTreeMap<(Bits, M::State), Vec<Bits>>,
    path: Vec<Step<M::State>>,
    tries: usize,
}

/// The acts that stand in the order, by their places.
struct Done {
    known: Bits,
    doubtful: Bits,
}

/// One bit per act.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

/// The order so far, up to one act.
struct Step<S> {
    state: S,
    /// The last act; none at the beginning.
    via: Option<usize>,
    /// If its outcome is unknown, where the order stood before it.
    without: Option<S>,
    /// How many acts of known outcome stand in the order.
    placed: usize,
    /// All of `known` before this stand in the order.
    first: usize,
    /// All of `ranked` before this do.
    lowest: usize,
    /// What may stand next, the last one first, and whether those of unknown outcome are among them or were.
    next: Vec<usize>,
    has_doubts: bool,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, acts: &'a [Timed<M::Act>]) -> Self {
        let mut places: Vec<usize> = (0..acts.len()).collect();
        places.sort_by_key(|place| acts[*place].begin);
        let (known, doubtful): (Vec<usize>, Vec<usize>) =
            places.into_iter().partition(|place| acts[*place].end.is_some());
        let rank = |place: &usize| Some((model.rank(&acts[*place].act)?, *place));
        let mut ranked: Vec<(u64, usize)> = known.iter().filter_map(rank).collect();
        ranked.sort_unstable();
        let none = Bits(vec![0; acts.len().div_ceil(64)]);
        let done = Done { known: none.clone(), doubtful: none };
        Self { model, acts, known, doubtful, ranked, done, seen: BTreeMap::new(), path: Vec::new(), tries: 0 }
    }

    fn run(mut self) -> Result<(), Fault> {
        let mut longest = Fault::TooHard;
        let mut most = None;
        self.enter(self.model.initial(), None, None);
        while let Some(step) = self.path.last() {
            if step.placed == self.known.len() {
                return Ok(());
            }
            if most < Some(step.placed) {
                most = Some(step.placed);
                longest = Fault::NoOrder { placed: step.placed, stuck: self.stuck(step.first, step.lowest) };
            }
            match self.try_next() {
                Some((place, state)) => {
                    let step = self.path.last().expect("looked at above");
                    let without = self.acts[place].end.is_none().then(|| step.state.clone());
                    self.enter(state, Some(place), without);
                }
                None if self.tries > TRIES_MAX => return Err(Fault::TooHard),
                None => self.leave(),
            }
        }
        Err(longest)
    }

    /// The next act that can stand behind the order so far, and where it leads.
    fn try_next(&mut self) -> Option<(usize, M::State)> {
        loop {
            if self.tries > TRIES_MAX {
                return None;
            }
            let step = self.path.last_mut().expect("called within the search");
            let Some(place) = step.next.pop() else {
                if std::mem::replace(&mut step.has_doubts, true) {
                    return None;
                }
                let first = step.first;
                let doubts = self.doubts(first);
                self.path.last_mut().expect("as above").next = doubts;
                continue;
            };
            self.tries += 1;
            let act = &self.acts[place].act;
            let lowest = self.ranked.get(step.lowest).map(|(rank, _)| *rank);
            if lowest.is_some_and(|lowest| self.model.rank(act).is_some_and(|rank| rank > lowest)) {
                continue;
            }
            let Some(state) = self.model.after(&step.state, act) else { continue };
            let makes_no_difference =
                step.without.as_ref().is_some_and(|without| self.model.after(without, act).as_ref() == Some(&state));
            if makes_no_difference {
                continue;
            }
            self.flip(place);
            if self.is_new(&state) {
                return Some((place, state));
            }
            self.flip(place);
        }
    }

    /// Says whether this was not reached with fewer acts of unknown outcome, or as few, and remembers it.
    fn is_new(&mut self, state: &M::State) -> bool {
        let choices = self.seen.entry((self.done.known.clone(), state.clone())).or_default();
        let is_new = !choices.iter().any(|fewer| fewer.are_among(&self.done.doubtful));
        if is_new {
            choices.push(self.done.doubtful.clone());
        }
        is_new
    }

    fn flip(&mut self, place: usize) {
        let is_known = self.acts[place].end.is_some();
        if is_known { &mut self.done.known } else { &mut self.done.doubtful }.flip(place);
    }

    fn enter(&mut self, state: M::State, via: Option<usize>, without: Option<M::State>) {
        let (placed, mut first, mut lowest) =
            self.path.last().map_or((0, 0, 0), |step| (step.placed, step.first, step.lowest));
        let placed = placed + usize::from(via.is_some() && without.is_none());
        while self.known.get(first).is_some_and(|place| self.done.known.has(*place)) {
            first += 1;
        }
        while self.ranked.get(lowest).is_some_and(|(_, place)| self.done.known.has(*place)) {
            lowest += 1;
        }
        let mut next = self.candidates(first);
        // Whatever ended first stands first, most of the time.
        next.sort_by_key(|place| std::cmp::Reverse(self.acts[*place].end));
        self.path.push(Step { state, via, without, placed, first, lowest, next, has_doubts: false });
    }

    fn leave(&mut self) {
        if let Some(place) = self.path.pop().and_then(|step| step.via) {
            self.flip(place);
        }
    }

    /// The acts of known outcome that began before any of those that the order lacks had ended.
    fn candidates(&self, first: usize) -> Vec<usize> {
        let mut first_end = u64::MAX;
        let mut found = Vec::new();
        for &place in self.known[first..].iter().filter(|place| !self.done.known.has(**place)) {
            if self.acts[place].begin > first_end {
                break;
            }
            first_end = first_end.min(self.acts[place].end.unwrap_or(u64::MAX));
            found.push(place);
        }
        found
    }

    /// The acts of unknown outcome that may stand next. Of equal ones, the first stands for all.
    fn doubts(&self, first: usize) -> Vec<usize> {
        let first_end = self.acts[self.first_to_end(first)].end.unwrap_or(u64::MAX);
        let mut found: Vec<usize> = Vec::new();
        for &place in self.doubtful.iter().filter(|place| !self.done.doubtful.has(**place)) {
            if self.acts[place].begin > first_end {
                break;
            }
            if !found.iter().any(|other| self.model.is_same(&self.acts[*other].act, &self.acts[place].act)) {
                found.push(place);
            }
        }
        found.reverse();
        found
    }

    /// The act that fits nowhere, most likely: one that shows what should be over before it began, or else the first to end.
    fn stuck(&self, first: usize, lowest: usize) -> usize {
        let candidates = self.candidates(first);
        let late = self.ranked.get(lowest).map(|(_, place)| *place).filter(|place| !candidates.contains(place));
        late.unwrap_or_else(|| self.first_to_end(first))
    }

    /// The act that ends first of those of known outcome that the order lacks.
    fn first_to_end(&self, first: usize) -> usize {
        let candidates = self.candidates(first).into_iter();
        candidates.min_by_key(|place| self.acts[*place].end).expect("the order lacks something")
    }
}

impl Bits {
    fn are_among(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own & !other == 0)
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }
}

/// How many acts are tried behind some order before the search is given up: a second, and some ten megabytes at most.
pub const TRIES_MAX: usize = 200_000;
