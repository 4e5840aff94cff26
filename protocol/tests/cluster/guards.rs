//! Work under rights, as applications do it: every step begins when `Guarding` allows it, and is judged by what `Guard` promises.
//!
//! * By its own clock, whatever that shows, a step that takes no longer than the margin has ended before its session; also when work or its
//!   timer wake up late, out of a pause, or out of a sleep of the machine in which timers stood still.
//! * While clocks keep their bound, no step begins or goes on when the log has let its session expire, and no work is left by then that
//!   was not frozen. So nobody else holds a right that excludes it (`rights`), unless somebody took the right away: gave the claim back
//!   in its name, ended its session, or had evidence of death where the session allows that.
//! * No step begins of whoever was told that its claim, or session, is over; and everybody is told (I11).
//! * Whatever clocks do, a sink that looks at fences never refuses whoever holds the right by the log, and what is written under
//!   `held` is written in the order of fences.
//!
//! # Invariants
//!
//! * Work waits for one thing at a time: the earlier one of its timer and of what it waits for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::client::{CallError, Consistency, Guarding, Standing, Work};
use protocol::state::{
    Answer, Claim, ClaimState, Condition, KeyOperation, Mode, Operation, Put, Query, RightId, RightKind,
    RightOperation, Transaction,
};
use protocol::{ClaimId, Fence, Nanos, SessionId};

use crate::check::Verdict;
use crate::claims::Asked;
use crate::host::Host;
use crate::options::MS;
use crate::work::{History, Kind, value};
use crate::world::{Happening, World};

/// What the application of a host knows of its rights.
#[derive(Default)]
pub struct Guards {
    /// How its sessions stand, as its client said last.
    standing: BTreeMap<SessionId, Standing>,
    /// Claims that stand in line.
    wishes: BTreeMap<ClaimId, Wish>,
    /// Work under rights that were granted.
    works: BTreeMap<ClaimId, Guarded>,
    /// The question which claims of a session have ended.
    asked: BTreeMap<SessionId, u64>,
}

/// A claim of the application.
#[derive(Clone)]
struct Wish {
    right: RightId,
    session: SessionId,
    /// Whoever holds it holds it alone.
    is_exclusive: bool,
}

/// Work under a right.
struct Guarded {
    wish: Wish,
    fence: Fence,
    /// The cluster said that the claim is over.
    has_ended: bool,
    /// When it wakes up next.
    due: u64,
    /// It wakes up later than its margin allows for.
    is_late: bool,
    /// Its last step takes until then.
    busy_until: u64,
}

impl Guards {
    /// A session stands like this from now on.
    pub fn note(&mut self, session: SessionId, standing: Standing) {
        self.standing.insert(session, standing);
    }

    /// The process stands still from now on: nothing is promised of the steps that are under way.
    pub fn freeze(&mut self) {
        self.works.values_mut().for_each(|work| work.busy_until = 0);
    }

    fn of(&self, session: SessionId) -> impl Iterator<Item = (ClaimId, &Guarded)> {
        self.works.iter().filter(move |(_, work)| work.wish.session == session).map(|(claim, work)| (*claim, work))
    }

    fn lives(&self, session: SessionId) -> bool {
        matches!(self.standing.get(&session), Some(Standing::Until(_)))
    }

    fn step(&self, work: &Guarded, now: Nanos) -> Option<Nanos> {
        let standing = self.standing.get(&work.wish.session)?.of_claim(work.has_ended);
        Guarding::WORK.step(standing, now).ok()
    }
}

impl World {
    /// An application hears what became of a call about rights.
    pub(crate) fn heed(&mut self, at: usize, call: u64, asked: Asked, result: &Result<Answer, CallError>) {
        let guards = &mut self.hosts[at].guards;
        match (asked, result) {
            (Asked::Claim(Claim { right, session, mode, .. }), Ok(Answer::Claimed(claimed))) => {
                let is_exclusive = mode == Mode::Exclusive && right.kind != RightKind::Queue;
                let wish = Wish { right, session, is_exclusive };
                match claimed.fence {
                    _ if !guards.lives(session) => {}
                    Some(fence) => self.begin_work(at, claimed.claim, wish, fence),
                    None => {
                        guards.wishes.insert(claimed.claim, wish);
                        self.await_grant(at, claimed.claim);
                    }
                }
            }
            (Asked::Await(_, claim), Err(CallError::Deadline { .. })) => self.await_grant(at, claim),
            (Asked::Await(_, claim), result) => {
                let wish = guards.wishes.remove(&claim);
                if let (Some(wish), Ok(Answer::Claim(ClaimState::Held(grant)))) = (wish, result) {
                    self.begin_work(at, claim, wish, grant.fence);
                }
            }
            (Asked::AwaitEnd(session, _), result) => {
                if guards.asked.get(&session) == Some(&call) {
                    guards.asked.remove(&session);
                }
                let Ok(Answer::Ended(ended)) = result else { return };
                for claim in ended {
                    if let Some(work) = self.hosts[at].guards.works.get_mut(claim) {
                        work.has_ended = true;
                        self.step_under(at, *claim);
                    }
                }
            }
            _ => {}
        }
    }

    /// All work under a session wakes up: its client said that it is over.
    pub(crate) fn wake_works(&mut self, at: usize, session: SessionId) {
        let claims: Vec<ClaimId> = self.hosts[at].guards.of(session).map(|(claim, _)| claim).collect();
        claims.into_iter().for_each(|claim| self.step_under(at, claim));
    }

    /// Work wakes up, if nothing has woken it before.
    pub(crate) fn work(&mut self, at: usize, claim: ClaimId, due: u64) {
        if self.hosts[at].guards.works.get(&claim).is_some_and(|work| work.due == due) {
            self.step_under(at, claim);
        }
    }

    /// A machine slept so long: its timers stood still. Some work has something else to wake it.
    pub(crate) fn timers_stood_still(&mut self, at: usize, span: u64) {
        let claims: Vec<(ClaimId, u64)> =
            self.hosts[at].guards.works.iter().map(|(claim, work)| (*claim, work.due)).collect();
        for (claim, due) in claims {
            let is_woken = self.dice.happens(500);
            let due = if is_woken { self.time + self.dice.between(0, 50 * MS) } else { due + span };
            self.wake_at(at, claim, due, true);
        }
    }

    /// D5, F10: whoever works under a session that the log lets expire has stopped, unless it is frozen or its timer is late.
    pub(crate) fn no_work_outlives_its_session(&self, session: SessionId) -> Verdict {
        for (at, host) in self.hosts.iter().enumerate() {
            let is_frozen = host.paused_until > self.time || !self.asleep[at].is_empty();
            let is_late = |work: &Guarded| work.is_late && work.busy_until <= self.time;
            if let Some((claim, work)) = host.guards.of(session).find(|(_, work)| !is_frozen && !is_late(work)) {
                let right = &work.wish.right;
                return Err(format!("I6 {} works under the {right} ({claim}), and {session} has expired", host.id));
            }
        }
        Ok(())
    }

    /// I11: nobody works under a claim for ever that is over.
    pub(crate) fn all_work_is_under_rights(&self) -> Verdict {
        for host in &self.hosts {
            if let Some((claim, work)) =
                host.guards.works.iter().find(|(claim, _)| !self.check.oracle.rights.stands(**claim))
            {
                let right = &work.wish.right;
                return Err(format!("I11 {claim} to the {right} is over, and {} was not told", host.id));
            }
        }
        Ok(())
    }

    fn await_grant(&mut self, at: usize, claim: ClaimId) {
        let guards = &mut self.hosts[at].guards;
        let Some(wish) = guards.wishes.get(&claim) else { return };
        let (right, session) = (wish.right.clone(), wish.session);
        if !guards.lives(session) {
            guards.wishes.remove(&claim);
            return;
        }
        let query = Query::AwaitClaim { right: right.clone(), claim };
        self.ask(at, Asked::Await(right, claim), Work::Read(query, Consistency::Linearizable));
    }

    fn begin_work(&mut self, at: usize, claim: ClaimId, wish: Wish, fence: Fence) {
        let session = wish.session;
        let work = Guarded { wish, fence, has_ended: false, due: 0, is_late: false, busy_until: 0 };
        if self.hosts[at].guards.works.insert(claim, work).is_none() {
            self.ask_for_ends(at, session);
            self.step_under(at, claim);
        }
    }

    /// Asks which claims of a session are over, in place of the question that was asked before.
    fn ask_for_ends(&mut self, at: usize, session: SessionId) {
        let works = self.hosts[at].guards.of(session);
        let claims: Vec<ClaimId> = works.filter(|(_, work)| !work.has_ended).map(|(claim, _)| claim).collect();
        if !claims.is_empty() {
            let query = Query::AwaitEnd { session, claims: claims.clone() };
            let work = Work::Read(query, Consistency::Linearizable);
            let call = self.ask(at, Asked::AwaitEnd(session, claims), work);
            self.hosts[at].guards.asked.insert(session, call);
        }
    }

    /// Work under a right begins its next step, or stops.
    fn step_under(&mut self, at: usize, claim: ClaimId) {
        let (time, host) = (self.time, &mut self.hosts[at]);
        let now = host.local(time);
        let Some(work) = host.guards.works.get(&claim) else { return };
        let Some(look) = host.guards.step(work, now) else {
            host.guards.works.remove(&claim);
            return;
        };
        let (session, is_asked) = (work.wish.session, host.guards.asked.contains_key(&work.wish.session));
        let verdict = self.is_step_allowed(at, claim).and_then(|()| self.show_fence(at, claim));
        self.judge(verdict);
        self.worked += 1;
        if !is_asked {
            self.ask_for_ends(at, session);
        }
        if !self.act(at, claim) {
            return;
        }
        let takes = Duration::from_nanos(self.dice.between(0, Guarding::WORK.margin.as_nanos() as u64));
        let host = &mut self.hosts[at];
        let busy_until = host.global(now + takes);
        if let Some(work) = host.guards.works.get_mut(&claim) {
            work.busy_until = busy_until;
        }
        let is_late = !self.is_calm && self.dice.happens(50);
        let late = self.dice.between(0, if is_late { 500 * MS } else { 10 * MS });
        let timer = self.hosts[at].global(look).saturating_add(late);
        let longest = self.dice.pick(&[20, 150, 2_000]) * MS;
        let other = time + self.dice.between(MS, longest);
        self.wake_at(at, claim, timer.min(other), is_late);
    }

    fn wake_at(&mut self, at: usize, claim: ClaimId, due: u64, is_late: bool) {
        let host = &mut self.hosts[at];
        let Some(work) = host.guards.works.get_mut(&claim) else { return };
        let due = due.max(self.time + 1_000);
        (work.due, work.is_late) = (due, is_late);
        let run = host.run;
        self.queue.add(due, Happening::Work { at, run, claim, due });
    }

    fn is_step_allowed(&self, at: usize, claim: ClaimId) -> Verdict {
        let host = &self.hosts[at];
        let Guarded { wish: Wish { right, session, .. }, has_ended, .. } = &host.guards.works[&claim];
        let works = || format!("I6 {} works under the {right} ({claim}) of {session}", host.id);
        if *has_ended {
            return Err(format!("{}, and was told that it is over", works()));
        }
        let Some(&until) = host.kept.get(session) else {
            return Err(format!("{}, and was told that this has ended", works()));
        };
        let end = host.global(host.local(self.time) + Guarding::WORK.margin);
        if end > until {
            let late = (end - until) / 1_000;
            return Err(format!("{}, and by its own clock it may be at it for {late} us too long", works()));
        }
        if self.options.is_clock_bound_kept && self.check.oracle.rights.has_expired(claim) {
            return Err(format!("{}, which has expired", works()));
        }
        Ok(())
    }

    /// Every step is shown to a sink that looks at fences.
    fn show_fence(&mut self, at: usize, claim: ClaimId) -> Verdict {
        let Guarded { wish: Wish { right, is_exclusive, .. }, fence, .. } = &self.hosts[at].guards.works[&claim];
        if !is_exclusive {
            return Ok(());
        }
        let shown = self.sinks.entry(right.clone()).or_default();
        if *fence < *shown && self.check.oracle.rights.stands(claim) {
            return Err(format!("I5 {claim} holds the {right} under {fence}, and a sink refuses it after {shown}"));
        }
        *shown = (*shown).max(*fence);
        Ok(())
    }

    /// What a step does: it writes under its right, or is the last one. Says whether there is another one.
    fn act(&mut self, at: usize, claim: ClaimId) -> bool {
        let host = &mut self.hosts[at];
        let is_busy = is_busy(host);
        let Some(work) = host.guards.works.get(&claim) else { return false };
        let (Wish { right, session, is_exclusive }, fence) = (work.wish.clone(), work.fence);
        match self.dice.between(0, 999) {
            _ if is_busy => true,
            0..8 => {
                // Whoever gives it back works no more.
                host.guards.works.remove(&claim);
                let asked = Asked::Release { right: right.clone(), claim };
                let operation = Operation::Right(RightOperation::Release { right, session, claim });
                self.ask(at, asked, Work::Write(operation));
                false
            }
            8..16 if is_exclusive => {
                let (call, work, timeout) = self.history.write_under((at, self.time), &right, fence);
                self.call(at, call, work, timeout);
                true
            }
            _ => true,
        }
    }

    fn ask(&mut self, at: usize, asked: Asked, work: Work) -> u64 {
        let call = self.history.number();
        self.history.expect_answer(call, (at, self.time), Kind::Right(asked));
        self.call(at, call, work, Duration::from_secs(10));
        call
    }
}

impl History {
    /// A write that is done only while this grant is live.
    fn write_under(&mut self, (at, begin): (usize, u64), right: &RightId, fence: Fence) -> (u64, Work, Duration) {
        let call = self.number();
        let when = vec![Condition::Held { right: right.clone(), fence }];
        let token = value(call, 0);
        let written: Bytes = [&token[..], &fence.0.to_be_bytes()].concat().into();
        let put = Put::new(format!("{WRITTEN}{}/{}", right.kind, right.name), written);
        let transaction = Transaction { when, then: vec![KeyOperation::Put(put)], or_else: Vec::new() };
        let kind = Kind::Transaction { tokens: [vec![call << 16], Vec::new()], after: self.frontier };
        self.expect_answer(call, (at, begin), kind);
        (call, Work::Write(Operation::Transact(transaction)), Duration::from_secs(2))
    }
}

/// Under which fence something was written under a right.
pub fn fence_of(key: &str, value: &[u8]) -> Option<Fence> {
    let fence = value.get(8..)?.first_chunk().filter(|_| key.starts_with(WRITTEN))?;
    Some(Fence(u64::from_be_bytes(*fence)))
}

fn is_busy(host: &Host) -> bool {
    host.machines.as_ref().is_none_or(|machines| machines.client.under_way() > 16)
}

/// Where everything is written under a right that one alone can hold.
const WRITTEN: &str = "under/";
