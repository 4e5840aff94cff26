//! One task: what was asked for, where it stands, and what happened to it so far.
//!
//! # Invariants
//!
//! * An attempt's fate is decided once; the fence of an attempt whose fate is decided opens nothing any more.
//! * History, remembered attempts and texts are bounded, whatever a task goes through.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::digest::{Sum, Tag, fingerprint};
use crate::state::limits::{MAX_HISTORY, MAX_LINE, MAX_PAST, MAX_TEXT, MIN_KEEP, TASK_BYTES, cut};
use crate::state::{Assigned, HistoryEvent, HistoryLine, LiveTask, TaskSpec, TaskState, TaskView};
use crate::types::{Attempt, ClusterTime, Fence, Revision, TaskId};
use crate::wire::MAX_VALUE;

/// The record of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Record {
    id: TaskId,
    spec: Arc<TaskSpec>,
    state: TaskState,
    /// The revision of its submission.
    recorded: Revision,
    submitted: ClusterTime,
    /// Attempts granted.
    pub(super) attempts: u32,
    /// Attempts that failed or ran out of time: they count against the retries.
    pub(super) failures: u32,
    /// Attempts whose worker died: they count against the task's innocence, not against its retries.
    pub(super) deaths: u32,
    /// The last attempts, oldest first.
    past: VecDeque<Past>,
    history: VecDeque<HistoryLine>,
    /// Lines ever written, also those that are gone.
    lines: u64,
    // Hashes of the parts that are long or rarely change, so that a change does not go over all of them.
    #[serde(skip)]
    spec_digest: u64,
    #[serde(skip)]
    state_digest: u64,
    #[serde(skip)]
    history_digest: Sum,
    #[serde(skip)]
    digest: u64,
}

/// One attempt, remembered by its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    number: u32,
    fence: Fence,
    fate: Fate,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    /// Its worker has the right to it.
    Held,
    /// Its outcome was recorded.
    Judged,
    /// The right was taken back; no outcome came so far.
    TakenBack,
    /// The right was taken back, and an outcome that came later was refused.
    Refused,
}

impl Record {
    /// A task that was just submitted; it waits from now on.
    pub(super) fn new(id: TaskId, spec: &TaskSpec, recorded: Revision, now: ClusterTime) -> Self {
        let state = TaskState::Pending { not_before: now };
        Self {
            id,
            spec: Arc::new(spec.clone()),
            spec_digest: fingerprint(Tag::Spec, spec),
            state_digest: fingerprint(Tag::Standing, &state),
            state,
            recorded,
            submitted: now,
            attempts: 0,
            failures: 0,
            deaths: 0,
            past: VecDeque::new(),
            history: VecDeque::new(),
            lines: 0,
            history_digest: Sum::default(),
            digest: 0,
        }
    }

    /// Puts the task where it stands from now on, and returns where it stood.
    pub(super) fn set_state(&mut self, state: TaskState) -> TaskState {
        if let TaskState::Done { .. } = state {
            // Nobody needs the input of a task that is done; that of a failed one may go again some day.
            Arc::make_mut(&mut self.spec).payload = Bytes::new();
            self.spec_digest = fingerprint(Tag::Spec, &*self.spec);
        }
        self.state_digest = fingerprint(Tag::Standing, &state);
        std::mem::replace(&mut self.state, state)
    }

    /// Remembers a new attempt.
    pub(super) fn remember(&mut self, number: u32, fence: Fence) {
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back(Past { number, fence, fate: Fate::Held });
    }

    /// Decides what became of an attempt.
    pub(super) fn set_fate(&mut self, fence: Fence, fate: Fate) {
        if let Some(past) = self.past.iter_mut().rev().find(|past| past.fence == fence) {
            past.fate = fate;
        }
    }

    /// Writes a line of history.
    pub(super) fn note(&mut self, at: ClusterTime, attempt: u32, what: HistoryEvent) {
        if self.history.len() == MAX_HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.history_digest.remove(self.line_digest(self.lines - MAX_HISTORY as u64, &oldest));
        }
        let line = HistoryLine { at, attempt, what };
        self.history_digest.add(self.line_digest(self.lines, &line));
        self.history.push_back(line);
        self.lines += 1;
    }

    /// Brings the record's hash up to date after a change, there and in the sum.
    pub(super) fn seal(&mut self, sum: &mut Sum) {
        sum.remove(self.digest);
        self.digest = self.fingerprint();
        sum.add(self.digest);
    }

    /// A record that was read from bytes of our own, sealed as it was. The hashes of its parts are still to be taken if it is to change.
    pub(super) fn sealed(self, digest: u64) -> Self {
        Self { digest, ..self }
    }

    /// Makes a record ready for a change that was read from bytes of our own.
    pub(super) fn reopen(&mut self) {
        self.rehash(self.lines - self.history.len() as u64);
    }

    /// Makes a record whole that was read from an image, with its input if that was apart; says whether it is sound.
    pub(super) fn restore(&mut self, payload: Option<Bytes>, sum: &mut Sum) -> bool {
        if let Some(payload) = payload {
            Arc::make_mut(&mut self.spec).payload = payload;
        }
        let Some(first) = self.lines.checked_sub(self.history.len() as u64) else { return false };
        self.rehash(first);
        sum.add(self.digest);
        self.history.len() <= MAX_HISTORY && self.past.len() <= MAX_PAST
    }

    /// The record as an image holds it: its input apart if both input and result are large.
    pub(super) fn parts(self: Arc<Self>) -> (Option<Bytes>, Arc<Self>) {
        if self.content_bytes() <= MAX_VALUE {
            return (None, self);
        }
        let mut rest = Arc::unwrap_or_clone(self);
        let payload = std::mem::take(&mut Arc::make_mut(&mut rest.spec).payload);
        (Some(payload), Arc::new(rest))
    }

    /// Which task it is.
    pub(super) fn id(&self) -> TaskId {
        self.id
    }

    /// What was asked for.
    pub(super) fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// Where it stands.
    pub(super) fn state(&self) -> &TaskState {
        &self.state
    }

    /// Until when the record is kept, if the task has ended.
    pub(super) fn end(&self) -> Option<ClusterTime> {
        match self.state {
            TaskState::Pending { .. } | TaskState::Assigned { .. } => None,
            TaskState::Done { at, .. }
            | TaskState::Failed { at, .. }
            | TaskState::Cancelled { at, .. }
            | TaskState::Lost { at } => Some(at + self.spec.keep.max(MIN_KEEP)),
        }
    }

    /// What became of the attempt with this fence, and its number, if it is remembered.
    pub(super) fn fate(&self, fence: Fence) -> Option<(u32, Fate)> {
        self.past.iter().rev().find(|past| past.fence == fence).map(|past| (past.number, past.fate))
    }

    /// The live grant, if there is one.
    pub(super) fn grant(&self) -> Option<Assigned> {
        match self.state {
            TaskState::Assigned { number, fence, node, session, since } => {
                Some(Assigned { number, fence, node, session, since })
            }
            _ => None,
        }
    }

    /// The attempt of a grant of this task.
    pub(super) fn attempt(&self, grant: &Assigned) -> Attempt {
        Attempt { task: self.id, number: grant.number }
    }

    /// The record's hash as it was sealed.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// How many bytes the record counts for.
    pub(super) fn weight(&self) -> u64 {
        spec_weight(&self.spec) + self.outcome_bytes() as u64
    }

    /// How many bytes its input and its outcome take.
    pub(super) fn content_bytes(&self) -> usize {
        self.spec.payload.len() + self.outcome_bytes()
    }

    /// Whether it is here because of the load, and not because somebody wants it kept: see the [module](super).
    pub(super) fn is_backlog(&self) -> bool {
        !self.state.is_final() || self.spec.keep <= MIN_KEEP
    }

    /// How many bytes the task takes at most where it is shown; never zero.
    pub(super) fn shown_bytes(&self) -> usize {
        let line = |line: &HistoryLine| match &line.what {
            HistoryEvent::Failed(why) => LINE_BYTES + why.len(),
            _ => LINE_BYTES,
        };
        let names = self.spec.kind.len() + self.spec.once_key.as_ref().map_or(0, String::len);
        TASK_BYTES as usize + names + self.outcome_bytes() + self.history.iter().map(line).sum::<usize>()
    }

    /// The task as the master sees it.
    pub(super) fn for_master(&self) -> LiveTask {
        let not_before = match self.state {
            TaskState::Pending { not_before } => not_before,
            _ => ClusterTime(0),
        };
        LiveTask { id: self.id, spec: self.spec.clone(), attempts: self.attempts, not_before, assigned: self.grant() }
    }

    /// The task as it is shown.
    pub(super) fn view(&self) -> TaskView {
        TaskView {
            id: self.id,
            kind: self.spec.kind.clone(),
            state: self.state.clone(),
            attempts: self.attempts,
            once_key: self.spec.once_key.clone(),
            submitted: self.submitted,
            history: self.history.iter().cloned().collect(),
        }
    }

    fn outcome_bytes(&self) -> usize {
        match &self.state {
            TaskState::Done { output, .. } => output.len(),
            TaskState::Failed { message, output, .. } => message.len() + output.len(),
            TaskState::Cancelled { reason, .. } => reason.len(),
            TaskState::Pending { .. } | TaskState::Assigned { .. } | TaskState::Lost { .. } => 0,
        }
    }

    fn fingerprint(&self) -> u64 {
        let counts = (self.attempts, self.failures, self.deaths, self.lines);
        let parts = (self.spec_digest, self.state_digest, self.history_digest.value());
        fingerprint(Tag::Task, &(self.id, self.recorded, self.submitted, counts, &self.past, parts))
    }

    /// Takes every hash anew, where `first` is the number of the first line of history that is kept.
    fn rehash(&mut self, first: u64) {
        self.spec_digest = fingerprint(Tag::Spec, &*self.spec);
        self.state_digest = fingerprint(Tag::Standing, &self.state);
        self.history_digest = Sum::default();
        for (number, line) in (first..).zip(&self.history) {
            self.history_digest.add(self.line_digest(number, line));
        }
        self.digest = self.fingerprint();
    }

    fn line_digest(&self, number: u64, line: &HistoryLine) -> u64 {
        fingerprint(Tag::Line, &(number, line))
    }
}

/// How many bytes a task counts for when it is recorded.
pub(super) fn spec_weight(spec: &TaskSpec) -> u64 {
    let once = spec.once_key.as_ref().map_or(0, |key| 2 * key.len());
    let needs: usize = spec.needs.iter().map(|(name, value)| name.len() + value.len()).sum();
    TASK_BYTES + (spec.kind.len() + spec.payload.len() + once + needs) as u64
}

/// What a line of history takes at most beside its text.
const LINE_BYTES: usize = 40;

/// A text as a record keeps it.
pub(super) fn kept_text(text: &str) -> String {
    cut(text, MAX_TEXT).into()
}

/// A text as a line of history keeps it.
pub(super) fn kept_line(text: &str) -> String {
    cut(text, MAX_LINE).into()
}

#[cfg(test)]
impl Record {
    /// The same record, every hash taken from the content.
    pub(super) fn rehashed(&self) -> Self {
        assert!(self.history.len() <= MAX_HISTORY && self.past.len() <= MAX_PAST);
        let mut fresh = self.clone();
        fresh.reopen();
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn a_task_takes_no_more_room_where_it_is_shown_than_is_reckoned_with() {
        let spec = TaskSpec { once_key: Some("k".repeat(300)), ..TaskSpec::new("kind".repeat(60), "input") };
        let far = ClusterTime(u64::MAX);
        let mut record = Record::new(TaskId(u64::MAX), &spec, Revision(1), far);
        for number in 0..MAX_HISTORY as u32 {
            let why = HistoryEvent::Failed("w".repeat(MAX_LINE));
            record.note(
                far,
                u32::MAX - number,
                if number % 2 == 0 { why } else { HistoryEvent::LateResultRefused(Fence(u64::MAX)) },
            );
            let shown = wire::encode(&record.view(), wire::MAX_MESSAGE).unwrap();
            assert!(shown.len() <= record.shown_bytes());
        }
    }
}
