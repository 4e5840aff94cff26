//! One task: submitted, started, cancelled, looked at, ended.
//!
//! Whoever starts an attempt is a client of the task like any other: that an attempt was started is an act of known outcome.
//! Records are taken to be kept for longer than the history lasts.
//!
//! # Invariants
//!
//! * A task ends once: all who see its end see the same.
//! * A result is that of an attempt that was started; what may run once is started once.
//! * A later attempt has a greater fence.

use std::collections::BTreeMap;

use super::Model;
use crate::state::Delivery;
use crate::types::Fence;

/// A task that nobody has submitted at the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Task;

/// What is asked of a task or done for it, with the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskAct {
    /// It was submitted.
    Submit(Delivery),
    /// A later submission with its once key named it.
    Name,
    /// An attempt was started.
    Start {
        /// Which run of it.
        number: u32,
        /// The right to it.
        fence: Fence,
    },
    /// Somebody cancelled it; or tried to, where it had ended, or nobody knows.
    Cancel(CancelAnswer),
    /// Somebody saw it so; nothing if it is not known.
    Look(Option<Standing>),
}

/// What came of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It ended by this.
    Done,
    /// It had ended.
    Ended,
    /// Nobody knows.
    Unknown,
}

/// Where somebody saw a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not at its end, after so many attempts were granted.
    Live(u32),
    /// At its end.
    Ended(Ending),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// With the result of the attempt that had this right.
    Done(Fence),
    /// Without one.
    Failed,
    /// By a client's wish.
    Cancelled,
    /// It may have run, or not.
    Lost,
}

/// A task, as far as the answers have told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskState {
    /// Where it stands.
    pub stage: Stage,
    /// Whether it may be started once only.
    pub is_once: bool,
    /// The attempts that were started.
    pub starts: BTreeMap<u32, Fence>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nowhere.
    Absent,
    /// Not at its end, after so many attempts were granted at least.
    Live(u32),
    /// At its end, nobody has seen which.
    Over,
    /// At this end.
    Ended(Ending),
}

impl Model for Task {
    type State = TaskState;
    type Act = TaskAct;

    fn initial(&self) -> TaskState {
        TaskState { stage: Stage::Absent, is_once: false, starts: BTreeMap::new() }
    }

    fn after(&self, state: &TaskState, act: &TaskAct) -> Option<TaskState> {
        match act {
            TaskAct::Submit(delivery) => {
                let is_once = *delivery == Delivery::AtMostOnce;
                (state.stage == Stage::Absent).then(|| TaskState { is_once, ..state.at(Stage::Live(0)) })
            }
            TaskAct::Name => (state.stage != Stage::Absent).then(|| state.clone()),
            TaskAct::Start { number, fence } => state.start(*number, *fence),
            TaskAct::Cancel(CancelAnswer::Done | CancelAnswer::Unknown) => {
                matches!(state.stage, Stage::Live(_)).then(|| state.at(Stage::Ended(Ending::Cancelled)))
            }
            TaskAct::Cancel(CancelAnswer::Ended) => match state.stage {
                Stage::Live(_) => Some(state.at(Stage::Over)),
                Stage::Over | Stage::Ended(_) => Some(state.clone()),
                Stage::Absent => None,
            },
            TaskAct::Look(Some(Standing::Live(attempts))) => match state.stage {
                Stage::Live(known) if known <= *attempts => Some(state.at(Stage::Live(*attempts))),
                _ => None,
            },
            TaskAct::Look(Some(Standing::Ended(ending))) => state.end(*ending),
            TaskAct::Look(None) => (state.stage == Stage::Absent).then(|| state.clone()),
        }
    }
}

impl TaskState {
    /// A grant that was taken back may still be obeyed by a worker that has not heard so: an end does not forbid a start.
    fn start(&self, number: u32, fence: Fence) -> Option<Self> {
        let is_fresh = !self.starts.contains_key(&number) && (!self.is_once || self.starts.is_empty());
        let is_above = self.starts.range(..number).all(|(_, earlier)| *earlier < fence);
        let is_below = self.starts.range(number..).all(|(_, later)| fence < *later);
        if self.stage == Stage::Absent || !is_fresh || !is_above || !is_below {
            return None;
        }
        let mut next = self.clone();
        next.starts.insert(number, fence);
        Some(next)
    }

    fn end(&self, ending: Ending) -> Option<Self> {
        let is_possible = match self.stage {
            Stage::Live(_) | Stage::Over => true,
            Stage::Ended(known) => known == ending,
            Stage::Absent => false,
        };
        let is_founded = match ending {
            Ending::Done(fence) => self.starts.values().any(|started| *started == fence),
            Ending::Lost => self.is_once,
            Ending::Failed | Ending::Cancelled => true,
        };
        (is_possible && is_founded).then(|| self.at(Stage::Ended(ending)))
    }

    fn at(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }
}
