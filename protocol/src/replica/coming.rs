//! Tasks whose submission waits for its entry, and the question to the master who may run them at once.
//!
//! A grant that stands in the same entry as the submission saves the task a whole commit. The master sits in another actor, so
//! it is asked just before the entry would be made, about all that have gathered, and the entry waits for the answer: a few
//! microseconds, and never longer than [`PATIENCE`].
//!
//! # Invariants
//!
//! * Nothing rests on the answer: a task that is not granted here is recorded all the same, and granted as any other.
//! * An entry waits for a question only until its time is over, however many follow.

use std::cmp::Reverse;
use std::time::Duration;

use crate::master;
use crate::state::{TaskSpec, Ticket};
use crate::types::{Nanos, Seq, SessionId};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coming {
    /// What the master was not asked about yet.
    tasks: Vec<master::Coming>,
    /// How many questions have no answer.
    open: usize,
    /// When the oldest of them is waited for no longer.
    until: Nanos,
}

impl Coming {
    /// Notes the tasks of a submission that has joined the batch; where there are too many, those of the highest priority.
    pub(super) fn note(&mut self, client: SessionId, seq: Seq, tasks: &[TaskSpec]) {
        let room = TASKS_MAX.saturating_sub(self.tasks.len());
        let mut tasks: Vec<_> = tasks.iter().zip(0..).collect();
        tasks.sort_by_key(|(task, _)| Reverse(task.priority));
        self.tasks.extend(tasks.into_iter().take(room).map(|(task, place)| master::Coming {
            ticket: Ticket { client, seq, place },
            kind: task.kind.clone(),
            needs: task.needs.clone(),
            priority: task.priority,
        }));
    }

    /// The submission found no room in the batch.
    pub(super) fn forget(&mut self, client: SessionId, seq: Seq) {
        self.tasks.retain(|task| (task.ticket.client, task.ticket.seq) != (client, seq));
    }

    /// The next question, if there is one to ask.
    pub(super) fn ask(&mut self, now: Nanos) -> Option<Vec<master::Coming>> {
        if self.tasks.is_empty() {
            return None;
        }
        if self.open == 0 {
            self.until = now + PATIENCE;
        }
        self.open += 1;
        Some(std::mem::take(&mut self.tasks))
    }

    /// A question was answered.
    pub(super) fn on_answer(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Gives up questions that have had their time. A late answer is welcome all the same.
    pub(super) fn expire(&mut self, now: Nanos) {
        if now >= self.until {
            self.open = 0;
        }
    }

    /// Whether an entry should wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.open > 0
    }

    /// When a wait ends by itself.
    pub(super) fn deadline(&self) -> Nanos {
        if self.open > 0 { self.until } else { Nanos::NEVER }
    }

    /// Leadership is over, and nobody will answer.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// About how many tasks the master is asked at once: more than workers have room for at a time, as a rule.
const TASKS_MAX: usize = 512;

/// How long an entry waits for an answer. Between two actors on one thread it takes microseconds.
const PATIENCE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(coming: &mut Coming, count: usize) {
        coming.note(SessionId(1), Seq(1), &vec![TaskSpec::new("job", ""); count]);
    }

    #[test]
    fn an_entry_waits_for_every_answer_but_not_for_ever() {
        let mut coming = Coming::default();
        let now = Nanos(1_000);
        assert_eq!(coming.ask(now), None);
        assert!(!coming.is_waiting());
        noted(&mut coming, 2);
        assert_eq!(coming.ask(now).map(|tasks| tasks.len()), Some(2));
        noted(&mut coming, 1);
        assert!(coming.ask(now + PATIENCE / 2).is_some());
        coming.on_answer();
        coming.expire(now + PATIENCE / 2);
        assert!(coming.is_waiting());
        coming.expire(now + PATIENCE);
        assert!(!coming.is_waiting(), "the second question gives no more time");
        assert_eq!(coming.deadline(), Nanos::NEVER);
        coming.on_answer();
        assert!(!coming.is_waiting());
    }

    #[test]
    fn the_question_is_bounded() {
        let mut coming = Coming::default();
        noted(&mut coming, 2 * TASKS_MAX);
        assert_eq!(coming.ask(Nanos(1)).map(|tasks| tasks.len()), Some(TASKS_MAX));
    }
}
