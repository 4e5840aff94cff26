//! What a worker holds against what the log says.

use super::*;

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
