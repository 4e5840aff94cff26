//! A network, a clock and faults for engines: everything that happens follows from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use membership::engine::{Effects, Engine, Input, Setup};
use membership::{Event, MemberState, Tags, Timing, View};
use protocol::{Incarnation, Nanos, NodeId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Engines on a virtual network.
pub struct World {
    pub now: Nanos,
    pub nodes: Vec<Node>,
    /// The part of all datagrams that is lost.
    pub loss: f64,
    /// Links that are cut in one direction, from the first to the second.
    pub cut: BTreeSet<(usize, usize)>,
    pub rng: SmallRng,
    /// Every event of every node, in order.
    pub history: Vec<(Nanos, usize, Event)>,
    pub bytes: u64,
    pub datagrams: u64,
    timing: Timing,
    flights: BTreeMap<(Nanos, u64), Flight>,
    next: u64,
    trace: u64,
}

/// One node, running or not.
pub struct Node {
    pub incarnation: Incarnation,
    pub engine: Option<Engine>,
    pub has_left: bool,
    /// Nodes hear only those of the same side.
    pub side: usize,
    /// Until then the process stands still.
    pub stalled: Nanos,
    /// Until then its timers run but its datagrams wait.
    pub deaf: Nanos,
    /// The first snapshot with every event since applied to it.
    pub replayed: Option<View>,
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
}

struct Flight {
    from: usize,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl World {
    pub fn new(seed: u64, timing: Timing) -> Self {
        Self {
            now: Nanos(1_000_000_000),
            nodes: Vec::new(),
            loss: 0.0,
            cut: BTreeSet::new(),
            rng: SmallRng::seed_from_u64(seed),
            history: Vec::new(),
            bytes: 0,
            datagrams: 0,
            timing,
            flights: BTreeMap::new(),
            next: 0,
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// A world of so many nodes that all know each other.
    pub fn settled(seed: u64, timing: Timing, size: usize) -> Self {
        let mut world = Self::new(seed, timing);
        for _ in 0..size {
            world.add();
        }
        world.run_until(Duration::from_secs(30), "everybody meets", Self::is_exact);
        // What the meeting left to gossip about is said.
        world.run(Duration::from_secs(3));
        world
    }

    /// Adds a node that knows the first one's address.
    pub fn add(&mut self) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node {
            incarnation: Incarnation(0),
            engine: None,
            has_left: false,
            side: 0,
            stalled: Nanos(0),
            deaf: Nanos(0),
            replayed: None,
            inbox: VecDeque::new(),
        });
        self.start(index);
        index
    }

    /// Starts a node that is not running, under the next incarnation.
    pub fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        assert!(node.engine.is_none());
        node.incarnation = node.incarnation.next();
        node.has_left = false;
        node.stalled = self.now;
        let setup = Setup {
            node: id(index),
            incarnation: node.incarnation,
            cluster: "sim".into(),
            addr: addr(index),
            link: SocketAddr::from(([127, 0, 0, 1], 7)),
            seeds: vec![addr(0), addr(1)],
            timing: self.timing,
            tags: Tags::from([("label".into(), format!("n{index}"))]).try_into().expect("short"),
            insecure: false,
            seed: self.rng.random(),
        };
        let mut engine = Engine::new(setup, self.now);
        let _ = engine.take_view();
        node.replayed = Some(engine.view());
        node.engine = Some(engine);
    }

    /// Kills a node without a word.
    pub fn crash(&mut self, index: usize) {
        self.nodes[index].engine = None;
        self.nodes[index].inbox.clear();
    }

    pub fn stall(&mut self, index: usize, span: Duration) {
        self.nodes[index].stalled = self.now + span;
    }

    pub fn deafen(&mut self, index: usize, span: Duration) {
        self.nodes[index].deaf = self.now + span;
    }

    pub fn leave(&mut self, index: usize) {
        self.nodes[index].has_left = true;
        self.step(index, &Given::Leave);
    }

    pub fn set_tags(&mut self, index: usize, label: &str) {
        let tags = Tags::from([("label".into(), label.into())]);
        self.step(index, &Given::Tags(tags));
    }

    /// Lets so much time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.advance(end) {}
        self.now = end;
    }

    /// Runs until the condition on what nodes see holds, and tells how long that took.
    pub fn run_until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        let mut looked_at = usize::MAX;
        // What nodes see changes only with an event.
        while looked_at == self.history.len() || !holds(self) {
            looked_at = self.history.len();
            if !self.advance(start + limit) {
                self.explain();
                panic!("{what}: not within {limit:?}");
            }
        }
        self.now.since(start)
    }

    /// Whether everybody who runs sees everybody else as they are.
    pub fn is_exact(&self) -> bool {
        (0..self.nodes.len()).filter(|index| self.runs(*index)).all(|index| self.sees_truth(index))
    }

    pub fn runs(&self, index: usize) -> bool {
        self.nodes[index].engine.is_some() && !self.nodes[index].has_left
    }

    pub fn view(&self, index: usize) -> View {
        self.nodes[index].engine.as_ref().expect("it runs").view()
    }

    pub fn state(&self, at: usize, of: usize) -> Option<MemberState> {
        self.view(at).members.get(&id(of)).map(|member| member.state)
    }

    /// What stands for everything that happened.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// What must hold at every moment: the events tell what the view shows.
    pub fn check_replay(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let (Some(engine), Some(replayed)) = (&node.engine, &node.replayed) else { continue };
            let view = engine.view();
            let brief = |view: &View| -> Vec<_> {
                let row = |m: &membership::Member| (m.node, m.incarnation, m.state, m.tags.clone(), m.addr);
                std::iter::once(row(&view.me)).chain(view.members.values().map(row)).collect()
            };
            assert_eq!(brief(&view), brief(replayed), "node {index}");
            assert_eq!(
                (view.version, view.master, view.is_connected, view.is_duplicate),
                (replayed.version, replayed.master, replayed.is_connected, replayed.is_duplicate),
                "node {index}"
            );
        }
    }

    fn sees_truth(&self, index: usize) -> bool {
        let view = self.view(index);
        (0..self.nodes.len()).filter(|other| *other != index).all(|other| {
            let node = &self.nodes[other];
            let seen = view.members.get(&id(other));
            if self.runs(other) {
                seen.is_some_and(|member| {
                    let is_current = member.state == MemberState::Alive && member.incarnation == node.incarnation;
                    is_current && member.tags == self.view(other).me.tags
                })
            } else if node.has_left {
                seen.is_none_or(|member| member.state == MemberState::Left)
            } else {
                seen.is_none_or(|member| !member.state.is_active())
            }
        })
    }

    /// Handles the next thing that happens; false if nothing does before `end`.
    fn advance(&mut self, end: Nanos) -> bool {
        let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
        let wake = (0..self.nodes.len()).filter_map(|index| Some((self.wakes(index)?, index))).min();
        let at = flight.into_iter().chain(wake.map(|(at, _)| at)).min();
        let Some(at) = at.filter(|at| *at <= end) else { return false };
        self.now = at.max(self.now);
        if flight == Some(at) {
            let (_, flight) = self.flights.pop_first().expect("just seen");
            self.arrive(flight);
        } else {
            let (_, index) = wake.expect("the other one");
            self.wake(index);
        }
        true
    }

    /// When a node must act next.
    fn wakes(&self, index: usize) -> Option<Nanos> {
        let node = &self.nodes[index];
        let deadline = node.engine.as_ref()?.next_deadline();
        let deadline = if node.inbox.is_empty() { deadline } else { deadline.min(node.deaf.max(node.stalled)) };
        Some(deadline.max(node.stalled))
    }

    fn wake(&mut self, index: usize) {
        while self.nodes[index].deaf <= self.now {
            let Some((from, bytes)) = self.nodes[index].inbox.pop_front() else { break };
            self.step(index, &Given::Datagram { from, bytes });
        }
        self.step(index, &Given::Time);
    }

    fn arrive(&mut self, flight: Flight) {
        let Some(to) = (0..self.nodes.len()).find(|index| addr(*index) == flight.to) else { return };
        let node = &self.nodes[to];
        let is_cut = self.cut.contains(&(flight.from, to));
        if node.engine.is_none() || is_cut || node.side != self.nodes[flight.from].side {
            return;
        }
        let node = &mut self.nodes[to];
        if node.stalled > self.now || node.deaf > self.now {
            if node.inbox.len() < 2000 {
                node.inbox.push_back((addr(flight.from), flight.bytes));
            }
            return;
        }
        self.step(to, &Given::Datagram { from: addr(flight.from), bytes: flight.bytes });
    }

    fn step(&mut self, index: usize, given: &Given) {
        let now = self.now;
        let Some(engine) = &mut self.nodes[index].engine else { return };
        let mut effects = Effects::default();
        let input = match given {
            Given::Datagram { from, bytes } => Input::Datagram { from: *from, bytes },
            Given::Time => Input::Time,
            Given::Leave => Input::Leave,
            Given::Tags(tags) => Input::Tags(tags.clone().try_into().expect("short")),
        };
        engine.step(now, input, &mut effects);
        let is_gone = engine.is_gone();
        for event in effects.events {
            self.note(index, event);
        }
        for (to, bytes) in effects.sends {
            self.send(index, to, bytes);
        }
        if is_gone {
            self.crash(index);
        }
    }

    fn note(&mut self, index: usize, event: Event) {
        for byte in format!("{:?}{index}{event:?}", self.now).bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(replayed) = &mut self.nodes[index].replayed {
            event.apply(replayed);
        }
        self.history.push((self.now, index, event));
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64;
        self.datagrams += 1;
        assert!(bytes.len() <= 1352, "a datagram of {} bytes leaves no room for its seal", bytes.len());
        if self.rng.random_bool(self.loss) {
            return;
        }
        let delay = Duration::from_micros(self.rng.random_range(100..2_000));
        self.flights.insert((self.now + delay, self.next), Flight { from, to, bytes });
        self.next += 1;
    }

    fn explain(&self) {
        let start = self.history.len().saturating_sub(60);
        for (at, index, event) in &self.history[start..] {
            eprintln!("{:>8} ms n{index} {event:?}", at.0 / 1_000_000);
        }
    }
}

enum Given {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Time,
    Leave,
    Tags(Tags),
}

pub fn id(index: usize) -> NodeId {
    NodeId(100 + index as u64)
}

pub fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + u16::try_from(index).expect("few nodes")))
}
