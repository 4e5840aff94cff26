//! Who holds which right by the log, in books that know nothing of the state but commands, answers and changes.
//!
//! # Invariants
//!
//! * A claim is entered once, and leaves when it is said to have ended.

use std::collections::{BTreeMap, BTreeSet};

use protocol::state::{
    Answer, Claim, Claimed, ClientEnd, ClusterChange, Command, KeyChange, KeyEvent, Mode, Operation, Query,
    RightChange, RightId, RightKind, RightOperation, State,
};
use protocol::{ClaimId, Fence, Revision, SessionId};

use crate::guards::fence_of;

/// All that the log said about rights.
#[derive(Default)]
pub struct Rights {
    /// Client sessions that live.
    pub sessions: BTreeSet<SessionId>,
    /// Claims that have not ended.
    claims: BTreeMap<ClaimId, Entry>,
    /// Every claim ever made, with its grant.
    grants: BTreeMap<ClaimId, (RightId, Option<Fence>)>,
    /// What was ever settled.
    settled: BTreeSet<RightId>,
    /// Claims that ended because the time of their session was over, or its process.
    expired: BTreeSet<ClaimId>,
    /// The fence under which each key was written last that is written under a right.
    written: BTreeMap<String, Fence>,
    last_fence: Fence,
}

struct Entry {
    right: RightId,
    session: SessionId,
    mode: Mode,
    fence: Option<Fence>,
}

impl Rights {
    /// Follows a command that was applied to a state which stood at revision `before`.
    pub fn follow(
        &mut self,
        command: &Command,
        answer: &Answer,
        changes: &[ClusterChange],
        (before, after): (Revision, &State),
    ) -> Result<(), String> {
        if let Answer::Registered(session) = answer
            && session.0 > before.0
            && !matches!(command, Command::Master(_))
        {
            self.sessions.insert(*session);
        }
        if let Command::Client { operation: Operation::Right(operation), .. } = command {
            self.enter(operation, answer, before)?;
        }
        for change in changes {
            if let ClusterChange::ClientEnded { session, .. } = change {
                self.sessions.remove(session);
            }
        }
        let mut changed = BTreeSet::new();
        for change in changes {
            if let ClusterChange::Right(change) = change {
                self.follow_change(change, changes)?;
                changed.insert(&change.right);
            }
        }
        changed.into_iter().try_for_each(|right| self.compare(right, after))?;
        for change in changes {
            if let ClusterChange::ClientEnded { session, .. } = change
                && let Some((claim, entry)) = self.claims.iter().find(|(_, entry)| entry.session == *session)
            {
                return Err(format!("I6 {session} has ended, and its claim {claim} to the {} has not", entry.right));
            }
        }
        Ok(())
    }

    /// The grant of a claim that was ever made.
    pub fn grant(&self, claim: ClaimId) -> Option<Option<Fence>> {
        self.grants.get(&claim).map(|(_, fence)| *fence)
    }

    /// The right of a claim that was ever made.
    pub fn right(&self, claim: ClaimId) -> Option<RightId> {
        self.grants.get(&claim).map(|(right, _)| right.clone())
    }

    /// Says whether a grant is live.
    pub fn holds(&self, right: &RightId, fence: Fence) -> bool {
        self.claims.values().any(|entry| entry.right == *right && entry.fence == Some(fence))
    }

    /// Whose claim this is, if it stands.
    pub fn owner(&self, claim: ClaimId) -> Option<SessionId> {
        self.claims.get(&claim).map(|entry| entry.session)
    }

    /// Says whether a claim stands.
    pub fn stands(&self, claim: ClaimId) -> bool {
        self.claims.contains_key(&claim)
    }

    /// Says whether a right was ever settled.
    pub fn was_settled(&self, right: &RightId) -> bool {
        self.settled.contains(right)
    }

    /// Says whether a claim ended because the time of its session was over, or its process.
    pub fn has_expired(&self, claim: ClaimId) -> bool {
        self.expired.contains(&claim)
    }

    /// I5: what is written under a right that one alone can hold is written in the order of fences.
    pub fn follow_write(&mut self, change: &KeyChange) -> Result<(), String> {
        let KeyEvent::Put(value) = &change.what else { return Ok(()) };
        let Some(fence) = fence_of(&change.key, &value.value) else { return Ok(()) };
        let last = self.written.entry(change.key.to_string()).or_insert(fence);
        if *last > fence {
            return Err(format!("I5 {} was written under {fence} after {last}", change.key));
        }
        *last = fence;
        Ok(())
    }

    fn enter(&mut self, operation: &RightOperation, answer: &Answer, before: Revision) -> Result<(), String> {
        match (operation, answer) {
            (RightOperation::Claim(claim), Answer::Claimed(Claimed { claim: id, .. })) if id.0 > before.0 => {
                let Claim { right, session, mode, .. } = claim.clone();
                if !self.sessions.contains(&session) {
                    return Err(format!("I6 {session} claims the {right} and does not live"));
                }
                self.grants.insert(*id, (right.clone(), None));
                self.claims.insert(*id, Entry { right, session, mode, fence: None });
            }
            (RightOperation::Settle { right, session, claim, .. }, Answer::Written(revision)) if *revision > before => {
                self.holds_by(right, *session, *claim)?;
                self.settled.insert(right.clone());
            }
            (RightOperation::SetValue { right, session, claim, .. }, Answer::Written(revision))
                if *revision > before =>
            {
                self.holds_by(right, *session, *claim)?;
            }
            // The remembered answer of a request that came twice speaks of a claim that is gone.
            (RightOperation::Release { right, session, claim }, Answer::Ok) => match self.owner(*claim) {
                Some(owner) if owner != *session => {
                    return Err(format!("I5 {session} released the claim {claim} of {owner} to the {right}"));
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Whoever changes or settles a right holds it.
    fn holds_by(&self, right: &RightId, session: SessionId, claim: ClaimId) -> Result<(), String> {
        let is_held = self
            .claims
            .get(&claim)
            .is_some_and(|entry| entry.fence.is_some() && entry.right == *right && entry.session == session);
        if is_held { Ok(()) } else { Err(format!("I5 {claim} changed the {right} for {session} and did not hold it")) }
    }

    fn follow_change(&mut self, change: &RightChange, all: &[ClusterChange]) -> Result<(), String> {
        let right = &change.right;
        for (claim, session) in &change.ended {
            let entry = self.claims.remove(claim).ok_or_else(|| format!("I5 {claim} to the {right} ended twice"))?;
            if entry.session != *session {
                return Err(format!(
                    "I5 {claim} to the {right} was {}'s, and ended as that of {session}",
                    entry.session
                ));
            }
            let outlived = |change: &ClusterChange| matches!(change, ClusterChange::ClientEnded { session: ended, cause: ClientEnd::Expired | ClientEnd::Proven } if ended == session);
            if entry.fence.is_some() && all.iter().any(outlived) {
                self.expired.insert(*claim);
            }
        }
        for (claim, fence) in &change.granted {
            if *fence <= self.last_fence {
                return Err(format!("I5 the {right} was granted under {fence} after {}", self.last_fence));
            }
            self.last_fence = *fence;
            let mut line = self.claims.iter().filter(|(_, entry)| entry.right == *right && entry.fence.is_none());
            match line.next() {
                Some((first, _)) if first == claim => {}
                first => {
                    let first = first.map(|(claim, _)| claim);
                    return Err(format!("I5 the {right} was granted to {claim}, and first in line was {first:?}"));
                }
            }
            self.fits(right, *claim)?;
            let entry = self.claims.get_mut(claim).expect("seen above");
            // Several sessions may end in one command, and one of them may have been granted what the one before it left.
            let ends = |change: &ClusterChange| matches!(change, ClusterChange::ClientEnded { session, .. } if *session == entry.session);
            if !self.sessions.contains(&entry.session) && !all.iter().any(ends) {
                return Err(format!("I6 the {right} was granted to {}, which does not live", entry.session));
            }
            entry.fence = Some(*fence);
            self.grants.insert(*claim, (right.clone(), Some(*fence)));
        }
        Ok(())
    }

    /// Whoever is granted a right may hold it together with those who do.
    fn fits(&self, right: &RightId, claim: ClaimId) -> Result<(), String> {
        let holders = || self.claims.values().filter(|entry| entry.right == *right && entry.fence.is_some());
        let permits = |entry: &Entry| if let Mode::Permits { count, .. } = entry.mode { u64::from(count) } else { 0 };
        let entry = &self.claims[&claim];
        let fits = match entry.mode {
            Mode::Exclusive => right.kind == RightKind::Queue || holders().count() == 0,
            Mode::Shared => holders().all(|holder| holder.mode == Mode::Shared),
            Mode::Permits { limit, .. } => holders().map(permits).sum::<u64>() + permits(entry) <= u64::from(limit),
            Mode::Member | Mode::Party { .. } => true,
        };
        if fits { Ok(()) } else { Err(format!("I5 {claim} was granted the {right} beside others that exclude it")) }
    }

    /// The state shows the holders that are in the books.
    fn compare(&self, right: &RightId, state: &State) -> Result<(), String> {
        let Answer::Right(view) = state.query(&Query::Right { right: right.clone(), after: Fence(0) }) else {
            return Err(format!("I12 the {right} is not shown"));
        };
        let mut held: Vec<_> = self
            .claims
            .iter()
            .filter_map(|(claim, entry)| Some((entry.fence.filter(|_| entry.right == *right)?, *claim)))
            .collect();
        held.sort_unstable();
        let shown: Vec<_> = view.holders.iter().map(|holder| (holder.fence, holder.claim)).collect();
        let is_last = !view.has_more && shown != held;
        if is_last { Err(format!("I12 the {right} is held by {held:?}, and shown is {shown:?}")) } else { Ok(()) }
    }
}
