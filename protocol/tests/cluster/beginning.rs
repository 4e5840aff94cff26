//! What goes wrong while a cluster begins: a node that is replaced at its address and goes on (F1 b), two founders that each
//! believe to be the first (F1 c), join lists that differ.
//!
//! # Invariants
//!
//! * Fewer than a majority of the initial voters are replaced or lose their disks: more are promised nothing (F1).
//! * A node that was replaced keeps its links and dials others, and no dial of its address reaches it any more.
//! * When the world is calm, an operator has ended it.

use crate::check::Verdict;
use crate::host::Host;
use crate::options::{MS, Options, SECOND};
use crate::world::{Happening, World};

/// Gives the hosts of a new world what their seed has for them. The last one is the replacement, if there shall be one.
pub fn prepare(hosts: &mut [Host], options: &Options) {
    if let (Some(replacement), Some(spare)) = (options.replaced_at_founding, hosts.last_mut()) {
        (spare.is_node, spare.home, spare.is_at_home) = (true, replacement.at, false);
    }
    if let Some(at) = options.exchanges_list {
        hosts[at].exchanges_list = true;
    }
}

impl World {
    /// What a new world has before it.
    pub fn plan_beginning(&mut self) {
        if let Some(replacement) = self.options.replaced_at_founding {
            self.queue.add(self.time + replacement.when, Happening::Replaced);
        }
        if self.options.exchanges_list.is_some() {
            // Where each of the first two takes the other for the founder, nobody asks, and the operator must see by itself.
            let wait = self.dice.between(SECOND, 20 * SECOND);
            self.queue.add(self.time + wait, Happening::Corrected);
        }
    }

    /// Starts another node at the address of one that is paused or cut off, or just goes on.
    pub fn replace(&mut self) {
        let Some(replacement) = self.options.replaced_at_founding else { return };
        let (at, spare) = (replacement.at, self.hosts.len() - 1);
        if self.is_calm || self.hosts[at].run == 0 || !self.can_bear_loss(at) {
            return;
        }
        self.tell(at, || format!("is replaced at its address by n{}", spare + 1));
        self.hosts[at].is_at_home = false;
        self.hosts[spare].is_at_home = true;
        if replacement.pause > 0 {
            self.pause(at, replacement.pause);
        }
        if replacement.is_cut {
            for peer in 0..self.hosts.len() {
                self.cut(at, peer);
                self.cut(peer, at);
            }
        }
        let wait = self.dice.between(MS, 300 * MS);
        self.restart_in(spare, wait);
    }

    /// Whether a node ends because the lists of some nodes differ, as they do in this world.
    pub fn is_word_of_lists(&self, why: &str) -> bool {
        self.options.exchanges_list.is_some() && why.contains("start all of them with the same")
    }

    /// The operator has read why a founder ended, and starts whoever had another list again.
    pub fn correct_lists(&mut self) {
        for at in 0..self.hosts.len() {
            if std::mem::take(&mut self.hosts[at].exchanges_list) {
                self.crash_for_a_while(at);
            }
        }
    }

    /// A disk was synced: what genesis is on it, if there is one?
    pub fn note_genesis(&mut self, at: usize) {
        let verdict = self.judge_genesis(at);
        self.judge(verdict);
    }

    fn judge_genesis(&mut self, at: usize) -> Verdict {
        let Some(genesis) = &self.hosts[at].disk.durable.genesis else { return Ok(()) };
        if let Some(other) = self.hosts.iter().find(|host| host.exchanges_list && host.is_at_home) {
            return Err(format!("F1 {} is founded while {} has another list", genesis.cluster, other.id));
        }
        self.check.one_genesis_has_a_majority(self.hosts[at].id, genesis)
    }
}
