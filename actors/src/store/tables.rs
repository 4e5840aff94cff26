//! What the file of a [`super::DiskStore`] holds: `meta`, a row per thing that is overwritten; `log`, a row per entry under
//! its index, then one that says how far the log reaches; and the images, see [`super::shelf`].
//!
//! That row of the log stands behind the entries, because a commit rewrites the page of the newest entry in any case: so an
//! append touches one leaf of one table, which is a twentieth of its time.
//!
//! # Invariants
//!
//! * Every row of `meta` exists from the file's first commit on, so a missing one is corruption.
//! * The extent of the log is written with every change of it, so entries that vanished from its end are corruption too.
//! * Entries up to the base do not count. The base moves at once, whatever it passes; what it passed is removed in
//!   portions by the commits that follow, so that none of them takes long.

use std::path::Path;

use protocol::durable::{ConfState, Durable, Entry, GENESIS, Genesis, Payload, Persist, SnapMeta};
use protocol::{Index, LogId};
use redb::{
    Database, Durability, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

use super::StoreError;
use super::record::{self, Rows};
use super::shelf::{Kept, SNAPSHOT};

/// How far the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    /// The entry before the first one held.
    pub(super) base: LogId,
    /// The last one held, or the base.
    pub(super) last: Index,
    /// The last one known to be committed; may be behind.
    pub(super) commit_hint: Index,
}

/// Reads one state of the file.
pub(super) struct Reader<'a> {
    pub(super) txn: ReadTransaction,
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
        let row = self.meta.get(name).map_err(|error| self.engine(error))?;
        let row = row.ok_or_else(|| self.corrupt(format!("row {name} is missing")))?;
        record::read::<&str, _>(&name, row.value()).map_err(|what| self.corrupt(format!("row {name}: {what}")))
    }

    /// Reads the extent of the log.
    pub(super) fn extent(&self) -> Result<Extent, StoreError> {
        let log = self.txn.open_table(LOG).map_err(|error| self.engine(error))?;
        let row = log.get(END).map_err(|error| self.engine(error))?;
        let row = row.ok_or_else(|| self.corrupt("the end of the log is missing"))?;
        record::read::<u64, _>(&END, row.value()).map_err(|what| self.corrupt(format!("the end of the log: {what}")))
    }

    /// Reads the log, which must reach as far as its extent says, without a gap.
    pub(super) fn log(&self, extent: Extent) -> Result<Vec<Entry>, StoreError> {
        let log = self.txn.open_table(LOG).map_err(|error| self.engine(error))?;
        let mut entries = Vec::new();
        let mut last = extent.base.index;
        for row in log.range(last.next().0..END).map_err(|error| self.engine(error))? {
            let (key, row) = row.map_err(|error| self.engine(error))?;
            let entry = follower(last, key.value(), row.value())
                .map_err(|what| self.corrupt(format!("entry {} of {}: {what}", key.value(), extent.last)))?;
            last = entry.id.index;
            entries.push(entry);
        }
        if last != extent.last {
            return Err(self.corrupt(format!("the log ends at {last}, not at {}", extent.last)));
        }
        Ok(entries)
    }

    /// The newest configuration that can be read: of the log, of the snapshot or of the genesis. Rows that cannot are passed over.
    pub(super) fn last_readable_conf(&self) -> Result<Option<ConfState>, StoreError> {
        let log = self.txn.open_table(LOG).map_err(|error| self.engine(error))?;
        let rows = log.range(0..END).map_err(|error| self.engine(error))?.rev().map_while(Result::ok);
        let entries = rows.filter_map(|(key, row)| record::read::<u64, Entry>(&key.value(), row.value()).ok());
        let changed = entries.filter_map(|entry| match entry.payload {
            Payload::Config(conf) => Some((entry.id.index, conf)),
            Payload::Noop | Payload::Commands(_) => None,
        });
        let kept = self.row::<Option<Kept>>(SNAPSHOT).ok().flatten();
        let kept = kept.map(|kept| (kept.meta.last.index, kept.meta.conf));
        let genesis = self.row::<Option<Genesis>>(GENESIS_ROW).ok().flatten();
        let begun =
            genesis.map(|genesis| (GENESIS.index, ConfState { voters: genesis.voters, ..ConfState::default() }));
        let all = changed.take(1).chain(kept).chain(begun).filter(|(_, conf)| !conf.voters.is_empty());
        Ok(all.max_by_key(|(index, _)| *index).map(|(_, conf)| conf))
    }

    /// Names the file in an error of the engine.
    pub(super) fn engine(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError::engine("read", self.path, error)
    }

    /// Names the file in what is wrong with it.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> StoreError {
        StoreError::corrupt(self.path, what)
    }
}

/// Changes the file, within one transaction.
pub(super) struct Writer<'a> {
    pub(super) txn: &'a WriteTransaction,
    path: &'a Path,
}

impl Writer<'_> {
    /// Writes every row for the first time, as `blank` has them.
    pub(super) fn found(&self, blank: &Durable) -> Result<(), StoreError> {
        self.put(FORMAT_ROW, &FORMAT)?;
        self.put(NODE, &blank.node)?;
        self.put(RETIRED, &false)?;
        self.put(INCARNATION, &blank.incarnation)?;
        self.put(PROMISED, &blank.promised)?;
        self.put(GENESIS_ROW, &blank.genesis)?;
        self.put(HARD_STATE, &blank.hard_state)?;
        self.put(ROUND, &FIRST_ROUND)?;
        self.found_shelf()?;
        self.end(&mut self.log()?, Extent::default())
    }

    /// Removes the whole log and marks the identity as one that never votes again.
    pub(super) fn retire(&self, extent: Extent) -> Result<(), StoreError> {
        let mut log = self.log()?;
        self.truncate(&mut log, Index(0))?;
        self.end(&mut log, Extent { last: extent.base.index, ..extent })?;
        self.put(RETIRED, &true)
    }

    /// Writes a row of `meta`.
    pub(super) fn put<T: Serialize>(&self, name: &'static str, value: &T) -> Result<(), StoreError> {
        let body = record::encode(value)?;
        let mut meta = self.txn.open_table(META).map_err(|error| self.engine(error))?;
        record::put(&mut meta, name, &body).map_err(|error| self.engine(error))
    }

    /// Writes a row of `meta` if there is something new to say.
    pub(super) fn put_some<T: Serialize>(&self, name: &'static str, value: Option<&T>) -> Result<(), StoreError> {
        value.map_or(Ok(()), |value| self.put(name, value))
    }

    /// Applies the changes of the log in all batches. Returns the new extent.
    pub(super) fn change_log<'b>(
        &self,
        batches: impl Iterator<Item = &'b Persist>,
        before: Extent,
    ) -> Result<Extent, StoreError> {
        let mut log = self.log()?;
        let mut extent = before;
        for batch in batches {
            extent = self.change_log_once(&mut log, batch, extent)?;
        }
        if extent != before {
            self.end(&mut log, extent)?;
        }
        Ok(extent)
    }

    /// Removes a portion of what the base has passed, larger than what was `appended`. Returns whether nothing is left.
    pub(super) fn sweep_log(&self, base: LogId, appended: usize) -> Result<bool, StoreError> {
        self.sweep(&mut self.log()?, 0..=base.index.0, SWEEP_ROWS + 2 * appended)
    }

    fn change_log_once(&self, log: &mut Rows<'_, u64>, batch: &Persist, before: Extent) -> Result<Extent, StoreError> {
        let mut extent = before;
        if batch.genesis.is_some() {
            self.truncate(log, Index(0))?;
            extent = Extent { base: GENESIS, last: GENESIS.index, ..extent };
        }
        if let Some(from) = batch.truncate_from.filter(|from| *from <= extent.last) {
            self.truncate(log, from)?;
            extent.last = extent.base.index.max(Index(from.0.saturating_sub(1)));
        }
        if let Some(meta) = &batch.install {
            extent = self.install(log, meta, extent)?;
        }
        if let Some(base) = batch.compact_to.filter(|base| *base > extent.base) {
            extent = Extent { base, last: extent.last.max(base.index), ..extent };
        }
        for entry in &batch.append {
            assert_eq!(entry.id.index, extent.last.next(), "the log has no gaps");
            let body = record::encode(entry)?;
            record::put(log, entry.id.index.0, &body).map_err(|error| self.engine(error))?;
            extent.last = entry.id.index;
        }
        extent.commit_hint = batch.commit_hint.unwrap_or(extent.commit_hint);
        Ok(extent)
    }

    /// Lets a snapshot stand for the log up to its last entry. What follows that entry stays if the log holds it.
    fn install(&self, log: &mut Rows<'_, u64>, meta: &SnapMeta, before: Extent) -> Result<Extent, StoreError> {
        let base = meta.last;
        if self.holds(log, base, before)? {
            return Ok(Extent { base, ..before });
        }
        self.truncate(log, base.index.next())?;
        Ok(Extent { base, last: base.index, ..before })
    }

    /// Whether the log holds this very entry.
    fn holds(&self, log: &Rows<'_, u64>, id: LogId, extent: Extent) -> Result<bool, StoreError> {
        let index = id.index;
        if index <= extent.base.index || index > extent.last {
            return Ok(false);
        }
        let row = log.get(index.0).map_err(|error| self.engine(error))?;
        let bad = |what: String| StoreError::corrupt(self.path, format!("entry {index}: {what}"));
        let row = row.ok_or_else(|| bad(String::from("missing")))?;
        let entry: Entry = record::read::<u64, _>(&index.0, row.value()).map_err(bad)?;
        Ok(entry.id == id)
    }

    /// Removes at most about `limit` rows of a range, fewer if they are large. Returns whether none is left.
    pub(super) fn sweep<K: Key + 'static>(
        &self,
        rows: &mut Rows<'_, K>,
        range: RangeInclusive<K::SelfType<'static>>,
        limit: usize,
    ) -> Result<bool, StoreError>
    where
        K::SelfType<'static>: std::borrow::Borrow<K::SelfType<'static>>,
    {
        let mut bytes = 0;
        let extracted = rows.extract_from_if(range, |_, _| true).map_err(|error| self.engine(error))?;
        for (count, row) in extracted.enumerate() {
            let (_, row) = row.map_err(|error| self.engine(error))?;
            bytes += row.value().len();
            if count + 1 >= limit || bytes >= SWEEP_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes this entry and all that follow.
    fn truncate(&self, log: &mut Rows<'_, u64>, from: Index) -> Result<(), StoreError> {
        log.retain_in(from.0..END, |_, _| false).map_err(|error| self.engine(error))
    }

    /// Writes the row behind the entries.
    fn end(&self, log: &mut Rows<'_, u64>, extent: Extent) -> Result<(), StoreError> {
        let body = record::encode(&extent)?;
        record::put(log, END, &body).map_err(|error| self.engine(error))
    }

    fn log(&self) -> Result<Rows<'_, u64>, StoreError> {
        self.txn.open_table(LOG).map_err(|error| self.engine(error))
    }

    /// Names the file in an error of the engine.
    pub(super) fn engine(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError::engine("write", self.path, error)
    }
}

/// Makes what `run` writes durable, as a whole, with one fsync. `path` is for errors.
pub(super) fn transaction<T>(
    db: &Database,
    path: &Path,
    run: impl FnOnce(&Writer<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut txn = db.begin_write().map_err(|error| StoreError::engine("write", path, error))?;
    txn.set_durability(Durability::Immediate).map_err(|error| StoreError::engine("write", path, error))?;
    let result = run(&Writer { txn: &txn, path })?;
    txn.commit().map_err(|error| StoreError::engine("write", path, error))?;
    Ok(result)
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

/// The version of the tables, of the rows and commands in them, and of the journal beside them. Format 1 knew no images, format 2 no
/// journal, format 3 no effects of tasks, format 4 no rounds in the journal's records, format 5 no answers that were heard and no goodbyes that
/// say what had begun.
pub(super) const FORMAT: u32 = 6;

const META: TableDefinition<'_, &'static str, &'static [u8]> = TableDefinition::new("meta");
pub(super) const LOG: TableDefinition<'_, u64, &'static [u8]> = TableDefinition::new("log");

/// Where the extent stands in `log`: behind any entry there can be.
const END: u64 = u64::MAX;

/// How many entries that the base has passed one commit removes, beside twice as many as it appends.
const SWEEP_ROWS: usize = if cfg!(test) { 4 } else { 512 };

/// How many bytes of rows that nobody needs one commit removes.
const SWEEP_BYTES: usize = 2 * 1024 * 1024;

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
/// Which round of the journal goes on from here, a `u64`.
pub(super) const ROUND: &str = "round";

/// The first one; the journal of a new node is empty.
const FIRST_ROUND: u64 = 1;
