//! What the state promises, one sentence a test.

mod effects;
mod image;
mod keys;
mod naive;
mod naive_keys;
mod naive_rights;
mod random;
mod rights;
mod sessions;
mod tasks;
mod world;

use std::time::Duration;

use bytes::Bytes;

use self::world::*;
use super::*;
use crate::types::Seq;
use crate::wire::MAX_VALUE;

fn put(key: &str, value: &'static str, expect: Expect) -> Operation {
    Operation::Put(Put { expect, ..Put::new(key, value) })
}

fn delete(key: &str, expect: Expect) -> Operation {
    Operation::Delete(Delete { key: key.into(), expect })
}

fn written(answer: Answer) -> Revision {
    match answer {
        Answer::Written(revision) => revision,
        other => panic!("not written: {other:?}"),
    }
}

fn conflict(current: Revision) -> Answer {
    Answer::Refused(Refused::Conflict { current })
}

#[test]
fn a_full_cluster_refuses_what_would_grow_it_and_takes_the_rest() {
    let mut ask = blank();
    let big = Bytes::from(vec![7; MAX_VALUE]);
    let big = |key: u64| Operation::Put(Put::new(format!("{key}"), big.clone()));
    let fits = (0..).take_while(|&key| matches!(ask(big(key)), Answer::Written(_))).count() as u64;
    assert_eq!(fits, limits::MAX_BYTES / MAX_VALUE as u64 - 1);
    assert!(matches!(ask(big(fits)), Answer::Refused(Refused::Quota(_))));
    let task = TaskSpec::new("a", vec![0; MAX_VALUE]);
    assert!(matches!(ask(Operation::Submit(vec![task])), Answer::Refused(Refused::Quota(_))));
    written(ask(big(0)));
    written(ask(delete("0", Expect::Any)));
    written(ask(big(fits)));
}

#[test]
fn a_command_that_changes_nothing_takes_no_revision() {
    let mut world = World::with_worker();
    let revision = world.state.revision();
    world.expire();
    world.apply(Command::Renew { sessions: vec![SessionId(77), world.worker] });
    world.assign_raw(TaskId(9), 1, world.worker);
    world.finish(TaskId(9), crate::types::Fence(3), done(""));
    assert_eq!(world.state.revision(), revision);
}

#[test]
fn equal_contents_have_equal_digests_and_time_is_content() {
    let run = |last| {
        let mut world = World::with_worker();
        world.submit(TaskSpec::new("a", "1"));
        world.now = world.now + Duration::from_millis(last);
        world.client(put("a", "1", Expect::Any));
        world.state
    };
    assert_eq!(run(5).digest(), run(5).digest());
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).digest(), run(6).digest());
}

#[test]
fn every_part_of_the_state_is_in_the_digest() {
    let mut world = World::with_worker();
    let mut digests = std::collections::BTreeSet::new();
    let mut look = |world: &World| assert!(digests.insert(world.state.content()), "a change left no trace");
    look(&world);
    world.register(Duration::from_secs(1));
    look(&world);
    world.client(put("a", "1", Expect::Any));
    look(&world);
    world.client(put("a", "1", Expect::Any));
    look(&world);
    let task = world.submit(TaskSpec::new("a", ""));
    look(&world);
    let session = world.register(Duration::from_secs(60));
    look(&world);
    world.client(Operation::Put(Put { owner: Some(session), ..Put::new("b", "1") }));
    look(&world);
    world.client(Operation::Put(Put { ttl: Some(Duration::from_secs(60)), ..Put::new("c", "1") }));
    look(&world);
    let fence = world.assign(task, 1);
    look(&world);
    world.release(task, fence, ReleaseCause::NotHeld);
    look(&world);
    world.finish(task, fence, done("late"));
    look(&world);
    world.advance(Duration::from_millis(1));
    world.apply(Command::Renew { sessions: vec![world.worker] });
    look(&world);
    world.open(1, 2);
    look(&world);
}

/// A blank state with one session, which asks.
fn blank() -> impl FnMut(Operation) -> Answer {
    let mut state = State::default();
    let session = SessionId(1);
    state.apply(ClusterTime(0), &Command::Register { ttl: Duration::from_secs(60) }, &mut Vec::new());
    let mut seq = Seq(0);
    move |operation| {
        seq = seq.next();
        let command = Command::Client { session, seq, first_incomplete: seq, operation };
        state.apply(ClusterTime(0), &command, &mut Vec::new())
    }
}
