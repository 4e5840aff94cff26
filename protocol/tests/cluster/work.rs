//! What clients do, and whether what they are told is true.
//!
//! The log's order is the witness of linearizability: every answer names a version of its key in that order, and a call may
//! neither answer with a version older than one that was seen before it began, nor with one that the log does not hold. What
//! was seen is written down as well, for a judge who does not know the log (`witness`).
//!
//! # Invariants
//!
//! * Every value and payload begins with the token of its call, so that each effect can be told from all others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protocol::client::{CallError, Consistency, Work};
use protocol::state::{
    self, About, Answer, ClientEnd, Delete, Delivery, Expect, OpenSession, Operation, Put, Query, Refused,
    RosterChange, TaskSpec,
};
use protocol::{Incarnation, Revision, SessionId, TaskId};

use crate::book::Version;
use crate::check::Verdict;
use crate::claims::{Asked, Claims};
use crate::dice::Dice;
use crate::host::{Host, KINDS};
use crate::keys::Watcher;
use crate::options::Options;
use crate::oracle::{Oracle, token};
use crate::travel::identity;
use crate::witness::Witness;

/// All calls of all clients.
pub struct History {
    next: u64,
    /// Calls without an answer, by number.
    pending: BTreeMap<u64, Pending>,
    /// For every key, how many versions are known to whoever was answered.
    seen: BTreeMap<String, usize>,
    /// The revisions that clients were told last.
    told: BTreeMap<String, Revision>,
    /// Sessions that were opened.
    pub(crate) sessions: Vec<SessionId>,
    /// Who watches on which host.
    pub(crate) watchers: BTreeMap<usize, Watcher>,
    /// How many changes watches were told.
    pub told_changes: usize,
    /// The newest revision that anybody was told by an answer that may miss nothing.
    pub(crate) frontier: Revision,
    /// Tasks whose submission was acknowledged.
    pub acknowledged: Vec<TaskId>,
    /// What is known of rights.
    pub(crate) claims: Claims,
    /// The tokens of writes that were certainly not done.
    pub(crate) undone: Vec<u64>,
    /// All that was seen from outside.
    pub witness: Witness,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that were given up.
    given_up: BTreeSet<u64>,
}

/// A call under way.
struct Pending {
    host: usize,
    begin: u64,
    kind: Kind,
}

/// What was asked, as far as the answer must be judged by it.
pub enum Kind {
    /// Tasks by the tokens of their payloads; with once keys it may name earlier ones.
    Submit { tokens: Vec<u64>, deliveries: Vec<Delivery>, is_once: bool },
    /// A task is cancelled.
    Cancel(TaskId),
    /// A key is written.
    Put { key: String, token: u64, expect: Expect, floor: usize },
    /// A key is removed.
    Delete { key: String, expect: Expect, floor: usize },
    /// A key is read.
    Get { key: String, floor: usize, is_stale: bool, after: Revision },
    /// A task is looked at, at once or at its end.
    Look { task: TaskId, is_awaited: bool },
    /// A key is written that goes by itself, or takes its name from its revision.
    Temporary { key: String, token: u64 },
    /// Several keys are read and written, in either branch with these tokens, after what was told at this revision.
    Transaction { tokens: [Vec<u64>; 2], after: Revision },
    /// Keys are listed.
    List { prefix: String, after: Revision },
    /// Somebody watches.
    Watch { host: usize, prefix: String, after: Revision },
    /// Who shall vote is changed.
    Roster,
    /// A session is opened.
    OpenSession {
        /// Evidence of death may end it.
        fast_release: bool,
    },
    /// A session is ended.
    EndSession,
    /// Something about a right or a counter.
    Right(Asked),
}

impl History {
    /// Nothing was asked.
    pub fn new() -> Self {
        Self {
            next: 1,
            pending: BTreeMap::new(),
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            sessions: Vec::new(),
            watchers: BTreeMap::new(),
            told_changes: 0,
            frontier: Revision(0),
            acknowledged: Vec::new(),
            claims: Claims::default(),
            undone: Vec::new(),
            witness: Witness::default(),
            answered: 0,
            given_up: BTreeSet::new(),
        }
    }

    /// Draws the next call of the client of `host` at `begin`. `is_full` asks for no more tasks.
    pub fn draw(
        &mut self,
        (host, begin): (usize, u64),
        options: &Options,
        dice: &mut Dice,
        is_full: bool,
    ) -> (u64, Work, Duration) {
        let call = self.number();
        if options.roster > 0 && dice.happens(options.roster) {
            let node = identity(dice.between(0, options.nodes as u64 - 1) as usize, dice.pick(&[0, 0, 0, 1]));
            // Fewer voters bear fewer losses: a seat that is given up while a disk dies is one loss too many.
            let may_shrink =
                options.disk_loss == 0 && options.lost_at_founding.is_none() && options.replaced_at_founding.is_none();
            let fewer = dice.pick(&[RosterChange::Demote(node), RosterChange::Remove(node)]);
            let change = if may_shrink && dice.happens(650) { fewer } else { RosterChange::Promote(node) };
            self.pending.insert(call, Pending { host, begin, kind: Kind::Roster });
            return (call, Work::Write(Operation::Roster(change)), Duration::from_secs(2));
        }
        let drawn = match dice.between(0, 9) {
            0 => Some(self.key_work(call, options, dice)),
            1..3 => self.watch(host, dice),
            _ => None,
        };
        if let Some((kind, work)) = drawn {
            self.pending.insert(call, Pending { host, begin, kind });
            return (call, work, Duration::from_millis(dice.pick(&[300, 10_000, 10_000])));
        }
        let (kind, work) = match dice.between(0, 99) {
            0..30 if !is_full => self.submit(call, options, dice),
            30..36 if !self.acknowledged.is_empty() => {
                let task = self.recent(dice);
                (Kind::Cancel(task), Work::Write(Operation::Cancel { task, reason: "no use".into() }))
            }
            36..46 if !self.acknowledged.is_empty() => {
                let task = self.recent(dice);
                let is_awaited = call.is_multiple_of(2);
                let query = if is_awaited { Query::Await(task) } else { Query::Task(task) };
                (Kind::Look { task, is_awaited }, Work::Read(query, Consistency::Linearizable))
            }
            46..68 => self.put(call, options, dice),
            68..72 => {
                let key = key(options, dice);
                let floor = self.floor(&key);
                let expect = self.expectation(&key, dice);
                (
                    Kind::Delete { key: key.clone(), expect, floor },
                    Work::Write(Operation::Delete(Delete { key, expect })),
                )
            }
            _ => {
                let key = key(options, dice);
                let is_stale = dice.happens(100);
                let consistency = if is_stale { Consistency::Stale } else { Consistency::Linearizable };
                let floor = self.floor(&key);
                let after = self.frontier;
                (Kind::Get { key: key.clone(), floor, is_stale, after }, Work::Read(Query::Get(key), consistency))
            }
        };
        self.pending.insert(call, Pending { host, begin, kind });
        (call, work, Duration::from_millis(dice.pick(&[300, 2_000, 10_000])))
    }

    /// Draws a call about sessions: opens one while the application has few, else ends one, its own or another's.
    pub fn draw_session(&mut self, (at, begin): (usize, u64), host: &Host, dice: &mut Dice) -> (u64, Work, Duration) {
        let call = self.number();
        let timeout = Duration::from_millis(dice.pick(&[300, 2_000, 10_000]));
        let last = self.sessions.len() as u64;
        if last > 0 && (host.kept.len() >= KEPT_MAX || dice.happens(200)) {
            let session = self.sessions[dice.between(last.saturating_sub(6), last - 1) as usize];
            self.witness.locks.may_be_over(session, begin);
            self.pending.insert(call, Pending { host: at, begin, kind: Kind::EndSession });
            return (call, Work::Write(Operation::EndSession { session, cause: ClientEnd::Killed }), timeout);
        }
        let run = state::Host { node: host.id, incarnation: Incarnation(host.run) };
        let about = About {
            label: format!("call {call}"),
            host: host.is_node.then_some(run),
            fast_release: host.is_node && dice.happens(300),
        };
        let ttl = Duration::from_millis(dice.pick(&[800, 3_000, 12_000]));
        let kind = Kind::OpenSession { fast_release: about.fast_release };
        self.pending.insert(call, Pending { host: at, begin, kind });
        (call, Work::Keep(OpenSession { ttl, about }), timeout)
    }

    /// Draws the next call of a client that has to do with rights or counters.
    pub fn draw_right(
        &mut self,
        (at, begin): (usize, u64),
        host: &Host,
        oracle: &Oracle,
        dice: &mut Dice,
    ) -> (u64, Work, Duration) {
        let call = self.number();
        let own = host.kept.keys().copied().collect();
        let (asked, work) = self.claims.draw(call, &own, oracle, dice);
        self.pending.insert(call, Pending { host: at, begin, kind: Kind::Right(asked) });
        (call, work, Duration::from_millis(dice.pick(&[300, 2_000, 10_000])))
    }

    /// A write of a value to a key of its own.
    pub fn fresh_write(&mut self, host: usize, begin: u64) -> (u64, Work, Duration) {
        let (call, key) = (self.number(), String::from("fresh"));
        let expect = Expect::Any;
        let operation = Operation::Put(Put::new(key.clone(), value(call, 0)));
        let floor = self.floor(&key);
        self.pending.insert(call, Pending { host, begin, kind: Kind::Put { key, token: call << 16, expect, floor } });
        (call, Work::Write(operation), Duration::from_secs(5))
    }

    /// A call of a script: its number, after `judge` was told what kind of call it is.
    pub fn scripted(&mut self, host: usize, begin: u64, work: impl FnOnce(u64) -> Work) -> (u64, Work) {
        let call = self.number();
        let work = work(call);
        let kind = match &work {
            Work::Write(Operation::Submit(specs)) => {
                let is_once = specs.iter().any(|spec| spec.once_key.is_some());
                let tokens = specs.iter().map(|spec| token(&spec.payload)).collect();
                Kind::Submit { tokens, deliveries: specs.iter().map(|spec| spec.delivery).collect(), is_once }
            }
            Work::Write(Operation::Cancel { task, .. }) => Kind::Cancel(*task),
            Work::Write(Operation::Put(Put { key, value, expect, .. })) => {
                Kind::Put { key: key.clone(), token: token(value), expect: *expect, floor: self.floor(key) }
            }
            Work::Write(Operation::Delete(Delete { key, expect })) => {
                Kind::Delete { key: key.clone(), expect: *expect, floor: self.floor(key) }
            }
            Work::Read(Query::Get(key), consistency) => {
                let is_stale = *consistency == Consistency::Stale;
                Kind::Get { key: key.clone(), floor: self.floor(key), is_stale, after: self.frontier }
            }
            Work::Write(Operation::Roster(_)) => Kind::Roster,
            Work::Keep(opening) => Kind::OpenSession { fast_release: opening.about.fast_release },
            Work::Write(Operation::EndSession { .. }) => Kind::EndSession,
            other => panic!("no script says {other:?}"),
        };
        self.pending.insert(call, Pending { host, begin, kind });
        (call, work)
    }

    /// A call that is judged by this when its answer comes.
    pub(crate) fn expect_answer(&mut self, call: u64, (host, begin): (usize, u64), kind: Kind) {
        self.pending.insert(call, Pending { host, begin, kind });
    }

    /// What a call without an answer asked about rights.
    pub(crate) fn asked(&self, call: u64) -> Option<Asked> {
        match &self.pending.get(&call)?.kind {
            Kind::Right(asked) => Some(asked.clone()),
            _ => None,
        }
    }

    /// A call that was made lately.
    pub(crate) fn recent_call(&self, dice: &mut Dice) -> u64 {
        self.next.saturating_sub(dice.between(0, 20))
    }

    /// Says whether a call waits for its answer.
    pub fn is_pending(&self, call: u64) -> bool {
        self.pending.contains_key(&call)
    }

    /// How many calls ended without an answer.
    pub fn unanswered(&self) -> u64 {
        self.given_up.len() as u64
    }

    /// Says whether a call ended without an answer.
    pub fn is_given_up(&self, call: u64) -> bool {
        self.given_up.contains(&call)
    }

    /// A host crashed: nobody will hear the answers to its calls.
    pub fn forget(&mut self, host: usize) {
        for (_, call) in self.pending.extract_if(.., |_, call| call.host == host) {
            self.witness.in_doubt(call.begin, &call.kind);
        }
        if let Some(watcher) = self.watchers.get_mut(&host) {
            watcher.is_asking = false;
        }
    }

    /// I3: judges an answer that came at `end`. `is_read_safe` says whether clocks keep their bound, on which lease reads rest.
    pub fn complete(
        &mut self,
        (call, end): (u64, u64),
        result: &Result<Answer, CallError>,
        oracle: &mut Oracle,
        is_read_safe: bool,
    ) -> Verdict {
        let Some(Pending { kind, begin, .. }) = self.pending.remove(&call) else {
            return Err(format!("I3 call {call} was answered twice"));
        };
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.given_up.insert(call);
                let is_doubtful = match error {
                    CallError::Deadline { maybe_applied, .. } | CallError::SessionExpired { maybe_applied } => {
                        *maybe_applied
                    }
                    CallError::Busy => false,
                };
                if is_doubtful {
                    self.witness.in_doubt(begin, &kind);
                } else {
                    self.is_undone(&kind);
                }
                if let Kind::Watch { host, .. } = kind {
                    self.watchers.entry(host).or_default().is_asking = false;
                }
                return Ok(());
            }
        };
        self.answered += 1;
        if kind.is_bound(is_read_safe) {
            self.witness.answered(begin, end, &kind, answer, is_read_safe);
        }
        match (kind, answer) {
            (Kind::Submit { tokens, is_once, .. }, Answer::Submitted(tasks)) => {
                for (token, task) in tokens.iter().zip(tasks) {
                    if oracle.task(task.task).is_none() {
                        return Err(format!("I4 {} was acknowledged and is not in the log", task.task));
                    }
                    if task.fresh != (oracle.tokens.get(token) == Some(&task.task)) || (!task.fresh && !is_once) {
                        return Err(format!("I4 {} was acknowledged for another submission", task.task));
                    }
                    self.acknowledged.push(task.task);
                }
                Ok(())
            }
            (Kind::Look { task, is_awaited: false }, Answer::Task(view)) if view.id == task => Ok(()),
            (Kind::Cancel(task) | Kind::Look { task, .. }, Answer::Task(view)) => {
                let is_ended = oracle.task(task).is_some_and(|task| task.is_ended);
                if view.id == task && view.state.is_final() && is_ended {
                    return Ok(());
                }
                Err(format!("I4 {task} was said to have ended and has not"))
            }
            (Kind::Cancel(_), Answer::Refused(Refused::Ended)) => Ok(()),
            (Kind::Look { .. }, Answer::Refused(Refused::NotFound)) if !is_read_safe => Ok(()),
            (Kind::Cancel(task) | Kind::Look { task, .. }, answer) => Err(format!("I4 {task} is lost: {answer:?}")),
            (Kind::Watch { host, prefix, after }, answer) => self.judge_watch(host, &prefix, after, answer, oracle),
            (Kind::Transaction { tokens, after }, Answer::Transacted(done)) => {
                self.judge_transaction(tokens, after, done, oracle)
            }
            (Kind::List { prefix, after }, Answer::Keys(page)) => {
                let is_bound = is_read_safe.then_some(after);
                self.judge_list(&prefix, is_bound, page, oracle)
            }
            (Kind::Temporary { key, token }, answer) => self.judge_temporary(&key, token, answer, oracle),
            (Kind::Put { key, token, floor, .. }, Answer::Written(revision)) => {
                self.frontier = self.frontier.max(*revision);
                self.note(oracle, &key, floor + 1, true, &format!("put {token}"), |version| {
                    version.revision == *revision && version.value == Some(token)
                })
            }
            (Kind::Delete { key, floor, .. }, Answer::Written(revision)) => {
                self.frontier = self.frontier.max(*revision);
                self.note(oracle, &key, floor + 1, true, "delete", |version| {
                    version.revision == *revision && version.value.is_none()
                })
            }
            (Kind::Get { key, floor, is_stale, after }, Answer::Value { found, at }) => {
                let is_bound = is_read_safe && !is_stale;
                if is_bound && *at < after {
                    return Err(format!("I3 a read at revision {at} began after {after} was told"));
                }
                self.frontier = if is_bound { self.frontier.max(*at) } else { self.frontier };
                let floor = if is_bound { floor } else { 0 };
                self.note(oracle, &key, floor, is_bound, &format!("get {found:?}"), |version| match found {
                    Some(found) => version.revision == found.modified && version.value == Some(token(&found.value)),
                    None => version.value.is_none(),
                })
            }
            (Kind::Put { token, key, floor, .. }, Answer::Refused(Refused::Conflict { current })) => {
                self.undone.push(token);
                self.note(oracle, &key, floor, true, "conflict", |version| shows(version, *current))
            }
            (Kind::Delete { key, floor, .. }, Answer::Refused(Refused::Conflict { current })) => {
                self.note(oracle, &key, floor, true, "conflict", |version| shows(version, *current))
            }
            (Kind::Delete { key, floor, .. }, Answer::Refused(Refused::NotFound)) => {
                self.note(oracle, &key, floor, true, "not found", |version| version.value.is_none())
            }
            (Kind::OpenSession { .. }, Answer::Registered(session)) => {
                self.sessions.push(*session);
                Ok(())
            }
            (Kind::Roster | Kind::EndSession, Answer::Ok) => Ok(()),
            (Kind::Right(asked), answer) => self.claims.judge(asked, answer, oracle, is_read_safe),
            (kind, Answer::Refused(_)) => {
                self.is_undone(&kind);
                Ok(())
            }
            (_, answer) => Err(format!("I3 call {call} was answered with {answer:?}")),
        }
    }

    /// D9, F30: what was said to be certainly not done is not in the log.
    pub fn certainly_not_done_is_not_done(&self, oracle: &Oracle) -> Verdict {
        let is_done = |token: &&u64| oracle.book.written.contains_key(token) || oracle.tokens.contains_key(token);
        match self.undone.iter().find(is_done) {
            Some(token) => Err(format!("I3 call {} was certainly not done, it was said, and is done", token >> 16)),
            None => Ok(()),
        }
    }

    fn submit(&mut self, call: u64, options: &Options, dice: &mut Dice) -> (Kind, Work) {
        let count = dice.between(1, options.batch);
        let is_once = dice.happens(150);
        let (mut tokens, mut deliveries) = (Vec::new(), Vec::new());
        let mut specs = Vec::new();
        for place in 0..count {
            let kind = pick_kind(options, dice);
            let mut spec = TaskSpec::new(kind, value(call, place));
            spec.backoff = Duration::from_millis(dice.pick(&[10, 300]));
            spec.retries = dice.between(0, 2) as u32;
            spec.priority = (call % 3) as i32;
            if kind == "hanging" || dice.happens(200) {
                spec.timeout = Duration::from_millis(dice.pick(&options.limits));
            }
            if dice.happens(options.at_most_once) {
                (spec.delivery, spec.retries) = (Delivery::AtMostOnce, 0);
            }
            if is_once {
                spec.once_key = Some(format!("once-{}", dice.between(0, 30)));
            }
            tokens.push(token(&spec.payload));
            deliveries.push(spec.delivery);
            specs.push(spec);
        }
        (Kind::Submit { tokens, deliveries, is_once }, Work::Write(Operation::Submit(specs)))
    }

    fn put(&mut self, call: u64, options: &Options, dice: &mut Dice) -> (Kind, Work) {
        let key = key(options, dice);
        let expect = self.expectation(&key, dice);
        let operation = Operation::Put(Put { expect, ..Put::new(key.clone(), value(call, 0)) });
        let floor = self.floor(&key);
        (Kind::Put { key, token: call << 16, expect, floor }, Work::Write(operation))
    }

    pub(crate) fn expectation(&self, key: &str, dice: &mut Dice) -> Expect {
        match dice.between(0, 5) {
            0 => Expect::Absent,
            1 => Expect::Present,
            2 | 3 => Expect::Revision(self.told.get(key).copied().unwrap_or_default()),
            _ => Expect::Any,
        }
    }

    /// Finds the version that an answer speaks of, not below `floor`, and remembers that it was seen.
    fn note(
        &mut self,
        oracle: &mut Oracle,
        key: &str,
        floor: usize,
        is_seen: bool,
        what: &str,
        is_meant: impl Fn(&Version) -> bool,
    ) -> Verdict {
        let versions = oracle.versions(key);
        let Some(place) = (floor..versions.len()).find(|place| is_meant(&versions[*place])) else {
            let last = versions.last();
            return Err(format!(
                "I3 {what} of {key} fits no version from {floor} on; of {} the last is {last:?}",
                versions.len()
            ));
        };
        self.told.insert(key.into(), versions[place].revision);
        if is_seen {
            let seen = self.seen.entry(key.into()).or_default();
            *seen = place.max(*seen);
        }
        Ok(())
    }

    fn is_undone(&mut self, kind: &Kind) {
        match kind {
            Kind::Submit { tokens, .. } => self.undone.extend(tokens),
            Kind::Put { token, .. } | Kind::Temporary { token, .. } => self.undone.push(*token),
            Kind::Transaction { tokens, .. } => self.undone.extend(tokens.iter().flatten()),
            _ => {}
        }
    }

    pub(crate) fn floor(&self, key: &str) -> usize {
        self.seen.get(key).copied().unwrap_or_default()
    }

    fn recent(&self, dice: &mut Dice) -> TaskId {
        let last = self.acknowledged.len();
        self.acknowledged[dice.between(last.saturating_sub(20) as u64, last as u64 - 1) as usize]
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Kind {
    /// Whether an answer may show nothing older than what was acknowledged before: not where it says that it may, and no read
    /// where clocks break their bound.
    fn is_bound(&self, is_read_safe: bool) -> bool {
        match self {
            Self::Get { is_stale, .. } => is_read_safe && !is_stale,
            Self::Look { .. } => is_read_safe,
            _ => true,
        }
    }
}

fn shows(version: &Version, current: Revision) -> bool {
    if current == Revision(0) {
        version.value.is_none()
    } else {
        version.revision == current && version.value.is_some()
    }
}

fn pick_kind(options: &Options, dice: &mut Dice) -> &'static str {
    let [flaky, slow, hanging] = options.handlers;
    let drawn = dice.between(0, 999);
    if drawn < flaky {
        KINDS[1]
    } else if drawn < flaky + slow {
        KINDS[2]
    } else if drawn < flaky + slow + hanging {
        KINDS[3]
    } else {
        KINDS[0]
    }
}

fn key(options: &Options, dice: &mut Dice) -> String {
    format!("k{}", dice.between(1, options.keys))
}

/// A value that begins with its token.
pub fn value(call: u64, place: u64) -> Bytes {
    Bytes::copy_from_slice(&(call << 16 | place).to_be_bytes())
}

/// How many sessions an application opens before it ends some.
const KEPT_MAX: usize = 3;
