//! What a store remembers, compared with the naive model.

use bytes::Bytes;
use protocol::durable::{Ballot, Entry, GENESIS, Genesis, HardState, Payload, Persist};
use protocol::{ClusterId, ClusterTime, Epoch, Incarnation, Index, LogId, NodeId};

use super::super::{Change, DiskStore, LogStore, MemoryStore, StoreError};
use super::script::{Dice, Script, same};

#[test]
fn a_reopened_store_equals_the_model() {
    for seed in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let mut dice = Dice::new(seed);
        let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
        let mut script = Script::new(seed, store.load().unwrap());
        for _ in 0..30 {
            store.commit(&script.commit()).unwrap();
            if dice.one_in(5) {
                drop(store);
                store = DiskStore::open(folder.path(), 0, NodeId(8)).unwrap();
                script.model.incarnation = script.model.incarnation.next();
                script.forget();
                assert!(store.load().unwrap() == script.model, "seed {seed}");
            }
        }
    }
}

#[test]
fn both_stores_remember_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = DiskStore::open(folder.path(), 5, NodeId(7)).unwrap();
    let mut memory = MemoryStore::new(NodeId(7), Incarnation(5));
    let mut script = Script::new(11, memory.load().unwrap());
    for _ in 0..50 {
        let commit = script.commit();
        disk.commit(&commit).unwrap();
        memory.commit(&commit).unwrap();
    }
    drop(disk);
    let mut disk = DiskStore::open(folder.path(), 5, NodeId(7)).unwrap();
    script.model.incarnation = Incarnation(5);
    assert!(memory.load().unwrap() == script.model);
    let found = disk.load().unwrap();
    assert_eq!(found.incarnation, Incarnation(6));
    assert!(same(&found, &script.model));
}

#[test]
fn a_genesis_begins_the_log_and_the_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    let ballot = Ballot { round: 3, node: NodeId(7) };
    let genesis = Genesis { cluster: ClusterId(99), ballot, voters: vec![NodeId(7), NodeId(8)], target: 2 };
    let early = Persist { hard_state: Some(HardState { epoch: Epoch(1), vote: Some(NodeId(8)) }), ..append(1, 1, 3) };
    let founding = Persist { genesis: Some(genesis.clone()), promised: Some(ballot), ..append(2, 2, 1) };
    commit(&mut store, [early, founding]).unwrap();
    drop(store);
    let found = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap().load().unwrap();
    assert_eq!(found.genesis, Some(genesis));
    assert_eq!(found.promised, ballot);
    assert_eq!(found.hard_state, HardState { epoch: Epoch(1), vote: None });
    assert_eq!(found.base, GENESIS);
    assert_eq!(found.entries.iter().map(|entry| entry.id.index.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_truncation_and_what_follows_it_are_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    commit(&mut store, [append(1, 1, 5)]).unwrap();
    commit(&mut store, [Persist { truncate_from: Some(Index(3)), ..append(2, 3, 1) }]).unwrap();
    commit(&mut store, [Persist { seq: 3, truncate_from: Some(Index(9)), ..Persist::default() }]).unwrap();
    drop(store);
    let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    assert_eq!(store.load().unwrap().last_index(), Index(3));
    commit(&mut store, [Persist { seq: 1, truncate_from: Some(Index(1)), ..Persist::default() }]).unwrap();
    assert!(store.load().unwrap().entries.is_empty());
}

#[test]
fn an_entry_of_the_greatest_size_is_kept_and_a_greater_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    let large = |index, len| Persist { append: vec![entry(index, len)], ..Persist::default() };
    commit(&mut store, [large(1, protocol::wire::MAX_COMMAND)]).unwrap();
    let error = commit(&mut store, [large(2, protocol::wire::MAX_MESSAGE)]).unwrap_err();
    assert!(matches!(error, StoreError::Record(_)), "{error}");
    drop(store);
    let found = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap().load().unwrap();
    assert_eq!(found.entries, [entry(1, protocol::wire::MAX_COMMAND)]);
}

fn commit(store: &mut DiskStore, batches: impl IntoIterator<Item = Persist>) -> Result<bool, StoreError> {
    store.commit(&batches.into_iter().map(Change::Batch).collect::<Vec<_>>())
}

fn append(seq: u64, from: u64, count: u64) -> Persist {
    Persist { seq, append: (from..from + count).map(|index| entry(index, 10)).collect(), ..Persist::default() }
}

fn entry(index: u64, len: usize) -> Entry {
    Entry {
        id: LogId { epoch: Epoch(1), index: Index(index) },
        time: ClusterTime(index),
        payload: Payload::Commands(Bytes::from(vec![9; len])),
    }
}
