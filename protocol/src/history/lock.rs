//! One lock: granted, given back, refused, looked at.
//!
//! A grant was asked for at its begin and was known to somebody at its end. The end of a session is an act of unknown outcome on each of
//! its claims, from the moment on at which its owner no longer relied on it: so a grant to another one before that has no place in any
//! order, whoever it is that ended the session.
//!
//! # Invariants
//!
//! * One writer or any number of readers hold it.
//! * A later grant has a greater fence.
//! * A claim is granted once, and ends once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Timed};
use crate::types::{ClaimId, Fence};

/// A lock that nobody holds at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    /// Claims that were certainly granted: what is known of their ends comes after that.
    granted: BTreeSet<ClaimId>,
}

/// What happened to a lock. A claim of which nobody was told the name has one that no other claim has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAct {
    /// It was granted to a claim; the fence is known unless the outcome is not.
    Grant {
        /// To which.
        claim: ClaimId,
        /// Under which fence.
        fence: Option<Fence>,
        /// Together with other readers.
        is_shared: bool,
    },
    /// A claim ended that stood.
    End(ClaimId),
    /// Somebody who did not want to wait was told that it is held, and under which fence.
    Refuse(Fence),
    /// Somebody saw that it is held by these, and by nobody else.
    Look(BTreeMap<ClaimId, Fence>),
}

/// Who holds a lock, as far as the answers have told.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockState {
    holders: BTreeMap<ClaimId, LockHolder>,
    /// The greatest fence that is known.
    last: Fence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LockHolder {
    fence: Option<Fence>,
    is_shared: bool,
}

impl Lock {
    /// The model for these acts.
    #[must_use]
    pub fn of(acts: &[Timed<LockAct>]) -> Self {
        let granted = acts.iter().filter(|timed| timed.end.is_some()).filter_map(|timed| match timed.act {
            LockAct::Grant { claim, .. } => Some(claim),
            _ => None,
        });
        Self { granted: granted.collect() }
    }
}

impl Model for Lock {
    type State = LockState;
    type Act = LockAct;

    fn initial(&self) -> LockState {
        LockState::default()
    }

    fn after(&self, state: &LockState, act: &LockAct) -> Option<LockState> {
        match act {
            LockAct::Grant { claim, fence, is_shared } => {
                state.grant(*claim, LockHolder { fence: *fence, is_shared: *is_shared })
            }
            LockAct::End(claim) => state.end(*claim, self.granted.contains(claim)),
            LockAct::Refuse(fence) => {
                let is_it = |holder: &LockHolder| holder.fence.is_none_or(|held| held == *fence);
                state.holders.values().any(is_it).then(|| state.clone())
            }
            LockAct::Look(seen) => {
                let is_seen = |(claim, holder): (&ClaimId, &LockHolder)| {
                    holder.fence.is_some() && seen.get(claim).copied() == holder.fence
                };
                let are_equal = state.holders.len() == seen.len() && state.holders.iter().all(is_seen);
                are_equal.then(|| state.clone())
            }
        }
    }

    fn rank(&self, act: &LockAct) -> Option<u64> {
        match act {
            LockAct::Grant { fence, .. } => fence.map(|fence| fence.0),
            _ => None,
        }
    }
}

impl LockState {
    fn grant(&self, claim: ClaimId, holder: LockHolder) -> Option<Self> {
        let fits = self.holders.is_empty() || holder.is_shared && self.holders.values().all(|other| other.is_shared);
        let is_next = holder.fence.is_none_or(|fence| fence > self.last) && !self.holders.contains_key(&claim);
        if !fits || !is_next {
            return None;
        }
        let mut next = self.clone();
        next.holders.insert(claim, holder);
        next.last = holder.fence.unwrap_or(self.last);
        Some(next)
    }

    /// A claim that was not certainly granted may have ended in line.
    fn end(&self, claim: ClaimId, was_granted: bool) -> Option<Self> {
        let mut next = self.clone();
        let is_held = next.holders.remove(&claim).is_some();
        (is_held || !was_granted).then_some(next)
    }
}
