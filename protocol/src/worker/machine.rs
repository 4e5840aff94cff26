//! The worker of one run of a node.
//!
//! # Invariants
//!
//! * `seen` is the highest fence dispatched since the last hello: on one link dispatches come in the order of their fences,
//!   so whatever is below it and not held was lost on the way or is gone (F11).
//! * What is gone is handed back when it is dispatched again, and never run again.
//! * A session is renewed only under the master that welcomed it in the current epoch and link; to any other the worker says
//!   hello.

use std::collections::BTreeSet;
use std::time::Duration;

use super::holding::{Ended, Hand, Running};
use super::message::{AbortCause, Config, Input, Run, ToMaster};
use crate::effects::{Effects, Event};
use crate::master::{Grant, ToWorker};
use crate::mutants::{Bug, is_on};
use crate::profile::shortened;
use crate::state::{Begun, Offer, Outcome, Refused, TaskEffect, check_result};
use crate::types::{Attempt, Epoch, Fence, Nanos, NodeId, SessionId};
use crate::wire::MAX_VALUE;

/// See the module above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    config: Config,
    /// Other nodes that can be spoken to.
    links: BTreeSet<NodeId>,
    /// The highest epoch heard of.
    epoch: Epoch,
    /// Who speaks in it.
    master: Option<NodeId>,
    session: Option<Session>,
    /// Whether that master has welcomed us on the link of today.
    is_welcome: bool,
    /// Why the cluster does not take this worker, if it has said so since the last welcome.
    refused: Option<Refused>,
    hand: Hand,
    seen: Fence,
    /// When to speak again.
    speak_at: Nanos,
    mood: Mood,
}

/// The session as the worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Session {
    id: SessionId,
    /// When it ends by our clock, early enough for handlers to be gone when it ends at the master.
    end: Nanos,
}

/// Whether more work is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mood {
    Working,
    /// What is held comes to its end; goodbye is said then, or at this time.
    Draining(Nanos),
    Gone,
}

impl Worker {
    /// A worker that has heard of no master yet.
    #[must_use]
    pub fn new(config: Config, now: Nanos) -> Self {
        Self {
            config,
            links: BTreeSet::new(),
            epoch: Epoch(0),
            master: None,
            session: None,
            is_welcome: false,
            refused: None,
            hand: Hand::default(),
            seen: Fence(0),
            speak_at: now,
            mood: Mood::Working,
        }
    }

    /// Handles one input. Whatever must follow from it is added to `effects`.
    pub fn step(&mut self, now: Nanos, input: Input, effects: &mut Effects) {
        // Time first: what is over by our clock is over before anything is obeyed.
        self.on_time(now, effects);
        match input {
            Input::Message { from, message } => self.on_message(now, from, message, effects),
            Input::Finished { fence, outcome } => self.on_finished(fence, outcome, effects),
            Input::LinkUp { node } => {
                self.links.insert(node);
            }
            Input::LinkDown { node } => self.on_link_down(node),
            Input::Drain => self.on_drain(now, effects),
            Input::Stop => self.on_stop(now, effects),
            Input::Tick => {}
        }
        self.speak(now, effects);
    }

    /// When [`Input::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Nanos {
        let speak = if self.mood != Mood::Gone && self.listener().is_some() { self.speak_at } else { Nanos::NEVER };
        let end = self.session.map_or(Nanos::NEVER, |session| session.end);
        let stop = self.hand.running().values().map(|running| running.deadline).min().unwrap_or(Nanos::NEVER);
        let goodbye = if let Mood::Draining(until) = self.mood { until } else { Nanos::NEVER };
        speak.min(end).min(stop).min(goodbye)
    }

    /// Says whether this worker has gone: nothing runs, nothing waits for its judgement or it was told to [stop](Input::Stop), and
    /// goodbye is said.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.mood == Mood::Gone
    }

    /// How many attempts run here.
    #[must_use]
    pub fn running(&self) -> usize {
        self.hand.running().len()
    }

    /// The session under which attempts run here, if one lives by this clock.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session.map(|session| session.id)
    }

    // ---- time ----

    fn on_time(&mut self, now: Nanos, effects: &mut Effects) {
        if self.session.is_some_and(|session| session.end <= now) {
            effects.note("the session of this worker has ended by its own clock");
            self.lose_session(now, effects);
        }
        let late: Vec<Fence> = self
            .hand
            .running()
            .iter()
            .filter(|(_, running)| running.deadline <= now)
            .map(|(&fence, _)| fence)
            .collect();
        for fence in late {
            self.time_out(fence, effects);
        }
    }

    fn time_out(&mut self, fence: Fence, effects: &mut Effects) {
        let Some(Running { attempt, .. }) = self.hand.stop(fence) else { return };
        effects.publish.push(Event::Abort { attempt, fence, why: AbortCause::TimedOut });
        self.report(fence, attempt, failure("it ran longer than it may", true), effects);
    }

    fn lose_session(&mut self, now: Nanos, effects: &mut Effects) {
        self.session = None;
        self.is_welcome = false;
        self.speak_at = now;
        let running: Vec<Fence> = self.hand.running().keys().copied().collect();
        if !is_on(Bug::OutlivesItsSession) {
            self.abort(&running, AbortCause::SessionLost, effects);
        }
    }

    fn abort(&mut self, fences: &[Fence], why: AbortCause, effects: &mut Effects) {
        for &fence in fences {
            if let Some(Running { attempt, .. }) = self.hand.stop(fence) {
                effects.publish.push(Event::Abort { attempt, fence, why });
            }
        }
    }

    // ---- what the master says ----

    fn on_message(&mut self, now: Nanos, from: NodeId, message: ToWorker, effects: &mut Effects) {
        let epoch = message.epoch();
        if epoch < self.epoch {
            return;
        }
        if epoch > self.epoch || self.master != Some(from) {
            self.epoch = epoch;
            self.master = Some(from);
            self.is_welcome = false;
            self.speak_at = now;
        }
        match message {
            ToWorker::Here { .. } => self.meet_again(now),
            // What an earlier run of this node asked was answered too late for it, and comes over our link.
            ToWorker::Welcome { incarnation, .. } if incarnation != self.config.incarnation => {}
            ToWorker::Welcome { session, ttl, sent, .. } => {
                // The answer to a question of this run, which cannot have been asked later than now.
                let sent = sent.min(now);
                let span = shortened(ttl).saturating_sub(GRACE);
                self.on_welcome(now, Session { id: session, end: sent + span }, effects);
            }
            ToWorker::Unknown { .. } => self.lose_session(now, effects),
            ToWorker::Refused { why, .. } => self.on_refused(why, effects),
            ToWorker::Dispatch { grant, .. } => self.on_dispatch(now, grant, effects),
            ToWorker::Cancel { attempt, fence, .. } => self.on_cancel(attempt, fence, effects),
            ToWorker::FinishAck { task, fence, .. } => {
                self.hand.forget(fence, Attempt { task, number: 0 });
                self.report_large(fence, effects);
            }
        }
    }

    /// The master, or the link to it, is new: it shall hear all that is held.
    fn meet_again(&mut self, now: Nanos) {
        self.is_welcome = false;
        self.speak_at = now;
    }

    fn on_welcome(&mut self, now: Nanos, offered: Session, effects: &mut Effects) {
        if self.mood == Mood::Gone || offered.end <= now {
            return;
        }
        let is_same = self.session.is_some_and(|own| own.id == offered.id);
        let end = self.session.filter(|_| is_same).map_or(offered.end, |own| own.end.max(offered.end));
        if !is_same {
            // What ran under an older session has lost its right with it.
            let running: Vec<Fence> = self.hand.running().keys().copied().collect();
            self.abort(&running, AbortCause::SessionLost, effects);
        }
        self.session = Some(Session { id: offered.id, end });
        self.is_welcome = true;
        self.refused = None;
    }

    /// It goes on asking: room may be made for it.
    fn on_refused(&mut self, why: Refused, effects: &mut Effects) {
        if self.refused.as_ref() == Some(&why) {
            return;
        }
        match &why {
            Refused::Quota(words) | Refused::Invalid(words) => effects.note(format!("no work comes to this node: {words}")),
            Refused::TooLarge { len, limit } => effects.note(format!(
                "no work comes to this node: of its kinds and labels one is too long or there are too many, {len} where {limit} are allowed"
            )),
            other => effects.note(format!("no work comes to this node: {other:?}")),
        }
        self.refused = Some(why);
    }

    fn on_dispatch(&mut self, now: Nanos, grant: Grant, effects: &mut Effects) {
        let (fence, attempt) = (grant.fence, grant.attempt);
        let has_right = self.session.is_some_and(|session| session.id == grant.session);
        let is_known = self.hand.is_known(fence) && !is_on(Bug::StartsTwice);
        if !has_right && !is_known {
            // The answer about our session is lost or on its way, and the master says this again after the next one; or it is for an
            // earlier run of this node, which may have begun it.
            return;
        }
        self.seen = self.seen.max(fence);
        if self.hand.running().contains_key(&fence) {
            return;
        }
        if let Some(ended) = self.hand.ended().get(&fence) {
            self.say(ToMaster::Finish { task: attempt.task, fence, outcome: ended.outcome.clone() }, effects);
            return;
        }
        let has_room = self.running() < self.config.offer.slots as usize && self.hand.ended().len() < ENDED_MAX;
        if self.mood != Mood::Working || !has_room || is_known {
            let never_started = self.hand.decline(fence, attempt);
            self.say(ToMaster::HandBack { task: attempt.task, fence, never_started }, effects);
            return;
        }
        if !self.config.offer.kinds.contains(&grant.kind) {
            let outcome = failure(&no_handler(&grant.kind, &self.config.offer), false);
            self.report(fence, attempt, outcome, effects);
            return;
        }
        let deadline = if grant.timeout.is_zero() { Nanos::NEVER } else { now + grant.timeout };
        self.hand.start(fence, Running { attempt, deadline });
        effects.publish.push(Event::Start(Run { grant, epoch: self.epoch }));
    }

    fn on_cancel(&mut self, attempt: Attempt, fence: Fence, effects: &mut Effects) {
        if self.hand.ended().contains_key(&fence) {
            return; // It has a result: the log judges that.
        }
        self.abort(&[fence], AbortCause::Cancelled, effects);
        self.hand.forget(fence, attempt);
    }

    // ---- what happens here ----

    /// A handler that was told to stop may have had its result ready: that is reported too, and the log judges it (D5). Its
    /// failure says nothing but that it was stopped.
    fn on_finished(&mut self, fence: Fence, outcome: Outcome, effects: &mut Effects) {
        self.hand.settle(fence);
        match self.hand.speaker(fence) {
            Some((attempt, false)) => self.report(fence, attempt, bounded(outcome), effects),
            Some((attempt, true)) if matches!(outcome, Outcome::Done { .. }) => {
                self.report(fence, attempt, bounded(outcome), effects);
            }
            _ => {}
        }
    }

    fn on_link_down(&mut self, node: NodeId) {
        self.links.remove(&node);
        if self.master == Some(node) {
            self.is_welcome = false;
        }
    }

    fn on_drain(&mut self, now: Nanos, effects: &mut Effects) {
        if self.mood == Mood::Working {
            effects.note(format!("draining: {} attempts still run", self.running()));
            self.mood = Mood::Draining(Nanos::NEVER);
            // A goodbye follows the answer to a hello. Whoever was the master may be one no more without any sign of it here, above all
            // where that is this very node; the next one answers, and hears it.
            self.meet_again(now);
        }
    }

    /// What reaches a result in spite of it is still judged, in the time that is left.
    fn on_stop(&mut self, now: Nanos, effects: &mut Effects) {
        self.on_drain(now, effects);
        self.leave_by(now + self.config.profile.election_timeout);
        let running: Vec<Fence> = self.hand.running().keys().copied().collect();
        if !running.is_empty() {
            effects.note(format!("{} attempts still run: they are stopped, and go again elsewhere", running.len()));
        }
        self.abort(&running, AbortCause::Leaving, effects);
    }

    fn leave_by(&mut self, time: Nanos) {
        if let Mood::Draining(until) = &mut self.mood {
            *until = time.min(*until);
        }
    }

    fn report(&mut self, fence: Fence, attempt: Attempt, outcome: Outcome, effects: &mut Effects) {
        self.hand.end(fence, Ended { attempt, outcome: outcome.clone() });
        self.say(ToMaster::Finish { task: attempt.task, fence, outcome }, effects);
    }

    /// Of large results that come together, the link takes the first and is busy then: each judgement makes room for the next.
    fn report_large(&self, judged: Fence, effects: &mut Effects) {
        let ended = self.hand.ended();
        let mut in_turn = ended.range(judged..).chain(ended.range(..judged));
        if let Some((&fence, ended)) = in_turn.find(|(_, ended)| is_large(&ended.outcome)) {
            self.say(ToMaster::Finish { task: ended.attempt.task, fence, outcome: ended.outcome.clone() }, effects);
        }
    }

    // ---- what we say ----

    /// Says what is due: goodbye, hello or "I still live", and the results that wait for their judgement. Those come last: they may
    /// leave no room on the link.
    fn speak(&mut self, now: Nanos, effects: &mut Effects) {
        self.say_goodbye(now, effects);
        if self.mood == Mood::Gone || now < self.speak_at || self.listener().is_none() {
            return;
        }
        self.speak_at = now + self.config.profile.renewal;
        let (epoch, held, sent) = (self.epoch, self.hand.held(), now);
        match self.session.filter(|_| self.is_welcome) {
            Some(Session { id: session, .. }) => {
                self.say(ToMaster::Renew { epoch, session, held, seen: self.seen, sent }, effects);
            }
            None => {
                self.seen = Fence(0);
                self.say(ToMaster::Hello { epoch, offer: self.offer(), held, sent }, effects);
            }
        }
        for (&fence, ended) in self.hand.ended() {
            let outcome = ended.outcome.clone();
            self.say(ToMaster::Finish { task: ended.attempt.task, fence, outcome }, effects);
        }
    }

    /// Says goodbye, if it is time: nothing is held and a master listens that knows of us, or nothing is to be waited for any more.
    fn say_goodbye(&mut self, now: Nanos, effects: &mut Effects) {
        if self.hand.is_empty() {
            // The next master says that it is here within this time, or hardly in any.
            self.leave_by(now + self.config.profile.election_timeout);
        }
        let Mood::Draining(until) = self.mood else { return };
        // Without a session, a hello may be on its way that opens one.
        let is_heard = if self.listener().is_some() { self.is_welcome } else { self.session.is_none() };
        if now < until && !(self.hand.is_empty() && is_heard) {
            return;
        }
        self.mood = Mood::Gone;
        if let Some(Session { id, .. }) = self.session.take() {
            let begun = if is_on(Bug::GoodbyeNamesNothing) { Begun::default() } else { self.hand.begun() };
            self.say(ToMaster::Goodbye { session: id, begun }, effects);
        }
        effects.publish.push(Event::Drained);
    }

    fn say(&self, message: ToMaster, effects: &mut Effects) {
        if let Some(master) = self.listener() {
            effects.send(master, message);
        }
    }

    /// The master, if it can be spoken to.
    fn listener(&self) -> Option<NodeId> {
        self.master.filter(|master| *master == self.config.node || self.links.contains(master))
    }

    fn offer(&self) -> Offer {
        let mut offer = self.config.offer.clone();
        if self.mood != Mood::Working {
            offer.slots = 0;
        }
        offer
    }
}

fn is_large(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done { output, effects } => output.len() + effects.iter().map(TaskEffect::size).sum::<usize>() > LARGE,
        Outcome::Failed { output, .. } => output.len() > LARGE,
    }
}

fn failure(message: &str, retry: bool) -> Outcome {
    Outcome::Failed { message: message.into(), retry, output: bytes::Bytes::new() }
}

fn no_handler(kind: &str, offer: &Offer) -> String {
    let known: Vec<&str> = offer.kinds.iter().map(String::as_str).collect();
    format!("this node has no handler for task kind `{kind}`; it has: {}", known.join(", "))
}

/// What the log can carry of an outcome: a result that is too large is a failure that another attempt would repeat.
fn bounded(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { ref output, ref effects } => match check_result(output, effects) {
            Ok(()) => outcome,
            Err(why) => failure(&why, false),
        },
        Outcome::Failed { mut message, retry, mut output } => {
            if message.len() > MESSAGE_MAX {
                let end = (0..=MESSAGE_MAX).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
                message.truncate(end);
            }
            output.truncate(MAX_VALUE);
            Outcome::Failed { message, retry, output }
        }
    }
}

/// For how long a handler that was told to stop may still be at work.
pub const GRACE: Duration = Duration::from_millis(100);

/// From how many bytes on a result finds no room on a link that carries another such one.
const LARGE: usize = 224 * 1024;

/// How many results may wait for their judgement before no more attempts are taken.
const ENDED_MAX: usize = 1024;

/// How long the words of a failure may be, in bytes.
const MESSAGE_MAX: usize = 4096;
