//! The log of a leader: what it writes, sends and commits.
//!
//! # Invariants
//!
//! * Only an entry of the leader's own epoch is committed by counting; the older ones follow with it (dissertation 3.6.2).
//! * The leader counts itself only as far as its own disk does.
//! * What is in flight to one follower is bounded (R8), and so is what is not committed.

use bytes::Bytes;

use crate::durable::{Entry, Payload};
use crate::effects::Role;
use crate::types::{ClusterTime, Epoch, Index, LogId, Nanos, NodeId};

use super::progress::{BYTES_MAX, Pace, Progress};
use super::{Append, AppendReply, Consensus, Drop, Effect, Message, Verdict, broken, quorum};

impl Consensus {
    /// Appends one entry, if this node leads the epoch in which it was decided (F7) and not too much is under way.
    pub(super) fn on_propose(&mut self, context: u64, epoch: Epoch, payload: Bytes, effects: &mut Vec<Effect>) {
        let is_full = self.uncommitted > 0 && self.uncommitted + payload.len() > UNCOMMITTED_MAX + URGENT_MAX;
        let why = self.refuses_proposals(epoch).or(is_full.then_some(Drop::Busy));
        if let Some(why) = why {
            return effects.push(Effect::Dropped { context, why });
        }
        self.uncommitted += payload.len();
        let id = self.write(Payload::Commands(payload), effects);
        effects.push(Effect::Accepted { context, id });
        self.send_all(effects);
    }

    /// Whether the log takes more than what is urgent.
    pub(crate) fn has_room(&self) -> bool {
        self.uncommitted < UNCOMMITTED_MAX
    }

    /// Why nothing that was decided in `epoch` may be appended here, if so.
    pub(super) fn refuses_proposals(&self, epoch: Epoch) -> Option<Drop> {
        match self.role {
            Role::Leader if epoch != self.hard.epoch => Some(Drop::Epoch),
            Role::Leader => self.transfer.is_some().then_some(Drop::HandOver),
            _ => Some(Drop::NotLeader),
        }
    }

    /// Sends what was just appended to everyone who need not wait for company.
    pub(super) fn send_all(&mut self, effects: &mut Vec<Effect>) {
        for at in 0..self.peers.len() {
            if self.peers[at].is_eager() {
                self.send_entries(at, effects);
            }
        }
    }

    /// Writes one entry of this epoch, stamped with cluster time.
    pub(super) fn write(&mut self, payload: Payload, effects: &mut Vec<Effect>) -> LogId {
        let id = LogId { epoch: self.hard.epoch, index: self.log.last().index.next() };
        let time = self.cluster_time(self.now).max(self.log.last_time());
        self.append_entry(Entry { id, time, payload }, effects);
        id
    }

    /// Begins anew with every follower (E6).
    pub(super) fn reset_peers(&mut self) {
        self.tell_at = Nanos::NEVER;
        self.peers.clear();
        self.adjust_peers();
        if broken!(self, LeaseFromWinning) {
            for peer in &mut self.peers {
                (peer.acked, peer.promise) = (self.now, self.profile.promise);
            }
        }
    }

    /// One heartbeat to everyone; probes and lost tails are sent again with it. Entries that were not answered in time are no
    /// heartbeat: their answer may wait for a slow disk, and that must not cost us the lead (F19).
    pub(super) fn heartbeat_all(&mut self, effects: &mut Vec<Effect>) {
        self.heartbeat_due = self.now + self.profile.heartbeat;
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let is_late = peer.oldest().is_some_and(|sent| sent + self.profile.heartbeat <= self.now);
            let is_late_probe = peer.pace == Pace::Probe && is_late;
            if is_late_probe {
                peer.lose_flight();
            }
            let repeats_entries = is_late_probe && peer.next <= self.log.last().index;
            if !self.send_entries(at, effects) || repeats_entries {
                self.send_heartbeat(at, effects);
            }
        }
        self.urge_heir(effects);
    }

    /// Sends what the windows allow (R8) and says whether that was anything.
    fn send_entries(&mut self, at: usize, effects: &mut Vec<Effect>) -> bool {
        let mut is_any = false;
        if matches!(self.peers[at].pace, Pace::Snapshot { .. }) || self.peers[at].next <= self.log.base().index {
            self.announce(at, effects);
            return false;
        }
        while let Some((prev, entries)) = self.next_entries(at) {
            let bytes = entries.iter().map(size).sum();
            let last = Index(prev.index.0 + entries.len() as u64);
            self.peers[at].note_sent(last, bytes, self.now);
            self.send_append(at, prev, entries, effects);
            is_any = true;
        }
        is_any
    }

    /// The next append to a follower: some entries, or none for a probe that has nothing to send.
    fn next_entries(&self, at: usize) -> Option<(LogId, Vec<Entry>)> {
        let peer = &self.peers[at];
        let waiting = self.log.from(peer.next);
        let is_probe = peer.pace == Pace::Probe;
        if waiting.is_empty() && !is_probe {
            return None;
        }
        let first = waiting.first().map_or(0, size);
        if !peer.has_room(first) {
            return None;
        }
        let mut bytes = 0;
        let most = if is_probe { PROBE_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        let fits = |entry: &&Entry| {
            bytes += size(entry);
            bytes == size(entry) || (bytes <= most && peer.has_room(bytes) && bytes <= BYTES_MAX)
        };
        let count = waiting.iter().take(MESSAGE_ENTRIES_MAX).take_while(fits).count();
        let prev = Index(peer.next.0 - 1);
        let prev = self.log.id_at(prev).expect("what follows the base can be sent; the rest needs a snapshot");
        Some((prev, waiting[..count].to_vec()))
    }

    /// Says that we are there and how much is committed. `prev` is what the follower is known to hold, never more (F17).
    fn send_heartbeat(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let prev = self.log.id_at(self.peers[at].matched).unwrap_or_default();
        self.send_append(at, prev, Vec::new(), effects);
    }

    fn send_append(&mut self, at: usize, prev: LogId, entries: Vec<Entry>, effects: &mut Vec<Effect>) {
        let peer = &mut self.peers[at];
        peer.told = self.commit.index.min(Index(prev.index.0 + entries.len() as u64)).max(peer.told);
        let append = Append { epoch: self.hard.epoch, prev, entries, commit: self.commit.index, sent: self.now };
        let (to, after) = (peer.node, self.hard_pending());
        effects.push(Effect::Send { to, message: Message::Append(append), after });
    }

    /// R6: what a follower holds, and where to go on.
    pub(super) fn on_append_reply(&mut self, from: NodeId, reply: &AppendReply, effects: &mut Vec<Effect>) {
        if reply.epoch > self.hard.epoch {
            return self.follow(reply.epoch, None, effects);
        }
        if reply.epoch < self.hard.epoch || self.role != Role::Leader || reply.sent > self.now {
            return;
        }
        let Some(at) = self.peers.iter().position(|peer| peer.node == from) else { return };
        self.note_ack(at, reply);
        match reply.verdict {
            Verdict::Matched(index) if index > self.log.last().index => {}
            Verdict::Matched(index) => self.on_matched(at, index, reply.sent, effects),
            Verdict::Rejected { at: place, hint } => self.on_rejected(at, place, hint, effects),
        }
    }

    /// Accepted or not: the follower renewed its promise after we sent that (L1). Promising less than it says is safe, so
    /// its word is taken up to our own election timeout.
    fn note_ack(&mut self, at: usize, reply: &AppendReply) {
        let sent = if broken!(self, LeaseFromReceipt) { self.now } else { reply.sent };
        let peer = &mut self.peers[at];
        peer.is_eager_for_commits = reply.is_eager;
        if sent > peer.acked {
            peer.acked = sent;
            peer.promise = reply.promise.min(self.profile.election_timeout);
        }
    }

    fn on_matched(&mut self, at: usize, index: Index, sent: Nanos, effects: &mut Vec<Effect>) {
        let patience = self.profile.heartbeat * 2;
        let base = self.log.base().index;
        let peer = &mut self.peers[at];
        let is_news = index > peer.matched;
        peer.note_matched(index, base, self.now);
        // An answer to something sent after the oldest append, which is still unacknowledged long after: it was lost.
        let is_lost = peer.oldest().is_some_and(|oldest| sent >= oldest && oldest + patience < self.now);
        if is_lost && peer.pace == Pace::Replicate {
            peer.lose_flight();
        }
        let node = peer.node;
        if is_news {
            self.advance_commit(effects);
        }
        // A commit may have completed a change: then the places of the followers are others, or this node leads no more.
        if self.peers.get(at).is_some_and(|peer| peer.node == node) {
            self.serve(at, effects);
            self.urge_heir(effects);
        }
    }

    fn on_rejected(&mut self, at: usize, place: Index, hint: LogId, effects: &mut Vec<Effect>) {
        let peer = &self.peers[at];
        let is_stale = match peer.pace {
            Pace::Replicate => place <= peer.matched,
            Pace::Probe => place.0 != peer.next.0 - 1,
            Pace::Snapshot { .. } => false,
        };
        if is_stale {
            return;
        }
        let hinted = hint.index.min(Index(place.0.saturating_sub(1)));
        if self.snapshot.is_some() && hinted < self.log.base().index {
            // The logs part before ours begins: that needs our snapshot, and the probe will find so.
            self.peers[at].probe_from(hinted.next());
        } else {
            let agreed = self.log.agreement(hinted, hint.epoch);
            self.peers[at].probe_from(agreed.index.next());
        }
        self.serve(at, effects);
    }

    /// Sends what is waiting; if nothing is, a commit index that has moved will be told (R9).
    fn serve(&mut self, at: usize, effects: &mut Vec<Effect>) {
        if !self.send_entries(at, effects) {
            self.tell_as_wanted(at, effects);
        }
    }

    /// Tells the commit index to those who have not heard of it with an append (R9).
    pub(super) fn tell_commit(&mut self, effects: &mut Vec<Effect>) {
        self.tell_at = Nanos::NEVER;
        for at in 0..self.peers.len() {
            if self.owes_commit(at) {
                self.send_heartbeat(at, effects);
            }
        }
    }

    /// Tells a follower that `index` is committed, if it holds that much and has not heard: it is about to wait for it (R9).
    pub(super) fn tell_commit_to(&mut self, node: NodeId, index: Index, effects: &mut Vec<Effect>) {
        let awaits = |peer: &Progress| peer.node == node && peer.told < index.min(peer.matched);
        if let Some(at) = self.peers.iter().position(awaits) {
            self.send_heartbeat(at, effects);
        }
    }

    /// Tells a follower the commit index at once if somebody waits for it there, else soon.
    fn tell_as_wanted(&mut self, at: usize, effects: &mut Vec<Effect>) {
        if !self.owes_commit(at) {
            return;
        }
        if self.peers[at].is_eager_for_commits {
            self.send_heartbeat(at, effects);
        } else {
            self.tell_soon();
        }
    }

    fn tell_soon(&mut self) {
        self.tell_at = self.tell_at.min(self.now + self.profile.heartbeat / TELL_PART);
    }

    fn owes_commit(&self, at: usize) -> bool {
        let peer = &self.peers[at];
        peer.pace == Pace::Replicate && peer.is_idle() && peer.told < self.commit.index.min(peer.matched)
    }

    /// R7: commits what is durable on a quorum, if its epoch is ours.
    pub(super) fn advance_commit(&mut self, effects: &mut Vec<Effect>) {
        let own = if broken!(self, CountsUnsynced) { self.log.last().index } else { self.log.durable() };
        let index = Index(self.reached(own.0, |peer| peer.matched.0));
        let is_ours = self.log.epoch_at(index) == Some(self.hard.epoch);
        if index <= self.commit.index || !(is_ours || broken!(self, CommitsOldEpochs)) {
            return;
        }
        for entry in self.log.range(self.commit.index.next(), index) {
            if let (Payload::Commands(bytes), true) = (&entry.payload, entry.id.epoch == self.hard.epoch) {
                self.uncommitted -= bytes.len();
            }
        }
        // Whoever waits for a new leader or another configuration waits for this.
        let is_urgent = self.log.range(self.commit.index.next(), index).iter().any(is_turning_point);
        self.commit_to(index);
        if is_urgent {
            self.tell_commit(effects);
        } else {
            (0..self.peers.len()).for_each(|at| self.tell_as_wanted(at, effects));
        }
        self.follow_up_change(effects);
    }

    /// The link to a follower broke: what was in flight is lost.
    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) {
            peer.lose_flight();
        }
    }

    /// The replicated clock: on a leader it goes on from the last entry at winning (F10), elsewhere it stands there.
    #[must_use]
    pub fn cluster_time(&self, now: Nanos) -> ClusterTime {
        match self.role {
            Role::Leader => self.time_base + now.since(self.elected_at),
            _ => self.log.last_time(),
        }
    }

    /// The greatest value that a quorum has reached, where `own` is this node's.
    pub(super) fn reached(&self, own: u64, value: impl Fn(&Progress) -> u64) -> u64 {
        let of = |node: NodeId| {
            if node == self.node {
                return own;
            }
            self.peers.iter().find(|peer| peer.node == node).map_or(0, &value)
        };
        let Some(conf) = self.conf() else { return 0 };
        #[cfg(feature = "mutants")]
        let conf = &self.bent(conf);
        quorum::reached(conf, of)
    }
}

/// Whether an entry begins a leadership or changes who votes.
fn is_turning_point(entry: &Entry) -> bool {
    !matches!(entry.payload, Payload::Commands(_))
}

/// What an entry counts for in the windows.
fn size(entry: &Entry) -> usize {
    let body = match &entry.payload {
        Payload::Commands(bytes) => bytes.len(),
        Payload::Noop => 0,
        Payload::Config(conf) => 8 * quorum::members(conf).len(),
    };
    body + ENTRY_OVERHEAD
}

/// A commit index that moved is told with the next append, or on its own after this part of a heartbeat: under load that
/// halves the messages of a write, and no follower is further behind than that.
const TELL_PART: u32 = 16;
/// Entries in one message (R8).
const MESSAGE_ENTRIES_MAX: usize = 512;
/// Bytes in one message, unless a single entry is larger (R8, F14).
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes in a probe, unless a single entry is larger: it is sent again and again to whoever has a disk that hangs.
const PROBE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of commands that may wait for their commit; no-ops and inherited entries do not count (F22).
const UNCOMMITTED_MAX: usize = 8 * 1024 * 1024;
/// Bytes of commands beyond that, for what is urgent: whoever proposes asks [`Consensus::has_room`] for everything else.
const URGENT_MAX: usize = 8 * 1024 * 1024;
/// Place, time and framing of an entry.
const ENTRY_OVERHEAD: usize = 48;
