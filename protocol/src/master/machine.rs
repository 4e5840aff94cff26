//! The master at work in one epoch.
//!
//! Every handler only takes note; [`Master::decide`] runs at the end of every step and turns what was noted into one
//! proposal.
//!
//! # Invariants
//!
//! * Nothing is proposed twice while its first proposal may still be on its way, unless that was dropped.
//! * Nothing is proposed within a heartbeat of a dropped proposal: a log that is full is not pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::board::{Board, Stage, Told};
use super::clock::Clock;
use super::crew::{Asked, Member, Opening};
use super::decisions::{Decisions, UNDER_WAY_MAX};
use super::message::{Grant, ToWorker};
use super::placement;
use crate::effects::{Effects, Local};
use crate::profile::Profile;
use crate::replica;
use crate::state::{
    Assigned, ClusterChange, Command, Delivery, EndCause, LiveTask, MasterCommand, MasterView, NodeSession, Offer,
    Outcome, ReleaseCause,
};
use crate::types::{Attempt, ClusterTime, Epoch, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};
use crate::worker::{Held, ToMaster};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Master {
    node: NodeId,
    profile: Profile,
    epoch: Epoch,
    clock: Clock,
    board: Board,
    crew: BTreeMap<NodeId, Member>,
    sessions: BTreeMap<SessionId, NodeId>,
    /// Sessions to open.
    openings: Decisions<NodeId, Opening>,
    /// Attempts to take back.
    releases: Decisions<(TaskId, Fence), ReleaseCause>,
    /// Results to be judged, and whom to tell.
    finishes: Decisions<(TaskId, Fence), (NodeId, Outcome)>,
    /// Sessions to end.
    endings: Decisions<SessionId, EndCause>,
    /// When attempts have run for too long.
    due: BTreeSet<(ClusterTime, TaskId, Fence)>,
    next_expiry: ClusterTime,
    /// No `Expire` before this: one is on its way.
    expire_after: Nanos,
    /// When gathered renewals go into one entry.
    renew_at: Option<Nanos>,
    /// When "I am the master" is said again to those who have not answered.
    here_at: Nanos,
    /// Nothing is proposed before this.
    hold_until: Nanos,
    /// Whether a task or a slot has become free since tasks were placed last.
    has_news: bool,
}

impl Master {
    /// Begins an epoch with a copy of the state, and says so to this node's own worker.
    pub(super) fn new(node: NodeId, profile: Profile, now: Nanos, view: MasterView, effects: &mut Effects) -> Self {
        let mut master = Self {
            node,
            profile,
            epoch: view.epoch,
            clock: Clock::new(now, view.time),
            board: Board::default(),
            crew: BTreeMap::new(),
            sessions: BTreeMap::new(),
            openings: Decisions::default(),
            releases: Decisions::default(),
            finishes: Decisions::default(),
            endings: Decisions::default(),
            due: BTreeSet::new(),
            next_expiry: view.next_expiry,
            expire_after: now,
            renew_at: None,
            here_at: now + profile.renewal,
            hold_until: now,
            has_news: true,
        };
        let (tasks, nodes) = (view.tasks.len(), view.nodes.len());
        for session in view.nodes {
            master.open(session);
        }
        for task in view.tasks {
            if let Some(grant) = task.assigned {
                master.hold(task.id, &grant, task.timeout);
            }
            master.board.insert(task, view.time);
        }
        effects.note(format!("master in epoch {}: {tasks} tasks, {nodes} nodes", master.epoch));
        master.on_link_up(node, effects);
        master
    }

    /// What a worker said.
    pub(super) fn on_message(
        &mut self,
        now: Nanos,
        from: NodeId,
        incarnation: Incarnation,
        message: ToMaster,
        effects: &mut Effects,
    ) {
        match message {
            ToMaster::Hello { epoch, offer, held, sent } => {
                if epoch == self.epoch {
                    self.on_hello(now, from, incarnation, offer, &held, sent, effects);
                }
            }
            ToMaster::Renew { epoch, session, held, seen, sent } => {
                if epoch == self.epoch {
                    self.on_renew(now, from, incarnation, session, &held, seen, sent, effects);
                }
            }
            ToMaster::Finish { task, fence, outcome } => {
                self.finishes.insert((task, fence), (from, outcome));
            }
            ToMaster::HandBack { task, fence } => self.on_hand_back(from, task, fence),
            ToMaster::Goodbye { session } => {
                if self.sessions.get(&session) == Some(&from) {
                    self.endings.insert(session, EndCause::Goodbye);
                }
            }
        }
    }

    /// What entries have changed.
    pub(super) fn on_applied(
        &mut self,
        now: Nanos,
        time: ClusterTime,
        changes: Vec<ClusterChange>,
        effects: &mut Effects,
    ) {
        self.clock.observe(now, time);
        for change in changes {
            self.on_change(now, change, effects);
        }
    }

    /// Proposals were not taken: everything under way is decided again, a little later.
    pub(super) fn on_dropped(&mut self, now: Nanos) {
        self.hold_until = now + self.profile.heartbeat;
        self.openings.forget_proposals();
        self.releases.forget_proposals();
        self.finishes.forget_proposals();
        self.endings.forget_proposals();
        self.expire_after = now;
        let time = self.clock.time(now);
        for member in self.crew.values_mut() {
            for task in std::mem::take(&mut member.reserved) {
                self.board.queue(task, time, time);
            }
            // A renewal that is asked for meanwhile is the better one.
            member.asked = member.asked.or(member.proposed.take());
            member.proposed = None;
        }
        self.renew_at = self.crew.values().any(|member| member.asked.is_some()).then_some(now);
        self.has_news = true;
    }

    /// A node can be spoken to on a new link.
    pub(super) fn on_link_up(&mut self, node: NodeId, effects: &mut Effects) {
        self.relink(node, true);
        effects.send(node, ToWorker::Here { epoch: self.epoch });
    }

    /// A link broke. No right moves; what the worker certainly never heard of goes elsewhere.
    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.relink(node, false);
    }

    /// A run seems to be dead: its at-least-once attempts go again at once (D5).
    pub(super) fn on_evidence(&mut self, node: NodeId, incarnation: Incarnation, effects: &mut Effects) {
        let Some(member) = self.crew.get_mut(&node) else { return };
        if member.session.as_ref().is_none_or(|session| session.incarnation > incarnation) {
            return;
        }
        member.is_dead = true;
        member.greeted = None;
        let held: Vec<(Fence, TaskId)> = member.grants.iter().map(|(&fence, &task)| (fence, task)).collect();
        if !held.is_empty() {
            effects.note(format!("{node} seems to be dead: {} attempts", held.len()));
        }
        for (fence, task) in held {
            self.take_back_from_the_dead(task, fence);
        }
    }

    /// Turns what was noted into one proposal, and says what is due to be said.
    pub(super) fn decide(&mut self, now: Nanos, effects: &mut Effects) {
        self.say_here(now, effects);
        if now < self.hold_until {
            return;
        }
        let mut commands = Vec::new();
        // Renewals come first: what was heard of in time does not expire in the same entry.
        self.propose_renewals(now, &mut commands);
        self.note_late(now);
        self.propose_noted(&mut commands);
        self.propose_expiry(now, &mut commands);
        self.propose_placements(now, &mut commands);
        if !commands.is_empty() {
            effects.local.push(Local::Replica(replica::Input::Propose { epoch: self.epoch, commands }));
        }
    }

    /// When [`Master::decide`] has something to do that time alone brings.
    pub(super) fn next_deadline(&self) -> Nanos {
        let late = self.due.first().map_or(ClusterTime::NEVER, |&(time, ..)| time);
        let expiry = self.clock.local(self.next_expiry + TICK).max(self.expire_after);
        let next = self.clock.local(self.board.next_wake()).min(self.clock.local(late)).min(expiry);
        let next = next.min(self.renew_at.unwrap_or(Nanos::NEVER));
        let next = if self.has_fresh() { Nanos(0) } else { next };
        next.max(self.hold_until).min(self.here_at)
    }

    /// The epoch of this leadership.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    // ---- what workers say ----

    #[allow(clippy::too_many_arguments)] // One message, taken apart.
    fn on_hello(
        &mut self,
        now: Nanos,
        node: NodeId,
        incarnation: Incarnation,
        offer: Offer,
        held: &[Held],
        sent: Nanos,
        effects: &mut Effects,
    ) {
        let at = self.clock.time(now);
        let member = self.crew.entry(node).or_default();
        if member.session.as_ref().is_some_and(|session| session.incarnation > incarnation) {
            return;
        }
        member.greeted = Some(incarnation);
        member.is_dead = false;
        member.is_full = false;
        self.has_news = true;
        let session = member.session_of(incarnation);
        if session.is_some() {
            member.asked = Some(Asked { sent, at });
            self.renew_at.get_or_insert(now + self.profile.heartbeat);
        }
        let session = self.crew[&node].session_of(incarnation);
        if session.is_none_or(|session| session.offer != offer) {
            self.decide_opening(now, node, Opening { incarnation, offer, sent, decided: now });
        }
        self.reconcile(node, held, None, effects);
    }

    fn decide_opening(&mut self, now: Nanos, node: NodeId, opening: Opening) {
        if let Some(known) = self.openings.get(&node) {
            let is_same = known.incarnation == opening.incarnation && known.offer == opening.offer;
            let is_recent = now.since(known.decided) < self.profile.session;
            if known.incarnation > opening.incarnation || (is_same && is_recent) {
                return;
            }
            self.openings.remove(&node);
        }
        self.openings.insert(node, opening);
    }

    #[allow(clippy::too_many_arguments)] // One message, taken apart.
    fn on_renew(
        &mut self,
        now: Nanos,
        node: NodeId,
        incarnation: Incarnation,
        session: SessionId,
        held: &[Held],
        seen: Fence,
        sent: Nanos,
        effects: &mut Effects,
    ) {
        let at = self.clock.time(now);
        let member = self.crew.entry(node).or_default();
        if member.session_of(incarnation).is_none_or(|own| own.session != session) {
            effects.send(node, ToWorker::Unknown { epoch: self.epoch });
            return;
        }
        member.asked = Some(Asked { sent, at });
        self.renew_at.get_or_insert(now + self.profile.heartbeat);
        if member.greeted == Some(incarnation) {
            self.has_news |= std::mem::take(&mut member.is_full);
            self.reconcile(node, held, Some(seen), effects);
        }
    }

    /// Compares what a worker holds with what it should hold (F11).
    fn reconcile(&mut self, node: NodeId, held: &[Held], seen: Option<Fence>, effects: &mut Effects) {
        let held: BTreeMap<Fence, Attempt> = held.iter().map(|held| (held.fence, held.attempt)).collect();
        let grants: Vec<(Fence, TaskId)> = match self.crew.get(&node) {
            Some(member) => member.grants.iter().map(|(&fence, &task)| (fence, task)).collect(),
            None => Vec::new(),
        };
        for &(fence, task) in &grants {
            let Some((_, grant, told)) = self.board.granted(task) else { continue };
            if !self.crew[&node].can_hear_of(grant.session) {
                continue;
            }
            let is_seen = seen.is_some_and(|seen| fence <= seen);
            match told {
                _ if held.contains_key(&fence) => self.board.tell(task, Told::OnThisLink),
                Told::OnThisLink if is_seen => {
                    if self.finishes.get(&(task, fence)).is_none() {
                        self.releases.insert((task, fence), ReleaseCause::NotHeld);
                    }
                }
                // On its way: the next report will tell.
                Told::OnThisLink if seen.is_some() => {}
                _ => self.dispatch(task, effects),
            }
        }
        for (fence, attempt) in held {
            let is_granted = grants.binary_search(&(fence, attempt.task)).is_ok();
            if !is_granted && self.finishes.get(&(attempt.task, fence)).is_none() {
                effects.send(node, ToWorker::Cancel { epoch: self.epoch, attempt, fence });
            }
        }
    }

    fn on_hand_back(&mut self, node: NodeId, task: TaskId, fence: Fence) {
        if let Some(member) = self.crew.get_mut(&node)
            && member.grants.get(&fence) == Some(&task)
        {
            member.is_full = true;
            self.releases.insert((task, fence), ReleaseCause::HandedBack);
        }
    }

    // ---- what the log says ----

    fn on_change(&mut self, now: Nanos, change: ClusterChange, effects: &mut Effects) {
        match change {
            ClusterChange::Submitted(task) => self.on_submitted(now, *task),
            ClusterChange::Assigned { attempt, grant } => self.on_assigned(attempt, grant, effects),
            ClusterChange::Pending { attempt, not_before, .. } => {
                self.end_grant(attempt.task, effects);
                self.board.queue(attempt.task, not_before, self.clock.time(now));
                self.has_news = true;
            }
            ClusterChange::Ended { task, .. } => {
                self.end_grant(task, effects);
                self.board.remove(task);
                self.has_news = true;
            }
            ClusterChange::Judged { task, fence, recorded } => {
                if self.board.granted(task).is_some_and(|(_, grant, _)| grant.fence == fence) {
                    self.board.tell(task, Told::Judged);
                }
                if let Some((node, _)) = self.finishes.remove(&(task, fence)) {
                    self.say(node, ToWorker::FinishAck { epoch: self.epoch, task, fence, recorded }, effects);
                }
            }
            ClusterChange::Void { task } => self.on_void(now, task),
            ClusterChange::NodeOpened(session) => self.on_node_opened(*session, effects),
            ClusterChange::Renewed(renewed) => {
                for (session, deadline) in renewed {
                    self.on_renewed(session, deadline, effects);
                }
            }
            ClusterChange::NodeEnded { session, .. } => self.on_node_ended(session),
            ClusterChange::NextExpiry(time) => {
                self.next_expiry = time;
                self.expire_after = now;
            }
        }
    }

    fn on_submitted(&mut self, now: Nanos, task: LiveTask) {
        self.board.insert(task, self.clock.time(now));
        self.has_news = true;
    }

    fn on_assigned(&mut self, attempt: Attempt, grant: Assigned, effects: &mut Effects) {
        let task = attempt.task;
        self.unreserve(task);
        let Some(item) = self.board.item(task) else { return };
        let timeout = item.task.timeout;
        self.hold(task, &grant, timeout);
        self.board.grant(task, grant);
        if self.crew.get(&grant.node).is_some_and(|member| member.is_dead || !member.is_linked) {
            self.take_back_unheard(task, grant.fence);
        } else {
            self.dispatch(task, effects);
        }
    }

    /// Takes back what its worker certainly never heard of. A task that may run once is not granted twice, so it waits for
    /// the worker to come back.
    fn take_back_unheard(&mut self, task: TaskId, fence: Fence) {
        if let Some((record, _, Told::Never)) = self.board.granted(task)
            && record.delivery == Delivery::AtLeastOnce
        {
            self.releases.insert((task, fence), ReleaseCause::HandedBack);
        }
    }

    /// A decision met other facts. What the reservation was for is decided again, not at once, so that a disagreement with
    /// the log costs little.
    fn on_void(&mut self, now: Nanos, task: Option<TaskId>) {
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

    fn on_node_opened(&mut self, session: NodeSession, effects: &mut Effects) {
        let (node, id, incarnation, ttl) = (session.node, session.session, session.incarnation, session.ttl);
        let is_new =
            self.crew.get(&node).and_then(|member| member.session.as_ref()).is_none_or(|old| old.session != id);
        if is_new {
            effects.note(format!("{node} ({}) is here with {} slots", session.offer.label, session.offer.slots));
        }
        self.open(session);
        self.has_news = true;
        let Some(opening) = self.openings.get(&node).filter(|opening| opening.incarnation <= incarnation).cloned()
        else {
            return;
        };
        self.openings.remove(&node);
        if is_new && opening.incarnation == incarnation {
            self.say(node, ToWorker::Welcome { epoch: self.epoch, session: id, ttl, sent: opening.sent }, effects);
        }
    }

    /// A renewal counts when it is applied. The one that was asked for after this entry was stamped is answered by a later
    /// entry.
    fn on_renewed(&mut self, session: SessionId, deadline: ClusterTime, effects: &mut Effects) {
        let Some(&node) = self.sessions.get(&session) else { return };
        let Some(member) = self.crew.get_mut(&node) else { return };
        let Some(own) = member.session.as_mut() else { return };
        own.deadline = deadline;
        let ttl = own.ttl;
        if let Some(asked) = member.proposed.take_if(|asked| deadline >= asked.at + ttl) {
            self.say(node, ToWorker::Welcome { epoch: self.epoch, session, ttl, sent: asked.sent }, effects);
        }
    }

    fn on_node_ended(&mut self, session: SessionId) {
        self.endings.remove(&session);
        let Some(node) = self.sessions.remove(&session) else { return };
        if let Some(member) = self.crew.get_mut(&node)
            && member.session.as_ref().is_some_and(|own| own.session == session)
        {
            member.session = None;
            member.asked = None;
            member.proposed = None;
        }
        self.forget_if_nothing(node);
    }

    // ---- what follows ----

    fn propose_renewals(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        if self.renew_at.is_none_or(|at| now < at) {
            return;
        }
        self.renew_at = None;
        let mut sessions = Vec::new();
        for member in self.crew.values_mut() {
            let Some(session) = &member.session else { continue };
            // While one is on its way, the next one waits for its answer, so that no answer is taken for the other's.
            if member.proposed.is_none() {
                member.proposed = member.asked.take();
                sessions.extend(member.proposed.map(|_| session.session));
            } else if member.asked.is_some() {
                self.renew_at = Some(now + self.profile.heartbeat);
            }
        }
        if !sessions.is_empty() {
            commands.push(Command::Renew { sessions });
        }
    }

    /// Attempts that have lasted too long and did not report are taken back.
    fn note_late(&mut self, now: Nanos) {
        let time = self.clock.time(now);
        while let Some(&(due, task, fence)) = self.due.first()
            && due <= time
        {
            let is_judged_soon = self.finishes.get(&(task, fence)).is_some();
            if !is_judged_soon && !self.releases.insert((task, fence), ReleaseCause::TimedOut) {
                // Taken back for another cause already, or too much is under way: then it is late a moment longer.
                if self.releases.get(&(task, fence)).is_none() {
                    break;
                }
            }
            self.due.pop_first();
        }
    }

    fn propose_noted(&mut self, commands: &mut Vec<Command>) {
        let ttl = self.profile.session;
        commands.extend(
            self.endings
                .take_fresh()
                .map(|(session, &cause)| Command::Master(MasterCommand::EndNode { session, cause })),
        );
        commands.extend(self.openings.take_fresh().map(|(node, opening)| {
            let Opening { incarnation, offer, .. } = opening.clone();
            Command::Master(MasterCommand::OpenNode { node, incarnation, offer, ttl })
        }));
        commands.extend(self.finishes.take_fresh().map(|((task, fence), (_, outcome))| {
            Command::Master(MasterCommand::Finish { task, fence, outcome: outcome.clone() })
        }));
        commands.extend(
            self.releases
                .take_fresh()
                .map(|((task, fence), &cause)| Command::Master(MasterCommand::Release { task, fence, cause })),
        );
    }

    fn propose_expiry(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        let time = self.clock.time(now);
        if time > self.next_expiry && now >= self.expire_after {
            self.expire_after = now + self.profile.election_timeout;
            commands.push(Command::Expire { before: time });
        }
    }

    fn propose_placements(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        let time = self.clock.time(now);
        self.has_news |= self.board.wake(time);
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        let reserved: usize = self.crew.values().map(|member| member.reserved.len()).sum();
        let limit = UNDER_WAY_MAX.saturating_sub(reserved);
        for placement in placement::place(&self.board, &self.crew, self.node, time, limit) {
            let Some(item) = self.board.item(placement.task) else { continue };
            let attempt = Attempt { task: placement.task, number: item.task.attempts.saturating_add(1) };
            self.board.reserve(placement.task, placement.node);
            self.crew.entry(placement.node).or_default().reserved.insert(placement.task);
            commands.push(Command::Master(MasterCommand::Assign { attempt, session: placement.session }));
        }
    }

    fn say_here(&mut self, now: Nanos, effects: &mut Effects) {
        if now < self.here_at {
            return;
        }
        self.here_at = now + self.profile.renewal;
        for (&node, member) in &self.crew {
            if member.is_linked && member.greeted.is_none() {
                effects.send(node, ToWorker::Here { epoch: self.epoch });
            }
        }
    }

    /// Dispatches a granted attempt if its worker can hear of it now; otherwise its next hello asks for it.
    fn dispatch(&mut self, task: TaskId, effects: &mut Effects) {
        let Some((record, grant, _)) = self.board.granted(task) else { return };
        let can_hear = self.crew.get(&grant.node).is_some_and(|member| member.can_hear_of(grant.session));
        let is_over = self.releases.get(&(task, grant.fence)).is_some();
        if !can_hear || is_over {
            return;
        }
        let message = ToWorker::Dispatch {
            epoch: self.epoch,
            grant: Grant {
                attempt: Attempt { task, number: grant.number },
                fence: grant.fence,
                session: grant.session,
                kind: record.kind.clone(),
                payload: record.payload.clone(),
                delivery: record.delivery,
                timeout: record.timeout,
                once_key: record.once_key.clone(),
            },
        };
        self.board.tell(task, Told::OnThisLink);
        effects.send(grant.node, message);
    }

    /// The grant of a task is over: its slot is free, and a worker that may still run it is told to stop.
    fn end_grant(&mut self, task: TaskId, effects: &mut Effects) {
        self.unreserve(task);
        let Some((record, grant, told)) = self.board.granted(task) else { return };
        self.due.remove(&(self.due_time(&grant, record.timeout), task, grant.fence));
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

    fn take_back_from_the_dead(&mut self, task: TaskId, fence: Fence) {
        let Some((record, _, told)) = self.board.granted(task) else { return };
        if record.delivery == Delivery::AtLeastOnce {
            // What it never heard of, it did not die of.
            let cause = if told == Told::Never { ReleaseCause::HandedBack } else { ReleaseCause::Evidence };
            self.releases.insert((task, fence), cause);
        }
    }

    /// Notes a grant in the books of its worker.
    fn hold(&mut self, task: TaskId, grant: &Assigned, timeout: Duration) {
        self.crew.entry(grant.node).or_default().grants.insert(grant.fence, task);
        if !timeout.is_zero() {
            self.due.insert((self.due_time(grant, timeout), task, grant.fence));
        }
    }

    /// When a grant has lasted too long: the worker's own clock stops it first, a heartbeat earlier.
    fn due_time(&self, grant: &Assigned, timeout: Duration) -> ClusterTime {
        grant.since + timeout + self.profile.heartbeat
    }

    fn open(&mut self, session: NodeSession) {
        self.sessions.insert(session.session, session.node);
        let member = self.crew.entry(session.node).or_default();
        if let Some(old) = member.session.replace(session)
            && member.session.as_ref().is_some_and(|new| new.session != old.session)
        {
            self.sessions.remove(&old.session);
            member.asked = None;
            member.proposed = None;
        }
    }

    fn relink(&mut self, node: NodeId, is_linked: bool) {
        let member = self.crew.entry(node).or_default();
        member.relink(is_linked);
        let grants: Vec<(Fence, TaskId)> = member.grants.iter().map(|(&fence, &task)| (fence, task)).collect();
        for (fence, task) in grants {
            match self.board.granted(task) {
                Some((_, _, Told::OnThisLink)) => self.board.tell(task, Told::Earlier),
                Some((_, _, Told::Never)) if !is_linked => self.take_back_unheard(task, fence),
                _ => {}
            }
        }
        self.forget_if_nothing(node);
    }

    fn forget_if_nothing(&mut self, node: NodeId) {
        if let Some(member) = self.crew.get(&node)
            && !member.is_linked
            && member.session.is_none()
            && member.load() == 0
        {
            self.crew.remove(&node);
        }
    }

    /// Gives up the reservation of a task; says whether there was one.
    fn unreserve(&mut self, task: TaskId) -> bool {
        let Some(Stage::Reserved(node)) = self.board.item(task).map(|item| item.stage) else { return false };
        self.crew.get_mut(&node).is_some_and(|member| member.reserved.remove(&task))
    }

    /// Says something to a node that can be spoken to. What is lost otherwise comes again after its next hello.
    fn say(&self, node: NodeId, message: ToWorker, effects: &mut Effects) {
        if self.crew.get(&node).is_some_and(|member| member.is_linked) {
            effects.send(node, message);
        }
    }

    fn has_fresh(&self) -> bool {
        self.has_news
            || self.openings.has_fresh()
            || self.releases.has_fresh()
            || self.finishes.has_fresh()
            || self.endings.has_fresh()
    }
}

/// The granularity of cluster time: what ends at a time has ended when the clock shows a later one.
const TICK: Duration = Duration::from_millis(1);
