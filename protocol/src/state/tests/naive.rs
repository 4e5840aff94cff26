//! The same rules once more, slowly: lists instead of indexes, copies instead of hashes.
//!
//! Nothing here is clever, so that it can be checked against the rules by reading. It keeps every line of history and every
//! attempt for ever, counts by counting, and finds out whether a command changed something by comparing everything with a
//! copy. Only the bounds on what may be stored and the draw of a retry's wait are shared with the real state.

use std::time::Duration;

use bytes::Bytes;

use super::naive_rights::NaiveRights;
use crate::state::limits::{check_batch, check_offer, check_ttl};
use crate::state::tasks::backoff;
use crate::state::*;
use crate::types::*;

/// Everything, as lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Naive {
    pub(super) time: ClusterTime,
    pub(super) revision: u64,
    pub(super) content: Content,
    /// The changes of keys in the last command.
    pub(super) told: Vec<KeyChange>,
}

/// What a revision stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) clients: Vec<Client>,
    pub(super) nodes: Vec<NodeSession>,
    pub(super) tasks: Vec<Task>,
    pub(super) keys: Vec<(String, Value)>,
    pub(super) rights: NaiveRights,
    last_task: u64,
    results_recorded: u64,
    results_refused: u64,
    attempts: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Client {
    pub(super) id: SessionId,
    ttl: Duration,
    deadline: ClusterTime,
    pub(super) about: About,
    pub(super) first_incomplete: Seq,
    pub(super) replies: Vec<(Seq, Answer)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) id: TaskId,
    spec: TaskSpec,
    pub(super) state: TaskState,
    submitted: ClusterTime,
    failures: u32,
    deaths: u32,
    pub(super) past: Vec<(Fence, Fate)>,
    history: Vec<HistoryLine>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Held,
    Judged,
    TakenBack,
    Refused,
}

pub(super) type Outcomes = Result<Answer, Refused>;

impl Naive {
    pub(super) fn apply(&mut self, time: ClusterTime, command: &Command) -> Answer {
        self.time = self.time.max(time);
        self.told.clear();
        let before = self.clone();
        let answer = match command {
            Command::Register { ttl } => self.register(*ttl, &About::default()),
            Command::Client { session, seq, first_incomplete, operation } => {
                self.request(*session, *seq, *first_incomplete, operation)
            }
            Command::Renew { sessions } => {
                let live = self.sessions();
                sessions.iter().for_each(|&session| self.renew(session));
                Ok(Answer::Renewed { ended: sessions.iter().copied().filter(|id| !live.contains(id)).collect() })
            }
            &Command::Heard { session, first_incomplete } => {
                self.hear(session, first_incomplete);
                Ok(Answer::Ok)
            }
            Command::Expire { before } => self.expire((*before).min(self.time)),
            Command::Master(command) => self.decide(command),
        };
        self.count_change(&before);
        answer.unwrap_or_else(Answer::Refused)
    }

    pub(super) fn begin_epoch(&mut self, time: ClusterTime) {
        self.time = self.time.max(time);
        self.told.clear();
        let before = self.clone();
        self.sessions().into_iter().for_each(|session| self.renew(session));
        self.count_change(&before);
    }

    fn count_change(&mut self, before: &Self) {
        if self.content != before.content && self.revision == before.revision {
            self.revision += 1;
        }
    }

    pub(super) fn grant(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn register(&mut self, ttl: Duration, about: &About) -> Outcomes {
        check_ttl(ttl)?;
        let invalid = |why: &str| Err(Refused::Invalid(why.into()));
        if about.fast_release && about.host.is_none() {
            return invalid("only a session that a node hosts can be released on evidence");
        }
        let newer = |host: Host| {
            self.content.nodes.iter().any(|run| run.node == host.node && run.incarnation > host.incarnation)
        };
        if about.host.is_some_and(newer) {
            return invalid("the run that hosts the session is over");
        }
        let id = SessionId(self.grant());
        let deadline = self.time + ttl;
        let about = about.clone();
        self.content.clients.push(Client { id, ttl, deadline, about, first_incomplete: Seq(1), replies: Vec::new() });
        Ok(Answer::Registered(id))
    }

    fn hear(&mut self, id: SessionId, first: Seq) {
        if let Some(client) = self.content.clients.iter_mut().find(|client| client.id == id) {
            client.first_incomplete = client.first_incomplete.max(first);
            let first = client.first_incomplete;
            client.replies.retain(|(seq, _)| *seq >= first);
        }
    }

    fn request(&mut self, id: SessionId, seq: Seq, first: Seq, operation: &Operation) -> Outcomes {
        self.hear(id, first);
        let client = self.content.clients.iter_mut().find(|client| client.id == id).ok_or(Refused::SessionExpired)?;
        let first = client.first_incomplete;
        if seq < first {
            return Err(Refused::Stale(seq));
        }
        if let Some((_, answer)) = client.replies.iter().find(|(kept, _)| *kept == seq) {
            return Ok(answer.clone());
        }
        if u128::from(seq.0) >= u128::from(first.0) + 512 {
            return Err(Refused::Busy);
        }
        if *operation == Operation::Close {
            self.end_client(id);
            return Ok(Answer::Ok);
        }
        let answer = self.execute(operation).unwrap_or_else(Answer::Refused);
        if let Some(client) = self.content.clients.iter_mut().find(|client| client.id == id) {
            client.replies.push((seq, answer.clone()));
        }
        Ok(answer)
    }

    fn execute(&mut self, operation: &Operation) -> Outcomes {
        match operation {
            Operation::Submit(specs) => {
                check_batch(specs)?;
                Ok(Answer::Submitted(specs.iter().map(|spec| self.submit(spec)).collect()))
            }
            Operation::Cancel { task, reason } => {
                let (grant, state) = (self.grant_of(*task), self.task(*task).ok_or(Refused::NotFound)?.state.clone());
                if state.is_final() {
                    return Err(Refused::Ended);
                }
                if let Some(grant) = grant {
                    self.set_fate(*task, grant.fence, Fate::TakenBack);
                }
                self.note(*task, grant.map_or(0, |grant| grant.number), HistoryEvent::Cancelled);
                self.set(*task, TaskState::Cancelled { reason: reason.clone(), at: self.time });
                Ok(Answer::Task(Box::new(self.view(*task).unwrap())))
            }
            Operation::Put(put) => self.put(put),
            Operation::Delete(delete) => self.delete(delete),
            Operation::Transact(transaction) => self.transact(transaction),
            Operation::Right(operation) => {
                if let RightOperation::Claim(claim) = operation {
                    self.require(claim.session)?;
                }
                self.right(operation)
            }
            Operation::Counter(operation) => self.count(operation),
            Operation::Close => panic!("closed before"),
            Operation::OpenSession(opening) => self.register(opening.ttl, &opening.about),
            Operation::EndSession { session, .. } => {
                self.require(*session)?;
                self.end_client(*session);
                Ok(Answer::Ok)
            }
            Operation::Roster(_) => panic!("the roster has tests of its own"),
        }
    }

    fn submit(&mut self, spec: &TaskSpec) -> Submitted {
        let same_key = |task: &&Task| spec.once_key.is_some() && task.spec.once_key == spec.once_key;
        if let Some(task) = self.content.tasks.iter().find(same_key) {
            return Submitted { task: task.id, fresh: false };
        }
        self.grant();
        self.content.last_task += 1;
        let id = TaskId(self.content.last_task);
        let state = TaskState::Pending { not_before: self.time };
        let (spec, submitted) = (spec.clone(), self.time);
        self.content.tasks.push(Task {
            id,
            spec,
            state,
            submitted,
            failures: 0,
            deaths: 0,
            past: Vec::new(),
            history: Vec::new(),
        });
        Submitted { task: id, fresh: true }
    }

    fn expire(&mut self, time: ClusterTime) -> Outcomes {
        self.content.tasks.retain(|task| task.end().is_none_or(|end| end > time));
        self.content.rights.marks.retain(|(.., until)| *until > time);
        for node in self.content.nodes.clone() {
            if node.deadline <= time {
                self.end_node(node.session, |_| ReleaseCause::SessionEnded);
            }
        }
        let mut over: Vec<_> = self.content.clients.iter().filter(|client| client.deadline <= time).cloned().collect();
        over.sort_by_key(|client| (client.deadline, client.id));
        over.into_iter().for_each(|client| self.end_client(client.id));
        self.expire_keys(time);
        Ok(Answer::Ok)
    }

    fn end_hosted(&mut self, is_meant: impl Fn(&About, Incarnation) -> bool) {
        let run = |client: &Client| client.about.host.map_or(Incarnation(0), |host| host.incarnation);
        let mut clients = self.content.clients.clone();
        clients.sort_by_key(|client| (run(client), client.id));
        for client in clients {
            if is_meant(&client.about, run(&client)) {
                self.end_client(client.id);
            }
        }
    }

    fn end_client(&mut self, session: SessionId) {
        self.content.clients.retain(|client| client.id != session);
        let revision = self.grant();
        self.end_keys_of(session, Revision(revision));
        self.end_claims(session);
    }

    fn require(&self, session: SessionId) -> Result<(), Refused> {
        let lives = self.content.clients.iter().any(|client| client.id == session);
        lives.then_some(()).ok_or(Refused::NoSession(session))
    }

    fn decide(&mut self, command: &MasterCommand) -> Outcomes {
        match command {
            MasterCommand::OpenNode { node, incarnation, offer, ttl } => {
                check_offer(offer)?;
                check_ttl(*ttl)?;
                let (node, incarnation, ttl) = (*node, *incarnation, *ttl);
                if let Some(known) = self.content.nodes.iter().find(|known| known.node == node).cloned() {
                    if known.incarnation > incarnation {
                        return Err(Refused::SessionExpired);
                    }
                    if known.incarnation == incarnation {
                        let now = self.time;
                        let open = self.content.nodes.iter_mut().find(|known| known.node == node).unwrap();
                        (open.offer, open.ttl, open.deadline) = (offer.clone(), ttl, open.deadline.max(now + ttl));
                        return Ok(Answer::Registered(known.session));
                    }
                    self.end_node(known.session, |_| ReleaseCause::SessionEnded);
                }
                self.end_hosted(|about, run| about.host.is_some_and(|host| host.node == node && run < incarnation));
                let (session, deadline) = (SessionId(self.grant()), self.time + ttl);
                let offer = offer.clone();
                self.content.nodes.push(NodeSession { node, incarnation, session, offer, ttl, deadline });
                Ok(Answer::Registered(session))
            }
            MasterCommand::EndReleased(host) => {
                let is_meant =
                    |about: &About, run| about.host.is_some_and(|own| own.node == host.node && run <= host.incarnation);
                self.end_hosted(|about, run| about.fast_release && is_meant(about, run));
                Ok(Answer::Ok)
            }
            MasterCommand::EndNode { session, begun } => {
                self.node(*session).ok_or(Refused::SessionExpired)?;
                self.end_node(*session, |fence| {
                    let has_begun = fence <= begun.through || begun.fences.contains(&fence);
                    if has_begun { ReleaseCause::NotHeld } else { ReleaseCause::HandedBack }
                });
                Ok(Answer::Ok)
            }
            MasterCommand::Assign { attempt, session } => self.assign(*attempt, *session),
            MasterCommand::AssignSubmitted { ticket, session } => {
                let client = self.content.clients.iter().find(|client| client.id == ticket.client);
                let answer = client.and_then(|client| client.replies.iter().find(|(seq, _)| *seq == ticket.seq));
                let Some((_, Answer::Submitted(tasks))) = answer else { return Err(Refused::NotFound) };
                match tasks.get(ticket.place as usize) {
                    Some(Submitted { task, fresh: true }) => self.assign(Attempt { task: *task, number: 1 }, *session),
                    _ => Err(Refused::NotFound),
                }
            }
            MasterCommand::Release { task, fence, cause } => {
                let found = self.task(*task).ok_or(Refused::NotFound)?;
                if found.state.is_final() {
                    return Err(Refused::Ended);
                }
                let at_most_once = found.spec.delivery == Delivery::AtMostOnce;
                let current = self.grant_of(*task).map_or(0, |grant| grant.fence.0);
                let refused = *cause == ReleaseCause::SessionEnded || *cause == ReleaseCause::Evidence && at_most_once;
                if current != fence.0 || refused {
                    return Err(Refused::Conflict { current: Revision(current) });
                }
                self.take_back(*task, *cause);
                Ok(Answer::Ok)
            }
            MasterCommand::Finish { task, fence, outcome } => self.finish(*task, *fence, outcome),
        }
    }

    fn assign(&mut self, attempt: Attempt, session: SessionId) -> Outcomes {
        let node = self.node(session).ok_or(Refused::SessionExpired)?.node;
        let task = self.task(attempt.task).ok_or(Refused::NotFound)?;
        if task.state.is_final() {
            return Err(Refused::Ended);
        }
        let ready = matches!(task.state, TaskState::Pending { not_before } if not_before <= self.time);
        if !ready || task.past.len() as u32 + 1 != attempt.number {
            let current = Revision(self.grant_of(attempt.task).map_or(0, |grant| grant.fence.0));
            return Err(Refused::Conflict { current });
        }
        let (number, fence, since) = (attempt.number, Fence(self.grant()), self.time);
        self.content.attempts += 1;
        self.task_mut(attempt.task).past.push((fence, Fate::Held));
        self.note(attempt.task, number, HistoryEvent::Assigned(node));
        self.set(attempt.task, TaskState::Assigned { number, fence, node, session, since });
        Ok(Answer::Ok)
    }

    fn finish(&mut self, id: TaskId, fence: Fence, outcome: &Outcome) -> Outcomes {
        let task = self.task(id).ok_or(Refused::NotFound)?;
        let is_final = task.state.is_final();
        let place = task.past.iter().position(|(past, _)| *past == fence);
        let current = Revision(self.grant_of(id).map_or(0, |grant| grant.fence.0));
        let refused = if is_final { Refused::Ended } else { Refused::Conflict { current } };
        let Some(place) = place else { return Err(refused) };
        let number = place as u32 + 1;
        match task.past[place].1 {
            Fate::Judged => return Ok(Answer::Ok),
            Fate::Refused => return Err(refused),
            Fate::TakenBack => {
                self.set_fate(id, fence, Fate::Refused);
                self.note(id, number, HistoryEvent::LateResultRefused(fence));
                self.content.results_refused += 1;
                return Err(refused);
            }
            Fate::Held => self.set_fate(id, fence, Fate::Judged),
        }
        match outcome.clone() {
            Outcome::Done { output, effects } => {
                if let Err(message) = self.write_all(&effects) {
                    self.note(id, number, HistoryEvent::Failed(message.clone()));
                    self.fail(id, number, false, message, Bytes::new());
                    return Ok(Answer::Ok);
                }
                self.content.results_recorded += 1;
                self.note(id, number, HistoryEvent::Done);
                self.set(id, TaskState::Done { output, at: self.time });
            }
            Outcome::Failed { message, retry, output } => {
                self.note(id, number, HistoryEvent::Failed(message.clone()));
                self.fail(id, number, retry, message, output);
            }
        }
        Ok(Answer::Ok)
    }

    fn fail(&mut self, id: TaskId, number: u32, retry: bool, message: String, output: Bytes) {
        let at = self.time;
        let task = self.task_mut(id);
        task.failures += 1;
        if retry && task.failures <= task.spec.retries {
            let wait = backoff(Attempt { task: id, number }, task.failures, task.spec.backoff);
            return self.set(id, TaskState::Pending { not_before: at + wait });
        }
        self.set(id, TaskState::Failed { message, output, at });
    }

    fn end_node(&mut self, session: SessionId, cause: impl Fn(Fence) -> ReleaseCause) {
        self.content.nodes.retain(|node| node.session != session);
        for task in self.content.tasks.clone() {
            if let Some(grant) = self.grant_of(task.id).filter(|grant| grant.session == session) {
                self.take_back(task.id, cause(grant.fence));
            }
        }
    }

    fn take_back(&mut self, id: TaskId, cause: ReleaseCause) {
        let (grant, at) = (self.grant_of(id).unwrap(), self.time);
        self.set_fate(id, grant.fence, Fate::TakenBack);
        self.note(id, grant.number, HistoryEvent::Released(cause));
        let at_most_once = self.task(id).unwrap().spec.delivery == Delivery::AtMostOnce;
        if cause == ReleaseCause::TimedOut {
            let message = format!("attempt {id}#{} ran longer than it may", grant.number);
            return self.fail(id, grant.number, true, message, Bytes::new());
        }
        if at_most_once && cause != ReleaseCause::HandedBack {
            return self.set(id, TaskState::Lost { at });
        }
        if matches!(cause, ReleaseCause::Evidence | ReleaseCause::SessionEnded) {
            self.task_mut(id).deaths += 1;
            if self.task(id).unwrap().deaths == 3 {
                let message = "its worker died in 3 attempts".into();
                return self.set(id, TaskState::Failed { message, output: Bytes::new(), at });
            }
        }
        self.set(id, TaskState::Pending { not_before: at });
    }

    fn renew(&mut self, session: SessionId) {
        let now = self.time;
        for client in self.content.clients.iter_mut().filter(|client| client.id == session) {
            client.deadline = client.deadline.max(now + client.ttl);
        }
        for node in self.content.nodes.iter_mut().filter(|node| node.session == session) {
            node.deadline = node.deadline.max(now + node.ttl);
        }
    }

    fn note(&mut self, id: TaskId, attempt: u32, what: HistoryEvent) {
        let line = HistoryLine { at: self.time, attempt, what };
        self.task_mut(id).history.push(line);
    }

    fn set_fate(&mut self, id: TaskId, fence: Fence, fate: Fate) {
        self.task_mut(id).past.iter_mut().find(|(past, _)| *past == fence).unwrap().1 = fate;
    }

    fn set(&mut self, id: TaskId, state: TaskState) {
        self.task_mut(id).state = state;
    }

    fn task_mut(&mut self, id: TaskId) -> &mut Task {
        self.content.tasks.iter_mut().find(|task| task.id == id).unwrap()
    }

    pub(super) fn task(&self, id: TaskId) -> Option<&Task> {
        self.content.tasks.iter().find(|task| task.id == id)
    }

    pub(super) fn grant_of(&self, id: TaskId) -> Option<Assigned> {
        match self.task(id)?.state {
            TaskState::Assigned { number, fence, node, session, since } => {
                Some(Assigned { number, fence, node, session, since })
            }
            _ => None,
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<Value> {
        self.content.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        let clients = self.content.clients.iter().map(|client| client.id);
        clients.chain(self.content.nodes.iter().map(|node| node.session)).collect()
    }

    pub(super) fn view(&self, id: TaskId) -> Option<TaskView> {
        let task = self.task(id)?;
        Some(TaskView {
            id,
            kind: task.spec.kind.clone(),
            state: task.state.clone(),
            attempts: task.past.len() as u32,
            once_key: task.spec.once_key.clone(),
            submitted: task.submitted,
            history: task.history[task.history.len().saturating_sub(32)..].to_vec(),
        })
    }

    pub(super) fn views(&self) -> Vec<TaskView> {
        let mut ids: Vec<_> = self.content.tasks.iter().map(|task| task.id).collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| self.view(id).unwrap()).collect()
    }

    pub(super) fn next_expiry(&self) -> ClusterTime {
        let clients = self.content.clients.iter().map(|client| client.deadline);
        let nodes = self.content.nodes.iter().map(|node| node.deadline);
        let tasks = self.content.tasks.iter().filter_map(Task::end);
        let keys = self.content.keys.iter().filter_map(|(_, value)| value.expires);
        let marks = self.content.rights.marks.iter().map(|(.., until)| *until);
        clients.chain(nodes).chain(tasks).chain(keys).chain(marks).min().unwrap_or(ClusterTime::NEVER)
    }

    pub(super) fn summary(&self, hash: u64) -> Summary {
        let count =
            |test: fn(&TaskState) -> bool| self.content.tasks.iter().filter(|task| test(&task.state)).count() as u64;
        Summary {
            revision: Revision(self.revision),
            hash,
            time: self.time,
            pending: count(|state| matches!(state, TaskState::Pending { .. })),
            assigned: count(|state| matches!(state, TaskState::Assigned { .. })),
            done: count(|state| matches!(state, TaskState::Done { .. })),
            failed: count(|state| state.is_final() && !matches!(state, TaskState::Done { .. })),
            results_recorded: self.content.results_recorded,
            results_refused: self.content.results_refused,
            attempts: self.content.attempts,
            keys: self.content.keys.len() as u64,
            rights: self.content.rights.in_use(),
            sessions: self.content.clients.len() as u64,
        }
    }

    fn node(&self, session: SessionId) -> Option<&NodeSession> {
        self.content.nodes.iter().find(|node| node.session == session)
    }

    /// What is there, if it is what was expected.
    pub(super) fn expect(&self, key: &str, expect: Expect) -> Result<Option<Value>, Refused> {
        let old = self.value(key);
        let current = old.as_ref().map_or(Revision(0), |value| value.modified);
        match expect {
            Expect::Absent if old.is_some() => Err(Refused::Conflict { current }),
            Expect::Present if old.is_none() => Err(Refused::Conflict { current }),
            Expect::Revision(wanted) if wanted != current => Err(Refused::Conflict { current }),
            _ => Ok(old),
        }
    }
}

impl Task {
    /// When its record goes.
    fn end(&self) -> Option<ClusterTime> {
        match self.state {
            TaskState::Pending { .. } | TaskState::Assigned { .. } => None,
            TaskState::Done { at, .. }
            | TaskState::Failed { at, .. }
            | TaskState::Cancelled { at, .. }
            | TaskState::Lost { at } => Some(at + self.spec.keep.max(Duration::from_secs(10))),
        }
    }
}
