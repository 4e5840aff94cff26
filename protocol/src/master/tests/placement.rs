//! Who gets what, and when.

use super::*;

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
