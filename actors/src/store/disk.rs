//! The store on disk: a redb file, and a journal in front of it.
//!
//! A commit of the log goes to the journal alone, with one write and one fsync: a commit of redb rewrites seven pages for it.
//! It is kept in memory too, and reaches the file together with all that follow it, in one transaction: when the journal is
//! full, when there is time, when something comes that the journal does not take (images, a large batch), and at the end. At
//! the start it is done with whatever a run before us left in the journal, so that the file alone holds everything then.
//!
//! One file for all that is kept, so that a vote, a truncation and an append can be one transaction. redb commits in one
//! phase here: pages and header are written, then synced once, and after a crash the newer of two header slots whose
//! whole tree has right checksums wins. So a commit that was in flight is there or not, never half. The price: a page
//! that rots in the very last commit before an unclean end looks like a torn commit and takes that commit back. Commits
//! in two phases would tell the two apart and cost a second fsync each. What the journal held before that commit is either
//! still there, and is written once more, or overwritten by the next round, and then that shows.
//!
//! # Invariants
//!
//! * The identity is durable before [`DiskStore::open`] returns it, and so is an incarnation greater than all before.
//! * The transaction that takes over what is in the journal ends the journal's round, so nothing is taken over twice.
//! * No bytes on disk make us panic: what the engine panics about is reported as corruption.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::durable::{Durable, GENESIS, HardState, Persist};
use protocol::{Incarnation, LogId, NodeId};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::folder::Folder;
use super::journal::Journal;
use super::sheet::Sheet;
use super::shelf::Shelf;
use super::tables::{self, Extent, Reader, Writer};
use super::{Change, LogStore, StoreError};

/// Remembers in two files of the data folder.
#[derive(Debug)]
pub struct DiskStore {
    /// Stands before the folder: closing it writes, so it must happen under the lock.
    engine: Engine,
    path: PathBuf,
    node: NodeId,
    incarnation: Incarnation,
    extent: Extent,
    /// Whether no entry is left that the base has passed.
    is_swept: bool,
    shelf: Shelf,
    journal: Journal,
    /// What is in the journal and not yet in the file.
    ahead: Vec<Persist>,
    /// The first error, which is final.
    failed: Option<String>,
    _folder: Option<Folder>,
}

impl DiskStore {
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
        let beginning = begin(&engine, &path, unix_ms)?;
        let journal = beginning.journal(reopen_journal(&folder.file(JOURNAL))?, folder.file(JOURNAL))?;
        Self::enter(engine, path, beginning, journal, Some(folder))
    }

    /// Takes the files of `folder` out of the way, under names that no node opens, and marks them as those of an identity
    /// that never votes again, if they still take the mark. Nothing in them is removed. Returns the file, and whose it was.
    pub(super) fn set_aside(folder: &Path) -> Result<(PathBuf, Option<NodeId>), StoreError> {
        let folder = Folder::claim(folder)?;
        // The journal first: a file without one opens no more, so a crash in between is answered by coming here again.
        if folder.file(JOURNAL).exists() {
            folder.set_aside(JOURNAL, JOURNAL_DAMAGED)?;
        }
        // Moved before it is marked: from then on the identity is gone from here, whatever happens to the mark.
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

    /// What the file in `folder` still says, whatever else in it is damaged: whose it is, and who votes by the newest configuration
    /// that can be read. `None` if it says nothing of that. The journal is not asked: it is ahead of the file only after an
    /// unclean end, and then a damaged file does not open at all.
    pub(super) fn last_voters(folder: &Path) -> Result<Option<(NodeId, BTreeSet<NodeId>)>, StoreError> {
        let folder = Folder::claim(folder)?;
        let path = folder.file(FILE);
        let said = guarded(&path, || {
            let engine = reopen(&path)?;
            let rows = Reader::new(engine.db(), &path)?;
            Ok((rows.row(tables::NODE)?, rows.last_readable_conf()?))
        });
        let Ok((node, Some(conf))) = said else { return Ok(None) };
        Ok(Some((node, conf.voters.into_iter().chain(conf.outgoing).collect())))
    }

    /// Opens the store over a disk that a test provides; an identity means that there is nothing on it yet.
    #[cfg(test)]
    pub(super) fn over(
        disk: &super::tests::platter::Platter,
        unix_ms: u64,
        fresh: Option<NodeId>,
    ) -> Result<Self, StoreError> {
        let (path, journal) = (PathBuf::from("test.redb"), PathBuf::from("test.journal"));
        let engine = guarded(&path, || {
            fresh.map_or(Ok(()), |fresh| Journal::create(&disk.journal(), &journal, fresh))?;
            let engine = Engine::new(builder().create_with_backend(disk.engine()), "open", &path)?;
            fresh.map_or(Ok(()), |fresh| found(&engine, &path, fresh))?;
            Ok(engine)
        })?;
        let beginning = begin(&engine, &path, unix_ms)?;
        let journal = beginning.journal(Box::new(disk.journal()), journal)?;
        Self::enter(engine, path, beginning, journal, None)
    }

    /// Starts a run: takes over what an earlier one left in the journal and makes the new incarnation durable, in one step.
    fn enter(
        engine: Engine,
        path: PathBuf,
        beginning: Beginning,
        (journal, ahead): (Journal, Vec<Persist>),
        folder: Option<Folder>,
    ) -> Result<Self, StoreError> {
        let Beginning { node, incarnation, extent, shelf, .. } = beginning;
        let mut store = Self {
            engine,
            path,
            node,
            incarnation,
            extent,
            is_swept: false,
            shelf,
            journal,
            ahead,
            failed: None,
            _folder: folder,
        };
        if !store.ahead.is_empty() {
            // The engine may abort the process over a page that rotted, if it has to change it.
            store.read_all()?;
        }
        let path = store.path.clone();
        guarded(&path, || store.settle(&[], false))?;
        Ok(store)
    }

    /// Gives up the log and the right to vote under this identity, for good: the folder opens no more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that cannot be made durable.
    pub fn retire(mut self) -> Result<(), StoreError> {
        self.catch_up()?;
        let extent = self.extent;
        self.write(|rows| rows.retire(extent))
    }

    /// How many rows there are that nobody needs: chunks of neither our snapshot nor the one before, entries up to the base.
    #[cfg(test)]
    pub(super) fn garbage(&self) -> usize {
        let rows = Reader::new(self.engine.db(), &self.path).expect("the disk of a test");
        rows.garbage(self.extent, &self.shelf).expect("the disk of a test")
    }

    /// Reads all that is in the file.
    fn read_all(&self) -> Result<Durable, StoreError> {
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
                former: None,
                base: self.extent.base,
                entries: rows.log(self.extent)?,
                commit_hint: self.extent.commit_hint,
                // Only the run that received an image can go on with it: it is garbage now, like a former snapshot.
                staged: None,
            })
        })
    }

    /// Makes a commit durable in the journal, if that takes it.
    fn note(&mut self, changes: &[Change]) -> Result<bool, StoreError> {
        let batches: Vec<_> =
            changes.iter().map_while(|change| change.batch().filter(|b| b.install.is_none())).collect();
        if batches.is_empty() || batches.len() < changes.len() {
            return Ok(false);
        }
        let is_noted = self.attempt(|store| store.journal.append(&batches))?;
        if is_noted {
            self.ahead.extend(batches.into_iter().cloned());
        }
        Ok(is_noted)
    }

    /// Makes what the journal holds durable in the file too.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        if self.ahead.is_empty() { Ok(()) } else { self.settle(&[], false) }
    }

    /// Makes all changes durable in the file, behind what the journal is ahead of it, and begins a new round. Removes a
    /// portion of what nobody needs if it `is_tidying`.
    fn settle(&mut self, changes: &[Change], is_tidying: bool) -> Result<(), StoreError> {
        let ahead = mem::take(&mut self.ahead);
        let batches = || ahead.iter().chain(changes.iter().filter_map(Change::batch));
        let (before, was_swept, mut shelf) = (self.extent, self.is_swept, self.shelf.clone());
        let (incarnation, round) = (self.incarnation, self.journal.next_round());
        let mut last_word = Persist::default();
        batches().for_each(|batch| fold(batch, &mut last_word));
        (self.extent, self.is_swept) = self.write(|rows| {
            rows.put(tables::INCARNATION, &incarnation)?;
            rows.put(tables::ROUND, &round)?;
            rows.put_some(tables::PROMISED, last_word.promised.as_ref())?;
            rows.put_some(tables::GENESIS_ROW, last_word.genesis.is_some().then_some(&last_word.genesis))?;
            rows.put_some(tables::HARD_STATE, last_word.hard_state.as_ref())?;
            rows.change_shelf(changes, &mut shelf)?;
            let extent = rows.change_log(batches(), before)?;
            if !is_tidying {
                return Ok((extent, false));
            }
            rows.sweep_shelf(&mut shelf)?;
            let appended = batches().map(|batch| batch.append.len()).sum();
            let is_swept = was_swept && extent.base == before.base || rows.sweep_log(extent.base, appended)?;
            Ok((extent, is_swept))
        })?;
        self.shelf = shelf;
        self.journal.begin_round();
        Ok(())
    }

    /// Makes what `run` writes durable in the file.
    fn write<T>(&mut self, run: impl FnOnce(&Writer<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.attempt(|store| tables::transaction(store.engine.db(), &store.path, run))
    }

    /// Does what may fail, unless something has failed before.
    fn attempt<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(first) = &self.failed {
            return Err(StoreError::Halted { first: first.clone() });
        }
        let result = run(self);
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }
}

impl LogStore for DiskStore {
    fn load(&mut self) -> Result<Durable, StoreError> {
        self.catch_up()?;
        self.read_all()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<bool, StoreError> {
        if !self.note(changes)? {
            self.settle(changes, true)?;
        }
        Ok(!self.is_swept || !self.shelf.is_swept() || self.journal.is_half_full())
    }

    fn read(&mut self, last: LogId, place: u32) -> Result<Option<(u32, Bytes)>, StoreError> {
        let mut held = self.shelf.kept.iter().chain(&self.shelf.former);
        let Some(kept) = held.find(|kept| kept.meta.last == last && place < kept.count) else { return Ok(None) };
        guarded(&self.path, || {
            let chunk = Reader::new(self.engine.db(), &self.path)?.chunk(kept, place)?;
            Ok(Some((kept.count, chunk)))
        })
    }
}

impl Drop for DiskStore {
    /// Leaves nothing in the journal: whatever rots from here on is told from what was torn.
    fn drop(&mut self) {
        let path = self.path.clone();
        if self.failed.is_none()
            && let Err(error) = guarded(&path, || self.catch_up())
        {
            tracing::warn!(%error, "the journal stays as it is: the next start takes it over");
        }
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

/// Checks that the file is ours to use, and reads what a run begins with.
fn begin(engine: &Engine, path: &Path, unix_ms: u64) -> Result<Beginning, StoreError> {
    guarded(path, || {
        let rows = Reader::new(engine.db(), path)?;
        let found = rows.row(tables::FORMAT_ROW)?;
        if found != tables::FORMAT {
            return Err(StoreError::Format { path: path.to_path_buf(), found, known: tables::FORMAT });
        }
        let node = rows.row(tables::NODE)?;
        if rows.row(tables::RETIRED)? {
            return Err(StoreError::Retired { path: path.to_path_buf(), node });
        }
        let incarnation = rows.row::<Incarnation>(tables::INCARNATION)?.next().max(Incarnation(unix_ms));
        let (round, extent, shelf) = (rows.row(tables::ROUND)?, rows.extent()?, Shelf::open(&rows)?);
        Ok(Beginning { node, incarnation, round, extent, shelf })
    })
}

/// What is known of a file when it is opened.
struct Beginning {
    node: NodeId,
    incarnation: Incarnation,
    /// Which round of the journal goes on from what is in the file.
    round: u64,
    extent: Extent,
    shelf: Shelf,
}

impl Beginning {
    /// Opens the journal that belongs to the file.
    fn journal(&self, file: Box<dyn StorageBackend>, path: PathBuf) -> Result<(Journal, Vec<Persist>), StoreError> {
        Journal::open(file, path, self.node, self.round)
    }
}

/// Opens the file of an earlier run. One without content is refused: it had some, or is not ours.
fn reopen(path: &Path) -> Result<Engine, StoreError> {
    Engine::new(builder().open(path), "open", path)
}

/// Opens the journal of an earlier run.
fn reopen_journal(path: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    match file {
        Ok(file) => Ok(Box::new(Sheet(file))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(StoreError::corrupt(path, "missing")),
        Err(cause) => Err(StoreError::io("open", path, cause)),
    }
}

/// Creates the journal, then the file: under another name, and it gets its own once it is whole, because an engine's file
/// that is caught half-created by a crash cannot be told from a broken one. A journal without a file is none.
fn create(folder: &Folder, path: &Path, fresh: NodeId) -> Result<Engine, StoreError> {
    let (journal, draft) = (folder.file(JOURNAL), folder.file(DRAFT));
    Journal::create(&Sheet(create_file(&journal)?), &journal, fresh)?;
    folder.sync()?;
    let db = FileBackend::new(create_file(&draft)?).and_then(|backend| builder().create_with_backend(backend));
    let engine = Engine::new(db, "create", &draft)?;
    found(&engine, &draft, fresh)?;
    fs::rename(&draft, path).map_err(|cause| StoreError::io("create", path, cause))?;
    folder.sync()?;
    Ok(engine)
}

/// Creates an empty file, or empties the one that is there.
fn create_file(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(|cause| StoreError::io("create", path, cause))
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

/// The journal's name.
const JOURNAL: &str = "tenure.journal";

/// How the names of damaged files begin; a number follows.
const DAMAGED: &str = "tenure.redb.damaged-";
const JOURNAL_DAMAGED: &str = "tenure.journal.damaged-";

/// How much the engine may cache. The log is read once, at the start; after that only a few pages are touched again.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
