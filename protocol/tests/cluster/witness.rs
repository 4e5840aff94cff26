//! What anybody outside could have written down: every call with its answer, and every start of an attempt.
//!
//! It knows nothing of the log. Whether one register per key and one task per id could have answered so is asked at the end of
//! a run (`protocol::history`); a bug that all replicas share is found by this, and by nothing that asks a replica.
//!
//! # Invariants
//!
//! * A call is written down once: with its answer, or as one that may take effect at any later time.

use std::collections::{BTreeMap, BTreeSet};

use protocol::TaskId;
use protocol::history::{
    CancelAnswer, Ending, History, Register, RegisterAct, Standing, Task, TaskAct, Timed, WriteAnswer,
};
use protocol::state::{Answer, Delivery, Expect, Refused, TaskState, TaskView};
use protocol::types::Fence;
use protocol::worker::Run;

use crate::locks::Locks;
use crate::oracle::token;
use crate::work::Kind;

/// All that was seen.
#[derive(Default)]
pub struct Witness {
    registers: History<String, RegisterAct>,
    tasks: History<TaskId, TaskAct>,
    /// Locks and the sessions that hold them.
    pub locks: Locks,
    /// Submissions of unknown outcome by their tokens.
    doubtful: Vec<(u64, Timed<TaskAct>)>,
    /// The tasks that workers were given, by their tokens.
    given: BTreeMap<u64, TaskId>,
}

impl Witness {
    /// A call was answered.
    pub fn answered(&mut self, begin: u64, end: u64, kind: &Kind, answer: &Answer, is_read_safe: bool) {
        match (kind, answer) {
            (Kind::Right(asked), answer) => self.locks.answered((begin, end), asked, answer, is_read_safe),
            // False evidence may end it although its owner lives.
            (Kind::OpenSession { fast_release: true }, Answer::Registered(session)) => {
                self.locks.may_be_over(*session, 0);
            }
            (Kind::Put { key, token, expect, .. }, answer) => {
                self.written((begin, end), key, Some(*token), *expect, answer);
            }
            (Kind::Delete { key, expect, .. }, answer) => self.written((begin, end), key, None, *expect, answer),
            (Kind::Get { key, .. }, Answer::Value { found, .. }) => {
                let found = found.as_ref().map(|found| (token(&found.value), found.modified));
                self.registers.add(key.clone(), Timed { begin, end: Some(end), act: RegisterAct::Read(found) });
            }
            (Kind::Submit { deliveries, .. }, Answer::Submitted(tasks)) => {
                for (delivery, task) in deliveries.iter().zip(tasks) {
                    let act = if task.fresh { TaskAct::Submit(*delivery) } else { TaskAct::Name };
                    self.tasks.add(task.task, Timed { begin, end: Some(end), act });
                }
            }
            (Kind::Cancel(task), answer) => {
                let answer = match answer {
                    Answer::Task(_) => CancelAnswer::Done,
                    Answer::Refused(Refused::Ended) => CancelAnswer::Ended,
                    _ => return,
                };
                self.tasks.add(*task, Timed { begin, end: Some(end), act: TaskAct::Cancel(answer) });
            }
            (Kind::Look { task, .. }, Answer::Task(view)) => {
                let act = TaskAct::Look(Some(standing(view)));
                self.tasks.add(*task, Timed { begin, end: Some(end), act });
            }
            _ => {}
        }
    }

    /// A call may have been done, and may still be.
    pub fn in_doubt(&mut self, begin: u64, kind: &Kind) {
        let maybe = |key: &String, value, expect: Expect| {
            let act = RegisterAct::Write { value, expect, answer: WriteAnswer::Unknown };
            (key.clone(), Timed { begin, end: None, act })
        };
        match kind {
            Kind::Put { key, token, expect, .. } => {
                let (key, act) = maybe(key, Some(*token), *expect);
                self.registers.add(key, act);
            }
            Kind::Delete { key, expect, .. } => {
                let (key, act) = maybe(key, None, *expect);
                self.registers.add(key, act);
            }
            Kind::Submit { tokens, deliveries, .. } => {
                let act = |delivery: &Delivery| Timed { begin, end: None, act: TaskAct::Submit(*delivery) };
                self.doubtful.extend(tokens.iter().zip(deliveries).map(|(token, delivery)| (*token, act(delivery))));
            }
            Kind::Cancel(task) => {
                let act = TaskAct::Cancel(CancelAnswer::Unknown);
                self.tasks.add(*task, Timed { begin, end: None, act });
            }
            Kind::Get { .. }
            | Kind::Look { .. }
            | Kind::Temporary { .. }
            | Kind::Transaction { .. }
            | Kind::List { .. }
            | Kind::Watch { .. }
            | Kind::OpenSession { .. }
            | Kind::EndSession
            | Kind::Roster => {}
            Kind::Right(asked) => self.locks.in_doubt(begin, asked),
        }
    }

    /// A worker starts an attempt.
    pub fn started(&mut self, at: u64, run: &Run) {
        let (attempt, fence) = (run.grant.attempt, run.grant.fence);
        self.given.entry(token(&run.grant.payload)).or_insert(attempt.task);
        let act = TaskAct::Start { number: attempt.number, fence };
        self.tasks.add(attempt.task, Timed { begin: at, end: Some(at), act });
    }

    /// I3, I5: one register per key, one task per id and one lock per name could have answered so. Says how many histories were too hard
    /// to judge.
    pub fn unjudged(&mut self, is_clock_bound_kept: bool) -> Result<usize, String> {
        self.settle_doubtful_submissions();
        let registers =
            self.registers.check(Register::of).map_err(|why| format!("I3 no register answers so: {why}"))?;
        let tasks = self.tasks.check(|_| Task).map_err(|why| format!("I3 no task answers so: {why}"))?;
        Ok(registers + tasks + self.locks.unjudged(is_clock_bound_kept)?)
    }

    /// A submission of unknown outcome made the task that a worker was given for it. A task that somebody knows and nobody was
    /// given comes from any of the others.
    fn settle_doubtful_submissions(&mut self) {
        let is_submit = |act: &Timed<TaskAct>| matches!(act.act, TaskAct::Submit(_));
        let has_no_submit = |(_, acts): &(&TaskId, &[Timed<TaskAct>])| !acts.iter().any(is_submit);
        let mut orphans: BTreeSet<TaskId> = self.tasks.iter().filter(has_no_submit).map(|(task, _)| *task).collect();
        let mut others = Vec::new();
        for (token, submit) in self.doubtful.drain(..) {
            match self.given.get(&token) {
                Some(task) => {
                    orphans.remove(task);
                    self.tasks.add(*task, submit);
                }
                None => others.push(submit),
            }
        }
        for task in orphans {
            others.iter().for_each(|submit| self.tasks.add(task, submit.clone()));
        }
    }

    fn written(&mut self, (begin, end): (u64, u64), key: &str, value: Option<u64>, expect: Expect, answer: &Answer) {
        let answer = match answer {
            Answer::Written(revision) => WriteAnswer::Done(*revision),
            Answer::Refused(Refused::Conflict { current }) => WriteAnswer::Conflict(Some(*current)),
            Answer::Refused(Refused::NotFound) => WriteAnswer::NotFound,
            _ => return, // Certainly not done, whatever the key held.
        };
        let act = RegisterAct::Write { value, expect, answer };
        self.registers.add(key.to_owned(), Timed { begin, end: Some(end), act });
    }
}

/// A simulated handler's result is the fence under which it ran.
fn standing(view: &TaskView) -> Standing {
    Standing::Ended(match &view.state {
        TaskState::Pending { .. } | TaskState::Assigned { .. } => return Standing::Live(view.attempts),
        TaskState::Done { output, .. } => Ending::Done(Fence(token(output))),
        TaskState::Failed { .. } => Ending::Failed,
        TaskState::Cancelled { .. } => Ending::Cancelled,
        TaskState::Lost { .. } => Ending::Lost,
    })
}
