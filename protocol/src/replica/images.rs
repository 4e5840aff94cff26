//! What a replica does with images: it has its own state saved, sends chunks of it, and takes the state of another.
//!
//! # Invariants
//!
//! * State and applied index change together: the state of an image is in place in the step that makes it durable.
//! * Whoever waits for something in the part of the log that an image jumps over is told that nobody knows.

use bytes::Bytes;

use super::Replica;
use super::batch::Placed;
use super::waiting::Place;
use crate::client::Denied;
use crate::durable::SnapMeta;
use crate::effects::{Effects, Event};
use crate::state::{ImageError, Restore, State};
use crate::types::{Nanos, NodeId};
use crate::{consensus, image};

impl Replica {
    pub(super) fn on_image(&mut self, now: Nanos, from: NodeId, message: image::Message, effects: &mut Effects) {
        if let image::Message::Want { last, place } = message {
            return self.exchange.wanted(from, last, place, effects);
        }
        if let Err(why) = self.exchange.chunk(now, from, message, effects) {
            effects.note(why);
        }
    }

    pub(super) fn on_image_done(&mut self, now: Nanos, done: image::Done, effects: &mut Effects) {
        match done {
            image::Done::Saved { last } => {
                if let Some(meta) = self.exchange.saved(last) {
                    let trailing = self.compaction.trailing;
                    self.core(now, consensus::Input::Saved { meta, trailing }, effects);
                }
            }
            image::Done::Read { to, last, place, found } => self.exchange.read(now, to, (last, place), found, effects),
            image::Done::Staged { last, place } => {
                if let Err(why) = self.exchange.staged(now, last, place, effects) {
                    effects.note(why);
                }
            }
        }
        // What is received is installed as soon as our own snapshot, if one is being written, is out of its way.
        if let Some(meta) = self.exchange.ready().filter(|_| !self.consensus.is_installing()).cloned() {
            self.core(now, consensus::Input::Staged { meta }, effects);
            if self.consensus.is_installing() {
                self.exchange.installing();
            } else {
                self.exchange.forget_up_to(self.consensus.commit());
            }
        }
    }

    /// Writes a snapshot when enough has been applied since the last one.
    pub(super) fn save(&mut self, now: Nanos, effects: &mut Effects) {
        let is_due = self.exchange.should_save(now, self.compaction.for_state(self.state.bytes()));
        if !is_due || self.consensus.is_installing() || self.is_broken {
            return;
        }
        if let Some(meta) = self.consensus.snap_meta() {
            self.exchange.save(meta, &self.state, effects);
        }
    }

    /// The state is another one from here on: whoever waits for something in the part of the log that is jumped over cannot
    /// know what became of it.
    pub(super) fn installed(&mut self, meta: &SnapMeta, effects: &mut Effects) {
        let Some(state) = self.exchange.install(meta) else {
            self.is_broken = true;
            effects.publish.push(Event::Fatal(format!("the state of {} is installed and not at hand", meta.last)));
            return;
        };
        self.state = state;
        effects.note(format!("the state of {} was taken from a snapshot", meta.last));
        let later = self.placed.split_off(&meta.last.index.next());
        for (_, (_, waiters)) in std::mem::replace(&mut self.placed, later) {
            for Placed { waiter, .. } in waiters {
                self.respond(waiter, Err(Denied::Unknown), effects);
            }
        }
        for Place { waiter, query, .. } in self.waiting.take_all() {
            self.answer(waiter, &query, effects);
        }
    }
}

/// The state of a snapshot.
pub(super) fn restored(chunks: &[Bytes]) -> Result<State, ImageError> {
    let mut restore = Restore::default();
    chunks.iter().try_for_each(|chunk| restore.take(chunk))?;
    restore.finish()
}
