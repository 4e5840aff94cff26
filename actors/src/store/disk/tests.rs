use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use protocol::durable::{Ballot, Entry, Genesis, Payload};
use protocol::{ClusterId, ClusterTime, Epoch, LogId};

use super::super::{StoreEvent, StoreThread};
use super::*;

/// An entry whose payload says where it stands.
fn entry(epoch: u64, index: u64, len: usize) -> Entry {
    Entry {
        id: LogId { epoch: Epoch(epoch), index: Index(index) },
        time: ClusterTime(index * 10),
        payload: Payload::Commands(Bytes::from(vec![u8::try_from(index % 251).expect("below 251"); len])),
    }
}

fn append(seq: u64, entries: impl IntoIterator<Item = Entry>) -> Persist {
    Persist { seq, append: entries.into_iter().collect(), ..Persist::default() }
}

/// Not a test of anything: prints what a small commit costs here (`cargo test -p tenure-actors cost -- --nocapture`).
#[test]
fn the_cost_of_a_small_commit_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(folder.path(), 1, NodeId(7)).unwrap();
    let mut micros: Vec<_> = (1..=500)
        .map(|index| {
            let batch = append(index, [entry(1, index, 200)]);
            let started = Instant::now();
            store.commit(&[batch]).unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!("direct commit: p50 {} us, p99 {} us", micros[250], micros[495]);
    let (done, events) = mpsc::channel();
    let thread = StoreThread::start(Box::new(store), Box::new(move |event| done.send(event).unwrap())).unwrap();
    let mut micros: Vec<_> = (501..=1000)
        .map(|index| {
            let batch = append(index, [entry(1, index, 200)]);
            let started = Instant::now();
            thread.handle().persist(batch);
            assert_eq!(events.recv().unwrap(), StoreEvent::Persisted { seq: index });
            started.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!("through the thread: p50 {} us, p99 {} us", micros[250], micros[495]);
}

#[test]
fn a_store_remembers_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(folder.path(), 1000, NodeId(7)).unwrap();
    let mut model = store.load().unwrap();
    assert_eq!((model.node, model.incarnation), (NodeId(7), Incarnation(1000)));
    let genesis = Genesis {
        cluster: ClusterId(99),
        ballot: Ballot { round: 1, node: NodeId(7) },
        voters: vec![NodeId(7)],
        target: 1,
    };
    let batches = [
        Persist { seq: 1, promised: Some(genesis.ballot), genesis: Some(genesis), ..Persist::default() },
        append(2, (2..6).map(|index| entry(1, index, 20))),
        Persist { truncate_from: Some(Index(4)), ..append(3, [entry(2, 4, 1)]) },
    ];
    store.commit(&batches).unwrap();
    batches.iter().for_each(|batch| model.apply(batch));
    drop(store);
    let mut store = RedbStore::open(folder.path(), 0, NodeId(8)).unwrap();
    model.incarnation = Incarnation(1001);
    assert_eq!(store.load().unwrap(), model);
}
