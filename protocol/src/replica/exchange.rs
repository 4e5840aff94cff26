//! Images on their way: to our store, and from a leader to us. For those that we send see [`super::serving`].
//!
//! A receiver asks for chunks, a few at a time, and gives each to its store and to a restoration; when the last one is
//! staged it has the whole state in its hands. Whatever is lost is asked for again. While chunks come it stays with the
//! image that it has begun, however many newer ones are named meanwhile: it would never have one otherwise.
//!
//! # Invariants
//!
//! * One image is received at a time, from one source; chunks of two are mixed never (F23).
//! * At most [`WANTED_MAX`] chunks are asked for and not staged.
//! * No snapshot of our own is begun while one is received, and none is installed while our own is written.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::durable::SnapMeta;
use crate::effects::Effects;
use crate::image::{Message, WANTED_MAX, Work};
use crate::state::{Restore, State};
use crate::types::{Index, LogId, Nanos, NodeId};

use super::{Compaction, Fetching};

/// Our own snapshot, and the image that we receive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Exchange {
    /// How long to wait for an answer.
    patience: Duration,
    fetch: Option<Fetch>,
    /// How many fetches there were.
    turns: u64,
    /// Received, whole and readable: waits for its install.
    ready: Option<(SnapMeta, Box<State>)>,
    /// On its way to be the state: consensus has it in a batch.
    installing: Option<(SnapMeta, Box<State>)>,
    /// The snapshot of our own that the store is writing.
    saving: Option<SnapMeta>,
    /// Entries and bytes applied since our last snapshot.
    since: (u64, u64),
}

/// An image that is being received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fetch {
    from: NodeId,
    meta: SnapMeta,
    /// A newer snapshot that the same source has named since.
    newer: Option<SnapMeta>,
    /// Which fetch of ours this is: tells its chunks in the store from those of the one before.
    turn: u64,
    /// How many chunks there are, once the first one has said so.
    count: Option<u32>,
    /// Chunks up to here were asked for.
    asked: u32,
    /// Chunks up to here were given to the store.
    taken: u32,
    /// Chunks up to here are staged.
    staged: u32,
    /// Chunks that came before their turn.
    early: BTreeMap<u32, Bytes>,
    restore: Restore,
    /// When to ask again for what has not come.
    ask_at: Nanos,
    /// How often nothing came.
    silences: u32,
}

impl Exchange {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, fetch: None, turns: 0, ready: None, installing: None, saving: None, since: (0, 0) }
    }

    // ---- our own snapshot ----

    /// Counts an entry that was applied.
    pub(super) fn note_applied(&mut self, bytes: usize) {
        self.since.0 += 1;
        self.since.1 += bytes as u64;
    }

    /// Says whether a snapshot should be written now.
    pub(super) fn should_save(&self, compaction: Compaction) -> bool {
        let is_due = self.since.0 >= compaction.entries || self.since.1 >= compaction.bytes;
        is_due && self.saving.is_none() && self.fetch.is_none() && self.ready.is_none()
    }

    /// Consensus has put what is ready into a batch: it becomes the state when that is durable.
    pub(super) fn installing(&mut self) {
        self.installing = self.ready.take();
    }

    /// Hands a frozen state to the store.
    pub(super) fn save(&mut self, meta: SnapMeta, state: &State, effects: &mut Effects) {
        self.since = (0, 0);
        self.saving = Some(meta.clone());
        effects.images.push(Work::Save { meta, state: Box::new(state.clone()) });
    }

    /// The store has written our snapshot.
    pub(super) fn saved(&mut self, last: LogId) -> Option<SnapMeta> {
        self.saving.take_if(|meta| meta.last == last)
    }

    // ---- the receiving end ----

    /// A leader names a snapshot that we lack: asks for it, unless it has another one for us already or on its way.
    pub(super) fn named(&mut self, now: Nanos, from: NodeId, meta: SnapMeta, effects: &mut Effects) {
        if self.ready.is_some() || self.installing.is_some() {
            return; // It is named again if it is needed after that.
        }
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == from) {
            if meta.last.index <= fetch.meta.last.index {
                return;
            }
            if fetch.silences == 0 {
                fetch.newer = Some(meta);
                return;
            }
        }
        self.begin(now, from, meta, effects);
    }

    fn begin(&mut self, now: Nanos, from: NodeId, meta: SnapMeta, effects: &mut Effects) {
        self.turns += 1;
        self.fetch = Some(Fetch::new(from, meta, self.turns, now));
        self.ask(now, effects);
    }

    /// A chunk came. The words say what was wrong with it.
    pub(super) fn chunk(
        &mut self,
        now: Nanos,
        from: NodeId,
        message: Message,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == from) else { return Ok(()) };
        match message {
            Message::Gone { last } if last == fetch.meta.last => {
                if let Some(newer) = self.fetch.take().and_then(|fetch| fetch.newer) {
                    self.begin(now, from, newer, effects);
                }
            }
            Message::Chunk { last, place, count, crc, chunk } if last == fetch.meta.last => {
                let is_wanted = place >= fetch.taken && place < fetch.asked;
                let is_whole = crc32c::crc32c(&chunk) == crc && place < count;
                if !is_wanted || !is_whole || fetch.count.is_some_and(|known| known != count) {
                    return Ok(()); // It is asked for again if it is still wanted.
                }
                fetch.count = Some(count);
                fetch.early.insert(place, chunk);
                fetch.ask_at = now + self.patience;
                fetch.silences = 0;
                if let Err(why) = fetch.take(effects) {
                    self.fetch = None;
                    return Err(format!("the image of {last} from {from} is of no use: {why}"));
                }
                self.ask(now, effects);
            }
            _ => {}
        }
        Ok(())
    }

    /// A chunk is staged. That of an earlier fetch counts for nothing, though it may have the same name: the store has
    /// forgotten it, or will when it comes to the first chunk of this one.
    pub(super) fn staged(&mut self, now: Nanos, turn: u64, effects: &mut Effects) -> Result<(), String> {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.turn == turn) else { return Ok(()) };
        fetch.staged += 1;
        assert!(fetch.staged <= fetch.taken, "staged what was not taken");
        if fetch.count != Some(fetch.staged) {
            self.ask(now, effects);
            return Ok(());
        }
        let Fetch { meta, restore, from, .. } = self.fetch.take().expect("seen above");
        let unfit = |why| format!("the image of {} from {from} is of no use: {why}", meta.last);
        let state = restore.finish().map_err(unfit)?;
        self.ready = Some((meta, Box::new(state)));
        Ok(())
    }

    /// What may be installed now, if anything.
    pub(super) fn ready(&self) -> Option<&SnapMeta> {
        self.ready.as_ref().filter(|_| self.saving.is_none()).map(|(meta, _)| meta)
    }

    /// The state that was installed.
    pub(super) fn install(&mut self, meta: &SnapMeta) -> Option<State> {
        self.since = (0, 0);
        self.installing.take().filter(|(held, _)| held == meta).map(|(_, state)| *state)
    }

    /// Everything up to this entry is committed here: an image of no more is of no use.
    pub(super) fn forget_up_to(&mut self, commit: Index) {
        self.fetch.take_if(|fetch| fetch.meta.last.index <= commit);
        self.ready.take_if(|(meta, _)| meta.last.index <= commit);
    }

    /// A link came up: whatever was asked for over the one before is lost.
    pub(super) fn link_up(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == node) {
            fetch.asked = fetch.taken;
            self.ask(now, effects);
        }
    }

    /// Asks again for what has not come, and gives up a source that has been silent for long.
    pub(super) fn tick(&mut self, now: Nanos, effects: &mut Effects) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| now >= fetch.ask_at) else { return };
        if fetch.asked == fetch.taken {
            fetch.ask_at = now + self.patience;
            return; // Our own disk is slow: nothing was asked of the source.
        }
        fetch.silences += 1;
        if fetch.silences > SILENCES_MAX {
            self.fetch = None;
            return;
        }
        fetch.asked = fetch.taken;
        self.ask(now, effects);
    }

    /// What is being received, for those who watch.
    pub(super) fn fetching(&self) -> Option<Fetching> {
        let Fetch { from, meta, staged, count, .. } = self.fetch.as_ref()?;
        Some(Fetching { from: *from, last: meta.last.index.0, staged: *staged, count: count.unwrap_or(0) })
    }

    /// When [`Exchange::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Nanos {
        self.fetch.as_ref().map_or(Nanos::NEVER, |fetch| fetch.ask_at)
    }

    fn ask(&mut self, now: Nanos, effects: &mut Effects) {
        let Some(fetch) = &mut self.fetch else { return };
        let end = fetch.count.map_or(1, |count| count.min(fetch.staged + WANTED_MAX));
        for place in fetch.asked..end {
            if !fetch.early.contains_key(&place) {
                effects.send(fetch.from, Message::Want { last: fetch.meta.last, place });
            }
        }
        fetch.asked = fetch.asked.max(end);
        fetch.ask_at = now + self.patience;
    }
}

impl Fetch {
    fn new(from: NodeId, meta: SnapMeta, turn: u64, now: Nanos) -> Self {
        Self {
            from,
            meta,
            newer: None,
            turn,
            count: None,
            asked: 0,
            taken: 0,
            staged: 0,
            early: BTreeMap::new(),
            restore: Restore::default(),
            ask_at: now,
            silences: 0,
        }
    }

    /// Gives the chunks whose turn it is to the restoration and to the store.
    fn take(&mut self, effects: &mut Effects) -> Result<(), crate::state::ImageError> {
        while let Some(chunk) = self.early.remove(&self.taken) {
            self.restore.take(&chunk)?;
            effects.images.push(Work::Stage { last: self.meta.last, turn: self.turn, place: self.taken, chunk });
            self.taken += 1;
        }
        Ok(())
    }
}

/// How often a source may stay silent before its image is given up: it will be named again if it is still needed.
const SILENCES_MAX: u32 = 10;
