//! One right: who holds it, who is in line, and who is next.
//!
//! # Invariants
//!
//! * Claims are granted in the order in which they were made: nobody passes whoever is first in line, free or not.
//! * `waiting`, `holders`, `used` and `free` follow from `claims` and `items`.

use std::cmp::Reverse;
use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::words::{Holder, Mode, RightId, RightKind, RightLine, RightView};
use crate::mutants::{Bug, is_on};
use crate::state::limits::{CLAIM_BYTES, ITEM_BYTES, MAX_PAGE, MAX_PAGE_BYTES, RIGHT_BYTES};
use crate::state::{Grant, Item, Refused};
use crate::types::{ClaimId, Fence, Revision, SessionId};

/// See the module. A record that nobody uses is [empty](Record::is_empty) and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) head: Head,
    claims: OrdMap<ClaimId, Standing>,
    items: OrdMap<ItemKey, Bytes>,
    waiting: OrdSet<ClaimId>,
    holders: OrdMap<Fence, ClaimId>,
    /// How many permits are held.
    used: u64,
    /// Items that nobody holds.
    free: OrdSet<ItemKey>,
}

/// What is true of the right as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::state) struct Head {
    /// The revision of the last change.
    pub(super) modified: Revision,
    /// The outcome of a once.
    pub(super) settled: Option<Bytes>,
}

/// A claim, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::state) struct Standing {
    pub(in crate::state) session: SessionId,
    pub(super) mode: Mode,
    pub(super) value: Bytes,
    pub(super) held: Option<Held>,
}

/// What a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::state) struct Held {
    pub(super) fence: Fence,
    pub(super) round: Fence,
    pub(super) item: Option<ItemKey>,
}

/// An item's place in its queue: higher priority first, then older.
pub(in crate::state) type ItemKey = (Reverse<i32>, Revision);

impl Record {
    /// A right without claims and items.
    pub(super) fn new(head: Head) -> Self {
        Self { head, ..Self::default() }
    }

    /// Adds a claim.
    pub(super) fn insert(&mut self, id: ClaimId, claim: Standing) {
        match claim.held {
            Some(held) => self.note_held(id, claim.mode, held),
            None => drop(self.waiting.insert(id)),
        }
        self.claims.insert(id, claim);
    }

    /// Removes a claim; an item that it held is back in its place.
    pub(super) fn remove(&mut self, id: ClaimId) -> Option<Standing> {
        let claim = self.claims.remove(&id)?;
        match claim.held {
            Some(held) => {
                self.holders.remove(&held.fence);
                self.used -= claim.mode.permits();
                self.free.extend(held.item.filter(|key| self.items.contains_key(key)));
            }
            None => drop(self.waiting.remove(&id)),
        }
        Some(claim)
    }

    /// Grants the right to a claim in line.
    pub(super) fn grant(&mut self, id: ClaimId, held: Held) {
        self.waiting.remove(&id);
        let claim = self.claims.get_mut(&id).expect("whoever is in line has a claim");
        claim.held = Some(held);
        let mode = claim.mode;
        self.note_held(id, mode, held);
    }

    fn note_held(&mut self, id: ClaimId, mode: Mode, held: Held) {
        self.holders.insert(held.fence, id);
        self.used += mode.permits();
        if let Some(key) = held.item {
            self.free.remove(&key);
        }
    }

    /// Changes what a claim says of itself.
    pub(super) fn set_value(&mut self, id: ClaimId, value: Bytes) {
        self.claims.get_mut(&id).expect("the caller has seen it").value = value;
    }

    /// Adds an item that nobody holds.
    pub(super) fn push(&mut self, key: ItemKey, value: Bytes) {
        self.items.insert(key, value);
        self.free.insert(key);
    }

    /// Removes an item.
    pub(super) fn drop_item(&mut self, key: ItemKey) -> Option<Bytes> {
        self.free.remove(&key);
        self.items.remove(&key)
    }

    /// Who is to be granted now, in this order; whoever comes after them may not pass those who are not.
    pub(super) fn next(&self, kind: RightKind) -> Vec<ClaimId> {
        if kind == RightKind::Barrier {
            return self.next_round();
        }
        let mut used = self.used;
        let mut shares = self.holders.get_min().is_none_or(|(_, holder)| self.claims[holder].mode == Mode::Shared);
        let mut is_taken = !self.holders.is_empty();
        let mut items = self.free.len();
        let mut next = Vec::new();
        let line: Box<dyn Iterator<Item = &ClaimId>> =
            if is_on(Bug::BargesQueue) { Box::new(self.waiting.iter().rev()) } else { Box::new(self.waiting.iter()) };
        for &id in line {
            let is_free = match self.claims[&id].mode {
                Mode::Exclusive if kind == RightKind::Queue => items > 0,
                Mode::Exclusive => !is_taken,
                Mode::Shared => shares || is_on(Bug::ReadsBesideWriter),
                Mode::Permits { count, limit } => used + u64::from(count) <= u64::from(limit),
                Mode::Member => true,
                Mode::Party { .. } => false,
            };
            if !is_free {
                break;
            }
            used += self.claims[&id].mode.permits();
            shares &= self.claims[&id].mode == Mode::Shared;
            is_taken = true;
            items = items.saturating_sub(1);
            next.push(id);
        }
        next
    }

    /// Everybody, if enough are in line. Those of earlier rounds who have not left do not count.
    fn next_round(&self) -> Vec<ClaimId> {
        let enough = self.waiting.get_min().map(|id| self.claims[id].mode.parties());
        match enough {
            Some(parties) if self.waiting.len() >= parties => self.waiting.iter().take(parties).copied().collect(),
            _ => Vec::new(),
        }
    }

    /// The item that goes first.
    pub(super) fn first_item(&self) -> Option<ItemKey> {
        self.free.get_min().copied()
    }

    /// Refuses a claim that counts otherwise than those who use the right now.
    pub(super) fn check_mode(&self, mode: Mode) -> Result<(), Refused> {
        let used = self.claims.get_min().map(|(_, claim)| claim.mode);
        match (used, mode) {
            (Some(Mode::Permits { limit: current, .. }), Mode::Permits { limit, .. }) if current != limit => {
                Err(Refused::Invalid(format!("the semaphore has {current} permits for all who use it now")))
            }
            (Some(Mode::Party { parties: current }), Mode::Party { parties }) if current != parties => {
                Err(Refused::Invalid(format!("the barrier is for {current} parties for all who use it now")))
            }
            _ => Ok(()),
        }
    }

    /// A claim.
    pub(super) fn claim(&self, id: ClaimId) -> Option<&Standing> {
        self.claims.get(&id)
    }

    /// The value of an item, held or not.
    pub(super) fn item(&self, key: ItemKey) -> Option<&Bytes> {
        self.items.get(&key)
    }

    /// What a claim was granted, as it is shown.
    pub(super) fn show(&self, held: Held) -> Grant {
        let item = held.item.and_then(|key| {
            let value = self.items.get(&key)?.clone();
            Some(Item { id: key.1, priority: key.0.0, value })
        });
        Grant { fence: held.fence, round: held.round, item }
    }

    /// The newest grant that is live; zero if nobody holds the right.
    pub(super) fn newest(&self) -> Fence {
        self.holders.get_max().map_or(Fence(0), |(fence, _)| *fence)
    }

    /// Says whether this grant is live.
    pub(super) fn is_held(&self, fence: Fence) -> bool {
        self.holders.contains_key(&fence)
    }

    /// Says whether there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.items.is_empty() && self.head.settled.is_none()
    }

    /// How many claims there are.
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    /// All claims.
    pub(super) fn claims(&self) -> impl Iterator<Item = (ClaimId, &Standing)> {
        self.claims.iter().map(|(&id, claim)| (id, claim))
    }

    /// All items.
    pub(super) fn items(&self) -> impl Iterator<Item = (ItemKey, &Bytes)> {
        self.items.iter().map(|(&key, value)| (key, value))
    }

    /// Says whether there is such an item and nobody holds it.
    pub(super) fn is_free(&self, key: ItemKey) -> bool {
        self.free.contains(&key)
    }

    /// Items that nobody holds.
    pub(super) fn free(&self) -> impl Iterator<Item = ItemKey> + use<> {
        self.free.clone().into_iter()
    }

    /// Claims in line.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ClaimId> + use<> {
        self.waiting.clone().into_iter()
    }

    /// As it is shown, with a page of holders that have greater fences than this.
    pub(super) fn view(&self, after: Fence) -> RightView {
        let mut room = MAX_PAGE_BYTES;
        let behind = |fence| self.holders.range((Bound::Excluded(fence), Bound::Unbounded));
        let page = behind(after).take(MAX_PAGE).map(|(_, id)| self.holder(*id));
        let holders: Vec<Holder> = page
            .take_while(|holder| {
                let fits = holder.value.len() <= room;
                room = room.saturating_sub(holder.value.len() + CLAIM_BYTES as usize);
                fits
            })
            .collect();
        let last = holders.last().map_or(after, |holder| holder.fence);
        RightView {
            revision: self.head.modified,
            has_more: behind(last).next().is_some(),
            holders,
            waiting: self.waiting.len() as u64,
            items: self.free.len() as u64,
            settled: self.head.settled.clone(),
        }
    }

    /// The record in a list.
    pub(super) fn line(&self, right: &RightId) -> RightLine {
        let first = self.holders.get_min().map(|(fence, id)| (self.claims[id].session, *fence));
        RightLine {
            right: right.clone(),
            revision: self.head.modified,
            first,
            holders: self.holders.len() as u64,
            waiting: self.waiting.len() as u64,
            items: self.free.len() as u64,
            is_settled: self.head.settled.is_some(),
        }
    }

    fn holder(&self, id: ClaimId) -> Holder {
        let Standing { session, mode, value, held } = self.claims[&id].clone();
        let Held { fence, round, .. } = held.expect("it is in the index of those who hold");
        Holder { claim: id, session, mode, fence, round, value }
    }
}

impl Head {
    /// How many bytes the right counts for beside claims and items.
    pub(super) fn weight(&self, name: &str) -> u64 {
        RIGHT_BYTES + (name.len() + self.settled.as_ref().map_or(0, Bytes::len)) as u64
    }
}

impl Standing {
    /// How many bytes the claim counts for.
    pub(super) fn weight(&self) -> u64 {
        CLAIM_BYTES + self.value.len() as u64
    }
}

impl Mode {
    /// How many permits it takes.
    fn permits(self) -> u64 {
        match self {
            Self::Permits { count, .. } => u64::from(count),
            _ => 0,
        }
    }

    fn parties(self) -> usize {
        match self {
            Self::Party { parties } => parties as usize,
            _ => 0,
        }
    }
}

/// How many bytes an item counts for.
pub(super) fn item_weight(value: &Bytes) -> u64 {
    ITEM_BYTES + value.len() as u64
}
