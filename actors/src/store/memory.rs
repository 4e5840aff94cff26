//! A store that forgets everything with its process.

use bytes::Bytes;
use protocol::durable::Durable;
use protocol::{Incarnation, LogId, NodeId};

use super::{Change, LogStore, StoreError};

/// Remembers in memory only, for `--ephemeral` nodes and tests. A node over it comes back as another node.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    durable: Durable,
    /// The image of our own that is not whole yet.
    draft: Vec<Bytes>,
}

impl MemoryStore {
    /// A store of a node that starts for the first time.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { durable: Durable::fresh(node, incarnation), draft: Vec::new() }
    }
}

impl LogStore for MemoryStore {
    fn load(&mut self) -> Result<Durable, StoreError> {
        Ok(self.durable.clone())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<bool, StoreError> {
        for change in changes {
            match change {
                Change::Batch(batch) => {
                    if batch.install.is_some() {
                        self.draft.clear();
                    }
                    self.durable.apply(batch);
                }
                Change::Save { place, chunk, whole } => {
                    if *place == 0 {
                        self.draft.clear();
                    }
                    assert_eq!(u32::try_from(self.draft.len()), Ok(*place), "an image has no gaps");
                    self.draft.push(chunk.clone());
                    if let Some(meta) = whole {
                        let chunks = std::mem::take(&mut self.draft);
                        self.durable.keep(meta.clone(), || chunks);
                    }
                }
                Change::Forget { last } => self.durable.forget(*last),
                Change::Stage { last, place, chunk } => self.durable.stage(*last, *place, chunk.clone()),
            }
        }
        Ok(false)
    }

    fn read(&mut self, last: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError> {
        Ok(self.durable.chunk(last, place))
    }
}
