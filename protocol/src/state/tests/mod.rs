//! What the state promises, one sentence a test.

mod image;
mod naive;
mod random;
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
    Operation::Put { key: key.into(), value: Bytes::from_static(value.as_bytes()), expect }
}

fn delete(key: &str, expect: Expect) -> Operation {
    Operation::Delete { key: key.into(), expect }
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
fn a_key_has_the_revisions_of_its_making_and_of_its_last_write() {
    let mut world = World::new();
    let made = written(world.client(put("a", "1", Expect::Any)));
    let again = written(world.client(put("a", "2", Expect::Any)));
    assert!(again > made);
    let value = Value { value: Bytes::from_static(b"2"), created: made, modified: again };
    assert_eq!(world.state.query(&Query::Get("a".into())), Answer::Value(Some(value)));
    assert_eq!(world.summary().keys, 1);
}

#[test]
fn a_write_that_expected_something_else_changes_no_key() {
    let mut world = World::new();
    assert_eq!(world.client(put("a", "1", Expect::Present)), conflict(Revision(0)));
    let first = written(world.client(put("a", "1", Expect::Absent)));
    assert_eq!(world.client(put("a", "2", Expect::Absent)), conflict(first));
    let second = written(world.client(put("a", "2", Expect::Revision(first))));
    assert_eq!(world.client(put("a", "3", Expect::Revision(first))), conflict(second));
    assert_eq!(world.client(delete("a", Expect::Revision(first))), conflict(second));
    written(world.client(delete("a", Expect::Revision(second))));
    assert_eq!(world.state.query(&Query::Get("a".into())), Answer::Value(None));
}

#[test]
fn two_writes_of_one_key_in_one_entry_have_two_revisions() {
    // F5: with one revision for both, a write that expects the first would overwrite the second.
    let mut world = World::new();
    let first = written(world.client(put("x", "1", Expect::Any)));
    let second = written(world.client(put("x", "2", Expect::Any)));
    assert_ne!(first, second);
}

#[test]
fn a_key_that_was_deleted_never_has_an_old_revision_again() {
    let mut world = World::new();
    let first = written(world.client(put("a", "1", Expect::Any)));
    let gone = written(world.client(delete("a", Expect::Any)));
    let again = written(world.client(put("a", "1", Expect::Any)));
    assert!(first < gone && gone < again);
    assert_eq!(world.client(put("a", "2", Expect::Revision(first))), conflict(again));
}

#[test]
fn deleting_what_is_not_there_is_not_found() {
    let mut world = World::new();
    for expect in [Expect::Any, Expect::Present, Expect::Absent, Expect::Revision(Revision(0))] {
        assert_eq!(world.client(delete("a", expect)), Answer::Refused(Refused::NotFound));
    }
    assert_eq!(world.client(delete("a", Expect::Revision(Revision(7)))), conflict(Revision(0)));
}

#[test]
fn keys_and_values_have_a_limit() {
    let mut world = World::new();
    let value = |len| Operation::Put { key: "a".into(), value: Bytes::from(vec![0; len]), expect: Expect::Any };
    written(world.client(value(MAX_VALUE)));
    assert!(matches!(world.client(value(MAX_VALUE + 1)), Answer::Refused(Refused::TooLarge { .. })));
    let longest = "k".repeat(limits::MAX_KEY);
    written(world.client(put(&longest, "", Expect::Any)));
    let too_long = format!("{longest}k");
    assert!(matches!(world.client(put(&too_long, "", Expect::Any)), Answer::Refused(Refused::TooLarge { .. })));
    assert!(matches!(world.client(put("", "", Expect::Any)), Answer::Refused(Refused::Invalid(_))));
}

#[test]
fn a_full_cluster_refuses_what_would_grow_it_and_takes_the_rest() {
    let mut state = State::default();
    let session = SessionId(1);
    state.apply(ClusterTime(0), &Command::Register { ttl: Duration::from_secs(60) }, &mut Vec::new());

    let mut seq = Seq(0);
    let mut ask = |operation| {
        seq = seq.next();
        let command = Command::Client { session, seq, first_incomplete: seq, operation };
        state.apply(ClusterTime(0), &command, &mut Vec::new())
    };
    let big = Bytes::from(vec![7; MAX_VALUE]);
    let big = |key: u64| Operation::Put { key: format!("{key}"), value: big.clone(), expect: Expect::Any };
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
