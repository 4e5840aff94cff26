//! The master and its tasks: what is granted to whom, who knows of it, and what is taken back.
//!
//! # Invariants
//!
//! * An attempt is taken back for one cause at a time, and whatever takes it back is an entry.
//! * A worker that may still run an attempt whose grant is over is told to stop; one that has reported it is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::board::{Stage, Told};
use super::crew::Report;
use super::machine::Master;
use super::message::{Grant, ToWorker};
use crate::effects::Effects;
use crate::mutants::{Bug, is_on};
use crate::state::{Assigned, Delivery, Host, LiveTask, ReleaseCause};
use crate::types::{Attempt, ClusterTime, Fence, Incarnation, Nanos, NodeId, TaskId};

impl Master {
    /// A run seems to be dead: its at-least-once attempts go again at once (D5), and those client sessions in its process end
    /// that wanted no proof (F12).
    pub(super) fn on_evidence(&mut self, node: NodeId, incarnation: Incarnation, effects: &mut Effects) {
        let session = self.crew.get(&node).and_then(|member| member.session.as_ref());
        let run = session.map(|session| session.incarnation);
        if run.is_some_and(|run| run > incarnation) {
            return;
        }
        // Also where its own session is over, as after a goodbye.
        self.releasing.insert(Host { node, incarnation }, ());
        let Some(member) = self.crew.get_mut(&node).filter(|member| member.session.is_some()) else { return };
        member.is_dead = true;
        member.greeted = None;
        // Whoever said goodbye did not die: the end of its session, which is on its way, takes back what it was granted.
        let has_left = member.session.as_ref().is_some_and(|session| self.endings.get(&session.session).is_some());
        let held = if has_left { Vec::new() } else { self.grants_of(node) };
        if !held.is_empty() {
            effects.note(format!("{node} seems to be dead: {} attempts", held.len()));
        }
        for (fence, task) in held {
            self.take_back_from_the_dead(task, fence);
        }
    }

    pub(super) fn on_hand_back(&mut self, node: NodeId, task: TaskId, fence: Fence, never_started: bool) {
        if let Some(member) = self.crew.get_mut(&node)
            && member.grants.get(&fence) == Some(&task)
        {
            let cause = if never_started { ReleaseCause::HandedBack } else { ReleaseCause::NotHeld };
            member.is_full = never_started;
            self.releases.insert((task, fence), cause);
        }
    }

    pub(super) fn on_submitted(&mut self, now: Nanos, task: LiveTask) {
        self.board.insert(task, self.clock.time(now));
        self.has_news = true;
    }

    pub(super) fn on_assigned(&mut self, attempt: Attempt, grant: Assigned, effects: &mut Effects) {
        let task = attempt.task;
        self.unreserve(task);
        let Some(item) = self.board.item(task) else { return };
        let timeout = item.task.spec.timeout;
        self.hold(task, &grant, timeout);
        self.board.grant(task, grant);
        if self.crew.get(&grant.node).is_some_and(|member| member.is_dead || !member.is_linked) {
            self.take_back_unheard(task, grant.fence);
        } else {
            self.dispatch(task, effects);
        }
    }

    /// A decision met other facts. What the reservation was for is decided again, not at once, so that a disagreement with
    /// the log costs little.
    pub(super) fn on_void(&mut self, now: Nanos, task: Option<TaskId>) {
        let Some(task) = task else { return };
        for key in self.releases.keys((task, Fence(0)), (task, Fence(u64::MAX))) {
            self.releases.remove(&key);
        }
        if self.unreserve(task) {
            let time = self.clock.time(now);
            self.board.queue(task, time + self.profile.heartbeat, time);
            self.has_news = true;
        }
    }

    /// Compares what a worker holds with what it should hold (F11). What is missing is dispatched again: the dispatch was lost, or
    /// the worker recognises the fence and hands it back. In a hello `seen` is missing: then that waits for the welcome.
    pub(super) fn reconcile(&mut self, report: &Report, seen: Option<Fence>, effects: &mut Effects) {
        let node = report.node;
        let held: BTreeMap<Fence, Attempt> = report.held.iter().map(|held| (held.fence, held.attempt)).collect();
        let grants = self.grants_of(node);
        for &(fence, task) in &grants {
            let Some((_, _, told)) = self.board.granted(task) else { continue };
            if held.contains_key(&fence) {
                self.board.tell(task, Told::OnThisLink);
                continue;
            }
            let is_seen = seen.is_some_and(|seen| fence <= seen);
            match told {
                _ if is_on(Bug::NeverReconciles) => {}
                Told::Never | Told::Earlier | Told::Judged => {}
                _ if seen.is_none() => self.board.tell(task, Told::Earlier),
                Told::OnThisLink if !is_seen => self.board.tell(task, Told::Missing),
                Told::OnThisLink | Told::Missing | Told::Again => self.dispatch_again(task, effects),
            }
        }
        for (fence, attempt) in held {
            let is_granted = grants.binary_search(&(fence, attempt.task)).is_ok();
            if !is_granted && self.finishes.get(&(attempt.task, fence)).is_none() {
                effects.send(node, ToWorker::Cancel { epoch: self.epoch, attempt, fence });
            }
        }
    }

    /// Attempts that have lasted too long and did not report are taken back.
    pub(super) fn note_late(&mut self, now: Nanos) {
        let time = self.clock.time(now);
        while let Some(&(due, task, fence)) = self.due.first()
            && due <= time
        {
            self.due.pop_first();
            let is_granted = self.board.granted(task).is_some_and(|(_, grant, _)| grant.fence == fence);
            if !is_granted || self.finishes.get(&(task, fence)).is_some() {
                continue;
            }
            self.releases.insert((task, fence), ReleaseCause::TimedOut);
            if self.releases.get(&(task, fence)).is_none() {
                // Too much is under way: it is late a moment longer.
                self.due.insert((time + self.profile.heartbeat, task, fence));
            }
        }
    }

    /// Dispatches a granted attempt if its worker can hear of it now; otherwise when it is welcome.
    pub(super) fn dispatch(&mut self, task: TaskId, effects: &mut Effects) {
        let Some((record, grant, told)) = self.board.granted(task) else { return };
        let can_hear = self.crew.get(&grant.node).is_some_and(|member| member.can_hear_of(grant.session));
        let is_over = self.releases.get(&(task, grant.fence)).is_some();
        if !can_hear || is_over || !matches!(told, Told::Never | Told::Earlier) {
            return;
        }
        let spec = &record.spec;
        let message = ToWorker::Dispatch {
            epoch: self.epoch,
            grant: Grant {
                attempt: Attempt { task, number: grant.number },
                fence: grant.fence,
                session: grant.session,
                kind: spec.kind.clone(),
                payload: spec.payload.clone(),
                delivery: spec.delivery,
                timeout: spec.timeout,
                once_key: spec.once_key.clone(),
            },
        };
        self.board.tell(task, Told::OnThisLink);
        effects.send(grant.node, message);
    }

    /// A dispatch did not leave. Should nobody say that there is room again, the worker's next report shows that it lacks it.
    pub(super) fn on_unsent(&mut self, node: NodeId, task: TaskId, fence: Fence) {
        let Some((_, grant, told)) = self.board.granted(task) else { return };
        if (grant.node, grant.fence) == (node, fence)
            && matches!(told, Told::OnThisLink | Told::Again)
            && let Some(member) = self.crew.get_mut(&node).filter(|member| member.is_linked)
        {
            member.unsent.insert(fence);
            self.board.tell(task, Told::Missing);
        }
    }

    /// A link has room again: what found none is dispatched, oldest grant first, until there is certainly none left; then this comes
    /// again.
    pub(super) fn on_writable(&mut self, node: NodeId, effects: &mut Effects) {
        let mut bytes = 0;
        while bytes <= DISPATCHED_MAX
            && let Some(member) = self.crew.get_mut(&node)
            && let Some(fence) = member.unsent.pop_first()
        {
            let Some(&task) = member.grants.get(&fence) else { continue };
            if let Some((record, _, Told::Missing)) = self.board.granted(task) {
                bytes += record.spec.payload.len();
                self.board.tell(task, Told::Earlier);
                self.dispatch(task, effects);
            }
        }
    }

    fn dispatch_again(&mut self, task: TaskId, effects: &mut Effects) {
        self.board.tell(task, Told::Earlier);
        self.dispatch(task, effects);
        self.board.tell(task, Told::Again);
    }

    /// The grant of a task is over: its slot is free, and a worker that may still run it is told to stop.
    pub(super) fn end_grant(&mut self, task: TaskId, effects: &mut Effects) {
        self.unreserve(task);
        let Some((record, grant, told)) = self.board.granted(task) else { return };
        self.due.remove(&(self.due_time(&grant, record.spec.timeout), task, grant.fence));
        if let Some(member) = self.crew.get_mut(&grant.node) {
            member.grants.remove(&grant.fence);
        }
        let cause = self.releases.remove(&(task, grant.fence));
        let is_given_up = matches!(cause, Some(ReleaseCause::HandedBack | ReleaseCause::NotHeld));
        if !is_given_up && !matches!(told, Told::Never | Told::Judged) {
            let attempt = Attempt { task, number: grant.number };
            self.say(grant.node, ToWorker::Cancel { epoch: self.epoch, attempt, fence: grant.fence }, effects);
        }
    }

    /// Notes a grant in the books of its worker.
    pub(super) fn hold(&mut self, task: TaskId, grant: &Assigned, timeout: Duration) {
        self.crew.entry(grant.node).or_default().grants.insert(grant.fence, task);
        if !timeout.is_zero() {
            self.due.insert((self.due_time(grant, timeout), task, grant.fence));
        }
    }

    /// What is granted to a node, in the order of the fences.
    pub(super) fn grants_of(&self, node: NodeId) -> Vec<(Fence, TaskId)> {
        let grants = self.crew.get(&node).map(|member| &member.grants);
        grants.into_iter().flatten().map(|(&fence, &task)| (fence, task)).collect()
    }

    /// Takes back what its worker certainly never heard of: whatever may run once, too, since it has not begun.
    pub(super) fn take_back_unheard(&mut self, task: TaskId, fence: Fence) {
        if let Some((_, _, Told::Never)) = self.board.granted(task) {
            self.releases.insert((task, fence), ReleaseCause::HandedBack);
        }
    }

    fn take_back_from_the_dead(&mut self, task: TaskId, fence: Fence) {
        let Some((record, _, told)) = self.board.granted(task) else { return };
        if told == Told::Never {
            // What it never heard of, it did not die of.
            self.take_back_unheard(task, fence);
        } else if record.spec.delivery == Delivery::AtLeastOnce || is_on(Bug::EvidenceMovesAll) {
            self.releases.insert((task, fence), ReleaseCause::Evidence);
        }
    }

    /// When a grant has lasted too long: the worker's own clock stops it first, a heartbeat earlier.
    fn due_time(&self, grant: &Assigned, timeout: Duration) -> ClusterTime {
        grant.since + timeout + self.profile.heartbeat
    }

    /// Gives up the reservation of a task; says whether there was one.
    fn unreserve(&mut self, task: TaskId) -> bool {
        let Some(Stage::Reserved(node)) = self.board.item(task).map(|item| item.stage) else { return false };
        self.crew.get_mut(&node).is_some_and(|member| member.reserved.remove(&task))
    }
}

/// How many bytes of input are dispatched to one worker at a time when its link has room again: more than a link takes.
const DISPATCHED_MAX: usize = 512 * 1024;
