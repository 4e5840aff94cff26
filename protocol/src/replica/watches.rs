//! Watches: whoever asks what changed is told at once if something did, and as soon as something does if not.
//!
//! Any replica that holds the log answers from its own history. Nothing is kept about a watch but the question that waits: the
//! client asks again after what it was told, here or anywhere.
//!
//! # Invariants
//!
//! * What is told between two revisions is complete, in order, and told once (whoever asks from where it was told to go on).
//! * A replica that is behind a question waits, it answers nothing older.

use std::collections::BTreeSet;

use super::Replica;
use super::batch::Waiter;
use super::waiting::Subject;
use crate::client::Denied;
use crate::effects::Effects;
use crate::state::limits::MAX_KEY;
use crate::state::{Answer, Changes, ClusterChange, Query, Refused, Watch};

impl Replica {
    pub(super) fn answer_watch(&mut self, waiter: Waiter, watch: &Watch, effects: &mut Effects) {
        let (len, limit) = (watch.prefix.len() as u64, MAX_KEY as u64);
        if len > limit {
            return self.respond(waiter, Ok(Answer::Refused(Refused::TooLarge { len, limit })), effects);
        }
        match self.history.since(watch, self.state.revision()) {
            Err(oldest) => self.respond(waiter, Ok(Answer::Refused(Refused::Compacted { oldest })), effects),
            Ok(Changes { changes, next }) if changes.is_empty() => {
                // Whatever is asked again need not look at the same changes again.
                let watch = Watch { after: next, prefix: watch.prefix.clone() };
                self.wait(Subject::Keys(watch.prefix.clone()), waiter, Query::Watch(watch), effects);
            }
            Ok(changes) => self.respond(waiter, Ok(Answer::Changes(changes)), effects),
        }
    }

    /// Nothing happened for a while: says so, so that a client knows that it is served and from where to go on. A node that knows
    /// no leader may be cut off from what happens.
    pub(super) fn report_progress(&mut self, waiter: Waiter, watch: &Watch, effects: &mut Effects) {
        if self.leader().is_none() || self.is_outside() {
            return self.respond(waiter, Err(Denied::NotMaster), effects);
        }
        let next = watch.after.max(self.state.revision());
        self.respond(waiter, Ok(Answer::Changes(Changes { changes: Vec::new(), next })), effects);
    }

    /// Remembers what an entry changed, and tells those who watch.
    pub(super) fn answer_watching(&mut self, changes: &mut Vec<ClusterChange>, effects: &mut Effects) {
        let mut watched = BTreeSet::new();
        for change in changes.extract_if(.., |change| matches!(change, ClusterChange::Key(_))) {
            let ClusterChange::Key(change) = change else { continue };
            if !self.waiting.is_empty() {
                watched.extend(self.waiting.watching(&change.key));
            }
            self.history.note(change);
        }
        for subject in watched {
            self.answer_waiting(&subject, effects);
        }
    }
}
