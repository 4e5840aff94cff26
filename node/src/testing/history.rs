//! What was seen of a cluster of tests, and whether it may be so.
//!
//! # Invariants
//!
//! * The judges know nothing of logs: they ask whether one key, one task, one master could have been seen so.
//! * What cannot be judged is left out and counted, and never called right or wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use protocol::client::Work;
use protocol::effects::Role;
use protocol::history::{
    self, CancelAnswer, Ending, Register, RegisterAct, Standing, Task, TaskAct, Timed, WriteAnswer,
};
use protocol::state::{
    Answer, Delivery, HistoryEvent, KeyOperation, Operation, Outcome, Put, Query, Refused, Submitted, TaskEffect,
    TaskState, TaskView,
};
use protocol::{Attempt, Epoch, Fence, NodeId, TaskId};

use super::notes::{Call, Notes, Seen};
use crate::client::Client;
use crate::error::Error;

/// What was seen of a [`TestCluster`](super::TestCluster): see [`history`](super::TestCluster::history). Each of its methods panics with
/// the evidence if what it claims is not so.
///
/// ```no_run
/// # use tenure::testing::TestCluster;
/// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
/// let history = cluster.history().await?;
/// history.assert_single_master_per_epoch().assert_commits_at_most_once().assert_no_task_lost().assert_linearizable();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct History {
    pub(super) seen: Seen,
    /// How the tasks that were acknowledged stood when the history was asked for; nothing where the cluster does not know one.
    pub(super) tasks: BTreeMap<TaskId, Option<TaskView>>,
    names: Vec<String>,
}

impl History {
    /// Asks how all tasks that were acknowledged stand now.
    pub(super) async fn new(notes: &Notes, names: Vec<String>, client: &Client) -> Result<Self, Error> {
        // Later than everything that was acknowledged, so that whatever is not known was forgotten.
        let acknowledged: BTreeSet<TaskId> =
            notes.so_far().calls.iter().flat_map(submitted).map(|(task, _)| task).collect();
        let mut tasks = BTreeMap::new();
        for task in acknowledged {
            let view = match client.wait(task, std::time::Duration::ZERO).await {
                Ok(view) => Some(view),
                Err(Error::NotFound) => None,
                Err(error) => return Err(error),
            };
            tasks.insert(task, view);
        }
        // With the answers to these questions.
        Ok(Self { seen: notes.so_far(), tasks, names })
    }

    /// At most one node said of itself that it leads an epoch, and all nodes named the same one.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.history().await?.assert_single_master_per_epoch();
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If that is not so.
    #[track_caller]
    pub fn assert_single_master_per_epoch(&self) -> &Self {
        let mut leaders: BTreeMap<Epoch, BTreeSet<NodeId>> = BTreeMap::new();
        for view in &self.seen.views {
            leaders.entry(view.mastership.epoch).or_default().extend(view.mastership.leader);
        }
        for (epoch, leaders) in &leaders {
            assert!(leaders.len() <= 1, "epoch {epoch} has more than one master\n{}", self.reign(*epoch));
        }
        let mut masters: BTreeMap<Epoch, usize> = BTreeMap::new();
        for view in self.seen.views.iter().filter(|view| view.mastership.role == Role::Leader) {
            let epoch = view.mastership.epoch;
            let first = *masters.entry(epoch).or_insert(view.place);
            assert_eq!(first, view.place, "epoch {epoch} has more than one master\n{}", self.reign(epoch));
        }
        self
    }

    /// Of every task at most one result was recorded, under an attempt that was started; nobody was shown another end of it than
    /// anybody else; and nothing was granted after its end.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.history().await?.assert_commits_at_most_once();
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If that is not so.
    #[track_caller]
    pub fn assert_commits_at_most_once(&self) -> &Self {
        let started: BTreeSet<_> = self.seen.starts.iter().map(|start| start.run.grant.attempt).collect();
        let mut ends: BTreeMap<TaskId, &TaskState> = BTreeMap::new();
        for view in self.views() {
            let recorded: Vec<usize> =
                (0..view.history.len()).filter(|line| matches!(view.history[*line].what, HistoryEvent::Done)).collect();
            assert!(
                recorded.len() <= 1,
                "{} results of {} were recorded\n{}",
                recorded.len(),
                view.id,
                self.story(view.id)
            );
            if let [line] = recorded[..] {
                let attempt = Attempt { task: view.id, number: view.history[line].attempt };
                let is_last = !view.history[line..].iter().any(|line| matches!(line.what, HistoryEvent::Assigned(_)));
                assert!(is_last, "{} was granted after its end\n{}", view.id, self.story(view.id));
                assert!(started.contains(&attempt), "{attempt} was never started\n{}", self.story(view.id));
            }
            if view.state.is_final() {
                let first = *ends.entry(view.id).or_insert(&view.state);
                assert_eq!(first, &view.state, "{} ended in two ways\n{}", view.id, self.story(view.id));
            }
        }
        self
    }

    /// Every task that was acknowledged is known, and waits, runs or has ended; none is [lost](crate::TaskEnd::Lost) but one that was to
    /// run at most once. Ask for the history before the records of the first tasks are due to go.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.history().await?.assert_no_task_lost();
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If that is not so.
    #[track_caller]
    pub fn assert_no_task_lost(&self) -> &Self {
        let deliveries: BTreeMap<TaskId, Delivery> = self.seen.calls.iter().flat_map(submitted).collect();
        for (task, view) in &self.tasks {
            let Some(view) = view else { panic!("{task} was acknowledged and is gone\n{}", self.story(*task)) };
            let may_be_lost = deliveries.get(task) == Some(&Delivery::AtMostOnce);
            let is_lost = matches!(view.state, TaskState::Lost { .. });
            assert!(may_be_lost || !is_lost, "{task} is lost and was to run at least once\n{}", self.story(*task));
        }
        self
    }

    /// One register per key and one task per id, asked by one client after the other, could have given the answers that were seen.
    ///
    /// Not judged are: keys that were part of a transaction, had an owner or an end, or were made in sequence; what lists, watches and
    /// stale reads showed; and histories that are too hard, which are told on stderr.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.history().await?.assert_linearizable();
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If that is not so.
    #[track_caller]
    pub fn assert_linearizable(&self) -> &Self {
        let hard = match (self.registers().check(Register::of), self.task_acts().check(|_| Task)) {
            (Ok(keys), Ok(tasks)) => keys + tasks,
            (Err(why), _) => panic!("no register answers so: {why}"),
            (_, Err(why)) => panic!("no task answers so: {why}"),
        };
        if hard > 0 {
            eprintln!("{hard} keys and tasks have histories that are too hard to judge");
        }
        self
    }

    /// How many calls, starts and words about the master were seen: a test that judges nothing proves nothing.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("{} calls were made", cluster.history().await?.len());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.calls.len() + self.seen.starts.len() + self.seen.views.len()
    }

    /// Whether nothing was seen.
    ///
    /// ```no_run
    /// # use tenure::testing::TestCluster;
    /// # async fn example(mut cluster: TestCluster) -> Result<(), Box<dyn std::error::Error>> {
    /// assert!(!cluster.history().await?.is_empty(), "the test asked something");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every look at a task, in the order in which they were written down.
    fn views(&self) -> impl Iterator<Item = &TaskView> {
        self.seen.calls.iter().filter_map(|call| match &call.answer {
            Some(Answer::Task(view)) => Some(&**view),
            _ => None,
        })
    }

    fn registers(&self) -> history::History<String, RegisterAct> {
        let mut values = Values::default();
        let unjudged = Unjudged::of(&self.seen);
        let mut registers = history::History::default();
        for call in &self.seen.calls {
            if let Some((key, act)) = values.register_act(call).filter(|(key, _)| !unjudged.has(key)) {
                registers.add(key, timed(call, act));
            }
        }
        registers
    }

    fn task_acts(&self) -> history::History<TaskId, TaskAct> {
        let mut acts = history::History::default();
        let fences: BTreeMap<_, Fence> =
            self.seen.starts.iter().map(|start| (start.run.grant.attempt, start.run.grant.fence)).collect();
        for start in &self.seen.starts {
            let (attempt, fence) = (start.run.grant.attempt, start.run.grant.fence);
            let act = TaskAct::Start { number: attempt.number, fence };
            acts.add(attempt.task, Timed { begin: start.at, end: Some(start.at), act });
        }
        let mut made = BTreeSet::new();
        for call in &self.seen.calls {
            for (task, act) in task_acts(call, |attempt| fences.get(&attempt).copied()) {
                if matches!(act, TaskAct::Submit(_)) {
                    made.insert(task);
                }
                acts.add(task, timed(call, act));
            }
        }
        // Whoever submitted these was not told so, or is not one of our clients.
        let orphans: Vec<TaskId> = acts.iter().map(|(task, _)| *task).filter(|task| !made.contains(task)).collect();
        for task in orphans {
            for delivery in [Delivery::AtLeastOnce, Delivery::AtMostOnce] {
                acts.add(task, Timed { begin: 0, end: None, act: TaskAct::Submit(delivery) });
            }
        }
        acts
    }

    /// Who said what of an epoch.
    fn reign(&self, epoch: Epoch) -> String {
        let mut story = String::new();
        for view in self.seen.views.iter().filter(|view| view.mastership.epoch == epoch) {
            let mastership = view.mastership;
            let leader = mastership.leader.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
            let name = &self.names[view.place];
            let _ = writeln!(story, "{} {name} is {:?}, {leader} leads", time(view.at), mastership.role);
        }
        story
    }

    /// All that was seen of a task, in order.
    fn story(&self, task: TaskId) -> String {
        let calls = self.seen.calls.iter().filter(|call| is_about(call, task)).map(|call| {
            let answer =
                call.answer.as_ref().map_or_else(|| "outcome unknown".to_owned(), |answer| format!("{answer:?}"));
            let (name, until) = (&self.names[call.place], time(call.end));
            (call.begin, format!("{} to {until} through {name}: {:?}: {answer}", time(call.begin), call.work))
        });
        let starts = self.seen.starts.iter().filter(|start| start.run.grant.attempt.task == task).map(|start| {
            let (attempt, fence) = (start.run.grant.attempt, start.run.grant.fence);
            (start.at, format!("{} {} starts {attempt} under fence {fence}", time(start.at), self.names[start.place]))
        });
        let finishes = self.seen.finishes.iter().filter(|finish| finish.attempt.task == task).map(|finish| {
            let (name, attempt) = (&self.names[finish.place], finish.attempt);
            (finish.at, format!("{} {name} ends {attempt}: {:?}", time(finish.at), finish.outcome))
        });
        let mut lines: Vec<(u64, String)> = calls.chain(starts).chain(finishes).collect();
        lines.sort();
        lines.into_iter().fold(String::new(), |story, (_, line)| story + &line + "\n")
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("calls", &self.seen.calls.len())
            .field("starts", &self.seen.starts.len())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

/// A number for every value.
#[derive(Default)]
struct Values(BTreeMap<Bytes, u64>);

impl Values {
    fn number(&mut self, value: &Bytes) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(value.clone()).or_insert(next)
    }

    /// What a call says of a key.
    fn register_act(&mut self, call: &Call) -> Option<(String, RegisterAct)> {
        let (key, value, expect) = match &call.work {
            Work::Write(Operation::Put(put)) => (&put.key, Some(self.number(&put.value)), put.expect),
            Work::Write(Operation::Delete(delete)) => (&delete.key, None, delete.expect),
            Work::Read(Query::Get(key), _) => {
                let Some(Answer::Value { found, .. }) = &call.answer else { return None };
                let found = found.as_ref().map(|found| (self.number(&found.value), found.modified));
                return Some((key.clone(), RegisterAct::Read(found)));
            }
            _ => return None,
        };
        let answer = match &call.answer {
            None => WriteAnswer::Unknown,
            Some(Answer::Written(revision)) => WriteAnswer::Done(*revision),
            Some(Answer::Refused(Refused::Conflict { current })) => WriteAnswer::Conflict(Some(*current)),
            Some(Answer::Refused(Refused::NotFound)) => WriteAnswer::NotFound,
            // Certainly not done, whatever the key held.
            Some(_) => return None,
        };
        Some((key.clone(), RegisterAct::Write { value, expect, answer }))
    }
}

/// The keys that are more than a register.
#[derive(Default)]
struct Unjudged {
    keys: BTreeSet<String>,
    prefixes: BTreeSet<String>,
}

impl Unjudged {
    fn of(seen: &Seen) -> Self {
        let mut unjudged = Self::default();
        for finish in &seen.finishes {
            if let Outcome::Done { effects, .. } = &finish.outcome {
                unjudged.keys.extend(effects.iter().filter_map(TaskEffect::key).map(str::to_owned));
            }
        }
        for call in &seen.calls {
            match &call.work {
                Work::Write(Operation::Put(put)) => unjudged.add(put, false),
                Work::Write(Operation::Transact(transaction)) => {
                    for step in transaction.then.iter().chain(&transaction.or_else) {
                        match step {
                            KeyOperation::Put(put) => unjudged.add(put, true),
                            KeyOperation::Delete(delete) => drop(unjudged.keys.insert(delete.key.clone())),
                            KeyOperation::Get(_) => {}
                        }
                    }
                }
                _ => {}
            }
        }
        unjudged
    }

    fn add(&mut self, put: &Put, is_in_transaction: bool) {
        if put.sequence {
            self.prefixes.insert(put.key.clone());
        } else if is_in_transaction || put.owner.is_some() || put.ttl.is_some() {
            self.keys.insert(put.key.clone());
        }
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains(key) || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }
}

/// What a call says of tasks.
fn task_acts(call: &Call, fence: impl Fn(Attempt) -> Option<Fence>) -> Vec<(TaskId, TaskAct)> {
    match (&call.work, &call.answer) {
        (Work::Write(Operation::Submit(specs)), Some(Answer::Submitted(tasks))) => {
            let act = |delivery, task: &Submitted| if task.fresh { TaskAct::Submit(delivery) } else { TaskAct::Name };
            specs.iter().zip(tasks).map(|(spec, task)| (task.task, act(spec.delivery, task))).collect()
        }
        (Work::Write(Operation::Cancel { task, .. }), answer) => {
            let answer = match answer {
                None => CancelAnswer::Unknown,
                Some(Answer::Task(_)) => CancelAnswer::Done,
                Some(Answer::Refused(Refused::Ended)) => CancelAnswer::Ended,
                Some(_) => return Vec::new(),
            };
            vec![(*task, TaskAct::Cancel(answer))]
        }
        (Work::Read(..), Some(Answer::Task(view))) => {
            standing(view, fence).map(|standing| (view.id, TaskAct::Look(Some(standing)))).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Where somebody saw a task; nothing if its story does not say whose result it is.
fn standing(view: &TaskView, fence: impl Fn(Attempt) -> Option<Fence>) -> Option<Standing> {
    Some(Standing::Ended(match &view.state {
        TaskState::Pending { .. } | TaskState::Assigned { .. } => return Some(Standing::Live(view.attempts)),
        TaskState::Done { .. } => {
            let line = view.history.iter().find(|line| matches!(line.what, HistoryEvent::Done))?;
            Ending::Done(fence(Attempt { task: view.id, number: line.attempt })?)
        }
        TaskState::Failed { .. } => Ending::Failed,
        TaskState::Cancelled { .. } => Ending::Cancelled,
        TaskState::Lost { .. } => Ending::Lost,
    }))
}

/// The tasks that a call acknowledged.
fn submitted(call: &Call) -> Vec<(TaskId, Delivery)> {
    match (&call.work, &call.answer) {
        (Work::Write(Operation::Submit(specs)), Some(Answer::Submitted(tasks))) => {
            let fresh = specs.iter().zip(tasks).filter(|(_, task)| task.fresh);
            fresh.map(|(spec, task)| (task.task, spec.delivery)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_about(call: &Call, task: TaskId) -> bool {
    let is_named = match &call.work {
        Work::Write(Operation::Cancel { task: named, .. }) => *named == task,
        Work::Read(Query::Task(named) | Query::Await(named), _) => *named == task,
        _ => false,
    };
    is_named || submitted(call).iter().any(|(made, _)| *made == task)
}

/// An act with its time: what may still be done has no end.
fn timed<A>(call: &Call, act: A) -> Timed<A> {
    Timed { begin: call.begin, end: call.answer.is_some().then_some(call.end), act }
}

fn time(nanos: u64) -> String {
    format!("{:.3} ms", nanos as f64 / 1e6)
}
