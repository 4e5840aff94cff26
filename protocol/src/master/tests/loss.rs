//! Evidence of death, and what it moves.

use super::*;

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

#[test]
fn evidence_behind_a_goodbye_ends_the_client_sessions_that_wanted_no_proof() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let session = bench.session(B);
    bench.hear(B, ToMaster::Goodbye { session, begun: Begun::default() });
    bench.settle();
    bench.link_down(B);
    bench.evidence(B);
    assert_eq!(bench.proposed(), [released(B)]);
}
