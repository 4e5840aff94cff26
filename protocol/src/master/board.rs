//! Every task that has not ended, and where it stands: waiting, ready, reserved for a worker, or granted to one.
//!
//! # Invariants
//!
//! * A task is ready iff it stands in `ready` under its demand, and waiting iff it stands in `waiting`.
//! * Tasks of one demand are taken by priority, then by age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::message::Coming;
use crate::state::{Assigned, LiveTask, Offer};
use crate::types::{ClusterTime, NodeId, TaskId};

/// All live tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Board {
    items: BTreeMap<TaskId, Item>,
    ready: BTreeMap<Demand, BTreeSet<Rank>>,
    waiting: BTreeSet<(ClusterTime, TaskId)>,
}

/// One live task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) task: LiveTask,
    pub(super) stage: Stage,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Pending, but not before this time.
    Waiting(ClusterTime),
    /// Pending: any worker that fits may have it.
    Ready,
    /// An `Assign` to this node is on its way through the log.
    Reserved(NodeId),
    /// Granted.
    Granted(Assigned, Told),
}

/// Whether the worker can know of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Told {
    /// Certainly not: this master granted it and has said nothing.
    Never,
    /// Perhaps, by an older master or on an older link.
    Earlier,
    /// It was dispatched on the link of today, or is held.
    OnThisLink,
    /// It was, but one report did not name it: they may have crossed.
    Missing,
    /// It was dispatched again, because the reports do not name it.
    Again,
    /// It has reported how it ended, and that is judged.
    Judged,
}

/// What a worker must offer to run a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Demand {
    kind: String,
    needs: BTreeMap<String, String>,
}

/// The order in which the ready tasks of one demand are taken: highest priority, then oldest.
pub(super) type Rank = (Reverse<i32>, TaskId);

impl Board {
    /// Adds a task where its record says that it stands.
    pub(super) fn insert(&mut self, task: LiveTask, now: ClusterTime) {
        let (id, not_before) = (task.id, task.not_before);
        if let Some(grant) = task.assigned {
            self.items.insert(id, Item { task, stage: Stage::Granted(grant, Told::Earlier) });
        } else {
            self.items.insert(id, Item { task, stage: Stage::Ready });
            self.queue(id, not_before, now);
        }
    }

    /// Takes a task off the board.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<Item> {
        self.unqueue(id);
        self.items.remove(&id)
    }

    /// A decision about a ready task is on its way.
    pub(super) fn reserve(&mut self, id: TaskId, node: NodeId) {
        self.move_to(id, Stage::Reserved(node));
    }

    /// A grant was made.
    pub(super) fn grant(&mut self, id: TaskId, grant: Assigned) {
        self.move_to(id, Stage::Granted(grant, Told::Never));
        if let Some(item) = self.items.get_mut(&id) {
            item.task.attempts = item.task.attempts.max(grant.number);
        }
    }

    /// Notes what the worker can know of a grant.
    pub(super) fn tell(&mut self, id: TaskId, told: Told) {
        if let Some(Item { stage: Stage::Granted(_, known), .. }) = self.items.get_mut(&id) {
            *known = told;
        }
    }

    /// The task is pending, but not before this time.
    pub(super) fn queue(&mut self, id: TaskId, not_before: ClusterTime, now: ClusterTime) {
        self.unqueue(id);
        let Some(item) = self.items.get_mut(&id) else { return };
        if not_before > now {
            item.stage = Stage::Waiting(not_before);
            self.waiting.insert((not_before, id));
        } else {
            item.stage = Stage::Ready;
            self.ready.entry(Demand::of(&item.task)).or_default().insert((Reverse(item.task.spec.priority), id));
        }
    }

    /// Makes those ready whose time has come; says whether there were any.
    pub(super) fn wake(&mut self, now: ClusterTime) -> bool {
        let mut has_woken = false;
        while let Some(&(time, id)) = self.waiting.first()
            && time <= now
        {
            self.queue(id, time, now);
            has_woken = true;
        }
        has_woken
    }

    /// When the next task becomes ready by itself.
    pub(super) fn next_wake(&self) -> ClusterTime {
        self.waiting.first().map_or(ClusterTime::NEVER, |&(time, _)| time)
    }

    /// A task, if it is live.
    pub(super) fn item(&self, id: TaskId) -> Option<&Item> {
        self.items.get(&id)
    }

    /// The grant of a task, if it has one.
    pub(super) fn granted(&self, id: TaskId) -> Option<(&LiveTask, Assigned, Told)> {
        match self.items.get(&id)? {
            Item { task, stage: Stage::Granted(grant, told) } => Some((task, *grant, *told)),
            _ => None,
        }
    }

    /// The ready tasks by demand; no set is empty.
    pub(super) fn ready(&self) -> impl Iterator<Item = (&Demand, &BTreeSet<Rank>)> {
        self.ready.iter()
    }

    /// Says whether tasks of this demand are ready and were not placed.
    pub(super) fn has_ready(&self, demand: &Demand) -> bool {
        self.ready.contains_key(demand)
    }

    fn move_to(&mut self, id: TaskId, stage: Stage) {
        self.unqueue(id);
        if let Some(item) = self.items.get_mut(&id) {
            item.stage = stage;
        }
    }

    fn unqueue(&mut self, id: TaskId) {
        let Some(item) = self.items.get(&id) else { return };
        match item.stage {
            Stage::Waiting(time) => {
                self.waiting.remove(&(time, id));
            }
            Stage::Ready => {
                let demand = Demand::of(&item.task);
                if let Some(ranks) = self.ready.get_mut(&demand) {
                    ranks.remove(&(Reverse(item.task.spec.priority), id));
                    if ranks.is_empty() {
                        self.ready.remove(&demand);
                    }
                }
            }
            Stage::Reserved(_) | Stage::Granted(..) => {}
        }
    }
}

impl Demand {
    fn of(task: &LiveTask) -> Self {
        Self { kind: task.spec.kind.clone(), needs: task.spec.needs.clone() }
    }

    /// What a task demands that is about to be recorded.
    pub(super) fn of_coming(task: Coming) -> Self {
        Self { kind: task.kind, needs: task.needs }
    }

    /// Says whether a worker that offers this may run it.
    pub(super) fn is_met_by(&self, offer: &Offer) -> bool {
        offer.kinds.contains(&self.kind) && self.needs.iter().all(|(name, value)| offer.labels.get(name) == Some(value))
    }
}
