//! Where a node keeps what it must not forget.
//!
//! [`LogStore`] is the whole contract: read everything once at the start, then make changes durable in order. Two stores
//! fulfil it: [`DiskStore`], two files in the data folder, and [`MemoryStore`], for `--ephemeral` nodes and tests. A
//! [`StoreThread`] owns whichever it is, on a thread of its own, merges all that is queued into one commit, and puts at
//! most one chunk of a snapshot of our own into each.
//!
//! # Invariants
//!
//! * A batch is acknowledged only after it is durable, and durable as a whole or not at all.
//! * The first error is final: nothing is written after it and nothing is acknowledged after it. A failed fsync is never
//!   tried again, because the kernel may have dropped the pages that it could not write.
//! * A folder is used by one process at a time, and the identity in it is durable before anybody hears of it.

use bytes::Bytes;
use protocol::LogId;
use protocol::durable::{Durable, Persist, SnapMeta};

mod disk;
mod error;
mod folder;
mod journal;
mod memory;
mod mutants;
mod record;
mod repair;
mod sheet;
mod shelf;
mod tables;
mod thread;

pub use disk::DiskStore;
pub use error::StoreError;
pub use memory::MemoryStore;
pub use repair::{Replaced, open_or_replace};
pub use thread::{StoreEvent, StoreHandle, StoreThread};

/// A place that remembers over a restart.
pub trait LogStore: Send {
    /// Reads all that is remembered. Called once, before the first commit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be read or is not what was written.
    fn load(&mut self) -> Result<Durable, StoreError>;

    /// Makes all `changes` durable, in order, in one step: after an error none of them may count as durable (though
    /// after a restart they may turn out to be). Returns whether something is left to tidy up, which commits do on the
    /// way, those without a change too.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the first one is final, every later call fails too.
    fn commit(&mut self, changes: &[Change]) -> Result<bool, StoreError>;

    /// Reads one chunk of our snapshot, or of the one before it, and how many there are; `None` if neither ends with
    /// `last`, or it has no such chunk.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be read or is not what was written.
    fn read(&mut self, last: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError>;
}

/// One thing to make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What the replica says.
    Batch(Persist),
    /// The next chunk of an image of our own. Place zero begins one and forgets what there was of another. An installed
    /// snapshot ends it, because it is newer.
    Save {
        /// Which chunk, counted from zero, without gaps.
        place: u32,
        /// The chunk.
        chunk: Bytes,
        /// With the last one: what the image stands for. It is our snapshot from here on, and the one before it stays
        /// readable in this run until it is forgotten or another one takes the place of this one.
        whole: Option<SnapMeta>,
    },
    /// Nobody reads the snapshot before ours any more, if it is the one that ends with `last`.
    Forget {
        /// The last entry of it.
        last: LogId,
    },
    /// The next chunk of an image that is being received, which counts for nothing until a batch installs it. Place zero
    /// forgets what was staged before.
    Stage {
        /// The last entry of the snapshot that it belongs to.
        last: LogId,
        /// Which chunk, counted from zero, without gaps.
        place: u32,
        /// The chunk.
        chunk: Bytes,
    },
}

impl Change {
    /// The batch, if it is one.
    fn batch(&self) -> Option<&Persist> {
        match self {
            Self::Batch(batch) => Some(batch),
            Self::Save { .. } | Self::Forget { .. } | Self::Stage { .. } => None,
        }
    }
}

/// How many bytes the commands in a batch take.
fn payload_bytes(batch: &Persist) -> usize {
    batch.append.iter().map(|entry| entry.payload.command_bytes()).sum()
}

#[cfg(test)]
mod tests;
