//! What the committed log means, applied once and followed with books that are deliberately naive.
//!
//! Every entry is applied here the moment the first node commits it. The state is the product's own, so that replicas can be
//! compared with it (I9, I12); the books beside it know nothing of that state but what commands, answers and changes say.
//!
//! # Invariants
//!
//! * Entries come in order, each once.

use std::collections::BTreeMap;

use protocol::durable::{ConfState, Entry, Genesis, Payload};
use protocol::state::{
    Answer, ClientEnd, ClusterChange, Command, Condition, CounterOperation, Delivery, MasterCommand, Operation,
    Outcome, Query, ReleaseCause, State, TaskEffect, TaskState,
};
use protocol::{Fence, Revision, SessionId, TaskId, wire};

use crate::book::{Book, Moment, Version};
use crate::rights::Rights;
use crate::sessions::Owners;

/// The log's meaning so far.
#[derive(Default)]
pub struct Oracle {
    /// The state after the last entry.
    pub state: State,
    /// The digest after each entry, beginning with the first after the genesis.
    pub digests: Vec<u64>,
    /// Every task ever recorded, by id from one.
    pub tasks: Vec<Task>,
    /// Tasks that have not ended.
    pub unfinished: usize,
    /// Which call recorded which task: the token in its payload.
    pub tokens: BTreeMap<u64, TaskId>,
    /// The keys.
    pub book: Book,
    /// Node sessions that ended in the last entry because their time was over.
    pub expired: Vec<SessionId>,
    /// Sessions that own things.
    pub owners: Owners,
    /// How many attempts were taken back by the master's decision or with their session.
    pub taken_back: usize,
    /// What the log decided, for whoever tells it; nobody else needs it.
    pub decided: Option<Vec<Decided>>,
    /// The last configuration that is committed.
    pub conf: Option<ConfState>,
    /// Who holds which right.
    pub rights: Rights,
    /// What each addition to a counter came to, and the counters themselves.
    pub additions: BTreeMap<Revision, i64>,
    counters: BTreeMap<String, i64>,
    last_fence: Fence,
}

/// One decision of the log, as a script shows it.
pub enum Decided {
    /// A decision of the master, and what became of it.
    Master(MasterCommand, Answer),
    /// A session that owns things has ended.
    Over(String, ClientEnd),
    /// A task stands like this from now on, and will for ever.
    Ended(TaskId, TaskState),
}

/// The life of one task.
pub struct Task {
    /// How often it may run.
    pub delivery: Delivery,
    /// The fences of its attempts, in order.
    pub fences: Vec<Fence>,
    /// The grant that is live.
    pub live: Option<Fence>,
    /// The grants whose results were recorded.
    pub recorded: Vec<Fence>,
    /// Whether it has ended.
    pub is_ended: bool,
    /// How often it was started, anywhere.
    pub starts: u32,
}

impl Oracle {
    /// Begins with a genesis.
    pub fn found(&mut self, genesis: &Genesis) {
        self.state.found(&genesis.voters, genesis.target);
        self.conf = Some(ConfState { voters: genesis.voters.clone(), ..ConfState::default() });
    }

    /// Applies an entry, and says what is wrong with it.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        self.expired.clear();
        let mut changes = Vec::new();
        match &entry.payload {
            Payload::Noop => self.state.begin_epoch(entry.time, &mut changes),
            Payload::Config(conf) => {
                self.state.configure(entry.time, conf, &mut changes);
                self.conf = Some(conf.clone());
            }
            Payload::Commands(bytes) => {
                let commands: Vec<Command> =
                    wire::decode(bytes, wire::MAX_MESSAGE).map_err(|error| format!("I12 unreadable entry: {error}"))?;
                for command in &commands {
                    changes.clear();
                    let (before, time) = (self.state.revision(), entry.time);
                    let named = sessions_in(command);
                    let live: Vec<SessionId> =
                        named.into_iter().filter(|session| self.state.has_session(*session)).collect();
                    let answer = self.state.apply(entry.time, command, &mut changes);
                    self.tell(command, &answer, &changes);
                    self.owners.follow(command, &answer, &changes)?;
                    let (lives, holds) =
                        (|session| live.contains(&session), |right: &_, fence| self.rights.holds(right, fence));
                    let records = self.records(command);
                    let moment = Moment { time, before, lives: &lives, holds: &holds, records };
                    self.book.follow(command, &answer, &changes, moment)?;
                    self.follow_tasks(command, &answer, &changes)?;
                    self.rights.follow(command, &answer, &changes, (before, &self.state))?;
                    for change in &changes {
                        if let ClusterChange::Key(change) = change {
                            self.rights.follow_write(change)?;
                        }
                    }
                    self.follow_counters(command, &answer, before)?;
                    self.follow_effects(command, records)?;
                }
            }
        }
        self.digests.push(self.state.digest());
        Ok(())
    }

    /// What a key holds, oldest first.
    pub fn versions(&mut self, key: &str) -> &[Version] {
        self.book.versions(key)
    }

    /// How many tasks ended `Lost`.
    pub fn lost(&self) -> usize {
        let ids = (1..=self.tasks.len() as u64).map(TaskId);
        ids.filter(|id| matches!(self.state.task_state(*id), Some(TaskState::Lost { .. }))).count()
    }

    /// A task that was recorded.
    pub fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut((id.0 as usize).checked_sub(1)?)
    }

    fn tell(&mut self, command: &Command, answer: &Answer, changes: &[ClusterChange]) {
        let Some(decided) = &mut self.decided else { return };
        if let Command::Master(command) = command {
            decided.push(Decided::Master(command.clone(), answer.clone()));
        }
        for change in changes {
            if let ClusterChange::ClientEnded { session, cause } = *change
                && let Some(name) = self.owners.label(session)
            {
                decided.push(Decided::Over(name.to_owned(), cause));
            }
            if let ClusterChange::Ended { task, .. } = change
                && let Some(state) = self.state.task_state(*task)
            {
                decided.push(Decided::Ended(*task, state.clone()));
            }
        }
    }

    fn follow_counters(&mut self, command: &Command, answer: &Answer, before: Revision) -> Result<(), String> {
        let Command::Client { operation: Operation::Counter(CounterOperation::Add(add)), .. } = command else {
            return Ok(());
        };
        let Answer::Counted(counted) = answer else { return Ok(()) };
        if counted.revision <= before {
            return Ok(()); // The remembered answer of a request that came twice, or of an addition under the same mark.
        }
        let value = self.counters.entry(add.counter.to_string()).or_default();
        *value += add.by;
        self.additions.insert(counted.revision, *value);
        if *value == counted.value { Ok(()) } else { Err(format!("I3 a counter is at {value}, told was {counted:?}")) }
    }

    /// Says whether this is the result of an attempt that holds its task.
    fn records(&self, command: &Command) -> bool {
        let Command::Master(MasterCommand::Finish { task, fence, .. }) = command else { return false };
        let place = (task.0 as usize).checked_sub(1);
        place.and_then(|place| self.tasks.get(place)).is_some_and(|task| task.live == Some(*fence))
    }

    /// I5: what a task writes is there exactly when its result was recorded, and once.
    fn follow_effects(&mut self, command: &Command, records: bool) -> Result<(), String> {
        let Command::Master(MasterCommand::Finish { task, fence, outcome: Outcome::Done { effects, .. } }) = command
        else {
            return Ok(());
        };
        for effect in effects {
            let (found, expected) = match effect {
                TaskEffect::Add { counter, by } => {
                    let value = self.counters.entry(counter.to_string()).or_default();
                    *value += by * i64::from(records);
                    let Answer::Counted(counted) = self.state.query(&Query::Counter(counter.clone())) else { continue };
                    (format!("{}", counted.value), format!("{value}"))
                }
                TaskEffect::Put { key, .. } | TaskEffect::Delete(key) => {
                    let Answer::Value { found, .. } = self.state.query(&Query::Get(key.clone())) else { continue };
                    (format!("{:?}", found.as_ref()), format!("{:?}", self.book.value(key)))
                }
            };
            if found != expected {
                return Err(format!(
                    "I5 {effect:?} of {task} under {fence}, recorded {records}: {found}, not {expected}"
                ));
            }
        }
        Ok(())
    }

    fn follow_tasks(&mut self, command: &Command, answer: &Answer, changes: &[ClusterChange]) -> Result<(), String> {
        for change in changes {
            match change {
                ClusterChange::Submitted(task) => {
                    let id = task.id;
                    let token = token(&task.spec.payload);
                    if id.0 as usize != self.tasks.len() + 1 {
                        return Err(format!("I4 {id} is not the next task"));
                    }
                    self.tasks.push(Task {
                        delivery: task.spec.delivery,
                        fences: Vec::new(),
                        live: None,
                        recorded: Vec::new(),
                        is_ended: false,
                        starts: 0,
                    });
                    self.unfinished += 1;
                    if let Some(earlier) = self.tokens.insert(token, id) {
                        return Err(format!("I3 one submission was recorded twice: as {earlier} and {id}"));
                    }
                }
                ClusterChange::Assigned { attempt, grant } => {
                    let last = self.last_fence;
                    let task = self.task(attempt.task).ok_or("I4 an unknown task was assigned")?;
                    if grant.fence <= last {
                        return Err(format!("I5 {attempt} was granted under {} after {last}", grant.fence));
                    }
                    if task.is_ended || task.live.is_some() {
                        return Err(format!("I5 {attempt} was granted though the task was not pending"));
                    }
                    task.live = Some(grant.fence);
                    task.fences.push(grant.fence);
                    self.last_fence = grant.fence;
                }
                ClusterChange::Judged { task: id, fence, recorded: true } => {
                    let task = self.task(*id).ok_or("I5 a result of an unknown task was recorded")?;
                    if task.recorded.contains(fence) {
                        continue;
                    }
                    if task.live != Some(*fence) {
                        return Err(format!("I5 a stale result counted: {id} under {fence}, live is {:?}", task.live));
                    }
                    task.recorded.push(*fence);
                }
                ClusterChange::Judged { .. } => {}
                ClusterChange::Pending { attempt, fence, .. } => {
                    let task = self.task(attempt.task).ok_or("I4 an unknown task is pending again")?;
                    let was_recorded = task.recorded.contains(fence);
                    if task.live.take() != Some(*fence) || task.is_ended {
                        return Err(format!("I5 {attempt} ended under {fence}, which was not live"));
                    }
                    if task.delivery == Delivery::AtMostOnce && !is_proven_unstarted(command, *fence) {
                        return Err(format!(
                            "I5 {attempt} may run only once, may have begun, and will be granted again"
                        ));
                    }
                    self.taken_back += usize::from(!was_recorded);
                }
                ClusterChange::Ended { task: id, fence, .. } => {
                    let task = self.task(*id).ok_or("I4 an unknown task ended")?;
                    if std::mem::replace(&mut task.is_ended, true) {
                        return Err(format!("I4 {id} ended twice"));
                    }
                    if task.live.take() != fence.map(|(_, _, fence)| fence) {
                        return Err(format!("I5 {id} ended under another grant than the live one"));
                    }
                    self.unfinished -= 1;
                    self.nothing_unstarted_is_lost(*id, command)?;
                }
                ClusterChange::NodeEnded { session, .. } => {
                    if matches!(command, Command::Expire { .. }) {
                        self.expired.push(*session);
                    }
                }
                ClusterChange::Void { .. }
                | ClusterChange::NotOpened { .. }
                | ClusterChange::Redeemed { .. }
                | ClusterChange::NodeOpened(_)
                | ClusterChange::Renewed(_)
                | ClusterChange::ClientEnded { .. }
                | ClusterChange::Released { .. }
                | ClusterChange::Key(_)
                | ClusterChange::Right(_)
                | ClusterChange::NextExpiry(_) => {}
            }
        }
        self.evidence_moves_only_what_may_run_again(command, answer)
    }

    /// F8: what may run once and never started is lost with the session of its worker, or to a newer run, and in no other way.
    fn nothing_unstarted_is_lost(&mut self, id: TaskId, command: &Command) -> Result<(), String> {
        let is_lost = matches!(self.state.task_state(id), Some(TaskState::Lost { .. }));
        let is_excused = matches!(command, Command::Expire { .. } | Command::Master(MasterCommand::OpenNode { .. }));
        let has_started = self.task(id).is_some_and(|task| task.starts > 0);
        if is_lost && !is_excused && !has_started {
            return Err(format!("I5 {id} may run only once, never started, and is lost by {command:?}"));
        }
        Ok(())
    }

    /// D5, F8: evidence of death takes back at-least-once attempts and no others.
    fn evidence_moves_only_what_may_run_again(&mut self, command: &Command, answer: &Answer) -> Result<(), String> {
        let Command::Master(MasterCommand::Release { task: id, cause: ReleaseCause::Evidence, .. }) = command else {
            return Ok(());
        };
        let delivery = self.task(*id).map(|task| task.delivery);
        if *answer == Answer::Ok && delivery == Some(Delivery::AtMostOnce) {
            return Err(format!("I5 evidence took back {id}, which may run only once"));
        }
        Ok(())
    }
}

/// Whether this says of an attempt that it never started (F8).
fn is_proven_unstarted(command: &Command, fence: Fence) -> bool {
    match command {
        Command::Master(MasterCommand::Release { cause, .. }) => *cause == ReleaseCause::HandedBack,
        Command::Master(MasterCommand::EndNode { begun, .. }) => !begun.contains(fence),
        _ => false,
    }
}

/// The sessions that a transaction asks about.
fn sessions_in(command: &Command) -> Vec<SessionId> {
    let Command::Client { operation: Operation::Transact(transaction), .. } = command else { return Vec::new() };
    let sessions = transaction.when.iter().filter_map(|condition| match condition {
        Condition::Lives(session) => Some(*session),
        _ => None,
    });
    sessions.collect()
}

/// The token of a value or payload that a simulated client made.
pub fn token(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}
