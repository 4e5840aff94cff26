//! Logs that rotted on a real disk: given up with their identity, kept for the operator, replaced by an empty one.

use std::fs;
use std::path::Path;

use protocol::durable::{Ballot, ConfState, Entry, GENESIS, Genesis, Payload, Persist};
use protocol::{ClusterId, ClusterTime, Index, LogId, NodeId};

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
    let error = open_or_replace(folder.path(), 0, true, || NodeId(9)).map(drop).unwrap_err();
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
    let error = open_or_replace(folder.path(), 0, true, || NodeId(8)).map(drop).unwrap_err();
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
        let durable = match open_or_replace(folder.path(), 0, true, || NodeId(8)) {
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

/// A node that votes alone, whatever was before and whoever works for it, holds the only copy.
#[test]
fn the_log_of_the_only_voter_is_never_set_aside() {
    let own = [NodeId(7)];
    let others = [NodeId(5), NodeId(6), NodeId(7)];
    for (genesis, next, is_refused) in [
        (&own[..], None, true),
        (&others[..], None, false),
        (&others[..], Some(&own[..]), true),
        (&own[..], Some(&others[..]), false),
        (&others[..1], None, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        found(folder.path(), genesis, next);
        match open_or_replace(folder.path(), 0, true, || NodeId(8)).map(|(_, durable, _)| durable.node) {
            Err(StoreError::Corrupt { .. }) => assert!(is_refused, "{genesis:?} {next:?}"),
            Ok(node) => assert!(!is_refused && node == NodeId(8), "{genesis:?} {next:?}: {node}"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(folder.path().join("tenure.redb.damaged-0").exists(), !is_refused);
    }
}

#[test]
fn a_log_that_does_not_say_who_votes_is_set_aside_where_other_voters_are_known() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), "not a log").unwrap();
    let error = open_or_replace(folder.path(), 0, false, || NodeId(8)).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "not a log");
    assert_eq!(reopen(folder.path(), 8).1.node, NodeId(8));
}

/// Writes a log that begins with these voters and goes on with the next, and spoils an entry of it.
fn found(folder: &Path, voters: &[NodeId], next: Option<&[NodeId]>) {
    let entry = |index, payload| Entry { id: LogId { index: Index(index), ..GENESIS }, time: ClusterTime(1), payload };
    let ballot = Ballot { round: 1, node: NodeId(7) };
    let genesis = Some(Genesis { cluster: ClusterId(1), ballot, voters: voters.to_vec(), target: 1 });
    let change = |voters: &[NodeId]| Payload::Config(ConfState { voters: voters.to_vec(), ..ConfState::default() });
    let mut append = vec![entry(2, Payload::Commands(vec![5; 200].into()))];
    append.extend(next.map(|voters| entry(3, change(voters))));
    let mut store = DiskStore::open(folder, 0, NodeId(7)).unwrap();
    store.commit(&[Change::Batch(Persist { seq: 1, genesis, append, ..Persist::default() })]).unwrap();
    drop(store);
    spoil(&folder.join(FILE), [5; 64]);
}

fn reopen(folder: &Path, fresh: u64) -> (DiskStore, protocol::durable::Durable, Option<Replaced>) {
    open_or_replace(folder, 0, true, || NodeId(fresh)).unwrap()
}

/// Writes a log and flips a bit where these bytes first stand in its file. Returns the file.
fn rot(folder: &Path, bytes: [u8; 64]) -> Vec<u8> {
    write(folder);
    spoil(&folder.join(FILE), bytes)
}

fn spoil(path: &Path, bytes: [u8; 64]) -> Vec<u8> {
    let mut image = fs::read(path).unwrap();
    let at = image.windows(64).position(|window| window == bytes).expect("what was written is in the file");
    image[at + 20] ^= 4;
    fs::write(path, &image).unwrap();
    image
}

fn write(folder: &Path) {
    let mut store = DiskStore::open(folder, 0, NodeId(7)).unwrap();
    let batches: Vec<_> = (1..=30).map(|seq| Change::Batch(batch(seq))).collect();
    store.commit(&batches).unwrap();
    store.commit(&saved(9, 3)).unwrap();
}

const FILE: &str = "tenure.redb";
