//! Requests in, answers out: what this node answers, sends on to the leader, or puts into the log.
//!
//! # Invariants
//!
//! * What waits here is bounded, and given up by time: whoever still waits asks again.
//! * The end of leadership before the end of a write means "maybe" (F30).

use super::Replica;
use super::batch::{self, Placed, Waiter};
use super::waiting::{Place, Subject};
use crate::client::patience::{HOLD, SWEEP};
use crate::client::{Consistency, Denied, Request, RequestBody, Response};
use crate::consensus::{self, ReadMode};
use crate::effects::{Effects, Role};
use crate::mutants::{Bug, is_on};
use crate::state::limits::{MAX_RENEWED, check_query};
use crate::state::{Answer, ClaimState, Command, NodeView, Operation, Query, Refused};
use crate::types::{Nanos, NodeId};
use crate::wire;

/// A read under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) waiter: Waiter,
    pub(super) query: Query,
}

/// A request that the leader was asked to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Forwarded {
    /// When its place is given up: whoever still waits has asked again by then.
    pub(super) until: Nanos,
    /// Who gets the answer, to the last try of it.
    pub(super) waiter: Waiter,
    /// Who was asked.
    pub(super) to: NodeId,
}

impl Replica {
    pub(super) fn on_request(&mut self, now: Nanos, from: NodeId, request: Request, effects: &mut Effects) {
        let waiter = Waiter { origin: request.origin, from };
        if let RequestBody::Read { query, .. } = &request.body
            && let Err(why) = check_query(query)
        {
            return self.respond(waiter, Ok(Answer::Refused(why)), effects);
        }
        match request.body {
            RequestBody::Read { query, consistency: Consistency::Stale } if !self.is_outside() => {
                self.answer(waiter, &query, effects)
            }
            RequestBody::Read { query, .. } if self.consensus.role() == Role::Leader && is_on(Bug::ReadsBlindly) => {
                self.answer(waiter, &query, effects);
            }
            RequestBody::Read { query, .. } if !request.forwarded && self.reads_here(&query) => {
                self.read(now, waiter, query, effects);
            }
            body if self.consensus.role() == Role::Leader => self.on_leader_request(now, waiter, body, effects),
            body => self.forward(waiter, request.forwarded, body, effects),
        }
    }

    pub(super) fn on_leader_request(&mut self, now: Nanos, waiter: Waiter, body: RequestBody, effects: &mut Effects) {
        let command = match body {
            RequestBody::Register { ttl } => Command::Register { ttl },
            RequestBody::Renew { sessions, .. } if sessions.len() > MAX_RENEWED => {
                let (len, limit) = (sessions.len() as u64, MAX_RENEWED as u64);
                return self.respond(waiter, Ok(Answer::Refused(Refused::TooLarge { len, limit })), effects);
            }
            RequestBody::Renew { mut sessions, heard } => {
                // Whether a node lives is for the master to say.
                sessions.retain(|session| !self.state.is_node_session(*session));
                if let Some((session, first_incomplete)) = heard
                    && self.state.keeps_before(session, first_incomplete)
                {
                    // If there is no room, the next renewal says it again.
                    let _ = self.batch.push(Command::Heard { session, first_incomplete }, None);
                }
                Command::Renew { sessions }
            }
            RequestBody::Write { session, seq, first_incomplete, operation } => {
                // The log would refuse it, too, but only as an entry.
                if self.state.is_crowded(&operation) && !self.state.has_answered(session, seq) {
                    return self.respond(waiter, Err(Denied::Busy), effects);
                }
                if let (Operation::Submit(tasks), Some(_)) = (&operation, self.mastering) {
                    self.coming.note(session, seq, tasks);
                }
                Command::Client { session, seq, first_incomplete, operation }
            }
            RequestBody::Read { query, .. } => return self.read(now, waiter, query, effects),
            RequestBody::HandOver { to, epoch } => return self.on_hand_over(now, waiter, to, epoch, effects),
        };
        let request = match &command {
            Command::Client { session, seq, .. } => Some((*session, *seq)),
            _ => None,
        };
        let Err(full) = self.batch.push(command, Some(waiter)) else { return };
        if let Some((session, seq)) = request {
            self.coming.forget(session, seq);
        }
        let denied = match full {
            batch::Full::Batch => Err(Denied::Busy),
            batch::Full::Command { len } => {
                Ok(Answer::Refused(Refused::TooLarge { len, limit: wire::MAX_COMMAND as u64 }))
            }
        };
        self.respond(waiter, denied, effects);
    }

    /// A linearizable read from our own state, as soon as consensus says that it is recent enough.
    pub(super) fn read(&mut self, now: Nanos, waiter: Waiter, query: Query, effects: &mut Effects) {
        let context = self.context();
        self.reads.insert(context, Question { waiter, query });
        self.core(now, consensus::Input::Read { context, mode: ReadMode::Lease }, effects);
    }

    /// Whether this node holds the log of a leader that it follows, so that it need not send the whole question on. What only
    /// the leader knows is for the leader.
    pub(super) fn reads_here(&self, query: &Query) -> bool {
        let follows = self.consensus.role() == Role::Follower && self.consensus.leader().is_some();
        follows && self.consensus.is_member() && !self.is_outside() && *query != Query::Roster
    }

    /// Asks the leader on the client's behalf, once.
    pub(super) fn forward(&mut self, waiter: Waiter, was_forwarded: bool, body: RequestBody, effects: &mut Effects) {
        let leader = self.leader().filter(|&leader| leader != self.node && !was_forwarded);
        let Some(to) = leader else {
            self.respond(waiter, Err(Denied::NotMaster), effects);
            return;
        };
        if self.forwarded.len() >= FORWARDED_MAX {
            self.respond(waiter, Err(Denied::Busy), effects);
            return;
        }
        let until = self.hold();
        self.forwarded.insert(waiter.origin.request(), Forwarded { until, waiter, to });
        effects.send(to, Request { origin: waiter.origin, forwarded: true, body });
    }

    pub(super) fn on_response(&mut self, response: Response, effects: &mut Effects) {
        let key = response.origin.request();
        let Some(forwarded) = self.forwarded.get(&key) else { return };
        // A refusal of an earlier try says nothing of the one that is under way now.
        if response.result.is_err() && response.origin.turn != forwarded.waiter.origin.turn {
            return;
        }
        effects.send(forwarded.waiter.from, response);
        self.forwarded.remove(&key);
    }

    /// Whoever was to answer these will not: their clients ask again, under the same numbers.
    pub(super) fn give_back_forwarded(&mut self, is_lost: impl Fn(&Forwarded) -> bool, effects: &mut Effects) {
        let lost: Vec<Waiter> =
            self.forwarded.values().filter(|forwarded| is_lost(forwarded)).map(|forwarded| forwarded.waiter).collect();
        for waiter in lost {
            self.forwarded.remove(&waiter.origin.request());
            self.respond(waiter, Err(Denied::Unknown), effects);
        }
    }

    pub(super) fn respond(&self, waiter: Waiter, result: Result<Answer, Denied>, effects: &mut Effects) {
        effects.send(waiter.from, Response { origin: waiter.origin, leader: self.leader(), result });
    }

    pub(super) fn answer(&mut self, waiter: Waiter, query: &Query, effects: &mut Effects) {
        if let Query::Watch(watch) = query {
            return self.answer_watch(waiter, watch, effects);
        }
        let answer = match self.state.query(query) {
            Answer::Roster(view) => return self.answer_roster(waiter, *view, effects),
            answer => answer,
        };
        match is_to_come(query, &answer) {
            Some(subject) => self.wait(subject, waiter, query.clone(), effects),
            None => self.respond(waiter, Ok(answer), effects),
        }
    }

    pub(super) fn wait(&mut self, subject: Subject, waiter: Waiter, query: Query, effects: &mut Effects) {
        let until = self.hold();
        if !self.waiting.insert(subject, Place { waiter, query, until }) {
            self.respond(waiter, Err(Denied::Busy), effects);
        }
    }

    /// Asks the questions again that wait for this.
    pub(super) fn answer_waiting(&mut self, subject: &Subject, effects: &mut Effects) {
        for Place { waiter, query, .. } in self.waiting.take(subject) {
            self.answer(waiter, &query, effects);
        }
    }

    /// Everything that waited for this node to lead is answered: what never became an entry is certainly not done, what did
    /// may be.
    pub(super) fn stop_leading(&mut self, effects: &mut Effects) {
        for waiter in self.batch.clear() {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
        for (_, (_, waiters)) in std::mem::take(&mut self.placed) {
            for Placed { waiter, .. } in waiters {
                let denied = if is_on(Bug::UnknownIsNo) { Denied::NotMaster } else { Denied::Unknown };
                self.respond(waiter, Err(denied), effects);
            }
        }
        for (_, Question { waiter, .. }) in std::mem::take(&mut self.reads) {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
        for Place { waiter, .. } in self.waiting.take_unless_watching() {
            self.respond(waiter, Err(Denied::NotMaster), effects);
        }
    }

    /// Until when somebody's place is held who asks from now on.
    pub(super) fn hold(&mut self) -> Nanos {
        self.sweep_at = self.sweep_at.min(self.now + HOLD);
        self.now + HOLD
    }

    /// Gives up the places of those who have not asked again: a client that no longer waits tells nobody.
    pub(super) fn sweep(&mut self, effects: &mut Effects) {
        let now = self.now;
        self.forwarded.retain(|_, forwarded| forwarded.until > now);
        for place in self.waiting.take_due(now) {
            if let Query::Watch(watch) = place.query {
                self.report_progress(place.waiter, &watch, effects);
            }
        }
        let is_empty = self.forwarded.is_empty() && self.waiting.is_empty();
        self.sweep_at = if is_empty { Nanos::NEVER } else { now + SWEEP };
    }
}

/// What an answer shows that does not say yet what was asked for.
fn is_to_come(query: &Query, answer: &Answer) -> Option<Subject> {
    match (query, answer) {
        (Query::Await(task), Answer::Task(view)) if !view.state.is_final() => Some(Subject::Task(*task)),
        (Query::AwaitClaim { claim, .. }, Answer::Claim(ClaimState::Waiting)) => Some(Subject::Claim(*claim)),
        (Query::AwaitNodes { known }, Answer::Nodes(nodes)) if NodeView::sum(nodes) == *known => Some(Subject::Nodes),
        (Query::AwaitEnd { session, .. }, Answer::Ended(ended)) if ended.is_empty() => Some(Subject::Claims(*session)),
        (Query::AwaitRight { right, after }, Answer::Right(view)) if view.revision == *after => {
            Some(Subject::Right(right.clone()))
        }
        _ => None,
    }
}

/// How many requests may wait for the leader on behalf of others; one more is `Busy`.
const FORWARDED_MAX: usize = 65_536;
