//! What the log means: sessions, tasks, keys, rights and counters.
//!
//! Every replica applies the same commands in the same order and comes to the same state. What a command may need to be
//! decided (who may run this, is this fence current, was this request executed before) is in the state; time is that of
//! the log. The master works on a copy and follows the changes that each command emits.
//!
//! # Invariants
//!
//! * State, answer and changes are a function of the commands and their times, and of nothing else (I12).
//! * A command that changes the content takes at least one revision, a command that takes none has changed nothing; every
//!   grant has one of its own (F5).
//! * Equal content, equal digest. Each part keeps its hash, counts and indexes beside its records and moves them together.
//! * Everything that clients and nodes can make grow is bounded by `limits`.

mod change;
mod clients;
mod command;
mod counters;
mod digest;
mod effects;
mod image;
mod keys;
pub mod limits;
mod nodes;
mod owners;
mod rights;
mod roster;
mod sessions;
mod tasks;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::time::Duration;

pub use change::*;
pub use command::*;
pub use counters::{Add, Counted, CounterOperation, MARK_KEEP};
pub use effects::TaskEffect;
pub(crate) use effects::check_result;
pub use image::{ImageError, Restore};
pub use owners::{About, Host, OpenSession, SessionView};
pub use rights::{
    Claim, ClaimState, Claimed, Grant, Holder, Item, Mode, RightChange, RightId, RightKind, RightLine, RightOperation,
    RightView,
};
pub use roster::{MAX_EXCLUDED, MAX_VOTERS, Roster};

use self::clients::{Admission, Clients};
use self::counters::Counters;
use self::digest::{Tag, fingerprint};
use self::effects::Metadata;
pub use self::keys::{
    Changes, Condition, Delete, Expect, KeyChange, KeyEnd, KeyEvent, KeyOperation, KeyPage, KeyResult, List, Put,
    SEQUENCE_DIGITS, Transacted, Transaction, Value, Watch,
};
use self::keys::{Ground, Keys};
use self::limits::{MAX_BYTES, MAX_ENDED_AT_ONCE, MAX_EXPIRED_AT_ONCE, MAX_OWNED};
use self::nodes::Nodes;
use self::rights::Rights;
use self::tasks::Tasks;
pub use self::tasks::{
    Delivery, HistoryEvent, HistoryLine, Outcome, ReleaseCause, Submitted, TaskSpec, TaskState, TaskView, Ticket,
};
use crate::durable::ConfState;
use crate::mutants::{Bug, is_on};
use crate::types::{Attempt, ClusterTime, Epoch, Fence, Incarnation, NodeId, Revision, Seq, SessionId, TaskId};

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    time: ClusterTime,
    revision: Revision,
    clients: Clients,
    nodes: Nodes,
    tasks: Tasks,
    keys: Keys,
    rights: Rights,
    counters: Counters,
    roster: Roster,
    /// What the master was told last. It follows from the content.
    next_expiry: Option<ClusterTime>,
}

/// What a rule may use while a command is applied.
struct Step<'a> {
    time: ClusterTime,
    revision: &'a mut Revision,
    changes: &'a mut Vec<ClusterChange>,
}

impl State {
    /// Begins with the voters of the genesis, before any entry is applied.
    pub fn found(&mut self, voters: &[NodeId], target: u8) {
        self.roster.found(voters, target);
    }

    /// Applies a configuration of the log: the roster follows it.
    pub fn configure(&mut self, time: ClusterTime, conf: &ConfState, changes: &mut Vec<ClusterChange>) {
        self.time = self.time.max(time);
        let before = (self.revision, self.content());
        self.roster.configure(conf);
        self.settle(before, changes);
    }

    /// Applies one command of an entry written at `time`. What the master must know is added to `changes`.
    pub fn apply(&mut self, time: ClusterTime, command: &Command, changes: &mut Vec<ClusterChange>) -> Answer {
        self.time = self.time.max(time);
        let before = (self.revision, self.content());
        let answer = match command {
            Command::Register { ttl } => self.register(&OpenSession { ttl: *ttl, about: About::default() }),
            Command::Client { session, seq, first_incomplete, operation } => {
                match self.clients.admit(*session, *seq, *first_incomplete) {
                    Admission::Answer(answer) => Ok(answer),
                    Admission::Execute if *operation == Operation::Close => self.close(*session, changes),
                    // Like an answer without room: nothing is kept, so that the same request is done later.
                    Admission::Execute if self.is_crowded(operation) => Ok(Answer::Refused(Refused::Busy)),
                    Admission::Execute => {
                        let answer = self.execute(operation, changes).unwrap_or_else(Answer::Refused);
                        self.clients.keep(*session, *seq, answer.clone());
                        Ok(answer)
                    }
                }
            }
            Command::Renew { sessions } => Ok(Answer::Renewed { ended: self.renew(sessions, changes) }),
            &Command::Heard { session, first_incomplete } => {
                self.clients.forget_before(session, first_incomplete);
                Ok(Answer::Ok)
            }
            Command::Expire { before } => self.expire(*before, changes),
            Command::Master(command) => self.decide(command, changes),
        };
        self.settle(before, changes);
        answer.unwrap_or_else(Answer::Refused)
    }

    /// Applies the first entry of a new epoch: every session gets a full time to live from here, because nobody could
    /// renew one while nobody led (F10).
    pub fn begin_epoch(&mut self, time: ClusterTime, changes: &mut Vec<ClusterChange>) {
        self.time = self.time.max(time);
        let before = (self.revision, self.content());
        let sessions = [self.clients.sessions().ids(), self.nodes.sessions().ids()].concat();
        self.renew(&sessions, changes);
        self.settle(before, changes);
    }

    /// What the master of this epoch begins with.
    #[must_use]
    pub fn master_view(&self, epoch: Epoch) -> MasterView {
        MasterView {
            epoch,
            time: self.time,
            tasks: self.tasks.live(),
            nodes: self.nodes.sessions().iter().map(|(id, session)| session.for_master(id)).collect(),
            next_expiry: self.next_expiry(),
        }
    }

    /// Answers a question. One that waits for the end of a task is answered at once here: waiting is up to the caller.
    #[must_use]
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Task(id) | Query::Await(id) => match self.tasks.view(*id) {
                Some(view) => Answer::Task(Box::new(view)),
                None => Answer::Refused(Refused::NotFound),
            },
            Query::Tasks { after, limit } => Answer::Tasks(self.tasks.page(*after, *limit)),
            Query::NewestTasks { before, limit } => Answer::Tasks(self.tasks.newest(*before, *limit)),
            Query::Get(key) => Answer::Value { found: self.keys.get(key).cloned(), at: self.revision },
            Query::List(list) => {
                let (entries, more) = self.keys.page(list);
                Answer::Keys(KeyPage { entries, more, at: self.revision })
            }
            Query::Watch(_) => Answer::Refused(Refused::Invalid("only a replica knows what changed".into())),
            Query::Nodes | Query::AwaitNodes { .. } => Answer::Nodes(
                self.nodes.sessions().iter().map(|(id, session)| session.view(id, self.tasks.held_by(id))).collect(),
            ),
            Query::Sessions { after, limit } => {
                let owned = |session| (self.keys.owned_by(session), self.rights.owned_by(session));
                Answer::Sessions(self.clients.page(*after, *limit, self.time, owned))
            }
            Query::Summary => Answer::Summary(self.summary()),
            Query::Right { right, after } => Answer::Right(Box::new(self.rights.view(right, *after))),
            Query::Rights { after, limit } => Answer::Rights(self.rights.page(after.as_ref(), *limit)),
            Query::AwaitRight { right, .. } => Answer::Right(Box::new(self.rights.view(right, Fence(0)))),
            Query::Claim { right, claim } | Query::AwaitClaim { right, claim } => {
                Answer::Claim(self.rights.claim_state(right, *claim))
            }
            Query::AwaitEnd { claims, .. } if claims.len() > MAX_OWNED => {
                Answer::Refused(Refused::TooLarge { len: claims.len() as u64, limit: MAX_OWNED as u64 })
            }
            Query::AwaitEnd { session, claims } => Answer::Ended(self.rights.ended(*session, claims)),
            Query::Counter(counter) => Answer::Counted(self.counters.get(counter)),
            Query::Roster => {
                Answer::Roster(Box::new(RosterView { roster: self.roster.clone(), ..RosterView::default() }))
            }
        }
    }

    /// Who shall vote.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Where a task stands, if there is a record of it.
    #[must_use]
    pub fn task_state(&self, task: TaskId) -> Option<TaskState> {
        self.tasks.state(task)
    }

    /// Says whether the backlog of tasks has no room for this: it would be refused as [`Refused::Busy`] now, and not later.
    #[must_use]
    pub fn is_crowded(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::Submit(specs) if !self.tasks.has_room(specs))
    }

    /// Says whether a node's session lives under this id.
    #[must_use]
    pub fn is_node_session(&self, session: SessionId) -> bool {
        self.nodes.sessions().get(session).is_some()
    }

    /// Says whether a request was executed whose answer is kept.
    #[must_use]
    pub fn has_answered(&self, session: SessionId, seq: Seq) -> bool {
        self.clients.answer(session, seq).is_some()
    }

    /// Says whether an answer is kept that its client says it has.
    #[must_use]
    pub fn keeps_before(&self, session: SessionId, first_incomplete: Seq) -> bool {
        self.clients.keeps_before(session, first_incomplete)
    }

    /// Says whether a client's or node's session lives.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.clients.sessions().get(session).is_some() || self.nodes.sessions().get(session).is_some()
    }

    /// The earliest time at which a session or record ends, if nothing renews it.
    #[must_use]
    pub fn next_expiry(&self) -> ClusterTime {
        self.next_expiry.unwrap_or(ClusterTime::NEVER)
    }

    /// When a client's session ends, if nothing renews it.
    #[must_use]
    pub fn session_deadline(&self, session: SessionId) -> Option<ClusterTime> {
        self.clients.sessions().get(session).map(|session| session.deadline)
    }

    /// Says whether a grant of a right is live.
    #[must_use]
    pub fn is_held(&self, right: &RightId, fence: Fence) -> bool {
        self.rights.is_held(right, fence)
    }

    /// Cluster time of the last entry applied.
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        self.time
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many bytes all that is kept takes, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tasks.bytes() + self.keys.bytes() + self.rights.bytes() + self.counters.bytes()
    }

    /// About how many bytes an image of all that takes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.tasks.image_bytes() + (self.keys.bytes() + self.rights.bytes() + self.counters.bytes()) / 2
    }

    /// The hash of everything here: equal on all replicas that applied the same entries. Costs the same whatever there is.
    #[must_use]
    pub fn digest(&self) -> u64 {
        fingerprint(Tag::Head, &(self.time, self.revision, self.tasks.head(), self.content()))
    }

    fn register(&mut self, opening: &OpenSession) -> Result<Answer, Refused> {
        self.clients.check(opening)?;
        let over = |host: Host| self.nodes.of_node(host.node).is_some_and(|(_, run)| run > host.incarnation);
        if opening.about.host.is_some_and(over) {
            return Err(Refused::Invalid("the run that hosts the session is over".into()));
        }
        self.revision = self.revision.next();
        Ok(Answer::Registered(self.clients.open(self.revision, opening, self.time)))
    }

    fn close(&mut self, session: SessionId, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        self.end_client(session, ClientEnd::Closed, changes);
        Ok(Answer::Ok)
    }

    fn end_named(
        &mut self,
        session: SessionId,
        cause: ClientEnd,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<Answer, Refused> {
        self.clients.require(session)?;
        self.end_client(session, cause, changes);
        Ok(Answer::Ok)
    }

    /// There is evidence that a run is dead: those of its sessions end that wanted no proof (F12).
    fn end_released(&mut self, host: Host, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        for (run, session) in self.clients.hosted(host.node) {
            let is_content = self.clients.is_fast_released(session) || is_on(Bug::EndsOnSuspicion);
            if is_content && run <= host.incarnation {
                self.end_client(session, ClientEnd::Evidence, changes);
            }
        }
        changes.push(ClusterChange::Released { host });
        Ok(Answer::Ok)
    }

    /// A new run is here, so all older ones of its node are dead, and with them whatever lived in their processes (F12).
    fn end_hosted(&mut self, new: Host, changes: &mut Vec<ClusterChange>) {
        for (run, session) in self.clients.hosted(new.node) {
            if run < new.incarnation {
                self.end_client(session, ClientEnd::Proven, changes);
            }
        }
    }

    /// Ends a client session: everything that it owns goes with it, under one revision.
    fn end_client(&mut self, session: SessionId, cause: ClientEnd, changes: &mut Vec<ClusterChange>) {
        if !self.clients.close(session) {
            return;
        }
        changes.push(ClusterChange::ClientEnded { session, cause });
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        let revision = step.grant();
        self.keys.end_session(session, revision, step.changes);
        self.rights.end_session(session, step);
    }

    fn execute(&mut self, operation: &Operation, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        let room = MAX_BYTES.saturating_sub(self.bytes());
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        match operation {
            Operation::Submit(specs) => self.tasks.submit(specs, room, step).map(Answer::Submitted),
            Operation::Cancel { task, reason } => self.tasks.cancel(*task, reason, step),
            Operation::Put(_) | Operation::Delete(_) | Operation::Transact(_) => self.change_keys(operation, changes),
            Operation::OpenSession(opening) => self.register(opening),
            Operation::EndSession { session, cause } => self.end_named(*session, *cause, changes),
            Operation::Close => unreachable!("the caller closes"),
            Operation::Right(operation) => {
                if let RightOperation::Claim(claim) = operation {
                    self.clients.require(claim.session)?;
                }
                self.rights.execute(operation, room, step)
            }
            Operation::Counter(operation) => self.counters.execute(operation, room, step),
            Operation::Roster(change) => {
                self.roster.change(*change)?;
                Ok(Answer::Ok)
            }
        }
    }

    fn change_keys(&mut self, operation: &Operation, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        let limit = MAX_BYTES.saturating_sub(self.bytes() - self.keys.bytes());
        let ground = Ground { time: self.time, limit, clients: &self.clients, rights: &self.rights };
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        let revision = step.upcoming();
        match operation {
            Operation::Put(put) => self.keys.put(put, revision, &ground, step.changes)?,
            Operation::Delete(delete) => self.keys.delete(delete, revision, step.changes)?,
            Operation::Transact(transaction) => {
                return self.keys.transact(transaction, &ground, step).map(Answer::Transacted);
            }
            other => unreachable!("{other:?} is about no key"),
        }
        step.grant();
        Ok(match operation {
            Operation::Put(put) if put.sequence => Answer::Sequenced { key: put.key_at(revision), revision },
            _ => Answer::Written(revision),
        })
    }

    /// Renews what lives of these, and returns the others.
    fn renew(&mut self, sessions: &[SessionId], changes: &mut Vec<ClusterChange>) -> Vec<SessionId> {
        let (mut renewed, mut ended) = (Vec::new(), Vec::new());
        for &session in sessions {
            if self.clients.renew(session, self.time).is_some() {
                continue;
            }
            match self.nodes.renew(session, self.time) {
                Some(deadline) => renewed.push((session, deadline)),
                None => ended.push(session),
            }
        }
        if !renewed.is_empty() {
            changes.push(ClusterChange::Renewed(renewed));
        }
        ended
    }

    fn expire(&mut self, before: ClusterTime, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        // Whatever the proposer's clock says, nothing ends before its time in the log.
        let time = if is_on(Bug::ExpiresEarly) { before + Duration::from_secs(2) } else { before.min(self.time) };
        // Records first: a task that ends with its session here is to be seen before it is forgotten, however short it is kept.
        (0..MAX_EXPIRED_AT_ONCE).take_while(|_| self.tasks.forget_one(time)).for_each(drop);
        (0..MAX_EXPIRED_AT_ONCE).take_while(|_| self.counters.forget_one(time)).for_each(drop);
        let most = changes.len() + MAX_ENDED_AT_ONCE;
        for _ in 0..MAX_EXPIRED_AT_ONCE {
            if changes.len() > most {
                break;
            }
            if let Some(session) = self.nodes.sessions().due(time) {
                self.end_node(session, |_| ReleaseCause::SessionEnded, changes);
            } else if let Some(session) = self.clients.sessions().due(time) {
                self.end_client(session, ClientEnd::Expired, changes);
            } else {
                break;
            }
        }
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        (0..MAX_EXPIRED_AT_ONCE).take_while(|_| self.keys.expire_one(time, step)).for_each(drop);
        // The master hears of what is next even if that has not moved, because there may be more than one step can end.
        self.announce(changes);
        Ok(Answer::Ok)
    }

    fn decide(&mut self, command: &MasterCommand, changes: &mut Vec<ClusterChange>) -> Result<Answer, Refused> {
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        let (task, result) = match command {
            MasterCommand::OpenNode { node, incarnation, offer, ttl } => {
                let result = self.open_node((*node, *incarnation), offer, *ttl, changes);
                if let Err(why) = &result {
                    changes.push(ClusterChange::NotOpened { node: *node, why: why.clone() });
                }
                return result;
            }
            MasterCommand::EndNode { session, begun } => (None, self.say_goodbye(*session, begun, changes)),
            MasterCommand::EndReleased(host) => return self.end_released(*host, changes),
            MasterCommand::Assign { attempt, session } => {
                let result = match self.nodes.sessions().get(*session) {
                    Some(run) => self.tasks.assign(*attempt, *session, run.holder.node, step),
                    None => Err(Refused::SessionExpired),
                };
                (Some(attempt.task), result.map(|()| Answer::Ok))
            }
            MasterCommand::AssignSubmitted { ticket, session } => {
                return self.assign_submitted(*ticket, *session, changes);
            }
            MasterCommand::Release { task, fence, cause } => {
                (Some(*task), self.tasks.release(*task, *fence, *cause, step).map(|()| Answer::Ok))
            }
            MasterCommand::Finish { task, fence, outcome } => {
                return Ok(self.finish(*task, *fence, outcome, changes));
            }
        };
        if result.is_err() {
            changes.push(ClusterChange::Void { task });
        }
        result
    }

    fn finish(&mut self, task: TaskId, fence: Fence, outcome: &Outcome, changes: &mut Vec<ClusterChange>) -> Answer {
        let Self { time, revision, clients, tasks, keys, rights, counters, .. } = self;
        let others = tasks.bytes() + rights.bytes();
        let metadata = &mut Metadata { keys, counters, clients, rights, others };
        tasks.finish((task, fence), outcome, metadata, &mut Step { time: *time, revision, changes })
    }

    fn assign_submitted(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<Answer, Refused> {
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        // A task that was there before (a once key) may be another one than the worker was chosen for.
        let task = match self.clients.answer(ticket.client, ticket.seq) {
            Some(Answer::Submitted(tasks)) => tasks.get(ticket.place as usize).filter(|submitted| submitted.fresh),
            _ => None,
        };
        let result = match (task, self.nodes.sessions().get(session)) {
            (Some(&Submitted { task, .. }), Some(run)) => {
                self.tasks.assign(Attempt { task, number: 1 }, session, run.holder.node, step)
            }
            (None, _) => Err(Refused::NotFound),
            (_, None) => Err(Refused::SessionExpired),
        };
        changes.push(ClusterChange::Redeemed { ticket });
        result.map(|()| Answer::Ok)
    }

    fn open_node(
        &mut self,
        run @ (node, incarnation): (NodeId, Incarnation),
        offer: &Offer,
        ttl: Duration,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<Answer, Refused> {
        self.nodes.check(node, offer, ttl)?;
        let session = match self.nodes.of_node(node) {
            Some((_, newer)) if newer > incarnation => return Err(Refused::SessionExpired),
            Some((session, same)) if same == incarnation || is_on(Bug::RunsShareSessions) => {
                self.nodes.update(session, self.time, offer, ttl);
                session
            }
            older => {
                if let Some((session, _)) = older {
                    self.end_node(session, |_| ReleaseCause::SessionEnded, changes);
                }
                self.end_hosted(Host { node, incarnation }, changes);
                self.revision = self.revision.next();
                self.nodes.open(self.revision, self.time, run, offer, ttl)
            }
        };
        let opened = self.nodes.sessions().get(session).expect("it was opened above").for_master(session);
        changes.push(ClusterChange::NodeOpened(Box::new(opened)));
        Ok(Answer::Registered(session))
    }

    fn say_goodbye(
        &mut self,
        session: SessionId,
        begun: &Begun,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<Answer, Refused> {
        self.nodes.sessions().get(session).ok_or(Refused::SessionExpired)?;
        let cause = |fence| if begun.contains(fence) { ReleaseCause::NotHeld } else { ReleaseCause::HandedBack };
        self.end_node(session, cause, changes);
        Ok(Answer::Ok)
    }

    /// Ends a node's session. What was granted under it is taken back, for a cause that may depend on the fence.
    fn end_node(
        &mut self,
        session: SessionId,
        cause: impl Fn(Fence) -> ReleaseCause,
        changes: &mut Vec<ClusterChange>,
    ) {
        let Some(node) = self.nodes.close(session) else { return };
        changes.push(ClusterChange::NodeEnded { session, node });
        let step = &mut Step { time: self.time, revision: &mut self.revision, changes };
        self.tasks.end_session(session, cause, step);
    }

    /// Ends a step: whatever changed the content takes a revision, and the master hears when the next expiry moved.
    fn settle(&mut self, (revision, content): (Revision, u64), changes: &mut Vec<ClusterChange>) {
        if self.revision == revision && self.content() != content {
            self.revision = revision.next();
        }
        if self.upcoming() != self.next_expiry {
            self.announce(changes);
        }
    }

    fn announce(&mut self, changes: &mut Vec<ClusterChange>) {
        self.next_expiry = self.upcoming();
        changes.push(ClusterChange::NextExpiry(self.next_expiry()));
    }

    fn upcoming(&self) -> Option<ClusterTime> {
        let sessions = [self.clients.sessions().next_expiry(), self.nodes.sessions().next_expiry()];
        let records = [self.tasks.next_expiry(), self.keys.next_expiry(), self.counters.next_expiry()];
        sessions.into_iter().chain(records).flatten().min()
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary {
            revision: self.revision,
            hash: self.digest(),
            time: self.time,
            keys: self.keys.len() as u64,
            rights: self.rights.len() as u64,
            sessions: self.clients.sessions().len() as u64,
            ..Summary::default()
        };
        self.tasks.count(&mut summary);
        summary
    }

    /// The sum of the hashes of all records.
    fn content(&self) -> u64 {
        [
            self.clients.digest(),
            self.nodes.digest(),
            self.tasks.digest(),
            self.keys.digest(),
            self.rights.digest(),
            self.counters.digest(),
            self.roster.digest(),
        ]
        .into_iter()
        .fold(0, u64::wrapping_add)
    }
}

impl Hash for State {
    /// Equal states have equal digests, so that a model checker need not walk through everything.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl Step<'_> {
    /// The revision that the next grant will have.
    fn upcoming(&self) -> Revision {
        self.revision.next()
    }

    /// The next revision: that of a grant.
    fn grant(&mut self) -> Revision {
        *self.revision = self.revision.next();
        *self.revision
    }
}
