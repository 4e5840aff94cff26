//! What a replica holds for others, and for how long.

use super::*;
use crate::client::patience::{HOLD, WATCH_PATIENCE};
use crate::client::{Consistency, Denied, Request, RequestBody, Response};
use crate::state::{
    Claim, ClaimState, Command, KeyOperation, MasterCommand, Mode, NodeView, Operation, Outcome, Put, Query, Refused,
    ReleaseCause, RightId, RightKind, RightOperation, TaskSpec, TaskState, Transaction, Watch,
};
use crate::types::{Attempt, Incarnation, Revision, Seq, SessionId, TaskId};
use crate::wire;

/// A cluster of one node, and the virtual disk that answers it at once.
struct Alone {
    replica: Replica,
    now: Nanos,
}

impl Alone {
    fn new() -> Self {
        let node = NodeId(1);
        let config = Config {
            node,
            profile: Profile::LAN,
            name: "test".into(),
            join: Vec::new(),
            voters: None,
            seed: 1,
            cluster: ClusterId(7),
            replace_after: REPLACE_AFTER,
            is_forgetful: false,
            compaction: Compaction::default(),
        };
        let replica = Replica::new(config, Durable::fresh(node, Incarnation(1)), Nanos(1));
        let mut alone = Self { replica, now: Nanos(1) };
        for _ in 0..5 {
            alone.pass(Duration::from_secs(1));
        }
        alone
    }

    /// Time passes, and whatever is due happens.
    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(Input::Tick);
    }

    /// Handles one input, and the disk's answers to it; hands out what was answered to clients.
    fn step(&mut self, input: Input) -> Vec<Response> {
        let mut inputs = vec![input];
        let mut responses = Vec::new();
        while let Some(input) = inputs.pop() {
            let mut effects = Effects::new();
            self.replica.step(self.now, input, &mut effects);
            inputs.extend(effects.persist.iter().map(|batch| Input::Persisted { seq: batch.seq }));
            inputs.extend(effects.local.iter().filter_map(|local| match local {
                // Nobody has room.
                Local::Master(master::Input::Submitting { epoch, .. }) => {
                    Some(Input::Placed { epoch: *epoch, commands: Vec::new() })
                }
                _ => None,
            }));
            responses.extend(effects.send.into_iter().filter_map(|outgoing| match outgoing.body {
                crate::message::Body::Response(response) => Some(response),
                _ => None,
            }));
        }
        responses
    }

    /// Registers a client, as request 1.
    fn open_session(&mut self) -> SessionId {
        let ttl = Duration::from_secs(600);
        let answer = self.ask(1, RequestBody::Register { ttl });
        let Some(Answer::Registered(session)) = answer else { panic!("a session opens: {answer:?}") };
        session
    }

    /// Opens the session of a node with so many slots, or changes how many it has; hands out what others are answered by that.
    fn open_node(&mut self, node: NodeId, slots: u32) -> Vec<Response> {
        let (epoch, ttl) = (self.replica.consensus.epoch(), Duration::from_secs(600));
        let offer = crate::state::Offer { slots, ..Default::default() };
        let open = MasterCommand::OpenNode { node, incarnation: Incarnation(1), offer, ttl };
        self.step(Input::Propose { epoch, commands: vec![Command::Master(open)] })
    }

    fn ask(&mut self, number: u64, body: RequestBody) -> Option<Answer> {
        let origin = Origin { node: NodeId(9), number, turn: 0 };
        let request = Request { origin, forwarded: false, body };
        let response = self.step(Input::Request { from: NodeId(9), request }).pop();
        response.map(|response| response.result.expect("this node leads"))
    }
}

#[test]
fn a_task_is_granted_in_the_entry_that_records_it() {
    let mut alone = Alone::new();
    let client = alone.open_session();
    let epoch = alone.replica.consensus.epoch();
    alone.open_node(NodeId(1), 1);
    let session = alone.replica.state.master_view(epoch).nodes[0].session;

    let operation = Operation::Submit(vec![TaskSpec::new("echo", "x")]);
    let body = RequestBody::Write { session: client, seq: Seq(1), first_incomplete: Seq(1), operation };
    let request = Request { origin: Origin { node: NodeId(9), number: 2, turn: 0 }, forwarded: false, body };
    let mut effects = Effects::new();
    alone.replica.step(alone.now, Input::Request { from: NodeId(9), request }, &mut effects);
    assert!(effects.persist.is_empty(), "the entry waits for the master's word");
    let [Local::Master(master::Input::Submitting { tasks, .. })] = &effects.local[..] else { panic!("{effects:?}") };
    let grant = MasterCommand::AssignSubmitted { ticket: tasks[0].ticket, session };

    let before = alone.replica.consensus.last().index;
    alone.step(Input::Placed { epoch, commands: vec![Command::Master(grant)] });
    assert_eq!(alone.replica.consensus.applied(), before.next(), "one entry");
    assert!(matches!(alone.replica.state.task_state(TaskId(1)), Some(TaskState::Assigned { .. })));
}

#[test]
fn a_master_that_says_nothing_delays_an_entry_for_a_moment_only() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let operation = Operation::Submit(vec![TaskSpec::new("echo", "x")]);
    let body = RequestBody::Write { session, seq: Seq(1), first_incomplete: Seq(1), operation };
    let request = Request { origin: Origin { node: NodeId(9), number: 2, turn: 0 }, forwarded: false, body };
    alone.replica.step(alone.now, Input::Request { from: NodeId(9), request }, &mut Effects::new());
    let due = alone.replica.next_deadline().since(alone.now);
    alone.pass(due);
    assert!(matches!(alone.replica.state.task_state(TaskId(1)), Some(TaskState::Pending { .. })));
}

#[test]
fn a_submission_that_finds_no_room_makes_no_entry() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let submit = |seq| {
        let operation = Operation::Submit(vec![TaskSpec::new("echo", vec![0; wire::MAX_VALUE])]);
        let body = RequestBody::Write { session, seq: Seq(seq), first_incomplete: Seq(1), operation };
        Request { origin: Origin { node: NodeId(9), number: 1 + seq, turn: 0 }, forwarded: false, body }
    };
    let mut ask = |seq| {
        let responses = alone.step(Input::Request { from: NodeId(9), request: submit(seq) });
        (responses.into_iter().next().expect("it is answered").result, alone.replica.consensus.last().index)
    };
    let recorded = (1..).take_while(|&seq| ask(seq).0.is_ok()).count() as u64;
    let last = ask(recorded + 1).1;
    assert_eq!(ask(recorded + 1), (Err(Denied::Busy), last));
    let (answer, now) = ask(recorded);
    assert!(matches!(answer, Ok(Answer::Submitted(_))) && now > last, "what was done is answered: {answer:?}");
}

#[test]
fn a_question_about_what_no_name_can_be_is_not_held() {
    let mut alone = Alone::new();
    let right = RightId { kind: RightKind::Election, name: "x".repeat(1 << 20).into() };
    let query = Query::AwaitRight { right, after: Revision(0) };
    let answer = alone.ask(2, RequestBody::Read { query, consistency: Consistency::Linearizable });
    assert!(matches!(answer, Some(Answer::Refused(Refused::TooLarge { .. }))), "{answer:?}");
}

#[test]
fn a_nodes_session_is_renewed_by_its_master_alone() {
    let mut alone = Alone::new();
    alone.open_node(NodeId(1), 1);
    let epoch = alone.replica.consensus.epoch();
    let view = |alone: &Alone| alone.replica.state.master_view(epoch).nodes[0].clone();
    let before = view(&alone);
    alone.pass(Duration::from_secs(1));
    let answer = alone.ask(2, RequestBody::Renew { sessions: vec![before.session], heard: None });
    assert_eq!(answer, Some(Answer::Renewed { ended: vec![] }));
    assert_eq!(view(&alone).deadline, before.deadline);
}

#[test]
fn what_stands_behind_a_decision_without_room_does_not_overtake_it() {
    let mut alone = Alone::new();
    let client = alone.open_session();
    alone.open_node(NodeId(1), 1);
    let epoch = alone.replica.consensus.epoch();
    let session = alone.replica.state.master_view(epoch).nodes[0].session;
    let operation = Operation::Submit(vec![TaskSpec::new("echo", "")]);
    alone.ask(2, RequestBody::Write { session: client, seq: Seq(1), first_incomplete: Seq(1), operation });
    let assign = MasterCommand::Assign { attempt: Attempt { task: TaskId(1), number: 1 }, session };
    alone.step(Input::Propose { epoch, commands: vec![Command::Master(assign)] });
    let Some(TaskState::Assigned { fence, .. }) = alone.replica.state.task_state(TaskId(1)) else { panic!("granted") };

    let result = |task| {
        let outcome = Outcome::done(vec![7; wire::MAX_VALUE]);
        Command::Master(MasterCommand::Finish { task: TaskId(task), fence, outcome })
    };
    let release = MasterCommand::Release { task: TaskId(1), fence, cause: ReleaseCause::Evidence };
    // The last of the results is its own, and there is room for the release.
    let mut commands: Vec<Command> = (2..10).chain([1]).map(result).collect();
    commands.push(Command::Master(release));
    let mut effects = Effects::new();
    alone.replica.step(alone.now, Input::Propose { epoch, commands }, &mut effects);
    assert!(effects.local.contains(&Local::Master(master::Input::Dropped { epoch })), "the master decides again");
    alone.replica.step(alone.now, Input::Tick, &mut Effects::new());
    for batch in effects.persist {
        alone.step(Input::Persisted { seq: batch.seq });
    }
    let state = alone.replica.state.task_state(TaskId(1));
    assert!(matches!(state, Some(TaskState::Assigned { .. })), "nothing took its right away: {state:?}");
}

#[test]
fn a_wait_that_was_given_up_holds_no_place() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let operation = Operation::Submit(vec![TaskSpec::new("echo", "x")]);
    let write = RequestBody::Write { session, seq: Seq(1), first_incomplete: Seq(1), operation };
    let Some(Answer::Submitted(tasks)) = alone.ask(2, write) else { panic!("a task is recorded") };
    let wait = RequestBody::Read { query: Query::Await(tasks[0].task), consistency: Consistency::Linearizable };

    for number in 3..103 {
        assert_eq!(alone.ask(number, wait.clone()), None, "the task has not ended");
    }
    assert_eq!(alone.replica.waiting.len(), 100);
    alone.pass(HOLD / 2);
    assert_eq!(alone.ask(3, wait), None, "this one still waits and asks again");
    alone.pass(HOLD * 3 / 4);
    assert_eq!(alone.replica.waiting.len(), 1);
    alone.pass(HOLD);
    assert!(alone.replica.waiting.is_empty());
    assert_eq!(alone.replica.sweep_at, Nanos::NEVER);
}

fn watch(prefix: &str, after: Revision) -> RequestBody {
    let query = Query::Watch(Watch { prefix: prefix.into(), after });
    RequestBody::Read { query, consistency: Consistency::Stale }
}

impl Alone {
    /// Executes the operation as the request of this number, and hands out all that is answered by then.
    fn write(&mut self, session: SessionId, number: u64, operation: Operation) -> Vec<(u64, Answer)> {
        let (seq, first_incomplete) = (Seq(number), Seq(number));
        let body = RequestBody::Write { session, seq, first_incomplete, operation };
        let request = Request { origin: Origin { node: NodeId(9), number, turn: 0 }, forwarded: false, body };
        let responses = self.step(Input::Request { from: NodeId(9), request });
        responses.into_iter().map(|response| (response.origin.number, response.result.expect("answered"))).collect()
    }
}

fn told(answer: &Answer) -> (Vec<String>, Revision) {
    match answer {
        Answer::Changes(told) => (told.changes.iter().map(|change| change.key.to_string()).collect(), told.next),
        other => panic!("not told: {other:?}"),
    }
}

#[test]
fn a_watch_is_told_at_once_what_it_missed_and_later_what_happens() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let begin = alone.replica.state.revision();
    alone.write(session, 2, Operation::Put(Put::new("a/1", "v")));
    let missed = alone.ask(3, watch("a/", begin)).expect("it is told");
    let (keys, next) = told(&missed);
    assert_eq!((keys, next), (vec!["a/1".into()], alone.replica.state.revision()));

    assert_eq!(alone.ask(4, watch("a/", next)), None);
    assert_eq!(alone.ask(5, watch("", next)), None);
    let other = alone.write(session, 6, Operation::Put(Put::new("b", "v")));
    assert_eq!(other.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [6, 5], "only who watches it is told");
    let both = Operation::Transact(Transaction {
        then: ["a/2", "a/3", "c"].map(|key| KeyOperation::Put(Put::new(key, "v"))).to_vec(),
        ..Transaction::default()
    });
    let answers = alone.write(session, 7, both);
    assert_eq!(answers[1].0, 4);
    assert_eq!(told(&answers[1].1).0, ["a/2", "a/3"], "a transaction is told whole");
}

#[test]
fn a_watch_of_which_nothing_comes_is_told_how_far_it_is() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let begin = alone.replica.state.revision();
    assert_eq!(alone.ask(2, watch("a/", begin)), None);
    alone.write(session, 3, Operation::Put(Put::new("b", "v")));
    let mut answers = Vec::new();
    for _ in 0..HOLD.as_secs() * 2 {
        alone.now = alone.now + Duration::from_secs(1);
        answers.extend(alone.step(Input::Tick));
    }
    let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
    let (keys, next) = told(answer.result.as_ref().expect("a leader is here"));
    assert!(keys.is_empty() && next > begin, "it goes on behind what it need not look at again");
    assert!(alone.replica.waiting.is_empty());
}

#[test]
fn a_watch_is_answered_before_its_client_takes_silence_for_a_failure() {
    let mut alone = Alone::new();
    let begin = alone.replica.state.revision();
    let step = Duration::from_millis(50);
    let mut asked = BTreeMap::new();
    // Whenever it is asked: each of these comes at another time between two sweeps.
    for tick in 0..400 {
        alone.now = alone.now + step;
        for response in alone.step(Input::Tick) {
            let at = asked.remove(&response.origin.number).expect("it was asked, once");
            assert!(alone.now.since(at) + Duration::from_secs(1) <= WATCH_PATIENCE, "after {:?}", alone.now.since(at));
        }
        if tick % 7 == 0 {
            assert_eq!(alone.ask(2 + tick, watch("a/", begin)), None);
            asked.insert(2 + tick, alone.now);
        }
    }
    assert!(asked.len() < 400 / 7, "most were answered");
}

#[test]
fn a_watch_from_before_the_history_is_told_so() {
    let mut alone = Alone::new();
    alone.replica.history = History::from(Revision(50));
    let answer = alone.ask(2, watch("", Revision(49)));
    assert_eq!(answer, Some(Answer::Refused(Refused::Compacted { oldest: Revision(50) })));
    assert_eq!(alone.ask(3, watch("", Revision(50))), None, "a node that is behind waits");
    let long = watch(&"k".repeat(crate::state::limits::MAX_KEY + 1), Revision(50));
    assert!(matches!(alone.ask(4, long), Some(Answer::Refused(Refused::TooLarge { .. }))));
}

#[test]
fn a_place_that_is_taken_again_is_one_place() {
    let mut alone = Alone::new();
    let begin = alone.replica.state.revision();
    for _ in 0..3 {
        assert_eq!(alone.ask(2, watch("a", begin)), None);
    }
    assert_eq!(alone.replica.waiting.len(), 1);
    alone.step(Input::LinkDown { node: NodeId(9) });
    assert!(alone.replica.waiting.is_empty() && !alone.replica.waiting.wants_commits());
}

#[test]
fn whoever_waits_for_a_right_hears_when_it_is_granted_and_whoever_watches_it_hears_of_every_change() {
    let mut alone = Alone::new();
    let session = alone.open_session();
    let right = RightId::new(RightKind::Lock, "a");
    let mut seq = Seq(0);
    let mut write = |operation| {
        seq = seq.next();
        RequestBody::Write { session, seq, first_incomplete: seq, operation: Operation::Right(operation) }
    };
    let claim = RightOperation::Claim(Claim {
        right: right.clone(),
        session,
        mode: Mode::Exclusive,
        value: bytes::Bytes::new(),
        wait: true,
    });
    let Some(Answer::Claimed(first)) = alone.ask(2, write(claim.clone())) else { panic!("it is free") };
    let Some(Answer::Claimed(second)) = alone.ask(3, write(claim)) else { panic!("it stands in line") };
    let read = |query| RequestBody::Read { query, consistency: Consistency::Linearizable };
    let wait = read(Query::AwaitClaim { right: right.clone(), claim: second.claim });
    assert_eq!(alone.ask(4, wait), None);
    let shown = alone.ask(5, read(Query::Right { right: right.clone(), after: crate::types::Fence(0) }));
    let Some(Answer::Right(view)) = shown else { panic!("it is shown: {shown:?}") };
    assert_eq!(alone.ask(6, read(Query::AwaitRight { right: right.clone(), after: view.revision })), None);

    let claims = vec![first.claim, second.claim];
    assert_eq!(alone.ask(9, read(Query::AwaitEnd { session, claims })), None);

    let release = write(RightOperation::Release { right: right.clone(), session, claim: first.claim });
    let request = Request { origin: Origin { node: NodeId(9), number: 7, turn: 0 }, forwarded: false, body: release };
    let heard = alone.step(Input::Request { from: NodeId(9), request });
    let mut answers: Vec<_> = heard.into_iter().map(|response| (response.origin.number, response.result)).collect();
    answers.sort_by_key(|(number, _)| *number);
    let [
        (4, Ok(Answer::Claim(ClaimState::Held(grant)))),
        (6, Ok(Answer::Right(after))),
        (7, Ok(Answer::Ok)),
        (9, Ok(Answer::Ended(ended))),
    ] = &answers[..]
    else {
        panic!("all hear of it: {answers:?}")
    };
    assert_eq!(*ended, [first.claim]);
    assert_eq!(after.holders[0].fence, grant.fence);
    assert!(after.revision > view.revision && alone.replica.waiting.is_empty());
    let gone = read(Query::AwaitClaim { right, claim: first.claim });
    assert_eq!(alone.ask(8, gone), Some(Answer::Claim(ClaimState::Gone)));
}

#[test]
fn whoever_waits_for_other_nodes_hears_of_one_that_comes_or_changes_and_not_of_one_that_is_renewed() {
    let mut alone = Alone::new();
    alone.open_node(NodeId(1), 1);
    let read = |query| RequestBody::Read { query, consistency: Consistency::Linearizable };
    let Some(Answer::Nodes(mut nodes)) = alone.ask(2, read(Query::Nodes)) else { panic!("they are shown") };
    for (number, node, slots) in [(3, NodeId(2), 1), (4, NodeId(1), 5)] {
        assert_eq!(alone.ask(number, read(Query::AwaitNodes { known: NodeView::sum(&nodes) })), None);
        let (same, offered) = (nodes[0].node, nodes[0].offer.slots);
        assert_eq!(alone.open_node(same, offered), [], "nothing is new");
        let heard = alone.open_node(node, slots);
        let [Response { result: Ok(Answer::Nodes(now)), .. }] = &heard[..] else { panic!("it hears of it: {heard:?}") };
        assert!(now.iter().any(|view| view.node == node && view.offer.slots == slots), "{now:?}");
        nodes.clone_from(now);
    }
    nodes.reverse();
    assert_eq!(
        alone.ask(5, read(Query::AwaitNodes { known: NodeView::sum(&nodes) })),
        None,
        "their order says nothing"
    );
    assert!(alone.ask(6, read(Query::AwaitNodes { known: NodeView::sum(&nodes[1..]) })).is_some());
}
