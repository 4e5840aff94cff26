//! The store on disk: one redb file, one transaction and one fsync per commit.
//!
//! One file for everything, so that a vote, a truncation and an append can be one transaction. redb commits in one
//! phase here: pages and header are written, then synced once, and after a crash the newer of two header slots whose
//! whole tree has right checksums wins. So a commit that was in flight is there or not, never half. The price: a page
//! that rots in the very last commit before an unclean end looks like a torn commit and takes that commit back. Commits
//! in two phases would tell the two apart and cost a second fsync each.
//!
//! # Invariants
//!
//! * The identity is durable before [`RedbStore::open`] returns it, and so is an incarnation greater than all before.
//! * No bytes on disk make us panic: what the engine panics about is reported as corruption.

use std::fs::{self, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::durable::{Durable, GENESIS, HardState, Persist};
use protocol::{Incarnation, LogId, NodeId};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use super::folder::Folder;
use super::shelf::Shelf;
use super::tables::{self, Extent, Reader, Writer};
use super::{Change, LogStore, StoreError};

/// Remembers in a file of the data folder.
#[derive(Debug)]
pub struct RedbStore {
    /// Stands before the folder: closing it writes, so it must happen under the lock.
    engine: Engine,
    path: PathBuf,
    node: NodeId,
    incarnation: Incarnation,
    extent: Extent,
    /// Whether no entry is left that the base has passed.
    is_swept: bool,
    shelf: Shelf,
    /// The first error, which is final.
    failed: Option<String>,
    _folder: Option<Folder>,
}

impl RedbStore {
    /// Opens the store in `folder`, or creates both. `unix_ms` is the wall clock, which makes the incarnation grow even
    /// if the folder was restored from a copy; `fresh` is a random identity, taken only if there is none yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`] with the path and the cause.
    pub fn open(folder: &Path, unix_ms: u64, fresh: NodeId) -> Result<Self, StoreError> {
        let folder = Folder::claim(folder)?;
        let path = folder.file(FILE);
        let exists = path.try_exists().map_err(|cause| StoreError::io("open", &path, cause))?;
        let engine = guarded(&path, || if exists { reopen(&path) } else { create(&folder, &path, fresh) })?;
        Self::enter(engine, path, Some(folder), unix_ms)
    }

    /// Takes the file of `folder` out of the way, under a name that no node opens, and marks it as one of an identity that
    /// never votes again, if it still takes the mark. Nothing in it is removed. Returns the file, and whose it was.
    pub(super) fn set_aside(folder: &Path) -> Result<(PathBuf, Option<NodeId>), StoreError> {
        let folder = Folder::claim(folder)?;
        // Moved first: from then on the identity is gone from here, whatever happens to the mark.
        let path = folder.set_aside(FILE, DAMAGED)?;
        let node = guarded(&path, || {
            let engine = reopen(&path)?;
            let node = Reader::new(engine.db(), &path)?.row(tables::NODE)?;
            let marked = tables::transaction(engine.db(), &path, |rows| rows.put(tables::RETIRED, &true));
            if let Err(error) = marked {
                tracing::debug!(%error, "the damaged log takes no mark");
            }
            Ok(node)
        });
        Ok((path, node.ok()))
    }

    /// Opens the store over a disk that a test provides; `None` as the identity means that one must be there.
    #[cfg(test)]
    pub(super) fn over(
        backend: impl redb::StorageBackend,
        unix_ms: u64,
        fresh: Option<NodeId>,
    ) -> Result<Self, StoreError> {
        let path = PathBuf::from("test.redb");
        let engine = guarded(&path, || {
            let engine = Engine::new(builder().create_with_backend(backend), "open", &path)?;
            fresh.map_or(Ok(()), |fresh| found(&engine, &path, fresh))?;
            Ok(engine)
        })?;
        Self::enter(engine, path, None, unix_ms)
    }

    /// Starts a run over an open file: checks what it is and makes the new incarnation durable.
    fn enter(engine: Engine, path: PathBuf, folder: Option<Folder>, unix_ms: u64) -> Result<Self, StoreError> {
        let Beginning { node, incarnation, extent, shelf } = guarded(&path, || begin(engine.db(), &path, unix_ms))?;
        Ok(Self { engine, path, node, incarnation, extent, is_swept: false, shelf, failed: None, _folder: folder })
    }

    /// Gives up the log and the right to vote under this identity, for good: the folder opens no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that cannot be made durable.
    pub fn retire(mut self) -> Result<(), StoreError> {
        let extent = self.extent;
        self.write(|rows| rows.retire(extent))
    }

    /// How many rows there are that nobody needs: chunks of other images than our snapshot, entries up to the base.
    #[cfg(test)]
    pub(super) fn garbage(&self) -> usize {
        let rows = Reader::new(self.engine.db(), &self.path).expect("the disk of a test");
        rows.garbage(self.extent, self.shelf.kept.as_ref()).expect("the disk of a test")
    }

    /// Makes what `run` writes durable, unless something failed before.
    fn write<T>(&mut self, run: impl FnOnce(&Writer<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(first) = &self.failed {
            return Err(StoreError::Halted { first: first.clone() });
        }
        let result = tables::transaction(self.engine.db(), &self.path, run);
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }
}

impl LogStore for RedbStore {
    fn load(&mut self) -> Result<Durable, StoreError> {
        guarded(&self.path, || {
            let rows = Reader::new(self.engine.db(), &self.path)?;
            let snapshot = self.shelf.kept.clone().map(|kept| rows.snapshot(kept)).transpose()?;
            let covered = snapshot.as_ref().map_or(GENESIS, |snapshot| snapshot.meta.last);
            if self.extent.base > covered {
                return Err(rows.corrupt(format!("the log begins after {}, the state at {covered}", self.extent.base)));
            }
            Ok(Durable {
                node: self.node,
                incarnation: self.incarnation,
                promised: rows.row(tables::PROMISED)?,
                genesis: rows.row(tables::GENESIS_ROW)?,
                hard_state: rows.row(tables::HARD_STATE)?,
                snapshot,
                base: self.extent.base,
                entries: rows.log(self.extent)?,
                commit_hint: self.extent.commit_hint,
                // Only this run can go on with an image: what an earlier one received is garbage.
                staged: None,
            })
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<bool, StoreError> {
        let (before, was_swept, mut shelf) = (self.extent, self.is_swept, self.shelf.clone());
        let batches = || changes.iter().filter_map(Change::batch);
        let mut last_word = Persist::default();
        batches().for_each(|batch| fold(batch, &mut last_word));
        (self.extent, self.is_swept) = self.write(|rows| {
            rows.put_some(tables::PROMISED, last_word.promised.as_ref())?;
            rows.put_some(tables::GENESIS_ROW, last_word.genesis.is_some().then_some(&last_word.genesis))?;
            rows.put_some(tables::HARD_STATE, last_word.hard_state.as_ref())?;
            rows.change_shelf(changes, &mut shelf)?;
            rows.change_log(batches(), before, was_swept)
        })?;
        self.shelf = shelf;
        Ok(!self.is_swept || !self.shelf.is_swept())
    }

    fn read(&mut self, last: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError> {
        let Some(kept) = self.shelf.kept.as_ref().filter(|kept| kept.meta.last == last && place < kept.count) else {
            return Ok(None);
        };
        guarded(&self.path, || {
            let chunk = Reader::new(self.engine.db(), &self.path)?.chunk(kept, place)?;
            Ok(Some((kept.count, chunk)))
        })
    }
}

/// Takes over what `batch` says about epoch, vote and founding, as [`Durable::apply`] would.
fn fold(batch: &Persist, last_word: &mut Persist) {
    last_word.promised = batch.promised.or(last_word.promised);
    if batch.genesis.is_some() {
        last_word.genesis.clone_from(&batch.genesis);
        last_word.hard_state = Some(HardState { epoch: GENESIS.epoch, vote: None });
    }
    last_word.hard_state = batch.hard_state.or(last_word.hard_state);
}

/// Checks that the file is ours to use, and makes the new incarnation durable.
fn begin(db: &Database, path: &Path, unix_ms: u64) -> Result<Beginning, StoreError> {
    let rows = Reader::new(db, path)?;
    let found = rows.row(tables::FORMAT_ROW)?;
    if found != tables::FORMAT {
        return Err(StoreError::Format { path: path.to_path_buf(), found, known: tables::FORMAT });
    }
    let node = rows.row(tables::NODE)?;
    if rows.row(tables::RETIRED)? {
        return Err(StoreError::Retired { path: path.to_path_buf(), node });
    }
    let incarnation = rows.row::<Incarnation>(tables::INCARNATION)?.next().max(Incarnation(unix_ms));
    let extent = rows.extent()?;
    let shelf = Shelf::open(&rows)?;
    drop(rows);
    tables::transaction(db, path, |rows| rows.put(tables::INCARNATION, &incarnation))?;
    Ok(Beginning { node, incarnation, extent, shelf })
}

/// What is known of a file when it is opened.
struct Beginning {
    node: NodeId,
    incarnation: Incarnation,
    extent: Extent,
    shelf: Shelf,
}

/// Opens the file of an earlier run. One without content is refused: it had some, or is not ours.
fn reopen(path: &Path) -> Result<Engine, StoreError> {
    Engine::new(builder().open(path), "open", path)
}

/// Creates the file under another name and gives it its own once it is whole, because an engine's file that is caught
/// half-created by a crash cannot be told from a broken one.
fn create(folder: &Folder, path: &Path, fresh: NodeId) -> Result<Engine, StoreError> {
    let draft = folder.file(DRAFT);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&draft);
    let file = file.map_err(|cause| StoreError::io("create", &draft, cause))?;
    let db = FileBackend::new(file).and_then(|backend| builder().create_with_backend(backend));
    let engine = Engine::new(db, "create", &draft)?;
    found(&engine, &draft, fresh)?;
    fs::rename(&draft, path).map_err(|cause| StoreError::io("create", path, cause))?;
    folder.sync()?;
    Ok(engine)
}

/// Writes every row of a new file.
fn found(engine: &Engine, path: &Path, fresh: NodeId) -> Result<(), StoreError> {
    assert_ne!(fresh, NodeId(0), "zero is nobody's identity");
    tables::transaction(engine.db(), path, |rows| rows.found(&Durable::fresh(fresh, Incarnation(0))))
}

/// An open redb file, which is closed without a panic even after redb has panicked over it.
#[derive(Debug)]
struct Engine(Option<Database>);

impl Engine {
    fn new(opened: Result<Database, DatabaseError>, doing: &'static str, path: &Path) -> Result<Self, StoreError> {
        opened.map(|db| Self(Some(db))).map_err(|error| StoreError::engine(doing, path, error))
    }

    fn db(&self) -> &Database {
        self.0.as_ref().expect("it is open until it is dropped")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let db = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("the log could not be closed cleanly");
        }
    }
}

/// How we open the engine.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|repair| {
        tracing::debug!(progress = repair.progress(), "the last run did not close the log: checking it");
    });
    builder
}

/// Turns a panic over bytes that the engine did not write into the error that it is.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(StoreError::corrupt(path, super::thread::reason(panic.as_ref()))))
}

/// The file's name in the data folder, and the one it has before it is whole.
const FILE: &str = "tenure.redb";
const DRAFT: &str = "tenure.redb.new";

/// How the names of damaged files begin; a number follows.
const DAMAGED: &str = "tenure.redb.damaged-";

/// How much the engine may cache. The log is read once, at the start; after that only a few pages are touched again.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
