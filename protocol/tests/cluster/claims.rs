//! What clients do with rights and counters, and whether what they are told is true.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::client::{Consistency, Work};
use protocol::state::{
    Add, Answer, Claim, ClaimState, CounterOperation, Mode, Operation, Query, Refused, RightId, RightKind,
    RightOperation,
};
use protocol::{ClaimId, Fence, Revision, SessionId};

use crate::check::Verdict;
use crate::dice::Dice;
use crate::oracle::Oracle;

/// What all clients know of rights.
#[derive(Default)]
pub struct Claims {
    /// Claims that were acknowledged, newest last.
    made: Vec<(RightId, ClaimId)>,
    /// Grants that somebody was told of, newest last.
    granted: Vec<(RightId, Fence)>,
    /// The newest revision of each right that anybody was shown.
    shown: BTreeMap<RightId, Revision>,
    /// Additions that were acknowledged.
    added: BTreeSet<Revision>,
}

/// What was asked, as far as the answer must be judged by it.
#[derive(Clone)]
pub enum Asked {
    /// For a right.
    Claim(Claim),
    /// To give one back.
    Release {
        /// Which.
        right: RightId,
        /// Whose claim.
        claim: ClaimId,
    },
    /// For something that changes a right, or for an addition of which another may have been the first.
    Other,
    /// For an addition.
    Add,
    /// To wait for a claim.
    Await(RightId, ClaimId),
    /// Which claims of a session are over.
    AwaitEnd(SessionId, Vec<ClaimId>),
    /// For a right as it is now.
    View(RightId, Revision),
}

impl Asked {
    /// The right that it is about, if it is about one.
    pub fn right(&self) -> Option<&RightId> {
        match self {
            Self::Claim(claim) => Some(&claim.right),
            Self::Release { right, .. } | Self::Await(right, _) | Self::View(right, _) => Some(right),
            Self::Other | Self::Add | Self::AwaitEnd(..) => None,
        }
    }
}

impl Claims {
    /// Draws the next call.
    /// `own` are the sessions on which the application of the caller relies.
    pub fn draw(&mut self, call: u64, own: &BTreeSet<SessionId>, oracle: &Oracle, dice: &mut Dice) -> (Asked, Work) {
        let right = RightId::new(dice.pick(&KINDS), format!("r{}", dice.between(1, 2)));
        let known = self.made.len() as u64;
        let of_right = self.made.iter().rev().take(30).find(|(other, _)| *other == right).map(|(_, claim)| *claim);
        let any = (known > 0).then(|| self.made[dice.between(known.saturating_sub(10), known - 1) as usize].clone());
        let (place, claim) = match of_right {
            Some(claim) if dice.happens(700) => (right.clone(), claim),
            _ => any.unwrap_or_else(|| (right.clone(), ClaimId(call))),
        };
        let value = Bytes::copy_from_slice(&call.to_be_bytes());
        let owner = oracle.rights.owner(claim).filter(|_| dice.happens(850));
        let session = owner.or_else(|| pick(&oracle.rights.sessions, dice)).unwrap_or(SessionId(0));
        let operation = match dice.between(0, 99) {
            0..30 => {
                let own = pick(own, dice).filter(|_| dice.happens(600));
                let Some(session) = own.or_else(|| pick(&oracle.rights.sessions, dice)) else {
                    return count(call, dice);
                };
                let mode = mode(right.kind, dice);
                let claim = Claim { right, session, mode, value, wait: dice.happens(800) };
                return (Asked::Claim(claim.clone()), Work::Write(Operation::Right(RightOperation::Claim(claim))));
            }
            30..45 => {
                let operation = RightOperation::Release { right: place.clone(), session, claim };
                return (Asked::Release { right: place, claim }, Work::Write(Operation::Right(operation)));
            }
            45..50 => RightOperation::SetValue { right: place, session, claim, value },
            50..58 => {
                let outcome = if place.kind == RightKind::Queue { Bytes::new() } else { value };
                RightOperation::Settle { right: place, session, claim, outcome }
            }
            58..66 => RightOperation::Push { queue: right.name, value, priority: dice.between(0, 1) as i32 },
            66..68 => RightOperation::Forget(right),
            68..72 => {
                let claims: Vec<_> = self.made.iter().rev().take(8).map(|(_, claim)| *claim).collect();
                let claims: Vec<_> =
                    claims.into_iter().filter(|claim| oracle.rights.owner(*claim) == Some(session)).collect();
                let query = Query::AwaitEnd { session, claims: claims.clone() };
                return (Asked::AwaitEnd(session, claims), Work::Read(query, Consistency::Linearizable));
            }
            72..80 => {
                let query = Query::AwaitClaim { right: place.clone(), claim };
                return (Asked::Await(place, claim), Work::Read(query, Consistency::Linearizable));
            }
            80..90 => {
                let floor = self.shown.get(&right).copied().unwrap_or_default();
                let query = Query::Right { right: right.clone(), after: Fence(0) };
                return (Asked::View(right, floor), Work::Read(query, Consistency::Linearizable));
            }
            _ => return count(call, dice),
        };
        (Asked::Other, Work::Write(Operation::Right(operation)))
    }

    /// A grant that may be live, or may have been.
    pub fn grant(&self, dice: &mut Dice) -> Option<(RightId, Fence)> {
        let last = self.granted.len().checked_sub(1)?;
        Some(self.granted[dice.between(last.saturating_sub(4) as u64, last as u64) as usize].clone())
    }

    /// Judges an answer.
    pub fn judge(&mut self, asked: Asked, answer: &Answer, oracle: &mut Oracle, is_read_safe: bool) -> Verdict {
        let rights = &oracle.rights;
        match (asked, answer) {
            (Asked::Claim(_), Answer::Claimed(claimed)) => {
                let right =
                    rights.right(claimed.claim).ok_or_else(|| format!("I5 {} is not in the log", claimed.claim))?;
                let granted = rights.grant(claimed.claim).flatten();
                if claimed.fence.is_some() && claimed.fence != granted {
                    return Err(format!("I5 {} was granted {granted:?} and told {:?}", claimed.claim, claimed.fence));
                }
                self.granted.extend(claimed.fence.map(|fence| (right.clone(), fence)));
                self.made.push((right, claimed.claim));
                Ok(())
            }
            (Asked::Await(right, claim), Answer::Claim(state)) => {
                let is_true = match state {
                    ClaimState::Held(grant) => {
                        self.granted.push((right.clone(), grant.fence));
                        rights.grant(claim) == Some(Some(grant.fence))
                    }
                    ClaimState::Settled(_) => rights.was_settled(&right),
                    // A claim that was guessed before there were any may stand by now, to something else.
                    ClaimState::Gone => {
                        !rights.stands(claim) || rights.right(claim).as_ref() != Some(&right) || !is_read_safe
                    }
                    ClaimState::Waiting => false,
                };
                if is_true { Ok(()) } else { Err(format!("I5 {claim} to the {right} was said to be {state:?}")) }
            }
            (Asked::AwaitEnd(session, claims), Answer::Ended(ended)) => {
                let is_over = |claim: &ClaimId| {
                    claims.contains(claim) && (rights.owner(*claim) != Some(session) || !is_read_safe)
                };
                if !ended.is_empty() && ended.iter().all(is_over) {
                    return Ok(());
                }
                Err(format!("I5 of {claims:?} of {session}, {ended:?} were said to be over"))
            }
            (Asked::View(right, floor), Answer::Right(view)) => {
                if view.revision != Revision(0) && view.revision < floor && is_read_safe {
                    return Err(format!("I3 the {right} was shown as of {}, after {floor}", view.revision));
                }
                for holder in &view.holders {
                    if rights.grant(holder.claim) != Some(Some(holder.fence)) {
                        return Err(format!("I5 the {right} was shown with {holder:?}"));
                    }
                }
                let shown = self.shown.entry(right).or_default();
                *shown = view.revision.max(*shown);
                Ok(())
            }
            (Asked::Add, Answer::Counted(counted)) => {
                if !self.added.insert(counted.revision) {
                    return Err(format!("I3 two additions were answered with that of {}", counted.revision));
                }
                match oracle.additions.get(&counted.revision) {
                    Some(value) if *value == counted.value => Ok(()),
                    other => Err(format!("I3 an addition was answered with {counted:?}, in the log is {other:?}")),
                }
            }
            (Asked::Other, Answer::Counted(counted)) => match oracle.additions.get(&counted.revision) {
                Some(value) if *value == counted.value => Ok(()),
                other => Err(format!("I3 a counter was shown as {counted:?}, in the log is {other:?}")),
            },
            (Asked::Release { .. }, Answer::Ok) | (Asked::Other, Answer::Written(_)) => Ok(()),
            (_, Answer::Refused(refused)) if !matches!(refused, Refused::Conflict { .. }) => Ok(()),
            (_, answer) => Err(format!("I3 a call about rights was answered with {answer:?}")),
        }
    }
}

fn count(call: u64, dice: &mut Dice) -> (Asked, Work) {
    let counter = format!("n{}", dice.between(1, 2)).into();
    let by = dice.pick(&[1, 5, -2]);
    let marked = dice.happens(400).then(|| format!("m{}", call / 4).into());
    let asked = if marked.is_some() { Asked::Other } else { Asked::Add };
    (asked, Work::Write(Operation::Counter(CounterOperation::Add(Add { counter, by, once: marked }))))
}

fn mode(kind: RightKind, dice: &mut Dice) -> Mode {
    match kind {
        RightKind::Lock if dice.happens(500) => Mode::Shared,
        RightKind::Semaphore => Mode::Permits { count: dice.between(1, 2) as u32, limit: 3 },
        RightKind::Group => Mode::Member,
        RightKind::Barrier => Mode::Party { parties: 3 },
        _ => Mode::Exclusive,
    }
}

fn pick<T: Copy>(of: &BTreeSet<T>, dice: &mut Dice) -> Option<T> {
    let place = dice.between(0, (of.len() as u64).checked_sub(1)?);
    of.iter().nth(place as usize).copied()
}

/// The kinds of rights that are drawn; locks twice as often as others.
const KINDS: [RightKind; 8] = [
    RightKind::Lock,
    RightKind::Lock,
    RightKind::Election,
    RightKind::Semaphore,
    RightKind::Group,
    RightKind::Barrier,
    RightKind::Once,
    RightKind::Queue,
];
