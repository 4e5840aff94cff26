//! One sentence per rule.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::effects::{Effects, Event, Outgoing};
use crate::message::Body;
use crate::profile::shortened;
use crate::state::limits::WINDOW;
use crate::state::{About, Answer, ClientEnd, OpenSession, Operation, Query, Refused};
use crate::types::{Epoch, Nanos, NodeId, Revision, Seq, SessionId, TaskId};

const OWN: NodeId = NodeId(1);
const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(30);
const ANSWER: Answer = Answer::Written(Revision(9));

/// A client and what it said since it was last asked.
struct Bench {
    client: Client,
    now: Nanos,
    effects: Effects,
    /// The last try of every request.
    turns: BTreeMap<u64, u32>,
}

/// A request as a node sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    to: NodeId,
    number: u64,
    body: RequestBody,
}

impl Bench {
    fn new(local_replica: bool) -> Self {
        let now = Nanos(0);
        let config = Config { node: OWN, local_replica, ttl: TTL, patience: SECOND, first_number: 100, now };
        Self { client: Client::new(config), now, effects: Effects::new(), turns: BTreeMap::new() }
    }

    /// A client beside a replica, with a session open.
    fn with_session() -> Self {
        let mut bench = Self::new(true);
        bench.write(1);
        let register = bench.only();
        assert_eq!(register.body, RequestBody::Register { ttl: TTL });
        bench.answer(register.number, Ok(Answer::Registered(SessionId(7))));
        let write = bench.only();
        bench.answer(write.number, Ok(ANSWER));
        assert_eq!(bench.completed(), [(1, Ok(ANSWER))]);
        bench
    }

    fn step(&mut self, input: Input) {
        self.client.step(self.now, input, &mut self.effects);
    }

    fn after(&mut self, span: Duration) -> &mut Self {
        self.now = self.now + span;
        self.step(Input::Tick);
        self
    }

    fn write(&mut self, call: u64) {
        self.write_within(call, 20 * SECOND);
    }

    fn write_within(&mut self, call: u64, timeout: Duration) {
        let work = Work::Write(Operation::Cancel { task: TaskId(call), reason: String::new() });
        self.step(Input::Call { call, work, timeout });
    }

    /// Opens a session of the application.
    fn open(&mut self, call: u64, session: u64, ttl: Duration) -> SessionId {
        let work = Work::Keep(OpenSession { ttl, about: About::default() });
        self.step(Input::Call { call, work, timeout: 20 * SECOND });
        let opening = self.only();
        self.answer(opening.number, Ok(Answer::Registered(SessionId(session))));
        SessionId(session)
    }

    /// What the application was told of its sessions.
    fn news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.effects.publish)
            .into_iter()
            .filter(|event| matches!(event, Event::Kept { .. } | Event::Ended { .. }))
            .collect()
    }

    fn read(&mut self, call: u64, query: Query) {
        self.step(Input::Call { call, work: Work::Read(query, Consistency::Linearizable), timeout: 20 * SECOND });
    }

    fn answer(&mut self, number: u64, result: Result<Answer, Denied>) {
        self.answer_by(None, number, result);
    }

    fn answer_by(&mut self, leader: Option<NodeId>, number: u64, result: Result<Answer, Denied>) {
        let turn = self.turns.get(&number).copied().unwrap_or(1);
        self.step(Input::Response(Response { origin: Origin { node: OWN, number, turn }, leader, result }));
    }

    fn sent(&mut self) -> Vec<Seen> {
        let turns = &mut self.turns;
        std::mem::take(&mut self.effects.send)
            .into_iter()
            .map(|Outgoing { to, body, .. }| match body {
                Body::Request(request) => {
                    turns.insert(request.origin.number, request.origin.turn);
                    Seen { to, number: request.origin.number, body: request.body }
                }
                other => panic!("a client says only requests, not {other:?}"),
            })
            .collect()
    }

    fn only(&mut self) -> Seen {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn completed(&mut self) -> Vec<(u64, Result<Answer, CallError>)> {
        std::mem::take(&mut self.effects.publish)
            .into_iter()
            .filter_map(|event| match event {
                Event::Completed { call, result } => Some((call, result)),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn an_order_to_hand_over_needs_no_session_and_is_asked_again() {
    let mut bench = Bench::new(true);
    let order = (Some(NodeId(3)), Epoch(5));
    let work = Work::HandOver { to: order.0, epoch: order.1 };
    bench.step(Input::Call { call: 1, work, timeout: 20 * SECOND });
    let first = bench.only();
    assert_eq!(first.body, RequestBody::HandOver { to: order.0, epoch: order.1 });
    bench.answer(first.number, Err(Denied::NotMaster));
    bench.after(SECOND);
    let again = bench.only();
    assert_eq!((again.number, again.body), (first.number, RequestBody::HandOver { to: order.0, epoch: order.1 }));
    bench.answer(again.number, Ok(Answer::Ok));
    assert_eq!(bench.completed(), [(1, Ok(Answer::Ok))]);
}

fn place(seen: &Seen) -> (SessionId, Seq, Seq) {
    match seen.body {
        RequestBody::Write { session, seq, first_incomplete, .. } => (session, seq, first_incomplete),
        ref other => panic!("not a write: {other:?}"),
    }
}

#[test]
fn the_session_is_opened_with_the_first_write_and_not_before() {
    let mut bench = Bench::new(true);
    bench.read(1, Query::Summary);
    assert!(matches!(bench.only().body, RequestBody::Read { .. }));
    bench.write(2);
    bench.write(3);
    let register = bench.only();
    assert_eq!((register.to, register.body), (OWN, RequestBody::Register { ttl: TTL }));
    bench.answer(register.number, Ok(Answer::Registered(SessionId(7))));
    let places: Vec<_> = bench.sent().iter().map(place).collect();
    assert_eq!(places, [(SessionId(7), Seq(1), Seq(1)), (SessionId(7), Seq(2), Seq(1))]);
}

#[test]
fn an_open_session_is_renewed_every_third_of_its_life() {
    let mut bench = Bench::with_session();
    bench.after(TTL / 3);
    let renew = bench.only();
    assert_eq!(renew.body, RequestBody::Renew { sessions: vec![SessionId(7)], heard: Some((SessionId(7), Seq(2))) });
    bench.answer(renew.number, Ok(Answer::Renewed { ended: vec![] }));
    assert_eq!(bench.client.next_deadline(), bench.now + TTL / 3);
}

#[test]
fn a_write_is_asked_again_under_the_same_number_until_it_is_answered() {
    let mut bench = Bench::with_session();
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.write(2);
    let first = bench.only();
    bench.after(SECOND);
    let second = bench.only();
    assert_eq!((first.to, second.to), (OWN, NodeId(2)), "silence is a reason to ask somebody else");
    assert_eq!((first.number, &first.body), (second.number, &second.body));
    bench.answer(second.number, Ok(ANSWER));
    assert_eq!(bench.completed(), [(2, Ok(ANSWER))]);
    bench.answer(first.number, Ok(ANSWER));
    assert_eq!(bench.completed(), [], "an answer for nobody is ignored");
}

#[test]
fn a_node_that_does_not_lead_sends_us_to_the_one_that_does() {
    let mut bench = Bench::with_session();
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.step(Input::LinkUp { node: NodeId(3) });
    bench.write(2);
    let first = bench.only();
    bench.answer_by(Some(NodeId(3)), first.number, Err(Denied::NotMaster));
    assert_eq!(bench.sent(), [], "not at once");
    bench.after(Duration::from_millis(100));
    assert_eq!(bench.only().to, NodeId(3));
}

#[test]
fn a_leader_that_kept_silent_is_not_asked_again_on_the_word_of_those_who_have_not_noticed() {
    let mut bench = Bench::new(false);
    for node in 2..=4 {
        bench.step(Input::LinkUp { node: NodeId(node) });
    }
    bench.read(1, Query::Summary);
    let first = bench.only();
    let silent = first.to;
    bench.after(SECOND);
    for _ in 0..4 {
        let next = bench.only();
        assert_ne!(next.to, silent);
        bench.answer_by(Some(silent), next.number, Err(Denied::Unknown));
        bench.after(Duration::from_millis(100));
    }
    let last = bench.only();
    for node in (2..=4).filter(|node| *node != silent.0) {
        bench.step(Input::LinkDown { node: NodeId(node) });
    }
    assert_ne!(last.to, silent);
    assert_eq!(bench.sent().last().map(|seen| seen.to), Some(silent), "unless there is no other");
}

#[test]
fn a_node_that_kept_silent_is_asked_again_now_and_then_and_not_waited_for_long() {
    let mut bench = Bench::new(false);
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.read(1, Query::Summary);
    bench.step(Input::LinkUp { node: NodeId(3) });
    assert_eq!(bench.only().to, NodeId(2));
    bench.after(SECOND / 2);
    let mut others = 0;
    loop {
        let next = bench.only();
        if next.to == NodeId(2) {
            break;
        }
        others += 1;
        bench.answer(next.number, Err(Denied::NotMaster));
        bench.after(Duration::from_millis(100));
    }
    assert!((2..8).contains(&others), "{others}");
    bench.after(SECOND / 8);
    let next = bench.only();
    assert_eq!(next.to, NodeId(3), "only the others can tell that somebody leads");
    bench.answer(next.number, Ok(ANSWER));
    assert_eq!(bench.completed(), [(1, Ok(ANSWER))]);
}

#[test]
fn without_a_leader_everybody_is_asked_in_turn() {
    let mut bench = Bench::new(false);
    bench.read(1, Query::Summary);
    assert_eq!(bench.sent(), [], "nobody can be asked yet");
    bench.step(Input::LinkUp { node: NodeId(2) });
    let number = bench.only().number;
    bench.step(Input::LinkUp { node: NodeId(3) });
    bench.step(Input::LinkUp { node: NodeId(4) });
    let mut asked = Vec::new();
    for _ in 0..3 {
        bench.answer(number, Err(Denied::NotMaster));
        bench.after(Duration::from_millis(100));
        asked.push(bench.only().to);
    }
    assert_eq!(asked, [NodeId(3), NodeId(4), NodeId(2)]);
}

#[test]
fn while_nobody_leads_the_own_replica_is_asked_three_times_out_of_four() {
    let mut bench = Bench::with_session();
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.write(2);
    let number = bench.only().number;
    let mut asked = Vec::new();
    for _ in 0..8 {
        bench.answer(number, Err(Denied::NotMaster));
        bench.after(Duration::from_millis(100));
        asked.push(bench.only().to.0);
    }
    assert_eq!(asked, [1, 1, 1, 2, 1, 1, 1, 2]);
}

#[test]
fn news_of_a_leader_end_all_waiting_for_one() {
    let mut bench = Bench::with_session();
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.write(2);
    bench.write(3);
    let numbers: Vec<u64> = bench.sent().iter().map(|seen| seen.number).collect();
    bench.answer(numbers[0], Err(Denied::NotMaster));
    assert_eq!(bench.sent(), []);
    bench.answer_by(Some(NodeId(2)), numbers[1], Err(Denied::NotMaster));
    assert_eq!(bench.only().number, numbers[0]);
}

#[test]
fn a_broken_link_is_a_reason_to_ask_elsewhere_at_once() {
    let mut bench = Bench::new(false);
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.step(Input::LinkUp { node: NodeId(3) });
    bench.read(1, Query::Summary);
    let first = bench.only();
    bench.step(Input::LinkDown { node: first.to });
    let second = bench.only();
    assert_ne!(first.to, second.to);
    assert_eq!(first.number, second.number);
}

#[test]
fn a_write_that_met_an_expired_session_at_its_first_try_goes_into_a_new_one() {
    let mut bench = Bench::with_session();
    bench.write(2);
    let write = bench.only();
    assert_eq!(place(&write), (SessionId(7), Seq(2), Seq(2)));
    bench.answer(write.number, Ok(Answer::Refused(Refused::SessionExpired)));
    let register = bench.only();
    bench.answer(register.number, Ok(Answer::Registered(SessionId(8))));
    let again = bench.only();
    assert_eq!(place(&again), (SessionId(8), Seq(1), Seq(1)));
    bench.answer(again.number, Ok(ANSWER));
    assert_eq!(bench.completed(), [(2, Ok(ANSWER))]);
}

#[test]
fn a_write_of_which_an_earlier_try_is_in_doubt_says_so_when_the_session_has_expired() {
    let mut bench = Bench::with_session();
    bench.write(2);
    let write = bench.only();
    bench.answer(write.number, Err(Denied::Unknown));
    bench.after(Duration::from_millis(100));
    bench.only();
    bench.answer(write.number, Ok(Answer::Refused(Refused::SessionExpired)));
    assert_eq!(bench.completed(), [(2, Err(CallError::SessionExpired { maybe_applied: true }))]);
}

#[test]
fn a_time_out_says_maybe_only_if_a_try_may_have_been_done() {
    let error = |bench: &mut Bench| match bench.completed().remove(0) {
        (2, Err(CallError::Deadline { maybe_applied, last, .. })) => (maybe_applied, last),
        other => panic!("{other:?}"),
    };
    let mut refused = Bench::with_session();
    refused.write_within(2, Duration::from_millis(50));
    let number = refused.only().number;
    refused.answer(number, Err(Denied::Busy));
    refused.now = refused.now + SECOND;
    refused.step(Input::Tick);
    assert_eq!(error(&mut refused), (false, Some(Denied::Busy)));

    let mut silent = Bench::with_session();
    silent.write_within(2, Duration::from_millis(50));
    silent.after(SECOND);
    assert_eq!(error(&mut silent), (true, None));

    let mut read = Bench::new(true);
    read.read(2, Query::Summary);
    read.after(20 * SECOND);
    assert_eq!(error(&mut read), (false, None));
}

#[test]
fn at_most_a_window_of_writes_is_under_way_and_the_rest_waits_until_the_queue_is_full() {
    let mut bench = Bench::with_session();
    for call in 2..2 + WINDOW + 4096 {
        bench.write(call);
    }
    let sent = bench.sent();
    assert_eq!(sent.len() as u64, WINDOW);
    assert_eq!(bench.completed(), []);
    bench.write(9999);
    assert_eq!(bench.completed(), [(9999, Err(CallError::Busy))]);
    bench.answer(sent[0].number, Ok(ANSWER));
    assert_eq!(place(&bench.only()), (SessionId(7), Seq(2 + WINDOW), Seq(3)));
}

#[test]
fn a_write_that_is_put_off_takes_no_place_from_the_others() {
    let mut bench = Bench::with_session();
    bench.write(2);
    let put_off = bench.only();
    let (session, seq, _) = place(&put_off);
    bench.answer(put_off.number, Err(Denied::Busy));
    for call in 3..3 + 2 * WINDOW {
        bench.write(call);
        let number = bench.only().number;
        bench.answer(number, Ok(ANSWER));
        assert_eq!(bench.completed(), [(call, Ok(ANSWER))]);
    }
    let again = bench.after(SECOND).only();
    assert_eq!(again.number, put_off.number);
    assert_eq!(place(&again), (session, Seq(seq.0 + 2 * WINDOW + 1), Seq(seq.0 + 2 * WINDOW + 1)));
    // One try of this is in doubt: it keeps its number.
    bench.answer(again.number, Err(Denied::Unknown));
    let in_doubt = bench.after(SECOND).only();
    bench.answer(in_doubt.number, Err(Denied::Busy));
    assert_eq!(place(&bench.after(SECOND).only()), place(&again));
}

#[test]
fn of_tasks_that_find_no_room_a_bounded_number_waits_for_it() {
    let mut bench = Bench::with_session();
    let submit = |bench: &mut Bench, call| {
        let work = Work::Write(Operation::Submit(vec![]));
        bench.step(Input::Call { call, work, timeout: 20 * SECOND });
        let number = bench.only().number;
        bench.answer(number, Err(Denied::Busy));
    };
    for call in 2..2 + WINDOW {
        submit(&mut bench, call);
    }
    assert_eq!(bench.completed(), []);
    submit(&mut bench, 9998);
    assert_eq!(bench.completed(), [(9998, Err(CallError::Busy))]);
    bench.write(9999);
    let write = bench.only();
    bench.answer(write.number, Ok(ANSWER));
    assert_eq!(bench.completed(), [(9999, Ok(ANSWER))]);
    assert_eq!(bench.after(SECOND).sent().len() as u64, WINDOW, "each is asked again");
}

#[test]
fn what_no_message_carries_is_refused_before_it_is_sent() {
    let mut bench = Bench::with_session();
    let is_refused = |bench: &mut Bench, work| {
        bench.step(Input::Call { call: 2, work, timeout: SECOND });
        let result = bench.completed().remove(0);
        assert!(matches!(result, (2, Ok(Answer::Refused(Refused::TooLarge { .. })))), "{result:?}");
        assert_eq!(bench.sent(), []);
    };
    let long = "x".repeat(3 << 20);
    is_refused(&mut bench, Work::Write(Operation::Cancel { task: TaskId(1), reason: long.clone() }));
    is_refused(&mut bench, Work::Read(Query::Get(long), Consistency::Stale));
    bench.write(3);
    assert_eq!(place(&bench.only()), (SessionId(7), Seq(2), Seq(2)), "no number was spent");
}

#[test]
fn a_session_that_is_opened_without_a_limit_of_time_lives() {
    let mut bench = Bench::with_session();
    bench.now = bench.now + SECOND;
    let work = Work::Keep(OpenSession { ttl: TTL, about: About::default() });
    bench.step(Input::Call { call: 2, work, timeout: Duration::MAX });
    let opening = bench.only();
    bench.answer(opening.number, Ok(Answer::Registered(SessionId(8))));
    let news = bench.news();
    assert!(matches!(news[..], [Event::Kept { until, .. }] if until > bench.now), "{news:?}");
}

#[test]
fn waiting_for_the_end_of_a_task_is_not_a_failure() {
    let mut bench = Bench::new(false);
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.step(Input::LinkUp { node: NodeId(3) });
    bench.step(Input::LinkUp { node: NodeId(4) });
    bench.read(1, Query::Summary);
    let number = bench.only().number;
    bench.answer_by(Some(NodeId(3)), number, Ok(Answer::Ok));
    bench.read(2, Query::Await(TaskId(1)));
    let first = bench.only();
    assert_eq!(first.to, NodeId(3));
    bench.after(SECOND);
    assert_eq!(bench.sent(), []);
    bench.after(SECOND);
    assert_eq!(bench.only(), first, "the same node is asked the same");
}

#[test]
fn a_forgotten_write_leaves_room_in_the_window() {
    let mut bench = Bench::with_session();
    bench.write(2);
    bench.only();
    bench.step(Input::Forget { call: 2 });
    bench.write(3);
    assert_eq!(place(&bench.only()), (SessionId(7), Seq(3), Seq(3)));
    assert_eq!(bench.client.under_way(), 1);
}

#[test]
fn closing_waits_for_the_writes_under_way_and_ends_the_session() {
    let mut bench = Bench::with_session();
    bench.write(2);
    let write = bench.only();
    bench.step(Input::Close);
    assert_eq!(bench.sent(), []);
    bench.answer(write.number, Ok(ANSWER));
    let close = bench.only();
    assert!(matches!(close.body, RequestBody::Write { operation: Operation::Close, .. }));
    assert_eq!(place(&close), (SessionId(7), Seq(3), Seq(3)));
    assert_eq!(bench.client.next_deadline(), Nanos::NEVER);
}

#[test]
fn an_answer_to_an_earlier_run_or_another_node_is_ignored() {
    let mut bench = Bench::new(true);
    bench.read(1, Query::Summary);
    let number = bench.only().number;
    let foreign = Origin { node: NodeId(9), number, turn: 1 };
    bench.step(Input::Response(Response { origin: foreign, leader: None, result: Ok(Answer::Ok) }));
    bench.answer(5, Ok(Answer::Ok));
    assert_eq!(bench.completed(), []);
}

#[test]
fn a_session_for_which_nobody_waits_any_more_is_not_asked_for_again() {
    let mut bench = Bench::new(true);
    bench.write_within(1, SECOND / 2);
    bench.only();
    bench.after(SECOND / 2);
    assert_eq!(bench.completed().len(), 1);
    bench.after(SECOND);
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.client.next_deadline(), Nanos::NEVER);
}

#[test]
fn a_refusal_that_comes_twice_does_not_speak_of_the_next_try() {
    let mut bench = Bench::with_session();
    bench.write_within(2, SECOND);
    let first = bench.only();
    let turn = bench.turns[&first.number];
    let refusal = Response {
        origin: Origin { node: OWN, number: first.number, turn },
        leader: None,
        result: Err(Denied::NotMaster),
    };
    bench.step(Input::Response(refusal.clone()));
    bench.after(SECOND / 5);
    bench.only();
    bench.step(Input::Response(refusal));
    bench.after(SECOND);
    let completed = bench.completed();
    assert!(
        matches!(completed[..], [(2, Err(CallError::Deadline { maybe_applied: true, .. }))]),
        "the second try is still in doubt: {completed:?}"
    );
}

#[test]
fn a_late_word_about_an_old_session_does_not_end_the_new_one() {
    let mut bench = Bench::with_session();
    bench.write(2);
    let first = bench.only();
    let turn = bench.turns[&first.number];
    let expired = Response {
        origin: Origin { node: OWN, number: first.number, turn },
        leader: None,
        result: Ok(Answer::Refused(Refused::SessionExpired)),
    };
    bench.step(Input::Response(expired.clone()));
    let register = bench.only();
    bench.answer(register.number, Ok(Answer::Registered(SessionId(8))));
    bench.only();
    bench.step(Input::Response(expired));
    assert_eq!(bench.sent(), [], "the write under the new session is on its way and stays the only one");
}

fn renewal(seen: &Seen) -> Vec<SessionId> {
    match &seen.body {
        RequestBody::Renew { sessions, .. } => sessions.clone(),
        other => panic!("not a renewal: {other:?}"),
    }
}

fn kept(session: SessionId, until: Nanos) -> Event {
    Event::Kept { session, until }
}

/// The end of a session of six seconds that was asked for now.
fn end_of(asked: Nanos) -> Nanos {
    asked + shortened(6 * SECOND) - Duration::from_millis(1)
}

const RENEWED: Answer = Answer::Renewed { ended: Vec::new() };

#[test]
fn a_session_of_the_application_ends_a_time_to_live_after_it_was_asked_for_by_the_slowest_clock() {
    // F10: counted from the question, because the log's time begins before the answer comes.
    let mut bench = Bench::with_session();
    let asked = bench.now;
    let work = Work::Keep(OpenSession { ttl: 6 * SECOND, about: About::default() });
    bench.step(Input::Call { call: 2, work, timeout: 20 * SECOND });
    let opening = bench.only();
    bench.after(SECOND / 5);
    bench.answer(opening.number, Ok(Answer::Registered(SessionId(9))));
    assert_eq!(bench.news(), [kept(SessionId(9), end_of(asked))]);
    assert_eq!(bench.client.next_deadline(), asked + 2 * SECOND, "a third of its life after that");
}

#[test]
fn a_session_of_the_application_is_renewed_while_it_lives() {
    let mut bench = Bench::with_session();
    let session = bench.open(2, 9, 6 * SECOND);
    bench.news();
    for _ in 0..3 {
        bench.after(2 * SECOND);
        let asked = bench.now;
        let renew = bench.only();
        assert_eq!(renewal(&renew), [session]);
        bench.after(SECOND / 10);
        bench.answer(renew.number, Ok(RENEWED));
        assert_eq!(bench.news(), [kept(session, end_of(asked))]);
        bench.now = asked;
    }
}

#[test]
fn sessions_that_are_due_soon_are_renewed_in_one_request() {
    let mut bench = Bench::with_session();
    let first = bench.open(2, 8, 6 * SECOND);
    bench.after(SECOND / 2);
    let second = bench.open(3, 9, 6 * SECOND);
    bench.after(3 * SECOND / 2);
    assert_eq!(renewal(&bench.only()), [first, second]);
}

#[test]
fn many_sessions_are_renewed_in_requests_of_a_bounded_size() {
    let mut bench = Bench::with_session();
    let count = crate::state::limits::MAX_RENEWED as u64 + 1;
    for i in 0..count {
        bench.open(2 + i, 100 + i, 6 * SECOND);
    }
    bench.after(2 * SECOND);
    let sizes: Vec<usize> = bench.sent().iter().map(|seen| renewal(seen).len()).collect();
    assert_eq!(sizes, [count as usize - 1, 1]);
}

#[test]
fn a_session_that_nobody_renews_is_over_by_our_own_clock() {
    let mut bench = Bench::with_session();
    let asked = bench.now;
    let session = bench.open(2, 9, 6 * SECOND);
    bench.news();
    bench.after(2 * SECOND);
    bench.sent();
    bench.now = end_of(asked) - Duration::from_nanos(1);
    bench.step(Input::Tick);
    assert_eq!(bench.news(), []);
    bench.after(Duration::from_nanos(1));
    assert_eq!(bench.news(), [Event::Ended { session, why: Loss::Silence }]);
}

#[test]
fn a_renewal_that_is_answered_too_late_brings_nothing_back() {
    let mut bench = Bench::with_session();
    let session = bench.open(2, 9, 6 * SECOND);
    bench.after(2 * SECOND);
    let renew = bench.only();
    bench.after(6 * SECOND);
    bench.news();
    bench.answer(renew.number, Ok(RENEWED));
    assert_eq!(bench.news(), [], "{session} is over");
}

#[test]
fn a_renewal_goes_through_another_node_when_its_link_breaks() {
    let mut bench = Bench::new(false);
    bench.step(Input::LinkUp { node: NodeId(2) });
    bench.step(Input::LinkUp { node: NodeId(3) });
    bench.write(1);
    let register = bench.only();
    bench.answer(register.number, Ok(Answer::Registered(SessionId(7))));
    let write = bench.only();
    bench.answer(write.number, Ok(ANSWER));
    let session = bench.open(2, 9, 6 * SECOND);
    bench.news();
    bench.after(2 * SECOND);
    let asked = bench.now;
    let first = bench.only();
    bench.step(Input::LinkDown { node: first.to });
    let second = bench.only();
    assert_ne!(first.to, second.to);
    bench.after(SECOND / 10);
    bench.answer(second.number, Ok(RENEWED));
    assert_eq!(bench.news(), [kept(session, end_of(asked))], "the first of the two may be the one that counted");
}

#[test]
fn a_session_that_the_cluster_ended_is_over_at_once_and_the_others_stay() {
    let mut bench = Bench::with_session();
    let (first, second) = (bench.open(2, 8, 6 * SECOND), bench.open(3, 9, 6 * SECOND));
    bench.news();
    bench.after(2 * SECOND);
    let asked = bench.now;
    let renew = bench.only();
    bench.answer(renew.number, Ok(Answer::Renewed { ended: vec![first] }));
    let gone = Event::Ended { session: first, why: Loss::Gone };
    assert_eq!(bench.news(), [gone, kept(second, end_of(asked))]);
}

#[test]
fn a_session_that_is_closed_is_over_before_the_cluster_hears_of_it() {
    let mut bench = Bench::with_session();
    let session = bench.open(2, 9, 6 * SECOND);
    bench.news();
    let work = Work::Write(Operation::EndSession { session, cause: ClientEnd::Closed });
    bench.step(Input::Call { call: 3, work, timeout: SECOND });
    assert_eq!(bench.news(), [Event::Ended { session, why: Loss::Closed }]);
    let end = bench.only();
    bench.answer(end.number, Ok(Answer::Ok));
    bench.after(3 * SECOND);
    assert_eq!(bench.sent(), [], "it is renewed no more");
}

#[test]
fn a_session_that_was_opened_too_late_is_over_at_once() {
    let mut bench = Bench::with_session();
    let work = Work::Keep(OpenSession { ttl: SECOND, about: About::default() });
    bench.step(Input::Call { call: 2, work, timeout: 20 * SECOND });
    let number = bench.only().number;
    bench.now = bench.now + SECOND;
    bench.answer(number, Ok(Answer::Registered(SessionId(9))));
    let ended = Event::Ended { session: SessionId(9), why: Loss::Silence };
    assert_eq!(bench.news().last(), Some(&ended));
}

#[test]
fn a_session_that_somebody_else_keeps_is_renewed_only_when_asked() {
    let mut bench = Bench::with_session();
    let opening = OpenSession { ttl: SECOND, about: About::default() };
    bench.step(Input::Call { call: 2, work: Work::Write(Operation::OpenSession(opening)), timeout: SECOND });
    let number = bench.only().number;
    bench.answer(number, Ok(Answer::Registered(SessionId(9))));
    bench.after(SECOND);
    assert_eq!((bench.news(), bench.sent()), (vec![], vec![]));
    bench.step(Input::Call { call: 3, work: Work::Renew(SessionId(9)), timeout: SECOND });
    let renew = bench.only();
    assert_eq!(renewal(&renew), [SessionId(9)]);
    bench.answer(renew.number, Ok(RENEWED));
    assert_eq!(bench.completed(), [(3, Ok(RENEWED))]);
}
