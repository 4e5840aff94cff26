//! What the file of a [`super::RedbStore`] holds: `meta`, a row per thing that is overwritten, and `log`, a row per
//! entry under its index.
//!
//! # Invariants
//!
//! * Every row of `meta` exists from the file's first commit on, so a missing one is corruption.
//! * The extent of the log is written with every change of it, so entries that vanished from its end are corruption too.

use std::path::Path;

use protocol::durable::{Durable, Entry, GENESIS, Persist};
use protocol::{Index, LogId};
use redb::{Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::record::{self, Rows};

/// How far the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    /// The entry before the first one held.
    pub(super) base: LogId,
    /// The last one held, or the base.
    pub(super) last: Index,
}

/// Reads one state of the file.
pub(super) struct Reader<'a> {
    txn: ReadTransaction,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    /// Opens the state that the last commit left. `path` is for errors.
    pub(super) fn new(db: &Database, path: &'a Path) -> Result<Self, StoreError> {
        let txn = db.begin_read().map_err(|error| StoreError::engine("read", path, error))?;
        let meta = txn.open_table(META).map_err(|error| StoreError::engine("read", path, error))?;
        Ok(Self { txn, meta, path })
    }

    /// Reads a row of `meta`, which must be there.
    pub(super) fn row<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, StoreError> {
        let row = self.meta.get(name).map_err(|error| StoreError::engine("read", self.path, error))?;
        let row = row.ok_or_else(|| StoreError::corrupt(self.path, format!("row {name} is missing")))?;
        record::read::<&str, _>(&name, row.value())
            .map_err(|what| StoreError::corrupt(self.path, format!("row {name}: {what}")))
    }

    /// Reads the log, which must reach as far as `extent` says, without a gap.
    pub(super) fn log(&self, extent: Extent) -> Result<Vec<Entry>, StoreError> {
        let log = self.txn.open_table(LOG).map_err(|error| StoreError::engine("read", self.path, error))?;
        let mut entries = Vec::new();
        let mut last = extent.base.index;
        for row in log.iter().map_err(|error| StoreError::engine("read", self.path, error))? {
            let (key, row) = row.map_err(|error| StoreError::engine("read", self.path, error))?;
            let entry = follower(last, key.value(), row.value()).map_err(|what| {
                StoreError::corrupt(self.path, format!("entry {} of {}: {what}", key.value(), extent.last))
            })?;
            last = entry.id.index;
            entries.push(entry);
        }
        if last != extent.last {
            return Err(StoreError::corrupt(self.path, format!("the log ends at {last}, not at {}", extent.last)));
        }
        Ok(entries)
    }
}

/// Changes the file, within one transaction.
pub(super) struct Writer<'a, 'txn> {
    meta: Rows<'txn, &'static str>,
    log: Rows<'txn, u64>,
    path: &'a Path,
}

impl Writer<'_, '_> {
    /// Writes every row for the first time, as `blank` has them.
    pub(super) fn found(&mut self, blank: &Durable) -> Result<(), StoreError> {
        self.put(FORMAT_ROW, &FORMAT)?;
        self.put(NODE, &blank.node)?;
        self.put(RETIRED, &false)?;
        self.put(INCARNATION, &blank.incarnation)?;
        self.put(PROMISED, &blank.promised)?;
        self.put(GENESIS_ROW, &blank.genesis)?;
        self.put(HARD_STATE, &blank.hard_state)?;
        self.put(COMMIT_HINT, &blank.commit_hint)?;
        self.put(EXTENT, &Extent { base: blank.base, last: blank.base.index })
    }

    /// Writes a row of `meta`.
    pub(super) fn put<T: Serialize>(&mut self, name: &'static str, value: &T) -> Result<(), StoreError> {
        let body = record::encode(value)?;
        record::put(&mut self.meta, name, &body).map_err(|error| StoreError::engine("write", self.path, error))
    }

    /// Writes a row of `meta` if there is something new to say.
    pub(super) fn put_some<T: Serialize>(&mut self, name: &'static str, value: Option<&T>) -> Result<(), StoreError> {
        value.map_or(Ok(()), |value| self.put(name, value))
    }

    /// Applies the batch's changes of the log; returns its new extent.
    pub(super) fn change_log(&mut self, batch: &Persist, mut extent: Extent) -> Result<Extent, StoreError> {
        if batch.genesis.is_some() {
            self.truncate(Index(0))?;
            extent = Extent { base: GENESIS, last: GENESIS.index };
        }
        if let Some(from) = batch.truncate_from.filter(|from| *from <= extent.last) {
            self.truncate(from)?;
            extent.last = extent.base.index.max(Index(from.0.saturating_sub(1)));
        }
        for entry in &batch.append {
            assert_eq!(entry.id.index, extent.last.next(), "the log has no gaps");
            let body = record::encode(entry)?;
            record::put(&mut self.log, entry.id.index.0, &body)
                .map_err(|error| StoreError::engine("write", self.path, error))?;
            extent.last = entry.id.index;
        }
        Ok(extent)
    }

    /// Removes this entry and all that follow.
    pub(super) fn truncate(&mut self, from: Index) -> Result<(), StoreError> {
        self.log.retain_in(from.0.., |_, _| false).map_err(|error| StoreError::engine("write", self.path, error))
    }
}

/// Makes what `run` writes durable, as a whole, with one fsync. `path` is for errors.
pub(super) fn transaction(
    db: &Database,
    path: &Path,
    run: impl FnOnce(&mut Writer<'_, '_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut txn = db.begin_write().map_err(|error| StoreError::engine("write", path, error))?;
    txn.set_durability(Durability::Immediate).map_err(|error| StoreError::engine("write", path, error))?;
    {
        let meta = txn.open_table(META).map_err(|error| StoreError::engine("write", path, error))?;
        let log = txn.open_table(LOG).map_err(|error| StoreError::engine("write", path, error))?;
        run(&mut Writer { meta, log, path })?;
    }
    txn.commit().map_err(|error| StoreError::engine("write", path, error))
}

/// Reads the entry of a row, which must follow `last`.
fn follower(last: Index, index: u64, row: &[u8]) -> Result<Entry, String> {
    if Index(index) != last.next() {
        return Err(format!("it follows entry {last}"));
    }
    let entry: Entry = record::read::<u64, _>(&index, row)?;
    if entry.id.index != Index(index) {
        return Err(format!("it calls itself {}", entry.id));
    }
    Ok(entry)
}

/// The version of the tables and rows below.
pub(super) const FORMAT: u32 = 1;

const META: TableDefinition<'_, &'static str, &'static [u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &'static [u8]> = TableDefinition::new("log");

/// The rows of `meta`: the version, a `u32`.
pub(super) const FORMAT_ROW: &str = "format";
/// Who we are.
pub(super) const NODE: &str = "node";
/// Whether the identity has given up its log.
pub(super) const RETIRED: &str = "retired";
/// The last run.
pub(super) const INCARNATION: &str = "incarnation";
/// The founding promise.
pub(super) const PROMISED: &str = "promised";
/// The genesis accepted, if any.
pub(super) const GENESIS_ROW: &str = "genesis";
/// Epoch and vote.
pub(super) const HARD_STATE: &str = "hard_state";
/// What was known to be committed.
pub(super) const COMMIT_HINT: &str = "commit_hint";
/// How far the log reaches.
pub(super) const EXTENT: &str = "extent";
