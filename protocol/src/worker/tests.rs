//! One sentence per rule.

use std::time::Duration;

use bytes::Bytes;

use super::holding::GONE_MAX;
use super::*;
use crate::effects::{Effects, Event, Outgoing};
use crate::master::{Grant, ToWorker};
use crate::message::Body;
use crate::profile::{Profile, shortened};
use crate::state::{Begun, Delivery, Offer, Outcome, Refused};
use crate::types::{Attempt, Epoch, Fence, Incarnation, Nanos, NodeId, SessionId, TaskId};

const OWN: NodeId = NodeId(1);
const MASTER: NodeId = NodeId(2);
const NEXT: NodeId = NodeId(3);
const SESSION: SessionId = SessionId(7);
const LAN: Profile = Profile::LAN;
const RUN: Incarnation = Incarnation(2);

/// A worker, what it said, and what its executor and its log heard, since last asked.
struct Bench {
    worker: Worker,
    now: Nanos,
    effects: Effects,
}

impl Bench {
    fn new(slots: u32) -> Self {
        let now = Nanos(1_000_000_000);
        let offer = Offer { slots, kinds: ["echo".to_owned()].into(), ..Offer::default() };
        let config = Config { node: OWN, incarnation: RUN, offer, profile: LAN };
        Self { worker: Worker::new(config, now), now, effects: Effects::new() }
    }

    /// A worker with two slots, welcomed by the master of epoch 1.
    fn welcome() -> Self {
        let mut bench = Self::new(2);
        bench.step(Input::LinkUp { node: MASTER });
        bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
        bench.greet(1);
        bench.said();
        bench
    }

    fn step(&mut self, input: Input) {
        self.worker.step(self.now, input, &mut self.effects);
    }

    fn after(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(Input::Tick);
    }

    fn hear(&mut self, from: NodeId, message: ToWorker) {
        self.step(Input::Message { from, message });
    }

    fn greet(&mut self, epoch: u64) {
        let from = if epoch == 1 { MASTER } else { NEXT };
        let (epoch, sent) = (Epoch(epoch), self.now);
        self.hear(from, ToWorker::Welcome { epoch, incarnation: RUN, session: SESSION, ttl: LAN.session, sent });
    }

    fn dispatch(&mut self, fence: u64) {
        self.dispatch_in(1, grant(fence));
    }

    fn dispatch_in(&mut self, epoch: u64, grant: Grant) {
        let from = if epoch == 1 { MASTER } else { NEXT };
        self.hear(from, ToWorker::Dispatch { epoch: Epoch(epoch), grant });
    }

    fn cancel(&mut self, fence: u64) {
        let attempt = grant(fence).attempt;
        self.hear(MASTER, ToWorker::Cancel { epoch: Epoch(1), attempt, fence: Fence(fence) });
    }

    fn judge(&mut self, fence: u64) {
        let task = grant(fence).attempt.task;
        self.hear(MASTER, ToWorker::FinishAck { epoch: Epoch(1), task, fence: Fence(fence), recorded: true });
    }

    fn finish(&mut self, fence: u64, outcome: Outcome) {
        self.step(Input::Finished { fence: Fence(fence), outcome });
    }

    fn said(&mut self) -> Vec<ToMaster> {
        std::mem::take(&mut self.effects.send)
            .into_iter()
            .map(|Outgoing { body, .. }| match body {
                Body::ToMaster(message) => message,
                other => panic!("a worker speaks only to masters: {other:?}"),
            })
            .collect()
    }

    fn started(&mut self) -> Vec<Fence> {
        self.events(|event| match event {
            Event::Start(run) => Some(run.grant.fence),
            _ => None,
        })
    }

    fn aborted(&mut self) -> Vec<(Fence, AbortCause)> {
        self.events(|event| match event {
            Event::Abort { fence, why, .. } => Some((*fence, *why)),
            _ => None,
        })
    }

    fn events<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        let picked = self.effects.publish.iter().filter_map(&pick).collect();
        self.effects.publish.retain(|event| pick(event).is_none());
        picked
    }
}

fn grant(fence: u64) -> Grant {
    Grant {
        attempt: Attempt { task: TaskId(fence), number: 1 },
        fence: Fence(fence),
        session: SESSION,
        kind: "echo".into(),
        payload: Bytes::new(),
        delivery: Delivery::AtLeastOnce,
        timeout: Duration::ZERO,
        once_key: None,
    }
}

fn done() -> Outcome {
    Outcome::done(Bytes::from_static(b"x"))
}

fn finish(fence: u64) -> ToMaster {
    ToMaster::Finish { task: TaskId(fence), fence: Fence(fence), outcome: done() }
}

fn hand_back(fence: u64, never_started: bool) -> ToMaster {
    ToMaster::HandBack { task: TaskId(fence), fence: Fence(fence), never_started }
}

/// When a worker's session ends by its own clock: its handlers are gone when it ends by any clock within the bound.
fn own_end() -> Duration {
    shortened(LAN.session) - GRACE
}

fn goodbye(begun: &[u64]) -> ToMaster {
    let fences = begun.iter().copied().map(Fence).collect();
    ToMaster::Goodbye { session: SESSION, begun: Begun { fences, ..Begun::default() } }
}

fn held(messages: &[ToMaster]) -> Vec<u64> {
    let held = messages.iter().find_map(|message| match message {
        ToMaster::Hello { held, .. } | ToMaster::Renew { held, .. } => Some(held),
        _ => None,
    });
    held.expect("a report was sent").iter().map(|held| held.fence.0).collect()
}

#[test]
fn a_master_that_says_here_hears_hello_at_once() {
    let mut bench = Bench::new(2);
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    assert!(matches!(bench.said()[..], [ToMaster::Hello { epoch: Epoch(1), .. }]));
}

#[test]
fn hello_is_repeated_until_it_is_answered_and_then_the_session_is_renewed() {
    let mut bench = Bench::new(2);
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    bench.after(LAN.renewal);
    assert!(matches!(bench.said()[..], [ToMaster::Hello { .. }, ToMaster::Hello { .. }]));
    bench.greet(1);
    bench.after(LAN.renewal);
    assert!(matches!(bench.said()[..], [ToMaster::Renew { session: SESSION, .. }]));
}

#[test]
fn a_worker_that_the_cluster_does_not_take_says_so_once() {
    let mut bench = Bench::new(2);
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    for _ in 0..3 {
        let why = Refused::Quota("the cluster is full".into());
        bench.hear(MASTER, ToWorker::Refused { epoch: Epoch(1), why });
        bench.after(LAN.renewal);
    }
    let notes = bench.events(|event| match event {
        Event::Note(line) => Some(line.clone()),
        _ => None,
    });
    assert_eq!(notes, ["no work comes to this node: the cluster is full"]);
    assert!(bench.said().iter().all(|said| matches!(said, ToMaster::Hello { .. })), "it goes on asking");
}

#[test]
fn a_lower_epoch_is_not_obeyed() {
    let mut bench = Bench::welcome();
    bench.step(Input::LinkUp { node: NEXT });
    bench.hear(NEXT, ToWorker::Here { epoch: Epoch(2) });
    bench.dispatch(9);
    assert_eq!(bench.started(), []);
    bench.dispatch_in(2, grant(9));
    assert_eq!(bench.started(), [Fence(9)]);
}

#[test]
fn an_attempt_starts_once_however_often_it_is_dispatched() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.dispatch(9);
    assert_eq!(bench.started(), [Fence(9)]);
    bench.finish(9, done());
    assert_eq!(bench.said(), [finish(9)]);
    bench.dispatch(9);
    assert_eq!(bench.said(), [finish(9)], "its result is told again");
    bench.judge(9);
    bench.dispatch(9);
    assert_eq!(bench.started(), [], "a late duplicate does not run it again (F8)");
}

#[test]
fn a_result_is_reported_until_it_is_judged() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.finish(9, done());
    bench.said();
    bench.after(LAN.renewal);
    let said = bench.said();
    assert_eq!((said[1].clone(), held(&said)), (finish(9), vec![9]), "the session comes first");
    bench.judge(9);
    bench.after(LAN.renewal);
    let said = bench.said();
    assert_eq!((said.len(), held(&said)), (1, vec![]));
}

#[test]
fn a_new_master_hears_the_results_that_are_not_judged_and_what_is_held() {
    let mut bench = Bench::welcome();
    bench.dispatch(8);
    bench.dispatch(9);
    bench.step(Input::LinkDown { node: MASTER });
    bench.finish(9, done());
    assert_eq!(bench.said(), [], "nobody can be told");
    bench.step(Input::LinkUp { node: NEXT });
    bench.hear(NEXT, ToWorker::Here { epoch: Epoch(2) });
    let said = bench.said();
    assert_eq!((said[1].clone(), held(&said)), (finish(9), vec![8, 9]));
    assert_eq!(bench.aborted(), [], "attempts survive a failover");
}

#[test]
fn when_the_session_ends_by_our_own_clock_everything_that_runs_is_stopped() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.step(Input::LinkDown { node: MASTER });
    bench.after(own_end() - Duration::from_millis(1));
    assert_eq!(bench.aborted(), []);
    bench.after(Duration::from_millis(1));
    assert_eq!(bench.aborted(), [(Fence(9), AbortCause::SessionLost)]);
    assert_eq!(bench.worker.session(), None);
}

#[test]
fn a_session_counts_from_the_moment_its_renewal_was_asked_for() {
    let mut bench = Bench::welcome();
    bench.after(LAN.renewal);
    let asked = bench.now;
    bench.now = bench.now + Duration::from_secs(1);
    let (epoch, session, ttl) = (Epoch(1), SESSION, LAN.session);
    bench.hear(MASTER, ToWorker::Welcome { epoch, incarnation: RUN, session, ttl, sent: asked });
    bench.step(Input::LinkDown { node: MASTER });
    assert_eq!(bench.worker.next_deadline(), asked + own_end());
}

#[test]
fn a_result_that_was_ready_before_the_stop_was_seen_is_still_reported() {
    let mut bench = Bench::welcome();
    bench.dispatch(8);
    bench.dispatch(9);
    bench.step(Input::LinkDown { node: MASTER });
    bench.after(LAN.session);
    bench.finish(8, done());
    bench.finish(9, Outcome::Failed { message: "stopped".into(), retry: true, output: Bytes::new() });
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    let said = bench.said();
    assert_eq!((said[1].clone(), held(&said)), (finish(8), vec![8]), "and a failure by being stopped is none");
}

#[test]
fn what_was_stopped_does_not_start_again_and_is_handed_back() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.hear(MASTER, ToWorker::Unknown { epoch: Epoch(1) });
    assert_eq!(bench.aborted(), [(Fence(9), AbortCause::SessionLost)]);
    bench.greet(1);
    bench.started();
    bench.said();
    bench.dispatch(9);
    assert_eq!(bench.started(), []);
    assert_eq!(bench.said(), [hand_back(9, false)]);
}

#[test]
fn what_was_stopped_does_not_start_again_when_much_has_ended_since() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    for fence in 10..=10 + GONE_MAX as u64 {
        bench.dispatch(fence);
        bench.finish(fence, done());
        bench.judge(fence);
    }
    bench.hear(MASTER, ToWorker::Unknown { epoch: Epoch(1) });
    bench.greet(1);
    bench.started();
    bench.said();
    for fence in [9, 10] {
        bench.dispatch(fence);
        assert_eq!((bench.started(), bench.said()), (vec![], vec![hand_back(fence, false)]));
    }
}

#[test]
fn of_large_results_that_come_together_each_judgement_reports_one_more() {
    let mut bench = Bench::welcome();
    let large = || Outcome::done(vec![7; 1 << 20]);
    for fence in [8, 9] {
        bench.dispatch(fence);
        bench.finish(fence, large());
    }
    bench.said();
    bench.judge(8);
    let task = grant(9).attempt.task;
    assert_eq!(bench.said(), [ToMaster::Finish { task, fence: Fence(9), outcome: large() }]);
    bench.judge(9);
    bench.dispatch(10);
    bench.dispatch(11);
    bench.finish(10, done());
    bench.finish(11, done());
    bench.said();
    bench.judge(10);
    assert_eq!(bench.said(), [], "small ones find room");
}

#[test]
fn a_full_worker_hands_back_and_does_not_run_it_later() {
    let mut bench = Bench::welcome();
    for fence in [7, 8, 9] {
        bench.dispatch(fence);
    }
    assert_eq!(bench.started(), [Fence(7), Fence(8)]);
    assert_eq!(bench.said(), [hand_back(9, true)]);
    bench.finish(7, done());
    bench.said();
    bench.dispatch(9);
    assert_eq!((bench.started(), bench.said()), (vec![], vec![hand_back(9, true)]));
}

#[test]
fn what_was_granted_under_a_session_that_we_do_not_know_waits_for_the_welcome() {
    let mut bench = Bench::welcome();
    let later = Grant { session: SessionId(8), ..grant(9) };
    bench.dispatch_in(1, later.clone());
    assert_eq!((bench.said(), bench.started()), (vec![], vec![]));
    let (epoch, session, ttl, sent) = (Epoch(1), SessionId(8), LAN.session, bench.now);
    bench.hear(MASTER, ToWorker::Welcome { epoch, incarnation: RUN, session, ttl, sent });
    bench.dispatch_in(1, later);
    assert_eq!(bench.started(), [Fence(9)]);
}

#[test]
fn a_task_without_a_handler_fails_for_good_in_words() {
    let mut bench = Bench::welcome();
    bench.dispatch_in(1, Grant { kind: "paint".into(), ..grant(9) });
    match &bench.said()[..] {
        [ToMaster::Finish { outcome: Outcome::Failed { message, retry: false, .. }, .. }] => {
            assert!(message.contains("`paint`") && message.contains("echo"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_attempt_that_runs_too_long_is_stopped_and_reported_as_failed() {
    let mut bench = Bench::welcome();
    bench.dispatch_in(1, Grant { timeout: Duration::from_millis(100), ..grant(9) });
    bench.after(Duration::from_millis(100));
    assert_eq!(bench.aborted(), [(Fence(9), AbortCause::TimedOut)]);
    assert!(matches!(bench.said()[..], [ToMaster::Finish { outcome: Outcome::Failed { retry: true, .. }, .. }]));
    bench.finish(9, done());
    assert_eq!(bench.said(), [], "one attempt has one result");
}

#[test]
fn a_cancelled_attempt_is_stopped_and_not_reported() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.cancel(9);
    assert_eq!(bench.aborted(), [(Fence(9), AbortCause::Cancelled)]);
    assert_eq!(bench.said(), []);
    bench.cancel(9);
    assert_eq!(bench.aborted(), []);
    assert_eq!(bench.started(), [Fence(9)]);
    bench.dispatch(9);
    assert_eq!(bench.started(), [], "an overtaken dispatch does not run it after all");
}

#[test]
fn a_result_that_waits_for_its_judgement_survives_a_cancel() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.finish(9, done());
    bench.cancel(9);
    bench.said();
    bench.after(LAN.renewal);
    assert_eq!(held(&bench.said()), [9]);
}

#[test]
fn a_draining_worker_takes_nothing_waits_for_what_runs_and_says_goodbye() {
    let mut bench = Bench::welcome();
    bench.dispatch(8);
    bench.step(Input::Drain);
    match &bench.said()[..] {
        [ToMaster::Hello { offer, .. }] => assert_eq!(offer.slots, 0),
        other => panic!("{other:?}"),
    }
    bench.greet(1);
    bench.dispatch(9);
    assert_eq!(bench.said(), [hand_back(9, true)]);
    bench.finish(8, done());
    assert_eq!(bench.said(), [finish(8)]);
    assert!(!bench.worker.is_drained(), "the result is not judged yet");
    bench.judge(8);
    assert_eq!(bench.said(), [goodbye(&[])]);
    assert!(bench.worker.is_drained());
    assert_eq!(bench.worker.next_deadline(), Nanos::NEVER);
}

#[test]
fn a_worker_that_is_told_to_stop_says_goodbye_when_its_handlers_have_returned() {
    let mut bench = Bench::welcome();
    bench.dispatch(8);
    bench.dispatch(9);
    bench.step(Input::Drain);
    bench.greet(1);
    bench.said();
    bench.step(Input::Stop);
    assert_eq!(bench.aborted(), [(Fence(8), AbortCause::Leaving), (Fence(9), AbortCause::Leaving)]);
    bench.finish(8, Outcome::Failed { message: "stopped".into(), retry: true, output: Bytes::new() });
    assert_eq!(bench.said(), [], "9 is still at work");
    bench.finish(9, done());
    assert_eq!(bench.said(), [finish(9)], "what it reached is judged");
    bench.judge(9);
    assert_eq!(bench.said(), [goodbye(&[8])]);
    assert!(bench.worker.is_drained());
}

#[test]
fn a_worker_that_is_told_to_stop_waits_for_no_handler_longer_than_an_election_timeout() {
    let mut bench = Bench::welcome();
    bench.dispatch(8);
    bench.step(Input::Stop);
    bench.said();
    let end = bench.now + LAN.election_timeout;
    bench.greet(1);
    assert_eq!(bench.worker.next_deadline(), end);
    bench.after(LAN.election_timeout - Duration::from_millis(1));
    assert!(!bench.worker.is_drained());
    bench.said();
    bench.after(Duration::from_millis(1));
    assert_eq!(bench.said(), [goodbye(&[8])]);
    assert!(bench.worker.is_drained());
}

#[test]
fn an_idle_worker_says_goodbye_to_the_next_master_when_the_last_one_has_gone() {
    let mut bench = Bench::welcome();
    bench.step(Input::LinkDown { node: MASTER });
    bench.step(Input::Drain);
    assert!(!bench.worker.is_drained(), "nobody hears it");
    bench.step(Input::LinkUp { node: NEXT });
    bench.hear(NEXT, ToWorker::Here { epoch: Epoch(2) });
    bench.said();
    bench.greet(2);
    assert_eq!(bench.said(), [goodbye(&[])]);
    let mut bench = Bench::welcome();
    bench.step(Input::LinkDown { node: MASTER });
    bench.step(Input::Drain);
    bench.after(LAN.election_timeout);
    assert!(bench.worker.is_drained(), "nor is it waited for");
}

#[test]
fn no_run_takes_over_the_session_of_the_run_before() {
    let mut bench = Bench::new(2);
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    bench.said();
    // The master had this in hand when the new run's link came up.
    let (epoch, session, ttl, sent) = (Epoch(1), SESSION, LAN.session, bench.now);
    let incarnation = Incarnation(RUN.0 - 1);
    bench.hear(MASTER, ToWorker::Welcome { epoch, incarnation, session, ttl, sent });
    bench.dispatch(9);
    assert_eq!((bench.started(), bench.said()), (vec![], vec![]), "the run before may have begun it");
    bench.greet(1);
    bench.dispatch(9);
    assert_eq!(bench.started(), [Fence(9)]);
}

#[test]
fn whoever_drains_answers_for_no_run_but_its_own() {
    let mut bench = Bench::new(2);
    bench.step(Input::LinkUp { node: MASTER });
    bench.hear(MASTER, ToWorker::Here { epoch: Epoch(1) });
    bench.step(Input::Drain);
    bench.said();
    bench.dispatch(9);
    assert_eq!(bench.said(), [], "the run before may have begun it: nobody may say that it never started");
}

#[test]
fn a_worker_whose_own_node_has_just_stopped_to_lead_says_goodbye_to_the_next_master() {
    let mut bench = Bench::welcome();
    // Its master has handed over, and nothing tells the worker: no link goes down.
    bench.step(Input::Drain);
    match &bench.said()[..] {
        [ToMaster::Hello { offer, .. }] => assert_eq!(offer.slots, 0),
        other => panic!("{other:?}"),
    }
    bench.step(Input::LinkUp { node: NEXT });
    bench.hear(NEXT, ToWorker::Here { epoch: Epoch(2) });
    bench.said();
    bench.greet(2);
    assert_eq!(bench.said(), [goodbye(&[])]);
}

#[test]
fn a_goodbye_names_what_may_have_begun_here() {
    let mut bench = Bench::welcome();
    bench.dispatch(7);
    bench.hear(MASTER, ToWorker::Unknown { epoch: Epoch(1) });
    bench.finish(7, Outcome::Failed { message: "stopped".into(), retry: true, output: Bytes::new() });
    bench.greet(1);
    bench.dispatch(8);
    bench.finish(8, done());
    bench.judge(8);
    bench.said();
    bench.step(Input::Drain);
    bench.said();
    bench.greet(1);
    assert_eq!(bench.said(), [goodbye(&[7])], "of 9, which is on its way, it has said that it never began here");
    bench.dispatch(9);
    assert_eq!((bench.started(), bench.said()), (vec![Fence(7), Fence(8)], vec![]));
}

#[test]
fn of_what_it_has_forgotten_a_worker_says_that_it_may_have_begun() {
    let mut bench = Bench::welcome();
    for fence in 1..=GONE_MAX as u64 + 2 {
        bench.dispatch(fence);
        bench.finish(fence, done());
        bench.judge(fence);
    }
    bench.step(Input::Drain);
    bench.said();
    bench.greet(1);
    let begun = Begun { through: Fence(2), fences: Vec::new() };
    assert_eq!(bench.said(), [ToMaster::Goodbye { session: SESSION, begun }]);
}

#[test]
fn a_result_that_the_log_cannot_carry_is_a_failure_in_words() {
    let mut bench = Bench::welcome();
    bench.dispatch(9);
    bench.finish(9, Outcome::done(Bytes::from(vec![0; crate::wire::MAX_VALUE + 1])));
    match &bench.said()[..] {
        [ToMaster::Finish { outcome: Outcome::Failed { message, retry: false, .. }, .. }] => {
            assert!(message.contains("1048577 bytes"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}
