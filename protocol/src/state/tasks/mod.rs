//! Tasks: recorded, granted, judged, kept for a while, forgotten.
//!
//! A task is pending or granted until it ends, and its record is kept for as long as its submitter asked for after that.
//! "Running" is never recorded: it follows from a live grant. This file holds the records and the ways to find them;
//! `attempts` holds the rules by which they move, `record` what one of them consists of, `kept` how it is held, `words` what is
//! said about them.
//!
//! The **backlog** is what comes and goes with the load: the tasks that have not ended, and those that have and are kept only
//! because all are for a moment. It is bounded apart from all that clients wish to be kept.
//!
//! # Invariants
//!
//! * Every change of a record's state goes through `transit`, so counts and indexes always agree with the records.
//! * A once key stands as long as the record of its task does; the record of a task that has not ended is never removed.

mod attempts;
mod kept;
mod record;
mod words;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use self::attempts::backoff;
use self::kept::Kept;
pub(super) use self::record::Record;
use self::record::spec_weight;
pub use self::words::{
    Delivery, HistoryEvent, HistoryLine, Outcome, ReleaseCause, Submitted, TaskSpec, TaskState, TaskView, Ticket,
};
use super::Step;
use super::digest::{Sum, Tag, fingerprint};
use super::image::Item;
use super::limits::{MAX_BACKLOG, MAX_KEY, MAX_PAGE, MAX_PAGE_BYTES, PACKED_BYTES, TASK_BYTES, check_batch, full};
use crate::state::{ClusterChange, LiveTask, Refused, Summary};
use crate::types::{ClusterTime, SessionId, TaskId};

/// All tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    records: OrdMap<TaskId, Kept>,
    last_id: TaskId,
    once: OrdMap<Arc<str>, TaskId>,
    /// Pending or granted.
    live: OrdSet<TaskId>,
    /// Granted, by the worker's session.
    held: OrdMap<SessionId, OrdSet<TaskId>>,
    /// Ended, by the end of their time.
    ended: OrdSet<(ClusterTime, TaskId)>,
    counts: Counts,
    bytes: u64,
    /// How many of the bytes are in the backlog.
    backlog: u64,
    digest: Sum,
}

/// What is counted: the first four describe the records, the others only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    pending: u64,
    assigned: u64,
    done: u64,
    failed: u64,
    results_recorded: u64,
    results_refused: u64,
    attempts: u64,
}

/// What is in no record and does not follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Totals {
    last_id: TaskId,
    results_recorded: u64,
    results_refused: u64,
    attempts: u64,
}

impl Tasks {
    /// Records all of these tasks or none. `room` is how many bytes may be added.
    pub(super) fn submit(
        &mut self,
        specs: &[TaskSpec],
        room: u64,
        step: &mut Step<'_>,
    ) -> Result<Vec<Submitted>, Refused> {
        check_batch(specs)?;
        if self.fresh_weight(specs) > room {
            return Err(full());
        }
        Ok(specs.iter().map(|spec| self.record(spec, step)).collect())
    }

    /// Removes the record whose time ended first, if that is not after `time`. Says whether there was one.
    pub(super) fn forget_one(&mut self, time: ClusterTime) -> bool {
        let Some(&(_, id)) = self.ended.get_min().filter(|(end, _)| *end <= time) else { return false };
        self.ended.remove_min();
        let record = self.remove(id).expect("every ended task in the index has a record");
        if let Some(key) = &record.spec().once_key {
            self.once.remove(key.as_str());
        }
        *self.counts.of(record.state()) -= 1;
        self.digest.remove(record.digest());
        true
    }

    /// What was counted elsewhere and is in no record.
    pub(super) fn restore_totals(&mut self, totals: Totals) {
        let Totals { last_id, results_recorded, results_refused, attempts } = totals;
        self.last_id = last_id;
        self.counts = Counts { results_recorded, results_refused, attempts, ..self.counts };
    }

    /// Takes a task as it was elsewhere, its input apart if it was sent so; says whether it can stand here.
    pub(super) fn restore(&mut self, mut record: Record, payload: Option<Bytes>) -> bool {
        let is_sound = record.restore(payload, &mut self.digest);
        let id = record.id();
        let has_long_key = record.spec().once_key.as_ref().is_some_and(|key| key.len() > MAX_KEY);
        if !is_sound || has_long_key || id > self.last_id || self.records.contains_key(&id) {
            return false;
        }
        let earlier = record.spec().once_key.as_ref().map(|key| self.once.insert(key.as_str().into(), id));
        *self.counts.of(record.state()) += 1;
        self.index(id, &record);
        self.insert(id, record);
        earlier.flatten().is_none()
    }

    /// All of this as records of an image.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.records.into_iter().flat_map(|(_, kept)| {
            let (payload, record) = kept.into_record().parts();
            payload.map(Item::Payload).into_iter().chain([Item::Task(record)])
        })
    }

    /// What is in no record.
    pub(super) fn totals(&self) -> Totals {
        let Counts { results_recorded, results_refused, attempts, .. } = self.counts;
        Totals { last_id: self.last_id, results_recorded, results_refused, attempts }
    }

    /// Where a task stands, if there is a record of it.
    pub(super) fn state(&self, id: TaskId) -> Option<TaskState> {
        self.records.get(&id).map(|kept| kept.record().state().clone())
    }

    /// A task as it is shown.
    pub(super) fn view(&self, id: TaskId) -> Option<TaskView> {
        self.records.get(&id).map(|kept| kept.record().view())
    }

    /// A page of tasks with ids above `after`, oldest first. It ends early where results are large, but is empty only at the end.
    pub(super) fn page(&self, after: TaskId, limit: u32) -> Vec<TaskView> {
        page(self.records.range((Bound::Excluded(after), Bound::Unbounded)), limit)
    }

    /// A page of tasks with ids below `before`, newest first; otherwise the same.
    pub(super) fn newest(&self, before: Option<TaskId>, limit: u32) -> Vec<TaskView> {
        page(self.records.range((Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded))).rev(), limit)
    }

    /// All tasks that have not ended, oldest first.
    pub(super) fn live(&self) -> Vec<LiveTask> {
        self.live.iter().filter_map(|id| self.records.get(id)?.live()).map(|record| record.for_master()).collect()
    }

    /// How many attempts a session holds.
    pub(super) fn held_by(&self, session: SessionId) -> u32 {
        self.held.get(&session).map_or(0, |tasks| tasks.len() as u32)
    }

    /// When the time of the first kept record ends.
    pub(super) fn next_expiry(&self) -> Option<ClusterTime> {
        self.ended.get_min().map(|&(end, _)| end)
    }

    /// Writes the counts of tasks into a summary.
    pub(super) fn count(&self, summary: &mut Summary) {
        let Counts { pending, assigned, done, failed, results_recorded, results_refused, attempts } = self.counts;
        (summary.pending, summary.assigned, summary.done, summary.failed) = (pending, assigned, done, failed);
        (summary.results_recorded, summary.results_refused) = (results_recorded, results_refused);
        summary.attempts = attempts;
    }

    /// Says whether the backlog has room for these tasks. What is recorded already needs none.
    pub(super) fn has_room(&self, specs: &[TaskSpec]) -> bool {
        let fresh = self.fresh_weight(specs);
        fresh == 0 || self.backlog + fresh <= MAX_BACKLOG
    }

    /// How many bytes those of these tasks count for that are not recorded yet.
    fn fresh_weight(&self, specs: &[TaskSpec]) -> u64 {
        let is_fresh =
            |spec: &&TaskSpec| spec.once_key.as_ref().is_none_or(|key| !self.once.contains_key(key.as_str()));
        specs.iter().filter(is_fresh).map(spec_weight).sum()
    }

    /// How many bytes all records take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// About how many bytes they take in an image: it has nothing of what stands around a record in memory.
    pub(super) fn image_bytes(&self) -> u64 {
        let around = self.live.len() as u64 * (TASK_BYTES - IMAGE_BYTES) + self.ended.len() as u64 * PACKED_BYTES;
        self.bytes.saturating_sub(around)
    }

    /// The hash of all records.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// The hash of everything that is counted here and is in no record.
    pub(super) fn head(&self) -> u64 {
        fingerprint(Tag::Head, &(self.last_id, self.counts))
    }

    fn record(&mut self, spec: &TaskSpec, step: &mut Step<'_>) -> Submitted {
        if let Some(&task) = spec.once_key.as_ref().and_then(|key| self.once.get(key.as_str())) {
            return Submitted { task, fresh: false };
        }
        self.last_id = self.last_id.next();
        let id = self.last_id;
        let mut record = Record::new(id, spec, step.grant(), step.time);
        record.seal(&mut self.digest);
        step.changes.push(ClusterChange::Submitted(Box::new(record.for_master())));
        if let Some(key) = &spec.once_key {
            self.once.insert(key.as_str().into(), id);
        }
        self.counts.pending += 1;
        self.live.insert(id);
        self.insert(id, record);
        Submitted { task: id, fresh: true }
    }

    /// Lets a task stand elsewhere. The caller has changed its record already as the rule demands, and it is sealed here.
    fn transit(&mut self, id: TaskId, state: TaskState) {
        let kept = self.records.get_mut(&id).expect("only a recorded task moves");
        self.bytes -= kept.weight();
        self.backlog -= kept.weight();
        let record = kept.live_mut().expect("a task that has ended stays as it is");
        let old = record.set_state(state);
        record.seal(&mut self.digest);
        *self.counts.of(&old) -= 1;
        *self.counts.of(record.state()) += 1;
        let (grant, end, is_backlog) = (record.grant(), record.end(), record.is_backlog());
        kept.settle();
        self.bytes += kept.weight();
        self.backlog += if is_backlog { kept.weight() } else { 0 };

        if let TaskState::Assigned { session, .. } = old
            && let Some(tasks) = self.held.get_mut(&session)
        {
            tasks.remove(&id);
            if tasks.is_empty() {
                self.held.remove(&session);
            }
        }
        if let Some(grant) = grant {
            self.held.entry(grant.session).or_default().insert(id);
        }
        if let Some(end) = end {
            self.live.remove(&id);
            self.ended.insert((end, id));
        }
    }

    /// Puts a sealed record where none is.
    fn insert(&mut self, id: TaskId, record: Record) {
        let is_backlog = record.is_backlog();
        let kept = Kept::from(record);
        self.bytes += kept.weight();
        self.backlog += if is_backlog { kept.weight() } else { 0 };
        self.records.insert(id, kept);
    }

    /// Takes a record away, to be changed and put back.
    fn remove(&mut self, id: TaskId) -> Option<Record> {
        let kept = self.records.remove(&id)?;
        let weight = kept.weight();
        let record = Arc::unwrap_or_clone(kept.into_record());
        self.bytes -= weight;
        self.backlog -= if record.is_backlog() { weight } else { 0 };
        Some(record)
    }

    /// Makes a record that was taken from elsewhere known to the indexes.
    fn index(&mut self, id: TaskId, record: &Record) {
        if let TaskState::Assigned { session, .. } = *record.state() {
            self.held.entry(session).or_default().insert(id);
        }
        match record.end() {
            Some(end) => drop(self.ended.insert((end, id))),
            None => drop(self.live.insert(id)),
        }
    }
}

impl Totals {
    /// Says whether nothing here has come near the end of its numbers.
    pub(super) fn is_sound(&self, most: u64) -> bool {
        let Self { last_id, results_recorded, results_refused, attempts } = *self;
        last_id.0.max(results_recorded).max(results_refused).max(attempts) <= most
    }
}

impl Counts {
    /// The count of the records that stand there.
    fn of(&mut self, state: &TaskState) -> &mut u64 {
        match state {
            TaskState::Pending { .. } => &mut self.pending,
            TaskState::Assigned { .. } => &mut self.assigned,
            TaskState::Done { .. } => &mut self.done,
            TaskState::Failed { .. } | TaskState::Cancelled { .. } | TaskState::Lost { .. } => &mut self.failed,
        }
    }
}

/// The tasks that come first, as far as they fit into one answer.
fn page<'a>(records: impl Iterator<Item = (&'a TaskId, &'a Kept)>, limit: u32) -> Vec<TaskView> {
    let mut bytes = 0;
    let records = records.take(MAX_PAGE.min(limit as usize)).map(|(_, kept)| kept.record());
    let fitting = records.take_while(|record| {
        let is_first = bytes == 0;
        bytes += record.shown_bytes();
        is_first || bytes <= MAX_PAGE_BYTES
    });
    fitting.map(|record| record.view()).collect()
}

/// About what a task that has not ended takes in an image beside its content.
const IMAGE_BYTES: u64 = 64;

#[cfg(test)]
impl Tasks {
    /// Recomputes hashes, counts and indexes from the records, and compares.
    pub(super) fn assert_coherent(&self) {
        let Counts { results_recorded, results_refused, attempts, .. } = self.counts;
        let mut fresh = Self {
            records: self.records.clone(),
            last_id: self.last_id,
            counts: Counts { results_recorded, results_refused, attempts, ..Counts::default() },
            ..Self::default()
        };
        for (&id, kept) in self.records.iter() {
            let record = kept.record();
            kept.assert_coherent();
            fresh.digest.add(record.digest());
            fresh.bytes += kept.weight();
            fresh.backlog += if record.is_backlog() { kept.weight() } else { 0 };
            *fresh.counts.of(record.state()) += 1;
            if let Some(key) = &record.spec().once_key {
                fresh.once.insert(key.as_str().into(), id);
            }
            fresh.index(id, &record);
        }
        assert_eq!(&fresh, self, "an index, count or hash of the tasks drifted");
    }
}
