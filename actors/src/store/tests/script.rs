//! Random work for a store, the same for the same seed.

use bytes::Bytes;
use protocol::durable::{Ballot, ConfState, Durable, Entry, Genesis, HardState, Payload, Persist, SnapMeta};
use protocol::{ClusterId, ClusterTime, Epoch, Index, LogId, NodeId};

use super::super::Change;

/// A small generator of pseudo-random numbers (splitmix64), so that a seed means the same for ever.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Writes changes that follow one another, keeping a naive model of what they amount to.
#[derive(Clone, Debug)]
pub(super) struct Script {
    dice: Dice,
    /// What a store must hold once it has committed all changes so far.
    pub(super) model: Durable,
    /// The image of our own that is not whole yet.
    draft: Vec<Bytes>,
    is_saving: bool,
    seq: u64,
}

impl Script {
    /// Continues from what a store holds at its start.
    pub(super) fn new(seed: u64, model: Durable) -> Self {
        Self { dice: Dice::new(seed), model, draft: Vec::new(), is_saving: true, seq: 0 }
    }

    /// The store was opened again: images that were not whole are gone, and the snapshot before ours.
    pub(super) fn forget(&mut self) {
        self.draft.clear();
        self.model.staged = None;
        self.model.former = None;
    }

    /// The same without images of our own, whose chunks a store's thread makes itself.
    pub(super) fn without_saves(seed: u64, model: Durable) -> Self {
        Self { is_saving: false, ..Self::new(seed, model) }
    }

    /// One to four changes for one commit.
    pub(super) fn commit(&mut self) -> Vec<Change> {
        (0..=self.dice.below(4)).map(|_| self.change()).collect()
    }

    /// The next change; the model has applied it.
    pub(super) fn change(&mut self) -> Change {
        match self.dice.below(8) {
            0 if self.is_saving && self.model.last_index() > Index(0) => self.save(),
            1 => self.stage(),
            2 if self.model.former.is_some() => self.forget_former(),
            _ => Change::Batch(self.batch()),
        }
    }

    /// The next batch; the model has applied it.
    pub(super) fn batch(&mut self) -> Persist {
        self.seq += 1;
        let mut batch = Persist { seq: self.seq, ..Persist::default() };
        let epoch = self.model.hard_state.epoch;
        if self.dice.one_in(20) {
            batch.promised =
                Some(Ballot { round: self.model.promised.round + 1, node: NodeId(1 + self.dice.below(5)) });
        }
        if self.dice.one_in(60) && self.model.snapshot.is_none() && self.model.staged.is_none() {
            batch.genesis = Some(self.genesis());
        } else if self.dice.one_in(4) {
            let vote = self.dice.one_in(2).then(|| NodeId(1 + self.dice.below(5)));
            batch.hard_state = Some(HardState { epoch: Epoch(epoch.0 + self.dice.below(2)), vote });
        }
        let mut after = self.model.clone();
        after.apply(&batch);
        if self.dice.one_in(6) {
            let back = self.dice.below(8);
            batch.truncate_from = Some(Index((after.last_index().0 + 2).saturating_sub(back)));
        }
        if let Some((last, _)) = &after.staged
            && *last > after.base
            && self.dice.one_in(3)
        {
            batch.install = Some(Box::new(meta(*last)));
        }
        after.apply(&Persist { genesis: None, hard_state: None, ..batch.clone() });
        if let Some(snapshot) = &after.snapshot
            && self.dice.one_in(5)
        {
            let covered = after.entries.iter().filter(|entry| entry.id <= snapshot.meta.last).map(|entry| entry.id);
            batch.compact_to = choose(&mut self.dice, covered);
        }
        after.apply(&Persist { compact_to: batch.compact_to, ..Persist::default() });
        if !self.dice.one_in(5) {
            batch.append = (1..=1 + self.dice.below(4)).map(|n| self.entry(after.last_index().0 + n)).collect();
        }
        if self.dice.one_in(3) {
            batch.commit_hint = Some(Index(self.dice.below(after.last_index().0 + 1)));
        }
        self.model.apply(&batch);
        if batch.install.is_some() {
            self.draft.clear();
        }
        batch
    }

    /// The next chunk of an image of our own.
    fn save(&mut self) -> Change {
        if self.dice.one_in(10) {
            self.draft.clear();
        }
        let (place, chunk) = (place(&self.draft), self.chunk());
        self.draft.push(chunk.clone());
        let last = choose(&mut self.dice, self.model.entries.iter().map(|entry| entry.id)).unwrap_or(self.model.base);
        let whole = self.dice.one_in(3).then(|| meta(last));
        if let Some(meta) = &whole {
            let chunks = std::mem::take(&mut self.draft);
            self.model.keep(meta.clone(), || chunks);
        }
        Change::Save { place, chunk, whole }
    }

    /// Nobody reads the snapshot before ours, or one that there is no more.
    fn forget_former(&mut self) -> Change {
        let former = self.model.former.as_ref().map_or(self.model.base, |former| former.meta.last);
        let last = if self.dice.one_in(3) { self.model.base } else { former };
        self.model.forget(last);
        Change::Forget { last }
    }

    /// The next chunk of an image of another node, of a place that our log may or may not hold.
    fn stage(&mut self) -> Change {
        let ahead = Index(self.model.base.index.0 + 1 + self.dice.below(12));
        let ahead = LogId { epoch: self.model.hard_state.epoch, index: ahead };
        let (last, mut chunks) =
            self.model.staged.take().filter(|_| !self.dice.one_in(6)).unwrap_or((ahead, Vec::new()));
        let (place, chunk) = (place(&chunks), self.chunk());
        chunks.push(chunk.clone());
        self.model.staged = Some((last, chunks));
        Change::Stage { last, place, chunk }
    }

    fn chunk(&mut self) -> Bytes {
        let len = if self.dice.one_in(20) { 50_000 } else { self.dice.below(3000) };
        self.bytes(len)
    }

    fn genesis(&mut self) -> Genesis {
        Genesis {
            cluster: ClusterId(u128::from(self.dice.roll())),
            ballot: self.model.promised,
            voters: (1..=3).map(NodeId).collect(),
            target: 3,
        }
    }

    /// Mostly small, sometimes larger than a page, rarely larger than many.
    fn entry(&mut self, index: u64) -> Entry {
        let len = match self.dice.below(40) {
            0 => 60_000,
            1..=4 => 5_000,
            _ => self.dice.below(300),
        };
        Entry {
            id: LogId { epoch: self.model.hard_state.epoch, index: Index(index) },
            time: ClusterTime(index * 10),
            payload: Payload::Commands(self.bytes(len)),
        }
    }

    fn bytes(&mut self, len: u64) -> Bytes {
        let fill = u8::try_from(self.dice.below(256)).expect("below 256");
        Bytes::from(vec![fill; usize::try_from(len).expect("a small number")])
    }
}

/// Whether a store that was opened again holds what is expected. The incarnation has grown, and what was staged may be
/// forgotten, and so may the snapshot before ours.
pub(super) fn same(found: &Durable, expected: &Durable) -> bool {
    let Durable { incarnation, staged, former, .. } = found.clone();
    *found == Durable { incarnation, staged, former, ..expected.clone() }
}

/// A snapshot that ends with this entry.
pub(super) fn meta(last: LogId) -> SnapMeta {
    SnapMeta { last, time: ClusterTime(last.index.0 * 10), conf: ConfState::default() }
}

/// The place of the chunk behind these.
fn place(chunks: &[Bytes]) -> u32 {
    u32::try_from(chunks.len()).expect("a small number")
}

fn choose<T>(dice: &mut Dice, from: impl Iterator<Item = T> + Clone) -> Option<T> {
    let count = from.clone().count() as u64;
    from.into_iter().nth(usize::try_from(dice.below(count.max(1))).expect("a small number"))
}
