//! A store that forgets everything with its process.

use protocol::durable::{Durable, Persist};
use protocol::{Incarnation, NodeId};

use super::{LogStore, StoreError};

/// Remembers in memory only, for `--ephemeral` nodes and tests. A node over it comes back as another node.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    durable: Durable,
}

impl MemoryStore {
    /// A store of a node that starts for the first time.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { durable: Durable::fresh(node, incarnation) }
    }
}

impl LogStore for MemoryStore {
    fn load(&mut self) -> Result<Durable, StoreError> {
        Ok(self.durable.clone())
    }

    fn commit(&mut self, batches: &[Persist]) -> Result<(), StoreError> {
        for batch in batches {
            self.durable.apply(batch);
        }
        Ok(())
    }
}
