//! What a replica does with images: it has its own state saved, sends chunks of it, and takes the state of another.
//!
//! # Invariants
//!
//! * State and applied index change together: the state of an image is in place in the step that makes it durable.
//! * Whoever waits for something in the part of the log that an image jumps over is told that nobody knows.

use bytes::Bytes;

use super::Replica;
use super::batch::Placed;
use super::history::History;
use super::waiting::Place;
use crate::client::Denied;
use crate::durable::{Entry, SnapMeta};
use crate::effects::{Effects, Event};
use crate::state::{ImageError, Restore, State};
use crate::types::{Index, Nanos, NodeId};
use crate::{consensus, image};

impl Replica {
    pub(super) fn on_image(&mut self, now: Nanos, from: NodeId, message: image::Message, effects: &mut Effects) {
        if let image::Message::Want { last, place } = message {
            return self.serving.wanted(from, last, place, effects);
        }
        if let Err(why) = self.exchange.chunk(now, from, message, effects) {
            effects.note(why);
        }
    }

    pub(super) fn on_image_done(&mut self, now: Nanos, done: image::Done, effects: &mut Effects) {
        match done {
            image::Done::Saved { last } => {
                if let Some(meta) = self.exchange.saved(last) {
                    self.on_saved(now, meta, effects);
                }
            }
            image::Done::Read { to, last, place, found } => self.serving.read(now, to, (last, place), found, effects),
            image::Done::Staged { turn, .. } => {
                if let Err(why) = self.exchange.staged(now, turn, effects) {
                    effects.note(why);
                }
            }
        }
    }

    /// Our snapshot is durable: the log can be forgotten up to where it trails this one, and those that are still fetched.
    fn on_saved(&mut self, now: Nanos, meta: SnapMeta, effects: &mut Effects) {
        let fetched = self.serving.replaced(now, self.consensus.snapshot(), effects);
        let behind = fetched.map_or(0, |fetched| meta.last.index.0.saturating_sub(fetched.0));
        let trailing = self.trailing(meta.last.index) + behind;
        self.core(now, consensus::Input::Saved { meta, trailing }, effects);
    }

    /// How many entries up to this one stay in the log: so many as there may be, and fewer where they are long.
    fn trailing(&self, last: Index) -> u64 {
        let first = Index(last.0.saturating_sub(self.compaction.trailing) + 1);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.payload.command_bytes() as u64;
            bytes <= self.compaction.bytes / 2
        };
        self.consensus.entries(first..=last).iter().rev().take_while(fits).count() as u64
    }

    /// Installs what is received, as soon as our own snapshot, if one is being written, is out of its way.
    pub(super) fn install(&mut self, now: Nanos, effects: &mut Effects) {
        let Some(meta) = self.exchange.ready().filter(|_| !self.consensus.is_installing()).cloned() else { return };
        self.core(now, consensus::Input::Staged { meta }, effects);
        if self.consensus.is_installing() {
            self.exchange.installing();
        } else {
            self.exchange.forget_up_to(self.consensus.commit());
        }
    }

    /// Writes a snapshot when enough has been applied since the last one.
    pub(super) fn save(&mut self, now: Nanos, effects: &mut Effects) {
        let compaction = self.compaction.for_image(self.state.image_bytes());
        let compaction = if self.serving.is_busy(now) { compaction.while_served() } else { compaction };
        if !self.exchange.should_save(compaction) || self.consensus.is_installing() || self.is_broken {
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
        self.serving.installed();
        self.history = History::from(self.state.revision());
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

#[cfg(test)]
mod tests;
