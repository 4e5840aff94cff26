//! The log of a follower: what it takes from a leader, and what it answers.
//!
//! # Invariants
//!
//! * Only a conflicting suffix is truncated, and never a committed entry.
//! * The commit index never passes the last entry that the leader just confirmed.
//! * An acknowledgement leaves only after what it acknowledges is durable.

use crate::durable::Entry;
use crate::effects::Role;
use crate::types::{Epoch, Index, NodeId};

use super::{Append, AppendReply, Consensus, Effect, Message, Verdict, broken};

impl Consensus {
    /// A leader sends entries, or only says that it is there.
    pub(super) fn on_append(&mut self, from: NodeId, append: Append, effects: &mut Vec<Effect>) {
        if append.epoch < self.hard.epoch {
            // E2: our epoch frees a leader that a quorum has left behind.
            let verdict = Verdict::Rejected { at: append.prev.index, hint: self.log.last() };
            return self.answer(from, &append, verdict, None, effects);
        }
        if !is_well_formed(&append) {
            return;
        }
        if self.hear(from, append.epoch, effects) {
            self.take(from, append, effects);
        }
    }

    /// A leader of our epoch or of a higher one was heard: follows it, and renews the promise. Says whether the node still
    /// stands.
    pub(super) fn hear(&mut self, from: NodeId, epoch: Epoch, effects: &mut Vec<Effect>) -> bool {
        if epoch == self.hard.epoch && self.role == Role::Leader {
            self.fail(format!("{from} leads epoch {epoch} too"), effects);
            return false;
        }
        self.follow(epoch, Some(from), effects);
        self.contact = Some((self.now, from));
        // A leader sends only to those who have a place: whoever said that we have none was wrong, or is outdated.
        self.excluded_at = Index(0);
        self.waived = false;
        self.deadline = self.draw_deadline();
        true
    }

    /// R1 to R5.
    fn take(&mut self, from: NodeId, mut append: Append, effects: &mut Vec<Effect>) {
        let end = Index(append.prev.index.0 + append.entries.len() as u64);
        if !broken!(self, DeniesForgotten) && !self.skip_covered(&mut append) {
            // F18: no more than our disk has.
            let known = self.commit.index.min(self.log.durable());
            return self.answer(from, &append, Verdict::Matched(known), None, effects);
        }
        let held = self.log.epoch_at(append.prev.index);
        if held != Some(append.prev.epoch) && !(held.is_some() && broken!(self, TrustsPlaces)) {
            return self.reject(from, &append, effects);
        }
        if !self.take_entries(&mut append.entries, effects) {
            return;
        }
        let confirmed = if broken!(self, CommitsUnverified) { self.log.last().index } else { end };
        self.commit_to(append.commit.min(confirmed));
        let after = if broken!(self, AcksUnsynced) { self.hard_pending() } else { self.log_pending(end) };
        self.answer(from, &append, Verdict::Matched(end), after, effects);
    }

    /// R2: says where the logs may still agree.
    fn reject(&mut self, from: NodeId, append: &Append, effects: &mut Vec<Effect>) {
        if append.prev.index <= self.commit.index {
            return self.fail(format!("{from} denies the committed entry {}", append.prev.index), effects);
        }
        let hint = self.log.agreement(append.prev.index, append.prev.epoch);
        let verdict = Verdict::Rejected { at: append.prev.index, hint };
        self.answer(from, append, verdict, None, effects);
    }

    /// R3: skips what matches, truncates at the first conflict, appends the rest. Says whether the node still stands.
    fn take_entries(&mut self, entries: &mut Vec<Entry>, effects: &mut Vec<Effect>) -> bool {
        let matching = |entry: &&Entry| self.log.epoch_at(entry.id.index) == Some(entry.id.epoch);
        let matching = entries.iter().take_while(matching).count();
        let skip = if broken!(self, TruncatesAlways) { 0 } else { matching };
        let Some(first) = entries.get(skip) else { return true };
        let first = first.id;
        if first.index <= self.log.last().index {
            if first.index <= self.commit.index {
                self.fail(format!("the committed entry {} was to be replaced by {first}", first.index), effects);
                return false;
            }
            self.truncate(first.index, effects);
        }
        for entry in entries.drain(skip..) {
            // The time of an entry is checked here too: what a peer sends must not break us.
            if entry.time < self.log.last_time() {
                self.fail(format!("the time of entry {} runs backwards", entry.id), effects);
                return false;
            }
            self.append_entry(entry, effects);
        }
        true
    }

    /// R4: the commit index only grows.
    pub(super) fn commit_to(&mut self, index: Index) {
        if index > self.commit.index {
            self.commit = self.log.id_at(index).expect("committed past the end of the log");
        }
    }

    fn answer(&self, to: NodeId, append: &Append, verdict: Verdict, after: Option<u64>, effects: &mut Vec<Effect>) {
        let (sent, promise) = (append.sent, self.profile.promise);
        let reply = AppendReply { epoch: self.hard.epoch, verdict, sent, promise, is_eager: self.is_eager };
        let after = after.max(self.hard_pending());
        effects.push(Effect::Send { to, message: Message::AppendReply(reply), after });
    }
}

/// No log grows past this; whoever names a higher place would make sums overflow.
pub(super) const INDEX_MAX: u64 = 1 << 62;

/// Whether the entries follow one another and `prev`, in an order that a leader of that epoch can have written.
fn is_well_formed(append: &Append) -> bool {
    let mut last = append.prev;
    for entry in &append.entries {
        if entry.id.index.0 != last.index.0.saturating_add(1) || entry.id.epoch < last.epoch {
            return false;
        }
        last = entry.id;
    }
    last.epoch <= append.epoch && append.prev.index.0 <= INDEX_MAX
}
