//! Disks that fail or are full: the first error is final, and what was acknowledged before it stays.

use std::io::ErrorKind;
use std::sync::mpsc;

use protocol::NodeId;
use protocol::durable::Durable;

use super::super::{Change, DiskStore, LogStore, StoreError, StoreEvent, StoreThread};
use super::platter::{Fault, Loss, Platter};
use super::script::{Dice, Script, same};

#[test]
fn ms2_the_first_error_is_final_and_loses_nothing_acknowledged() {
    let mut failures = 0;
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let platter = Platter::new(Vec::new());
        let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
        let mut script = Script::new(dice.roll(), store.load().unwrap());
        platter.arm(random_failure(&mut dice));
        let mut sure = script.model.clone();
        // Every commit takes several steps, so the failure comes before the last of these.
        let error = (0..200).find_map(|_| {
            let result = store.commit(&script.commit());
            if result.is_ok() {
                sure.clone_from(&script.model);
            }
            result.err()
        });
        let error = error.expect("the disk fails");
        assert!(!matches!(error, StoreError::Corrupt { .. } | StoreError::Halted { .. }), "{error}");
        // The disk may work again by now; the store does not.
        for _ in 0..3 {
            let later = store.commit(&script.clone().commit()).unwrap_err();
            assert!(matches!(&later, StoreError::Halted { first } if *first == error.to_string()), "{later}");
        }
        drop(store);
        platter.kill();
        let found = recover(platter.image(Loss::any(&mut dice), &mut dice));
        assert!(same(&found, &sure) || same(&found, &script.model), "seed {seed}");
        failures += 1;
    }
    assert_eq!(failures, 150);
}

/// Each write, resize and sync of a script fails once, with an error and with a full disk, for once and for good.
#[test]
fn ms3_an_error_at_any_boundary_loses_nothing_acknowledged() {
    let steps = fail(u64::MAX, ErrorKind::Other, true).expect_err("nothing fails");
    for at in 0..steps {
        let kind = [ErrorKind::Other, ErrorKind::StorageFull][usize::from(at % 2 == 1)];
        let error = fail(at, kind, at % 3 == 0).expect("the disk fails");
        assert_eq!(matches!(error, StoreError::Full { .. }), at % 2 == 1, "step {at}: {error}");
    }
    println!("{steps} boundaries");
}

/// Runs a script over a disk that fails at this step, opens what is left and checks it. The error, or how many steps there
/// were.
fn fail(at: u64, kind: ErrorKind, lasts: bool) -> Result<StoreError, u64> {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(12, store.load().unwrap());
    let (before, _) = platter.steps();
    platter.arm(Fault::Fail { at: at.min(u64::MAX / 2), kind, lasts });
    for _ in 0..40 {
        let sure = script.model.clone();
        let Err(error) = store.commit(&script.commit()) else { continue };
        drop(store);
        platter.kill();
        let mut dice = Dice::new(at);
        let found = recover(platter.image(Loss::any(&mut dice), &mut dice));
        assert!(same(&found, &sure) || same(&found, &script.model), "step {at}");
        return Ok(error);
    }
    Err(platter.steps().0 - before)
}

#[test]
fn ms4_nothing_is_acknowledged_after_a_failure() {
    for seed in 0..50 {
        let mut dice = Dice::new(seed);
        let platter = Platter::new(Vec::new());
        let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
        let mut script = Script::without_saves(dice.roll(), store.load().unwrap());
        let mut models = vec![script.model.clone()];
        platter.arm(random_failure(&mut dice));
        let (tell, events) = mpsc::channel();
        let thread = StoreThread::start(Box::new(store), Box::new(move |event| tell.send(event).unwrap())).unwrap();
        // More than any of the failures waits for.
        for _ in 0..400 {
            match script.change() {
                Change::Batch(batch) => {
                    thread.handle().persist(batch);
                    models.push(script.model.clone());
                }
                Change::Forget { last } => thread.handle().forget(last),
                Change::Stage { last, place, chunk } => thread.handle().stage(1, last, place, chunk),
                Change::Save { .. } => unreachable!("a script without them"),
            }
            std::thread::yield_now();
        }
        thread.shutdown();
        let events: Vec<_> = events.iter().collect();
        let (last, before) = events.split_last().unwrap();
        let acknowledged = before.iter().filter_map(|event| match event {
            StoreEvent::Persisted { seq } => Some(usize::try_from(*seq).unwrap()),
            StoreEvent::Image(_) => None,
            StoreEvent::Failed { message } => panic!("seed {seed}: failed twice: {message}"),
        });
        let acknowledged: Vec<_> = acknowledged.collect();
        assert!(acknowledged.is_sorted_by(|a, b| a < b));
        platter.kill();
        let found = recover(platter.image(Loss::any(&mut dice), &mut dice));
        let first = match last {
            StoreEvent::Failed { .. } => acknowledged.last().copied().unwrap_or(0),
            StoreEvent::Persisted { .. } | StoreEvent::Image(_) => models.len() - 1,
        };
        assert!(models[first..].iter().any(|model| same(&found, model)), "seed {seed}");
    }
}

#[test]
fn a_full_disk_is_called_full() {
    let platter = Platter::new(Vec::new());
    let mut store = DiskStore::over(&platter, 1, Some(NodeId(7))).unwrap();
    let mut script = Script::new(1, store.load().unwrap());
    platter.arm(Fault::Fail { at: 0, kind: ErrorKind::StorageFull, lasts: true });
    let error = store.commit(&script.commit()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }));
    assert!(error.to_string().starts_with("disk full: cannot write test.journal: "), "{error}");
}

/// A failure within the next few commits, for once or for good.
fn random_failure(dice: &mut Dice) -> Fault {
    let kind = if dice.one_in(2) { ErrorKind::StorageFull } else { ErrorKind::Other };
    Fault::Fail { at: dice.below(200), kind, lasts: dice.one_in(2) }
}

fn recover(image: Vec<u8>) -> Durable {
    DiskStore::over(&Platter::new(image), 0, None).unwrap().load().unwrap()
}
