//! What will happen, ordered by time and then by age.
//!
//! # Invariants
//!
//! * Two happenings at one time come in the order in which they were added, so that a seed replays exactly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Happenings to come. They lie still in a slab while only their times are sorted.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slab: Vec<Option<T>>,
    free: Vec<u32>,
    added: u64,
}

impl<T> Queue<T> {
    /// Nothing will happen.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), slab: Vec::new(), free: Vec::new(), added: 0 }
    }

    /// `what` will happen at `at`.
    pub fn add(&mut self, at: u64, what: T) {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slab.push(None);
                (self.slab.len() - 1) as u32
            }
        };
        self.slab[place as usize] = Some(what);
        self.added += 1;
        self.heap.push(Reverse((at, self.added, place)));
    }

    /// The next happening, if it comes no later than `until`.
    pub fn next(&mut self, until: u64) -> Option<(u64, T)> {
        let &Reverse((at, _, place)) = self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        Some((at, self.slab[place as usize].take().expect("what is in the heap is in the slab")))
    }
}
