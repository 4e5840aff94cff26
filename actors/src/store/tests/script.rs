//! Random work for a store, the same for the same seed.

use bytes::Bytes;
use protocol::durable::{Ballot, Durable, Entry, Genesis, HardState, Payload, Persist};
use protocol::{ClusterId, ClusterTime, Epoch, Index, LogId, NodeId};

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

/// Writes batches that follow one another, keeping a naive model of what they amount to.
#[derive(Clone, Debug)]
pub(super) struct Script {
    dice: Dice,
    /// What a store must hold once it has committed all batches so far.
    pub(super) model: Durable,
    seq: u64,
}

impl Script {
    /// Continues from what a store holds.
    pub(super) fn new(seed: u64, model: Durable) -> Self {
        Self { dice: Dice::new(seed), model, seq: 0 }
    }

    /// One to four batches for one commit.
    pub(super) fn commit(&mut self) -> Vec<Persist> {
        (0..=self.dice.below(4)).map(|_| self.batch()).collect()
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
        if self.dice.one_in(60) {
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
        after.apply(&Persist { genesis: None, hard_state: None, ..batch.clone() });
        if !self.dice.one_in(5) {
            batch.append = (1..=1 + self.dice.below(4)).map(|n| self.entry(after.last_index().0 + n)).collect();
        }
        if self.dice.one_in(3) {
            batch.commit_hint = Some(Index(self.dice.below(after.last_index().0 + 1)));
        }
        self.model.apply(&batch);
        batch
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
        let fill = u8::try_from(self.dice.below(256)).expect("below 256");
        Entry {
            id: LogId { epoch: self.model.hard_state.epoch, index: Index(index) },
            time: ClusterTime(index * 10),
            payload: Payload::Commands(Bytes::from(vec![fill; usize::try_from(len).expect("a small number")])),
        }
    }
}
