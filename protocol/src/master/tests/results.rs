//! Results are judged, each once.

use super::*;

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
    let mut recorded = Vec::new();
    loop {
        // The master takes a few, and the worker says the others again.
        for &task in tasks.iter().filter(|task| !recorded.contains(*task)) {
            let (node, held) = bench.grant(task);
            bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: Outcome::done(vec![7; 1 << 20]) });
        }
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
        bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: Outcome::done(vec![7; 300 << 10]) });
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

#[test]
fn an_expiry_that_is_no_workers_does_not_let_all_results_go_at_once() {
    let mut bench = Bench::with_workers(&[(B, 12)]);
    let key = Put { ttl: Some(LAN.heartbeat), ..Put::new("k", "") };
    bench.operate(Operation::Put(key));
    let tasks = bench.submit_all(vec![echo(); 12]);
    bench.settle();
    bench.now = bench.now + 2 * LAN.heartbeat;
    for &task in &tasks {
        let (node, held) = bench.grant(task);
        bench.hear(node, ToMaster::Finish { task, fence: held.fence, outcome: Outcome::done(vec![7; 1 << 20]) });
    }
    let commands = bench.proposed();
    assert!(commands.iter().any(|command| matches!(command, Command::Expire { .. })), "the key's time is over");
    let is_result = |command: &&Command| matches!(command, Command::Master(MasterCommand::Finish { .. }));
    assert_eq!(commands.iter().filter(is_result).count(), 2);
}
