//! The rules by which tasks move: grant, result, taking back, cancel.
//!
//! An outcome is judged by task and fence alone (F13): whoever holds the fence that the task stands under decides how the
//! attempt ended, however late and through whichever master it comes; everybody else is refused, once for all.
//!
//! # Invariants
//!
//! * A task has at most one live grant, and each grant a fence of its own, greater than all before.
//! * A task that may run once is granted again only where the last attempt certainly never started (F8).
//! * A task that has ended stays as it is.

use std::time::Duration;

use bytes::Bytes;

use super::Tasks;
use super::record::{Fate, Record, kept_line, kept_text};
use crate::mutants::{Bug, is_on};
use crate::state::digest::{Tag, fingerprint};
use crate::state::effects::{Metadata, check_result};
use crate::state::limits::{MAX_BACKOFF, MAX_BYTES_WITH_RESULTS, MAX_DEATHS};
use crate::state::{
    Answer, Assigned, ClusterChange, Delivery, HistoryEvent, Outcome, Refused, ReleaseCause, Step, TaskState,
};
use crate::types::{Attempt, ClusterTime, Fence, NodeId, Revision, SessionId, TaskId};
use crate::wire::MAX_VALUE;

impl Tasks {
    /// Grants an attempt, if the task waits for exactly this one. The caller has found the session alive.
    pub(in crate::state) fn assign(
        &mut self,
        attempt: Attempt,
        session: SessionId,
        node: NodeId,
        step: &mut Step<'_>,
    ) -> Result<(), Refused> {
        let record = self.live_record_mut(attempt.task)?;
        match *record.state() {
            TaskState::Pending { not_before }
                if not_before <= step.time && record.attempts.checked_add(1) == Some(attempt.number) => {}
            TaskState::Pending { .. } | TaskState::Assigned { .. } if is_on(Bug::AssignsBlindly) => {}
            _ => return Err(elsewhere(record)),
        }
        let (number, fence, since) = (attempt.number, Fence::from(step.grant()), step.time);
        record.attempts = number;
        record.remember(number, fence);
        record.note(since, number, HistoryEvent::Assigned(node));
        self.counts.attempts += 1;
        self.transit(attempt.task, TaskState::Assigned { number, fence, node, session, since });
        let grant = Assigned { number, fence, node, session, since };
        step.changes.push(ClusterChange::Assigned { attempt, grant });
        Ok(())
    }

    /// Takes an attempt back on the master's word, if it holds this fence and the cause may end it.
    ///
    /// The end of a session takes its attempts back in the same entry (see [`Tasks::end_session`]). So where the cause is
    /// `SessionEnded` and the attempt still stands, the session lives and the decision is void.
    pub(in crate::state) fn release(
        &mut self,
        id: TaskId,
        fence: Fence,
        cause: ReleaseCause,
        step: &mut Step<'_>,
    ) -> Result<(), Refused> {
        let record = self.live_record(id)?;
        let Some(grant) = record.grant().filter(|grant| grant.fence == fence) else { return Err(elsewhere(record)) };
        let may_end_it = match cause {
            ReleaseCause::Evidence => record.spec().delivery == Delivery::AtLeastOnce || is_on(Bug::EvidenceMovesAll),
            ReleaseCause::SessionEnded => false,
            ReleaseCause::NotHeld | ReleaseCause::TimedOut | ReleaseCause::HandedBack => true,
        };
        if !may_end_it {
            return Err(elsewhere(record));
        }
        self.take_back(id, grant, cause, step);
        Ok(())
    }

    /// Takes back all attempts of a session that has just ended.
    pub(in crate::state) fn end_session(
        &mut self,
        session: SessionId,
        cause: impl Fn(Fence) -> ReleaseCause,
        step: &mut Step<'_>,
    ) {
        for id in self.held.get(&session).cloned().unwrap_or_default() {
            let grant = self.live_record(id).ok().and_then(Record::grant).expect("a held task has a grant");
            self.take_back(id, grant, cause(grant.fence), step);
        }
    }

    /// Judges the outcome of an attempt. What it writes is written if its result is recorded here and now.
    pub(in crate::state) fn finish(
        &mut self,
        (id, fence): (TaskId, Fence),
        outcome: &Outcome,
        metadata: &mut Metadata<'_>,
        step: &mut Step<'_>,
    ) -> Answer {
        let Some(kept) = self.records.get(&id) else {
            judged(id, fence, false, step);
            return Answer::Refused(Refused::NotFound);
        };
        let (grant, fate, why) = {
            let record = kept.record();
            let why = if record.state().is_final() { Refused::Ended } else { elsewhere(&record) };
            (record.grant(), record.fate(fence), why)
        };
        if let Some(grant) = grant.filter(|_| is_on(Bug::JudgesWithoutFence)) {
            self.judge(id, Assigned { fence, ..grant }, outcome, metadata, step);
            return Answer::Ok;
        }
        match fate {
            Some((_, Fate::Held)) => {
                let grant = grant.filter(|grant| grant.fence == fence).expect("a held fence is that of the grant");
                self.judge(id, grant, outcome, metadata, step);
                return Answer::Ok;
            }
            // Its worker has not heard so yet.
            Some((_, Fate::Judged)) => {
                judged(id, fence, true, step);
                return Answer::Ok;
            }
            Some((number, Fate::TakenBack)) => {
                if let (Outcome::Done { effects, .. }, true) = (outcome, is_on(Bug::EffectsOfTheFenced)) {
                    let _ = metadata.perform(effects, step);
                }
                self.note_late(Attempt { task: id, number }, fence, step.time);
            }
            Some((_, Fate::Refused)) | None => {}
        }
        judged(id, fence, false, step);
        Answer::Refused(why)
    }

    /// Ends a task by a client's wish.
    pub(in crate::state) fn cancel(
        &mut self,
        id: TaskId,
        reason: &str,
        step: &mut Step<'_>,
    ) -> Result<Answer, Refused> {
        let record = self.live_record_mut(id)?;
        let grant = record.grant();
        if let Some(grant) = grant {
            record.set_fate(grant.fence, Fate::TakenBack);
        }
        record.note(step.time, grant.map_or(0, |grant| grant.number), HistoryEvent::Cancelled);
        let state = TaskState::Cancelled { reason: kept_text(reason), at: step.time };
        self.end(id, grant, state, false, step);
        self.view(id).map(|view| Answer::Task(Box::new(view))).ok_or(Refused::NotFound)
    }

    fn judge(
        &mut self,
        id: TaskId,
        grant: Assigned,
        outcome: &Outcome,
        metadata: &mut Metadata<'_>,
        step: &mut Step<'_>,
    ) {
        judged(id, grant.fence, true, step);
        let full = self.bytes > MAX_BYTES_WITH_RESULTS;
        let record = self.live_record_mut(id).expect("the caller has found it");
        record.set_fate(grant.fence, Fate::Judged);
        // What cannot be kept fails the attempt as a whole, and for good: the next one would produce the same.
        let (message, retry, output) = match outcome {
            Outcome::Done { output, .. } if full && !output.is_empty() => {
                ("the cluster is full: there is no room for the result".into(), false, Bytes::new())
            }
            Outcome::Done { output, effects } => {
                let performed = check_result(output, effects).and_then(|()| {
                    metadata.perform(effects, step).map_err(|why| format!("an effect was refused: {why}"))
                });
                match performed {
                    Ok(()) => {
                        record.note(step.time, grant.number, HistoryEvent::Done);
                        self.counts.results_recorded += 1;
                        let state = TaskState::Done { output: output.clone(), at: step.time };
                        return self.end(id, Some(grant), state, true, step);
                    }
                    Err(why) => (kept_text(&why), false, Bytes::new()),
                }
            }
            Outcome::Failed { message, retry, output } => {
                let room = if full { 0 } else { MAX_VALUE };
                (kept_text(message), *retry, output.slice(..output.len().min(room)))
            }
        };
        record.note(step.time, grant.number, HistoryEvent::Failed(kept_line(&message)));
        self.fail(id, grant, retry, TaskState::Failed { message, output, at: step.time }, true, step);
    }

    /// Refuses an outcome that came after its attempt was taken back. The task may have ended since.
    fn note_late(&mut self, attempt: Attempt, fence: Fence, now: ClusterTime) {
        let mut record = self.remove(attempt.task).expect("the caller has found it");
        record.reopen();
        record.set_fate(fence, Fate::Refused);
        record.note(now, attempt.number, HistoryEvent::LateResultRefused(fence));
        record.seal(&mut self.digest);
        self.insert(attempt.task, record);
        self.counts.results_refused += 1;
    }

    /// A task that has not ended.
    fn live_record(&self, id: TaskId) -> Result<&Record, Refused> {
        self.records.get(&id).ok_or(Refused::NotFound)?.live().ok_or(Refused::Ended)
    }

    /// The same, to be changed.
    fn live_record_mut(&mut self, id: TaskId) -> Result<&mut Record, Refused> {
        self.records.get_mut(&id).ok_or(Refused::NotFound)?.live_mut().ok_or(Refused::Ended)
    }

    fn take_back(&mut self, id: TaskId, grant: Assigned, cause: ReleaseCause, step: &mut Step<'_>) {
        let record = self.live_record_mut(id).expect("the caller has found it");
        record.set_fate(grant.fence, Fate::TakenBack);
        record.note(step.time, grant.number, HistoryEvent::Released(cause));
        let at = step.time;
        match (cause, record.spec().delivery) {
            (ReleaseCause::TimedOut, _) => {
                let message = format!("attempt {} ran longer than it may", record.attempt(&grant));
                self.fail(id, grant, true, TaskState::Failed { message, output: Bytes::new(), at }, false, step);
            }
            (ReleaseCause::HandedBack, _) | (ReleaseCause::NotHeld, Delivery::AtLeastOnce) => {
                self.wait(id, grant, at, step);
            }
            (_, Delivery::AtMostOnce) => self.end(id, Some(grant), TaskState::Lost { at }, false, step),
            (ReleaseCause::Evidence | ReleaseCause::SessionEnded, Delivery::AtLeastOnce) => {
                record.deaths += 1;
                if record.deaths < MAX_DEATHS {
                    return self.wait(id, grant, at, step);
                }
                let message = format!("its worker died in {MAX_DEATHS} attempts");
                let state = TaskState::Failed { message, output: Bytes::new(), at };
                self.end(id, Some(grant), state, false, step);
            }
        }
    }

    /// An attempt failed: the task waits for another one, or ends as `verdict` says.
    fn fail(
        &mut self,
        id: TaskId,
        grant: Assigned,
        retry: bool,
        verdict: TaskState,
        by_worker: bool,
        step: &mut Step<'_>,
    ) {
        let record = self.live_record_mut(id).expect("the caller has found it");
        record.failures += 1;
        if !retry || record.failures > record.spec().retries {
            return self.end(id, Some(grant), verdict, by_worker, step);
        }
        let wait = backoff(record.attempt(&grant), record.failures, record.spec().backoff);
        self.wait(id, grant, step.time + wait, step);
    }

    fn wait(&mut self, id: TaskId, grant: Assigned, not_before: ClusterTime, step: &mut Step<'_>) {
        self.transit(id, TaskState::Pending { not_before });
        let attempt = Attempt { task: id, number: grant.number };
        step.changes.push(ClusterChange::Pending { attempt, fence: grant.fence, not_before });
    }

    fn end(&mut self, id: TaskId, grant: Option<Assigned>, state: TaskState, by_worker: bool, step: &mut Step<'_>) {
        self.transit(id, state);
        let fence = grant.map(|grant| (grant.node, Attempt { task: id, number: grant.number }, grant.fence));
        step.changes.push(ClusterChange::Ended { task: id, fence, by_worker });
    }
}

/// The wait before the next attempt: it doubles with every failure and is spread by up to a quarter, so that tasks that
/// failed together do not come back together. The draw is a hash of the attempt, because all replicas must draw the same.
pub(in crate::state) fn backoff(attempt: Attempt, failures: u32, base: Duration) -> Duration {
    let cap = MAX_BACKOFF.max(base);
    let wait = base.saturating_mul(1u32 << failures.saturating_sub(1).min(20)).min(cap);
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let jitter_ms = fingerprint(Tag::Jitter, &attempt) % (wait_ms / 4 + 1);
    Duration::from_millis(wait_ms.saturating_add(jitter_ms))
}

/// The refusal of a decision about an attempt that is not the current one.
fn elsewhere(record: &Record) -> Refused {
    Refused::Conflict { current: Revision(record.grant().map_or(0, |grant| grant.fence.0)) }
}

fn judged(task: TaskId, fence: Fence, recorded: bool, step: &mut Step<'_>) {
    step.changes.push(ClusterChange::Judged { task, fence, recorded });
}
