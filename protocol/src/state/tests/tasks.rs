//! Tasks, from submission to oblivion.

use std::collections::BTreeMap;

use super::*;
use crate::types::{Attempt, Fence};

fn events(world: &World, task: TaskId) -> Vec<(u32, HistoryEvent)> {
    world.view(task).history.into_iter().map(|line| (line.attempt, line.what)).collect()
}

fn not_before(world: &World, task: TaskId) -> ClusterTime {
    match world.view(task).state {
        TaskState::Pending { not_before } => not_before,
        other => panic!("not pending: {other:?}"),
    }
}

#[test]
fn a_task_is_submitted_granted_and_done() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("resize", "in"));
    assert_eq!(task, TaskId(1));
    assert!(
        matches!(&world.changes[0], ClusterChange::Submitted(live) if live.id == task && live.spec.payload == "in")
    );
    let fence = world.assign(task, 1);
    let attempt = Attempt { task, number: 1 };
    assert!(matches!(&world.changes[..], [ClusterChange::Assigned { attempt: granted, grant }]
        if *granted == attempt && grant.fence == fence && grant.node == NodeId(1) && grant.session == world.worker));
    assert_eq!(world.finish(task, fence, done("out")), Answer::Ok);
    assert_eq!(
        world.changes[..2],
        [
            ClusterChange::Judged { task, fence, recorded: true },
            ClusterChange::Ended { task, fence: Some((NodeId(1), attempt, fence)), by_worker: true },
        ]
    );
    let view = world.view(task);
    assert!(matches!(view.state, TaskState::Done { ref output, .. } if output == "out"));
    assert_eq!(view.attempts, 1);
    assert_eq!(events(&world, task), [(1, HistoryEvent::Assigned(NodeId(1))), (1, HistoryEvent::Done)]);
    let summary = world.summary();
    assert_eq!((summary.done, summary.results_recorded, summary.pending, summary.assigned), (1, 1, 0, 0));
}

#[test]
fn a_batch_is_recorded_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    let bad = TaskSpec::new("", "");
    assert!(matches!(
        world.client(Operation::Submit(vec![TaskSpec::new("a", ""), bad])),
        Answer::Refused(Refused::Invalid(_))
    ));
    assert_eq!(world.summary().pending, 0);
    let tasks = world.submit_all(vec![TaskSpec::new("a", ""); 3]);
    assert_eq!(tasks.iter().map(|submitted| submitted.task).collect::<Vec<_>>(), [TaskId(1), TaskId(2), TaskId(3)]);
    assert!(tasks.iter().all(|submitted| submitted.fresh));
}

#[test]
fn a_task_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    let spec = || TaskSpec::new("a", "");
    let day = Duration::from_secs(24 * 3600);
    let wrong = [
        TaskSpec { kind: "k".repeat(limits::MAX_KIND + 1), ..spec() },
        TaskSpec { payload: Bytes::from(vec![0; MAX_VALUE + 1]), ..spec() },
        TaskSpec { delivery: Delivery::AtMostOnce, retries: 1, ..spec() },
        TaskSpec { keep: 31 * day, ..spec() },
        TaskSpec { timeout: 31 * day, ..spec() },
        TaskSpec { backoff: Duration::MAX, ..spec() },
        TaskSpec { once_key: Some(String::new()), ..spec() },
        TaskSpec { once_key: Some("k".repeat(limits::MAX_KEY + 1)), ..spec() },
        TaskSpec { needs: (0..65).map(|n| (n.to_string(), String::new())).collect(), ..spec() },
        TaskSpec { needs: BTreeMap::from([("zone".into(), "z".repeat(300))]), ..spec() },
    ];
    for spec in wrong {
        let answer = world.client(Operation::Submit(vec![spec.clone()]));
        assert!(
            matches!(answer, Answer::Refused(Refused::Invalid(_) | Refused::TooLarge { .. })),
            "{answer:?}: {spec:?}"
        );
    }
    let too_many = vec![spec(); limits::MAX_BATCH + 1];
    assert!(matches!(world.client(Operation::Submit(too_many)), Answer::Refused(Refused::TooLarge { .. })));
}

#[test]
fn a_once_key_names_the_first_submission_until_its_record_is_forgotten() {
    let mut world = World::with_worker();
    let keep = Duration::from_secs(10);
    let spec = || TaskSpec { once_key: Some("img-42".into()), keep, ..TaskSpec::new("a", "") };
    let first = world.submit_all(vec![spec(), spec()]);
    let task = first[0].task;
    assert_eq!(first, [Submitted { task, fresh: true }, Submitted { task, fresh: false }]);
    // F9: the key's time begins when the task has ended, however long that takes.
    world.advance(Duration::from_secs(1000));
    world.apply(Command::Renew { sessions: vec![world.worker] });
    world.expire();
    assert_eq!(world.submit(spec()), task);
    let fence = world.assign(task, 1);
    world.finish(task, fence, done(""));
    world.advance(keep - Duration::from_millis(1));
    world.expire();
    assert_eq!(world.submit(spec()), task);
    world.advance(Duration::from_millis(1));
    world.expire();
    assert_eq!(world.state.query(&Query::Task(task)), Answer::Refused(Refused::NotFound));
    assert_eq!(world.submit(spec()), TaskId(2));
}

#[test]
fn a_record_that_nobody_wants_kept_stays_long_enough_to_be_seen() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { keep: Duration::ZERO, ..TaskSpec::new("a", "") });
    let fence = world.assign(task, 1);
    world.finish(task, fence, done("out"));
    world.expire();
    assert!(world.view(task).state.is_final());
    world.advance(limits::MIN_KEEP);
    world.expire();
    assert_eq!(world.state.task_state(task), None);
}

#[test]
fn an_attempt_is_granted_only_under_the_facts_it_was_decided_on() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let void = |world: &World| world.changes == [ClusterChange::Void { task: Some(task) }];
    world.assign_raw(task, 2, world.worker);
    assert!(void(&world), "not its next attempt");
    world.assign_raw(task, 1, SessionId(99));
    assert!(void(&world), "no such session");
    let fence = world.assign(task, 1);
    world.assign_raw(task, 1, world.worker);
    assert!(void(&world), "granted already");
    world.assign_raw(task, 2, world.worker);
    assert!(void(&world), "not pending");
    world.finish(task, fence, failed("oops", true));
    world.assign_raw(task, 2, world.worker);
    assert!(void(&world), "too early");
    world.now = not_before(&world, task);
    world.apply(Command::Renew { sessions: vec![world.worker] });
    let fence = world.assign(task, 2);
    world.finish(task, fence, done(""));
    assert_eq!(world.assign_raw(task, 3, world.worker), Answer::Refused(Refused::Ended));
    assert!(void(&world), "ended");
    assert_eq!(world.assign_raw(TaskId(9), 1, world.worker), Answer::Refused(Refused::NotFound));
}

#[test]
fn every_grant_in_one_entry_has_a_fence_of_its_own() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let first = world.assign(task, 1);
    world.release(task, first, ReleaseCause::NotHeld);
    let second = world.assign(task, 2);
    assert!(second > first);
    assert_eq!(world.release(task, first, ReleaseCause::NotHeld), conflict(Revision(second.0)));
}

#[test]
fn a_late_result_is_refused_once_and_named_in_the_history() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let first = world.assign(task, 1);
    world.release(task, first, ReleaseCause::Evidence);
    let second = world.assign(task, 2);
    for _ in 0..2 {
        assert_eq!(world.finish(task, first, done("late")), conflict(Revision(second.0)));
        assert_eq!(world.changes, [ClusterChange::Judged { task, fence: first, recorded: false }]);
    }
    assert_eq!(world.summary().results_refused, 1);
    assert_eq!(events(&world, task).last(), Some(&(1, HistoryEvent::LateResultRefused(first))));
    world.finish(task, second, done("right"));
    assert!(matches!(world.view(task).state, TaskState::Done { ref output, .. } if output == "right"));
}

#[test]
fn a_result_that_comes_twice_is_recorded_once_and_acknowledged_twice() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let fence = world.assign(task, 1);
    for _ in 0..2 {
        assert_eq!(world.finish(task, fence, done("out")), Answer::Ok);
        assert_eq!(world.changes[0], ClusterChange::Judged { task, fence, recorded: true });
    }
    let summary = world.summary();
    assert_eq!((summary.results_recorded, summary.results_refused), (1, 0));
    assert_eq!(events(&world, task).len(), 2);
}

#[test]
fn a_failure_that_comes_twice_counts_once() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { retries: 1, backoff: Duration::ZERO, ..TaskSpec::new("a", "") });
    let first = world.assign(task, 1);
    world.finish(task, first, failed("oops", true));
    let second = world.assign(task, 2);
    world.finish(task, first, failed("oops", true));
    assert!(matches!(world.view(task).state, TaskState::Assigned { fence, .. } if fence == second));
    assert_eq!(world.summary().results_refused, 0);
}

#[test]
fn the_outcome_of_a_forgotten_task_is_not_found_and_its_worker_is_told() {
    let mut world = World::with_worker();
    assert_eq!(world.finish(TaskId(7), Fence(3), done("")), Answer::Refused(Refused::NotFound));
    assert_eq!(world.changes, [ClusterChange::Judged { task: TaskId(7), fence: Fence(3), recorded: false }]);
}

#[test]
fn a_failed_attempt_is_followed_by_another_after_a_growing_wait() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { retries: 3, backoff: Duration::from_secs(1), ..TaskSpec::new("a", "") });
    for (number, wait_ms) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
        let fence = world.assign(task, number);
        world.finish(task, fence, failed("oops", true));
        let wait = not_before(&world, task).0 - world.now.0;
        assert!((wait_ms..=wait_ms + wait_ms / 4).contains(&wait), "waits {wait} ms after attempt {number}");
        world.now = not_before(&world, task);
        world.apply(Command::Renew { sessions: vec![world.worker] });
    }
    let fence = world.assign(task, 4);
    world.finish(task, fence, failed("still", true));
    assert!(matches!(world.view(task).state, TaskState::Failed { ref message, .. } if message == "still"));
    assert_eq!(world.summary().failed, 1);
}

#[test]
fn a_wait_is_bounded_and_the_first_one_is_what_was_asked_for() {
    let mut world = World::with_worker();
    let day = Duration::from_secs(24 * 3600);
    let task = world.submit(TaskSpec { backoff: day, retries: 99, ..TaskSpec::new("a", "") });
    for number in 1..=3 {
        let fence = world.assign(task, number);
        world.finish(task, fence, failed("", true));
        let wait = Duration::from_millis(not_before(&world, task).0 - world.now.0);
        assert!(wait >= day && wait <= day + day / 4);
        world.now = not_before(&world, task);
        world.apply(Command::Renew { sessions: vec![world.worker] });
    }
}

#[test]
fn a_failure_that_no_retry_can_mend_is_final() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { retries: 9, ..TaskSpec::new("a", "") });
    let fence = world.assign(task, 1);
    let output = Bytes::from_static(b"half");
    world.finish(task, fence, Outcome::Failed { message: "no such file".into(), retry: false, output });
    assert!(matches!(world.view(task).state, TaskState::Failed { ref output, .. } if output == "half"));
}

#[test]
fn evidence_gives_a_task_that_may_run_again_to_another_and_leaves_the_other_kind_alone() {
    let mut world = World::with_worker();
    let (often, once) = (world.submit(TaskSpec::new("a", "")), world.submit(once("a")));
    let (often_fence, once_fence) = (world.assign(often, 1), world.assign(once, 1));
    assert_eq!(world.release(often, often_fence, ReleaseCause::Evidence), Answer::Ok);
    assert_eq!(not_before(&world, often), world.now);
    assert_eq!(world.release(once, once_fence, ReleaseCause::Evidence), conflict(Revision(once_fence.0)));
    assert_eq!(world.changes, [ClusterChange::Void { task: Some(once) }]);
    assert_eq!(world.finish(once, once_fence, done("")), Answer::Ok);
}

#[test]
fn a_release_that_claims_the_end_of_a_live_session_is_void() {
    // F8: a task that may run once is lost only when its session really ended.
    let mut world = World::with_worker();
    let task = world.submit(once("a"));
    let fence = world.assign(task, 1);
    world.release(task, fence, ReleaseCause::SessionEnded);
    assert_eq!(world.changes, [ClusterChange::Void { task: Some(task) }]);
}

#[test]
fn a_task_that_may_run_once_is_lost_with_its_session_and_stays_lost() {
    let mut world = World::with_worker();
    let task = world.submit(once("charge"));
    let fence = world.assign(task, 1);
    world.advance(Duration::from_secs(3));
    world.expire();
    assert!(matches!(world.view(task).state, TaskState::Lost { .. }));
    world.worker = world.open(1, 1);
    assert_eq!(world.finish(task, fence, done("late")), Answer::Refused(Refused::Ended));
    assert_eq!(world.assign_raw(task, 2, world.worker), Answer::Refused(Refused::Ended));
    assert!(matches!(world.view(task).state, TaskState::Lost { .. }));
    assert_eq!(events(&world, task).last(), Some(&(1, HistoryEvent::LateResultRefused(fence))));
    assert_eq!((world.summary().failed, world.summary().attempts), (1, 1));
}

#[test]
fn a_task_that_may_run_once_and_is_not_held_is_lost() {
    let mut world = World::with_worker();
    let task = world.submit(once("a"));
    let fence = world.assign(task, 1);
    assert_eq!(world.release(task, fence, ReleaseCause::NotHeld), Answer::Ok);
    assert!(matches!(world.view(task).state, TaskState::Lost { .. }));
}

#[test]
fn a_task_that_may_run_once_and_never_started_goes_again() {
    let mut world = World::with_worker();
    let task = world.submit(once("a"));
    let handed_back = world.assign(task, 1);
    assert_eq!(world.release(task, handed_back, ReleaseCause::HandedBack), Answer::Ok);
    let fence = world.assign(task, 2);
    assert!(matches!(world.finish(task, handed_back, done("late")), Answer::Refused(_)));
    assert_eq!(world.finish(task, fence, done("")), Answer::Ok);
    assert!(matches!(world.view(task).state, TaskState::Done { .. }));
}

#[test]
fn an_attempt_out_of_time_has_failed() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { retries: 1, backoff: Duration::ZERO, ..TaskSpec::new("a", "") });
    let fence = world.assign(task, 1);
    world.release(task, fence, ReleaseCause::TimedOut);
    let fence = world.assign(task, 2);
    world.release(task, fence, ReleaseCause::TimedOut);
    assert!(matches!(world.view(task).state, TaskState::Failed { ref message, .. } if message.contains("t1#2")));
}

#[test]
fn an_attempt_handed_back_or_not_held_counts_against_nothing() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec { retries: 0, ..TaskSpec::new("a", "") });
    for number in 1..=50 {
        let fence = world.assign(task, number);
        let cause = if number % 2 == 0 { ReleaseCause::NotHeld } else { ReleaseCause::HandedBack };
        assert_eq!(world.release(task, fence, cause), Answer::Ok);
        assert_eq!(not_before(&world, task), world.now);
    }
    let view = world.view(task);
    assert_eq!((view.attempts, view.history.len()), (50, limits::MAX_HISTORY));
}

#[test]
fn a_task_that_kills_three_workers_is_not_given_to_a_fourth() {
    let mut world = World::with_worker();
    let (killer, neighbour) = (world.submit(TaskSpec::new("a", "")), world.submit(TaskSpec::new("b", "")));
    for number in 1..=limits::MAX_DEATHS {
        let fence = world.assign(killer, number);
        if number == 1 {
            world.release(killer, fence, ReleaseCause::Evidence);
            continue;
        }
        world.advance(Duration::from_secs(3));
        world.expire();
        world.worker = world.open(1, u64::from(number));
    }
    let state = world.view(killer).state;
    assert!(matches!(state, TaskState::Failed { ref message, .. } if message.contains("3 attempts")), "{state:?}");
    assert!(matches!(world.view(neighbour).state, TaskState::Pending { .. }));
}

#[test]
fn a_cancelled_task_has_ended_and_its_worker_is_told_to_stop() {
    let mut world = World::with_worker();
    let (waiting, granted) = (world.submit(TaskSpec::new("a", "")), world.submit(TaskSpec::new("b", "")));
    let fence = world.assign(granted, 1);
    let cancel = |task| Operation::Cancel { task, reason: "closed the page".into() };
    assert!(matches!(world.client(cancel(waiting)), Answer::Task(view) if view.state.is_final()));
    assert_eq!(world.changes[0], ClusterChange::Ended { task: waiting, fence: None, by_worker: false });
    world.client(cancel(granted));
    let held = Some((NodeId(1), Attempt { task: granted, number: 1 }, fence));
    assert_eq!(world.changes[0], ClusterChange::Ended { task: granted, fence: held, by_worker: false });
    assert_eq!(world.client(cancel(granted)), Answer::Refused(Refused::Ended));
    assert_eq!(world.client(cancel(TaskId(9))), Answer::Refused(Refused::NotFound));
    assert_eq!(world.finish(granted, fence, done("")), Answer::Refused(Refused::Ended));
    assert!(matches!(world.view(granted).state, TaskState::Cancelled { .. }));
}

#[test]
fn a_result_that_is_too_large_fails_its_attempt_for_good() {
    let mut world = World::with_worker();
    let (done, failed) = (world.submit(TaskSpec::new("a", "")), world.submit(TaskSpec::new("b", "")));
    let fence = world.assign(done, 1);
    let output = Bytes::from(vec![0; MAX_VALUE + 1]);
    assert_eq!(world.finish(done, fence, Outcome::done(output.clone())), Answer::Ok);
    assert!(matches!(world.view(done).state, TaskState::Failed { .. }));
    assert_eq!(world.summary().results_recorded, 0);
    let fence = world.assign(failed, 1);
    let message = "ü".repeat(5_000);
    world.finish(failed, fence, Outcome::Failed { message, retry: false, output });
    let TaskState::Failed { message, output, .. } = world.view(failed).state else { panic!("it failed") };
    assert_eq!((message.len(), output.len()), (limits::MAX_TEXT, MAX_VALUE));
}

#[test]
fn a_page_shows_as_many_tasks_as_fit_and_is_empty_only_at_the_end() {
    let mut world = World::with_worker();
    let tasks: Vec<_> = (0..3).map(|_| world.submit(TaskSpec::new("a", ""))).collect();
    let big = Bytes::from(vec![0; MAX_VALUE]);
    for &task in &tasks[..2] {
        let fence = world.assign(task, 1);
        world.finish(task, fence, Outcome::done(big.clone()));
    }
    let page = |after, limit| match world.state.query(&Query::Tasks { after, limit }) {
        Answer::Tasks(tasks) => tasks.into_iter().map(|view| view.id).collect::<Vec<_>>(),
        other => panic!("no page: {other:?}"),
    };
    assert_eq!(page(TaskId(0), 9), tasks[..1]);
    assert_eq!(page(tasks[0], 9), tasks[1..2]);
    assert_eq!(page(tasks[1], 9), tasks[2..]);
    assert_eq!(page(tasks[2], 9), []);
    assert_eq!(page(TaskId(u64::MAX), 9), []);
    assert_eq!(page(tasks[1], 0), []);

    let newest = |before, limit| match world.state.query(&Query::NewestTasks { before, limit }) {
        Answer::Tasks(tasks) => tasks.into_iter().map(|view| view.id).collect::<Vec<_>>(),
        other => panic!("no page: {other:?}"),
    };
    assert_eq!(newest(None, 1), [tasks[2]]);
    assert_eq!(newest(None, 9), [tasks[2]], "the one before does not fit");
    assert_eq!(newest(Some(tasks[2]), 9), [tasks[1]]);
    assert_eq!(newest(Some(tasks[1]), 9), [tasks[0]]);
    assert_eq!(newest(Some(tasks[0]), 9), []);
}

#[test]
fn the_input_of_a_task_that_is_done_makes_room_for_others() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", vec![0; 1000]));
    let before = world.state.tasks.bytes();
    let fence = world.assign(task, 1);
    world.finish(task, fence, done("12345"));
    assert!(world.state.tasks.bytes() < before - 1000);
    world.advance(Duration::from_secs(3600));
    world.expire();
    assert_eq!(world.state.tasks.bytes(), 0);
}

#[test]
fn a_full_backlog_puts_submissions_off_until_tasks_have_ended_and_their_time_is_over() {
    let mut world = World::with_worker();
    let big = TaskSpec { keep: Duration::ZERO, ..TaskSpec::new("a", vec![0; MAX_VALUE]) };
    let mut tasks = Vec::new();
    while !world.state.is_crowded(&Operation::Submit(vec![big.clone()])) {
        tasks.push(world.submit(big.clone()));
    }
    assert_eq!(tasks.len() as u64, limits::MAX_BACKLOG / MAX_VALUE as u64 - 1);
    let (first, next) = (Seq(1_000), Seq(1_001));
    let ask = |world: &mut World, seq, operation| world.request(world.client, seq, first, operation);
    let more = || Operation::Submit(vec![big.clone()]);
    assert_eq!(ask(&mut world, first, more()), Answer::Refused(Refused::Busy));
    assert!(matches!(ask(&mut world, next, put("k", "1", Expect::Any)), Answer::Written(_)), "other work goes on");
    assert!(!world.state.has_answered(world.client, first));

    // One has ended and gave back its input: the same request is done, and a repetition of it answered, with room or without.
    let fence = world.assign(tasks[0], 1);
    world.finish(tasks[0], fence, done(""));
    let answer = ask(&mut world, first, more());
    assert!(matches!(answer, Answer::Submitted(_)));
    assert!(world.state.is_crowded(&more()));
    assert_eq!(ask(&mut world, first, more()), answer);

    // Results of tasks that nobody wants kept are in it until their ten seconds are over.
    let fence = world.assign(tasks[1], 1);
    world.finish(tasks[1], fence, Outcome::done(vec![0; MAX_VALUE]));
    assert!(world.state.is_crowded(&more()));
    world.advance(limits::MIN_KEEP);
    world.apply(Command::Renew { sessions: vec![world.client, world.worker] });
    world.expire();
    assert!(!world.state.is_crowded(&more()));
}

#[test]
fn what_somebody_wants_kept_leaves_the_backlog_when_it_has_ended() {
    let mut world = World::with_worker();
    let spec = TaskSpec { keep: limits::MIN_KEEP + Duration::from_millis(1), ..TaskSpec::new("a", vec![0; MAX_VALUE]) };
    let more = Operation::Submit(vec![TaskSpec::new("a", vec![0; MAX_VALUE])]);
    for _ in 0..limits::MAX_BACKLOG / MAX_VALUE as u64 {
        let task = world.submit(spec.clone());
        let fence = world.assign(task, 1);
        world.finish(task, fence, Outcome::done(vec![0; MAX_VALUE]));
    }
    assert!(!world.state.is_crowded(&more));
}

#[test]
fn a_task_that_has_ended_counts_for_little_with_its_once_key_and_is_shown_as_it_was() {
    let mut world = World::with_worker();
    let once_key = Some("k".repeat(limits::MAX_KEY));
    let tasks =
        world.submit_all(vec![TaskSpec::new("tenure.noop", ""), TaskSpec { once_key, ..TaskSpec::new("a", "") }]);
    let mut counted = Vec::new();
    for &Submitted { task, .. } in &tasks {
        let fence = world.assign(task, 1);
        let before = (world.state.tasks.bytes(), world.view(task));
        world.finish(task, fence, done("out"));
        let view = world.view(task);
        assert_eq!((view.id, view.kind, view.once_key), (before.1.id, before.1.kind, before.1.once_key));
        assert_eq!(view.history.len(), 2);
        counted.push(before.0 - world.state.tasks.bytes());
    }
    assert!(counted.iter().all(|freed| *freed > 550), "{counted:?}");
    assert!(world.state.tasks.bytes() < 400 + 2 * limits::MAX_KEY as u64);
}
