//! Where a node keeps what it must not forget.
//!
//! [`LogStore`] is the whole contract: read everything once at the start, then make batches durable in order. Two stores
//! fulfil it: [`RedbStore`], one file in the data folder, and [`MemoryStore`], for `--ephemeral` nodes and tests. A
//! [`StoreThread`] owns whichever it is, on a thread of its own, and merges all that is queued into one commit.
//!
//! # Invariants
//!
//! * A batch is acknowledged only after it is durable, and durable as a whole or not at all.
//! * The first error is final: nothing is written after it and nothing is acknowledged after it. A failed fsync is never
//!   tried again, because the kernel may have dropped the pages that it could not write.
//! * A folder is used by one process at a time, and the identity in it is durable before anybody hears of it.

use protocol::durable::{Durable, Persist};

mod disk;
mod error;
mod folder;
mod memory;
mod record;
mod tables;
mod thread;

pub use disk::RedbStore;
pub use error::StoreError;
pub use memory::MemoryStore;
pub use thread::{StoreEvent, StoreHandle, StoreThread};

/// A place that remembers [`Persist`] batches over a restart.
pub trait LogStore: Send {
    /// Reads all that is remembered. Called once, before the first commit.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be read or is not what was written.
    fn load(&mut self) -> Result<Durable, StoreError>;

    /// Makes all `batches` durable, in order, in one step: after an error none of them may count as durable (though
    /// after a restart they may turn out to be).
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the first one is final, every later call fails too.
    fn commit(&mut self, batches: &[Persist]) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests;
