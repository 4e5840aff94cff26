//! Every order of events in small worlds of founders, to the end: the search behind the claim of `founding`.
//!
//! There are three addresses, a founder bids twice at most, and at any moment another node, which knows nothing, may be started
//! at any of the addresses; the old one goes on with what it knows. Two things are asked of every world that can be reached. No two
//! geneses are each held by a majority of their voters. And if from there on nothing went wrong, a cluster would come into being, and
//! nobody at an address would be left outside of it with a genesis that came to nothing.
//!
//! A message stays in the network: one that is never taken is lost, one that is taken twice was repeated. What makes this end:
//!
//! * A message that changes nobody any more, whatever else happens, is forgotten ([`World::is_spent`]).
//! * Whoever has something to hand on does so at once: what is under way may still arrive at any time, or never.
//! * The second and the third address differ in their names only, and of two worlds that differ in these one is looked at.
//!
//! Left out is `Established`: it is said by whoever was elected by a majority, so there is one, and it makes no second.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::tests::{RETRY, config, sent};
use super::*;
use crate::types::Incarnation;

/// How large a world is.
#[derive(Clone, Debug)]
struct Bounds {
    /// Nodes that are replaced at their address.
    replacements: u8,
    /// How often a founder bids.
    rounds: u64,
    /// Whether every world is asked how it ends, too. Where more are replaced than the rule bears, nothing is promised of that.
    asks_for_the_end: bool,
    /// What the machines are broken by.
    #[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "nothing is broken in a product"))]
    bug: Option<Bug>,
}

/// What is at the addresses, who was there before, and what is under way.
#[derive(Clone, Debug)]
struct World {
    /// First the nodes at the addresses, in their order, then those that were replaced.
    nodes: Vec<Founding>,
    /// Messages, by how they are spelled.
    wires: BTreeMap<Vec<u8>, Arc<Wire>>,
    replacements_left: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Wire {
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Bids(NodeId),
    Arrives(Arc<Wire>),
    IsReplaced(NodeId),
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(self, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        self.break_machines();
        let mut world = last.clone();
        world.take(&action);
        world.forget();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two clusters", |_, world: &World| !world.is_split()),
            Property::always("a cluster begins and nobody is left out", |bounds: &Self, world: &World| {
                bounds.break_machines();
                !bounds.asks_for_the_end || world.ends_well()
            }),
        ]
    }
}

impl Bounds {
    fn new(replacements: u8) -> Self {
        Self { replacements, rounds: 2, asks_for_the_end: true, bug: None }
    }

    /// The switch is one of the thread, and the checker has threads of its own.
    fn break_machines(&self) {
        #[cfg(feature = "mutants")]
        mutants::set(self.bug);
    }

    /// Looks at all worlds, or up to the first one in which a law is broken; says in words what was seen.
    fn explore(&self) -> Result<String, String> {
        let checker = self.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let seen = format!("{} worlds, {} events", checker.unique_state_count(), checker.max_depth());
        let shortest = checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
        let Some((law, path)) = shortest else {
            assert!(checker.is_done(), "the search is not closed: {seen}");
            return Ok(format!("{self:?}: all {seen}"));
        };
        let steps: Vec<String> = path.into_actions().iter().map(|action| format!("  {action:?}")).collect();
        Err(format!("{self:?}: not so: {law}\n{}\n{seen}", steps.join("\n")))
    }
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        let nodes = (1..=PLACES as u64).map(fresh).collect();
        let mut world = Self { nodes, wires: BTreeMap::new(), replacements_left: bounds.replacements };
        world.resolve();
        world
    }

    /// Everybody at an address knows who is at the others.
    fn resolve(&mut self) {
        let living = &mut self.nodes[..PLACES];
        let ids: Vec<NodeId> = living.iter().map(|node| node.config.node).collect();
        for node in living {
            ids.iter().enumerate().for_each(|(place, &id)| node.resolved(Nanos(0), place, id));
        }
    }

    fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let may_bid = |node: &&Founding| {
            let is_free = node.is_founder() && node.bid.is_none() && node.proposal.is_none();
            is_free && node.promised.round < bounds.rounds
        };
        actions.extend(self.nodes.iter().filter(may_bid).map(|node| Action::Bids(node.config.node)));
        actions.extend(self.wires.values().cloned().map(Action::Arrives));
        let living = self.nodes[..PLACES].iter().filter(|_| self.replacements_left > 0);
        actions.extend(living.map(|node| Action::IsReplaced(node.config.node)));
    }

    fn take(&mut self, action: &Action) {
        match action {
            Action::Bids(node) => self.run(*node, |node, effects| node.tick(Nanos(0), false, effects)),
            Action::Arrives(wire) => {
                let Wire { from, to, message } = &**wire;
                self.run(*to, |node, effects| node.message(Nanos(0), *from, message.clone(), effects));
            }
            Action::IsReplaced(node) => {
                self.replacements_left -= 1;
                let place = self.place(*node);
                let before = std::mem::replace(&mut self.nodes[place], fresh(node.0 + LIVES));
                self.nodes.push(before);
                self.resolve();
            }
        }
    }

    /// Something happens to a node, and it hands on what it can.
    fn run(&mut self, node: NodeId, step: impl FnOnce(&mut Founding, &mut Vec<Effect>)) {
        let place = self.place(node);
        let machine = &mut self.nodes[place];
        let mut effects = Vec::new();
        step(machine, &mut effects);
        machine.hand_on(Nanos(0), false, &mut effects);
        machine.deadline = Nanos(0);
        for (to, message) in sent(&effects) {
            let wire = Wire { from: node, to, message };
            self.wires.insert(Names::PLAIN.wire(&wire), Arc::new(wire));
        }
    }

    fn forget(&mut self) {
        let mut wires = std::mem::take(&mut self.wires);
        wires.retain(|_, wire| !self.is_spent(wire));
        self.wires = wires;
    }

    /// Whether a message does nothing when it arrives, now and whenever it does: promises only grow, an accepted genesis stays, and no
    /// two bids have one ballot.
    fn is_spent(&self, wire: &Wire) -> bool {
        let (from, to) = (self.node(wire.from), self.node(wire.to));
        let awaits = |node: &Founding, ballot| node.bid.as_ref().is_some_and(|bid| bid.ballot == ballot);
        // A founder that has accepted nothing counts those who have.
        let counts = |founder: &Founding| founder.is_founder() && founder.genesis.is_none();
        let may_be_outbid = |node: &Founding, ballot| {
            let mut papers = node.genesis.iter().chain(&node.proposal);
            counts(node) || node.is_founder() && papers.any(|genesis| genesis.ballot == ballot)
        };
        match &wire.message {
            Message::Found { ballot, .. } => {
                let is_free = to.genesis.is_none();
                let changes = is_free && *ballot > to.promised;
                !(changes || awaits(from, *ballot) || is_free && may_be_outbid(from, *ballot))
            }
            Message::FoundReply { ballot, answer } => match answer {
                FoundAnswer::Clean(node) => {
                    !to.bid.as_ref().is_some_and(|bid| bid.ballot == *ballot && !bid.clean.contains(node))
                }
                FoundAnswer::Promised(_) => !awaits(to, *ballot) && !may_be_outbid(to, *ballot),
                FoundAnswer::Member { .. } | FoundAnswer::Mismatch { .. } => !awaits(to, *ballot),
            },
            Message::Genesis(genesis) => match &to.genesis {
                Some(_) => !counts(from),
                None => {
                    let takes = genesis.voters.contains(&to.config.node) && genesis.ballot >= to.promised;
                    !takes && !may_be_outbid(from, genesis.ballot)
                }
            },
            Message::GenesisReply { .. } => !counts(to),
            Message::Established(_) | Message::Leads { .. } | Message::Removed => unreachable!("nobody leads here"),
        }
    }

    /// Two clusters that each have a majority of their voters.
    fn is_split(&self) -> bool {
        let papers = self.nodes.iter().filter_map(|node| node.genesis.as_ref());
        let chosen = papers.filter(|genesis| self.has_majority(genesis)).map(|genesis| genesis.cluster);
        chosen.collect::<BTreeSet<_>>().len() > 1
    }

    fn has_majority(&self, genesis: &Genesis) -> bool {
        let holders = genesis.voters.iter().filter(|node| {
            let mut nodes = self.nodes.iter().filter(|other| other.config.node == **node);
            nodes.any(|node| cluster(node) == Some(genesis.cluster))
        });
        holders.count() * 2 > genesis.voters.len()
    }

    /// From here on nothing goes wrong, those who were replaced are ended, and what was under way is lost: does a cluster begin, and is
    /// nobody left who is in another one?
    fn ends_well(&self) -> bool {
        let mut nodes = self.nodes[..PLACES].to_vec();
        let mut now = Nanos(0);
        for _ in 0..TURNS {
            now = now + RETRY * 4;
            let mut under_way = Vec::new();
            for node in &mut nodes {
                let mut effects = Vec::new();
                node.tick(now, false, &mut effects);
                under_way.extend(sent(&effects).into_iter().map(|(to, message)| (node.config.node, to, message)));
            }
            while let Some((from, to, message)) = under_way.pop() {
                let place = |id| nodes.iter().position(|node| node.config.node == id);
                let (Some(sender), Some(receiver)) = (place(from), place(to)) else { continue };
                // A link is refused to whoever is in another cluster.
                let clusters = [sender, receiver].map(|place| cluster(&nodes[place]));
                if matches!(clusters, [Some(one), Some(other)] if one != other) {
                    continue;
                }
                let mut effects = Vec::new();
                nodes[receiver].message(now, from, message, &mut effects);
                under_way.extend(sent(&effects).into_iter().map(|(next, message)| (to, next, message)));
            }
        }
        let calm = Self { nodes, wires: BTreeMap::new(), replacements_left: 0 };
        let mut papers = calm.nodes.iter().filter_map(|node| node.genesis.as_ref());
        let begun = papers.find(|genesis| calm.has_majority(genesis)).map(|genesis| genesis.cluster);
        begun.is_some() && calm.nodes.iter().filter_map(cluster).all(|cluster| Some(cluster) == begun)
    }

    fn place(&self, node: NodeId) -> usize {
        self.nodes.iter().position(|other| other.config.node == node).expect("nobody vanishes")
    }

    fn node(&self, node: NodeId) -> &Founding {
        &self.nodes[self.place(node)]
    }

    /// All that may matter later, spelled out.
    fn spelled(&self, names: &Names) -> Vec<u8> {
        let mut nodes: Vec<Vec<u8>> = self.nodes.iter().map(|node| names.machine(node)).collect();
        nodes.sort_unstable();
        let mut wires: Vec<Vec<u8>> = self.wires.values().map(|wire| names.wire(wire)).collect();
        wires.sort_unstable();
        let mut all = vec![self.replacements_left];
        for part in nodes.into_iter().chain(wires) {
            all.push(u8::try_from(part.len()).expect("parts are short"));
            all.extend(part);
        }
        all
    }

    /// The same for a world in which the second and the third address are exchanged.
    fn print(&self) -> Vec<u8> {
        self.spelled(&Names::PLAIN).min(self.spelled(&Names::EXCHANGED))
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.print().hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.print() == other.print()
    }
}

/// How places are called.
struct Names([u8; PLACES]);

impl Names {
    const PLAIN: Self = Self([0, 1, 2]);
    const EXCHANGED: Self = Self([0, 2, 1]);

    fn node(&self, node: NodeId) -> u8 {
        let (place, life) = (node.0 % LIVES - 1, node.0 / LIVES);
        self.0[place as usize] << 4 | life as u8
    }

    fn ballot(&self, ballot: Ballot) -> [u8; 2] {
        [ballot.round as u8, if ballot.round == 0 { 0 } else { self.node(ballot.node) }]
    }

    fn set<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<u8> {
        let mut names: Vec<u8> = nodes.into_iter().map(|node| self.node(*node)).collect();
        names.sort_unstable();
        names.push(0xff);
        names
    }

    fn genesis(&self, genesis: Option<&Genesis>) -> Vec<u8> {
        let Some(Genesis { cluster, ballot, voters, .. }) = genesis else { return vec![0xff] };
        // The founder and the round.
        let [.., founder, round] = cluster.0.to_be_bytes();
        let names = [self.node(NodeId(founder.into())), round];
        [&names[..], &self.ballot(*ballot), &self.set(voters)].concat()
    }

    fn machine(&self, node: &Founding) -> Vec<u8> {
        let own = [self.node(node.config.node)];
        let mut all = [&own[..], &self.ballot(node.promised), &self.genesis(node.genesis.as_ref())].concat();
        if node.is_founder() {
            all.push((node.is_outbid && node.genesis.is_some()).into());
            all.extend(self.genesis(node.proposal.as_ref()));
            // Who else has it makes a difference until it is accepted here.
            let confirmed = node.confirmed.iter().filter(|_| node.proposal.is_some() && node.genesis.is_none());
            all.extend(self.set(confirmed));
            all.extend(self.set(node.resolved.values()));
            if let Some(bid) = &node.bid {
                all.extend(self.ballot(bid.ballot));
                all.extend(self.set(&bid.clean));
            }
        }
        all
    }

    fn wire(&self, Wire { from, to, message }: &Wire) -> Vec<u8> {
        let (kind, rest) = match message {
            Message::Found { ballot, .. } => (0, self.ballot(*ballot).to_vec()),
            Message::FoundReply { ballot, answer } => match answer {
                FoundAnswer::Clean(_) => (1, self.ballot(*ballot).to_vec()),
                FoundAnswer::Promised(higher) => (2, [self.ballot(*ballot), self.ballot(*higher)].concat()),
                FoundAnswer::Member { genesis, .. } => {
                    (3, [&self.ballot(*ballot)[..], &self.genesis(Some(genesis))].concat())
                }
                FoundAnswer::Mismatch { .. } => unreachable!("all have one list"),
            },
            Message::Genesis(genesis) => (4, self.genesis(Some(genesis))),
            Message::GenesisReply { genesis } => (5, self.genesis(Some(genesis))),
            Message::Established(_) | Message::Leads { .. } | Message::Removed => unreachable!("nobody leads here"),
        };
        [&[self.node(*from), self.node(*to), kind][..], &rest].concat()
    }
}

fn cluster(node: &Founding) -> Option<ClusterId> {
    node.genesis.as_ref().map(|genesis| genesis.cluster)
}

fn fresh(node: u64) -> Founding {
    // The last byte is for the round.
    let config = Config { node: NodeId(node), cluster: ClusterId(u128::from(node) << 8), ..config(node, PLACES) };
    Founding::new(config, &Durable::fresh(NodeId(node), Incarnation(1)), Nanos(0))
}

#[test]
fn one_replaced_node_makes_no_two_clusters_and_keeps_none_from_beginning() {
    println!("{}", Bounds::new(1).explore().unwrap_or_else(|why| panic!("{why}")));
}

#[test]
fn two_replaced_nodes_may_make_two_clusters_as_documented() {
    let found = Bounds { asks_for_the_end: false, ..Bounds::new(2) }.explore();
    println!("{}", found.expect_err("the bound of the claim is sharp"));
}

/// Walks at random, forgets nothing on the way, and compares with what the search forgets.
#[test]
fn what_the_search_forgets_does_nothing_now_or_later() {
    let bounds = Bounds { rounds: 3, ..Bounds::new(1) };
    let mut random = 1_u64;
    let mut pick = |count: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % count
    };
    let mut compared = 0;
    for _ in 0..WALKS {
        let (mut world, mut spent) = (World::new(&bounds), BTreeSet::new());
        for _ in 0..STEPS {
            for (spelled, wire) in &world.wires {
                let is_spent = world.is_spent(wire);
                assert!(is_spent || !spent.contains(spelled), "it means something again: {wire:?} in {world:?}");
                if is_spent {
                    spent.insert(spelled.clone());
                }
            }
            let print = |world: &World| {
                let mut world = world.clone();
                world.forget();
                world.print()
            };
            if let Some(spelled) = spent.iter().nth(pick(spent.len().max(1))) {
                let mut after = world.clone();
                after.take(&Action::Arrives(Arc::clone(&world.wires[spelled])));
                assert_eq!(print(&after), print(&world), "{:?} changes {world:?}", world.wires[spelled]);
                compared += 1;
            }
            let mut actions = Vec::new();
            world.actions(&bounds, &mut actions);
            actions.retain(|action| !matches!(action, Action::Arrives(wire) if world.is_spent(wire)));
            if actions.is_empty() {
                break;
            }
            let action = actions[pick(actions.len())].clone();
            world.take(&action);
        }
    }
    assert!(compared > WALKS, "{compared} messages were compared");
}

#[cfg(feature = "mutants")]
#[test]
fn every_deliberate_bug_of_the_founding_is_found_by_the_search() {
    let makes_two = [Bug::FoundsOnMajority, Bug::AcceptsBelowPromise, Bug::FoundsBesideMember];
    let makes_none = [Bug::AcceptsAlone, Bug::StaysOutbid];
    for bug in makes_two.into_iter().chain(makes_none) {
        let asks_for_the_end = makes_none.contains(&bug);
        let found = Bounds { bug: Some(bug), asks_for_the_end, ..Bounds::new(1) }.explore();
        println!("{}", found.expect_err("the search finds it"));
    }
}

const PLACES: usize = 3;

/// Identities at one address differ by this.
const LIVES: u64 = 16;

/// How often everybody looks at the clock in a calm world: more than it takes until a cluster begins.
const TURNS: usize = 12;

const WALKS: usize = 2_000;

/// More than there are events in any of these worlds, repetitions aside.
const STEPS: usize = 60;
