//! Files that changed behind our back: an error that says so, never a panic and never another history.

use protocol::NodeId;
use protocol::durable::Durable;

use super::super::{DiskStore, LogStore, StoreError};
use super::platter::{Loss, Platter};
use super::script::{Dice, Script, same};

#[test]
fn a_flipped_bit_is_harmless_or_reported() {
    let (image, expected) = written();
    let mut dice = Dice::new(5);
    let mut reported = 0;
    for _ in 0..600 {
        let mut rotten = image.clone();
        let at = usize::try_from(dice.below(rotten.len() as u64)).unwrap();
        rotten[at] ^= 1 << dice.below(8);
        match read(rotten) {
            Ok(found) => assert!(same(&found, &expected), "byte {at}"),
            Err(StoreError::Corrupt { .. } | StoreError::Format { .. }) => reported += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    println!("{reported} of 600 reported in {} bytes", image.len());
    assert!(reported > 50);
}

#[test]
fn a_bit_flipped_after_a_crash_costs_the_last_commit_at_most() {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(4, store.load().unwrap());
    let mut before = script.model.clone();
    for _ in 0..80 {
        before.clone_from(&script.model);
        store.commit(&script.commit()).unwrap();
    }
    platter.kill();
    let mut dice = Dice::new(8);
    let image = platter.image(Loss::All, &mut dice);
    for _ in 0..600 {
        let mut rotten = image.clone();
        let at = usize::try_from(dice.below(rotten.len() as u64)).unwrap();
        rotten[at] ^= 1 << dice.below(8);
        match read(rotten) {
            Ok(found) => assert!(same(&found, &script.model) || same(&found, &before), "byte {at}"),
            Err(StoreError::Corrupt { .. } | StoreError::Format { .. }) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn a_misplaced_page_is_harmless_or_reported() {
    let (image, expected) = written();
    let mut dice = Dice::new(6);
    for _ in 0..200 {
        let mut rotten = image.clone();
        let pages = rotten.len() / PAGE;
        let (from, to) = (page(dice.below(pages as u64)), page(1 + dice.below(pages as u64 - 1)));
        rotten.copy_within(from..from + PAGE, to);
        match read(rotten) {
            Ok(found) => assert!(same(&found, &expected), "page {from} over {to}"),
            Err(StoreError::Corrupt { .. } | StoreError::Format { .. }) => {}
            Err(error) => panic!("page {from} over {to}: {error}"),
        }
    }
}

#[test]
fn a_file_that_lost_its_end_is_reported() {
    let (image, _) = written();
    for len in [1, 100, PAGE, image.len() / 2, image.len() - 1] {
        let error = read(image[..len].to_vec()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{len}: {error}");
    }
}

/// A disk with a few hundred batches on it, cleanly closed, and what it holds.
fn written() -> (Vec<u8>, Durable) {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(4, store.load().unwrap());
    for _ in 0..80 {
        store.commit(&script.commit()).unwrap();
    }
    drop(store);
    (platter.image(Loss::All, &mut Dice::new(0)), script.model)
}

fn read(image: Vec<u8>) -> Result<Durable, StoreError> {
    DiskStore::over(&Platter::new(image), 0, None)?.load()
}

fn page(number: u64) -> usize {
    usize::try_from(number).expect("a small number") * PAGE
}

const PAGE: usize = 4096;
