//! The images in the file: `chunks`, a row per chunk under the generation of its image and its place in it.
//!
//! An image grows over many commits, so what it is becomes known only when it is whole: the row `snapshot` of `meta` names
//! the generation that counts. All others are on their way there or on their way out, and what was on its way when a run
//! ended is out when the next one begins. So is the snapshot before the one that counts, which stays while others read it.
//!
//! # Invariants
//!
//! * The row `snapshot` names only generations of which every chunk is there. It is written in the transaction that makes
//!   the image whole, or installs it.
//! * A generation is used for one image and never again within a run.
//! * No commit removes more than a portion, however large an image was.

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::LogId;
use protocol::durable::{SnapMeta, Snapshot};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::record::{self, Rows};
use super::tables::{Reader, Writer};
use super::{Change, StoreError};

/// Which images there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Our snapshot.
    pub(super) kept: Option<Kept>,
    /// The snapshot before it, until nobody reads it.
    pub(super) former: Option<Kept>,
    /// The image of our own that is being written.
    draft: Option<Partial>,
    /// The image that is being received, and the last entry in it.
    staged: Option<(LogId, Partial)>,
    /// Generations whose chunks nobody needs.
    garbage: BTreeSet<u64>,
    /// The next generation that was never used.
    next: u64,
}

/// The row `snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What it stands for.
    pub(super) meta: SnapMeta,
    /// Under which generation its chunks are.
    generation: u64,
    /// How many they are.
    pub(super) count: u32,
}

/// An image that is not whole.
#[derive(Clone, Copy, Debug)]
struct Partial {
    generation: u64,
    count: u32,
}

impl Shelf {
    /// Reads which images there are at the start of a run.
    pub(super) fn open(rows: &Reader<'_>) -> Result<Self, StoreError> {
        let kept: Option<Kept> = rows.row(SNAPSHOT)?;
        let chunks = rows.chunks()?;
        let mut garbage = BTreeSet::new();
        let mut next = 0;
        // From generation to generation, without a look at all their chunks.
        while let Some(row) = chunks.range((next, 0)..).map_err(|error| rows.engine(error))?.next() {
            let (generation, _) = row.map_err(|error| rows.engine(error))?.0.value();
            garbage.insert(generation);
            next = generation.checked_add(1).ok_or_else(|| rows.corrupt("there is no generation after the last"))?;
        }
        if let Some(kept) = &kept {
            garbage.remove(&kept.generation);
        }
        Ok(Self { kept, garbage, next, ..Self::default() })
    }

    /// Whether no chunk is left that nobody needs.
    pub(super) fn is_swept(&self) -> bool {
        self.garbage.is_empty()
    }

    /// Takes up an image of our own that is whole.
    fn keep(&mut self, meta: SnapMeta, image: Partial) {
        self.forget();
        self.former = self.kept.replace(Kept { meta, generation: image.generation, count: image.count });
    }

    /// Nobody reads the snapshot before ours any more.
    fn forget(&mut self) {
        self.garbage.extend(self.former.take().map(|former| former.generation));
    }

    /// Follows the changes in order; `put` writes a chunk.
    fn follow(
        &mut self,
        changes: &[Change],
        mut put: impl FnMut(Key, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for change in changes {
            match change {
                Change::Batch(batch) => {
                    if let Some(meta) = &batch.install {
                        self.install(meta);
                    }
                }
                Change::Save { place, chunk, whole } => {
                    if *place == 0 {
                        self.garbage.extend(self.draft.take().map(|draft| draft.generation));
                        self.draft = Some(self.begin());
                    }
                    let draft = self.draft.as_mut().expect("an image begins with its first chunk");
                    put(draft.next(*place), chunk)?;
                    if let Some(meta) = whole {
                        let draft = self.draft.take().expect("it was there a line ago");
                        if meta.is_newer_than(self.kept.as_ref().map(|kept| &kept.meta)) {
                            self.keep(meta.clone(), draft);
                        } else {
                            self.garbage.insert(draft.generation);
                        }
                    }
                }
                Change::Forget { last } => {
                    if self.former.as_ref().is_some_and(|former| former.meta.last == *last) {
                        self.forget();
                    }
                }
                Change::Stage { last, place, chunk } => {
                    if *place == 0 {
                        self.garbage.extend(self.staged.take().map(|(_, staged)| staged.generation));
                        self.staged = Some((*last, self.begin()));
                    }
                    let (of, staged) = self.staged.as_mut().expect("an image begins with its first chunk");
                    assert_eq!(of, last, "one image is staged at a time");
                    put(staged.next(*place), chunk)?;
                }
            }
        }
        Ok(())
    }

    /// Takes up the staged image. Any of our own is older than it, and the log that would follow those is gone.
    fn install(&mut self, meta: &SnapMeta) {
        let staged = self.staged.take().filter(|(last, _)| *last == meta.last);
        let (_, staged) = staged.expect("an image is staged before it is installed");
        self.garbage.extend(self.draft.take().map(|draft| draft.generation));
        self.keep(meta.clone(), staged);
        self.forget();
    }

    fn begin(&mut self) -> Partial {
        let generation = self.next;
        self.next += 1;
        Partial { generation, count: 0 }
    }
}

impl Partial {
    /// The key of the chunk that comes next, which must have this place.
    fn next(&mut self, place: u32) -> Key {
        assert_eq!(place, self.count, "an image has no gaps");
        self.count += 1;
        (self.generation, place)
    }
}

impl Reader<'_> {
    /// Reads a whole snapshot.
    pub(super) fn snapshot(&self, kept: Kept) -> Result<Snapshot, StoreError> {
        let chunks = (0..kept.count).map(|place| self.chunk(&kept, place)).collect::<Result<_, _>>()?;
        Ok(Snapshot { meta: kept.meta, chunks })
    }

    /// Reads one chunk of a snapshot, which must be there.
    pub(super) fn chunk(&self, kept: &Kept, place: u32) -> Result<Bytes, StoreError> {
        let key = (kept.generation, place);
        let bad = |what: String| self.corrupt(format!("chunk {place} of the snapshot at {}: {what}", kept.meta.last));
        let row = self.chunks()?.get(key).map_err(|error| self.engine(error))?;
        let row = row.ok_or_else(|| bad(String::from("missing")))?;
        record::body::<Key>(&key, row.value()).map(Bytes::copy_from_slice).map_err(bad)
    }

    /// How many rows there are that nobody needs.
    #[cfg(test)]
    pub(super) fn garbage(&self, extent: super::tables::Extent, shelf: &Shelf) -> Result<usize, redb::Error> {
        let chunks = self.chunks().expect("there is such a table");
        let needed = |key: Key| shelf.kept.iter().chain(&shelf.former).any(|kept| kept.generation == key.0);
        let chunks =
            chunks.range((0, 0)..)?.filter(|row| row.as_ref().is_ok_and(|(key, _)| !needed(key.value()))).count();
        let entries = self.txn.open_table(super::tables::LOG)?.range(..=extent.base.index.0)?.count();
        Ok(chunks + entries)
    }

    fn chunks(&self) -> Result<redb::ReadOnlyTable<Key, &'static [u8]>, StoreError> {
        self.txn.open_table(CHUNKS).map_err(|error| self.engine(error))
    }
}

impl Writer<'_> {
    /// Creates the table and the row.
    pub(super) fn found_shelf(&self) -> Result<(), StoreError> {
        self.chunks()?;
        self.put(SNAPSHOT, &None::<Kept>)
    }

    /// Applies what the changes say about images.
    pub(super) fn change_shelf(&self, changes: &[Change], shelf: &mut Shelf) -> Result<(), StoreError> {
        let is_concerned = |change: &Change| !matches!(change, Change::Batch(batch) if batch.install.is_none());
        if !changes.iter().any(is_concerned) {
            return Ok(());
        }
        let mut chunks = self.chunks()?;
        let before = shelf.kept.clone();
        shelf.follow(changes, |key, chunk| record::put(&mut chunks, key, chunk).map_err(|error| self.engine(error)))?;
        if shelf.kept != before {
            self.put(SNAPSHOT, &shelf.kept)?;
        }
        Ok(())
    }

    /// Removes a portion of the chunks that nobody needs any more.
    pub(super) fn sweep_shelf(&self, shelf: &mut Shelf) -> Result<(), StoreError> {
        if let Some(generation) = shelf.garbage.first().copied()
            && self.sweep(&mut self.chunks()?, (generation, 0)..=(generation, u32::MAX), SWEEP_CHUNKS)?
        {
            shelf.garbage.remove(&generation);
        }
        Ok(())
    }

    fn chunks(&self) -> Result<Rows<'_, Key>, StoreError> {
        self.txn.open_table(CHUNKS).map_err(|error| self.engine(error))
    }
}

/// The generation of an image, and the place of a chunk in it.
type Key = (u64, u32);

const CHUNKS: TableDefinition<'_, Key, &'static [u8]> = TableDefinition::new("chunks");

/// Our snapshot, if there is one: which generation, and what it stands for.
pub(super) const SNAPSHOT: &str = "snapshot";

/// How many chunks one commit removes: more than it adds of our own, so that what nobody needs does not grow.
const SWEEP_CHUNKS: usize = 3;
