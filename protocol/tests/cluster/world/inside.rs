//! What goes on inside a host: hops between its parts, wake-ups, and the disk with its syncs and images.

use super::*;

impl World {
    /// Sends an input on its way from one part of a host to the machine that it is for.
    pub fn hand_on(&mut self, at: usize, from: Part, local: Local) {
        let delay = self.slow_hop(at, from).unwrap_or_else(|| self.dice.between(1_000, 200_000));
        self.hop(at, from, delay, local);
    }

    /// How long what leaves this part is under way inside its host, if that is longer than usual.
    pub(super) fn slow_hop(&mut self, at: usize, from: Part) -> Option<u64> {
        if let Some((_, span)) = self.hosts[at].held_up.filter(|(source, _)| *source == from) {
            return Some(span);
        }
        let is_slow = self.options.slow_hop > 0 && self.dice.happens(self.options.slow_hop);
        is_slow.then(|| self.dice.between(0, self.options.slow_hop_delay))
    }

    pub(super) fn hop(&mut self, at: usize, from: Part, delay: u64, local: Local) {
        let due = self.hosts[at].hop(self.time, from, target(&local), delay);
        let run = self.hosts[at].run;
        self.queue.add(due, Happening::Input { at, run, local });
    }

    pub(super) fn arm(&mut self, at: usize, part: Part) {
        let host = &mut self.hosts[at];
        let deadline = host.deadline(part);
        if deadline == Nanos::NEVER {
            return;
        }
        let due = host.global(deadline).max(self.time + 1_000);
        if due < host.wakes[part as usize] {
            host.wakes[part as usize] = due;
            let run = host.run;
            self.queue.add(due, Happening::Wake { at, run, part, due });
        }
    }

    pub(crate) fn begin_sync(&mut self, at: usize) {
        let disk = &mut self.hosts[at].disk;
        if disk.syncing > 0 || disk.waiting.is_empty() {
            return;
        }
        disk.syncing = disk.waiting.len();
        let (is_slow, fails) = (disk.slow_until > self.time, std::mem::take(&mut disk.fails_next));
        let span = if is_slow {
            self.dice.between(10 * MS, 500 * MS)
        } else if self.options.slow_sync > 0 && self.dice.happens(self.options.slow_sync) {
            self.dice.between(MS, self.options.slow_sync_delay)
        } else {
            self.dice.between(MS / 10, 2 * MS)
        };
        let run = self.hosts[at].run;
        let what = if fails { Happening::DiskFails { at, run } } else { Happening::Synced { at, run } };
        self.queue.add(self.time + span, what);
    }

    pub(super) fn synced(&mut self, at: usize) {
        let disk = &mut self.hosts[at].disk;
        let old = disk.durable.hard_state;
        let syncing = std::mem::take(&mut disk.syncing);
        let seq = disk.sync(syncing);
        disk.batches.1 = seq.unwrap_or(disk.batches.1);
        let verdict = self.check.hard_state_only_grows(old, self.hosts[at].disk.durable.hard_state);
        self.judge(verdict);
        self.note_genesis(at);
        if let Some(seq) = seq {
            self.hand_on(at, Part::Store, Local::Replica(replica::Input::Persisted { seq }));
        }
        self.begin_sync(at);
        self.begin_image(at);
    }

    /// Work on images is done one by one, beside the syncs: in pieces between them.
    pub(super) fn begin_image(&mut self, at: usize) {
        let disk = &mut self.hosts[at].disk;
        let is_due = disk.images.front().is_some_and(|(behind, _)| *behind <= disk.batches.1);
        if disk.is_imaging || !is_due || disk.has_failed {
            return;
        }
        disk.is_imaging = true;
        let longest = if self.is_calm { 5 * MS } else { self.options.slow_image };
        let span = self.dice.between(MS / 10, longest);
        let run = self.hosts[at].run;
        self.queue.add(self.time + span, Happening::Imaged { at, run });
    }

    pub(super) fn imaged(&mut self, at: usize) {
        let disk = &mut self.hosts[at].disk;
        disk.is_imaging = false;
        if disk.has_failed {
            return;
        }
        let Some((_, work)) = disk.images.pop_front() else { return }; // The process is gone.
        if let Some(done) = disk.perform(work) {
            self.hand_on(at, Part::Store, Local::Replica(replica::Input::ImageDone(done)));
        }
        self.begin_image(at);
    }
}
