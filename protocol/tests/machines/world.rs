//! The world: nodes, links between them, one log, and what happens by chance.
//!
//! # Invariants
//!
//! * Messages of one link keep their order and die with it, some before; nothing is repeated.
//! * Inputs of one machine keep their order, and each hop between machines takes time.

mod faults;
mod log;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protocol::client::{self, CallError, Client, Consistency, Denied, Origin, Request, RequestBody, Response, Work};
use protocol::effects::{Effects, Event, Local, Outgoing};
use protocol::master::{self, Mastership};
use protocol::message::Body;
use protocol::state::{
    Answer, ClusterChange, Command, Delivery, Offer, Operation, Outcome, Put, Query, State, Submitted, TaskSpec,
    TaskState, Ticket,
};
use protocol::worker::{self, Worker};
use protocol::{Attempt, ClusterTime, Epoch, Fence, Incarnation, Nanos, NodeId, Profile, Seq, SessionId, TaskId};
use protocol::{replica, route};

/// See the module.
pub struct World {
    dice: Dice,
    now: Nanos,
    agenda: BTreeMap<(Nanos, u64), Happening>,
    happened: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Links that both ends believe in, each with its number.
    links: BTreeMap<(NodeId, NodeId), u64>,
    /// When the last message of a pair arrives.
    busy: BTreeMap<(NodeId, NodeId), Nanos>,
    log: Log,
    /// Handlers at work.
    handlers: BTreeSet<(NodeId, Incarnation, Fence)>,
    started: BTreeMap<TaskId, u32>,
    fences: BTreeSet<(NodeId, Incarnation, Fence)>,
    calls: BTreeMap<(NodeId, u64), Call>,
    last_call: u64,
    counts: Counts,
    /// One message in so many is lost on a living link.
    loss: u64,
    trace: bool,
}

/// What a run shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    steps: u64,
    epochs: u64,
    crashes: u64,
    cuts: u64,
    pauses: u64,
    calls: u64,
    unanswered: u64,
    starts: u64,
    aborts: u64,
    late: u64,
    lost: u64,
}

struct Node {
    incarnation: Incarnation,
    is_up: bool,
    /// Nothing is handled before this.
    paused_until: Nanos,
    mastership: Mastership,
    worker: Worker,
    client: Client,
    /// When the last input of a machine arrives.
    busy: BTreeMap<u8, Nanos>,
    ticks: BTreeMap<u8, Nanos>,
}

/// The one log, and who leads it.
struct Log {
    state: State,
    leader: Option<NodeId>,
    epoch: Epoch,
    /// Cluster time when the leader won, and when that was.
    base: (ClusterTime, Nanos),
    batch: Vec<(Command, Option<Origin>)>,
    is_committing: bool,
    awaiting: BTreeSet<(TaskId, Origin)>,
}

#[derive(Clone, Debug)]
enum Call {
    Put(String),
    Submit(Vec<TaskSpec>),
    Other,
}

#[derive(Debug)]
enum Happening {
    Deliver { from: NodeId, incarnation: Incarnation, to: NodeId, link: u64, body: Body },
    Local { node: NodeId, incarnation: Incarnation, local: Local },
    Tick { node: NodeId, incarnation: Incarnation, machine: u8 },
    Handled { node: NodeId, incarnation: Incarnation, fence: Fence, outcome: Outcome },
    Commit,
    LinkDown { a: NodeId, b: NodeId, link: u64 },
    LinkUp { a: NodeId, b: NodeId },
    Evidence { node: NodeId, incarnation: Incarnation },
    Elect,
    Restart(NodeId),
    Fault,
    Work,
}

const MASTER: u8 = 0;
const WORKER: u8 = 1;
const CLIENT: u8 = 2;
const MS: Duration = Duration::from_millis(1);
const FAULTS_UNTIL: Duration = Duration::from_secs(30);
const WORK_UNTIL: Duration = Duration::from_secs(32);
const END: Duration = Duration::from_secs(200);
const START: Nanos = Nanos(1_000_000_000);

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = dice.below(3) + 2;
        let loss = [20, 100, 1_000_000][usize::try_from(dice.below(3)).expect("small")];
        let mut world = Self {
            dice,
            now: START,
            agenda: BTreeMap::new(),
            happened: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            busy: BTreeMap::new(),
            log: Log {
                state: State::default(),
                leader: None,
                epoch: Epoch(0),
                base: (ClusterTime(0), START),
                batch: Vec::new(),
                is_committing: false,
                awaiting: BTreeSet::new(),
            },
            handlers: BTreeSet::new(),
            started: BTreeMap::new(),
            fences: BTreeSet::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            counts: Counts::default(),
            loss,
            trace: std::env::var("TENURE_TRACE").is_ok(),
        };
        let names: Vec<NodeId> = (1..=count).map(NodeId).collect();
        for &name in &names {
            let node = world.machines(name, Incarnation(1));
            world.nodes.insert(name, node);
        }
        for (place, &a) in names.iter().enumerate() {
            for &b in &names[place + 1..] {
                world.at(MS, Happening::LinkUp { a, b });
            }
        }
        world.at(10 * MS, Happening::Elect);
        world.at(500 * MS, Happening::Fault);
        world.at(20 * MS, Happening::Work);
        world
    }

    /// Runs to the end of time.
    pub fn run(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            let happening = entry.remove();
            if at > START + END {
                break;
            }
            self.now = at;
            self.counts.steps += 1;
            if self.trace && !matches!(happening, Happening::Tick { .. }) {
                println!("{:>9.3} {happening:?}", at.since(START).as_secs_f64() * 1e3);
            }
            self.happen(happening);
        }
    }

    /// What must be true when the faults have ended long ago.
    pub fn check_end(&self) {
        let tasks = self.log.state.master_view(Epoch(0)).tasks;
        assert!(tasks.is_empty(), "tasks that never ended: {tasks:?}");
        assert!(self.calls.is_empty(), "calls that were never answered: {:?}", self.calls);
        assert!(self.handlers.is_empty(), "handlers still at work: {:?}", self.handlers);
        for (name, node) in &self.nodes {
            assert_eq!(node.worker.running(), 0, "{name} still runs something");
            assert_eq!(node.client.under_way(), 0, "{name} still asks something");
        }
    }

    pub fn summary(&self) -> String {
        format!("{:?} revision {} digest {:x}", self.counts, self.log.state.revision(), self.log.state.digest())
    }

    fn machines(&mut self, name: NodeId, incarnation: Incarnation) -> Node {
        let slots = u32::try_from(1 + self.dice.below(4)).expect("small");
        let offer = Offer { slots, kinds: ["echo".to_owned()].into(), ..Offer::default() };
        let profile = Profile::LAN;
        let settings = client::Config {
            node: name,
            local_replica: true,
            ttl: Duration::from_secs(3),
            patience: 300 * MS,
            first_number: incarnation.0 << 32,
            now: self.now,
        };
        Node {
            incarnation,
            is_up: true,
            paused_until: Nanos(0),
            mastership: Mastership::new(name, profile),
            worker: Worker::new(worker::Config { node: name, incarnation, offer, profile }, self.now),
            client: Client::new(settings),
            busy: BTreeMap::new(),
            ticks: BTreeMap::new(),
        }
    }

    fn at(&mut self, span: Duration, happening: Happening) {
        self.at_time(self.now + span, happening);
    }

    fn at_time(&mut self, at: Nanos, happening: Happening) {
        self.happened += 1;
        self.agenda.insert((at, self.happened), happening);
    }

    fn has_faults(&self) -> bool {
        self.now < START + FAULTS_UNTIL
    }

    /// A paused node handles nothing; what it should have handled waits, in order.
    fn paused_until(&self, happening: &Happening) -> Option<Nanos> {
        let node = match *happening {
            Happening::Local { node, .. } | Happening::Tick { node, .. } | Happening::Handled { node, .. } => node,
            _ => return None,
        };
        Some(self.nodes[&node].paused_until).filter(|&until| until > self.now)
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.paused_until(&happening) {
            if let Happening::Tick { node, machine, .. } = happening {
                self.nodes.get_mut(&node).expect("known").ticks.insert(machine, until);
            }
            return self.at_time(until, happening);
        }
        match happening {
            Happening::Deliver { from, incarnation, to, link, body } => {
                if from == to || self.links.get(&pair(from, to)) == Some(&link) {
                    self.hand_over(to, route::receive(from, incarnation, to, body));
                }
            }
            Happening::Local { node, incarnation, local } => {
                if self.is_running(node, incarnation) {
                    self.step(node, local);
                }
            }
            Happening::Tick { node, incarnation, machine } => self.tick(node, incarnation, machine),
            Happening::Handled { node, incarnation, fence, outcome } => {
                if self.handlers.remove(&(node, incarnation, fence)) && self.is_running(node, incarnation) {
                    self.step(node, Local::Worker(worker::Input::Finished { fence, outcome }));
                }
            }
            Happening::Commit => self.commit(),
            Happening::LinkDown { a, b, link } => {
                if self.links.get(&pair(a, b)) == Some(&link) {
                    self.break_link(a, b);
                }
            }
            Happening::LinkUp { a, b } => self.make_link(a, b),
            Happening::Evidence { node, incarnation } => {
                for witness in self.others(node) {
                    self.hand_over_all(witness, route::evidence(node, incarnation));
                }
            }
            Happening::Elect => self.elect(),
            Happening::Restart(node) => self.restart(node),
            Happening::Fault => self.fault(),
            Happening::Work => self.work(),
        }
    }

    // ---- machines ----

    fn is_running(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.nodes[&node].is_up && self.nodes[&node].incarnation == incarnation
    }

    fn tick(&mut self, name: NodeId, incarnation: Incarnation, machine: u8) {
        if !self.is_running(name, incarnation) {
            return;
        }
        let now = self.now;
        let node = self.nodes.get_mut(&name).expect("known");
        if node.ticks.get(&machine) != Some(&now) {
            return; // Another deadline was set meanwhile.
        }
        node.ticks.remove(&machine);
        let local = match machine {
            MASTER => Local::Master(master::Input::Tick),
            WORKER => Local::Worker(worker::Input::Tick),
            _ => Local::Client(client::Input::Tick),
        };
        self.step(name, local);
    }

    fn step(&mut self, name: NodeId, local: Local) {
        let mut effects = Effects::new();
        let now = self.now;
        let node = self.nodes.get_mut(&name).expect("known");
        let incarnation = node.incarnation;
        let (machine, deadline) = match local {
            Local::Master(input) => {
                node.mastership.step(now, input, &mut effects);
                (MASTER, node.mastership.next_deadline())
            }
            Local::Worker(input) => {
                node.worker.step(now, input, &mut effects);
                (WORKER, node.worker.next_deadline())
            }
            Local::Client(input) => {
                node.client.step(now, input, &mut effects);
                (CLIENT, node.client.next_deadline())
            }
            Local::Replica(input) => return self.replica(name, input),
        };
        assert!(deadline > now || machine == MASTER, "machine {machine} of {name} never rests");
        let at = deadline.max(now + Duration::from_nanos(1));
        if deadline != Nanos::NEVER && node.ticks.get(&machine) != Some(&at) {
            node.ticks.insert(machine, at);
            self.at_time(at, Happening::Tick { node: name, incarnation, machine });
        }
        self.carry_out(name, effects);
    }

    fn carry_out(&mut self, name: NodeId, effects: Effects) {
        for Outgoing { to, body, .. } in effects.send {
            self.send(name, to, body);
        }
        for local in effects.local {
            self.hand_over(name, local);
        }
        for event in effects.publish {
            self.publish(name, event);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, body: Body) {
        // A full window drops what the machines will say again.
        if self.has_faults() && self.dice.one_in(self.loss) {
            return;
        }
        let incarnation = self.nodes[&from].incarnation;
        let link = if from == to { 0 } else { self.links.get(&pair(from, to)).copied().unwrap_or(u64::MAX) };
        let slow = if self.dice.one_in(50) { 200 } else { 2 };
        let delay = Duration::from_micros(20 + self.dice.below(slow * 1000));
        let last = self.busy.get(&(from, to)).copied().unwrap_or(self.now);
        let at = last.max(self.now + delay);
        self.busy.insert((from, to), at);
        self.at_time(at, Happening::Deliver { from, incarnation, to, link, body });
    }

    /// To another machine of the same node, after a while and in order.
    fn hand_over(&mut self, name: NodeId, local: Local) {
        let slow = if self.dice.one_in(100) { 100 } else { 1 };
        let delay = Duration::from_micros(self.dice.below(slow * 200));
        let machine = match local {
            Local::Master(_) => MASTER,
            Local::Worker(_) => WORKER,
            Local::Client(_) => CLIENT,
            Local::Replica(_) => 3,
        };
        let now = self.now;
        let node = self.nodes.get_mut(&name).expect("known");
        if !node.is_up {
            return;
        }
        let incarnation = node.incarnation;
        let last = node.busy.get(&machine).copied().unwrap_or(now);
        let at = last.max(now + delay);
        node.busy.insert(machine, at);
        self.at_time(at, Happening::Local { node: name, incarnation, local });
    }

    fn hand_over_all(&mut self, name: NodeId, locals: Vec<Local>) {
        for local in locals {
            self.hand_over(name, local);
        }
    }

    fn publish(&mut self, name: NodeId, event: Event) {
        match event {
            Event::Start(run) => self.start(name, &run),
            Event::Abort { attempt, fence, .. } => self.abort(name, attempt, fence),
            Event::Completed { call, result } => self.completed(name, call, result),
            Event::Note(line) if self.trace => println!("{name}: {line}"),
            _ => {}
        }
    }

    fn start(&mut self, name: NodeId, run: &worker::Run) {
        self.counts.starts += 1;
        let grant = &run.grant;
        let incarnation = self.nodes[&name].incarnation;
        assert!(self.fences.insert((name, incarnation, grant.fence)), "{} starts twice on one worker", grant.attempt);
        let starts = self.started.entry(grant.attempt.task).or_default();
        *starts += 1;
        assert!(*starts == 1 || grant.delivery == Delivery::AtLeastOnce, "{} runs twice", grant.attempt);
        self.handlers.insert((name, incarnation, grant.fence));
        let span = Duration::from_millis(if self.dice.one_in(40) { 2500 } else { 1 + self.dice.below(150) });
        let outcome = if self.dice.one_in(10) {
            Outcome::Failed { message: "chance".into(), retry: true, output: Bytes::new() }
        } else {
            Outcome::done(Bytes::from_static(b"done"))
        };
        self.at(span, Happening::Handled { node: name, incarnation, fence: grant.fence, outcome });
    }

    /// Most handlers stop when they are told; some have their result ready before they see that.
    fn abort(&mut self, name: NodeId, attempt: Attempt, fence: Fence) {
        self.counts.aborts += 1;
        let incarnation = self.nodes[&name].incarnation;
        if !self.handlers.contains(&(name, incarnation, fence)) {
            return;
        }
        if self.dice.one_in(3) {
            self.counts.late += 1;
            let outcome = Outcome::done(Bytes::from(format!("late {attempt}")));
            self.at(MS, Happening::Handled { node: name, incarnation, fence, outcome });
        } else {
            self.handlers.remove(&(name, incarnation, fence));
        }
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// Chance, from one seed (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; zero if that is zero.
    fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).expect("an index"))
    }
}
