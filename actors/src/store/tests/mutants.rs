//! Deliberate bugs in the journal: power lost at every step must show every one of them, else it would not show the next real one.

use std::panic::catch_unwind;

use super::super::mutants::{Bug, set};
use super::crash::lose_power_at_every_step;

#[test]
fn every_deliberate_bug_of_the_journal_is_found() {
    for bug in Bug::ALL {
        set(Some(bug));
        let played = catch_unwind(|| lose_power_at_every_step(2, 400));
        set(None);
        assert!(played.is_err(), "not found: {bug:?}");
    }
}
