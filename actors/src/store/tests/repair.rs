//! Logs that rotted on a real disk: given up with their identity, kept for the operator, replaced by an empty one.

use std::fs;
use std::path::Path;

use protocol::NodeId;

use super::super::{Change, DiskStore, LogStore, Replaced, StoreError, open_or_replace};
use super::image::saved;
use super::script::Dice;
use super::thread::batch;

#[test]
fn a_rotten_log_costs_the_node_its_identity_and_nobody_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let rotten = rot(folder.path(), [5; 64]);
    let (mut store, durable, replaced) = reopen(folder.path(), 8);
    let Replaced { node, damage, aside } = replaced.unwrap();
    assert_eq!((node, durable.node), (Some(NodeId(7)), NodeId(8)));
    assert!(durable.entries.is_empty() && durable.snapshot.is_none() && durable.genesis.is_none());
    assert!(damage.contains("tenure.redb is corrupt: entry "), "{damage}");
    assert_eq!(fs::read(&aside).unwrap().len(), rotten.len(), "nothing of it is removed");
    store.commit(&[Change::Batch(batch(1))]).unwrap();
    drop(store);
    let (_, durable, replaced) = reopen(folder.path(), 9);
    assert_eq!((durable.node, durable.entries.len(), replaced), (NodeId(8), 1, None));
}

#[test]
fn a_rotten_snapshot_costs_the_node_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    rot(folder.path(), [2; 64]);
    let (_, durable, replaced) = reopen(folder.path(), 8);
    assert_eq!(durable.node, NodeId(8));
    let replaced = replaced.unwrap().to_string();
    assert!(replaced.contains("chunk 2 of the snapshot at"), "{replaced}");
    assert!(replaced.contains("; node 0000000000000007 has retired and never votes again; "), "{replaced}");
}

#[test]
fn a_log_that_was_given_up_is_refused_if_it_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    rot(folder.path(), [5; 64]);
    let aside = reopen(folder.path(), 8).2.unwrap().aside;
    fs::rename(aside, folder.path().join(FILE)).unwrap();
    let error = open_or_replace(folder.path(), 0, || NodeId(9)).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Retired { node: NodeId(7), .. }), "{error}");
}

#[test]
fn a_log_of_which_nothing_can_be_read_is_replaced_too() {
    let folder = tempfile::tempdir().unwrap();
    for content in ["", "not a log"] {
        fs::write(folder.path().join(FILE), content).unwrap();
        let replaced = reopen(folder.path(), 8).2.unwrap();
        assert_eq!(replaced.node, None);
        assert_eq!(fs::read_to_string(replaced.aside).unwrap(), content);
    }
}

#[test]
fn only_damage_costs_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    let error = open_or_replace(folder.path(), 0, || NodeId(8)).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    assert_eq!(reopen(folder.path(), 8).1.node, NodeId(7));
}

/// Bytes of the file flipped at random: the node goes on as itself with all that it held, or as another one with nothing.
#[test]
fn whatever_rots_the_node_starts_with_its_whole_log_or_with_none() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let whole = fs::read(folder.path().join(FILE)).unwrap();
    let mut dice = Dice::new(3);
    let mut replacements = 0;
    for _ in 0..40 {
        let mut rotten = whole.clone();
        let at = usize::try_from(dice.below(rotten.len() as u64)).unwrap();
        rotten[at] ^= 1 << dice.below(8);
        fs::write(folder.path().join(FILE), &rotten).unwrap();
        let durable = match open_or_replace(folder.path(), 0, || NodeId(8)) {
            Ok((_, durable, _)) => durable,
            Err(StoreError::Format { .. } | StoreError::Retired { .. }) => continue,
            Err(error) => panic!("byte {at}: {error}"),
        };
        let entries = durable.entries.len();
        assert!((durable.node, entries) == (NodeId(7), 30) || (durable.node, entries) == (NodeId(8), 0), "byte {at}");
        replacements += usize::from(entries == 0);
    }
    println!("{replacements} of 40 replaced");
}

fn reopen(folder: &Path, fresh: u64) -> (DiskStore, protocol::durable::Durable, Option<Replaced>) {
    open_or_replace(folder, 0, || NodeId(fresh)).unwrap()
}

/// Writes a log and flips a bit where these bytes first stand in its file. Returns the file.
fn rot(folder: &Path, bytes: [u8; 64]) -> Vec<u8> {
    write(folder);
    let path = folder.join(FILE);
    let mut image = fs::read(&path).unwrap();
    let at = image.windows(64).position(|window| window == bytes).expect("what was written is in the file");
    image[at + 20] ^= 4;
    fs::write(&path, &image).unwrap();
    image
}

fn write(folder: &Path) {
    let mut store = DiskStore::open(folder, 0, NodeId(7)).unwrap();
    let batches: Vec<_> = (1..=30).map(|seq| Change::Batch(batch(seq))).collect();
    store.commit(&batches).unwrap();
    store.commit(&saved(9, 3)).unwrap();
}

const FILE: &str = "tenure.redb";
