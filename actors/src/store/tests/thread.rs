//! The thread: order, group commits, panics, and the end.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use bytes::Bytes;
use protocol::durable::{Durable, Entry, Payload, Persist};
use protocol::{ClusterTime, Epoch, Incarnation, Index, LogId, NodeId};

use super::super::{Change, DiskStore, LogStore, StoreError, StoreEvent, StoreThread};

/// A store that says how many batches each commit brings, and goes on when it is told to.
pub(super) struct Gate {
    pub(super) sizes: Sender<usize>,
    pub(super) open: Receiver<()>,
}

impl LogStore for Gate {
    fn load(&mut self) -> Result<Durable, StoreError> {
        Ok(Durable::fresh(NodeId(7), Incarnation(1)))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<bool, StoreError> {
        self.sizes.send(changes.len()).expect("the test listens");
        self.open.recv().expect("the test opens the gate, or lets us panic");
        Ok(false)
    }

    fn read(&mut self, _: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError> {
        Ok(Some((place + 1, Bytes::from_static(b"chunk"))))
    }
}

#[test]
fn what_is_queued_becomes_one_commit() {
    let (sizes, size) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let (thread, events) = start(Gate { sizes, open: gate });
    thread.handle().persist(batch(1));
    assert_eq!(size.recv(), Ok(1));
    (2..=10).for_each(|seq| thread.handle().persist(batch(seq)));
    open.send(()).unwrap();
    assert_eq!(events.recv(), Ok(StoreEvent::Persisted { seq: 1 }));
    assert_eq!(size.recv(), Ok(9));
    open.send(()).unwrap();
    assert_eq!(events.recv(), Ok(StoreEvent::Persisted { seq: 10 }));
}

#[test]
fn a_panic_is_a_failure() {
    let (sizes, size) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let (thread, events) = start(Gate { sizes, open: gate });
    thread.handle().persist(batch(1));
    assert_eq!(size.recv(), Ok(1));
    thread.handle().persist(batch(2));
    drop(open);
    assert!(matches!(events.recv(), Ok(StoreEvent::Failed { message }) if message.starts_with("panicked: the test")));
    thread.handle().persist(batch(3));
    thread.shutdown();
    assert!(events.recv().is_err(), "nothing is said after a failure");
}

#[test]
fn shutdown_commits_what_is_queued_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (thread, events) = start(DiskStore::open(folder.path(), 0, NodeId(7)).unwrap());
    let handle = thread.handle();
    (1..=50).for_each(|seq| handle.persist(batch(seq)));
    thread.shutdown();
    assert_eq!(events.iter().last(), Some(StoreEvent::Persisted { seq: 50 }));
    handle.persist(batch(51));
    let found = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap().load().unwrap();
    assert_eq!(found.last_index(), Index(50));
}

/// Asserts nothing about time: prints what a small commit costs here (add `-- --nocapture`).
#[test]
fn the_cost_of_a_small_commit_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    let direct = micros(1..=300, |seq| {
        store.commit(&[Change::Batch(batch(seq))]).unwrap();
    });
    let (thread, events) = start(store);
    let queued = micros(301..=600, |seq| {
        thread.handle().persist(batch(seq));
        assert_eq!(events.recv(), Ok(StoreEvent::Persisted { seq }));
    });
    println!("a commit of one 200-byte entry: p50 {direct} us, with both hops of the thread {queued} us");
}

/// The median time of `run`, in microseconds.
fn micros(seqs: impl Iterator<Item = u64>, mut run: impl FnMut(u64)) -> u128 {
    let mut times: Vec<_> = seqs
        .map(|seq| {
            let started = Instant::now();
            run(seq);
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

pub(super) fn start(store: impl LogStore + 'static) -> (StoreThread, Receiver<StoreEvent>) {
    let (tell, events) = mpsc::channel();
    let on_event = move |event| {
        // A test that has seen enough no longer listens.
        let _ = tell.send(event);
    };
    (StoreThread::start(Box::new(store), Box::new(on_event)).unwrap(), events)
}

/// A batch of one entry of 200 bytes.
pub(super) fn batch(seq: u64) -> Persist {
    let entry = Entry {
        id: LogId { epoch: Epoch(1), index: Index(seq) },
        time: ClusterTime(seq),
        payload: Payload::Commands(Bytes::from(vec![5; 200])),
    };
    Persist { seq, append: vec![entry], ..Persist::default() }
}
