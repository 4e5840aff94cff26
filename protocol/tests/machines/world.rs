//! The world: nodes, links between them, one log, and what happens by chance.
//!
//! # Invariants
//!
//! * Messages of one link keep their order and die with it, some before; nothing is repeated.
//! * Inputs of one machine keep their order, and each hop between machines takes time.

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
            Outcome::Done(Bytes::from_static(b"done"))
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
            let outcome = Outcome::Done(Bytes::from(format!("late {attempt}")));
            self.at(MS, Happening::Handled { node: name, incarnation, fence, outcome });
        } else {
            self.handlers.remove(&(name, incarnation, fence));
        }
    }

    // ---- the log ----

    fn replica(&mut self, name: NodeId, input: replica::Input) {
        match input {
            replica::Input::Propose { epoch, commands } | replica::Input::Placed { epoch, commands } => {
                if self.log.leader != Some(name)
                    || self.log.epoch != epoch
                    || (self.has_faults() && self.dice.one_in(50))
                {
                    self.hand_over(name, Local::Master(master::Input::Dropped { epoch }));
                    return;
                }
                self.log.batch.extend(commands.into_iter().map(|command| (command, None)));
                self.commit_soon();
            }
            replica::Input::Request { request, .. } => self.request(name, request),
            _ => {}
        }
    }

    fn request(&mut self, name: NodeId, request: Request) {
        let Request { origin, body, .. } = request;
        if self.log.leader != Some(name) {
            self.respond(name, origin, Err(Denied::NotMaster));
            return;
        }
        if self.has_faults() && self.dice.one_in(100) {
            self.respond(name, origin, Err(Denied::Busy));
            return;
        }
        let command = match body {
            RequestBody::Register { ttl } => Command::Register { ttl },
            RequestBody::Renew { sessions } => Command::Renew { sessions },
            RequestBody::Write { session, seq, first_incomplete, operation } => {
                if let Operation::Submit(tasks) = &operation {
                    self.announce(name, session, seq, tasks);
                }
                Command::Client { session, seq, first_incomplete, operation }
            }
            RequestBody::Read { query, .. } => {
                let answer = self.log.state.query(&query);
                match (&query, &answer) {
                    (Query::Await(task), Answer::Task(view)) if !view.state.is_final() => {
                        self.log.awaiting.insert((*task, origin));
                    }
                    _ => self.respond(name, origin, Ok(answer)),
                }
                return;
            }
            RequestBody::HandOver { .. } => return self.respond(name, origin, Ok(Answer::Ok)),
        };
        self.log.batch.push((command, Some(origin)));
        self.commit_soon();
    }

    /// Tells the master of tasks that are about to be recorded; where the log is slow, its answer comes in time.
    fn announce(&mut self, name: NodeId, client: SessionId, seq: Seq, tasks: &[TaskSpec]) {
        let coming = tasks.iter().zip(0..).map(|(task, place)| master::Coming {
            ticket: Ticket { client, seq, place },
            kind: task.kind.clone(),
            needs: task.needs.clone(),
        });
        let (epoch, tasks) = (self.log.epoch, coming.collect());
        self.hand_over(name, Local::Master(master::Input::Submitting { epoch, tasks }));
    }

    fn respond(&mut self, name: NodeId, origin: Origin, result: Result<Answer, Denied>) {
        if self.nodes[&name].is_up {
            let leader = self.log.leader;
            self.send(name, origin.node, Response { origin, leader, result }.into());
        }
    }

    fn commit_soon(&mut self) {
        if !self.log.is_committing {
            self.log.is_committing = true;
            let slow = if self.dice.one_in(100) { 400 } else { 5 };
            let span = Duration::from_micros(200 + self.dice.below(slow * 1000));
            self.at(span, Happening::Commit);
        }
    }

    fn log_time(&self) -> ClusterTime {
        let (base, since) = self.log.base;
        (base + self.now.since(since)).max(self.log.state.time())
    }

    fn commit(&mut self) {
        self.log.is_committing = false;
        let Some(leader) = self.log.leader else { return };
        let batch = std::mem::take(&mut self.log.batch);
        if batch.is_empty() {
            return;
        }
        let time = self.log_time();
        let mut changes = Vec::new();
        for (command, origin) in batch {
            let answer = self.log.state.apply(time, &command, &mut changes);
            if let Some(origin) = origin {
                self.respond(leader, origin, Ok(answer));
            }
        }
        self.check_changes(&changes);
        self.answer_ended(leader, &changes);
        let epoch = self.log.epoch;
        self.hand_over(leader, Local::Master(master::Input::Applied { epoch, time, changes }));
    }

    fn answer_ended(&mut self, leader: NodeId, changes: &[ClusterChange]) {
        for change in changes {
            let ClusterChange::Ended { task, .. } = *change else { continue };
            let waiting: Vec<(TaskId, Origin)> =
                self.log.awaiting.iter().copied().filter(|&(awaited, _)| awaited == task).collect();
            for key in waiting {
                self.log.awaiting.remove(&key);
                let answer = self.log.state.query(&Query::Task(task));
                self.respond(leader, key.1, Ok(answer));
            }
        }
    }

    /// No worker believes in a session that has expired: all clocks here run alike.
    fn check_changes(&mut self, changes: &[ClusterChange]) {
        for change in changes {
            match *change {
                ClusterChange::NodeEnded { session, node } => {
                    let node = &self.nodes[&node];
                    let is_awake = node.is_up && node.paused_until + 50 * MS < self.now;
                    assert!(
                        !is_awake || node.worker.session() != Some(session),
                        "a session has ended before its worker knew"
                    );
                }
                ClusterChange::Ended { task, .. } => {
                    let state = self.log.state.task_state(task).expect("it is kept for an hour");
                    assert!(state.is_final());
                    self.counts.lost += u64::from(matches!(state, TaskState::Lost { .. }));
                }
                _ => {}
            }
        }
    }

    /// Somebody else leads. What was not committed is gone, or committed by the successor without an answer.
    fn elect(&mut self) {
        self.depose();
        let candidates: Vec<NodeId> = self.awake().into_iter().collect();
        let Some(&leader) = self.dice.pick(&candidates) else {
            self.at(100 * MS, Happening::Elect);
            return;
        };
        self.counts.epochs += 1;
        self.log.epoch = Epoch(self.log.epoch.0 + 1 + self.dice.below(2));
        self.log.leader = Some(leader);
        self.log.base = (self.log.state.time(), self.now);
        let mut changes = Vec::new();
        self.log.state.begin_epoch(self.log_time(), &mut changes);
        let view = self.log.state.master_view(self.log.epoch);
        self.hand_over(leader, Local::Master(master::Input::Begin(Box::new(view))));
    }

    fn depose(&mut self) {
        let Some(leader) = self.log.leader.take() else { return };
        let batch = std::mem::take(&mut self.log.batch);
        let survives = self.dice.one_in(2);
        let time = (self.log.base.0 + self.now.since(self.log.base.1)).max(self.log.state.time());
        let mut changes = Vec::new();
        for (command, origin) in batch {
            if survives {
                self.log.state.apply(time, &command, &mut changes);
            }
            if let Some(origin) = origin {
                self.respond(leader, origin, Err(if survives { Denied::Unknown } else { Denied::NotMaster }));
            }
        }
        for (_, origin) in std::mem::take(&mut self.log.awaiting) {
            self.respond(leader, origin, Err(Denied::NotMaster));
        }
        self.check_changes(&changes);
        // The old master may not hear of it for a while.
        let epoch = self.log.epoch;
        let incarnation = self.nodes[&leader].incarnation;
        let local = Local::Master(master::Input::End { epoch });
        let span = Duration::from_millis(self.dice.below(600));
        self.at(span, Happening::Local { node: leader, incarnation, local });
    }

    // ---- faults ----

    fn fault(&mut self) {
        if !self.has_faults() {
            return;
        }
        let names: Vec<NodeId> = self.nodes.keys().copied().collect();
        let &name = self.dice.pick(&names).expect("there are nodes");
        match self.dice.below(5) {
            4 => self.pause(name),
            0 => self.crash(name),
            1 | 2 => {
                let peer = *self.dice.pick(&self.others(name)).expect("there are others");
                self.counts.cuts += 1;
                if self.links.contains_key(&pair(name, peer)) {
                    self.break_link(name, peer);
                    let span = Duration::from_millis(self.dice.below(5000));
                    self.at(span, Happening::LinkUp { a: name, b: peer });
                }
            }
            _ => {
                self.depose();
                let longest = if self.dice.one_in(5) { 5000 } else { 800 };
                let span = Duration::from_millis(self.dice.below(longest));
                self.at(span, Happening::Elect);
            }
        }
        let span = Duration::from_millis(100 + self.dice.below(2000));
        self.at(span, Happening::Fault);
    }

    fn crash(&mut self, name: NodeId) {
        let node = self.nodes.get_mut(&name).expect("known");
        if !node.is_up {
            return;
        }
        self.counts.crashes += 1;
        node.is_up = false;
        let incarnation = node.incarnation;
        self.handlers.retain(|&(handler, ..)| handler != name);
        let gone: Vec<(NodeId, u64)> = self.calls.keys().copied().filter(|&(caller, _)| caller == name).collect();
        for call in gone {
            self.calls.remove(&call);
        }
        for peer in self.others(name) {
            if self.links.contains_key(&pair(name, peer)) {
                self.break_link(name, peer);
            }
        }
        if self.dice.below(4) > 0 {
            self.at(2 * MS, Happening::Evidence { node: name, incarnation });
        }
        if self.log.leader == Some(name) {
            self.depose();
            let span = Duration::from_millis(500 + self.dice.below(500));
            self.at(span, Happening::Elect);
        }
        let span = Duration::from_millis(10 + self.dice.below(5000));
        self.at(span, Happening::Restart(name));
    }

    /// A stopped process: whoever leads meanwhile, it goes on where it stood.
    fn pause(&mut self, name: NodeId) {
        let span = Duration::from_millis(if self.dice.one_in(2) { 4000 } else { 0 } + self.dice.below(3000));
        let node = self.nodes.get_mut(&name).expect("known");
        node.paused_until = node.paused_until.max(self.now + span);
        self.counts.pauses += 1;
        if self.log.leader == Some(name) && span > 500 * MS {
            self.depose();
            self.at(700 * MS, Happening::Elect);
        }
    }

    fn restart(&mut self, name: NodeId) {
        let node = self.machines(name, self.nodes[&name].incarnation.next());
        self.nodes.insert(name, node);
        for peer in self.others(name) {
            let span = Duration::from_millis(1 + self.dice.below(20));
            self.at(span, Happening::LinkUp { a: name, b: peer });
        }
    }

    fn make_link(&mut self, a: NodeId, b: NodeId) {
        if self.links.contains_key(&pair(a, b)) || !self.nodes[&a].is_up || !self.nodes[&b].is_up {
            return;
        }
        self.happened += 1;
        self.links.insert(pair(a, b), self.happened);
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = self.nodes[&other].incarnation;
            self.hand_over_all(one, route::link_up(other, incarnation, true));
        }
        // Some links do not live long.
        if self.has_faults() && self.dice.one_in(5) {
            let link = self.links[&pair(a, b)];
            self.at(Duration::from_millis(self.dice.clone().below(50)), Happening::LinkDown { a, b, link });
            let span = Duration::from_millis(60 + self.dice.below(500));
            self.at(span, Happening::LinkUp { a, b });
        }
    }

    fn break_link(&mut self, a: NodeId, b: NodeId) {
        self.links.remove(&pair(a, b));
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = self.nodes[&other].incarnation;
            self.hand_over_all(one, route::link_down(other, incarnation, true));
        }
    }

    fn awake(&self) -> Vec<NodeId> {
        let is_awake = |node: &Node| node.is_up && node.paused_until <= self.now;
        self.nodes.iter().filter(|(_, node)| is_awake(node)).map(|(&name, _)| name).collect()
    }

    fn others(&self, name: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|&other| other != name).collect()
    }

    // ---- work ----

    fn work(&mut self) {
        let names = self.awake();
        if let Some(&name) = self.dice.pick(&names) {
            self.call(name);
        }
        if self.now < START + WORK_UNTIL {
            let span = Duration::from_millis(1 + self.dice.below(80));
            self.at(span, Happening::Work);
        }
    }

    fn call(&mut self, name: NodeId) {
        self.last_call += 1;
        self.counts.calls += 1;
        let call = self.last_call;
        let (record, work) = match self.dice.below(6) {
            0 | 1 => {
                let specs: Vec<TaskSpec> = (0..=self.dice.below(4)).map(|_| self.spec()).collect();
                (Call::Submit(specs.clone()), Work::Write(Operation::Submit(specs)))
            }
            2 | 3 => {
                let key = format!("key{call}");
                let put = Operation::Put(Put::new(key.clone(), "v"));
                (Call::Put(key), Work::Write(put))
            }
            4 => {
                let task = TaskId(1 + self.dice.below(call));
                (Call::Other, Work::Write(Operation::Cancel { task, reason: "chance".into() }))
            }
            _ => {
                let task = TaskId(1 + self.dice.below(call));
                (Call::Other, Work::Read(Query::Await(task), Consistency::Linearizable))
            }
        };
        self.calls.insert((name, call), record);
        let timeout = Duration::from_millis(if self.dice.one_in(4) { self.dice.below(500) } else { 20_000 });
        self.step(name, Local::Client(client::Input::Call { call, work, timeout }));
    }

    fn spec(&mut self) -> TaskSpec {
        let mut spec = TaskSpec { backoff: 50 * MS, ..TaskSpec::new("echo", Bytes::from_static(b"x")) };
        if self.dice.one_in(3) {
            spec.delivery = Delivery::AtMostOnce;
            spec.retries = 0;
        }
        if self.dice.one_in(10) {
            spec.timeout = Duration::from_millis(1 + self.dice.below(200));
        }
        spec
    }

    fn completed(&mut self, name: NodeId, call: u64, result: Result<Answer, CallError>) {
        let record = self.calls.remove(&(name, call)).expect("a call is answered once");
        self.counts.unanswered += u64::from(result.is_err());
        match (record, result) {
            (Call::Put(key), Ok(Answer::Written(revision))) => {
                let Answer::Value { found: Some(value), .. } = self.log.state.query(&Query::Get(key.clone())) else {
                    panic!("{key} was acknowledged and is lost");
                };
                assert_eq!((value.created, value.modified), (revision, revision), "{key} was written twice");
            }
            (Call::Put(key), Err(error)) if is_certain(&error) => {
                let answer = self.log.state.query(&Query::Get(key.clone()));
                assert!(
                    matches!(answer, Answer::Value { found: None, .. }),
                    "{key} was certainly not written: {error}"
                );
            }
            (Call::Submit(specs), Ok(Answer::Submitted(tasks))) => {
                assert_eq!(specs.len(), tasks.len());
                for Submitted { task, .. } in tasks {
                    assert!(self.log.state.task_state(task).is_some(), "{task} was acknowledged and is lost");
                }
            }
            (_, Ok(Answer::Refused(refused))) => {
                assert!(
                    !matches!(refused, protocol::state::Refused::Stale(_)),
                    "a call meets its own trace: {refused}"
                );
            }
            _ => {}
        }
    }
}

fn is_certain(error: &CallError) -> bool {
    match error {
        CallError::Deadline { maybe_applied, .. } | CallError::SessionExpired { maybe_applied } => !maybe_applied,
        CallError::Busy => true,
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
