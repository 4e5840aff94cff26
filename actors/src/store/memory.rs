//! A store that forgets everything with its process.

use bytes::Bytes;
use protocol::durable::{Durable, Snapshot};
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

    /// Takes the next chunk of an image into its place.
    fn add(chunks: &mut Vec<Bytes>, place: u32, chunk: &Bytes) {
        if place == 0 {
            chunks.clear();
        }
        assert_eq!(u32::try_from(chunks.len()), Ok(place), "an image has no gaps");
        chunks.push(chunk.clone());
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
                    Self::add(&mut self.draft, *place, chunk);
                    if let Some(meta) = whole {
                        let chunks = std::mem::take(&mut self.draft);
                        self.durable.snapshot = Some(Snapshot { meta: meta.clone(), chunks });
                    }
                }
                Change::Stage { last, place, chunk } => {
                    let mut chunks = self.durable.staged.take().map_or_else(Vec::new, |(_, chunks)| chunks);
                    Self::add(&mut chunks, *place, chunk);
                    self.durable.staged = Some((*last, chunks));
                }
            }
        }
        Ok(false)
    }

    fn read(&mut self, last: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError> {
        let snapshot = self.durable.snapshot.as_ref().filter(|snapshot| snapshot.meta.last == last);
        Ok(snapshot.and_then(|Snapshot { chunks, .. }| {
            let chunk = chunks.get(usize::try_from(place).ok()?)?;
            Some((u32::try_from(chunks.len()).ok()?, chunk.clone()))
        }))
    }
}
