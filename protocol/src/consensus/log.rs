//! The log in memory: what stands where, and how much of it is on our own disk.
//!
//! # Invariants
//!
//! * Entries follow `base` without a gap; their epochs and times never decrease.
//! * The base only grows; whatever it stands for is in a snapshot.
//! * `durable` never passes the last entry, and a truncation takes it back: what is appended there later is durable only
//!   when its own batch is.

use crate::durable::Entry;
use crate::types::{ClusterTime, Epoch, Index, LogId};

/// The replicated log as this node holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// The entry before the first one held.
    base: LogId,
    /// Its time: zero for the genesis.
    base_time: ClusterTime,
    entries: Vec<Entry>,
    durable: Index,
}

impl Log {
    /// A log that was read from disk, so all of it is durable.
    pub(super) fn new(base: LogId, entries: Vec<Entry>) -> Self {
        let durable = entries.last().map_or(base.index, |entry| entry.id.index);
        Self { base, base_time: ClusterTime(0), entries, durable }
    }

    /// The same, of which the base's time is known: only that of a log without entries is ever asked for.
    pub(super) fn after(base: LogId, base_time: ClusterTime, entries: Vec<Entry>) -> Self {
        Self { base_time, ..Self::new(base, entries) }
    }

    /// Forgets the entries up to `base`, which is one of them.
    pub(super) fn compact(&mut self, base: LogId) {
        self.base_time = self.time_at(base.index).expect("an entry that is held becomes the base");
        self.entries.drain(..=self.place(base.index));
        self.base = base;
    }

    /// Begins anew after `base`: with what stands behind it, or with nothing. `durable` is what counts as durable until the
    /// batch that does the same on the disk has done it.
    pub(super) fn install(&mut self, base: LogId, base_time: ClusterTime, keeps_suffix: bool, durable: Index) {
        self.entries.retain(|entry| keeps_suffix && entry.id.index > base.index);
        (self.base, self.base_time, self.durable) = (base, base_time, durable);
    }

    /// Adds one entry at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.id.index, self.last().index.next(), "the log has no gaps");
        assert!(entry.id.epoch >= self.last().epoch, "epochs never decrease along the log");
        assert!(entry.time >= self.last_time(), "time never decreases along the log");
        self.entries.push(entry);
    }

    /// Removes the entry at `from` and all that follow.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "the base is never truncated");
        self.entries.truncate(self.place(from));
        self.durable = self.durable.min(Index(from.0 - 1));
    }

    /// Notes that everything up to `index` is on our disk.
    pub(super) fn note_durable(&mut self, index: Index) {
        self.durable = self.durable.max(index);
        assert!(self.durable <= self.last().index, "durable past the end of the log");
    }

    /// The entry before the first one held.
    pub(super) fn base(&self) -> LogId {
        self.base
    }

    /// How much is on our own disk.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// The end of the log.
    pub(super) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    /// The time of the last entry.
    pub(super) fn last_time(&self) -> ClusterTime {
        self.entries.last().map_or(self.base_time, |entry| entry.time)
    }

    /// When the entry at `index` was written, if we can know.
    pub(super) fn time_at(&self, index: Index) -> Option<ClusterTime> {
        if index == self.base.index {
            return Some(self.base_time);
        }
        (index > self.base.index).then(|| self.entries.get(self.place(index)))?.map(|entry| entry.time)
    }

    /// Who wrote the entry at `index`, if we can know.
    pub(super) fn epoch_at(&self, index: Index) -> Option<Epoch> {
        if index == self.base.index {
            return Some(self.base.epoch);
        }
        if index < self.base.index {
            return None;
        }
        self.entries.get(self.place(index)).map(|entry| entry.id.epoch)
    }

    /// The entry's full place, if we can know it.
    pub(super) fn id_at(&self, index: Index) -> Option<LogId> {
        self.epoch_at(index).map(|epoch| LogId { epoch, index })
    }

    /// The entries from `from` to `to`, both included, as far as they are held.
    pub(super) fn range(&self, from: Index, to: Index) -> &[Entry] {
        if self.entries.is_empty() {
            return &[];
        }
        let start = self.place(from.max(self.base.index.next())).min(self.entries.len());
        let end = if to <= self.base.index { 0 } else { self.place(to.min(self.last().index)) + 1 };
        &self.entries[start..end.max(start)]
    }

    /// The entries from `from` on.
    pub(super) fn from(&self, from: Index) -> &[Entry] {
        self.range(from, self.last().index)
    }

    /// The last place at or before `at` whose epoch is not above `epoch`: where two logs may still agree (R2, R6).
    pub(super) fn agreement(&self, at: Index, epoch: Epoch) -> LogId {
        let end = self.place(at.min(self.last().index).max(self.base.index).next());
        let held = self.entries[..end].partition_point(|entry| entry.id.epoch <= epoch);
        held.checked_sub(1).map_or(self.base, |place| self.entries[place].id)
    }

    /// Where the entry at `index` (after the base) stands in `entries`.
    fn place(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.base.index.0 - 1).expect("the log fits into memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Payload;

    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::new(LogId { epoch: Epoch(1), index: Index(1) }, Vec::new());
        for (place, epoch) in epochs.iter().enumerate() {
            let id = LogId { epoch: Epoch(*epoch), index: Index(place as u64 + 2) };
            log.push(Entry { id, time: ClusterTime(0), payload: Payload::Noop });
        }
        log
    }

    #[test]
    fn agreement_is_sought_at_or_below_an_epoch() {
        let log = log(&[2, 2, 4, 4, 7]);
        assert_eq!(log.agreement(Index(9), Epoch(9)).index, Index(6));
        assert_eq!(log.agreement(Index(5), Epoch(3)).index, Index(3));
        assert_eq!(log.agreement(Index(4), Epoch(4)).index, Index(4));
        assert_eq!(log.agreement(Index(4), Epoch(1)).index, Index(1));
        assert_eq!(log.agreement(Index(0), Epoch(0)).index, Index(1));
    }

    #[test]
    fn a_truncation_takes_back_what_is_durable() {
        let mut log = log(&[2, 2, 2]);
        log.note_durable(Index(4));
        log.truncate(Index(3));
        assert_eq!((log.durable(), log.last().index), (Index(2), Index(2)));
    }

    #[test]
    fn ranges_are_clipped_to_what_is_held() {
        let log = log(&[2, 2, 2]);
        assert_eq!(log.range(Index(0), Index(9)).len(), 3);
        assert_eq!(log.range(Index(3), Index(3))[0].id.index, Index(3));
        assert!(log.range(Index(3), Index(1)).is_empty());
        assert!(log.range(Index(7), Index(9)).is_empty());
    }
}
