//! Rights that sessions hold: locks, elections, semaphores, groups, barriers, once, queues.
//!
//! All are one machine. A session claims a right, stands in line, is granted it under a fence, and gives it back or ends.
//! The kinds differ in who may hold together with whom (`record`), and in what a holder may do beside that.
//!
//! # Invariants
//!
//! * No claim without a live session: when a session ends, all of its claims go under the revision of that end, and only
//!   then whoever is next is granted anything (F5).
//! * Every grant has a revision of its own as its fence, so fences of a right grow.
//! * A right that nobody uses has no record, unless it is settled or has items.
//! * A claim is ended, settled or changed by its own session only, or ends with it.

mod record;
mod words;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

pub use self::words::*;

pub(super) use self::record::{Head, ItemKey, Standing};
use self::record::{Held, Record, item_weight};
use super::Step;
use super::digest::{Sum, Tag, fingerprint};
use super::image::Item as Part;
use super::limits::{
    MAX_CLAIM_VALUE, MAX_CLAIMS, MAX_FORGOTTEN, MAX_OUTCOME, MAX_OWNED, MAX_PAGE, MAX_PARTIES, check_key, check_size,
    full,
};
use crate::mutants::{Bug, is_on};
use crate::state::{Answer, ClusterChange, Refused};
use crate::types::{ClaimId, Fence, Revision, SessionId};
use crate::wire::MAX_VALUE;

/// All rights that somebody uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    records: OrdMap<RightId, Arc<Record>>,
    /// What each session claims.
    owned: OrdMap<SessionId, OrdMap<ClaimId, RightId>>,
    books: Books,
}

/// Size and hash of all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    bytes: u64,
    digest: Sum,
}

impl Rights {
    /// Does what a client asks; whoever owns a claim was seen to live. `room` is how many bytes may be added.
    pub(super) fn execute(
        &mut self,
        operation: &RightOperation,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Answer, Refused> {
        check_key(&operation.right().name)?;
        match operation {
            RightOperation::Claim(claim) => self.claim(claim, room, step).map(Answer::Claimed),
            RightOperation::Release { right, session, claim } => {
                self.release(right, (*session, *claim), step).map(|()| Answer::Ok)
            }
            RightOperation::SetValue { right, session, claim, value } => {
                self.set_value(right, (*session, *claim), value, room, step).map(Answer::Written)
            }
            RightOperation::Settle { right, session, claim, outcome } => {
                self.settle(right, (*session, *claim), outcome, room, step).map(Answer::Written)
            }
            RightOperation::Push { value, priority, .. } => {
                self.push(&operation.right(), value, *priority, room, step).map(Answer::Written)
            }
            RightOperation::Forget(right) => self.forget(right, step).map(Answer::Written),
        }
    }

    /// Which of these are no claims of this session, or not any more.
    pub(super) fn ended(&self, session: SessionId, claims: &[ClaimId]) -> Vec<ClaimId> {
        let owned = self.owned.get(&session);
        claims.iter().copied().filter(|claim| owned.is_none_or(|owned| !owned.contains_key(claim))).collect()
    }

    /// How many claims this session has.
    pub(super) fn owned_by(&self, session: SessionId) -> u32 {
        self.owned.get(&session).map_or(0, |owned| owned.len() as u32)
    }

    /// Ends all claims of a session under the newest revision, which is that of its end, and then grants what became free.
    pub(super) fn end_session(&mut self, session: SessionId, step: &mut Step<'_>) {
        if is_on(Bug::ClaimsOutliveSessions) {
            return;
        }
        let Some(owned) = self.owned.remove(&session) else { return };
        let mut ended: BTreeMap<RightId, Vec<(ClaimId, SessionId)>> = BTreeMap::new();
        for (claim, right) in owned {
            ended.entry(right).or_default().push((claim, session));
        }
        for (right, claims) in &ended {
            let mut record = self.open(right);
            for &(claim, _) in claims {
                self.end_claim(right, &mut record, claim);
            }
            self.put_back(right, record, *step.revision);
        }
        for (right, claims) in ended {
            self.advance(right, claims, step);
        }
    }

    fn claim(&mut self, claim: &Claim, room: u64, step: &mut Step<'_>) -> Result<Claimed, Refused> {
        let Claim { right, session, mode, value, wait } = claim;
        check_mode(right.kind, *mode)?;
        check_size(value.len(), MAX_CLAIM_VALUE)?;
        if self.owned.get(session).map_or(0, OrdMap::len) >= MAX_OWNED {
            return Err(Refused::Quota(format!("a session claims at most {MAX_OWNED} rights")));
        }
        let (session, mode, value) = (*session, *mode, value.clone());
        let standing = Standing { session, mode, value, held: None };
        let record = self.records.get(right).cloned().unwrap_or_default();
        if record.head.settled.is_some() {
            return Err(Refused::Settled);
        }
        record.check_mode(mode)?;
        if record.len() >= MAX_CLAIMS {
            return Err(Refused::Quota(format!("the {right} has {MAX_CLAIMS} claims already")));
        }
        if standing.weight() + record.head.weight(&right.name) > room {
            return Err(full());
        }
        let id = ClaimId(step.revision.next().0);
        if !wait {
            let mut trial = Record::clone(&record);
            trial.insert(id, standing.clone());
            if !trial.next(right.kind).contains(&id) {
                return Err(Refused::Held { fence: record.newest() });
            }
        }
        step.grant();
        self.owned.entry(session).or_default().insert(id, right.clone());
        let mut record = self.open(right);
        self.books.add_claim(right, id, &standing);
        record.insert(id, standing);
        self.put_back(right, record, *step.revision);
        let granted = self.advance(right.clone(), Vec::new(), step);
        let fence = granted.into_iter().find(|(claim, _)| *claim == id).map(|(_, fence)| fence);
        Ok(Claimed { claim: id, fence })
    }

    fn release(
        &mut self,
        right: &RightId,
        (session, id): (SessionId, ClaimId),
        step: &mut Step<'_>,
    ) -> Result<(), Refused> {
        let record = self.records.get(right).ok_or(Refused::NotFound)?;
        let owner = record.claim(id).ok_or(Refused::NotFound)?.session;
        if owner != session && !is_on(Bug::ReleasesForAnybody) {
            return Err(Refused::NotHeld { current: record.newest() });
        }
        let revision = step.grant();
        let mut record = self.open(right);
        self.end_claim(right, &mut record, id);
        self.put_back(right, record, revision);
        self.advance(right.clone(), vec![(id, owner)], step);
        Ok(())
    }

    fn set_value(
        &mut self,
        right: &RightId,
        (session, id): (SessionId, ClaimId),
        value: &Bytes,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Revision, Refused> {
        check_size(value.len(), MAX_CLAIM_VALUE)?;
        self.find_held(right, session, id)?;
        if value.len() as u64 > room {
            return Err(full());
        }
        let revision = step.grant();
        let mut record = self.open(right);
        self.books.remove_claim(right, id, record.claim(id).expect("found above"));
        record.set_value(id, value.clone());
        self.books.add_claim(right, id, record.claim(id).expect("found above"));
        self.put_back(right, record, revision);
        self.advance(right.clone(), Vec::new(), step);
        Ok(revision)
    }

    fn settle(
        &mut self,
        right: &RightId,
        (session, id): (SessionId, ClaimId),
        outcome: &Bytes,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Revision, Refused> {
        check_size(outcome.len(), MAX_OUTCOME)?;
        let item = match right.kind {
            RightKind::Once => None,
            RightKind::Queue if outcome.is_empty() => self.find_held(right, session, id)?.item,
            RightKind::Queue => return invalid("an item of a queue has no outcome"),
            _ => return invalid("only a once and the items of a queue are settled"),
        };
        if right.kind == RightKind::Once && !is_on(Bug::SettlesWithoutRight) {
            self.find_held(right, session, id)?;
        }
        if outcome.len() as u64 > room {
            return Err(full());
        }
        let revision = step.grant();
        let mut record = self.open(right);
        let mut ended = Vec::from_iter(self.end_claim(right, &mut record, id));
        if let Some(key) = item {
            let value = record.drop_item(key).expect("a live grant holds its item");
            self.books.remove_item(right, key, &value);
        } else {
            record.head.settled = Some(outcome.clone());
            for claim in record.waiting() {
                ended.extend(self.end_claim(right, &mut record, claim));
            }
        }
        self.put_back(right, record, revision);
        self.advance(right.clone(), ended, step);
        Ok(revision)
    }

    fn push(
        &mut self,
        queue: &RightId,
        value: &Bytes,
        priority: i32,
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Revision, Refused> {
        check_size(value.len(), MAX_VALUE)?;
        let head = self.records.get(queue).map_or(Head::default(), |record| record.head.clone());
        if item_weight(value) + head.weight(&queue.name) > room {
            return Err(full());
        }
        let revision = step.grant();
        let key = (std::cmp::Reverse(priority), revision);
        let mut record = self.open(queue);
        self.books.add_item(queue, key, value);
        record.push(key, value.clone());
        self.put_back(queue, record, revision);
        self.advance(queue.clone(), Vec::new(), step);
        Ok(revision)
    }

    fn forget(&mut self, right: &RightId, step: &mut Step<'_>) -> Result<Revision, Refused> {
        let found = self.records.get(right).ok_or(Refused::NotFound)?;
        if found.head.settled.is_none() && found.first_item().is_none() {
            return Err(Refused::NotFound);
        }
        let revision = step.grant();
        let mut record = self.open(right);
        record.head.settled = None;
        for key in record.free().take(MAX_FORGOTTEN) {
            let value = record.drop_item(key).expect("it is in the index of items");
            self.books.remove_item(right, key, &value);
        }
        self.put_back(right, record, revision);
        self.advance(right.clone(), Vec::new(), step);
        Ok(revision)
    }

    /// Grants a right to whoever is next, and tells what became of its claims.
    fn advance(
        &mut self,
        right: RightId,
        ended: Vec<(ClaimId, SessionId)>,
        step: &mut Step<'_>,
    ) -> Vec<(ClaimId, Fence)> {
        let next = self.records.get(&right).map_or(Vec::new(), |record| record.next(right.kind));
        let mut granted: Vec<(ClaimId, Fence)> = Vec::new();
        if !next.is_empty() {
            let mut record = self.open(&right);
            for id in next {
                let fence = if is_on(Bug::FencesRepeat) { Fence(step.revision.0) } else { step.grant().into() };
                let round = granted.first().map_or(fence, |(_, first)| *first);
                let item = record.first_item().filter(|_| right.kind == RightKind::Queue);
                self.books.remove_claim(&right, id, record.claim(id).expect("it is in line"));
                record.grant(id, Held { fence, round, item });
                self.books.add_claim(&right, id, record.claim(id).expect("it was in line"));
                granted.push((id, fence));
            }
            self.put_back(&right, record, *step.revision);
        }
        let change = RightChange { right, granted: granted.clone(), ended };
        step.changes.push(ClusterChange::Right(Box::new(change)));
        granted
    }

    /// Takes a record out to change it, an empty one if there is none.
    fn open(&mut self, right: &RightId) -> Record {
        let Some(record) = self.records.remove(right) else { return Record::default() };
        self.books.remove_head(right, &record.head);
        Arc::unwrap_or_clone(record)
    }

    /// Ends the change of a record.
    fn put_back(&mut self, right: &RightId, mut record: Record, revision: Revision) {
        if record.is_empty() {
            return;
        }
        record.head.modified = revision;
        self.books.add_head(right, &record.head);
        self.records.insert(right.clone(), Arc::new(record));
    }

    /// Ends a claim, if it stands.
    fn end_claim(&mut self, right: &RightId, record: &mut Record, id: ClaimId) -> Option<(ClaimId, SessionId)> {
        let claim = record.remove(id)?;
        self.books.remove_claim(right, id, &claim);
        if let Some(owned) = self.owned.get_mut(&claim.session) {
            owned.remove(&id);
            if owned.is_empty() {
                self.owned.remove(&claim.session);
            }
        }
        Some((id, claim.session))
    }

    /// What is known of a right, with a page of holders that have greater fences than `after`.
    pub(super) fn view(&self, right: &RightId, after: Fence) -> RightView {
        self.records.get(right).map_or_else(RightView::default, |record| record.view(after))
    }

    /// The rights that are in use, in order.
    pub(super) fn page(&self, after: Option<&RightId>, limit: u32) -> Vec<RightLine> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.records.range::<(Bound<&RightId>, Bound<&RightId>), RightId>((begin, Bound::Unbounded));
        rest.take(MAX_PAGE.min(limit as usize)).map(|(right, record)| record.line(right)).collect()
    }

    /// Where a claim stands.
    pub(super) fn claim_state(&self, right: &RightId, id: ClaimId) -> ClaimState {
        let Some(record) = self.records.get(right) else { return ClaimState::Gone };
        match (record.claim(id), &record.head.settled) {
            (Some(Standing { held: Some(held), .. }), _) => ClaimState::Held(record.show(*held)),
            (Some(_), _) => ClaimState::Waiting,
            (None, Some(outcome)) => ClaimState::Settled(outcome.clone()),
            (None, None) => ClaimState::Gone,
        }
    }

    /// Says whether a grant is live: the condition of whatever must happen only under it.
    pub(super) fn is_held(&self, right: &RightId, fence: Fence) -> bool {
        let is_held = |record: &Arc<Record>| record.is_held(fence) || is_on(Bug::HeldByAnybody);
        self.records.get(right).is_some_and(is_held)
    }

    /// How many rights are in use.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.books.bytes
    }

    /// The hash of all rights.
    pub(super) fn digest(&self) -> u64 {
        self.books.digest.value()
    }

    /// What this session holds by this claim.
    fn find_held(&self, right: &RightId, session: SessionId, id: ClaimId) -> Result<Held, Refused> {
        let record = self.records.get(right);
        let claim = record.and_then(|record| record.claim(id)).filter(|claim| claim.session == session);
        let held = claim.and_then(|claim| claim.held);
        held.ok_or_else(|| Refused::NotHeld { current: record.map_or(Fence(0), |record| record.newest()) })
    }

    // ---- images ----

    /// All of this as parts of an image: each right, then its items, then its claims.
    pub(super) fn into_items(self) -> impl Iterator<Item = Part> {
        self.records.into_iter().flat_map(|(right, record)| {
            let items = record.items().map(|(key, value)| Part::Queued(key, value.clone()));
            let claims = record.claims().map(|(id, claim)| Part::Claim(id, claim.clone()));
            let parts: Vec<Part> = items.chain(claims).collect();
            std::iter::once(Part::Right(right, record.head.clone())).chain(parts)
        })
    }

    /// Takes a right as it was elsewhere; says whether it can stand here.
    pub(super) fn restore(&mut self, right: RightId, head: Head) -> bool {
        let is_settled = head.settled.as_ref();
        let is_sound = check_key(&right.name).is_ok()
            && !self.records.contains_key(&right)
            && is_settled.is_none_or(|outcome| right.kind == RightKind::Once && outcome.len() <= MAX_OUTCOME);
        self.books.add_head(&right, &head);
        self.records.insert(right, Arc::new(Record::new(head)));
        is_sound
    }

    /// Takes an item of a queue as it was elsewhere; says whether it can stand here.
    pub(super) fn restore_item(&mut self, queue: &RightId, key: ItemKey, value: Bytes) -> bool {
        let Some(record) = self.records.get_mut(queue).map(Arc::make_mut) else { return false };
        if record.item(key).is_some() || queue.kind != RightKind::Queue || value.len() > MAX_VALUE {
            return false;
        }
        self.books.add_item(queue, key, &value);
        record.push(key, value);
        true
    }

    /// Takes a claim as it was elsewhere; says whether it can stand here.
    pub(super) fn restore_claim(&mut self, right: &RightId, id: ClaimId, claim: Standing) -> bool {
        let Some(record) = self.records.get_mut(right).map(Arc::make_mut) else { return false };
        let is_free = match claim.held {
            Some(Held { fence, item, .. }) => {
                let is_item_free = item.is_none_or(|key| record.is_free(key));
                !record.is_held(fence) && is_item_free && (item.is_some() == (right.kind == RightKind::Queue))
            }
            None => true,
        };
        let is_known = record.claim(id).is_some() || record.len() >= MAX_CLAIMS;
        if !is_free || is_known || check_mode(right.kind, claim.mode).is_err() || claim.value.len() > MAX_CLAIM_VALUE {
            return false;
        }
        self.books.add_claim(right, id, &claim);
        let owned = self.owned.entry(claim.session).or_default();
        owned.insert(id, right.clone());
        let is_within = owned.len() <= MAX_OWNED;
        record.insert(id, claim);
        is_within
    }
}

impl Books {
    fn add_head(&mut self, right: &RightId, head: &Head) {
        self.digest.add(fingerprint(Tag::Right, &(right, head)));
        self.bytes += head.weight(&right.name);
    }

    fn remove_head(&mut self, right: &RightId, head: &Head) {
        self.digest.remove(fingerprint(Tag::Right, &(right, head)));
        self.bytes -= head.weight(&right.name);
    }

    fn add_claim(&mut self, right: &RightId, id: ClaimId, claim: &Standing) {
        self.digest.add(fingerprint(Tag::Claim, &(right, id, claim)));
        self.bytes += claim.weight();
    }

    fn remove_claim(&mut self, right: &RightId, id: ClaimId, claim: &Standing) {
        self.digest.remove(fingerprint(Tag::Claim, &(right, id, claim)));
        self.bytes -= claim.weight();
    }

    fn add_item(&mut self, queue: &RightId, key: ItemKey, value: &Bytes) {
        self.digest.add(fingerprint(Tag::Item, &(queue, key, value)));
        self.bytes += item_weight(value);
    }

    fn remove_item(&mut self, queue: &RightId, key: ItemKey, value: &Bytes) {
        self.digest.remove(fingerprint(Tag::Item, &(queue, key, value)));
        self.bytes -= item_weight(value);
    }
}

/// Refuses a way to hold that a right of this kind does not know.
fn check_mode(kind: RightKind, mode: Mode) -> Result<(), Refused> {
    let range = 1..=MAX_PARTIES;
    match (kind, mode) {
        (RightKind::Lock | RightKind::Election | RightKind::Once | RightKind::Queue, Mode::Exclusive)
        | (RightKind::Lock, Mode::Shared)
        | (RightKind::Group, Mode::Member) => Ok(()),
        (RightKind::Semaphore, Mode::Permits { count, limit }) if count >= 1 && count <= limit => Ok(()),
        (RightKind::Semaphore, Mode::Permits { .. }) => invalid("a claim takes at least one permit, and at most all"),
        (RightKind::Barrier, Mode::Party { parties }) if range.contains(&parties) => Ok(()),
        (RightKind::Barrier, Mode::Party { .. }) => invalid("a barrier is for 1 to 4096 parties"),
        _ => invalid("a right of this kind is not held like this"),
    }
}

fn invalid<T>(why: &str) -> Result<T, Refused> {
    Err(Refused::Invalid(why.into()))
}

#[cfg(test)]
impl Rights {
    /// Recomputes size, hash and indexes from the records, and compares.
    pub(super) fn assert_coherent(&self) {
        let mut fresh = Self::default();
        for part in self.clone().into_items().scan(None, |right, part| {
            if let Part::Right(id, _) = &part {
                *right = Some(id.clone());
            }
            Some((right.clone().expect("a right comes first"), part))
        }) {
            let is_sound = match part {
                (_, Part::Right(right, head)) => fresh.restore(right, head),
                (right, Part::Queued(key, value)) => fresh.restore_item(&right, key, value),
                (right, Part::Claim(id, claim)) => fresh.restore_claim(&right, id, claim),
                (_, other) => panic!("no part of a right: {other:?}"),
            };
            assert!(is_sound, "a record cannot be restored");
        }
        assert_eq!(&fresh, self, "an index, size or hash of the rights drifted");
        for (right, record) in &self.records {
            assert!(!record.is_empty(), "{right} is of no use");
            assert!(record.next(right.kind).is_empty(), "{right} is free and not granted");
        }
    }

    /// Whose claim this is.
    pub(super) fn owner(&self, right: &RightId, id: ClaimId) -> Option<SessionId> {
        self.records.get(right)?.claim(id).map(|claim| claim.session)
    }

    /// The sessions that claim something.
    pub(super) fn owners(&self) -> Vec<SessionId> {
        self.owned.keys().copied().collect()
    }
}
