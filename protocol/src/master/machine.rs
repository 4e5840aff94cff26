//! The master at work in one epoch.
//!
//! Every handler only takes note; [`Master::decide`] runs at the end of every step and turns what was noted into one
//! proposal. What is noted about nodes stands in `sessions`, what is noted about tasks in `attempts`.
//!
//! # Invariants
//!
//! * Nothing is proposed twice while its first proposal may still be on its way, unless that was dropped.
//! * After a dropped proposal nothing is proposed for a heartbeat: a log that is full is not pushed. What is dropped meanwhile makes
//!   that no longer, else a log that stays full would silence the master.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::board::Board;
use super::board::Told;
use super::clock::Clock;
use super::crew::{Member, Opening, Report};
use super::decisions::{Decisions, UNDER_WAY_MAX};
use super::message::{Coming, ToWorker};
use super::placement;
use crate::effects::{Effects, Local};
use crate::profile::Profile;
use crate::replica;
use crate::state::limits::COMMAND_BYTES;
use crate::state::{Begun, ClusterChange, Command, Host, MasterCommand, MasterView, Outcome, ReleaseCause, Ticket};
use crate::types::{Attempt, ClusterTime, Epoch, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};
use crate::wire::MAX_COMMAND;
use crate::worker::ToMaster;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Master {
    pub(super) node: NodeId,
    pub(super) profile: Profile,
    pub(super) epoch: Epoch,
    pub(super) clock: Clock,
    pub(super) board: Board,
    pub(super) crew: BTreeMap<NodeId, Member>,
    pub(super) sessions: BTreeMap<SessionId, NodeId>,
    /// Sessions to open.
    pub(super) openings: Decisions<NodeId, Opening>,
    /// Attempts to take back.
    pub(super) releases: Decisions<(TaskId, Fence), ReleaseCause>,
    /// Results to be judged, and whom to tell.
    pub(super) finishes: Decisions<(TaskId, Fence), (NodeId, Outcome)>,
    /// Sessions of those who said goodbye, and what they had begun.
    pub(super) endings: Decisions<SessionId, Begun>,
    /// Runs that seem to be dead, whose client sessions may not have heard of it.
    pub(super) releasing: Decisions<Host, ()>,
    /// Grants on their way to tasks that have no id yet, and to whom.
    pub(super) tickets: BTreeMap<Ticket, NodeId>,
    /// When attempts have run for too long.
    pub(super) due: BTreeSet<(ClusterTime, TaskId, Fence)>,
    pub(super) next_expiry: ClusterTime,
    /// No `Expire` before this: one is on its way.
    pub(super) expire_after: Nanos,
    /// When gathered renewals go into one entry.
    pub(super) renew_at: Option<Nanos>,
    /// When "I am the master" is said again to those who have not answered.
    pub(super) here_at: Nanos,
    /// Nothing is proposed before this.
    pub(super) hold_until: Nanos,
    /// Whether a task or a slot has become free since tasks were placed last.
    pub(super) has_news: bool,
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
            releasing: Decisions::default(),
            tickets: BTreeMap::new(),
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
                master.hold(task.id, &grant, task.spec.timeout);
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
        node: NodeId,
        incarnation: Incarnation,
        message: ToMaster,
        effects: &mut Effects,
    ) {
        match message {
            ToMaster::Hello { epoch, offer, held, sent } if epoch == self.epoch => {
                self.on_hello(now, &Report { node, incarnation, held, sent }, offer, effects);
            }
            ToMaster::Renew { epoch, session, held, seen, sent } if epoch == self.epoch => {
                self.on_renew(now, &Report { node, incarnation, held, sent }, session, seen, effects);
            }
            ToMaster::Hello { .. } | ToMaster::Renew { .. } => {}
            ToMaster::Finish { task, fence, outcome } => {
                let bytes = outcome.size();
                // A worker of ours says nothing larger.
                if bytes <= MAX_RESULT {
                    self.finishes.insert_sized((task, fence), (node, outcome), bytes);
                }
            }
            ToMaster::HandBack { task, fence, never_started } => self.on_hand_back(node, task, fence, never_started),
            ToMaster::Goodbye { session, begun } => self.on_goodbye(node, session, begun),
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

    /// Grants what is about to be recorded, as far as there is room: the entry waits for the answer, whatever it is.
    pub(super) fn on_submitting(&mut self, now: Nanos, mut coming: Vec<Coming>, effects: &mut Effects) {
        let mut commands = Vec::new();
        // A request that came twice is in the entry twice and counts once.
        coming.retain(|task| !self.tickets.contains_key(&task.ticket));
        coming.sort_by_key(|task| Reverse(task.priority));
        coming.truncate(UNDER_WAY_MAX.saturating_sub(self.tickets.len()));
        if now >= self.hold_until {
            let time = self.clock.time(now);
            for (ticket, node, session) in placement::place_coming(&self.board, &self.crew, self.node, time, coming) {
                self.tickets.insert(ticket, node);
                self.crew.entry(node).or_default().expected += 1;
                commands.push(Command::Master(MasterCommand::AssignSubmitted { ticket, session }));
            }
        }
        effects.local.push(Local::Replica(replica::Input::Placed { epoch: self.epoch, commands }));
    }

    /// Proposals were not taken: everything under way is decided again, a little later.
    pub(super) fn on_dropped(&mut self, now: Nanos) {
        if now >= self.hold_until {
            self.hold_until = now + self.profile.heartbeat;
        }
        self.openings.forget_proposals();
        self.releases.forget_proposals();
        self.finishes.forget_proposals();
        self.endings.forget_proposals();
        self.releasing.forget_proposals();
        self.expire_after = now;
        self.tickets.clear();
        let time = self.clock.time(now);
        for member in self.crew.values_mut() {
            member.expected = 0;
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
        self.propose_noted(now, &mut commands);
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
            ClusterChange::Redeemed { ticket } => {
                if let Some(node) = self.tickets.remove(&ticket)
                    && let Some(member) = self.crew.get_mut(&node)
                {
                    member.expected -= 1;
                    self.has_news = true;
                    self.forget_if_nothing(node);
                }
            }
            ClusterChange::NodeOpened(session) => self.on_node_opened(*session, effects),
            ClusterChange::NotOpened { node, why } => {
                self.say(node, ToWorker::Refused { epoch: self.epoch, why }, effects);
            }
            ClusterChange::Renewed(renewed) => {
                for (session, deadline) in renewed {
                    self.on_renewed(session, deadline, effects);
                }
            }
            ClusterChange::NodeEnded { session, .. } => self.on_node_ended(session),
            ClusterChange::ClientEnded { .. } | ClusterChange::Key(_) => {}
            ClusterChange::Released { host } => drop(self.releasing.remove(&host)),
            ClusterChange::Right(_) => {}
            ClusterChange::NextExpiry(time) => {
                self.next_expiry = time;
                self.expire_after = now;
            }
        }
    }

    fn propose_noted(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        let ttl = self.profile.session;
        // Results come first: nothing in the same entry takes away the right under which they came, and so all of them do where anything
        // might.
        let finish = |((task, fence), (_, outcome)): (_, &(NodeId, Outcome))| {
            Command::Master(MasterCommand::Finish { task, fence, outcome: outcome.clone() })
        };
        if self.takes_rights_away(now) {
            commands.extend(self.finishes.take_all_fresh().map(finish));
        } else {
            commands.extend(self.finishes.take_fresh().map(finish));
        }
        commands.extend(
            self.releases
                .take_fresh()
                .map(|((task, fence), &cause)| Command::Master(MasterCommand::Release { task, fence, cause })),
        );
        commands.extend(
            self.endings
                .take_fresh()
                .map(|(session, begun)| Command::Master(MasterCommand::EndNode { session, begun: begun.clone() })),
        );
        commands
            .extend(self.releasing.take_fresh().map(|(host, ())| Command::Master(MasterCommand::EndReleased(host))));
        commands.extend(self.openings.take_fresh().map(|(node, opening)| {
            let Opening { incarnation, offer, .. } = opening.clone();
            Command::Master(MasterCommand::OpenNode { node, incarnation, offer, ttl })
        }));
    }

    /// Whether the next proposal ends rights under which results may have come.
    fn takes_rights_away(&self, now: Nanos) -> bool {
        self.releases.has_fresh()
            || self.endings.has_fresh()
            || self.releasing.has_fresh()
            || self.openings.has_fresh()
            || (self.is_expiry_due(now) && self.ends_a_session(now))
    }

    /// Whether a worker's session is over by now.
    fn ends_a_session(&self, now: Nanos) -> bool {
        let time = self.clock.time(now);
        self.crew.values().filter_map(|member| member.session.as_ref()).any(|session| session.deadline < time)
    }

    fn propose_expiry(&mut self, now: Nanos, commands: &mut Vec<Command>) {
        if self.is_expiry_due(now) {
            self.expire_after = now + self.profile.election_timeout;
            commands.push(Command::Expire { before: self.clock.time(now) });
        }
    }

    fn is_expiry_due(&self, now: Nanos) -> bool {
        self.clock.time(now) > self.next_expiry && now >= self.expire_after
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

    fn has_fresh(&self) -> bool {
        self.has_news
            || self.openings.has_fresh()
            || self.releases.has_fresh()
            || self.finishes.has_fresh()
            || self.endings.has_fresh()
            || self.releasing.has_fresh()
    }
}

/// How large an outcome may be for the log to carry it, in bytes.
const MAX_RESULT: usize = MAX_COMMAND - COMMAND_BYTES;

/// The granularity of cluster time: what ends at a time has ended when the clock shows a later one.
const TICK: Duration = Duration::from_millis(1);
