//! Every order of events of a small world: three cores, a network that loses, repeats and reorders, disks that answer late,
//! crashes.
//!
//! Time is taken out of the cores (`forget_time`), so a promise never holds anyone back and any node may campaign at any
//! moment: more can happen here than in any real cluster, and the log must be safe all the same. Messages stay in the network
//! for ever, which is loss, repetition and reordering in one. Pre-votes are skipped: they can only prevent elections.
//!
//! `TENURE_STATES=3000000 cargo test -p tenure-protocol --features mutants --test core every_order -- --nocapture` looks at
//! more than the default bound.

#![allow(clippy::disallowed_types, reason = "the set of visited states is never iterated")]

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use protocol::consensus::{Bug, Config, Consensus, Effect, Input, Message};
use protocol::durable::{Durable, Genesis, Persist};
use protocol::effects::Role;
use protocol::{ClusterId, Epoch, Incarnation, Index, LogId, Nanos, NodeId, Profile};

use crate::dice::Dice;

/// How large the small world is.
#[derive(Clone, Copy)]
struct Bounds {
    epoch: u64,
    proposals: u8,
    crashes: u8,
    /// Disks answer whenever they like, not at once.
    late: bool,
    states: usize,
    bug: Option<Bug>,
}

#[derive(Clone)]
struct State {
    nodes: Vec<Rc<Node>>,
    /// Everything that was ever sent, and may arrive at any time.
    network: Vec<(u8, u8, Said)>,
    proposals: u8,
    crashes: u8,
    leaders: BTreeMap<Epoch, usize>,
    committed: Vec<LogId>,
}

#[derive(Clone)]
struct Node {
    /// Of all the rest, so that an unchanged node is not hashed again.
    hash: u64,
    core: Consensus,
    disk: Durable,
    unsynced: Vec<Persist>,
    held: BTreeSet<(u64, usize, Said)>,
    synced: u64,
}

/// The name of a message: its hash. The message itself is kept once, beside all states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Said(u64);

thread_local! {
    static MESSAGES: RefCell<BTreeMap<Said, Message>> = const { RefCell::new(BTreeMap::new()) };
}

impl Said {
    fn new(mut message: Message) -> Self {
        match &mut message {
            Message::Append(append) => append.sent = Nanos(1),
            Message::AppendReply(reply) => reply.sent = Nanos(1),
            _ => {}
        }
        let said = Self(hash(&message));
        MESSAGES.with_borrow_mut(|messages| drop(messages.insert(said, message)));
        said
    }

    fn message(self) -> Message {
        MESSAGES.with_borrow(|messages| messages[&self].clone())
    }
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Action {
    Campaign(usize),
    Propose(usize),
    Sync(usize),
    Crash(usize, usize),
    Arrive(usize, usize, Said),
}

impl State {
    fn new(bounds: &Bounds) -> Self {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let genesis = Genesis { cluster: ClusterId(7), ballot: Default::default(), voters: voters.clone(), target: 3 };
        let node = |node: &NodeId| {
            let mut disk = Durable::fresh(*node, Incarnation(1));
            disk.apply(&Persist { genesis: Some(genesis.clone()), ..Persist::default() });
            Rc::new(Node::start(disk, bounds))
        };
        let nodes = voters.iter().map(node).collect();
        let (network, leaders) = (Vec::new(), BTreeMap::new());
        Self { nodes, network, proposals: 0, crashes: 0, leaders, committed: Vec::new() }
    }

    fn hash(&self) -> u64 {
        let nodes: Vec<u64> = self.nodes.iter().map(|node| node.hash).collect();
        hash(&(nodes, &self.network, self.proposals, self.crashes, &self.leaders, &self.committed))
    }

    fn actions(&self, bounds: &Bounds) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let is_leader = node.core.role() == Role::Leader;
            // Nodes are alike, so the first to campaign may be the first.
            let is_turn = at == 0 || self.nodes[0].core.epoch() > Epoch(1) || node.core.epoch() > Epoch(1);
            if !is_leader && is_turn && node.core.epoch().0 < bounds.epoch {
                actions.push(Action::Campaign(at));
            }
            if is_leader && self.proposals < bounds.proposals {
                actions.push(Action::Propose(at));
            }
            if !node.unsynced.is_empty() {
                actions.push(Action::Sync(at));
            }
            if self.crashes < bounds.crashes {
                actions.extend((0..=node.unsynced.len()).map(|survivors| Action::Crash(at, survivors)));
            }
        }
        actions.extend(
            self.network.iter().map(|(from, to, said)| Action::Arrive(usize::from(*from), usize::from(*to), *said)),
        );
        // Depth first finds more when it does not try the same kind of thing first everywhere.
        let mut dice = Dice(self.hash());
        for place in (1..actions.len()).rev() {
            actions.swap(place, dice.between(0, place as u64) as usize);
        }
        actions
    }

    fn take(&mut self, action: &Action, bounds: &Bounds) {
        match action {
            Action::Campaign(at) => self.campaign(*at),
            Action::Propose(at) => {
                self.proposals += 1;
                let epoch = self.nodes[*at].core.epoch();
                self.step(*at, Input::Propose { context: 0, epoch, payload: Default::default() });
            }
            Action::Sync(at) => self.sync(*at),
            Action::Crash(at, survivors) => {
                self.crashes += 1;
                let node = Rc::make_mut(&mut self.nodes[*at]);
                node.unsynced.drain(..).take(*survivors).for_each(|batch| node.disk.apply(&batch));
                *node = Node::start(node.disk.clone(), bounds);
                self.step(*at, Input::Tick);
            }
            Action::Arrive(from, to, said) => {
                self.step(*to, Input::Message { from: NodeId(*from as u64 + 1), message: said.message() });
            }
        }
        if !bounds.late {
            for at in 0..self.nodes.len() {
                while !self.nodes[at].unsynced.is_empty() {
                    self.check();
                    self.sync(at);
                }
            }
        }
        self.check();
    }

    /// Asks, and everyone says yes at once: a pre-vote only keeps elections from happening.
    fn campaign(&mut self, at: usize) {
        let mut effects = Vec::new();
        let core = &mut Rc::make_mut(&mut self.nodes[at]).core;
        // A known leader keeps a node from campaigning only for a time, and time is forgotten: a suspicion asks as well.
        match core.leader() {
            Some(node) => core.step(Nanos(2), Input::Suspected { node }, &mut effects),
            None => core.campaign_now(Nanos(2), &mut effects),
        }
        let message = Message::PreVoteReply { epoch: core.epoch().next(), granted: true };
        let from = NodeId(if at == 0 { 2 } else { 1 });
        core.step(Nanos(3), Input::Message { from, message }, &mut effects);
        self.carry_out(at, effects);
    }

    fn sync(&mut self, at: usize) {
        let node = Rc::make_mut(&mut self.nodes[at]);
        for batch in std::mem::take(&mut node.unsynced) {
            node.disk.apply(&batch);
            node.synced = batch.seq;
        }
        let seq = node.synced;
        for (_, to, said) in std::mem::take(&mut node.held) {
            self.send(at, to, said);
        }
        self.step(at, Input::Persisted { seq });
    }

    fn step(&mut self, at: usize, input: Input) {
        let mut effects = Vec::new();
        Rc::make_mut(&mut self.nodes[at]).core.step(Nanos(2), input, &mut effects);
        self.carry_out(at, effects);
    }

    fn send(&mut self, from: usize, to: usize, said: Said) {
        let on_its_way = (from as u8, to as u8, said);
        if let Err(place) = self.network.binary_search(&on_its_way) {
            self.network.insert(place, on_its_way);
        }
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            let node = Rc::make_mut(&mut self.nodes[at]);
            match effect {
                Effect::Persist(batch) => node.unsynced.push(batch),
                Effect::Send { message: Message::PreVote { .. } | Message::PreVoteReply { .. }, .. } => {}
                Effect::Send { to, message, after } => {
                    let (to, said) = ((to.0 - 1) as usize, Said::new(message));
                    match after.filter(|seq| *seq > node.synced) {
                        Some(seq) => drop(node.held.insert((seq, to, said))),
                        None => self.send(at, to, said),
                    }
                }
                Effect::Fatal(why) => panic!("n{} stops: {why}", at + 1),
                _ => {}
            }
        }
        let node = Rc::make_mut(&mut self.nodes[at]);
        node.core.forget_time();
        node.hash = hash(&(&node.core, &node.disk, &node.unsynced, &node.held, node.synced));
    }

    /// Election Safety, Leader Completeness, State Machine Safety, and commits on durable quorums.
    fn check(&mut self) {
        for at in 0..self.nodes.len() {
            let core = &self.nodes[at].core;
            if core.role() == Role::Leader {
                let leader = *self.leaders.entry(core.epoch()).or_insert(at);
                assert_eq!(leader, at, "two leaders in epoch {}", core.epoch());
            }
            for entry in core.entries(Index(2)..=core.commit()) {
                let place = (entry.id.index.0 - 2) as usize;
                match self.committed.get(place) {
                    Some(known) => assert_eq!(*known, entry.id, "two entries are committed at one place"),
                    None => {
                        let holds =
                            |node: &&Rc<Node>| node.disk.entries.get(place).is_some_and(|held| held.id == entry.id);
                        assert!(self.nodes.iter().filter(holds).count() >= 2, "{} is on no durable quorum", entry.id);
                        self.committed.push(entry.id);
                    }
                }
            }
        }
    }
}

impl Node {
    fn start(disk: Durable, bounds: &Bounds) -> Self {
        let for_ever = Duration::from_secs(1 << 30);
        let profile = Profile { election_timeout: for_ever, ..Profile::LAN };
        let config = Config { node: disk.node, profile, seed: 0 };
        let mut core = Consensus::new(config, disk.clone(), Nanos(1)).with_bug(bounds.bug);
        core.forget_time();
        Self { hash: 0, core, disk, unsynced: Vec::new(), held: BTreeSet::new(), synced: 0 }
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Looks at every reachable state within the bounds, depth first; says how many there were and whether that was all.
fn explore(bounds: &Bounds) -> (usize, bool) {
    let first = State::new(bounds);
    let mut visited = HashSet::from([first.hash()]);
    let mut stack = vec![(first.actions(bounds), first)];
    while let Some((actions, state)) = stack.last_mut() {
        let Some(action) = actions.pop() else {
            stack.pop();
            continue;
        };
        let mut next = state.clone();
        next.take(&action, bounds);
        if visited.insert(next.hash()) {
            if visited.len() >= bounds.states {
                return (visited.len(), false);
            }
            assert!(stack.len() < DEPTH_MAX, "a path without end: the state holds something that only counts");
            stack.push((next.actions(bounds), next));
        }
    }
    (visited.len(), true)
}

/// Longer than any path of a world in which everything that changes is bounded.
const DEPTH_MAX: usize = 500;

fn states(default: usize) -> usize {
    let asked = std::env::var("TENURE_STATES").ok();
    asked.map_or(default, |number| number.parse().expect("TENURE_STATES is a number"))
}

#[test]
fn every_order_of_a_small_world_is_safe() {
    let worlds = [
        (2, 1, 0, true),
        (2, 0, 1, true),
        (3, 0, 0, false),
        (3, 1, 0, false),
        (3, 0, 1, true),
        (4, 1, 1, false),
        (4, 2, 0, false),
    ];
    for (epoch, proposals, crashes, late) in worlds {
        let bounds = Bounds { epoch, proposals, crashes, late, states: states(20_000), bug: None };
        let (seen, is_all) = explore(&bounds);
        let (all, disks) = (if is_all { "all" } else { "the first" }, if late { "late" } else { "prompt" });
        println!("up to epoch {epoch}, {proposals} proposals, {crashes} crashes, {disks} disks: {all} {seen} states");
    }
}

#[test]
fn the_small_world_shows_bugs_of_the_log() {
    let worlds = [
        (Bug::ForgetsVote, 2, 0),
        (Bug::TruncatesAlways, 3, 1),
        (Bug::CountsUnsynced, 3, 1),
        (Bug::AcksUnsynced, 3, 1),
    ];
    for (bug, epoch, proposals) in worlds {
        let bounds = Bounds { epoch, proposals, crashes: 1, late: true, states: 200_000, bug: Some(bug) };
        let found = std::panic::catch_unwind(|| explore(&bounds)).err();
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: {}", found.downcast_ref::<String>().map_or("panicked", String::as_str));
    }
}
