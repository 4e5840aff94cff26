//! What must hold whatever happens, checked after every step.
//!
//! Each law is one function with the name of the law; a broken one panics with that name, the time and the facts.

use std::collections::BTreeMap;

use protocol::consensus::ReadMode;
use protocol::durable::{ConfState, Durable, Entry, HardState, Payload};
use protocol::effects::Role;
use protocol::{Epoch, Index, LogId, NodeId};

use crate::world::{Seen, World};

/// What the checker remembers of a run.
#[derive(Default)]
pub struct Laws {
    /// Clocks are outside the bound: leases and lease reads promise nothing.
    pub is_wild: bool,
    /// Who was elected in each epoch.
    pub leaders: BTreeMap<Epoch, usize>,
    /// The one committed log, from index 2 on.
    pub committed: Vec<Entry>,
    /// The epoch in which each of them was seen to be committed.
    committed_in: Vec<Epoch>,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Reads that were answered, by quorum and by lease.
    pub reads: (u64, u64),
    /// Snapshots that were installed.
    pub installs: u64,
    /// Elections that were won.
    pub elections: u64,
    /// A hash of all that was seen.
    pub trace: u64,
    proposals: BTreeMap<(usize, Index), LogId>,
    waiting: BTreeMap<u64, (usize, ReadMode, Index)>,
    /// Everything up to here has been told to some client.
    floor: Index,
    hard: Vec<HardState>,
    checked: u64,
}

impl Laws {
    /// A client asks a node to read.
    pub fn note_read(&mut self, at: usize, context: u64, mode: ReadMode) {
        self.waiting.insert(context, (at, mode, self.floor));
    }

    /// A node went down with all that it had been asked.
    pub fn note_crash(&mut self, at: usize) {
        self.proposals.retain(|(node, _), _| *node != at);
        self.waiting.retain(|_, (node, ..)| *node != at);
    }

    /// Checks everything.
    pub fn check(&mut self, world: &mut World) {
        for at in 0..world.nodes.len() {
            if world.nodes[at].core.is_some() {
                self.election_safety(world, at);
                self.commit_on_a_durable_quorum(world, at);
            }
            self.epochs_and_votes_only_grow(world, at);
            nothing_is_forgotten_unsaved(world, at);
        }
        for (at, seen) in std::mem::take(&mut world.seen) {
            self.trace = match &seen {
                // The place says it all: State Machine Safety watches the rest.
                Seen::Applied(entries) => fold(self.trace, &(world.time, at, entries.last().map(|entry| entry.id))),
                other => fold(self.trace, &(world.time, at, other)),
            };
            self.observe(world, at, seen);
        }
        self.at_most_one_lease(world);
        self.checked += 1;
        if self.checked.is_multiple_of(512) {
            self.log_matching(world);
            (0..world.nodes.len()).for_each(|at| self.a_log_is_whole(world, at));
        }
    }

    /// Election Safety: at most one leader per epoch. Leader Completeness: it has everything that is committed.
    fn election_safety(&mut self, world: &World, at: usize) {
        let core = world.core(at);
        if core.role() != Role::Leader {
            return;
        }
        match self.leaders.get(&core.epoch()) {
            Some(leader) => law(*leader == at, world, "Election Safety", || format!("{} and {at}", leader)),
            None => {
                self.leaders.insert(core.epoch(), at);
                self.elections += 1;
                // Only what was committed in an older epoch: a slow election may be overtaken by a later one.
                let older = self.committed_in.partition_point(|epoch| *epoch < core.epoch());
                // What was forgotten was applied before, and is watched there.
                let first = (core.base().index.0 as usize - 1).min(older);
                let held = core.entries(Index(2)..=Index(older as u64 + 1));
                let is_complete = same_all(held, &self.committed[first..older]);
                law(is_complete, world, "Leader Completeness", || format!("n{} in epoch {}", at + 1, core.epoch()));
            }
        }
    }

    /// What a node believes to be committed is on the disks of a majority, and nobody believes otherwise.
    fn commit_on_a_durable_quorum(&mut self, world: &World, at: usize) {
        let core = world.core(at);
        let known = Index(self.committed.len() as u64 + 1);
        if core.commit() <= known {
            return;
        }
        // R7: entries of older epochs are committed by one of the leader's own behind them, never by counting.
        let newest = core.entries(core.commit()..=core.commit()).first().map(|entry| entry.id);
        let is_own = core.role() != Role::Leader || newest.is_some_and(|id| id.epoch == core.epoch());
        law(is_own, world, "A leader commits its own", || format!("n{} {newest:?} in epoch {}", at + 1, core.epoch()));
        for entry in core.entries(known.next()..=core.commit()) {
            let holds = |node: &&NodeId| holds(&world.nodes[(node.0 - 1) as usize].disk, entry.id);
            let is_most = |voters: &[NodeId]| voters.iter().filter(holds).count() * 2 > voters.len();
            let conf = core.conf().expect("every core is founded");
            let is_durable = is_most(&conf.voters) && (conf.outgoing.is_empty() || is_most(&conf.outgoing));
            law(is_durable, world, "Commit on a durable quorum", || format!("{} under {conf:?}", entry.id));
            self.committed.push(entry.clone());
            self.committed_in.push(core.epoch());
        }
    }

    /// The durable epoch never falls, and a durable vote is never changed within its epoch.
    fn epochs_and_votes_only_grow(&mut self, world: &World, at: usize) {
        self.hard.resize(world.nodes.len(), HardState::default());
        let (old, new) = (self.hard[at], world.nodes[at].disk.hard_state);
        let grows = new.epoch > old.epoch || (new.epoch == old.epoch && (old.vote.is_none() || new.vote == old.vote));
        law(grows, world, "One vote per epoch", || format!("n{}: {old:?} to {new:?}", at + 1));
        // F2: it would help to elect a leader without what it acknowledged.
        let is_heard = world.nodes[at].is_retired && new.vote.is_some() && new != old;
        law(!is_heard, world, "Who gave up its log never votes", || format!("n{}: {old:?} to {new:?}", at + 1));
        self.hard[at] = new;
    }

    fn observe(&mut self, world: &World, at: usize, seen: Seen) {
        match seen {
            Seen::Applied(entries) => entries.iter().for_each(|entry| self.state_machine_safety(world, at, entry)),
            Seen::Accepted(_, id) => {
                self.proposals.insert((at, id.index), id);
            }
            Seen::ReadReady(context, index) => self.linearizable(world, at, context, index),
            Seen::Dropped(context, _) => {
                self.waiting.remove(&context);
            }
            Seen::Urged(to, last) => {
                let holds = holds(&world.nodes[to].disk, last);
                law(holds, world, "An heir holds the whole log", || format!("n{} without {last}", to + 1));
            }
            Seen::Fatal(why) => law(false, world, "No core breaks", || format!("n{}: {why}", at + 1)),
            Seen::Installed(last) => {
                let place = last.index.0 as usize - 2;
                let is_same = self.committed.get(place).is_some_and(|known| known.id == last);
                law(is_same, world, "A snapshot is of what is committed", || format!("n{} {last}", at + 1));
                // The whole log is that of the snapshot, or goes on behind it.
                let base = world.core(at).base();
                law(base >= last, world, "An install keeps no prefix", || format!("n{} {base}", at + 1));
                self.a_log_is_whole(world, at);
                self.installs += 1;
                self.proposals.retain(|(node, index), _| *node != at || *index > last.index);
            }
            Seen::Saves(last) => {
                let applied = world.core(at).applied();
                law(applied == last.index, world, "A snapshot is of what is applied", || {
                    format!("{last} at {applied}")
                });
            }
            Seen::Role(..)
            | Seen::Fetches(..)
            | Seen::Retired
            | Seen::Surrender(..)
            | Seen::Resume(_)
            | Seen::Authority(_)
            | Seen::Sent { .. }
            | Seen::Wrote(_) => {}
        }
    }

    /// State Machine Safety: every node applies the same entries. A proposal is acknowledged when its own entry is applied
    /// where it was accepted.
    fn state_machine_safety(&mut self, world: &World, at: usize, entry: &Entry) {
        let place = (entry.id.index.0 - 2) as usize;
        let is_same = self.committed.get(place).is_some_and(|known| same(known, entry));
        law(is_same, world, "State Machine Safety", || format!("n{} {}", at + 1, entry.id));
        if self.proposals.remove(&(at, entry.id.index)) == Some(entry.id) {
            self.acked += 1;
            self.floor = self.floor.max(entry.id.index);
        }
    }

    /// A read shows everything that anyone was told before it began.
    fn linearizable(&mut self, world: &World, at: usize, context: u64, index: Index) {
        let Some((node, mode, floor)) = self.waiting.remove(&context) else {
            return law(false, world, "A read is answered once", || format!("read {context}"));
        };
        let applied = world.core(at).applied();
        law(node == at && applied >= index, world, "A read waits for its index", || format!("{index} of {applied}"));
        if mode == ReadMode::Lease && self.is_wild {
            return;
        }
        law(applied >= floor, world, "Linearizable reads", || format!("n{} {mode:?}: {applied} after {floor}", at + 1));
        self.floor = self.floor.max(applied);
        match mode {
            ReadMode::Quorum => self.reads.0 += 1,
            ReadMode::Lease => self.reads.1 += 1,
        }
    }

    /// At any instant at most one node holds a valid lease, by its own clock, or shows a valid authority.
    fn at_most_one_lease(&self, world: &World) {
        if self.is_wild {
            return;
        }
        let holds = |at: &usize| {
            let now = world.local(*at);
            let node = &world.nodes[*at];
            let core = node.core.as_ref();
            core.is_some_and(|core| core.lease_until(now).is_some())
                || node.authority.is_some_and(|authority| now < authority.until)
        };
        let mut holders = (0..world.nodes.len()).filter(holds);
        if let (Some(one), Some(other)) = (holders.next(), holders.next()) {
            law(false, world, "At most one lease", || format!("n{} and n{}", one + 1, other + 1));
        }
    }

    /// A log is one line: it goes on from what is committed, epochs never fall along it, and the newest configuration on that line
    /// is in force (C1, F16).
    fn a_log_is_whole(&self, world: &World, at: usize) {
        let Some(core) = &world.nodes[at].core else { return };
        let (base, entries) = (core.base(), core.entries(core.base().index.next()..=core.last().index));
        let before = self.committed.get(..base.index.0 as usize - 1).unwrap_or_default();
        let joins = base.index == Index(1) || before.last().is_some_and(|entry| entry.id == base);
        law(joins, world, "What is forgotten is committed", || format!("n{} {base}", at + 1));
        let mut last = base;
        for entry in entries {
            let follows = entry.id.epoch >= last.epoch && entry.id.index == last.index.next();
            law(follows, world, "Epochs never fall along a log", || format!("n{} {} after {last}", at + 1, entry.id));
            last = entry.id;
        }
        // While there is none, that of the genesis is in force.
        let newest = entries.iter().rev().chain(before.iter().rev()).find_map(configuration);
        let is_in_force = newest.is_none_or(|conf| core.conf() == Some(conf));
        law(is_in_force, world, "The newest configuration is in force", || format!("n{} {:?}", at + 1, core.conf()));
    }

    /// Log Matching: where two logs have the same entry, they are the same up to it.
    pub fn log_matching(&self, world: &World) {
        let cores: Vec<_> = world.nodes.iter().filter_map(|node| node.core.as_ref()).collect();
        for (place, one) in cores.iter().enumerate() {
            for other in &cores[place + 1..] {
                let end = one.last().index.min(other.last().index);
                let first = one.base().index.max(other.base().index).next();
                let (one, other) = (one.entries(first..=end), other.entries(first..=end));
                let agree = one.iter().zip(other).rposition(|(one, other)| one.id == other.id).map_or(0, |at| at + 1);
                law(same_all(&one[..agree], &other[..agree]), world, "Log Matching", || format!("up to {agree}"));
            }
        }
    }
}

/// F16: what is no longer in a log on a disk is in a snapshot on that disk.
fn nothing_is_forgotten_unsaved(world: &World, at: usize) {
    let disk = &world.nodes[at].disk;
    let saved = disk.snapshot.as_ref().map_or(Index(1), |snapshot| snapshot.meta.last.index);
    law(disk.base.index <= saved, world, "Nothing is forgotten unsaved", || {
        format!("n{} {} of {saved}", at + 1, disk.base)
    });
}

fn configuration(entry: &Entry) -> Option<&ConfState> {
    match &entry.payload {
        Payload::Config(conf) => Some(conf),
        _ => None,
    }
}

/// Whether a log on a disk holds this entry, or a snapshot that stands for it.
fn holds(disk: &Durable, id: LogId) -> bool {
    match id.index.0.checked_sub(disk.base.index.0 + 1) {
        Some(place) => disk.entries.get(place as usize).is_some_and(|held| held.id == id),
        None => true,
    }
}

/// Whether two entries are equal. Copies share their bytes here, so most comparisons end at the pointer.
fn same(one: &Entry, other: &Entry) -> bool {
    let is_copy = match (&one.payload, &other.payload) {
        (Payload::Commands(one), Payload::Commands(other)) => {
            one.as_ptr() == other.as_ptr() && one.len() == other.len()
        }
        _ => false,
    };
    one.id == other.id && one.time == other.time && (is_copy || one.payload == other.payload)
}

fn same_all(one: &[Entry], other: &[Entry]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

/// Panics with the name of a broken law.
fn law(holds: bool, world: &World, name: &str, facts: impl Fn() -> String) {
    assert!(holds, "{name} is broken at {:.3} ms: {}", world.time as f64 / 1e6, facts());
}

/// Adds something to a running hash.
fn fold(hash: u64, what: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(hash);
    what.hash(&mut hasher);
    hasher.finish()
}
