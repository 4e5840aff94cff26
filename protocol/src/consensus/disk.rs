//! What we asked the disk to remember, and what it has answered.
//!
//! # Invariants
//!
//! * One counter numbers all batches of a node, the founding promises included.
//! * A completion counts by its number and never by an index: an entry that was truncated and written anew is durable only
//!   with its own batch.

use std::time::Duration;

use crate::durable::{Entry, HardState, Payload, Persist};
use crate::types::{Epoch, Index, Nanos, NodeId};

use super::{Consensus, Effect, Role, broken};

/// A batch that is not durable yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    /// Its number.
    seq: u64,
    /// When it was written.
    at: Nanos,
    /// The log is durable up to here once it is; zero if it holds no entries.
    pub(super) last: Index,
}

impl Consensus {
    /// Makes something durable that is not consensus, under the same counter; answers with the batch's number.
    pub fn persist(&mut self, now: Nanos, effects: &mut Vec<Effect>, fill: impl FnOnce(&mut Persist)) -> u64 {
        self.begin(now);
        fill(self.batch(effects));
        self.finish(effects);
        self.seq
    }

    /// The batch of this step: one, whatever is put into it.
    pub(super) fn batch<'a>(&mut self, effects: &'a mut Vec<Effect>) -> &'a mut Persist {
        let place = self.open.unwrap_or_else(|| {
            self.seq += 1;
            self.pending.push_back(Pending { seq: self.seq, at: self.now, last: Index(0) });
            effects.push(Effect::Persist(Persist { seq: self.seq, ..Persist::default() }));
            effects.len() - 1
        });
        self.open = Some(place);
        match &mut effects[place] {
            Effect::Persist(batch) => batch,
            other => unreachable!("the open batch stays where it was put, found {other:?}"),
        }
    }

    /// Changes epoch and vote.
    pub(super) fn set_hard(&mut self, epoch: Epoch, vote: Option<NodeId>, effects: &mut Vec<Effect>) {
        let old = self.hard;
        self.hard = HardState { epoch, vote };
        let grows = epoch > old.epoch || (epoch == old.epoch && old.vote.is_none());
        assert!(grows || self.has_bug_with_votes(), "a vote is set at most once per epoch: {old:?} to {:?}", self.hard);
        self.batch(effects).hard_state = Some(self.hard);
        self.hard_seq = self.seq;
    }

    /// Adds one entry to the log, in memory and in the batch.
    pub(super) fn append_entry(&mut self, entry: Entry, effects: &mut Vec<Effect>) {
        assert!(entry.id.epoch <= self.hard.epoch, "an entry of an epoch that has not begun");
        if let Payload::Config(conf) = &entry.payload {
            self.confs.push((entry.id.index, conf.clone()));
        }
        let is_change = matches!(entry.payload, Payload::Config(_));
        self.batch(effects).append.push(entry.clone());
        self.pending.back_mut().expect("the batch was just opened").last = entry.id.index;
        self.log.push(entry);
        if is_change && self.role == Role::Leader {
            self.adjust_peers();
        }
    }

    /// Removes the entry at `from` and all that follow.
    pub(super) fn truncate(&mut self, from: Index, effects: &mut Vec<Effect>) {
        assert!(from > self.commit.index, "a committed entry is never truncated");
        assert!(self.role != Role::Leader, "a leader never truncates its own log");
        self.log.truncate(from);
        self.confs.retain(|(index, _)| *index < from);
        if !broken!(self, CountsTruncated) {
            for batch in &mut self.pending {
                batch.last = batch.last.min(Index(from.0 - 1));
            }
        }
        self.batch(effects).truncate_from = Some(from);
    }

    /// All batches up to `seq` are durable.
    pub(super) fn on_persisted(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        let held = self.log.durable();
        while let Some(done) = self.pending.pop_front_if(|batch| batch.seq <= seq) {
            self.log.note_durable(done.last);
        }
        // Those who had all that we had begin to lack something now.
        self.peers.iter_mut().filter(|peer| peer.matched >= held).for_each(|peer| peer.took = self.now);
        self.durable_seq = self.durable_seq.max(seq.min(self.seq));
        self.note_installed(effects);
        match self.role {
            Role::Candidate => self.count_votes(effects),
            Role::Leader => self.advance_commit(effects),
            _ => {}
        }
    }

    /// The store failed: nothing may be promised or acknowledged again.
    pub(super) fn fail(&mut self, why: String, effects: &mut Vec<Effect>) {
        self.drop_reads(effects);
        self.role = Role::Halted;
        self.leader = None;
        effects.push(Effect::Fatal(why));
    }

    /// Forgets when batches were written.
    #[cfg(feature = "mutants")]
    pub(super) fn forget_batch_times(&mut self) {
        self.pending.iter_mut().for_each(|batch| batch.at = Nanos(1));
    }

    /// Counts batches from the last durable one; says which that was.
    #[cfg(feature = "mutants")]
    pub(super) fn forget_batch_numbers(&mut self) -> u64 {
        let durable = std::mem::take(&mut self.durable_seq);
        self.seq -= durable;
        self.hard_seq = self.hard_seq.saturating_sub(durable);
        self.pending.iter_mut().for_each(|batch| batch.seq -= durable);
        if let Some(install) = &mut self.installing {
            install.count_from(durable);
        }
        durable
    }

    /// The batch that must be durable before anyone may learn of our epoch or vote.
    pub(super) fn hard_pending(&self) -> Option<u64> {
        (self.hard_seq > self.durable_seq).then_some(self.hard_seq)
    }

    /// The batch that must be durable before the log up to `index` may be acknowledged (F19).
    pub(super) fn log_pending(&self, index: Index) -> Option<u64> {
        let log = if index <= self.log.durable() {
            None
        } else {
            self.pending.iter().find(|batch| batch.last >= index).map(|batch| batch.seq)
        };
        log.max(self.hard_pending())
    }

    /// For how long the oldest batch has waited.
    pub(super) fn pending_for(&self) -> Duration {
        self.pending.front().map_or(Duration::ZERO, |oldest| self.now.since(oldest.at))
    }

    /// When the oldest batch has waited for longer than an election timeout (E8).
    pub(super) fn stalls_at(&self) -> Nanos {
        self.pending.front().map_or(Nanos::NEVER, |oldest| oldest.at + self.profile.election_timeout)
    }
}
