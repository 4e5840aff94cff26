//! Power lost at every step of a script: nothing acknowledged is missing afterwards, and nothing is half there.

use std::sync::{Arc, Mutex};

use protocol::durable::Durable;
use protocol::{Incarnation, NodeId};

use super::super::{DiskStore, LogStore};
use super::platter::{Fault, Loss, Platter};
use super::script::{Dice, Script, same};

#[test]
fn ms3_a_crash_at_any_step_loses_nothing_acknowledged() {
    let [old, new] = lose_power_at_every_step(2, 2000);
    assert!(old > 100 && new > 100, "both outcomes were seen");
}

/// Commits so many changes and looks, before every write, resize and sync, what a node would find if the power went off then. Says
/// how often that was what is acknowledged, and how often that and what was in flight.
pub(super) fn lose_power_at_every_step(seed: u64, count: usize) -> [u64; 2] {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(seed, store.load().unwrap());
    // What was acknowledged, and what the commit in flight would make of it.
    let expected = Arc::new(Mutex::new((script.model.clone(), script.model.clone())));
    let checks = Arc::new(Mutex::new([0u64; 2]));
    let (known, tally) = (Arc::clone(&expected), Arc::clone(&checks));
    let mut dice = Dice::new(seed);
    platter.watch(move |state| {
        let known = known.lock().unwrap();
        for loss in [Loss::any(&mut dice), Loss::any(&mut dice), Loss::None] {
            let found = recover(state.image(loss, &mut dice));
            tally.lock().unwrap()[usize::from(assert_is_one_of(&found, &known))] += 1;
        }
    });
    let mut changes = 0;
    while changes < count {
        let commit = script.commit();
        changes += commit.len();
        expected.lock().unwrap().1.clone_from(&script.model);
        store.commit(&commit).unwrap();
        expected.lock().unwrap().0.clone_from(&script.model);
    }
    platter.kill();
    let [old, new] = *checks.lock().unwrap();
    println!("{changes} changes, {:?} steps and syncs, found before {old} times, after {new} times", platter.steps());
    [old, new]
}

#[test]
fn a_node_that_crashes_again_and_again_loses_nothing_acknowledged() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut image = blank();
        let mut known = recover(image.clone());
        for _ in 0..6 {
            let platter = Platter::new(image);
            // Often soon enough to hit the opening itself.
            platter.arm(Fault::Crash { at: dice.below(150) });
            let sure = run(&platter, &mut dice, &known);
            platter.kill();
            image = platter.image(Loss::any(&mut dice), &mut dice);
            let found = recover(image.clone());
            assert_is_one_of(&found, &sure);
            known = found;
        }
    }
}

/// A larger file must be durable before anything says that it is: rare, because it grows to twice its size.
#[test]
fn a_commit_is_one_sync_and_one_more_when_the_file_grows() {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(3, store.load().unwrap());
    for _ in 0..100 {
        let (before, len) = (platter.steps().1, platter.len());
        store.commit(&script.commit()).unwrap();
        let growth = u64::from(platter.len() > len);
        assert_eq!(platter.steps().1, before + 1 + growth);
    }
}

/// Opens the disk and works until the power goes off. Returns what is acknowledged, and what was in flight.
fn run(platter: &Platter, dice: &mut Dice, known: &Durable) -> (Durable, Durable) {
    let mut sure = known.clone();
    let Ok(mut store) = DiskStore::over(platter, 0, None) else {
        // Nobody has seen the incarnation that it would have had.
        sure.incarnation = Incarnation(sure.incarnation.0 - 1);
        return (sure.clone(), sure);
    };
    assert!(store.load().unwrap() == *known, "it reads the same twice");
    let mut script = Script::new(dice.roll(), known.clone());
    for _ in 0..40 {
        if store.commit(&script.commit()).is_err() {
            return (sure, script.model);
        }
        sure.clone_from(&script.model);
    }
    (sure.clone(), sure)
}

/// The image of a store that has been opened once and cleanly closed.
fn blank() -> Vec<u8> {
    let platter = Platter::new(Vec::new());
    drop(DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap());
    platter.image(Loss::All, &mut Dice::new(0))
}

/// What a node finds on such a disk.
fn recover(image: Vec<u8>) -> Durable {
    DiskStore::over(&Platter::new(image), 0, None).unwrap().load().unwrap()
}

/// Checks that what was found is what was acknowledged, or that and all that was in flight; returns whether it is the
/// latter.
fn assert_is_one_of(found: &Durable, (sure, in_flight): &(Durable, Durable)) -> bool {
    assert!(found.incarnation > sure.incarnation, "incarnations grow");
    if same(found, sure) {
        return false;
    }
    assert_eq!(found.entries.len(), in_flight.entries.len());
    assert!(same(found, in_flight), "not what was kept");
    true
}
