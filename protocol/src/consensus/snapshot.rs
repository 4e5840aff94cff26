//! Snapshots in the log: when the beginning of it is forgotten, how a follower that needs it gets a snapshot instead, and
//! what becomes of that follower's own log.
//!
//! The core handles names only: a snapshot is [`SnapMeta`]. The image behind it travels between replicas, chunk by chunk,
//! beside everything that is said here, and the core is told when it is staged.
//!
//! # Invariants
//!
//! * `base <= snapshot.last <= applied` (F16): nothing is forgotten that no durable snapshot stands for.
//! * An install is one batch with all that it does to the log (S3), and it is neither counted nor acknowledged before that
//!   batch is durable. Until then nothing is applied, and this node begins no election.
//! * A snapshot at or below the commit index changes nothing.

use std::time::Duration;

use crate::durable::{Payload, SnapMeta};
use crate::effects::Role;
use crate::types::{Index, LogId, Nanos, NodeId};

use super::follower::INDEX_MAX;
use super::progress::Pace;
use super::{Append, AppendReply, Consensus, Effect, Message, Snapshot, SnapshotReply, Verdict, broken};

/// An install that is not durable yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Installing {
    /// Its batch.
    seq: u64,
    meta: SnapMeta,
}

impl Installing {
    /// Counts batches from this one.
    #[cfg(feature = "mutants")]
    pub(super) fn count_from(&mut self, seq: u64) {
        self.seq -= seq;
    }
}

impl Consensus {
    /// What a snapshot of the state that is applied now stands for.
    #[must_use]
    pub fn snap_meta(&self) -> Option<SnapMeta> {
        let at = if broken!(self, NamesCommit) { self.commit.index } else { self.applied };
        let (last, time) = (self.log.id_at(at)?, self.log.time_at(at)?);
        let conf = self.confs.iter().rev().find(|(since, _)| *since <= at).map(|(_, conf)| conf.clone())?;
        Some(SnapMeta { last, time, conf })
    }

    /// The last entry of our durable snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<LogId> {
        self.snapshot.as_ref().map(|meta| meta.last)
    }

    /// Whether a snapshot is installed and not durable yet.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// A snapshot of our own is durable: forgets the entries that it stands for, but for the last `trailing` of them, which
    /// spare a follower that is a little behind a whole snapshot (S1).
    pub(super) fn on_saved(&mut self, meta: SnapMeta, trailing: u64, effects: &mut Vec<Effect>) {
        if self.snapshot().is_some_and(|held| held.index >= meta.last.index) || self.installing.is_some() {
            return;
        }
        assert!(meta.last.index <= self.applied, "a snapshot of what is not applied");
        let end = if broken!(self, CutsUnsaved) { self.applied } else { meta.last.index };
        let to = Index(end.0.saturating_sub(trailing));
        self.snapshot = Some(meta);
        if to <= self.log.base().index || self.role == Role::Halted {
            return;
        }
        let base = self.log.id_at(to).expect("what was applied and not forgotten is held");
        self.batch(effects).compact_to = Some(base);
        self.log.compact(base);
        // The newest configuration that begins at or before the base is the first one that matters.
        let old = self.confs.iter().rposition(|(since, _)| *since <= to).unwrap_or(0);
        self.confs.drain(..old);
    }

    /// What a follower lacks begins before our log: tells it of our snapshot (S2), once every election timeout (F23).
    pub(super) fn announce(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let Some(meta) = self.snapshot.clone() else { return };
        let peer = &mut self.peers[at];
        if let Pace::Snapshot { since, .. } = peer.pace
            && self.now < since + self.profile.election_timeout
        {
            return;
        }
        peer.begin_snapshot(meta.last.index, self.now);
        let (to, after) = (peer.node, self.hard_pending());
        let message = Message::Snapshot(Box::new(Snapshot { epoch: self.hard.epoch, meta, sent: self.now }));
        effects.push(Effect::Send { to, message, after });
    }

    /// A leader has no log for us and names its snapshot.
    pub(super) fn on_snapshot(&mut self, from: NodeId, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let Snapshot { epoch, meta, sent } = snapshot;
        if epoch < self.hard.epoch {
            let verdict = Verdict::Rejected { at: Index(0), hint: self.log.last() };
            let (epoch, promise, is_eager) = (self.hard.epoch, self.profile.promise, self.is_eager);
            let message = Message::AppendReply(AppendReply { epoch, verdict, sent, promise, is_eager });
            return effects.push(Effect::Send { to: from, message, after: self.hard_pending() });
        }
        if meta.last.epoch > epoch || !is_sound(&meta) {
            return;
        }
        if !self.hear(from, epoch, effects) {
            return;
        }
        if meta.last.index > self.commit.index {
            self.fetching = Some((from, epoch, sent));
            return effects.push(Effect::Fetch { from, meta });
        }
        if self.log.epoch_at(meta.last.index).is_some_and(|held| held != meta.last.epoch) {
            return self
                .fail(format!("{from} has a snapshot of {}, which was committed otherwise", meta.last), effects);
        }
        let known = self.commit.index.min(self.log.durable());
        self.answer_snapshot(from, known, sent, effects);
    }

    fn answer_snapshot(&self, to: NodeId, index: Index, sent: Nanos, effects: &mut Vec<Effect>) {
        let (epoch, promise): (_, Duration) = (self.hard.epoch, self.profile.promise);
        let message = Message::SnapshotReply(SnapshotReply { epoch, index, sent, promise });
        effects.push(Effect::Send { to, message, after: self.log_pending(index) });
    }

    /// The image of a snapshot is staged: installs it, unless what it stands for is committed here by now (S3).
    pub(super) fn on_staged(&mut self, meta: SnapMeta, effects: &mut Vec<Effect>) {
        let is_follower = matches!(self.role, Role::Follower | Role::PreCandidate);
        let is_news = meta.last.index > self.commit.index && meta.last.epoch <= self.hard.epoch;
        if !is_follower || !is_news || !is_sound(&meta) || self.installing.is_some() {
            return;
        }
        let mut keeps = self.log.id_at(meta.last.index) == Some(meta.last);
        if broken!(self, KeepsConflicts) {
            keeps |= self.log.last().index > meta.last.index;
        }
        keeps &= !broken!(self, DropsSuffix);
        self.role = Role::Follower;
        self.batch(effects).install = Some(Box::new(meta.clone()));
        // Nothing counts as durable beyond what is applied until this batch is, and then all of it does at once.
        let held = self.pending.iter().map(|batch| batch.last).fold(self.log.durable(), Index::max);
        let last = if keeps { held.max(meta.last.index) } else { meta.last.index };
        for batch in &mut self.pending {
            batch.last = batch.last.min(self.applied);
        }
        self.pending.back_mut().expect("the batch was just opened").last = last;
        self.log.install(meta.last, meta.time, keeps, self.applied);
        if !broken!(self, ForgetsConfs) {
            self.confs = vec![(meta.last.index, meta.conf.clone())];
            for entry in self.log.from(meta.last.index) {
                if let Payload::Config(conf) = &entry.payload {
                    self.confs.push((entry.id.index, conf.clone()));
                }
            }
        }
        self.commit = meta.last;
        let told =
            self.fetching.take().filter(|(from, epoch, _)| *epoch == self.hard.epoch && self.leader == Some(*from));
        if let Some((from, _, sent)) = told {
            self.answer_snapshot(from, meta.last.index, sent, effects);
        }
        self.installing = Some(Installing { seq: self.seq, meta });
    }

    /// An install is durable: the state is that of the snapshot from here on.
    pub(super) fn note_installed(&mut self, effects: &mut Vec<Effect>) {
        let Some(Installing { meta, .. }) = self.installing.take_if(|install| install.seq <= self.durable_seq) else {
            return;
        };
        self.applied = meta.last.index;
        self.snapshot = Some(meta.clone());
        effects.push(Effect::Installed { meta });
    }

    /// How far a follower is that we told of our snapshot.
    pub(super) fn on_snapshot_reply(&mut self, from: NodeId, reply: &SnapshotReply, effects: &mut Vec<Effect>) {
        let SnapshotReply { epoch, index, sent, promise } = *reply;
        let verdict = Verdict::Matched(index);
        self.on_append_reply(from, &AppendReply { epoch, verdict, sent, promise, is_eager: false }, effects);
    }

    /// What `append` asks for lies before our log: only the rest of it is looked at (R1). Says whether there is a rest.
    pub(super) fn skip_covered(&self, append: &mut Append) -> bool {
        let base = self.log.base().index;
        let end = append.prev.index.0 + append.entries.len() as u64;
        if append.prev.index >= base {
            return true;
        }
        if end <= base.0 {
            return false;
        }
        let covered = usize::try_from(base.0 - append.prev.index.0).expect("less than the entries sent");
        let rest = append.entries.split_off(covered);
        append.prev = append.entries.last().expect("at least one entry is covered").id;
        append.entries = rest;
        true
    }
}

/// Whether any honest node could have a snapshot like this: its name came over the network, and so did the image.
fn is_sound(meta: &SnapMeta) -> bool {
    meta.last.index.0 <= INDEX_MAX && !meta.conf.voters.is_empty()
}
