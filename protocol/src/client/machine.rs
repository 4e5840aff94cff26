//! The client of one process.
//!
//! # Invariants
//!
//! * Every call stands in `wakes` at exactly the time that [`Call::wake`] names.
//! * A write without a place in a session stands in `queue` or in `put_off`, and no other call does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::call::{Call, Phase, Purpose};
use super::keeping::Keeping;
use super::message::{CallError, Config, Denied, Input, Loss, Origin, Request, RequestBody, Response, Work};
use super::patience::{AWAIT_PATIENCE, WATCH_PATIENCE};
use super::session::{Open, Session};
use crate::effects::{Effects, Event};
use crate::mutants::{Bug, is_on};
use crate::state::limits::{WINDOW, check_operation, check_query};
use crate::state::{Answer, Operation, Query, Refused};
use crate::types::{Nanos, NodeId, SessionId};

/// See the module above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    config: Config,
    /// Nodes that can be asked.
    links: BTreeSet<NodeId>,
    /// Who led last, as far as we were told.
    leader: Option<NodeId>,
    /// The last node that was asked in turn.
    turn: NodeId,
    next_number: u64,
    /// All that is asked, by request number.
    asked: BTreeMap<u64, Call>,
    /// The request number of each call of the application.
    numbers: BTreeMap<u64, u64>,
    wakes: BTreeSet<(Nanos, u64)>,
    session: Session,
    /// The sessions of the application.
    keeping: Keeping,
    /// Writes that wait for a place in a session, oldest first.
    queue: BTreeSet<u64>,
    /// Writes that were put off and pause before they stand in line again.
    put_off: BTreeSet<u64>,
    /// Whether the session is to be closed as soon as nothing is under way in it.
    is_closing: bool,
}

impl Client {
    /// A client without a session.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        config.patience = config.patience.max(PATIENCE_MIN);
        Self {
            next_number: config.first_number,
            config,
            links: BTreeSet::new(),
            leader: None,
            turn: NodeId(0),
            asked: BTreeMap::new(),
            numbers: BTreeMap::new(),
            wakes: BTreeSet::new(),
            session: Session::None,
            keeping: Keeping::default(),
            queue: BTreeSet::new(),
            put_off: BTreeSet::new(),
            is_closing: false,
        }
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input, effects: &mut Effects) {
        match input {
            Input::Call { call, work, timeout } => self.on_call(now, call, work, timeout, effects),
            Input::Forget { call } => {
                if let Some(&number) = self.numbers.get(&call) {
                    self.take(number);
                }
            }
            Input::Response(response) => self.on_response(now, response, effects),
            Input::LinkUp { node } => self.on_link_up(now, node, effects),
            Input::LinkDown { node } => self.on_link_down(now, node, effects),
            Input::Close => self.is_closing = true,
            Input::Tick => {}
        }
        self.on_time(now, effects);
        self.tend_kept(now, effects);
        self.tend_session(now, effects);
    }

    /// When [`Input::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        let renew = if let Session::Open(open) = &self.session { open.renew_at } else { Nanos::NEVER };
        self.wakes.first().map_or(Nanos::NEVER, |&(at, _)| at).min(renew).min(self.keeping.next_wake())
    }

    /// How many calls of the application have no result yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.numbers.len()
    }

    // ---- calls ----

    fn on_call(&mut self, now: Nanos, call: u64, work: Work, timeout: Duration, effects: &mut Effects) {
        // Whoever ends its own session has given up what it owned already, and renews it no more.
        if let Work::Write(Operation::EndSession { session, .. }) = work {
            self.lose_kept(session, Loss::Closed, effects);
        }
        let purpose = match work {
            Work::Write(operation) => Purpose::Write { call, operation, place: None, is_kept: false },
            Work::Keep(opening) => {
                Purpose::Write { call, operation: Operation::OpenSession(opening), place: None, is_kept: true }
            }
            Work::Renew(session) => Purpose::RenewOnce { call, session },
            Work::Read(query, consistency) => Purpose::Read { call, query, consistency },
            Work::HandOver { to, epoch } => Purpose::HandOver { call, to, epoch },
        };
        let is_write = matches!(purpose, Purpose::Write { .. });
        let is_full = self.asked.len() >= ASKED_MAX || (is_write && self.queue.len() >= QUEUE_MAX);
        if is_full || self.numbers.contains_key(&call) {
            effects.publish.push(Event::Completed { call, result: Err(CallError::Busy) });
            return;
        }
        // On its way it would be lost without a word.
        let checked = match &purpose {
            Purpose::Write { operation, .. } => check_operation(operation),
            Purpose::Read { query, .. } => check_query(query),
            _ => Ok(()),
        };
        if let Err(why) = checked {
            effects.publish.push(Event::Completed { call, result: Ok(Answer::Refused(why)) });
            return;
        }
        let number = self.begin(now, purpose, timeout);
        self.numbers.insert(call, number);
        if is_write {
            self.queue(number);
        } else {
            self.ask(now, number, effects);
        }
    }

    fn begin(&mut self, now: Nanos, purpose: Purpose, timeout: Duration) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let call = Call::new(purpose, now, timeout);
        self.wakes.insert((call.wake(), number));
        self.asked.insert(number, call);
        number
    }

    /// Asks whoever is best placed to answer; if nobody can be asked, the next link will.
    fn ask(&mut self, now: Nanos, number: u64, effects: &mut Effects) {
        let Some(call) = self.asked.get(&number) else { return };
        let Some(to) = self.target(call.avoid, call.silent.filter(|_| !call.is_pardoned)) else {
            self.set_phase(number, Phase::Stranded);
            return;
        };
        let body = match &call.purpose {
            Purpose::Register => RequestBody::Register { ttl: self.config.ttl },
            Purpose::Renew(sessions) => {
                let own = sessions.iter().find_map(|session| self.open(*session));
                RequestBody::Renew {
                    sessions: sessions.clone(),
                    heard: own.map(|own| (own.id, own.first_incomplete())),
                }
            }
            Purpose::RenewOnce { session, .. } => RequestBody::Renew { sessions: vec![*session], heard: None },
            Purpose::Read { query, consistency, .. } => {
                RequestBody::Read { query: query.clone(), consistency: *consistency }
            }
            Purpose::HandOver { to, epoch, .. } => RequestBody::HandOver { to: *to, epoch: *epoch },
            Purpose::Write { operation, place, .. } => {
                let (session, seq) = place.expect("a write is asked only with a place in a session");
                // Under a session that is over, any number below the own one will do: nothing is kept there.
                let first_incomplete = self.open(session).map_or(seq, |open| open.first_incomplete());
                RequestBody::Write { session, seq, first_incomplete, operation: operation.clone() }
            }
        };
        let patience = match &call.purpose {
            Purpose::Read { query: Query::Watch(_), .. } => self.config.patience.max(WATCH_PATIENCE),
            Purpose::Read { query, .. } if query.waits() => self.config.patience.max(AWAIT_PATIENCE),
            // Silence is rare, and most often means that the leader is frozen: by the time this is over, another one may lead.
            _ if call.silent.is_none() => self.config.patience / 2,
            // Another one may begin to lead at any moment, and only the others can tell.
            _ if call.silent == Some(to) => self.config.patience / 8,
            _ => self.config.patience,
        };
        if to != self.config.node && Some(to) != self.leader {
            self.turn = to;
        }
        let origin = self.origin(number, call.turn + 1);
        effects.send(to, Request { origin, forwarded: false, body });
        self.change(number, |call| {
            call.turn += 1;
            call.ask(to, now + patience);
            call.avoid = None;
            call.is_pardoned = false;
        });
    }

    /// The replica of this process, else whoever leads, else everybody in turn; the node to avoid only if there is no other
    /// but a silent one, and that only if there is no other at all.
    fn target(&self, avoid: Option<NodeId>, silent: Option<NodeId>) -> Option<NodeId> {
        let own = Some(self.config.node).filter(|_| self.config.local_replica);
        let leader = self.leader.filter(|leader| self.links.contains(leader));
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let in_turn = self.links.range(after).chain(self.links.iter()).copied();
        let choice = || own.into_iter().chain(leader).chain(in_turn.clone());
        choice()
            .find(|node| Some(*node) != avoid && Some(*node) != silent)
            .or_else(|| choice().find(|node| Some(*node) != silent))
            .or_else(|| choice().next())
    }

    fn on_time(&mut self, now: Nanos, effects: &mut Effects) {
        while let Some(&(at, number)) = self.wakes.first()
            && at <= now
        {
            let call = &self.asked[&number];
            if call.deadline <= now {
                self.give_up(now, number, effects);
                continue;
            }
            if call.purpose == Purpose::Register && self.queue.is_empty() {
                self.take(number);
                self.session = Session::None;
                continue;
            }
            if self.put_off.remove(&number) {
                self.queue(number);
                continue;
            }
            if let Phase::Asked(node, _) = call.phase {
                let is_patient = matches!(&call.purpose, Purpose::Read { query, .. } if query.waits());
                let is_own = node == self.config.node;
                self.change(number, |call| {
                    call.avoid = Some(node).filter(|_| !is_patient);
                    // A frozen leader is still named by those who have not noticed: their word is not worth another wait.
                    if !is_patient && !is_own {
                        call.silent = Some(node);
                    }
                });
            }
            self.ask(now, number, effects);
        }
    }

    fn give_up(&mut self, now: Nanos, number: u64, effects: &mut Effects) {
        let leader = self.leader;
        let Some(call) = self.take(number) else { return };
        let error =
            CallError::Deadline { maybe_applied: call.may_be_applied(), waited: call.timeout, leader, last: call.last };
        match call.purpose {
            Purpose::Write { call, .. }
            | Purpose::Read { call, .. }
            | Purpose::RenewOnce { call, .. }
            | Purpose::HandOver { call, .. } => {
                effects.publish.push(Event::Completed { call, result: Err(error) });
            }
            Purpose::Register => self.session = Session::None,
            Purpose::Renew(sessions) => {
                for session in sessions {
                    self.renew_next(session, now);
                    self.keeping.renew_next(session, now);
                }
            }
        }
    }

    // ---- answers ----

    fn on_response(&mut self, now: Nanos, response: Response, effects: &mut Effects) {
        let number = response.origin.number;
        let Some(call) = self.asked.get(&number).filter(|_| response.origin.node == self.config.node) else { return };
        // A refusal speaks of its own try. One that comes twice, or when the next try is on its way already, says nothing of
        // that one, and what it says of its own is not waited for any more.
        let is_latest = response.origin.turn == call.turn && matches!(call.phase, Phase::Asked(..));
        let is_refusal =
            matches!(response.result, Err(_) | Ok(Answer::Refused(Refused::SessionExpired | Refused::Busy)));
        if is_refusal && !is_latest && !is_on(Bug::RefusalSpeaksForAll) {
            return;
        }
        let is_news = response.leader.is_some() && response.leader != self.leader;
        self.leader = response.leader.or(self.leader);
        match response.result {
            Ok(Answer::Refused(Refused::SessionExpired)) => self.on_expired(now, number, effects),
            Ok(Answer::Refused(Refused::Busy)) => self.retry(now, number, Denied::Busy, effects),
            Ok(answer) => self.on_answer(now, number, answer, effects),
            Err(denied) => self.retry(now, number, denied, effects),
        }
        if is_news {
            self.ask_the_new_leader(now, number, effects);
        }
    }

    /// Whoever waits for somebody to lead need not wait any longer. The call that brought the news keeps its pause, so that
    /// two nodes that point at each other are not asked without end.
    fn ask_the_new_leader(&mut self, now: Nanos, messenger: u64, effects: &mut Effects) {
        let waits = |call: &Call| {
            matches!(call.phase, Phase::Pausing(_)) && matches!(call.last, Some(Denied::NotMaster | Denied::Unknown))
        };
        let waiting: Vec<u64> = self.asked.iter().filter(|(_, call)| waits(call)).map(|(&number, _)| number).collect();
        for number in waiting {
            if number != messenger {
                self.ask(now, number, effects);
            }
        }
    }

    fn on_answer(&mut self, now: Nanos, number: u64, answer: Answer, effects: &mut Effects) {
        let Some(call) = self.take(number) else { return };
        let asked = if is_on(Bug::CountsFromAnswer) { now } else { call.begun };
        match call.purpose {
            Purpose::Write { call, operation, is_kept, .. } => {
                if let (Operation::OpenSession(opening), &Answer::Registered(session), true) =
                    (&operation, &answer, is_kept)
                {
                    let until = self.keeping.keep(session, opening.ttl, asked);
                    effects.publish.push(Event::Kept { session, until });
                }
                effects.publish.push(Event::Completed { call, result: Ok(answer) });
            }
            Purpose::Read { call, .. } | Purpose::RenewOnce { call, .. } | Purpose::HandOver { call, .. } => {
                effects.publish.push(Event::Completed { call, result: Ok(answer) });
            }
            Purpose::Renew(sessions) => self.on_renewed(now, asked, sessions, &answer, effects),
            Purpose::Register => {
                self.session = match answer {
                    Answer::Registered(id) => Session::Open(Open::new(id, now + self.config.ttl / 3)),
                    // Refused: whoever waits for a session hears why.
                    refused => {
                        self.refuse_queue(&refused, effects);
                        Session::None
                    }
                };
            }
        }
    }

    fn refuse_queue(&mut self, answer: &Answer, effects: &mut Effects) {
        for number in std::mem::take(&mut self.queue) {
            if let Some(Call { purpose: Purpose::Write { call, .. }, .. }) = self.take(number) {
                effects.publish.push(Event::Completed { call, result: Ok(answer.clone()) });
            }
        }
    }

    /// The try was refused or its fate is unknown: once more, a little later, and if it was refused by somebody who is not
    /// the master, elsewhere. The replica of this process hears as soon as any other who leads, so while nobody does it is
    /// asked again more often than not: an election is no time for a flood of questions.
    fn retry(&mut self, now: Nanos, number: u64, denied: Denied, effects: &mut Effects) {
        let (own, has_own) = (self.config.node, self.config.local_replica);
        let has_leader = self.leader.is_some_and(|leader| leader != own && self.links.contains(&leader));
        self.change(number, |call| {
            if denied != Denied::Unknown {
                call.refuse();
            }
            call.last = Some(denied);
            // When nobody who answers leads, whoever kept silent may do so by now.
            call.is_pardoned = denied == Denied::NotMaster && call.has_paused_often();
            if let Phase::Asked(node, _) = call.phase {
                call.silent = call.silent.filter(|silent| *silent != node);
                let is_loyal = has_own && node == own && !has_leader && !call.has_paused_often();
                call.avoid = Some(node).filter(|_| denied == Denied::NotMaster && !is_loyal);
            }
            call.phase = Phase::Pausing(now + call.pause(number));
        });
        if denied == Denied::Busy {
            self.put_off(number, effects);
        }
    }

    /// A write that was certainly not done for want of room gives its place up while it pauses: it would take the window from all that is
    /// asked after it. A bounded number does; there may be room for others than tasks all the same, so one more task is refused.
    fn put_off(&mut self, number: u64, effects: &mut Effects) {
        let Some(Call { purpose: Purpose::Write { operation, .. }, .. }) =
            self.asked.get(&number).filter(|call| call.doubts() == 0)
        else {
            return;
        };
        if self.put_off.len() < PUT_OFF_MAX {
            self.give_up_place(number);
            self.put_off.insert(number);
        } else if matches!(operation, Operation::Submit(_))
            && let Some(Call { purpose: Purpose::Write { call, .. }, .. }) = self.take(number)
        {
            effects.publish.push(Event::Completed { call, result: Err(CallError::Busy) });
        }
    }

    /// The session is over. A write of which no other try is in doubt was certainly not done and goes into a new session.
    fn on_expired(&mut self, now: Nanos, number: u64, effects: &mut Effects) {
        let Some(call) = self.asked.get(&number) else { return };
        let doubts = call.doubts();
        match call.purpose {
            Purpose::Write { place: Some((session, _)), call: id, .. } => {
                self.lose(session);
                if doubts > 1 {
                    self.take(number);
                    let result = Err(CallError::SessionExpired { maybe_applied: true });
                    effects.publish.push(Event::Completed { call: id, result });
                    return;
                }
                self.give_up_place(number);
                self.queue(number);
            }
            _ => self.retry(now, number, Denied::Unknown, effects),
        }
    }

    /// A write that was certainly not done goes on under another number.
    fn give_up_place(&mut self, number: u64) {
        let Some(call) = self.asked.get_mut(&number) else { return };
        call.start_over();
        let Purpose::Write { place, .. } = &mut call.purpose else { return };
        if let (Session::Open(open), Some((id, seq))) = (&mut self.session, place.take())
            && open.id == id
        {
            open.complete(seq);
        }
    }

    /// It waits for a place in a session.
    fn queue(&mut self, number: u64) {
        self.set_phase(number, Phase::Queued);
        self.queue.insert(number);
    }

    // ---- links ----

    fn on_link_up(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        self.links.insert(node);
        for number in self.those(|phase| phase == Phase::Stranded) {
            self.ask(now, number, effects);
        }
    }

    fn on_link_down(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        self.links.remove(&node);
        self.leader = self.leader.filter(|&leader| leader != node);
        for number in self.those(|phase| matches!(phase, Phase::Asked(asked, _) if asked == node)) {
            self.ask(now, number, effects);
        }
    }

    fn those(&self, is_meant: impl Fn(Phase) -> bool) -> Vec<u64> {
        self.asked.iter().filter(|(_, call)| is_meant(call.phase)).map(|(&number, _)| number).collect()
    }

    // ---- the session ----

    /// Opens a session if somebody waits for one, gives places in it, renews it, closes it.
    fn tend_session(&mut self, now: Nanos, effects: &mut Effects) {
        match &self.session {
            Session::None if self.queue.is_empty() => self.is_closing = false,
            Session::None => {
                let number = self.begin(now, Purpose::Register, FOREVER);
                self.session = Session::Opening(number);
                self.ask(now, number, effects);
            }
            Session::Opening(_) => {}
            Session::Open(_) => {
                self.give_places(now, effects);
                self.renew(now, effects);
                self.close(effects);
            }
        }
    }

    fn give_places(&mut self, now: Nanos, effects: &mut Effects) {
        while let (Session::Open(open), Some(&number)) = (&mut self.session, self.queue.first()) {
            let Some(seq) = open.take() else { return };
            let id = open.id;
            self.queue.remove(&number);
            self.change(number, |call| {
                if let Purpose::Write { place, .. } = &mut call.purpose {
                    *place = Some((id, seq));
                }
            });
            self.ask(now, number, effects);
        }
    }

    fn renew(&mut self, now: Nanos, effects: &mut Effects) {
        let Session::Open(open) = &mut self.session else { return };
        if open.renew_at > now {
            return;
        }
        open.renew_at = Nanos::NEVER;
        let sessions = vec![open.id];
        self.ask_to_renew(now, sessions, self.config.ttl, effects);
    }

    fn ask_to_renew(&mut self, now: Nanos, sessions: Vec<SessionId>, timeout: Duration, effects: &mut Effects) {
        let number = self.begin(now, Purpose::Renew(sessions), timeout);
        self.ask(now, number, effects);
    }

    /// Says that the session may go. Nobody waits for the answer: lost, the session expires.
    fn close(&mut self, effects: &mut Effects) {
        let Session::Open(open) = &mut self.session else { return };
        if !self.is_closing || !open.is_idle() || !self.queue.is_empty() || !self.put_off.is_empty() {
            return;
        }
        let session = open.id;
        let (first_incomplete, seq) = (open.first_incomplete(), open.take().expect("an idle session has room"));
        let number = self.next_number;
        self.next_number += 1;
        if let Some(to) = self.target(None, None) {
            let body = RequestBody::Write { session, seq, first_incomplete, operation: Operation::Close };
            effects.send(to, Request { origin: self.origin(number, 1), forwarded: false, body });
        }
        self.lose(session);
        self.is_closing = false;
    }

    /// Renews the sessions of the application, and tells it which have ended.
    fn tend_kept(&mut self, now: Nanos, effects: &mut Effects) {
        for session in self.keeping.take_ended(now) {
            effects.publish.push(Event::Ended { session, why: Loss::Silence });
        }
        loop {
            let sessions = self.keeping.take_due(now);
            let Some(timeout) = self.keeping.shortest(&sessions) else { return };
            self.ask_to_renew(now, sessions, timeout, effects);
        }
    }

    fn on_renewed(
        &mut self,
        now: Nanos,
        asked: Nanos,
        sessions: Vec<SessionId>,
        answer: &Answer,
        effects: &mut Effects,
    ) {
        for session in sessions {
            match answer {
                Answer::Renewed { ended } if ended.contains(&session) => {
                    self.lose(session);
                    self.lose_kept(session, Loss::Gone, effects);
                }
                Answer::Renewed { .. } => {
                    self.renew_next(session, now + self.config.ttl / 3);
                    if let Some(until) = self.keeping.renewed(session, asked) {
                        effects.publish.push(Event::Kept { session, until });
                    }
                }
                // Somebody does not know what we mean: perhaps the next one does.
                _ => {
                    self.renew_next(session, now + self.config.patience);
                    self.keeping.renew_next(session, now + self.config.patience);
                }
            }
        }
    }

    fn lose_kept(&mut self, session: SessionId, why: Loss, effects: &mut Effects) {
        if self.keeping.forget(session) {
            effects.publish.push(Event::Ended { session, why });
        }
    }

    fn renew_next(&mut self, session: SessionId, at: Nanos) {
        if let Session::Open(open) = &mut self.session
            && open.id == session
        {
            open.renew_at = at;
        }
    }

    fn lose(&mut self, session: SessionId) {
        if self.open(session).is_some() {
            self.session = Session::None;
        }
    }

    fn open(&self, session: SessionId) -> Option<&Open> {
        match &self.session {
            Session::Open(open) if open.id == session => Some(open),
            _ => None,
        }
    }

    // ---- books ----

    /// Changes a call and keeps `wakes` right.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Call)) {
        let Some(call) = self.asked.get_mut(&number) else { return };
        let before = call.wake();
        change(call);
        let after = call.wake();
        if before != after {
            self.wakes.remove(&(before, number));
            self.wakes.insert((after, number));
        }
    }

    fn set_phase(&mut self, number: u64, phase: Phase) {
        self.change(number, |call| call.phase = phase);
    }

    /// Takes a call out of all books.
    fn take(&mut self, number: u64) -> Option<Call> {
        let call = self.asked.remove(&number)?;
        self.wakes.remove(&(call.wake(), number));
        self.queue.remove(&number);
        self.put_off.remove(&number);
        match &call.purpose {
            Purpose::Write { call, place, .. } => {
                self.numbers.remove(call);
                if let (Session::Open(open), &Some((id, seq))) = (&mut self.session, place)
                    && open.id == id
                {
                    open.complete(seq);
                }
            }
            Purpose::Read { call, .. } | Purpose::RenewOnce { call, .. } | Purpose::HandOver { call, .. } => {
                self.numbers.remove(call);
            }
            Purpose::Register | Purpose::Renew(_) => {}
        }
        Some(call)
    }

    fn origin(&self, number: u64, turn: u32) -> Origin {
        Origin { node: self.config.node, number, turn }
    }
}

/// How many writes may wait for a place in the session.
const QUEUE_MAX: usize = 4096;

/// How many writes may be put off without a place in the session.
const PUT_OFF_MAX: usize = WINDOW as usize;

/// How many requests may be under way in all.
const ASKED_MAX: usize = 65_536;

/// No answer comes sooner than this.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
