//! What anybody outside could have written down about locks, for a judge who knows no log (`protocol::history::Lock`).
//!
//! A grant to one while another one relies on what it holds has no place in any order: mutual exclusion by the clocks of those who hold.
//!
//! # Invariants
//!
//! * A session may have ended from the moment on at which nobody relied on it, or somebody asked for its end; one on which nobody ever
//!   relied may have ended at any time.

use std::collections::{BTreeMap, BTreeSet};

use protocol::history::{History, Lock, LockAct, Timed};
use protocol::state::{Answer, Claim, ClaimState, Mode, Refused, RightId, RightKind};
use protocol::{ClaimId, Fence, SessionId};

use crate::claims::Asked;

/// All that was seen of locks.
#[derive(Default)]
pub struct Locks {
    acts: History<String, LockAct>,
    claims: BTreeMap<ClaimId, Seen>,
    /// Claims of which nobody was told the name.
    unnamed: Vec<Seen>,
    /// Claims that may have been given back, and since when.
    given_back: Vec<(ClaimId, u64)>,
    relied_on: BTreeSet<SessionId>,
    /// Since when a session may be over.
    over: BTreeMap<SessionId, u64>,
}

/// A claim to a lock.
struct Seen {
    name: String,
    session: SessionId,
    is_shared: bool,
    /// When it was asked for, or a little earlier.
    begin: u64,
    /// Its fence, and when somebody knew of it first.
    granted: Option<(Fence, u64)>,
}

impl Locks {
    /// A call was answered. `is_read_safe` says whether a read may show nothing older than what was acknowledged.
    pub fn answered(&mut self, (begin, end): (u64, u64), asked: &Asked, answer: &Answer, is_read_safe: bool) {
        if asked.right().is_none_or(|right| right.kind != RightKind::Lock) {
            return;
        }
        let timed = |act| Timed { begin, end: Some(end), act };
        match (asked, answer) {
            (Asked::Claim(claim), Answer::Claimed(claimed)) => {
                let seen = self.claims.entry(claimed.claim).or_insert_with(|| Seen::of(claim, begin));
                seen.begin = seen.begin.max(begin);
                if let Some(fence) = claimed.fence {
                    seen.note(fence, end);
                }
            }
            (Asked::Claim(claim), Answer::Refused(Refused::Held { fence })) => {
                self.acts.add(claim.right.name.to_string(), timed(LockAct::Refuse(*fence)));
            }
            (Asked::Release { right, claim }, Answer::Ok) => {
                self.acts.add(right.name.to_string(), timed(LockAct::End(*claim)));
            }
            (Asked::Await(_, claim), Answer::Claim(ClaimState::Held(grant))) => {
                if let Some(seen) = self.claims.get_mut(claim) {
                    seen.note(grant.fence, end);
                }
            }
            (Asked::View(right, _), Answer::Right(view)) => {
                for holder in &view.holders {
                    let claim = Seen {
                        name: right.name.to_string(),
                        session: holder.session,
                        is_shared: holder.mode == Mode::Shared,
                        begin: 0,
                        granted: None,
                    };
                    self.claims.entry(holder.claim).or_insert(claim).note(holder.fence, end);
                }
                if is_read_safe && !view.has_more {
                    let holders = view.holders.iter().map(|holder| (holder.claim, holder.fence)).collect();
                    self.acts.add(right.name.to_string(), timed(LockAct::Look(holders)));
                }
            }
            _ => {}
        }
    }

    /// A call may have been done, and may still be.
    pub fn in_doubt(&mut self, begin: u64, asked: &Asked) {
        match asked {
            Asked::Claim(claim) if claim.right.kind == RightKind::Lock => self.unnamed.push(Seen::of(claim, begin)),
            Asked::Release { claim, .. } => self.given_back.push((*claim, begin)),
            _ => {}
        }
    }

    /// Somebody relies on a session from now on.
    pub fn is_relied_on(&mut self, session: SessionId) {
        self.relied_on.insert(session);
    }

    /// A session may be over from now on.
    pub fn may_be_over(&mut self, session: SessionId, since: u64) {
        let known = self.over.entry(session).or_insert(since);
        *known = since.min(*known);
    }

    /// How many grants somebody was told of.
    pub fn grants(&self) -> usize {
        self.claims.values().filter(|seen| seen.granted.is_some()).count()
    }

    /// One lock per name could have answered so. Says how many histories were too hard to judge. Without a bound on clocks, any session
    /// may have ended at any time.
    pub fn unjudged(&mut self, is_clock_bound_kept: bool) -> Result<usize, String> {
        let mut acts = self.acts.clone();
        let names = (0..).map(|number| ClaimId(u64::MAX - number));
        let unnamed = names.zip(&self.unnamed);
        let all = || self.claims.iter().map(|(claim, seen)| (*claim, seen)).chain(unnamed.clone());
        for (claim, seen) in all() {
            let fence = seen.granted.map(|(fence, _)| fence);
            let act = LockAct::Grant { claim, fence, is_shared: seen.is_shared };
            let end = seen.granted.map(|(_, end)| end);
            acts.add(seen.name.clone(), Timed { begin: seen.begin, end, act });
            let is_bound = is_clock_bound_kept && self.relied_on.contains(&seen.session);
            let over = if is_bound { self.over.get(&seen.session).copied() } else { Some(0) };
            let given_back = self.given_back.iter().filter(|(other, _)| *other == claim).map(|(_, begin)| *begin);
            for begin in given_back.chain(over) {
                acts.add(seen.name.clone(), Timed { begin, end: None, act: LockAct::End(claim) });
            }
        }
        acts.check(Lock::of).map_err(|why| format!("I5 no lock answers so: {why}"))
    }
}

impl Seen {
    fn of(claim: &Claim, begin: u64) -> Self {
        let Claim { right: RightId { name, .. }, session, mode, .. } = claim;
        Self { name: name.to_string(), session: *session, is_shared: *mode == Mode::Shared, begin, granted: None }
    }

    fn note(&mut self, fence: Fence, end: u64) {
        let first = self.granted.map_or(end, |(_, known)| known.min(end));
        self.granted = Some((fence, first));
    }
}
