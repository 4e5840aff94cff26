//! Random commands: the state against its naive twin, and against itself.

use std::collections::{BTreeMap, BTreeSet};

use super::naive::{Fate, Naive};
use super::naive_rights::NaiveClaim;
use super::*;
use crate::types::{Attempt, ClaimId, Fence};
use crate::wire;

/// Seeds that every run goes through; one that ever failed is added to the end.
const SEEDS: std::ops::Range<u64> = 0..150;
const COMMANDS: usize = 250;

#[test]
fn the_state_answers_like_its_naive_twin() {
    let mut met = BTreeSet::new();
    for seed in SEEDS {
        let mut run = Run::new(seed);
        for step in 0..COMMANDS {
            run.step(&format!("seed {seed}, step {step}"));
            met.extend(run.met.drain(..));
        }
    }
    let unmet: Vec<_> = RULES.into_iter().filter(|rule| !met.contains(rule)).collect();
    assert!(unmet.is_empty(), "no random command met these rules: {unmet:?}");
}

#[test]
fn replaying_any_part_of_the_log_gives_the_same_state() {
    // I12. The commands go through their encoding, as they do on another node and after a restart.
    for seed in SEEDS.take(50) {
        let mut run = Run::new(seed);
        let mut replica = State::default();
        let mut copy = State::default();
        for step in 0..COMMANDS {
            let (time, command) = run.step("replay");
            let bytes = wire::encode(&command, wire::MAX_COMMAND).unwrap();
            apply(&mut replica, time, &wire::decode::<Option<Command>>(&bytes, wire::MAX_COMMAND).unwrap());
            assert_eq!(replica.digest(), run.state.digest(), "seed {seed}, step {step}");
            if run.chance.one_in(50) {
                assert_eq!(replica, run.state, "seed {seed}, step {step}");
                // A replica that begins with an image goes on like the others, and is the same in every index and hash.
                let mut restore = Restore::default();
                run.state.image().for_each(|chunk| restore.take(&chunk).expect("an image is readable"));
                copy = restore.finish().expect("an image is whole");
                assert_eq!(copy, run.state, "seed {seed}, step {step}");
                assert!(copy.image().eq(run.state.image()), "equal states have equal images");
            } else {
                apply(&mut copy, time, &command);
            }
        }
        let last = Query::Summary;
        assert_eq!(replica.query(&last), run.state.query(&last), "seed {seed}");
    }
}

/// A state and its twin under the same random commands.
struct Run {
    state: State,
    naive: Naive,
    /// What a master would know that only heard the changes.
    heard: MasterView,
    now: ClusterTime,
    chance: Chance,
    /// Grants so far, in the order in which they were made.
    fences: Vec<Fence>,
    seqs: BTreeMap<SessionId, u64>,
    /// The newest fence of any right.
    right_fence: Fence,
    /// The newest claims to rights.
    claims: Vec<ClaimId>,
    /// Rules that the last command met.
    met: Vec<&'static str>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let heard = MasterView { next_expiry: ClusterTime::NEVER, ..MasterView::default() };
        Self {
            state: State::default(),
            naive: Naive::default(),
            heard,
            now: ClusterTime(seed * 1_000),
            chance: Chance(seed),
            fences: Vec::new(),
            seqs: BTreeMap::new(),
            right_fence: Fence(0),
            claims: Vec::new(),
            met: Vec::new(),
        }
    }

    /// Draws and applies one command (none: an epoch begins) and compares everything that can be seen.
    fn step(&mut self, place: &str) -> (ClusterTime, Option<Command>) {
        let span = [0, 0, 0, 1, 1, 30, 30, 200, 400, 2_500][self.chance.below(10)];
        self.now = self.now + Duration::from_millis(span);
        let command = if self.chance.one_in(60) { None } else { Some(self.command()) };
        let (before, content) = (self.state.revision(), self.state.content());
        let nodes_before = self.naive.content.nodes.len();
        let sessions_before = self.naive.sessions();
        let tasks_before = self.naive.content.tasks.clone();

        let (answer, changes) = apply(&mut self.state, self.now, &command);
        let expected = match &command {
            Some(command) => self.naive.apply(self.now, command),
            None => {
                self.naive.begin_epoch(self.now);
                Answer::Ok
            }
        };

        let place = format!("{place}: {command:?}");
        assert_eq!(answer, expected, "{place}");
        self.state.assert_coherent();
        assert_eq!(self.state.revision() > before, self.state.content() != content, "{place}");
        self.compare(&place);
        self.follow(&command, &changes, &place);
        let told = changes.iter().filter_map(|change| match change {
            ClusterChange::Key(change) => Some(change.clone()),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), self.naive.told, "{place}");
        for task in tasks_before {
            let now = self.naive.task(task.id);
            assert!(!task.state.is_final() || now.is_none_or(|now| now.state == task.state), "it ended twice, {place}");
            assert!(task.state.is_final() || now.is_some(), "a live task was forgotten, {place}");
            self.meet(now.is_none(), "forgotten");
        }
        if let Some(Command::Expire { .. }) = command {
            self.meet(self.naive.content.nodes.len() < nodes_before, "expired node");
            let nodes_gone = nodes_before - self.naive.content.nodes.len();
            self.meet(self.naive.sessions().len() + nodes_gone < sessions_before.len(), "expired client");
        }
        self.remember(&answer, &changes);
        (self.now, command)
    }

    fn compare(&mut self, place: &str) {
        let Answer::Tasks(views) = self.state.query(&Query::Tasks { after: TaskId(0), limit: 1_000 }) else {
            panic!("tasks are shown")
        };
        assert_eq!(views, self.naive.views(), "{place}");
        let summary = self.naive.summary(self.state.digest());
        assert_eq!(self.state.query(&Query::Summary), Answer::Summary(summary), "{place}");
        assert_eq!(self.state.next_expiry(), self.naive.next_expiry(), "{place}");
        for key in KEYS {
            let expected = Answer::Value { found: self.naive.value(key), at: Revision(self.naive.revision) };
            assert_eq!(self.state.query(&Query::Get(key.into())), expected, "{place}");
        }
        let prefix = ["", "", "a", "s-"][self.chance.below(4)].to_owned();
        let after = self.naive.content.keys.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let after = self.chance.pick(&after).filter(|_| !self.chance.one_in(3)).unwrap_or_default();
        let (limit, keys_only) = (1 + self.chance.below(4) as u32, self.chance.one_in(3));
        let list = List { prefix, after, limit, keys_only };
        assert_eq!(self.state.query(&Query::List(list.clone())), self.naive.page(&list), "{place}");
        let Answer::Rights(lines) = self.state.query(&Query::Rights { after: None, limit: 1_000 }) else {
            panic!("rights are shown")
        };
        assert!(lines.iter().is_sorted_by_key(|line| &line.right), "{place}");
        for right in rights() {
            let view = self.naive.right_view(&right);
            let line = (view != RightView::default()).then(|| RightLine {
                right: right.clone(),
                revision: view.revision,
                first: view.holders.first().map(|holder| (holder.session, holder.fence)),
                holders: view.holders.len() as u64,
                waiting: view.waiting,
                items: view.items,
                is_settled: view.settled.is_some(),
            });
            assert_eq!(lines.iter().find(|line| line.right == right), line.as_ref(), "{place}");
        }
        for right in rights() {
            let view = Answer::Right(Box::new(self.naive.right_view(&right)));
            assert_eq!(self.state.query(&Query::Right { right: right.clone(), after: Fence(0) }), view, "{place}");
            for claim in self.claims.clone() {
                let state = self.state.query(&Query::AwaitClaim { right: right.clone(), claim });
                assert_eq!(state, Answer::Claim(self.naive.claim_state(&right, claim)), "{place}");
            }
        }
        for session in self.naive.sessions() {
            let ended = self.state.query(&Query::AwaitEnd { session, claims: self.claims.clone() });
            assert_eq!(ended, Answer::Ended(self.naive.ended(session, &self.claims)), "{place}");
        }
        for counter in KEYS {
            let counted = self.state.query(&Query::Counter(counter.into()));
            assert_eq!(counted, Answer::Counted(self.naive.counter(counter)), "{place}");
        }
        let Answer::Nodes(nodes) = self.state.query(&Query::Nodes) else { panic!("nodes are shown") };
        let held = |session| {
            let tasks = self.naive.content.tasks.iter().filter_map(|task| self.naive.grant_of(task.id));
            tasks.filter(|grant| grant.session == session).count() as u32
        };
        let expected: Vec<_> = self.naive.content.nodes.iter().map(|node| (node.session, held(node.session))).collect();
        assert_eq!(nodes.iter().map(|node| (node.session, node.assigned)).collect::<Vec<_>>(), expected, "{place}");
    }

    /// Follows the changes as a master does, and compares with what a new master would be given.
    fn follow(&mut self, command: &Option<Command>, changes: &[ClusterChange], place: &str) {
        for change in changes {
            match change.clone() {
                ClusterChange::Submitted(task) => self.heard.tasks.push(*task),
                ClusterChange::Assigned { attempt, grant } => {
                    let task = self.heard_task(attempt.task);
                    (task.attempts, task.assigned, task.not_before) = (attempt.number, Some(grant), ClusterTime(0));
                    assert!(self.fences.last().is_none_or(|last| *last < grant.fence), "no new fence, {place}");
                    self.fences.push(grant.fence);
                }
                ClusterChange::Pending { attempt, fence, not_before } => {
                    let task = self.heard_task(attempt.task);
                    assert_eq!(task.assigned.map(|grant| (grant.number, grant.fence)), Some((attempt.number, fence)));
                    (task.assigned, task.not_before) = (None, not_before);
                    let is_once = task.spec.delivery == Delivery::AtMostOnce;
                    assert!(!is_once || was_never_started(command, fence), "it may run twice, {place}");
                }
                ClusterChange::Ended { task, fence, .. } => {
                    let grant = self.heard_task(task).assigned;
                    assert_eq!(
                        fence.map(|(node, _, fence)| (node, fence)),
                        grant.map(|grant| (grant.node, grant.fence))
                    );
                    self.heard.tasks.retain(|heard| heard.id != task);
                }
                ClusterChange::NodeOpened(node) => {
                    self.heard.nodes.retain(|heard| heard.session != node.session);
                    self.heard.nodes.push(*node);
                    self.heard.nodes.sort_by_key(|heard| heard.session);
                }
                ClusterChange::Renewed(sessions) => {
                    for (session, deadline) in sessions {
                        let node = self.heard.nodes.iter_mut().find(|heard| heard.session == session);
                        node.expect("only node sessions are named").deadline = deadline;
                    }
                }
                ClusterChange::NodeEnded { session, node } => {
                    let found =
                        self.heard.nodes.iter().position(|heard| (heard.session, heard.node) == (session, node));
                    self.heard.nodes.remove(found.expect("it was open"));
                }
                ClusterChange::Right(change) => {
                    for (claim, fence) in change.granted {
                        assert!(fence.0 > claim.0 && fence > self.right_fence, "no new fence, {place}");
                        self.right_fence = fence;
                    }
                }
                ClusterChange::NextExpiry(time) => self.heard.next_expiry = time,
                ClusterChange::Key(_)
                | ClusterChange::Judged { .. }
                | ClusterChange::Void { .. }
                | ClusterChange::NotOpened { .. }
                | ClusterChange::Redeemed { .. }
                | ClusterChange::Released { .. }
                | ClusterChange::ClientEnded { .. } => {}
            }
        }
        self.heard.time = self.now;
        assert_eq!(self.heard, self.state.master_view(Epoch(0)), "the master was not told everything, {place}");
    }

    fn heard_task(&mut self, id: TaskId) -> &mut LiveTask {
        self.heard.tasks.iter_mut().find(|task| task.id == id).expect("the master was told of it")
    }

    fn meet(&mut self, met: bool, rule: &'static str) {
        self.met.extend(met.then_some(rule));
    }

    fn remember(&mut self, answer: &Answer, changes: &[ClusterChange]) {
        match answer {
            Answer::Refused(Refused::NotFound) => self.meet(true, "not found"),
            Answer::Refused(Refused::Conflict { .. }) => self.meet(true, "conflict"),
            Answer::Refused(Refused::SessionExpired) => self.meet(true, "session expired"),
            Answer::Refused(Refused::Stale(_)) => self.meet(true, "stale"),
            Answer::Refused(Refused::Busy) => self.meet(true, "ahead of the window"),
            Answer::Refused(Refused::Ended) => self.meet(true, "ended"),
            Answer::Refused(Refused::NoSession(_)) => self.meet(true, "no session"),
            Answer::Transacted(done) => {
                self.meet(done.held, "transaction");
                self.meet(!done.held, "the other branch");
            }
            Answer::Refused(Refused::Held { .. }) => self.meet(true, "held"),
            Answer::Refused(Refused::NotHeld { .. }) => self.meet(true, "not held"),
            Answer::Refused(Refused::Settled) => self.meet(true, "settled"),
            Answer::Claimed(claimed) => {
                self.claims.push(claimed.claim);
                self.claims.drain(..self.claims.len().saturating_sub(6));
                self.meet(claimed.fence.is_none(), "in line");
            }
            Answer::Submitted(tasks) => self.meet(tasks.iter().any(|task| !task.fresh), "once key"),
            _ => {}
        }
        for change in changes {
            match change {
                ClusterChange::ClientEnded { cause: ClientEnd::Proven, .. } => self.meet(true, "proven dead"),
                ClusterChange::ClientEnded { cause: ClientEnd::Evidence, .. } => self.meet(true, "released"),
                ClusterChange::Key(KeyChange { what: KeyEvent::Deleted(KeyEnd::Expired), .. }) => {
                    self.meet(true, "key out of time");
                }
                ClusterChange::Key(KeyChange { what: KeyEvent::Deleted(KeyEnd::SessionEnded), .. }) => {
                    self.meet(true, "key of a session");
                }
                ClusterChange::Void { .. } => self.meet(true, "void"),
                ClusterChange::Right(change) => {
                    self.meet(change.granted.len() > 1, "granted together");
                    self.meet(!change.ended.is_empty() && !change.granted.is_empty(), "handed on");
                    self.meet(change.ended.len() > 1, "many claims ended");
                }
                ClusterChange::Pending { not_before, .. } => self.meet(*not_before > self.now, "retried"),
                ClusterChange::Ended { task, .. } => {
                    let rule = match &self.naive.task(*task).unwrap().state {
                        TaskState::Done { .. } => "done",
                        TaskState::Failed { message, .. } if message.contains("died") => "died too often",
                        TaskState::Failed { message, .. } if message.contains("longer") => "out of time",
                        TaskState::Failed { .. } => "failed",
                        TaskState::Cancelled { .. } => "cancelled",
                        TaskState::Lost { .. } => "lost",
                        other => panic!("it has not ended: {other:?}"),
                    };
                    self.meet(true, rule);
                }
                _ => {}
            }
        }
    }

    fn command(&mut self) -> Command {
        match self.chance.below(20) {
            0 => Command::Register { ttl: Duration::from_millis([1, 500, 5_000, 90_000_000][self.chance.below(4)]) },
            1..=8 => self.request(),
            9 => Command::Renew { sessions: (0..self.chance.below(4)).map(|_| self.session()).collect() },
            10 if self.chance.one_in(3) => {
                let session = self.session();
                let newest = self.seqs.get(&session).copied().unwrap_or_default();
                Command::Heard { session, first_incomplete: Seq(newest.saturating_sub(self.chance.below(3) as u64)) }
            }
            10 => Command::Expire {
                before: ClusterTime((self.now.0 + 200).saturating_sub(self.chance.below(400) as u64)),
            },
            _ => Command::Master(self.decision()),
        }
    }

    fn request(&mut self) -> Command {
        let clients = self.naive.content.clients.clone();
        let Some(client) = self.chance.pick(&clients) else { return Command::Register { ttl: Duration::from_secs(3) } };
        let newest = self.seqs.entry(client.id).or_insert(0);
        let (seq, first_incomplete) = match self.chance.below(12) {
            0 => (Seq(newest.saturating_sub(3).max(1)), Seq(1)),
            1 => (Seq(*newest + limits::WINDOW + 9), client.first_incomplete),
            2 if *newest > 0 => (Seq(*newest), client.first_incomplete),
            _ => {
                *newest += 1;
                let lag = self.chance.below(4) as u64;
                (Seq(*newest), Seq(newest.saturating_sub(lag)))
            }
        };
        let again = client.replies.iter().any(|(kept, _)| *kept == seq && seq >= first_incomplete);
        self.meet(again, "answer again");
        let session = if self.chance.one_in(30) { SessionId(self.chance.below(99) as u64) } else { client.id };
        Command::Client { session, seq, first_incomplete, operation: self.operation() }
    }

    fn operation(&mut self) -> Operation {
        match self.chance.below(38) {
            23..=35 => Operation::Right(self.right_operation()),
            36..=37 => {
                let counter = KEYS[self.chance.below(2)].into();
                if self.chance.one_in(9) {
                    return Operation::Counter(CounterOperation::Remove(counter));
                }
                let by = [1, -1, 30, i64::MAX][self.chance.below(4)];
                let once = self.chance.one_in(2).then(|| KEYS[self.chance.below(2)].into());
                Operation::Counter(CounterOperation::Add(Add { counter, by, once }))
            }
            0 => Operation::Close,
            20 => Operation::EndSession { session: self.any_session(), cause: ClientEnd::Killed },
            21..=22 => Operation::OpenSession(self.opening()),
            1..=3 => Operation::Cancel { task: self.task(), reason: "no need".into() },
            4..=6 => Operation::Put(self.put()),
            7 => Operation::Delete(self.delete()),
            8..=9 => Operation::Transact(self.transaction()),
            _ => Operation::Submit((0..self.chance.below(4)).map(|_| self.spec()).collect()),
        }
    }

    fn key(&mut self) -> String {
        KEYS[self.chance.below(KEYS.len())].into()
    }

    fn expect(&mut self, key: &str) -> Expect {
        let current = self.naive.value(key).map_or(Revision(0), |value| value.modified);
        match self.chance.below(9) {
            0 => Expect::Absent,
            1 => Expect::Present,
            2 => Expect::Revision(current),
            3 => Expect::Revision(Revision(self.chance.below(99) as u64)),
            _ => Expect::Any,
        }
    }

    fn put(&mut self) -> Put {
        let key = self.key();
        let expect = self.expect(&key);
        let owner = self.chance.one_in(2).then(|| self.client_session());
        let ttl = self.chance.one_in(4).then(|| Duration::from_millis([0, 1, 300, 2_000][self.chance.below(4)]));
        let sequence = self.chance.one_in(8);
        let key = if sequence { "s-".into() } else { key };
        Put { expect, owner, ttl, sequence, ..Put::new(key, vec![7; self.chance.below(40)]) }
    }

    fn delete(&mut self) -> Delete {
        let key = self.key();
        let expect = self.expect(&key);
        Delete { key, expect }
    }

    fn transaction(&mut self) -> Transaction {
        let when = (0..self.chance.below(3)).map(|_| self.condition()).collect();
        let then = (0..self.chance.below(4)).map(|_| self.key_operation()).collect();
        let or_else = (0..self.chance.below(3)).map(|_| self.key_operation()).collect();
        Transaction { when, then, or_else }
    }

    fn condition(&mut self) -> Condition {
        let key = self.key();
        match self.chance.below(5) {
            0 => Condition::Lives(self.client_session()),
            4 => {
                let held = |claim: &NaiveClaim| Some((claim.right.clone(), claim.held.as_ref()?.fence));
                let held: Vec<_> = self.naive.content.rights.claims.iter().filter_map(held).collect();
                let other = (RightId::new(RightKind::Lock, "a"), Fence(self.chance.below(99) as u64));
                let (right, fence) = self.chance.pick(&held).unwrap_or(other);
                Condition::Held { right, fence }
            }
            1 => {
                let value = self.naive.value(&key).map_or_else(Bytes::new, |value| value.value);
                Condition::Value { key, value }
            }
            _ => Condition::Key { expect: self.expect(&key), key },
        }
    }

    fn key_operation(&mut self) -> KeyOperation {
        match self.chance.below(5) {
            0 | 1 => KeyOperation::Get(self.key()),
            2 => KeyOperation::Delete(self.delete()),
            _ => KeyOperation::Put(self.put()),
        }
    }

    /// A client's session, mostly a live one.
    fn client_session(&mut self) -> SessionId {
        let clients: Vec<_> = self.naive.content.clients.iter().map(|client| client.id).collect();
        let dead = SessionId(self.chance.below(99) as u64);
        self.chance.pick(&clients).filter(|_| !self.chance.one_in(9)).unwrap_or(dead)
    }

    fn right_operation(&mut self) -> RightOperation {
        let rights = rights();
        let right = rights[self.chance.below(rights.len())].clone();
        let is_once = right.kind == RightKind::Once;
        let claims = self.naive.content.rights.claims.iter();
        let of_right: Vec<_> =
            claims.filter(|claim| claim.right == right).map(|claim| (claim.session, claim.id)).collect();
        let first = of_right.first().copied().filter(|_| self.chance.one_in(2));
        let none = (SessionId(0), ClaimId(self.chance.below(60) as u64));
        let (owner, claim) = first.or_else(|| self.chance.pick(&of_right)).unwrap_or(none);
        let session = if self.chance.one_in(9) { self.any_session() } else { owner };
        let value = Bytes::from(vec![5; self.chance.below(9)]);
        match self.chance.below(12) {
            0..=4 => {
                let mode = match right.kind {
                    RightKind::Lock if self.chance.one_in(2) => Mode::Shared,
                    RightKind::Semaphore => {
                        let limit = if self.chance.one_in(9) { 2 } else { 3 };
                        Mode::Permits { count: self.chance.below(4) as u32, limit }
                    }
                    RightKind::Group => Mode::Member,
                    RightKind::Barrier => Mode::Party { parties: if self.chance.one_in(9) { 2 } else { 3 } },
                    _ => Mode::Exclusive,
                };
                let live: Vec<_> = self.naive.content.clients.iter().map(|client| client.id).collect();
                let session = self.chance.pick(&live).filter(|_| !self.chance.one_in(20)).unwrap_or(self.any_session());
                RightOperation::Claim(Claim { right, session, mode, value, wait: !self.chance.one_in(3) })
            }
            5..=7 if is_once && self.chance.one_in(2) => {
                RightOperation::Settle { right, session, claim, outcome: value }
            }
            5..=7 => RightOperation::Release { right, session, claim },
            8 => RightOperation::SetValue { right, session, claim, value },
            9 => {
                let outcome = if right.kind == RightKind::Queue { Bytes::new() } else { value };
                RightOperation::Settle { right, session, claim, outcome }
            }
            10 if self.chance.one_in(2) => RightOperation::Forget(right),
            _ => {
                let priority = self.chance.below(3) as i32 - 1;
                RightOperation::Push { queue: right.name, value, priority }
            }
        }
    }

    fn spec(&mut self) -> TaskSpec {
        let once = self.chance.one_in(3);
        let millis = |chance: &mut Chance, choice: [u64; 3]| Duration::from_millis(choice[chance.below(3)]);
        TaskSpec {
            delivery: if once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce },
            retries: if once { u32::from(self.chance.one_in(20)) } else { self.chance.below(3) as u32 },
            backoff: millis(&mut self.chance, [0, 20, 1_000]),
            keep: millis(&mut self.chance, [0, 1_000, 60_000]),
            priority: self.chance.below(3) as i32 - 1,
            once_key: self.chance.one_in(4).then(|| KEYS[self.chance.below(KEYS.len())].into()),
            ..TaskSpec::new(if self.chance.one_in(30) { "" } else { "kind" }, vec![1; self.chance.below(9)])
        }
    }

    fn decision(&mut self) -> MasterCommand {
        let task = self.task();
        match self.chance.below(17) {
            16 => MasterCommand::EndReleased(self.host()),
            0 | 1 => {
                let node = NodeId(1 + self.chance.below(3) as u64);
                let known = self.naive.content.nodes.iter().find(|known| known.node == node);
                let run = known.map_or(1, |known| known.incarnation.0) + self.chance.below(4) as u64;
                let incarnation = Incarnation(run.saturating_sub(self.chance.below(3) as u64));
                let older = known.is_some_and(|known| known.incarnation > incarnation);
                self.meet(older, "older run");
                let offer = Offer { slots: self.chance.below(3) as u32, ..Offer::default() };
                let ttl = Duration::from_secs(1 + self.chance.below(4) as u64);
                MasterCommand::OpenNode { node, incarnation, offer, ttl }
            }
            2 => {
                let begun = if self.chance.one_in(2) {
                    Begun { fences: self.fences.iter().copied().step_by(2).collect(), ..Begun::default() }
                } else {
                    let through = self.fences.len().checked_sub(2).map_or(Fence(0), |place| self.fences[place]);
                    Begun { through, fences: Vec::new() }
                };
                MasterCommand::EndNode { session: self.session(), begun }
            }
            3 => {
                let (client, seq) = self.submission();
                let ticket = Ticket { client, seq, place: self.chance.below(2) as u32 };
                let session = self.session();
                let answer = self
                    .naive
                    .clone()
                    .apply(self.now, &Command::Master(MasterCommand::AssignSubmitted { ticket, session }));
                self.meet(answer == Answer::Ok, "granted with its submission");
                MasterCommand::AssignSubmitted { ticket, session }
            }
            4..=8 => {
                let attempts = self.naive.task(task).map_or(0, |task| task.past.len());
                let number = if self.chance.one_in(9) { self.chance.below(4) } else { attempts + 1 };
                MasterCommand::Assign { attempt: Attempt { task, number: number as u32 }, session: self.session() }
            }
            9..=11 => {
                use ReleaseCause::*;
                let cause = [Evidence, Evidence, SessionEnded, NotHeld, TimedOut, HandedBack][self.chance.below(6)];
                MasterCommand::Release { task, fence: self.fence(task), cause }
            }
            _ => {
                let fence = self.fence(task);
                let fate =
                    self.naive.task(task).and_then(|task| task.past.iter().find(|(past, _)| *past == fence).copied());
                self.meet(matches!(fate, Some((_, Fate::Judged))), "judged again");
                self.meet(matches!(fate, Some((_, Fate::TakenBack))), "late");
                self.meet(matches!(fate, Some((_, Fate::Refused))), "late again");
                let outcome = if self.chance.one_in(2) { self.done() } else { failed("oops", !self.chance.one_in(4)) };
                if let (Outcome::Done { effects, .. }, Some((_, Fate::Held))) = (&outcome, fate) {
                    let refused = self.naive.clone().write_all(effects).is_err();
                    self.meet(refused, "effects refused");
                    self.meet(!refused && effects.len() > 1, "effects");
                }
                MasterCommand::Finish { task, fence, outcome }
            }
        }
    }

    /// A result, mostly with something to write.
    fn done(&mut self) -> Outcome {
        let effects = (0..self.chance.below(4)).map(|_| match self.chance.below(5) {
            0 => TaskEffect::Delete(self.key()),
            1 | 2 => {
                let by = [1, -1, 30, i64::MAX][self.chance.below(4)];
                TaskEffect::Add { counter: KEYS[self.chance.below(2)].into(), by }
            }
            _ => TaskEffect::Put { key: self.key(), value: Bytes::from_static(b"effect") },
        });
        Outcome::Done { output: Bytes::from_static(b"out"), effects: effects.collect() }
    }

    /// A request whose answer is kept: mostly one that submitted something.
    fn submission(&mut self) -> (SessionId, Seq) {
        let clients = self.naive.content.clients.iter();
        let kept = clients.flat_map(|client| client.replies.iter().map(|(seq, answer)| (client.id, *seq, answer)));
        let submitted = kept.filter(|(_, _, answer)| matches!(answer, Answer::Submitted(_)));
        let known: Vec<_> = submitted.map(|(client, seq, _)| (client, seq)).collect();
        match known.last() {
            Some(&newest) if !self.chance.one_in(4) => newest,
            Some(_) => known[self.chance.below(known.len())],
            None => (SessionId(1), Seq(1)),
        }
    }

    /// A task: mostly one that has not ended.
    fn task(&mut self) -> TaskId {
        let tasks = self.naive.content.tasks.clone();
        let live: Vec<_> = tasks.iter().filter(|task| !task.state.is_final()).map(|task| task.id).collect();
        let all: Vec<_> = tasks.iter().map(|task| task.id).collect();
        let from = if self.chance.one_in(3) { &all } else { &live };
        self.chance.pick(from).unwrap_or(TaskId(self.chance.below(20) as u64))
    }

    /// A fence: mostly the current one of this task, else an earlier one of it or of any.
    fn fence(&mut self, task: TaskId) -> Fence {
        let past: Vec<_> = self.naive.task(task).map(|task| task.past.clone()).unwrap_or_default();
        match self.chance.below(5) {
            0 => self.chance.pick(&self.fences.clone()).unwrap_or(Fence(3)),
            1 => self.chance.pick(&past).map_or(Fence(4), |(fence, _)| fence),
            _ => past.last().map_or(Fence(5), |(fence, _)| *fence),
        }
    }

    fn opening(&mut self) -> OpenSession {
        let host = self.host();
        let host = Some(host).filter(|_| self.chance.one_in(2));
        let ttl = Duration::from_millis([0, 500, 5_000][self.chance.below(3)]);
        OpenSession { ttl, about: About { label: "me".into(), host, fast_release: self.chance.one_in(3) } }
    }

    /// A run of one of the nodes that come and go.
    fn host(&mut self) -> Host {
        let node = NodeId(1 + self.chance.below(3) as u64);
        let known = self.naive.content.nodes.iter().find(|known| known.node == node);
        let newest = known.map_or(1, |known| known.incarnation.0);
        Host { node, incarnation: Incarnation((newest + self.chance.below(3) as u64).saturating_sub(1)) }
    }

    /// A session of any kind, living or not.
    fn any_session(&mut self) -> SessionId {
        let sessions = self.naive.sessions();
        if self.chance.one_in(4) {
            SessionId(self.chance.below(50) as u64)
        } else {
            self.chance.pick(&sessions).unwrap_or(SessionId(1))
        }
    }

    fn session(&mut self) -> SessionId {
        let sessions = if self.chance.one_in(4) {
            self.naive.sessions()
        } else {
            self.naive.content.nodes.iter().map(|node| node.session).collect()
        };
        self.chance.pick(&sessions).unwrap_or(SessionId(self.chance.below(50) as u64))
    }
}

/// Whether this says of an attempt that it never started (F8).
fn was_never_started(command: &Option<Command>, fence: Fence) -> bool {
    match command {
        Some(Command::Master(MasterCommand::Release { cause, .. })) => *cause == ReleaseCause::HandedBack,
        Some(Command::Master(MasterCommand::EndNode { begun, .. })) => !begun.contains(fence),
        _ => false,
    }
}

/// Applies a command, or begins an epoch if there is none.
fn apply(state: &mut State, time: ClusterTime, command: &Option<Command>) -> (Answer, Vec<ClusterChange>) {
    let mut changes = Vec::new();
    let answer = match command {
        Some(command) => state.apply(time, command, &mut changes),
        None => {
            state.begin_epoch(time, &mut changes);
            Answer::Ok
        }
    };
    (answer, changes)
}

/// A small generator (splitmix64): the same seed, the same run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let place = self.below(from.len());
        Some(from[place].clone())
    }
}

/// One right of each kind.
fn rights() -> Vec<RightId> {
    use RightKind::*;
    [Lock, Election, Semaphore, Group, Barrier, Once, Queue].map(|kind| RightId::new(kind, "a")).into()
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What the random commands must have met, or they test less than they seem to.
const RULES: [&str; 40] = [
    "answer again",
    "ahead of the window",
    "cancelled",
    "conflict",
    "died too often",
    "done",
    "effects",
    "effects refused",
    "ended",
    "expired client",
    "expired node",
    "failed",
    "forgotten",
    "granted together",
    "granted with its submission",
    "handed on",
    "held",
    "in line",
    "judged again",
    "key of a session",
    "key out of time",
    "late",
    "late again",
    "lost",
    "many claims ended",
    "no session",
    "not found",
    "not held",
    "once key",
    "older run",
    "out of time",
    "proven dead",
    "released",
    "retried",
    "session expired",
    "settled",
    "stale",
    "the other branch",
    "transaction",
    "void",
];
