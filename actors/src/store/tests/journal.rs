//! The journal: what goes there, when it is taken over, and how rot in it is told from what was torn.

use protocol::durable::{Durable, HardState, Persist};
use protocol::{Epoch, Index, NodeId};

use super::super::{Change, DiskStore, LogStore, StoreError, journal};
use super::image::saved;
use super::platter::{Loss, Platter};
use super::script::Dice;
use super::thread::batch;

#[test]
fn a_commit_of_the_log_is_one_write_and_one_sync() {
    let (platter, mut store) = start();
    for seq in 1..=20 {
        let (steps, syncs) = platter.steps();
        store.commit(&[Change::Batch(voting(seq)), Change::Batch(batch(seq))]).unwrap();
        assert_eq!(platter.steps(), (steps + 2, syncs + 1));
    }
    let found = crashed(&platter, Loss::All).unwrap();
    assert_eq!((found.last_index(), found.hard_state), (Index(20), voting(20).hard_state.unwrap()));
}

#[test]
fn a_full_journal_is_taken_over_and_begins_again() {
    let (platter, mut store) = start();
    let mut rewound = 0;
    for seq in 1..=500 {
        let (steps, _) = platter.steps();
        store.commit(&[Change::Batch(batch(seq))]).unwrap();
        rewound += usize::from(platter.steps().0 > steps + 2);
        if seq % 7 == 0 {
            assert_eq!(crashed(&platter, Loss::All).unwrap().last_index(), Index(seq));
        }
    }
    assert!((3..20).contains(&rewound), "{rewound} times");
}

#[test]
fn there_is_something_to_tidy_up_while_the_journal_is_half_full() {
    let (_, mut store) = start();
    while store.commit(&[]).unwrap() {}
    let seq = (1..).find(|&seq| store.commit(&[Change::Batch(batch(seq))]).unwrap()).unwrap();
    assert!(seq > 20, "a hundred would fill it");
    assert!(!store.commit(&[]).unwrap());
    assert!(!store.commit(&[Change::Batch(batch(seq + 1))]).unwrap());
}

#[test]
fn what_is_no_plain_batch_takes_the_journal_over() {
    let (platter, mut store) = start();
    store.commit(&[Change::Batch(batch(1))]).unwrap();
    store.commit(&saved(1, 3)).unwrap();
    store.commit(&[Change::Batch(batch(2))]).unwrap();
    let found = crashed(&platter, Loss::All).unwrap();
    assert_eq!((found.last_index(), found.snapshot.unwrap().chunks.len()), (Index(2), 3));
}

#[test]
fn a_torn_record_is_cut_off_and_never_comes_back() {
    let (platter, mut store) = start();
    for seq in 1..=5 {
        store.commit(&[Change::Batch(batch(seq))]).unwrap();
    }
    let mut image = platter.image(Loss::All, &mut Dice::new(0));
    let last = image.windows(200).rposition(|window| window == [5; 200]).expect("it is in the journal");
    let byte = image[last + 10];
    image[last + 10] = 0;
    let after = Platter::new(image);
    let mut store = DiskStore::over(&after, 0, None).unwrap();
    assert_eq!(store.load().unwrap().last_index(), Index(4));
    store.commit(&[Change::Batch(batch(5))]).unwrap();
    // What was torn off turns up late, as a drive may have kept it.
    let mut image = after.image(Loss::All, &mut Dice::new(0));
    image[last + 10] = byte;
    let found = DiskStore::over(&Platter::new(image), 0, None).unwrap().load().unwrap();
    assert_eq!(found.last_index(), Index(5));
}

#[test]
fn rot_in_front_of_a_record_is_reported() {
    let (platter, mut store) = start();
    for seq in 1..=5 {
        store.commit(&[Change::Batch(batch(seq))]).unwrap();
    }
    let image = platter.image(Loss::All, &mut Dice::new(0));
    let first = image.windows(200).position(|window| window == [5; 200]).expect("it is in the journal");
    for at in [first - 30, first, first + 199] {
        let mut rotten = image.clone();
        rotten[at] ^= 2;
        let error = DiskStore::over(&Platter::new(rotten), 0, None).unwrap_err().to_string();
        assert!(error.starts_with("test.journal is corrupt: no record at 4096, but one at "), "{error}");
    }
}

#[test]
fn a_file_that_is_behind_its_journal_is_reported() {
    let (platter, mut store) = start();
    store.commit(&[Change::Batch(batch(1))]).unwrap();
    let behind = platter.image(Loss::All, &mut Dice::new(0));
    // However far: a copy of the file may be of last week.
    for seq in 2..=40 {
        store.commit(&[]).unwrap();
        store.commit(&[Change::Batch(batch(seq))]).unwrap();
        let error = rolled_back(&platter, &behind).unwrap_err().to_string();
        let expected = format!("test.journal is corrupt: in round {}, the log in round 2", seq + 1);
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_file_that_lost_the_commit_of_its_last_start_is_reported() {
    let (platter, mut store) = start();
    store.commit(&[Change::Batch(batch(1))]).unwrap();
    drop(store);
    let behind = platter.image(Loss::All, &mut Dice::new(0));
    let mut store = DiskStore::over(&platter, 2, None).unwrap();
    store.commit(&[Change::Batch(batch(2))]).unwrap();
    let error = rolled_back(&platter, &behind).unwrap_err().to_string();
    assert!(error.starts_with("test.journal is corrupt: in round "), "{error}");
}

#[test]
fn the_journal_of_another_node_is_refused() {
    let [(ours, _a), (theirs, _b)] = [7, 8].map(|node| {
        let platter = Platter::new(Vec::new());
        let store = DiskStore::over(&platter, 1, Some(NodeId(node))).unwrap();
        (platter.image(Loss::All, &mut Dice::new(0)), store)
    });
    let mixed = [&theirs[..journal::LEN], &ours[journal::LEN..]].concat();
    let error = DiskStore::over(&Platter::new(mixed), 0, None).unwrap_err();
    assert!(error.to_string().contains("not a journal of node 0000000000000007"), "{error}");
}

#[test]
fn a_folder_without_its_journal_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    drop(DiskStore::open(folder.path(), 0, NodeId(7)).unwrap());
    let path = folder.path().join("tenure.journal");
    std::fs::remove_file(&path).unwrap();
    let error = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("tenure.journal is corrupt: missing"), "{error}");
}

/// A blank disk and the store over it.
fn start() -> (Platter, DiskStore) {
    let platter = Platter::new(Vec::new());
    let store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    (platter, store)
}

/// A batch that is a vote.
fn voting(seq: u64) -> Persist {
    let hard_state = Some(HardState { epoch: Epoch(seq), vote: Some(NodeId(seq)) });
    Persist { seq, hard_state, ..Persist::default() }
}

/// Opens the journal of now over the file as it was.
fn rolled_back(platter: &Platter, behind: &[u8]) -> Result<DiskStore, StoreError> {
    let now = platter.image(Loss::All, &mut Dice::new(0));
    let mixed = [&now[..journal::LEN], &behind[journal::LEN..]].concat();
    DiskStore::over(&Platter::new(mixed), 0, None)
}

/// What is found if the power is lost now.
fn crashed(platter: &Platter, loss: Loss) -> Result<Durable, StoreError> {
    DiskStore::over(&Platter::new(platter.image(loss, &mut Dice::new(0))), 0, None)?.load()
}
