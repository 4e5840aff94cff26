//! One process of the virtual cluster: its machines, clock, disk and handlers.
//!
//! # Invariants
//!
//! * A crash loses the machines, the handlers and what was not synced; of what was written, a prefix of whole batches may
//!   have reached the disk.
//! * The machines are composed as the actors compose them: everything between two of them takes a hop.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::durable::{Durable, Persist, SnapMeta};
use protocol::effects::{Effects, Local};
use protocol::gate::Gate;
use protocol::image::{Done, Work};
use protocol::master::Mastership;
use protocol::replica::Replica;
use protocol::state::{Offer, Outcome, State, TaskEffect};
use protocol::worker::Worker;
use protocol::{
    Attempt, ClusterId, Fence, Incarnation, LogId, Nanos, NodeId, Profile, SessionId, TaskId, client, replica, worker,
};

use crate::guards::Guards;
use crate::travel::place;

/// Which machine of a host, or what else can hand something to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Consensus and state.
    Replica,
    /// The master.
    Master,
    /// The worker.
    Worker,
    /// The client.
    Client,
    /// The way in from links.
    Gateway,
    /// The thread that syncs.
    Store,
    /// Handlers and callers.
    Application,
}

/// One process.
pub struct Host {
    /// Who it is.
    pub id: NodeId,
    /// Whether it is a node; otherwise an outside client.
    pub is_node: bool,
    /// Whose address in the join list it was started for.
    pub home: usize,
    /// Whether a dial of that address reaches it: not before it begins, and not when another node was started there.
    pub is_at_home: bool,
    /// It is started with the first two places of the join list exchanged.
    pub exchanges_list: bool,
    /// Which run of it this is, or was; the incarnation.
    pub run: u64,
    /// The machines, unless it is down.
    pub machines: Option<Machines>,
    /// The disk.
    pub disk: Disk,
    /// Those it had before, under other names: what was on them was acknowledged once.
    pub lost: Vec<(NodeId, Disk)>,
    /// Handlers at work, and the session under which each was granted.
    pub running: BTreeMap<Fence, SessionId>,
    /// The sessions on which its application relies, and until when in global time.
    pub kept: BTreeMap<SessionId, u64>,
    /// What its application does under rights.
    pub guards: Guards,
    /// It was asked to drain.
    pub is_leaving: bool,
    /// Nothing is handled before.
    pub paused_until: u64,
    /// It does not only stand still: its machine sleeps, since then.
    pub asleep_since: Option<u64>,
    /// Clock rate in parts per million.
    pub rate: u64,
    /// Where the clock stood at global time zero.
    pub offset: u64,
    /// What leaves this part takes this long to reach another one.
    pub held_up: Option<(Part, u64)>,
    /// When each machine is woken next.
    pub wakes: [u64; 4],
    /// When the last thing on the way from a part to a machine arrives.
    hops: [[u64; 4]; 7],
}

/// The machines of one process.
pub struct Machines {
    /// Consensus and state, on a node.
    pub replica: Option<Replica>,
    /// The master, on a node.
    pub mastership: Option<Mastership>,
    /// The worker, on a node.
    pub worker: Option<Worker>,
    /// The client.
    pub client: client::Client,
    /// Holds back what is not durable.
    pub gate: Gate,
}

/// A disk with a queue before it: all that waits when a sync begins is synced together.
pub struct Disk {
    /// What survives.
    pub durable: Durable,
    /// What was written, oldest first.
    pub waiting: VecDeque<Persist>,
    /// How many of these the sync under way covers.
    pub syncing: usize,
    /// Every sync is slow before this time.
    pub slow_until: u64,
    /// The next sync fails.
    pub fails_next: bool,
    /// A sync has failed in this run.
    pub has_failed: bool,
    /// Work on images, each behind the batch that was written before it.
    pub images: VecDeque<(u64, Work)>,
    /// The last batch written, and the last one synced in this run.
    pub batches: (u64, u64),
    /// Whether the first of `images` is under way.
    pub is_imaging: bool,
    /// Snapshots of its own whose chunks nobody has looked at. Most never are looked at, and making them is a fifth of a run.
    unseen: VecDeque<(SnapMeta, Box<State>)>,
}

impl Disk {
    /// The disk of a node that never ran.
    fn empty(id: NodeId) -> Self {
        Self {
            durable: Durable::fresh(id, Incarnation(0)),
            images: VecDeque::new(),
            batches: (0, 0),
            is_imaging: false,
            unseen: VecDeque::new(),
            waiting: VecDeque::new(),
            syncing: 0,
            slow_until: 0,
            fails_next: false,
            has_failed: false,
        }
    }

    /// Does a piece of work on images.
    pub fn perform(&mut self, work: Work) -> Option<Done> {
        match work {
            Work::Save { meta, state } => {
                let last = meta.last;
                self.unseen.push_back((meta, state));
                // The newest and the one before it can be asked for.
                if self.unseen.len() > 2 {
                    self.unseen.pop_front();
                }
                Some(Done::Saved { last })
            }
            Work::Forget { last } => {
                self.forget(last);
                None
            }
            Work::Read { .. } | Work::Stage { .. } => {
                self.look();
                self.durable.perform(work)
            }
        }
    }

    /// Forgets the snapshot before the newest, wherever it is.
    fn forget(&mut self, last: LogId) {
        let is_meant = |meta: &SnapMeta| meta.last == last;
        match self.unseen.len() {
            0 => self.durable.forget(last),
            1 => drop(self.durable.snapshot.take_if(|held| is_meant(&held.meta))),
            _ => drop(self.unseen.pop_front_if(|(meta, _)| is_meant(meta))),
        }
    }

    /// Makes the first batches that wait durable, at most so many; says which was the last.
    pub fn sync(&mut self, count: usize) -> Option<u64> {
        let mut last = None;
        for _ in 0..count.min(self.waiting.len()) {
            let batch = self.waiting.pop_front().expect("so many wait");
            if batch.install.is_some() {
                self.look();
            }
            self.durable.apply(&batch);
            last = Some(batch.seq);
        }
        last
    }

    /// Somebody looks at the snapshots.
    fn look(&mut self) {
        for (meta, state) in self.unseen.drain(..) {
            self.durable.keep(meta, || state.image().collect());
        }
    }

    /// Says whether the log on it holds this entry, or a snapshot that stands for it does.
    pub fn holds(&self, id: LogId) -> bool {
        let Durable { base, entries, .. } = &self.durable;
        let place = id.index.0.checked_sub(base.index.0 + 1);
        match place.and_then(|place| entries.get(place as usize)) {
            Some(entry) => entry.id == id,
            None => id.index <= base.index,
        }
    }
}

/// What every node of a world is started with.
pub struct Setup {
    /// The join list.
    pub join: Vec<String>,
    /// The timers.
    pub profile: Profile,
    /// How many shall vote.
    pub voters: Option<u8>,
    /// How long a voter may be silent.
    pub replace_after: Duration,
    /// Attempts at once.
    pub slots: u32,
    /// When snapshots are written.
    pub compaction: replica::Compaction,
}

impl Host {
    /// A process that has never run.
    pub fn new(id: NodeId, is_node: bool, rate: u64, offset: u64) -> Self {
        Self {
            id,
            is_node,
            home: place(id),
            is_at_home: true,
            exchanges_list: false,
            run: 0,
            machines: None,
            disk: Disk::empty(id),
            lost: Vec::new(),
            running: BTreeMap::new(),
            kept: BTreeMap::new(),
            guards: Guards::default(),
            is_leaving: false,
            paused_until: 0,
            asleep_since: None,
            rate,
            offset,
            held_up: None,
            wakes: [u64::MAX; 4],
            hops: [[0; 4]; 7],
        }
    }

    /// Starts it from its disk.
    pub fn start(&mut self, setup: &Setup, time: u64, seed: u64) {
        self.run += 1;
        self.disk.durable.incarnation = Incarnation(self.run);
        self.disk.look();
        self.disk.durable.former = None;
        let now = self.local(time);
        let node = self.id;
        let patience = setup.profile.election_timeout * 2;
        let ttl = setup.profile.session * 10;
        let first_number = (self.run << 32) | (seed & 0xffff);
        let config = client::Config { node, local_replica: self.is_node, ttl, patience, first_number, now };
        let client = client::Client::new(config);
        let mut machines = Machines { replica: None, mastership: None, worker: None, client, gate: Gate::default() };
        if self.is_node {
            machines.replica = Some(Replica::new(
                replica::Config {
                    node,
                    profile: setup.profile,
                    name: "simulated".into(),
                    join: self.join(setup),
                    voters: setup.voters,
                    seed,
                    cluster: ClusterId(u128::from(seed) + 1),
                    replace_after: setup.replace_after,
                    is_forgetful: false,
                    compaction: setup.compaction,
                },
                self.disk.durable.clone(),
                now,
            ));
            machines.mastership = Some(Mastership::new(node, setup.profile));
            let labels = BTreeMap::from([("at".to_owned(), format!("n{}", node.0))]);
            let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
            let offer = Offer { label: format!("n{node}"), slots: setup.slots, kinds, labels };
            let incarnation = Incarnation(self.run);
            let config = worker::Config { node, incarnation, offer, profile: setup.profile };
            machines.worker = Some(Worker::new(config, now));
        }
        self.machines = Some(machines);
        self.wakes = [u64::MAX; 4];
        self.hops = [[0; 4]; 7];
        self.paused_until = 0;
        self.is_leaving = false;
    }

    /// Kills it. Of what was written and not synced, the first `survivors` batches reached the disk.
    pub fn crash(&mut self, survivors: usize) {
        self.machines = None;
        self.is_leaving = false;
        self.running.clear();
        self.kept.clear();
        self.guards = Guards::default();
        self.asleep_since = None;
        self.disk.sync(survivors);
        self.disk.waiting.clear();
        self.disk.syncing = 0;
        self.disk.images.clear();
        (self.disk.batches, self.disk.is_imaging) = ((0, 0), false);
        (self.disk.fails_next, self.disk.has_failed) = (false, false);
    }

    /// Gives it an empty disk, and so another identity (F2).
    pub fn replace_disk(&mut self, id: NodeId) {
        let old = std::mem::replace(&mut self.disk, Disk::empty(id));
        self.lost.push((std::mem::replace(&mut self.id, id), old));
    }

    /// The join list that it is started with.
    fn join(&self, setup: &Setup) -> Vec<String> {
        let mut join = setup.join.clone();
        if self.exchanges_list {
            join.swap(0, 1);
        }
        join
    }

    /// Where the address of a place stands in the list that it is started with.
    pub fn listed(&self, home: usize) -> usize {
        if self.exchanges_list && home < 2 { 1 - home } else { home }
    }

    /// Whether another node was started at its address.
    pub fn is_replaced(&self) -> bool {
        self.run > 0 && !self.is_at_home
    }

    /// The cluster in which its disk says that it is.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.disk.durable.genesis.as_ref().map(|genesis| genesis.cluster)
    }

    /// Says whether an entry is or was on the disk of this node.
    pub fn held(&self, node: NodeId, id: LogId) -> bool {
        let is_on = |(owner, disk): &(NodeId, Disk)| *owner == node && disk.holds(id);
        self.id == node && self.disk.holds(id) || self.lost.iter().any(is_on)
    }

    /// Gives one machine an input; says whether it is there.
    pub fn step(&mut self, time: u64, input: Local, effects: &mut Effects) -> bool {
        let now = self.local(time);
        let Some(machines) = &mut self.machines else { return false };
        match input {
            Local::Replica(input) => machines.replica.as_mut().map(|machine| machine.step(now, input, effects)),
            Local::Master(input) => machines.mastership.as_mut().map(|machine| machine.step(now, input, effects)),
            Local::Worker(input) => machines.worker.as_mut().map(|machine| machine.step(now, input, effects)),
            Local::Client(input) => {
                machines.client.step(now, input, effects);
                Some(())
            }
        }
        .is_some()
    }

    /// When a machine wants to be woken, by the host's clock.
    pub fn deadline(&self, part: Part) -> Nanos {
        let Some(machines) = &self.machines else { return Nanos::NEVER };
        match part {
            Part::Replica => machines.replica.as_ref().map_or(Nanos::NEVER, Replica::next_deadline),
            Part::Master => machines.mastership.as_ref().map_or(Nanos::NEVER, Mastership::next_deadline),
            Part::Worker => machines.worker.as_ref().map_or(Nanos::NEVER, Worker::next_deadline),
            _ => machines.client.next_deadline(),
        }
    }

    /// When something that leaves `from` now and takes `delay` reaches `to`: never before what left earlier.
    pub fn hop(&mut self, time: u64, from: Part, to: Part, delay: u64) -> u64 {
        let last = &mut self.hops[from as usize][to as usize];
        *last = (time + delay).max(*last);
        *last
    }

    /// Says whether nothing that left `from` earlier is still on its way to `to`.
    pub fn is_hop_clear(&self, time: u64, from: Part, to: Part) -> bool {
        self.hops[from as usize][to as usize] < time
    }

    /// The replica, if the host is a node that is up.
    pub fn replica(&self) -> Option<&Replica> {
        self.machines.as_ref().and_then(|machines| machines.replica.as_ref())
    }

    /// The worker, if the host is a node that is up.
    pub fn worker(&self) -> Option<&Worker> {
        self.machines.as_ref().and_then(|machines| machines.worker.as_ref())
    }

    /// Its clock at a global time.
    pub fn local(&self, time: u64) -> Nanos {
        Nanos(self.offset + time * self.rate / 1_000_000)
    }

    /// The first global time at which its clock shows `local`.
    pub fn global(&self, local: Nanos) -> u64 {
        let ahead = local.0.saturating_sub(self.offset);
        // Later than any run lasts; and the product below stays within its type.
        if ahead > u64::MAX / 2_000_000 {
            return u64::MAX;
        }
        (ahead * 1_000_000).div_ceil(self.rate)
    }
}

/// The machine that an input is for.
pub fn target(local: &Local) -> Part {
    match local {
        Local::Replica(_) => Part::Replica,
        Local::Master(_) => Part::Master,
        Local::Worker(_) => Part::Worker,
        Local::Client(_) => Part::Client,
    }
}

/// How a handler of this kind of task ends, and when.
pub fn behaviour(kind: &str, attempt: Attempt, fence: Fence, random: u64) -> Option<(Duration, Outcome)> {
    let failed = |retry| Outcome::Failed { message: "it went wrong".into(), retry, output: bytes::Bytes::new() };
    let done = || result(attempt.task, fence);
    let short = Duration::from_micros(500 + random % 80_000);
    match kind {
        "quick" => Some((short, done())),
        "slow" => Some((Duration::from_millis(500 + random % 2500), done())),
        "flaky" if !random.is_multiple_of(3) => Some((short, failed(!random.is_multiple_of(7)))),
        "flaky" => Some((short, done())),
        _ => None,
    }
}

/// What an attempt reports that ran to its end: its fence, written to a key of the task too, and one more result counted.
pub fn result(task: TaskId, fence: Fence) -> Outcome {
    let token = (EFFECT | fence.0).to_be_bytes();
    let effects = vec![
        TaskEffect::Put { key: format!("result/{task}"), value: bytes::Bytes::copy_from_slice(&token) },
        TaskEffect::Delete(format!("result/{}", TaskId(task.0.saturating_sub(8)))),
        TaskEffect::Add { counter: "results".into(), by: 1 },
    ];
    Outcome::Done { output: bytes::Bytes::copy_from_slice(&fence.0.to_be_bytes()), effects }
}

/// Sets what tasks write apart from what clients write.
const EFFECT: u64 = 1 << 63;

/// The kinds of task that every node runs; the last one never ends by itself.
pub const KINDS: [&str; 4] = ["quick", "flaky", "slow", "hanging"];
