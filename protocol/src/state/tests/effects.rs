//! What tasks write with their results.

use super::*;
use crate::types::{Fence, TaskId};

fn effects(effects: Vec<TaskEffect>) -> Outcome {
    Outcome::Done { output: Bytes::from_static(b"out"), effects }
}

fn set(key: &str, value: &'static str) -> TaskEffect {
    TaskEffect::Put { key: key.into(), value: Bytes::from_static(value.as_bytes()) }
}

fn add(counter: &str, by: i64) -> TaskEffect {
    TaskEffect::Add { counter: counter.into(), by }
}

fn value(world: &World, key: &str) -> Option<Value> {
    match world.state.query(&Query::Get(key.into())) {
        Answer::Value { found, .. } => found,
        other => panic!("no value: {other:?}"),
    }
}

fn counted(world: &World, counter: &str) -> Counted {
    match world.state.query(&Query::Counter(counter.into())) {
        Answer::Counted(counted) => counted,
        other => panic!("not counted: {other:?}"),
    }
}

/// A world with a task whose first attempt is granted.
fn granted() -> (World, TaskId, Fence) {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let fence = world.assign(task, 1);
    (world, task, fence)
}

/// The words with which a task failed for good.
fn failure(world: &World, task: TaskId) -> String {
    match world.view(task).state {
        TaskState::Failed { message, .. } => message,
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn effects_are_written_under_the_revision_that_records_the_result() {
    let (mut world, task, fence) = granted();
    world.client(put("old", "1", Expect::Any));
    let before = world.state.revision();
    let all = vec![set("thumb", "x"), TaskEffect::Delete("old".into()), TaskEffect::Delete("none".into()), add("n", 2)];
    assert_eq!(world.finish(task, fence, effects(all)), Answer::Ok);
    let revision = before.next();
    assert_eq!(world.state.revision(), revision);
    let thumb = value(&world, "thumb").expect("it was written");
    assert_eq!((&*thumb.value, thumb.created, thumb.modified), (&b"x"[..], revision, revision));
    assert_eq!((value(&world, "old"), counted(&world, "n")), (None, Counted { value: 2, revision }));
    let told: Vec<_> = world.changes.iter().filter(|change| matches!(change, ClusterChange::Key(_))).collect();
    assert_eq!(told.len(), 2, "whoever watches is told: {told:?}");
}

#[test]
fn effects_of_a_result_that_comes_again_are_there_once() {
    let (mut world, task, fence) = granted();
    for _ in 0..3 {
        assert_eq!(world.finish(task, fence, effects(vec![add("n", 1)])), Answer::Ok);
    }
    assert_eq!(counted(&world, "n").value, 1);
}

#[test]
fn only_the_attempt_whose_result_is_recorded_writes() {
    let (mut world, task, first) = granted();
    world.release(task, first, ReleaseCause::NotHeld);
    let late = || effects(vec![add("n", 1), set("who", "first")]);
    assert!(matches!(world.finish(task, first, late()), Answer::Refused(Refused::Conflict { .. })));
    let second = world.assign(task, 2);
    world.finish(task, first, late());
    assert_eq!(world.finish(task, second, effects(vec![add("n", 1), set("who", "second")])), Answer::Ok);
    assert_eq!(world.finish(task, first, late()), Answer::Refused(Refused::Ended));
    assert_eq!(counted(&world, "n").value, 1);
    assert_eq!(value(&world, "who").unwrap().value, "second");
}

#[test]
fn an_effect_that_is_refused_fails_its_attempt_for_good_and_none_is_done() {
    let session = |world: &mut World| {
        let owner = world.register(Duration::from_secs(60));
        world.client(Operation::Put(Put { owner: Some(owner), ..Put::new("owned", "1") }));
    };
    let cases = [
        (vec![set("owned", "2")], "belongs to the session"),
        (vec![TaskEffect::Delete("owned".into())], "belongs to the session"),
        (vec![add("full", 1)], "leaves the range"),
        (vec![set("twice", "1"), TaskEffect::Delete("twice".into())], "\"twice\" twice"),
        (vec![set("", "1")], "must not be empty"),
        (vec![set(&"k".repeat(limits::MAX_KEY + 1), "1")], "513 bytes"),
        (vec![add("n", 1); limits::MAX_EFFECTS + 1], "131 effects"),
        (vec![TaskEffect::Put { key: "k".into(), value: vec![0; MAX_VALUE].into() }], "more than the limit of 1048576"),
    ];
    for (refused, words) in cases {
        let (mut world, task, fence) = granted();
        session(&mut world);
        let full = Add { counter: "full".into(), by: i64::MAX, once: None };
        world.client(Operation::Counter(CounterOperation::Add(full)));
        let all = [set("before", "1"), add("m", 1)].into_iter().chain(refused).collect();
        assert_eq!(world.finish(task, fence, effects(all)), Answer::Ok, "the attempt is judged");
        let message = failure(&world, task);
        assert!(message.contains(words), "{message}");
        assert_eq!((value(&world, "before"), counted(&world, "m").value), (None, 0), "{message}");
        assert_eq!(value(&world, "owned").unwrap().value, "1");
        assert_eq!(world.summary().results_recorded, 0);
    }
}

#[test]
fn a_full_cluster_refuses_effects_that_would_grow_it() {
    let mut state = State::default();
    let (mut perform, room) = (
        |others, effect: &[TaskEffect]| {
            let State { time, revision, keys, counters, clients, rights, .. } = &mut state;
            let step = &mut Step { time: *time, revision, changes: &mut Vec::new() };
            super::effects::Metadata { keys, counters, clients, rights, others }.perform(effect, step)
        },
        limits::MAX_BYTES - 1_000,
    );
    let [more, less] = [1_001, 100].map(|len| TaskEffect::Put { key: "k".into(), value: vec![7; len].into() });
    assert!(matches!(perform(room, &[more]), Err(Refused::Quota(_))));
    assert!(matches!(perform(limits::MAX_BYTES, &[add("n", 1)]), Err(Refused::Quota(_))));
    assert_eq!(perform(room, &[less, add("n", 1)]), Ok(()));
    assert!(
        matches!(perform(limits::MAX_BYTES, &[set("k", "longer"), add("n", 1)]), Ok(())),
        "what is there may change"
    );
}
