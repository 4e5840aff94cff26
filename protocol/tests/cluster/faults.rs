//! What goes wrong: crashes, pauses, cuts, and what peers hear of them.
//!
//! # Invariants
//!
//! * Only a crash is seen by peers at once; a pause and a cut are silent (D5).
//! * When the world is calm, nothing strikes and everything that was broken is whole.

use protocol::effects::Local;
use protocol::{NodeId, replica, worker};

use crate::host::Part;
use crate::options::{MS, SECOND};
use crate::travel::{identity, place};
use crate::world::{Happening, World};

impl World {
    /// Kills a host. Its peers see the connection close and, mostly, a new dial refused.
    pub fn crash(&mut self, at: usize) {
        if self.hosts[at].machines.is_none() {
            return;
        }
        self.tell(at, || "crashes".into());
        let waiting = self.hosts[at].disk.waiting.len() as u64;
        let old = self.hosts[at].disk.durable.hard_state;
        let survivors = self.dice.between(0, waiting) as usize;
        self.note_relied_on(at, true);
        self.hosts[at].crash(survivors);
        self.hosts[at].paused_until = 0;
        self.asleep[at].clear();
        let verdict = self.check.hard_state_only_grows(old, self.hosts[at].disk.durable.hard_state);
        self.judge(verdict);
        self.note_genesis(at);
        self.check.forget(at);
        self.history.forget(at);
        for peer in 0..self.hosts.len() {
            self.net.drop_side(at, peer);
            if self.hosts[at].is_node {
                let (node, wait) = (self.hosts[at].id, self.dice.between(2 * SECOND, 6 * SECOND));
                self.queue.add(self.time + wait, Happening::Gone { at: peer, node });
            }
            let Some(link) = self.net.side(peer, at).link else { continue };
            if self.net.is_cut(at, peer) {
                let wait = self.dice.between(10 * SECOND, 12 * SECOND);
                self.queue.add(self.time + wait, Happening::Broken { at: peer, peer: at, generation: link.generation });
                continue;
            }
            let wait = self.dice.between(MS / 5, 3 * MS);
            let broken = Happening::Broken { at: peer, peer: at, generation: link.generation };
            self.queue.add(self.time + wait, broken);
            if self.dice.happens(900) {
                let run = link.peer_run;
                let dial = wait + self.dice.between(MS / 5, 5 * MS);
                self.queue.add(self.time + dial, Happening::Refused { at: peer, peer: at, run });
            }
        }
    }

    /// Kills a node and its disk. Somebody else comes back at its address, with nothing.
    pub fn lose_disk(&mut self, at: usize) {
        if self.is_calm || !self.can_bear_loss(at) {
            return;
        }
        self.crash_for_a_while(at);
        self.empty_disk(at);
    }

    /// Gives a node that is down an empty disk.
    pub fn empty_disk(&mut self, at: usize) {
        self.tell(at, || "loses its disk".into());
        let id = identity(at, self.hosts[at].lost.len() as u64 + 1);
        self.hosts[at].replace_disk(id);
    }

    /// Whether fewer than a majority of the voters have lost their disks when this one has too: more are promised nothing.
    pub fn can_bear_loss(&self, at: usize) -> bool {
        if !self.hosts[at].is_at_home {
            return false;
        }
        let replaced = || self.hosts.iter().filter(|host| host.is_replaced());
        let Some(conf) = &self.check.oracle.conf else {
            // While the cluster begins, whoever is listed may become a voter (F1).
            let losses: usize = self.hosts.iter().map(|host| host.lost.len()).sum();
            let voters = self.options.voters.map_or(self.options.nodes, usize::from).min(self.options.nodes);
            return losses + replaced().count() < (voters - 1) / 2;
        };
        let is_settled =
            |leader: usize| self.hosts[leader].replica().and_then(|it| it.consensus().conf()) == Some(conf);
        let is_lost = |node: &&NodeId| **node == self.hosts[at].id || self.is_gone(**node);
        // A learner may get the seat of a voter at any moment.
        let lost = conf.voters.iter().chain(&conf.learners).filter(is_lost).count();
        // A founder that was replaced at its address still founds from those who lose their disks.
        let rivals = replaced().filter(|host| !conf.voters.contains(&host.id) && !conf.learners.contains(&host.id));
        self.leader().is_some_and(is_settled)
            && conf.outgoing.is_empty()
            && lost + rivals.count() <= (conf.voters.len() - 1) / 2
    }

    /// Whether a node has lost its disk, or its address to another one: it does not come back for good.
    pub fn is_gone(&self, node: NodeId) -> bool {
        let host = &self.hosts[place(node)];
        host.id != node || host.is_replaced()
    }

    /// Starts a host that is down.
    pub fn restart_in(&mut self, at: usize, wait: u64) {
        self.queue.add(self.time + wait, Happening::Start { at });
    }

    /// Stops a host for a while: nothing is handled, time goes on.
    pub fn pause(&mut self, at: usize, span: u64) {
        let host = &mut self.hosts[at];
        if host.machines.is_none() || host.paused_until > self.time + span {
            return;
        }
        host.paused_until = self.time + span;
        host.guards.freeze();
        self.queue.add(host.paused_until, Happening::Resume { at });
        self.tell(at, || format!("pauses for {} ms", span / MS));
    }

    /// Ends a pause now.
    pub fn resume(&mut self, at: usize) {
        if self.hosts[at].paused_until > self.time {
            self.hosts[at].paused_until = self.time;
            self.queue.add(self.time, Happening::Resume { at });
        }
    }

    /// Handles what waited for the end of a pause, in its order.
    pub fn wake_up(&mut self, at: usize) {
        if self.hosts[at].paused_until > self.time {
            return;
        }
        if let Some(since) = self.hosts[at].asleep_since.take() {
            self.timers_stood_still(at, self.time - since);
        }
        for what in std::mem::take(&mut self.asleep[at]) {
            self.happen(what);
        }
    }

    /// Lets nothing pass in one direction. Nobody is told; the link breaks when its receiver has heard nothing for long.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from == to || self.net.side(from, to).cut.is_some() {
            return;
        }
        self.net.side_mut(from, to).cut = Some(self.time);
        if let Some(link) = self.net.side(to, from).link {
            let wait = self.dice.between(10 * SECOND, 12 * SECOND);
            let silence = Happening::Silence { at: to, peer: from, generation: link.generation, cut: self.time };
            self.queue.add(self.time + wait, silence);
        }
    }

    /// Lets everything pass again.
    pub fn heal(&mut self) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if self.net.side_mut(from, to).cut.take().is_none() {
                    continue;
                }
                for body in std::mem::take(&mut self.net.side_mut(from, to).stuck) {
                    self.transmit_in_order(from, to, body);
                }
                let (one, other) = (self.net.side(from, to).link, self.net.side(to, from).link);
                if one.is_some() != other.is_some() {
                    // The end that closed says so now.
                    let (at, peer) = if one.is_some() { (from, to) } else { (to, from) };
                    let generation = one.or(other).expect("one of them is there").generation;
                    self.queue.add(self.time + MS, Happening::Broken { at, peer, generation });
                }
            }
        }
    }

    /// From here on nothing goes wrong.
    pub fn calm(&mut self) {
        self.is_calm = true;
        self.heal();
        for at in 0..self.hosts.len() {
            self.resume(at);
            // An operator ends whoever runs where another node belongs.
            if self.hosts[at].is_leaving || self.hosts[at].is_replaced() {
                self.crash(at);
            }
            if self.hosts[at].machines.is_none() {
                self.restart_in(at, 0);
            }
        }
        for host in &mut self.hosts {
            (host.disk.slow_until, host.disk.fails_next) = (0, false);
        }
        let options = &mut self.options;
        (options.delay, options.slow_hop, options.slow_sync) = ((MS / 20, MS), 0, 0);
    }

    /// What chance does to the world, every now and then.
    pub fn strike(&mut self) {
        if self.is_calm {
            return;
        }
        self.queue.add(self.time + self.options.strike, Happening::Strike);
        let nodes = self.options.nodes;
        for at in 0..self.hosts.len() {
            if self.options.crash > 0 && self.dice.happens(self.options.crash) {
                self.crash_for_a_while(at);
            }
            if self.options.leave > 0 && self.hosts[at].is_node && self.dice.happens(self.options.leave) {
                self.tell(at, || "drains".into());
                self.hosts[at].is_leaving = true;
                self.hand_on(at, Part::Application, Local::Replica(replica::Input::Leave));
                if self.leader() == Some(at) {
                    self.hand_on(at, Part::Application, Local::Replica(replica::Input::Transfer { to: None }));
                }
                self.hand_on(at, Part::Application, Local::Worker(worker::Input::Drain));
                let (run, patience) = (self.hosts[at].run, self.dice.pick(&[0, 300, 3_000, 30_000]) * MS);
                let local = Local::Worker(worker::Input::Stop);
                self.queue.add(self.time + patience, Happening::Input { at, run, local });
            }
            if self.options.disk_fails > 0 && self.hosts[at].is_node && self.dice.happens(self.options.disk_fails) {
                self.hosts[at].disk.fails_next = true;
            }
            if self.options.slow_disk > 0 && self.hosts[at].is_node && self.dice.happens(self.options.slow_disk) {
                self.hosts[at].disk.slow_until = self.time + self.dice.between(SECOND, 8 * SECOND);
            }
            if self.options.disk_loss > 0 && self.hosts[at].is_node && self.dice.happens(self.options.disk_loss) {
                self.lose_disk(at);
            }
            if self.options.pause > 0 && self.dice.happens(self.options.pause) {
                let longest = self.dice.pick(&[500, 2_000, 8_000]) * MS;
                let span = self.dice.between(100 * MS, longest);
                self.pause(at, span);
                if self.hosts[at].paused_until > self.time && self.dice.happens(300) {
                    self.tell(at, || "sleeps, its machine with it".into());
                    self.hosts[at].asleep_since.get_or_insert(self.time);
                }
            }
        }
        if self.options.crash_all > 0 && self.dice.happens(self.options.crash_all) {
            (0..nodes).for_each(|at| self.crash_for_a_while(at));
        }
        if self.options.cut > 0 && self.dice.happens(self.options.cut) {
            self.cut_somewhere();
        }
        if self.options.cut > 0 && self.dice.happens(self.options.heal) {
            self.heal();
        }
        if self.options.transfer > 0
            && self.dice.happens(self.options.transfer)
            && let Some(leader) = self.leader()
        {
            let heir = self.dice.between(0, nodes as u64) as usize;
            let to = self.hosts.get(heir).filter(|_| heir < nodes).map(|host| host.id);
            self.tell(leader, || format!("is asked to hand over to {to:?}"));
            self.hand_on(leader, Part::Application, Local::Replica(replica::Input::Transfer { to }));
        }
        if self.options.false_evidence > 0 && self.dice.happens(self.options.false_evidence) {
            let (at, peer) = (self.dice.between(0, nodes as u64 - 1), self.dice.between(0, nodes as u64 - 1));
            if at != peer {
                self.tell_evidence(at as usize, peer as usize, self.hosts[peer as usize].run);
                let suspected = replica::Input::Suspected { node: self.hosts[peer as usize].id };
                self.hand_on(at as usize, Part::Gateway, Local::Replica(suspected));
            }
        }
    }

    /// Kills a host and starts it again some time later.
    pub fn crash_for_a_while(&mut self, at: usize) {
        if self.hosts[at].machines.is_some() {
            self.crash(at);
            // What a disk had begun to fail at may end after the faults.
            let longest = if self.is_calm { 100 * MS } else { self.dice.pick(&[100, 1_000, 6_000]) * MS };
            let wait = self.dice.between(MS, longest);
            self.restart_in(at, wait);
        }
    }

    /// One node away from all, one direction, one pair, two camps, or two camps with one node between them.
    pub fn cut_somewhere(&mut self) {
        let count = self.hosts.len();
        let one = self.dice.between(0, count as u64 - 1) as usize;
        let other = self.dice.between(0, count as u64 - 1) as usize;
        let camp = self.dice.any();
        let shape = self.dice.between(0, 5);
        self.tell(one, || format!("cut of shape {shape} with n{}", other + 1));
        match shape {
            0 => (0..count).for_each(|peer| {
                self.cut(one, peer);
                self.cut(peer, one);
            }),
            1 => (0..count).for_each(|peer| self.cut(one, peer)),
            2 => self.cut(one, other),
            3 => {
                self.cut(one, other);
                self.cut(other, one);
            }
            _ => {
                for from in 0..count {
                    for to in 0..count {
                        let is_between = shape == 5 && (from == one || to == one);
                        if !is_between && (camp >> from & 1) != (camp >> to & 1) {
                            self.cut(from, to);
                        }
                    }
                }
            }
        }
    }
}
