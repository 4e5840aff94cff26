//! Rights and counters once more, as lists.

use bytes::Bytes;

use super::naive::{Naive, Outcomes};
use crate::state::limits::{MAX_CLAIM_VALUE, MAX_OUTCOME, check_key, check_size};
use crate::state::*;
use crate::types::*;

/// All rights and counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NaiveRights {
    pub(super) claims: Vec<NaiveClaim>,
    items: Vec<(RightId, Item)>,
    settled: Vec<(RightId, Bytes)>,
    modified: Vec<(RightId, u64)>,
    counters: Vec<(String, Counted)>,
    pub(super) marks: Vec<(String, String, Counted, ClusterTime)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct NaiveClaim {
    pub(super) id: ClaimId,
    pub(super) right: RightId,
    pub(super) session: SessionId,
    mode: Mode,
    value: Bytes,
    pub(super) held: Option<Grant>,
}

impl NaiveRights {
    pub(super) fn in_use(&self) -> u64 {
        self.modified.len() as u64
    }
}

impl Naive {
    pub(super) fn right(&mut self, operation: &RightOperation) -> Outcomes {
        let right = operation.right();
        check_key(&right.name)?;
        let revision = Revision(self.revision + 1);
        match operation {
            RightOperation::Claim(claim) => return self.claim(claim),
            RightOperation::Release { session, claim, .. } => {
                let named = self.named(&right, *claim).ok_or(Refused::NotFound)?;
                if named.session != *session {
                    return Err(Refused::NotHeld { current: self.newest(&right) });
                }
                self.grant();
                self.rights().claims.retain(|other| other.id != *claim);
                self.advance(&right);
                return Ok(Answer::Ok);
            }
            RightOperation::SetValue { session, claim, value, .. } => {
                check_size(value.len(), MAX_CLAIM_VALUE)?;
                self.held(&right, *session, *claim)?;
                self.rights().claims.iter_mut().find(|other| other.id == *claim).unwrap().value = value.clone();
            }
            RightOperation::Settle { session, claim, outcome, .. } => {
                check_size(outcome.len(), MAX_OUTCOME)?;
                match right.kind {
                    RightKind::Once => {
                        self.held(&right, *session, *claim)?;
                        self.rights().claims.retain(|other| other.right != right);
                        self.rights().settled.push((right.clone(), outcome.clone()));
                    }
                    RightKind::Queue if !outcome.is_empty() => {
                        return Err(Refused::Invalid("an item of a queue has no outcome".into()));
                    }
                    RightKind::Queue => {
                        let item = self.held(&right, *session, *claim)?.item.unwrap().id;
                        self.rights().claims.retain(|other| other.id != *claim);
                        self.rights().items.retain(|(_, other)| other.id != item);
                    }
                    _ => return Err(Refused::Invalid("only a once and the items of a queue are settled".into())),
                }
            }
            RightOperation::Push { value, priority, .. } => {
                let item = Item { id: revision, priority: *priority, value: value.clone() };
                self.rights().items.push((right.clone(), item));
            }
            RightOperation::Forget(_) => {
                let free = self.free(&right);
                if free.is_empty() && self.outcome(&right).is_none() {
                    return Err(Refused::NotFound);
                }
                self.rights().settled.retain(|(other, _)| *other != right);
                self.rights().items.retain(|(_, item)| !free.contains(item));
            }
        }
        self.grant();
        self.advance(&right);
        Ok(Answer::Written(revision))
    }

    fn claim(&mut self, claim: &Claim) -> Outcomes {
        let Claim { right, session, mode, value, wait } = claim.clone();
        self.check_mode(right.kind, mode)?;
        check_size(value.len(), MAX_CLAIM_VALUE)?;
        if self.outcome(&right).is_some() {
            return Err(Refused::Settled);
        }
        let said = self.content.rights.claims.iter().find(|other| other.right == right).map(|other| other.mode);
        match (said, mode) {
            (Some(Mode::Permits { limit: said, .. }), Mode::Permits { limit, .. }) if said != limit => {
                return Err(Refused::Invalid(format!("the semaphore has {said} permits for all who use it now")));
            }
            (Some(Mode::Party { parties: said }), Mode::Party { parties }) if said != parties => {
                return Err(Refused::Invalid(format!("the barrier is for {said} parties for all who use it now")));
            }
            _ => {}
        }
        let before = self.clone();
        let id = ClaimId(self.grant());
        self.rights().claims.push(NaiveClaim { id, right: right.clone(), session, mode, value, held: None });
        self.advance(&right);
        let fence = self.named(&right, id).unwrap().held.as_ref().map(|grant| grant.fence);
        if fence.is_none() && !wait {
            *self = before;
            return Err(Refused::Held { fence: self.newest(&right) });
        }
        Ok(Answer::Claimed(Claimed { claim: id, fence }))
    }

    fn check_mode(&self, kind: RightKind, mode: Mode) -> Result<(), Refused> {
        let why = match (kind, mode) {
            (RightKind::Lock | RightKind::Election | RightKind::Once | RightKind::Queue, Mode::Exclusive) => {
                return Ok(());
            }
            (RightKind::Lock, Mode::Shared) | (RightKind::Group, Mode::Member) => return Ok(()),
            (RightKind::Semaphore, Mode::Permits { count, limit }) if (1..=limit).contains(&count) => return Ok(()),
            (RightKind::Barrier, Mode::Party { parties: 1..=4096 }) => return Ok(()),
            (RightKind::Semaphore, Mode::Permits { .. }) => "a claim takes at least one permit, and at most all",
            (RightKind::Barrier, Mode::Party { .. }) => "a barrier is for 1 to 4096 parties",
            _ => "a right of this kind is not held like this",
        };
        Err(Refused::Invalid(why.into()))
    }

    /// Grants one claim after the other, as long as whoever is first in line may hold the right beside those who do.
    fn advance(&mut self, right: &RightId) {
        let mut round = None;
        while let Some(next) = self.next(right, round) {
            let fence = Fence(self.grant());
            let item = self.free(right).into_iter().next().filter(|_| right.kind == RightKind::Queue);
            let claim = self.rights().claims.iter_mut().find(|claim| claim.id == next).unwrap();
            claim.held = Some(Grant { fence, round: *round.get_or_insert(fence), item });
        }
        let revision = self.revision;
        let rights = self.rights();
        rights.modified.retain(|(other, _)| other != right);
        let is_used = rights.claims.iter().any(|claim| claim.right == *right)
            || rights.items.iter().any(|(queue, _)| queue == right)
            || rights.settled.iter().any(|(once, _)| once == right);
        if is_used {
            rights.modified.push((right.clone(), revision));
        }
    }

    fn next(&self, right: &RightId, round: Option<Fence>) -> Option<ClaimId> {
        let claims = || self.content.rights.claims.iter().filter(|claim| claim.right == *right);
        let waiting: Vec<_> = claims().filter(|claim| claim.held.is_none()).collect();
        let holders: Vec<_> = claims().filter(|claim| claim.held.is_some()).collect();
        let first = waiting.first()?;
        let used: u32 =
            holders.iter().map(|holder| if let Mode::Permits { count, .. } = holder.mode { count } else { 0 }).sum();
        let is_next = match first.mode {
            Mode::Exclusive if right.kind == RightKind::Queue => !self.free(right).is_empty(),
            Mode::Exclusive => holders.is_empty(),
            Mode::Shared => holders.iter().all(|holder| holder.mode == Mode::Shared),
            Mode::Permits { count, limit } => used + count <= limit,
            Mode::Member => true,
            Mode::Party { parties } => {
                let granted =
                    holders.iter().filter(|holder| holder.held.as_ref().map(|held| held.round) == round).count();
                granted + waiting.len() >= parties as usize
            }
        };
        is_next.then_some(first.id)
    }

    /// A session ended, under the newest revision.
    pub(super) fn end_claims(&mut self, session: SessionId) {
        let gone: Vec<_> =
            self.content.rights.claims.iter().filter(|claim| claim.session == session).cloned().collect();
        self.rights().claims.retain(|claim| claim.session != session);
        let mut rights: Vec<_> = gone.into_iter().map(|claim| claim.right).collect();
        rights.sort();
        rights.dedup();
        // What nobody gets next was changed by the end of the session, and not by a grant to others.
        let revision = self.revision;
        for (right, modified) in &mut self.rights().modified {
            if rights.contains(right) {
                *modified = revision;
            }
        }
        for right in rights {
            let before = self.revision;
            self.advance(&right);
            if self.revision == before {
                let changed = self.rights().modified.iter_mut().find(|(other, _)| *other == right);
                changed.into_iter().for_each(|(_, modified)| *modified = revision);
            }
        }
    }

    pub(super) fn increase(&mut self, counter: &str, by: i64, revision: Revision) -> Result<Counted, Refused> {
        let Some(value) = self.counter(counter).value.checked_add(by) else {
            return Err(Refused::Invalid("the sum leaves the range of 64-bit integers: nothing was added".into()));
        };
        let counted = Counted { value, revision };
        let rights = self.rights();
        rights.counters.retain(|(name, _)| **name != *counter);
        rights.counters.push((counter.to_string(), counted));
        Ok(counted)
    }

    pub(super) fn count(&mut self, operation: &CounterOperation) -> Outcomes {
        let (CounterOperation::Add(Add { counter, .. }) | CounterOperation::Remove(counter)) = operation;
        let CounterOperation::Add(Add { by, once, .. }) = operation else {
            let known = self.content.rights.counters.iter().any(|(name, _)| **name == **counter);
            known.then_some(()).ok_or(Refused::NotFound)?;
            self.rights().counters.retain(|(name, _)| **name != **counter);
            return Ok(Answer::Written(Revision(self.grant())));
        };
        check_key(counter)?;
        if let Some(once) = once {
            check_key(once)?;
            let is_meant =
                |mark: &&(String, String, Counted, ClusterTime)| (&*mark.0, &*mark.1) == (&**counter, &**once);
            if let Some((.., counted, _)) = self.content.rights.marks.iter().find(is_meant) {
                return Ok(Answer::Counted(*counted));
            }
        }
        let counted = self.increase(counter, *by, Revision(self.revision + 1))?;
        self.revision += 1;
        let until = self.time + MARK_KEEP;
        let rights = self.rights();
        rights.marks.extend(once.iter().map(|once| (counter.to_string(), once.to_string(), counted, until)));
        Ok(Answer::Counted(counted))
    }

    pub(super) fn counter(&self, counter: &str) -> Counted {
        let found = self.content.rights.counters.iter().find(|(name, _)| name == counter);
        found.map_or(Counted::default(), |(_, counted)| *counted)
    }

    pub(super) fn right_view(&self, right: &RightId) -> RightView {
        let rights = &self.content.rights;
        let of = || rights.claims.iter().filter(|claim| claim.right == *right);
        let mut holders: Vec<Holder> = of()
            .filter_map(|claim| {
                let Grant { fence, round, .. } = claim.held.clone()?;
                let NaiveClaim { id, session, mode, value, .. } = claim.clone();
                Some(Holder { claim: id, session, mode, fence, round, value })
            })
            .collect();
        holders.sort_by_key(|holder| holder.fence);
        let modified = rights.modified.iter().find(|(other, _)| other == right);
        RightView {
            revision: Revision(modified.map_or(0, |(_, modified)| *modified)),
            holders,
            has_more: false,
            waiting: of().filter(|claim| claim.held.is_none()).count() as u64,
            items: self.free(right).len() as u64,
            settled: self.outcome(right),
        }
    }

    pub(super) fn claim_state(&self, right: &RightId, id: ClaimId) -> ClaimState {
        match (self.named(right, id), self.outcome(right)) {
            (Some(NaiveClaim { held: Some(grant), .. }), _) => ClaimState::Held(grant.clone()),
            (Some(_), _) => ClaimState::Waiting,
            (None, Some(outcome)) => ClaimState::Settled(outcome),
            (None, None) => ClaimState::Gone,
        }
    }

    pub(super) fn ended(&self, session: SessionId, claims: &[ClaimId]) -> Vec<ClaimId> {
        let stands =
            |id: &ClaimId| self.content.rights.claims.iter().any(|claim| (claim.id, claim.session) == (*id, session));
        claims.iter().copied().filter(|claim| !stands(claim)).collect()
    }

    fn rights(&mut self) -> &mut NaiveRights {
        &mut self.content.rights
    }

    fn named(&self, right: &RightId, id: ClaimId) -> Option<&NaiveClaim> {
        self.content.rights.claims.iter().find(|claim| claim.id == id && claim.right == *right)
    }

    fn held(&self, right: &RightId, session: SessionId, id: ClaimId) -> Result<Grant, Refused> {
        let held = self.named(right, id).filter(|claim| claim.session == session).and_then(|claim| claim.held.clone());
        held.ok_or_else(|| Refused::NotHeld { current: self.newest(right) })
    }

    fn newest(&self, right: &RightId) -> Fence {
        let claims = self.content.rights.claims.iter().filter(|claim| claim.right == *right);
        claims.filter_map(|claim| claim.held.as_ref().map(|grant| grant.fence)).max().unwrap_or(Fence(0))
    }

    /// Items that nobody holds, in the order in which they go.
    fn free(&self, queue: &RightId) -> Vec<Item> {
        let held = |item: &Item| {
            let claims = self.content.rights.claims.iter();
            claims.filter_map(|claim| claim.held.as_ref()?.item.as_ref()).any(|held| held.id == item.id)
        };
        let items = self.content.rights.items.iter().filter(|(other, item)| other == queue && !held(item));
        let mut free: Vec<Item> = items.map(|(_, item)| item.clone()).collect();
        free.sort_by_key(|item| (-i64::from(item.priority), item.id));
        free
    }

    fn outcome(&self, right: &RightId) -> Option<Bytes> {
        self.content.rights.settled.iter().find(|(other, _)| other == right).map(|(_, outcome)| outcome.clone())
    }
}
