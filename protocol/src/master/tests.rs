//! One sentence per rule. The log is a real [`State`] to which proposals are applied when the test says so.

use std::time::Duration;

use bytes::Bytes;

use super::decisions::UNDER_WAY_MAX;
use super::*;
use crate::effects::{Local, Outgoing};
use crate::message::Body;
use crate::profile::Profile;
use crate::replica;
use crate::state::{
    Answer, Begun, ClusterChange, Command, Delivery, Host, MasterCommand, Offer, Operation, Outcome, Refused,
    ReleaseCause, State, TaskSpec, TaskState, Ticket,
};
use crate::types::{Attempt, ClusterTime, Fence, Seq, SessionId, TaskId};
use crate::worker::{Held, ToMaster};

const OWN: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const LAN: Profile = Profile::LAN;
const MS: Duration = Duration::from_millis(1);

/// A master, the log it proposes to, and what it said since it was last asked.
struct Bench {
    mastership: Mastership,
    state: State,
    now: Nanos,
    epoch: Epoch,
    effects: Effects,
    client: (SessionId, Seq),
}

impl Bench {
    /// A master in epoch 1, linked to B and C; no worker has said anything.
    fn new() -> Self {
        let mut state = State::default();
        let now = Nanos(60_000_000_000);
        let register = Command::Register { ttl: Duration::from_secs(3000) };
        let Answer::Registered(session) = state.apply(time(now), &register, &mut Vec::new()) else {
            panic!("no session")
        };
        let mut bench = Self {
            mastership: Mastership::new(OWN, LAN),
            state,
            now,
            epoch: Epoch(1),
            effects: Effects::new(),
            client: (session, Seq(0)),
        };
        bench.link_up(B);
        bench.link_up(C);
        bench.begin(1);
        bench
    }

    /// The workers of these nodes are here, with so many slots each.
    fn with_workers(workers: &[(NodeId, u32)]) -> Self {
        let mut bench = Self::new();
        for &(node, slots) in workers {
            bench.hello(node, slots, &[]);
        }
        bench.settle();
        bench.said();
        bench
    }

    fn begin(&mut self, epoch: u64) {
        self.epoch = Epoch(epoch);
        let mut view = self.state.master_view(self.epoch);
        view.time = time(self.now);
        self.step(Input::Begin(Box::new(view)));
    }

    fn step(&mut self, input: Input) {
        self.mastership.step(self.now, input, &mut self.effects);
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(Input::Tick);
    }

    fn link_up(&mut self, node: NodeId) {
        self.step(Input::LinkUp { node, incarnation: Incarnation(1) });
    }

    fn link_down(&mut self, node: NodeId) {
        self.step(Input::LinkDown { node, incarnation: Incarnation(1) });
    }

    fn evidence(&mut self, node: NodeId) {
        self.step(Input::Evidence { node, incarnation: Incarnation(1) });
    }

    fn hear(&mut self, from: NodeId, message: ToMaster) {
        self.step(Input::Message { from, incarnation: Incarnation(1), message });
    }

    fn hello(&mut self, from: NodeId, slots: u32, held: &[Held]) {
        self.hello_offering(from, Offer { slots, ..offer() }, held);
    }

    fn hello_offering(&mut self, from: NodeId, offer: Offer, held: &[Held]) {
        let (epoch, sent) = (self.epoch, self.now);
        self.hear(from, ToMaster::Hello { epoch, offer, held: held.to_vec(), sent });
    }

    fn renew(&mut self, from: NodeId, held: &[Held], seen: u64) {
        let session = self.session(from);
        let (epoch, sent) = (self.epoch, self.now);
        self.hear(from, ToMaster::Renew { epoch, session, held: held.to_vec(), seen: Fence(seen), sent });
    }

    /// What was proposed since.
    fn proposed(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.effects.local)
            .into_iter()
            .flat_map(|local| match local {
                Local::Replica(
                    replica::Input::Propose { epoch, commands } | replica::Input::Placed { epoch, commands },
                ) => {
                    assert_eq!(epoch, self.epoch);
                    commands
                }
                other => panic!("a master tells the replica alone: {other:?}"),
            })
            .collect()
    }

    /// Commits these and tells the master.
    fn commit(&mut self, commands: &[Command]) -> Vec<Answer> {
        let mut changes = Vec::new();
        let answers = commands.iter().map(|command| self.state.apply(time(self.now), command, &mut changes)).collect();
        self.step(Input::Applied { epoch: self.epoch, time: time(self.now), changes });
        answers
    }

    /// Commits whatever is proposed until nothing more is.
    fn settle(&mut self) {
        for _ in 0..100 {
            let commands = self.proposed();
            if commands.is_empty() {
                return;
            }
            self.commit(&commands);
        }
        panic!("the master never rests");
    }

    fn operate(&mut self, operation: Operation) -> Answer {
        self.client.1 = self.client.1.next();
        let (session, seq) = self.client;
        self.commit(&[Command::Client { session, seq, first_incomplete: seq, operation }]).remove(0)
    }

    fn submit(&mut self, spec: TaskSpec) -> TaskId {
        self.submit_all(vec![spec])[0]
    }

    fn submit_all(&mut self, specs: Vec<TaskSpec>) -> Vec<TaskId> {
        match self.operate(Operation::Submit(specs)) {
            Answer::Submitted(tasks) => tasks.into_iter().map(|submitted| submitted.task).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn said(&mut self) -> Vec<(NodeId, ToWorker)> {
        std::mem::take(&mut self.effects.send)
            .into_iter()
            .map(|Outgoing { to, body, .. }| match body {
                Body::ToWorker(message) => (to, message),
                other => panic!("a master speaks to workers alone: {other:?}"),
            })
            .collect()
    }

    /// Who was told to run what.
    fn dispatched(&mut self) -> Vec<(NodeId, TaskId)> {
        self.said()
            .into_iter()
            .filter_map(|(to, message)| match message {
                ToWorker::Dispatch { grant, .. } => Some((to, grant.attempt.task)),
                _ => None,
            })
            .collect()
    }

    /// Who was told to stop what.
    fn cancelled(&mut self) -> Vec<(NodeId, Fence)> {
        self.said()
            .into_iter()
            .filter_map(|(to, message)| match message {
                ToWorker::Cancel { fence, .. } => Some((to, fence)),
                _ => None,
            })
            .collect()
    }

    fn session(&self, node: NodeId) -> SessionId {
        let view = self.state.master_view(self.epoch);
        view.nodes.iter().find(|session| session.node == node).expect("the node has a session").session
    }

    /// The worker and the grant of a task.
    fn grant(&self, task: TaskId) -> (NodeId, Held) {
        match self.state.task_state(task) {
            Some(TaskState::Assigned { number, fence, node, .. }) => {
                (node, Held { attempt: Attempt { task, number }, fence })
            }
            other => panic!("{task} has no grant: {other:?}"),
        }
    }

    fn is_granted(&self, task: TaskId) -> bool {
        matches!(self.state.task_state(task), Some(TaskState::Assigned { .. }))
    }
}

fn time(now: Nanos) -> ClusterTime {
    ClusterTime(now.0 / 1_000_000)
}

fn offer() -> Offer {
    Offer { slots: 1, kinds: ["echo".to_owned()].into(), ..Offer::default() }
}

fn echo() -> TaskSpec {
    TaskSpec::new("echo", Bytes::new())
}

fn once() -> TaskSpec {
    TaskSpec { delivery: Delivery::AtMostOnce, retries: 0, ..echo() }
}

fn done() -> Outcome {
    Outcome::done(Bytes::from_static(b"x"))
}

fn heres(said: &[(NodeId, ToWorker)]) -> Vec<NodeId> {
    said.iter().filter(|(_, message)| matches!(message, ToWorker::Here { .. })).map(|&(to, _)| to).collect()
}

fn releases(commands: &[Command]) -> Vec<(TaskId, ReleaseCause)> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Master(MasterCommand::Release { task, cause, .. }) => Some((*task, *cause)),
            _ => None,
        })
        .collect()
}

// ---- sessions ----

#[test]
fn a_master_says_so_at_once_on_every_new_link_and_again_to_whoever_is_silent() {
    let mut bench = Bench::new();
    assert_eq!(heres(&bench.said()), [OWN, B, C]);
    bench.hello(B, 1, &[]);
    bench.wait(LAN.renewal);
    assert_eq!(heres(&bench.said()), [OWN, C]);
    bench.link_down(B);
    bench.link_up(B);
    assert_eq!(heres(&bench.said()), [B]);
}

#[test]
fn a_worker_that_says_hello_is_welcome_when_its_session_is_in_the_log() {
    let mut bench = Bench::new();
    bench.said();
    let sent = bench.now;
    bench.hello(B, 1, &[]);
    bench.hello(B, 1, &[]);
    assert_eq!(bench.said(), []);
    let commands = bench.proposed();
    assert!(matches!(commands[..], [Command::Master(MasterCommand::OpenNode { node: B, .. })]), "{commands:?}");
    bench.now = bench.now + 5 * MS;
    bench.commit(&commands);
    let session = bench.session(B);
    assert_eq!(bench.said(), [(B, ToWorker::Welcome { epoch: Epoch(1), session, ttl: LAN.session, sent })]);
}

#[test]
fn renewals_are_gathered_for_a_heartbeat_and_count_when_they_are_applied() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    bench.wait(LAN.renewal);
    bench.said();
    let sent = bench.now;
    bench.renew(B, &[], 0);
    bench.wait(10 * MS);
    bench.renew(C, &[], 0);
    assert_eq!(bench.proposed(), []);
    bench.wait(LAN.heartbeat - 10 * MS);
    let sessions = vec![bench.session(B), bench.session(C)];
    let commands = bench.proposed();
    assert_eq!(commands, [Command::Renew { sessions }]);
    assert_eq!(bench.said(), []);
    bench.commit(&commands);
    let welcomed = bench.said();
    assert!(
        matches!(welcomed[..], [(B, ToWorker::Welcome { sent: first, .. }), (C, ToWorker::Welcome { .. })] if first == sent)
    );
}

#[test]
fn a_renewal_is_not_answered_by_an_entry_that_is_older_than_its_question() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.wait(LAN.renewal);
    bench.renew(B, &[], 0);
    bench.wait(LAN.heartbeat);
    let first = bench.proposed();
    bench.said();
    // Said to be dropped, although it was not: it is applied after the worker has asked again.
    bench.step(Input::Dropped { epoch: Epoch(1) });
    let stamped = time(bench.now);
    bench.wait(LAN.renewal);
    bench.renew(B, &[], 0);
    let asked = bench.now;
    bench.wait(LAN.heartbeat);
    let mut changes = Vec::new();
    bench.state.apply(stamped, &first[0], &mut changes);
    bench.step(Input::Applied { epoch: Epoch(1), time: stamped, changes });
    let welcomes = |said: Vec<(NodeId, ToWorker)>| -> Vec<Nanos> {
        said.into_iter()
            .filter_map(|(_, message)| if let ToWorker::Welcome { sent, .. } = message { Some(sent) } else { None })
            .collect()
    };
    assert!(!welcomes(bench.said()).contains(&asked));
    bench.wait(LAN.heartbeat);
    bench.settle();
    bench.wait(LAN.heartbeat);
    bench.settle();
    assert!(welcomes(bench.said()).contains(&asked));
}

#[test]
fn whoever_renews_a_session_that_does_not_live_is_told_so() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let (epoch, sent) = (Epoch(1), bench.now);
    let renew = ToMaster::Renew { epoch, session: SessionId(99), held: Vec::new(), seen: Fence(0), sent };
    bench.hear(B, renew);
    assert_eq!(bench.said(), [(B, ToWorker::Unknown { epoch })]);
}

#[test]
fn a_session_that_nobody_renews_ends_by_an_entry_and_its_attempts_go_again() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, held) = bench.grant(task);
    let other = if holder == B { C } else { B };
    bench.link_down(holder);
    for _ in 0..6 {
        bench.wait(LAN.renewal);
        bench.renew(other, &[], 0);
        bench.wait(LAN.heartbeat);
        bench.settle();
    }
    let (now_holder, now_held) = bench.grant(task);
    assert_eq!((now_holder, now_held.attempt.number), (other, held.attempt.number + 1));
}

#[test]
fn what_is_heard_in_time_does_not_expire_in_the_same_entry() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.wait(LAN.session - LAN.heartbeat);
    bench.renew(B, &[], 0);
    bench.wait(2 * LAN.heartbeat);
    let commands = bench.proposed();
    assert!(matches!(commands[0], Command::Renew { .. }), "{commands:?}");
    bench.commit(&commands);
    bench.session(B);
}

#[test]
fn a_worker_whose_offer_changes_while_its_session_opens_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.hello(B, 3, &[]);
    let first = bench.proposed();
    bench.hello(B, 0, &[]);
    bench.commit(&first);
    bench.settle();
    bench.submit(echo());
    assert_eq!(bench.proposed(), [], "it has no slots any more");
    let view = bench.state.master_view(Epoch(1));
    assert_eq!(view.nodes[0].offer.slots, 0);
}

#[test]
fn goodbye_ends_the_session_and_moves_what_was_on_its_way() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, _) = bench.grant(task);
    let session = bench.session(holder);
    bench.hear(holder, ToMaster::Goodbye { session, begun: Begun::default() });
    bench.settle();
    assert!(!bench.state.has_session(session));
    assert_ne!(bench.grant(task).0, holder);
}

#[test]
fn evidence_behind_a_goodbye_counts_no_death() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    let (session, begun) = (bench.session(B), Begun { fences: vec![held.fence], ..Begun::default() });
    bench.hear(B, ToMaster::Goodbye { session, begun });
    bench.step(Input::LinkDown { node: B, incarnation: Incarnation(1) });
    bench.step(Input::Evidence { node: B, incarnation: Incarnation(1) });
    let is_release = |command: &Command| matches!(command, Command::Master(MasterCommand::Release { .. }));
    assert!(!bench.proposed().iter().any(is_release));
}

// ---- placement ----

/// A submission of so many tasks that is about to become an entry, and what the master is asked about it.
fn coming(bench: &mut Bench, count: usize) -> (Command, Vec<Coming>) {
    coming_as(bench, vec![echo(); count])
}

fn coming_as(bench: &mut Bench, specs: Vec<TaskSpec>) -> (Command, Vec<Coming>) {
    bench.client.1 = bench.client.1.next();
    let (session, seq) = bench.client;
    let coming = specs.iter().zip(0..).map(|(spec, place)| Coming {
        ticket: Ticket { client: session, seq, place },
        kind: spec.kind.clone(),
        needs: spec.needs.clone(),
        priority: spec.priority,
    });
    let tasks = coming.collect();
    (Command::Client { session, seq, first_incomplete: seq, operation: Operation::Submit(specs) }, tasks)
}

#[test]
fn what_is_about_to_be_recorded_is_granted_in_the_same_entry_as_far_as_there_is_room() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let (submission, tasks) = coming(&mut bench, 3);
    let epoch = bench.epoch;
    bench.step(Input::Submitting { epoch, tasks: tasks.clone() });
    let mut entry = vec![submission];
    entry.extend(bench.proposed());
    assert_eq!(entry.len(), 3, "two of them have room");
    bench.step(Input::Submitting { epoch, tasks });
    assert_eq!(bench.proposed(), [], "a request that comes twice asks for no more");
    bench.commit(&entry);
    let ids = [TaskId(1), TaskId(2)];
    assert_eq!(bench.dispatched(), [(B, ids[0]), (C, ids[1])]);
    assert_eq!(bench.proposed(), [], "the third waits for a slot");
    let (node, held) = bench.grant(ids[0]);
    let outcome = Outcome::done(Bytes::new());
    bench.hear(node, ToMaster::Finish { task: ids[0], fence: held.fence, outcome });
    bench.settle();
    assert_eq!(bench.dispatched(), [(B, TaskId(3))]);
}

#[test]
fn of_what_is_about_to_be_recorded_the_highest_priority_is_granted_first() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let specs = [0, 100, 0, 100].map(|priority| TaskSpec { priority, ..echo() });
    let (submission, tasks) = coming_as(&mut bench, specs.to_vec());
    let epoch = bench.epoch;
    bench.step(Input::Submitting { epoch, tasks });
    let mut entry = vec![submission];
    entry.extend(bench.proposed());
    bench.commit(&entry);
    assert_eq!(bench.dispatched(), [(B, TaskId(2)), (C, TaskId(4))]);
}

#[test]
fn a_grant_whose_submission_was_refused_takes_no_room() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let (_, tasks) = coming(&mut bench, 1);
    let epoch = bench.epoch;
    bench.step(Input::Submitting { epoch, tasks });
    let grant = bench.proposed();
    assert_eq!(grant.len(), 1);
    assert_eq!(bench.commit(&grant), [Answer::Refused(Refused::NotFound)]);
    let task = bench.submit(echo());
    bench.settle();
    assert_eq!(bench.dispatched(), [(B, task)]);
}

#[test]
fn what_comes_does_not_overtake_what_waits() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let first = bench.submit_all(vec![echo(); 2])[0];
    let commands = bench.proposed();
    bench.commit(&commands);
    let (_, held) = bench.grant(first);
    let outcome = Outcome::done(Bytes::new());
    bench.hear(B, ToMaster::Finish { task: first, fence: held.fence, outcome });
    let finish = bench.proposed();
    let (_, tasks) = coming(&mut bench, 1);
    let epoch = bench.epoch;
    bench.step(Input::Submitting { epoch, tasks });
    assert_eq!(bench.proposed(), []);
    bench.commit(&finish);
    assert_eq!(bench.proposed().len(), 1, "the oldest is next");
}

#[test]
fn nothing_is_dispatched_before_its_grant_is_applied() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    let commands = bench.proposed();
    assert!(matches!(commands[..], [Command::Master(MasterCommand::Assign { .. })]));
    assert_eq!(bench.dispatched(), []);
    bench.wait(LAN.heartbeat);
    assert_eq!(bench.proposed(), [], "and nothing is proposed twice");
    bench.commit(&commands);
    assert_eq!(bench.dispatched(), [(B, task)]);
}

#[test]
fn the_least_loaded_worker_gets_it_and_never_more_than_it_has_slots() {
    let mut bench = Bench::with_workers(&[(OWN, 2), (B, 2), (C, 4)]);
    let tasks = bench.submit_all(vec![echo(); 9]);
    bench.settle();
    let mut counts = std::collections::BTreeMap::new();
    for (node, _) in bench.dispatched() {
        *counts.entry(node).or_insert(0) += 1;
    }
    assert_eq!(counts, [(OWN, 2), (B, 2), (C, 4)].into());
    assert!(!bench.is_granted(tasks[8]));
    let (node, held) = bench.grant(tasks[0]);
    bench.hear(node, ToMaster::Finish { task: tasks[0], fence: held.fence, outcome: done() });
    bench.settle();
    assert_eq!(bench.grant(tasks[8]).0, node);
}

#[test]
fn on_a_tie_the_masters_own_worker_comes_last() {
    let mut bench = Bench::with_workers(&[(OWN, 1), (B, 1), (C, 1)]);
    let tasks = bench.submit_all(vec![echo(); 3]);
    bench.settle();
    let order: Vec<NodeId> = tasks.iter().map(|&task| bench.grant(task).0).collect();
    assert_eq!(order, [B, C, OWN]);
}

#[test]
fn only_a_worker_with_the_handler_and_the_labels_gets_it() {
    let mut bench = Bench::new();
    let gpu = [("gpu".to_owned(), "yes".to_owned())];
    bench.hello_offering(B, Offer { slots: 9, ..offer() }, &[]);
    bench.hello_offering(C, Offer { slots: 9, labels: gpu.clone().into(), ..offer() }, &[]);
    bench.settle();
    let labelled = bench.submit_all(vec![TaskSpec { needs: gpu.into(), ..echo() }; 3]);
    let foreign = bench.submit(TaskSpec::new("paint", Bytes::new()));
    bench.settle();
    assert!(labelled.iter().all(|&task| bench.grant(task).0 == C));
    assert!(!bench.is_granted(foreign));
    bench.hello_offering(B, Offer { slots: 9, kinds: ["paint".to_owned()].into(), ..offer() }, &[]);
    bench.settle();
    assert_eq!(bench.grant(foreign).0, B, "until somebody says that it can");
}

#[test]
fn the_highest_priority_goes_first_then_the_oldest() {
    let mut bench = Bench::new();
    let specs = [0, 5, 5].map(|priority| TaskSpec { priority, ..echo() });
    let tasks = bench.submit_all(specs.to_vec());
    bench.hello(B, 1, &[]);
    bench.settle();
    let mut order = Vec::new();
    for _ in 0..3 {
        let task = tasks.iter().copied().find(|&task| bench.is_granted(task)).expect("one is granted");
        let (node, held) = bench.grant(task);
        bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: done() });
        bench.settle();
        order.push(task);
    }
    assert_eq!(order, [tasks[1], tasks[2], tasks[0]]);
}

#[test]
fn a_task_that_failed_waits_out_its_backoff() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(TaskSpec { backoff: 200 * MS, ..echo() });
    bench.settle();
    let (node, held) = bench.grant(task);
    let outcome = Outcome::Failed { message: "no".into(), retry: true, output: Bytes::new() };
    bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome });
    bench.settle();
    bench.wait(199 * MS);
    bench.settle();
    assert!(!bench.is_granted(task));
    let wait = bench.mastership.next_deadline().since(bench.now);
    assert!(wait <= 52 * MS, "it wakes by itself, in {wait:?}");
    bench.wait(wait);
    bench.settle();
    assert!(bench.is_granted(task));
}

#[test]
fn what_was_handed_back_goes_elsewhere_and_nothing_more_comes_until_the_next_report() {
    let mut bench = Bench::with_workers(&[(B, 2), (C, 1)]);
    let tasks = bench.submit_all(vec![echo(); 2]);
    bench.settle();
    let (_, held) = bench.grant(tasks[0]);
    assert_eq!((bench.grant(tasks[0]).0, bench.grant(tasks[1]).0), (B, C));
    bench.said();
    bench.hear(B, ToMaster::HandBack { task: tasks[0], fence: held.fence, never_started: true });
    bench.settle();
    assert!(!bench.is_granted(tasks[0]), "C is full and B said that it has no room");
    assert_eq!(bench.cancelled(), []);
    bench.renew(B, &[], 99);
    bench.settle();
    assert_eq!(bench.grant(tasks[0]).0, B);
}

#[test]
fn what_was_on_its_way_to_a_worker_that_says_goodbye_goes_to_another_one() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(once());
    let session = bench.session(B);
    bench.hear(B, ToMaster::Goodbye { session, begun: Begun::default() });
    bench.settle();
    assert!(!bench.is_granted(task), "the grant was in the log before the goodbye");
    bench.hello(C, 1, &[]);
    bench.settle();
    assert_eq!(bench.grant(task).0, C);
}

#[test]
fn no_more_than_a_bounded_number_of_decisions_is_under_way() {
    let mut bench = Bench::with_workers(&[(B, 10_000)]);
    for _ in 0..2 {
        bench.submit_all(vec![echo(); UNDER_WAY_MAX]);
    }
    assert_eq!(bench.proposed().len(), UNDER_WAY_MAX);
}

#[test]
fn decisions_that_were_dropped_are_made_again_a_heartbeat_later() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    let first = bench.proposed();
    bench.step(Input::Dropped { epoch: Epoch(1) });
    assert_eq!(bench.proposed(), []);
    assert_eq!(bench.mastership.next_deadline(), bench.now + LAN.heartbeat);
    bench.wait(LAN.heartbeat);
    let second = bench.proposed();
    assert_eq!(first, second);
    bench.commit(&[first, second].concat());
    assert_eq!(bench.dispatched(), [(B, task)], "even if they were not dropped after all");
}

#[test]
fn what_was_decided_or_applied_in_another_epoch_changes_nothing() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    let old = bench.proposed();
    bench.step(Input::End { epoch: Epoch(1) });
    bench.begin(3);
    bench.said();
    let mut changes = Vec::new();
    bench.state.clone().apply(time(bench.now), &old[0], &mut changes);
    bench.step(Input::Applied { epoch: Epoch(1), time: time(bench.now), changes });
    bench.step(Input::End { epoch: Epoch(1) });
    assert_eq!(bench.mastership.epoch(), Some(Epoch(3)));
    assert_eq!(bench.dispatched(), []);
    bench.hello(B, 1, &[]);
    bench.settle();
    assert_eq!(bench.dispatched(), [(B, task)]);
}

// ---- loss ----

#[test]
fn evidence_of_death_moves_at_least_once_attempts_at_once_and_no_others() {
    let mut bench = Bench::with_workers(&[(B, 2)]);
    let [twice, single] = bench.submit_all(vec![echo(), once()])[..] else { panic!("two tasks") };
    bench.settle();
    bench.hello(C, 2, &[]);
    bench.settle();
    bench.said();
    bench.link_down(B);
    assert_eq!(bench.proposed(), [], "a broken link moves no right");
    bench.evidence(B);
    let commands = bench.proposed();
    assert_eq!(releases(&commands), [(twice, ReleaseCause::Evidence)]);
    bench.commit(&commands);
    bench.settle();
    assert_eq!(bench.dispatched(), [(C, twice)]);
    assert_eq!(bench.grant(single).0, B);
}

/// The client sessions in the process of a node's first run may end without proof.
fn released(node: NodeId) -> Command {
    Command::Master(MasterCommand::EndReleased(Host { node, incarnation: Incarnation(1) }))
}

#[test]
fn evidence_of_death_goes_into_the_log_once_and_again_only_if_it_was_dropped() {
    // F12: which client sessions end is for the log to say.
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.link_down(B);
    bench.evidence(B);
    assert_eq!(bench.proposed(), [released(B)]);
    bench.evidence(B);
    assert_eq!(bench.proposed(), []);
    bench.step(Input::Dropped { epoch: Epoch(1) });
    bench.wait(LAN.heartbeat);
    assert_eq!(bench.proposed(), [released(B)]);
    bench.commit(&[released(B)]);
    bench.step(Input::Dropped { epoch: Epoch(1) });
    bench.wait(LAN.heartbeat);
    assert_eq!(bench.proposed(), []);
}

#[test]
fn evidence_that_came_before_the_mastership_counts_when_it_begins() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, _) = bench.grant(task);
    bench.step(Input::End { epoch: Epoch(1) });
    bench.link_down(holder);
    bench.evidence(holder);
    bench.begin(2);
    assert_eq!(releases(&bench.proposed()), [(task, ReleaseCause::Evidence)]);
}

#[test]
fn evidence_against_an_older_run_or_a_linked_one_is_ignored() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.submit(echo());
    bench.settle();
    bench.evidence(B);
    assert_eq!(bench.proposed(), []);
    bench.link_down(B);
    bench.step(Input::Evidence { node: B, incarnation: Incarnation(0) });
    assert_eq!(bench.proposed(), []);
}

#[test]
fn a_node_that_seems_dead_or_has_no_link_gets_nothing_until_it_says_hello() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.link_down(B);
    let task = bench.submit(echo());
    assert_eq!(bench.proposed(), []);
    bench.evidence(B);
    bench.link_up(B);
    bench.wait(MS);
    assert_eq!(bench.proposed(), [released(B)]);
    bench.hello(B, 1, &[]);
    bench.settle();
    assert_eq!(bench.grant(task).0, B);
}

#[test]
fn what_a_lost_worker_certainly_never_heard_of_goes_elsewhere_even_if_it_may_run_once_only() {
    let mut bench = Bench::with_workers(&[(B, 2)]);
    let [twice, single] = bench.submit_all(vec![echo(), once()])[..] else { panic!("two tasks") };
    let assigns = bench.proposed();
    bench.link_down(B);
    bench.commit(&assigns);
    let commands = bench.proposed();
    assert_eq!(releases(&commands), [(twice, ReleaseCause::HandedBack), (single, ReleaseCause::HandedBack)]);
    bench.commit(&commands);
    assert_eq!(bench.dispatched(), []);
    assert!(!bench.is_granted(single), "it has not begun");
}

#[test]
fn a_restarted_node_opens_a_new_session_and_what_its_older_run_held_goes_again() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    bench.said();
    bench.link_down(B);
    bench.step(Input::LinkUp { node: B, incarnation: Incarnation(2) });
    let (epoch, sent) = (Epoch(1), bench.now);
    let message = ToMaster::Hello { epoch, offer: offer(), held: Vec::new(), sent };
    bench.step(Input::Message { from: B, incarnation: Incarnation(2), message });
    bench.settle();
    let (node, again) = bench.grant(task);
    assert_eq!((node, again.attempt.number), (B, held.attempt.number + 1));
    assert_eq!(bench.dispatched(), [(B, task)]);
}

// ---- reconciliation ----

#[test]
fn what_was_seen_and_is_not_held_is_dispatched_again_and_taken_back_when_the_worker_says_that_it_is_gone() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    bench.said();
    bench.renew(B, &[held], held.fence.0);
    assert_eq!(bench.dispatched(), [], "it is held");
    bench.renew(B, &[], held.fence.0);
    assert_eq!(bench.dispatched(), [(B, task)]);
    assert_eq!(bench.proposed(), [], "it may have been lost on the way");
    bench.hear(B, ToMaster::HandBack { task, fence: held.fence, never_started: false });
    assert_eq!(releases(&bench.proposed()), [(task, ReleaseCause::NotHeld)]);
    bench.renew(B, &[], held.fence.0);
    assert_eq!((bench.dispatched(), bench.proposed()), (vec![], vec![]), "once");
}

#[test]
fn a_dispatch_that_got_lost_is_found_missing_in_the_second_report() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(once());
    bench.settle();
    assert_eq!(bench.dispatched(), [(B, task)]);
    bench.renew(B, &[], 0);
    assert_eq!(bench.dispatched(), [], "they may have crossed");
    bench.renew(B, &[], 0);
    assert_eq!(bench.dispatched(), [(B, task)]);
    assert_eq!(releases(&bench.proposed()), []);
}

#[test]
fn what_was_not_dispatched_on_this_link_is_dispatched_again_and_not_taken_back() {
    let mut bench = Bench::with_workers(&[(B, 2)]);
    let tasks = bench.submit_all(vec![echo(); 2]);
    bench.settle();
    bench.said();
    let (_, first) = bench.grant(tasks[0]);
    bench.link_down(B);
    bench.link_up(B);
    bench.renew(B, &[], 999);
    assert_eq!((bench.dispatched(), bench.proposed()), (vec![], vec![]), "not before it says hello on the new link");
    bench.hello(B, 2, &[first]);
    assert_eq!(bench.dispatched(), [], "nor before it knows that its session lives");
    let commands = bench.proposed();
    assert!(matches!(commands[..], [Command::Renew { .. }]), "{commands:?}");
    bench.commit(&commands);
    assert_eq!(bench.dispatched(), [(B, tasks[1])]);
    assert_eq!(bench.proposed(), []);
}

#[test]
fn a_new_master_dispatches_again_what_the_old_one_granted() {
    let mut bench = Bench::with_workers(&[(B, 2)]);
    let tasks = bench.submit_all(vec![echo(); 2]);
    bench.settle();
    let (_, first) = bench.grant(tasks[0]);
    bench.step(Input::End { epoch: Epoch(1) });
    bench.begin(2);
    bench.said();
    bench.hello(B, 2, &[first]);
    let commands = bench.proposed();
    assert_eq!(releases(&commands), []);
    bench.commit(&commands);
    assert_eq!(bench.dispatched(), [(B, tasks[1])]);
}

#[test]
fn what_is_held_without_a_right_is_stopped() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let stray = Held { attempt: Attempt { task: TaskId(77), number: 1 }, fence: Fence(1) };
    bench.renew(B, &[stray], 0);
    assert_eq!(bench.cancelled(), [(B, Fence(1))]);
}

#[test]
fn an_attempt_that_lasts_too_long_is_taken_back_and_stopped() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(TaskSpec { timeout: 100 * MS, ..echo() });
    bench.settle();
    let (_, held) = bench.grant(task);
    bench.said();
    bench.wait(100 * MS);
    assert_eq!(bench.proposed(), [], "its worker stops it first");
    bench.wait(LAN.heartbeat);
    let commands = bench.proposed();
    assert_eq!(releases(&commands), [(task, ReleaseCause::TimedOut)]);
    bench.commit(&commands);
    assert_eq!(bench.cancelled(), [(B, held.fence)]);
}

// ---- results ----

#[test]
fn a_result_is_judged_once_and_its_worker_may_forget_it() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    bench.said();
    let finish = ToMaster::Finish { task, fence: held.fence, outcome: done() };
    bench.hear(B, finish.clone());
    bench.hear(B, finish);
    let commands = bench.proposed();
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert_eq!(bench.said(), []);
    bench.commit(&commands);
    let ack = ToWorker::FinishAck { epoch: Epoch(1), task, fence: held.fence, recorded: true };
    assert_eq!(bench.said(), [(B, ack)], "and nobody is told to stop");
}

#[test]
fn a_result_of_a_worker_that_was_replaced_is_judged_too_and_refused() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, held) = bench.grant(task);
    bench.link_down(holder);
    bench.evidence(holder);
    bench.settle();
    bench.link_up(holder);
    bench.said();
    bench.hear(holder, ToMaster::Finish { task, fence: held.fence, outcome: done() });
    bench.hello(holder, 1, &[held]);
    assert_eq!(bench.cancelled(), [], "what waits for its judgement is not stopped");
    bench.settle();
    let ack = ToWorker::FinishAck { epoch: Epoch(1), task, fence: held.fence, recorded: false };
    assert!(bench.said().contains(&(holder, ack)));
    assert!(bench.is_granted(task));
}

#[test]
fn a_cancelled_task_is_stopped_at_once() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    bench.said();
    bench.operate(Operation::Cancel { task, reason: "enough".into() });
    assert_eq!(bench.cancelled(), [(B, held.fence)]);
}

#[test]
fn a_void_decision_is_not_repeated_at_once() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.submit(echo());
    let assign = bench.proposed();
    let Command::Master(MasterCommand::Assign { attempt, .. }) = assign[0] else { panic!("{assign:?}") };
    let changes = vec![ClusterChange::Void { task: Some(attempt.task) }];
    bench.step(Input::Applied { epoch: Epoch(1), time: time(bench.now), changes });
    assert_eq!(bench.proposed(), []);
    bench.wait(LAN.heartbeat);
    assert_eq!(bench.proposed(), assign);
}

#[test]
fn large_results_go_into_the_log_a_few_at_a_time_and_each_once() {
    let mut bench = Bench::with_workers(&[(B, 12)]);
    let tasks = bench.submit_all(vec![echo(); 12]);
    bench.settle();
    for &task in &tasks {
        let (node, held) = bench.grant(task);
        bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: Outcome::done(vec![7; 1 << 20]) });
    }
    let mut recorded = Vec::new();
    loop {
        let commands = bench.proposed();
        let results = commands.iter().filter_map(|command| match command {
            Command::Master(MasterCommand::Finish { task, .. }) => Some(*task),
            _ => None,
        });
        let results: Vec<TaskId> = results.collect();
        if results.is_empty() {
            break;
        }
        assert!(results.len() <= 2, "{} MiB at once", results.len());
        recorded.extend(results);
        bench.commit(&commands);
    }
    assert_eq!(recorded, tasks);
}

#[test]
fn a_dispatch_that_found_no_room_on_the_link_goes_as_soon_as_there_is_some() {
    let mut bench = Bench::with_workers(&[(B, 8)]);
    let spec = TaskSpec { payload: vec![7; 256 * 1024].into(), ..echo() };
    let tasks = bench.submit_all(vec![spec; 8]);
    bench.settle();
    assert_eq!(bench.dispatched().len(), 8);
    // One went out.
    for &task in &tasks[1..] {
        let (node, held) = bench.grant(task);
        bench.step(Input::Unsent { node, task, fence: held.fence });
    }
    bench.step(Input::Writable { node: B });
    let next: Vec<TaskId> = bench.dispatched().into_iter().map(|(_, task)| task).collect();
    assert_eq!(next, tasks[1..4], "a little more than a link takes, so that it says again when it has room");
    let (_, held) = bench.grant(tasks[3]);
    bench.step(Input::Unsent { node: B, task: tasks[3], fence: held.fence });
    bench.step(Input::Writable { node: B });
    let next: Vec<TaskId> = bench.dispatched().into_iter().map(|(_, task)| task).collect();
    assert_eq!(next, tasks[3..6]);
    // Nobody says that there is room: the reports show what is missing.
    let held: Vec<Held> = tasks[..6].iter().map(|task| bench.grant(*task).1).collect();
    bench.renew(B, &held, held[5].fence.0);
    let next: Vec<TaskId> = bench.dispatched().into_iter().map(|(_, task)| task).collect();
    assert_eq!(next, tasks[6..]);
    // A new link begins anew.
    bench.link_down(B);
    bench.link_up(B);
    bench.step(Input::Writable { node: B });
    assert_eq!(bench.dispatched(), []);
}

#[test]
fn no_result_waits_behind_what_takes_its_right_away() {
    let mut bench = Bench::with_workers(&[(B, 12), (C, 1)]);
    let tasks = bench.submit_all(vec![echo(); 12]);
    bench.settle();
    let of_b = tasks.iter().copied().filter(|task| bench.grant(*task).0 == B).collect::<Vec<_>>();
    for &task in &of_b {
        let (node, held) = bench.grant(task);
        bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: Outcome::done(vec![7; 1 << 20]) });
    }
    bench.link_down(B);
    bench.evidence(B);
    bench.settle();
    for task in of_b {
        assert!(
            matches!(bench.state.task_state(task), Some(TaskState::Done { .. })),
            "{:?}",
            bench.state.task_state(task)
        );
    }
}
