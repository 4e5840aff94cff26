//! Keys, one sentence a test.

use std::time::Duration;

use bytes::Bytes;

use super::world::*;
use super::{blank, conflict, delete, put, written};
use crate::state::*;
use crate::types::{Seq, SessionId};
use crate::wire::MAX_VALUE;

fn found(world: &World, key: &str) -> Option<Value> {
    match world.state.query(&Query::Get(key.into())) {
        Answer::Value { found, at } => {
            assert_eq!(at, world.state.revision());
            found
        }
        other => panic!("no value: {other:?}"),
    }
}

fn events(world: &World) -> Vec<KeyChange> {
    let keys = world.changes.iter().filter_map(|change| match change {
        ClusterChange::Key(change) => Some(change.clone()),
        _ => None,
    });
    keys.collect()
}

fn gone(world: &World, why: KeyEnd) -> Vec<String> {
    let is_meant = |change: &KeyChange| change.what == KeyEvent::Deleted(why);
    events(world).into_iter().filter(is_meant).map(|change| change.key.to_string()).collect()
}

fn transacted(answer: Answer) -> Transacted {
    match answer {
        Answer::Transacted(transacted) => transacted,
        other => panic!("not done: {other:?}"),
    }
}

fn of(session: SessionId, key: &str) -> Put {
    Put { owner: Some(session), ..Put::new(key, "v") }
}

fn list(prefix: &str, after: &str, limit: u32) -> Query {
    Query::List(List { prefix: prefix.into(), after: after.into(), limit, keys_only: false })
}

fn page(world: &World, query: &Query) -> (Vec<String>, bool) {
    match world.state.query(query) {
        Answer::Keys(page) => (page.entries.into_iter().map(|(key, _)| key).collect(), page.more),
        other => panic!("no page: {other:?}"),
    }
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_key_has_the_revisions_of_its_making_and_of_its_last_write() {
    let mut world = World::new();
    let created = written(world.client(put("a", "1", Expect::Any)));
    let modified = written(world.client(put("a", "2", Expect::Any)));
    assert!(modified > created);
    let value = Value { value: Bytes::from_static(b"2"), created, modified, owner: None, expires: None };
    assert_eq!(found(&world, "a"), Some(value.clone()));
    let told = KeyChange { revision: modified, key: "a".into(), what: KeyEvent::Put(value) };
    assert_eq!(events(&world), [told]);
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
    assert_eq!(events(&world), []);
    written(world.client(delete("a", Expect::Revision(second))));
    assert_eq!(gone(&world, KeyEnd::Deleted), ["a"]);
    assert_eq!(found(&world, "a"), None);
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
    let value = |len| Operation::Put(Put::new("a", vec![0; len]));
    written(world.client(value(MAX_VALUE)));
    assert!(matches!(world.client(value(MAX_VALUE + 1)), Answer::Refused(Refused::TooLarge { .. })));
    let longest = "k".repeat(limits::MAX_KEY);
    written(world.client(put(&longest, "", Expect::Any)));
    let too_long = format!("{longest}k");
    assert!(matches!(world.client(put(&too_long, "", Expect::Any)), Answer::Refused(Refused::TooLarge { .. })));
    assert!(matches!(world.client(put("", "", Expect::Any)), Answer::Refused(Refused::Invalid(_))));
}

#[test]
fn a_sequence_has_the_revision_of_its_making_in_its_name() {
    let mut world = World::new();
    let next = Operation::Put(Put { sequence: true, ..Put::new("job-", "v") });
    let mut keys = Vec::new();
    for _ in 0..3 {
        let Answer::Sequenced { key, revision } = world.client(next.clone()) else { panic!("not made") };
        assert_eq!(key, format!("job-{:020}", revision.0));
        assert_eq!(found(&world, &key).unwrap().created, revision);
        keys.push(key);
    }
    assert_eq!(page(&world, &list("job-", "", 9)), (keys, false));
}

#[test]
fn what_belongs_to_a_session_goes_with_it_under_one_revision() {
    let mut world = World::new();
    let (one, other) = (world.register(Duration::from_secs(2)), world.register(LONG));
    for put in [of(one, "b"), of(one, "a"), of(other, "c"), Put::new("d", "v")] {
        written(world.client(Operation::Put(put)));
    }
    let before = world.state.revision();
    world.advance(Duration::from_secs(2));
    world.expire();
    assert_eq!(gone(&world, KeyEnd::SessionEnded), ["a", "b"]);
    assert!(events(&world).iter().all(|change| change.revision == before.next()));
    assert_eq!(world.state.revision(), before.next());
    assert_eq!(page(&world, &list("", "", 9)).0, ["c", "d"]);
    assert_eq!(world.client(Operation::EndSession { session: other, cause: ClientEnd::Killed }), Answer::Ok);
    assert_eq!(gone(&world, KeyEnd::SessionEnded), ["c"]);
}

#[test]
fn a_key_belongs_to_a_session_that_lives() {
    let mut world = World::with_worker();
    for nobody in [SessionId(99), world.worker] {
        let refused = Answer::Refused(Refused::NoSession(nobody));
        assert_eq!(world.client(Operation::Put(of(nobody, "a"))), refused);
    }
    assert_eq!(found(&world, "a"), None);
}

#[test]
fn a_write_without_an_owner_makes_a_key_stay() {
    let mut world = World::new();
    let (one, other) = (world.register(LONG), world.register(LONG));
    written(world.client(Operation::Put(of(one, "a"))));
    written(world.client(Operation::Put(of(one, "b"))));
    written(world.client(put("a", "stays", Expect::Any)));
    written(world.client(Operation::Put(of(other, "b"))));
    world.client(Operation::EndSession { session: one, cause: ClientEnd::Killed });
    assert_eq!(events(&world), []);
    world.client(Operation::EndSession { session: other, cause: ClientEnd::Killed });
    assert_eq!(gone(&world, KeyEnd::SessionEnded), ["b"]);
    assert_eq!(found(&world, "a").unwrap().owner, None);
}

#[test]
fn a_session_owns_a_bounded_number_of_keys() {
    let mut world = World::new();
    let session = world.register(LONG);
    for key in 0..limits::MAX_OWNED {
        world.state.apply(
            world.now,
            &Command::Client {
                session,
                seq: Seq(key as u64 + 1),
                first_incomplete: Seq(key as u64 + 1),
                operation: Operation::Put(of(session, &format!("{key}"))),
            },
            &mut Vec::new(),
        );
    }
    world.state.assert_coherent();
    assert!(matches!(world.client(Operation::Put(of(session, "more"))), Answer::Refused(Refused::Quota(_))));
    written(world.client(Operation::Put(of(session, "0"))));
    written(world.client(delete("1", Expect::Any)));
    written(world.client(Operation::Put(of(session, "more"))));

    let long = world.register(LONG);
    let key = |number: usize| format!("{number:0>width$}", width = limits::MAX_KEY);
    let fit = limits::MAX_OWNED_BYTES / limits::MAX_KEY;
    for number in 0..fit {
        written(world.client(Operation::Put(of(long, &key(number)))));
    }
    assert!(matches!(world.client(Operation::Put(of(long, &key(fit)))), Answer::Refused(Refused::Quota(_))));
}

#[test]
fn a_key_with_a_time_to_live_goes_when_it_is_over_and_not_before() {
    let mut world = World::new();
    let short = |key| Operation::Put(Put { ttl: Some(Duration::from_millis(500)), ..Put::new(key, "v") });
    for key in ["a", "b", "c"] {
        written(world.client(short(key)));
    }
    let end = world.now + Duration::from_millis(500);
    assert_eq!(found(&world, "a").unwrap().expires, Some(end));
    assert_eq!(world.state.next_expiry(), end, "the master is told when");
    world.advance(Duration::from_millis(499));
    world.expire();
    assert_eq!(events(&world), []);
    written(world.client(short("b")));
    written(world.client(put("c", "stays", Expect::Any)));
    world.advance(Duration::from_millis(1));
    world.expire();
    assert_eq!(gone(&world, KeyEnd::Expired), ["a"]);
    world.advance(Duration::from_millis(499));
    world.expire();
    assert_eq!(gone(&world, KeyEnd::Expired), ["b"]);
    assert_eq!(page(&world, &list("", "", 9)).0, ["c"]);
    for ttl in [Duration::ZERO, limits::MAX_KEEP + Duration::from_millis(1)] {
        let put = Operation::Put(Put { ttl: Some(ttl), ..Put::new("a", "v") });
        assert!(matches!(world.client(put), Answer::Refused(Refused::Invalid(_))));
    }
}

#[test]
fn a_list_goes_on_after_the_last_key_that_it_showed() {
    let mut world = World::new();
    for key in ["a/1", "a/2", "a/3", "a/4", "a0", "b", "a"] {
        written(world.client(put(key, "value", Expect::Any)));
    }
    assert_eq!(page(&world, &list("a/", "", 2)), (vec!["a/1".into(), "a/2".into()], true));
    assert_eq!(page(&world, &list("a/", "a/2", 2)), (vec!["a/3".into(), "a/4".into()], false));
    assert_eq!(page(&world, &list("a/", "a/2x", 1)), (vec!["a/3".into()], true));
    assert_eq!(page(&world, &list("a/", "0", 1)), (vec!["a/1".into()], true));
    assert_eq!(page(&world, &list("a/", "b", 9)), (vec![], false));
    assert_eq!(page(&world, &list("", "", 1_000)).0.len(), 7);
    assert_eq!(page(&world, &list("", "", 0)).0.len(), 1, "a page of nothing would never end");
    let Answer::Keys(page) = world.state.query(&Query::List(List { keys_only: true, limit: 9, ..List::default() }))
    else {
        panic!("no page")
    };
    assert!(page.entries.iter().all(|(_, value)| value.value.is_empty()));
}

#[test]
fn a_page_of_large_values_is_short_and_has_one_at_least() {
    let mut world = World::new();
    for key in ["a", "b", "c"] {
        world.client(Operation::Put(Put::new(key, vec![7; MAX_VALUE - 10])));
    }
    assert_eq!(page(&world, &list("", "", 9)), (vec!["a".into()], true));
    assert_eq!(page(&world, &list("", "a", 9)), (vec!["b".into()], true));
    assert_eq!(page(&world, &list("", "b", 9)), (vec!["c".into()], false));
}

#[test]
fn a_transaction_writes_everything_under_one_revision() {
    let mut world = World::new();
    let first = written(world.client(put("a", "1", Expect::Any)));
    let transaction = Transaction {
        when: vec![Condition::Key { key: "a".into(), expect: Expect::Revision(first) }],
        then: vec![
            KeyOperation::Get("a".into()),
            KeyOperation::Put(Put::new("a", "2")),
            KeyOperation::Put(Put::new("b", "2")),
            KeyOperation::Get("a".into()),
            KeyOperation::Delete(Delete { key: "c".into(), expect: Expect::Any }),
        ],
        or_else: vec![KeyOperation::Get("b".into())],
    };
    let done = transacted(world.client(Operation::Transact(transaction.clone())));
    assert!(done.held && done.revision == world.state.revision());
    let KeyResult::Found(Some(old)) = &done.results[0] else { panic!("a was there") };
    let KeyResult::Found(Some(new)) = &done.results[3] else { panic!("a is there") };
    assert_eq!((&old.value[..], &new.value[..]), (&b"1"[..], &b"2"[..]), "a step sees what those before it wrote");
    assert_eq!(done.results[4], KeyResult::Deleted(false));
    let told: Vec<_> = events(&world).into_iter().map(|change| (change.revision, change.key.to_string())).collect();
    assert_eq!(told, [(done.revision, "a".into()), (done.revision, "b".into())]);

    let again = transacted(world.client(Operation::Transact(transaction)));
    assert!(!again.held, "a is at another revision now");
    assert!(matches!(&again.results[..], [KeyResult::Found(Some(_))]));
    assert_eq!(events(&world), []);
}

#[test]
fn a_transaction_that_is_refused_at_one_step_does_nothing() {
    let mut world = World::new();
    written(world.client(put("a", "1", Expect::Any)));
    let before = page(&world, &list("", "", 9));
    let steps = [
        KeyOperation::Put(of(SessionId(77), "z")),
        KeyOperation::Put(Put { expect: Expect::Absent, ..Put::new("a", "2") }),
        KeyOperation::Put(Put::new("", "2")),
        KeyOperation::Put(Put::new("b", "again")),
        KeyOperation::Delete(Delete { key: "b".into(), expect: Expect::Any }),
        KeyOperation::Delete(Delete { key: "a".into(), expect: Expect::Revision(Revision(1_000)) }),
        KeyOperation::Put(Put { sequence: true, ..Put::new("k".repeat(limits::MAX_KEY), "v") }),
    ];
    for step in steps {
        let then = vec![KeyOperation::Put(Put::new("b", "2")), step.clone()];
        let answer = world.client(Operation::Transact(Transaction { then, ..Transaction::default() }));
        assert!(matches!(answer, Answer::Refused(_)), "{step:?}: {answer:?}");
        assert_eq!(events(&world), [], "{step:?}");
        assert_eq!(page(&world, &list("", "", 9)), before, "{step:?}");
    }
}

#[test]
fn two_sequences_of_one_name_in_a_transaction_are_refused() {
    let mut world = World::new();
    let next = || KeyOperation::Put(Put { sequence: true, ..Put::new("job-", "v") });
    let then = vec![next(), next()];
    let answer = world.client(Operation::Transact(Transaction { then, ..Transaction::default() }));
    assert!(matches!(answer, Answer::Refused(Refused::Invalid(_))), "{answer:?}");
    assert_eq!(world.summary().keys, 0);
}

#[test]
fn a_transaction_has_bounds_in_every_direction() {
    let mut world = World::new();
    let refused = |world: &mut World, transaction| {
        let answer = world.client(Operation::Transact(transaction));
        assert!(matches!(answer, Answer::Refused(Refused::TooLarge { .. })), "{answer:?}");
    };
    let gets = |count| (0..count).map(|_| KeyOperation::Get("a".into())).collect::<Vec<_>>();
    let many = gets(limits::MAX_STEPS + 1);
    refused(&mut world, Transaction { then: many.clone(), ..Transaction::default() });
    refused(&mut world, Transaction { or_else: many, ..Transaction::default() });
    let when = vec![Condition::Lives(SessionId(1)); limits::MAX_STEPS + 1];
    refused(&mut world, Transaction { when, ..Transaction::default() });
    let halves = ["a", "b"].map(|key| KeyOperation::Put(Put::new(key, vec![0; MAX_VALUE / 2 + 1])));
    refused(&mut world, Transaction { or_else: halves.to_vec(), ..Transaction::default() });
    written(world.client(Operation::Put(Put::new("a", vec![0; limits::MAX_TRANSACTION_READ]))));
    transacted(world.client(Operation::Transact(Transaction { then: gets(1), ..Transaction::default() })));
    refused(&mut world, Transaction { then: gets(2), ..Transaction::default() });
}

#[test]
fn a_condition_may_ask_for_a_value_or_for_a_session() {
    let mut world = World::new();
    let session = world.register(LONG);
    written(world.client(put("a", "1", Expect::Any)));
    let mut holds = |condition| {
        let transaction = Transaction { when: vec![condition], ..Transaction::default() };
        transacted(world.client(Operation::Transact(transaction))).held
    };
    assert!(holds(Condition::Value { key: "a".into(), value: "1".into() }));
    assert!(!holds(Condition::Value { key: "a".into(), value: "2".into() }));
    assert!(!holds(Condition::Value { key: "b".into(), value: "".into() }));
    assert!(holds(Condition::Key { key: "b".into(), expect: Expect::Absent }));
    assert!(holds(Condition::Key { key: "a".into(), expect: Expect::Present }));
    assert!(holds(Condition::Lives(session)));
    assert!(!holds(Condition::Lives(SessionId(78))));
}

#[test]
fn a_full_cluster_refuses_a_transaction_that_would_grow_it_and_takes_one_that_does_not() {
    let mut ask = blank();
    let big = Bytes::from(vec![7; MAX_VALUE]);
    let put = |key: u64| Put::new(format!("{key}"), big.clone());
    let fits = (0..).take_while(|&key| matches!(ask(Operation::Put(put(key))), Answer::Written(_))).count() as u64;
    let transact = |then: Vec<KeyOperation>| Operation::Transact(Transaction { then, ..Transaction::default() });
    assert!(matches!(ask(transact(vec![KeyOperation::Put(put(fits))])), Answer::Refused(Refused::Quota(_))));
    let remove = KeyOperation::Delete(Delete { key: "0".into(), expect: Expect::Any });
    let swap = transact(vec![remove, KeyOperation::Put(put(fits))]);
    assert!(matches!(ask(swap), Answer::Transacted(Transacted { held: true, .. })));
}
