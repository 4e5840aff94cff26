//! A virtual cluster of whole nodes and the clients beside it.
//!
//! A node is what it is in a process: the same machines, routed by the same function, with everything between two of them
//! on its way for a while. Only time, disk, network and handlers are made of chance.
//!
//! # Invariants
//!
//! * Everything that happens is an event of one queue, and all chance comes from one seed, so a seed replays exactly.
//! * Effects are carried out in the order of the actors: persist, send, hand on, publish.
//! * Every check runs after every step that it is about; the first sentence that is not true ends the run.

mod application;
mod inside;

use std::collections::BTreeMap;

use protocol::effects::{Authority, Effects, Event, Local, Role};
use protocol::message::Body;
use protocol::state::{Outcome, RightId};
use protocol::{
    ClaimId, ClusterId, Epoch, Fence, Incarnation, Nanos, NodeId, Profile, TaskId, client, master, replica, route,
    worker,
};

use crate::beginning;
use crate::check::{Checker, Verdict, mix};
use crate::dice::Dice;
use crate::host::{Host, Part, Setup, behaviour, result, target};
use crate::net::Net;
use crate::options::{MS, Options, SECOND};
use crate::oracle::Decided;
use crate::queue::Queue;
use crate::travel::{are_compatible, identity, is_ordered, place};
use crate::work::History;

/// The cluster.
pub struct World {
    /// Global time.
    pub time: u64,
    /// What the seed drew.
    pub options: Options,
    /// Nodes first, then outside clients.
    pub hosts: Vec<Host>,
    /// The links.
    pub net: Net,
    /// What was seen.
    pub check: Checker,
    /// What was asked.
    pub history: History,
    /// The greatest fence that each thing outside has seen.
    pub sinks: BTreeMap<RightId, Fence>,
    /// Steps of work under rights so far.
    pub worked: u64,
    /// Chance.
    pub dice: Dice,
    /// Steps of machines so far.
    pub steps: u64,
    /// A hash over all that happened.
    pub trace: u64,
    /// Whether to tell what happens.
    pub is_told: bool,
    /// Nothing strikes any more.
    pub is_calm: bool,
    /// Clients begin nothing new.
    pub is_idle: bool,
    /// What the lines of a script may look at, until it is taken.
    pub seen: Option<Vec<Seen>>,
    /// Messages that are lost on purpose, beside those that chance takes.
    pub lose: fn(usize, usize, &Body) -> bool,
    pub(crate) setup: Setup,
    pub(crate) queue: Queue<Happening>,
    /// What waits for the end of a host's pause, oldest first.
    pub(crate) asleep: Vec<Vec<Happening>>,
    pub(crate) spare: Effects,
    /// The first sentence that is not true.
    pub(crate) verdict: Verdict,
}

/// What a script shows.
pub enum Seen {
    /// What the application of a host hears.
    Said(usize, Event),
    /// What the log decides.
    Decided(Decided),
}

/// What can happen.
pub(crate) enum Happening {
    /// A message reaches the gateway of `to`.
    Arrival {
        from: usize,
        node: NodeId,
        to: usize,
        generation: u64,
        from_run: u64,
        to_run: u64,
        cluster: Option<ClusterId>,
        body: Body,
    },
    /// An input reaches a machine.
    Input { at: usize, run: u64, local: Local },
    /// A machine's deadline passes.
    Wake { at: usize, run: u64, part: Part, due: u64 },
    /// A sync ends.
    Synced { at: usize, run: u64 },
    /// A sync fails: final for this run of the host.
    DiskFails { at: usize, run: u64 },
    /// A host loses its disk.
    DiskIsLost { at: usize },
    /// Another node is started at the address of one.
    Replaced,
    /// The operator starts all nodes with one join list.
    Corrected,
    /// Work on an image ends.
    Imaged { at: usize, run: u64 },
    /// A handler ends.
    Handled { at: usize, run: u64, fence: Fence, outcome: Outcome },
    /// Work under a right wakes up.
    Work { at: usize, run: u64, claim: ClaimId, due: u64 },
    /// One side notices that its link is gone.
    Broken { at: usize, peer: usize, generation: u64 },
    /// One side has heard nothing for too long, if the cut of that time still lasts.
    Silence { at: usize, peer: usize, generation: u64, cut: u64 },
    /// A dial is refused: a peer that was seen to close is down.
    Refused { at: usize, peer: usize, run: u64 },
    /// Gossip finds that a member is gone, if it still is.
    Gone { at: usize, node: NodeId },
    /// Two processes try to connect.
    Connect { a: usize, b: usize },
    /// A host starts again.
    Start { at: usize },
    /// A drained node stops.
    Leave { at: usize, run: u64 },
    /// A pause may be over.
    Resume { at: usize },
    /// Chance strikes.
    Strike,
    /// A client thinks of something to do.
    Idea { at: usize, run: u64 },
}

impl World {
    /// A world in which nothing has started yet.
    pub fn new(seed: u64, options: Options, profile: Profile) -> Self {
        let mut dice = Dice(seed);
        let spare = usize::from(options.replaced_at_founding.is_some());
        let count = options.nodes + options.outside + spare;
        let (least, most) = options.rates;
        let mut hosts: Vec<Host> = (0..count)
            .map(|at| {
                // Half of the clocks are as slow or as fast as they may be: what rests on the bound fails at its edge.
                let is_at_edge = least < most && dice.happens(500);
                let rate = if is_at_edge { dice.pick(&[least, most]) } else { dice.between(least, most) };
                let offset = dice.between(SECOND, 3600 * SECOND);
                Host::new(identity(at, 0), at < options.nodes, rate, offset)
            })
            .collect();
        beginning::prepare(&mut hosts, &options);
        let join = (1..=options.nodes).map(|at| format!("n{at}:7400")).collect();
        Self {
            time: 0,
            net: Net::new(count),
            check: Checker::new(count, options.is_clock_bound_kept, profile),
            history: History::new(),
            sinks: BTreeMap::new(),
            worked: 0,
            dice,
            steps: 0,
            trace: 0,
            is_told: false,
            is_calm: false,
            is_idle: false,
            seen: None,
            lose: |_, _, _| false,
            setup: Setup {
                join,
                profile,
                voters: options.voters,
                replace_after: std::time::Duration::from_nanos(options.replace_after),
                slots: options.slots,
                compaction: options.compaction,
            },
            queue: Queue::new(),
            asleep: (0..count).map(|_| Vec::new()).collect(),
            spare: Effects::new(),
            verdict: Ok(()),
            hosts,
            options,
        }
    }

    /// Starts every host.
    pub fn start_all(&mut self) {
        for at in 0..self.hosts.len() {
            let wait = self.dice.between(0, 200 * MS);
            if self.hosts[at].is_at_home {
                self.queue.add(self.time + wait, Happening::Start { at });
            }
        }
        self.queue.add(self.time + self.options.strike, Happening::Strike);
        if let Some((at, wait)) = self.options.lost_at_founding {
            self.queue.add(self.time + wait, Happening::DiskIsLost { at });
        }
        self.plan_beginning();
    }

    /// Lets time pass.
    pub fn run_until(&mut self, until: u64) -> Verdict {
        while let Some((at, what)) = self.queue.next(until) {
            self.time = self.time.max(at);
            self.happen(what);
            std::mem::replace(&mut self.verdict, Ok(()))?;
        }
        self.time = until;
        Ok(())
    }

    /// Lets time pass until `is_reached`, at most up to `until`; says whether it was.
    pub fn run_while(&mut self, until: u64, is_reached: impl Fn(&Self) -> bool) -> Result<bool, String> {
        while !is_reached(self) {
            let Some((at, what)) = self.queue.next(until) else {
                self.time = until;
                return Ok(false);
            };
            self.time = self.time.max(at);
            self.happen(what);
            std::mem::replace(&mut self.verdict, Ok(()))?;
        }
        Ok(true)
    }

    // ---- what happens ----

    pub(crate) fn happen(&mut self, what: Happening) {
        if let Some(at) = what.host()
            && (self.hosts[at].paused_until > self.time || !self.asleep[at].is_empty())
        {
            return self.asleep[at].push(what);
        }
        match what {
            Happening::Arrival { from, node, to, generation, from_run, to_run, cluster, body } => {
                if self.hosts[to].run != to_run {
                    return;
                }
                if !are_compatible(cluster, self.hosts[to].cluster()) {
                    return self.break_side(to, from, generation);
                }
                self.arrive((from, node, from_run), to, generation, body);
            }
            Happening::Input { at, run, local } => {
                if self.hosts[at].run == run {
                    self.step(at, local);
                }
            }
            Happening::Wake { at, run, part, due } => {
                // Only the one that was set last counts; an earlier one may still lie in the queue.
                if self.hosts[at].run == run && self.hosts[at].wakes[part as usize] == due {
                    self.wake(at, part);
                }
            }
            Happening::Synced { at, run } => {
                if self.hosts[at].run == run {
                    self.synced(at);
                }
            }
            Happening::DiskFails { at, run } => {
                // A process that is gone does not see how its last sync ended, and its successor begins a new one.
                if self.hosts[at].run == run && self.hosts[at].machines.is_some() {
                    self.hosts[at].disk.has_failed = true;
                    let why = String::from("the disk answers with an error");
                    self.hand_on(at, Part::Store, Local::Replica(replica::Input::StorageFailed { why }));
                }
            }
            Happening::DiskIsLost { at } => self.lose_disk(at),
            Happening::Replaced => self.replace(),
            Happening::Corrected => self.correct_lists(),
            Happening::Imaged { at, run } => {
                if self.hosts[at].run == run {
                    self.imaged(at);
                }
            }
            Happening::Handled { at, run, fence, outcome } => {
                if self.hosts[at].run == run {
                    self.hosts[at].running.remove(&fence);
                    self.hand_on(at, Part::Application, Local::Worker(worker::Input::Finished { fence, outcome }));
                }
            }
            Happening::Work { at, run, claim, due } => {
                if self.hosts[at].run == run {
                    self.work(at, claim, due);
                }
            }
            Happening::Broken { at, peer, generation } => self.break_side(at, peer, generation),
            Happening::Silence { at, peer, generation, cut } => {
                if self.net.side(peer, at).cut == Some(cut) {
                    self.break_side(at, peer, generation);
                }
            }
            Happening::Refused { at, peer, run } => {
                let is_down = self.hosts[peer].machines.is_none() && self.hosts[peer].run == run;
                if is_down && !self.net.is_cut(at, peer) {
                    self.tell_evidence(at, peer, run);
                }
            }
            Happening::Gone { at, node } => {
                let host = &self.hosts[place(node)];
                if host.id != node || host.machines.is_none() {
                    self.gossip(at, node, false);
                }
            }
            Happening::Connect { a, b } => self.connect(a, b),
            Happening::Start { at } => self.start(at),
            Happening::Leave { at, run } => {
                if self.hosts[at].run == run {
                    self.crash_for_a_while(at);
                }
            }
            Happening::Resume { at } => self.wake_up(at),
            Happening::Strike => self.strike(),
            Happening::Idea { at, run } => {
                if self.hosts[at].run == run {
                    self.idea(at);
                }
            }
        }
    }

    fn arrive(&mut self, (from, node, run): (usize, NodeId, u64), to: usize, generation: u64, body: Body) {
        let is_newest = self.net.side(to, from).link.is_some_and(|link| link.generation == generation);
        if is_ordered(&body) && !is_newest {
            return;
        }
        let local = route::receive(node, Incarnation(run), self.hosts[to].id, body);
        let slow = self.slow_hop(to, Part::Gateway);
        if slow.is_none() && self.hosts[to].is_hop_clear(self.time, Part::Gateway, target(&local)) {
            // A short hop is part of the way that the message came: it needs no happening of its own.
            return self.step(to, local);
        }
        self.hop(to, Part::Gateway, slow.unwrap_or(1_000), local);
    }

    fn wake(&mut self, at: usize, part: Part) {
        self.hosts[at].wakes[part as usize] = u64::MAX;
        if self.hosts[at].deadline(part) > self.hosts[at].local(self.time) {
            return self.arm(at, part);
        }
        self.step(at, tick(part));
    }

    fn start(&mut self, at: usize) {
        if self.hosts[at].machines.is_some() || (self.is_calm && !self.hosts[at].is_at_home) {
            return;
        }
        let seed = self.dice.any();
        if self.options.reboot > 0 && self.dice.happens(self.options.reboot) {
            self.hosts[at].offset = self.dice.between(SECOND, 3600 * SECOND);
        }
        self.hosts[at].start(&self.setup, self.time, seed);
        self.tell(at, || "starts".into());
        let run = self.hosts[at].run;
        if self.hosts[at].is_node {
            let host = &self.hosts[at];
            let resolved = replica::Input::Resolved { place: host.listed(host.home), node: host.id };
            self.hand_on(at, Part::Gateway, Local::Replica(resolved));
            for part in [Part::Replica, Part::Master, Part::Worker] {
                self.hand_on(at, Part::Application, tick(part));
            }
        }
        self.hand_on(at, Part::Application, tick(Part::Client));
        for peer in 0..self.hosts.len() {
            self.redial(at, peer);
        }
        let wait = self.dice.between(0, self.options.pace * 2);
        self.queue.add(self.time + wait, Happening::Idea { at, run });
    }

    /// Gives a machine an input and carries out what follows.
    pub fn step(&mut self, at: usize, local: Local) {
        let part = target(&local);
        if self.steps > STEPS_MAX {
            return self.judge(Err("I10 this run has no end".into()));
        }
        let now = self.hosts[at].local(self.time);
        let mut effects = std::mem::take(&mut self.spare);
        if let Local::Replica(replica::Input::Persisted { seq }) = local
            && let Some(machines) = &mut self.hosts[at].machines
        {
            for outgoing in machines.gate.open(seq) {
                self.transmit(at, outgoing.to, outgoing.body);
            }
        }
        if let Local::Replica(replica::Input::Consensus { from, message }) = &local {
            self.check.note_contact(at, now, *from, message);
        }
        let is_for_core = matches!(
            local,
            Local::Replica(
                replica::Input::Tick
                    | replica::Input::Consensus { .. }
                    | replica::Input::Persisted { .. }
                    | replica::Input::Evidence { .. }
            )
        );
        if self.is_told && self.is_worth_telling(&local) {
            println!("{} n{} {part:?} <- {local:?}", stamp(self.time), at + 1);
        }
        if self.hosts[at].step(self.time, local, &mut effects) {
            self.steps += 1;
            let counts = effects.persist.len() << 24 | effects.send.len() << 16 | effects.local.len() << 8;
            self.trace = mix(mix(self.trace, self.time), (counts | effects.publish.len() | at << 40) as u64);
            self.carry_out(at, part, &mut effects);
            if part == Part::Replica {
                let verdict = self.check_replica(at, now, is_for_core);
                self.judge(verdict);
            }
            self.arm(at, part);
        }
        self.spare = effects;
    }

    fn carry_out(&mut self, at: usize, part: Part, effects: &mut Effects) {
        for batch in effects.persist.drain(..) {
            if let Some(replica) = self.hosts[at].replica() {
                let verdict = self.check.logs_match(replica.consensus(), &batch);
                self.judge(verdict);
            }
            self.hosts[at].disk.batches.0 = batch.seq;
            self.hosts[at].disk.waiting.push_back(batch);
            self.begin_sync(at);
        }
        for work in effects.images.drain(..) {
            let behind = self.hosts[at].disk.batches.0;
            self.hosts[at].disk.images.push_back((behind, work));
            self.begin_image(at);
        }
        for outgoing in effects.send.drain(..) {
            let Some(machines) = &mut self.hosts[at].machines else { continue };
            if let Some(outgoing) = machines.gate.pass(outgoing) {
                self.transmit(at, outgoing.to, outgoing.body);
            }
        }
        for local in effects.local.drain(..) {
            self.hand_on(at, part, local);
        }
        for event in effects.publish.drain(..) {
            self.publish(at, event);
        }
    }

    fn check_replica(&mut self, at: usize, now: Nanos, is_for_core: bool) -> Verdict {
        let Self { hosts, check, time, .. } = self;
        let host = &hosts[at];
        let Some(replica) = host.replica() else { return Ok(()) };
        let core = replica.consensus();
        let before = check.committed.len();
        check.one_cluster(replica)?;
        check.commits_are_durable_and_agree(at, core, |node, id| hosts.iter().any(|host| host.held(node, id)))?;
        check.one_complete_leader_per_epoch(at, host.id, now, core)?;
        if is_for_core {
            check.a_leader_alone_steps_down(at, host.id, now, core)?;
        }
        check.equal_state_at_equal_index(at, replica)?;
        let lease = core.lease_until(now).map(|until| (core.epoch(), host.global(until)));
        check.one_valid_lease(at, *time, lease)?;
        if let (Some(seen), Some(decided)) = (&mut self.seen, &mut check.oracle.decided) {
            seen.extend(decided.drain(..).map(Seen::Decided));
        }
        if check.committed.len() > before {
            self.trace = mix(self.trace, self.check.oracle.state.digest());
            self.sessions_end_with_a_reason()?;
            return self.no_attempt_outlives_its_session();
        }
        Ok(())
    }

    /// D5: when a session ends because its time is over, its worker has stopped what ran under it, by its own clock. A worker
    /// that has not looked at its clock yet (a pause, a slow hop) looks before it obeys or reports anything.
    fn no_attempt_outlives_its_session(&self) -> Verdict {
        if !self.options.is_clock_bound_kept {
            return Ok(());
        }
        for &session in &self.check.oracle.expired {
            for host in &self.hosts {
                if let Some(worker) = host.worker()
                    && host.running.values().any(|under| *under == session)
                    && host.paused_until <= self.time
                    && worker.next_deadline() > host.local(self.time)
                {
                    return Err(format!("I6 {} still works under {session}, which has expired", host.id));
                }
            }
        }
        Ok(())
    }

    // ---- books ----

    /// The node that leads the highest epoch.
    pub fn leader(&self) -> Option<usize> {
        self.leaders().max_by_key(|(_, epoch)| *epoch).map(|(at, _)| at)
    }

    /// All nodes that believe to lead.
    pub fn leaders(&self) -> impl Iterator<Item = (usize, Epoch)> + '_ {
        self.hosts.iter().enumerate().filter_map(|(at, host)| {
            let core = host.replica()?.consensus();
            (core.role() == Role::Leader).then(|| (at, core.epoch()))
        })
    }

    pub(crate) fn judge(&mut self, verdict: Verdict) {
        if self.verdict.is_ok() {
            self.verdict = verdict;
        }
    }

    pub(crate) fn tell(&self, at: usize, line: impl Fn() -> String) {
        if self.is_told {
            println!("{} n{} {}", stamp(self.time), at + 1, line());
        }
    }

    /// Heartbeats and deadlines are not news.
    fn is_worth_telling(&self, local: &Local) -> bool {
        !matches!(
            local,
            Local::Replica(replica::Input::Tick | replica::Input::Persisted { .. } | replica::Input::Consensus { .. })
                | Local::Master(master::Input::Tick)
                | Local::Worker(worker::Input::Tick)
                | Local::Client(client::Input::Tick)
        ) || std::env::var_os("TENURE_TRACE").is_some()
    }
}

impl Happening {
    /// The process in which it happens, if one does.
    fn host(&self) -> Option<usize> {
        match self {
            Self::Arrival { to: at, .. }
            | Self::Input { at, .. }
            | Self::Wake { at, .. }
            | Self::Synced { at, .. }
            | Self::DiskFails { at, .. }
            | Self::Imaged { at, .. }
            | Self::Handled { at, .. }
            | Self::Work { at, .. }
            | Self::Broken { at, .. }
            | Self::Silence { at, .. }
            | Self::Refused { at, .. }
            | Self::Gone { at, .. }
            | Self::Leave { at, .. }
            | Self::Idea { at, .. } => Some(*at),
            Self::Connect { .. }
            | Self::Start { .. }
            | Self::Resume { .. }
            | Self::DiskIsLost { .. }
            | Self::Replaced
            | Self::Corrected
            | Self::Strike => None,
        }
    }
}

/// A point in time as a trace shows it.
fn stamp(time: u64) -> String {
    format!("{:>10.4}", time as f64 / SECOND as f64)
}

fn tick(part: Part) -> Local {
    match part {
        Part::Replica => Local::Replica(replica::Input::Tick),
        Part::Master => Local::Master(master::Input::Tick),
        Part::Worker => Local::Worker(worker::Input::Tick),
        _ => Local::Client(client::Input::Tick),
    }
}

/// More steps than any run takes that does not chase its own tail.
const STEPS_MAX: u64 = 1_000_000;
