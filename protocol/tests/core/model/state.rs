//! One state of a small world, and what may happen in it.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use protocol::consensus::{Config, Consensus, Effect, Input, Message};
use protocol::durable::{ConfState, Durable, Entry, Genesis, Payload, Persist, SnapMeta, Snapshot};
use protocol::effects::Role;
use protocol::{ClusterId, Epoch, Incarnation, Index, LogId, Nanos, NodeId, Profile};

use super::Bounds;

/// Everything that may matter for what happens later.
#[derive(Clone, Debug)]
pub struct State {
    pub nodes: Vec<Arc<Node>>,
    /// Everything that was ever sent and may still change anything, ordered by name. It may arrive at any time.
    pub network: Arc<Vec<Arc<Parcel>>>,
    pub history: Arc<History>,
    pub spent: Spent,
    /// What a core said when it broke.
    pub broken: Option<String>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub core: Consensus,
    /// What is synced.
    pub disk: Durable,
    unsynced: Vec<Persist>,
    held: BTreeSet<(u64, Arc<Parcel>)>,
    /// Of all the rest, so that an unchanged node is not hashed again.
    print: u64,
}

/// Something on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    /// A hash of the rest. It comes first, so that parcels are ordered by it.
    name: u64,
    from: usize,
    to: usize,
    content: Content,
}

/// What a parcel carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    Message(Message),
    /// The image that this stands for.
    Image(SnapMeta),
}

/// What was seen by an observer who sees everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Who won which epoch.
    pub elected: BTreeSet<(Epoch, usize)>,
    /// The committed log from index 2 on.
    pub committed: Vec<Committed>,
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    pub entry: Entry,
    /// The epoch in which it was first believed to be committed.
    pub epoch: Epoch,
    /// Whether the disks of a quorum held it then.
    pub is_durable: bool,
}

/// What is bounded and has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    steps: u8,
    beats: u8,
    proposals: u8,
    crashes: u8,
    losses: u8,
    transfers: u8,
    snapshots: u8,
    changes: u8,
    evidence: u8,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A node begins an election, if the rules let it.
    Campaign(usize),
    /// A leader's heartbeat is due.
    Beat(usize),
    Propose(usize),
    Change(usize),
    Transfer(usize, usize),
    Snapshot(usize),
    /// A leader heard nobody for an election timeout.
    LoseTouch(usize),
    /// A node sees that its leader is dead, which may be false.
    Evidence(usize),
    /// The disk has done all that it was asked.
    Sync(usize),
    /// A node dies and starts again; this many of the batches that were under way reached the disk.
    Crash(usize, usize),
    Arrive(Arc<Parcel>),
    /// Time passes.
    Pass,
}

impl State {
    pub fn new(bounds: &Bounds) -> Self {
        let voters: Vec<NodeId> = (1..=bounds.voters).map(NodeId).collect();
        let genesis = Genesis { cluster: ClusterId(7), ballot: Default::default(), voters, target: 3 };
        let nodes = (0..bounds.nodes as usize).map(|at| Arc::new(Node::founded(at, &genesis, bounds))).collect();
        let (network, history) = (Arc::default(), Arc::default());
        let mut state = Self { nodes, network, history, spent: Spent::default(), broken: None };
        if bounds.is_led {
            state.elect(bounds);
        }
        state
    }

    /// The first node is elected by as few as it takes and commits its no-op with them; nobody else hears anything.
    fn elect(&mut self, bounds: &Bounds) {
        let bounds = &Bounds { links: Vec::new(), ..bounds.clone() };
        self.take(&Action::Campaign(0), bounds);
        let mut heard = BTreeSet::new();
        let most = bounds.voters as usize / 2 + 1;
        let is_between = |parcel: &Parcel| parcel.from < most && parcel.to < most;
        while let Some(parcel) = self.network.iter().find(|next| is_between(next) && !heard.contains(*next)).cloned() {
            heard.insert(parcel.clone());
            self.take(&Action::Arrive(parcel), bounds);
        }
        self.network = Arc::default();
    }

    pub fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let Spent { steps, beats, proposals, crashes, losses, transfers, snapshots, changes, evidence } = self.spent;
        let has_begun = self.nodes.iter().any(|node| node.core.epoch() > Epoch(1));
        for (at, node) in self.nodes.iter().enumerate() {
            let core = &node.core;
            if core.role() == Role::Leader {
                actions.extend((beats < bounds.beats).then_some(Action::Beat(at)));
                actions.extend((proposals < bounds.proposals).then_some(Action::Propose(at)));
                actions.extend((losses < bounds.losses).then_some(Action::LoseTouch(at)));
                actions.extend((usize::from(changes) < bounds.targets.len()).then_some(Action::Change(at)));
                let heirs = (0..self.nodes.len()).filter(|to| *to != at && transfers < bounds.transfers);
                actions.extend(heirs.map(|to| Action::Transfer(at, to)));
            } else if core.epoch().0 < bounds.epoch && (has_begun || at == 0) && (at as u64) < bounds.campaigners {
                // Voters are alike, so the first to campaign may be the first.
                actions.push(Action::Campaign(at));
            }
            actions.extend((snapshots < bounds.snapshots).then_some(Action::Snapshot(at)));
            actions.extend((!node.unsynced.is_empty()).then_some(Action::Sync(at)));
            if crashes < bounds.crashes {
                actions.extend((0..=node.unsynced.len()).map(|survivors| Action::Crash(at, survivors)));
            }
            if let Some(clock) = &bounds.clock {
                actions.extend((evidence < clock.evidence && core.leader().is_some()).then_some(Action::Evidence(at)));
            }
        }
        actions.extend(self.network.iter().cloned().map(Action::Arrive));
        let may_pass = bounds.clock.as_ref().is_some_and(|clock| has_begun && steps < clock.steps);
        actions.extend(may_pass.then_some(Action::Pass));
    }

    pub fn take(&mut self, action: &Action, bounds: &Bounds) {
        match action {
            Action::Campaign(at) => self.campaign(*at, bounds),
            Action::Beat(at) => {
                self.spent.beats += 1;
                self.step(*at, Input::Tick, bounds);
            }
            Action::Propose(at) => {
                self.spent.proposals += 1;
                let epoch = self.nodes[*at].core.epoch();
                self.step(*at, Input::Propose { context: 0, epoch, payload: Default::default() }, bounds);
            }
            Action::Change(at) => {
                let target = bounds.targets[usize::from(self.spent.changes)].clone();
                self.spent.changes += 1;
                let epoch = self.nodes[*at].core.epoch();
                self.step(*at, Input::ProposeConf { context: 0, epoch, target }, bounds);
            }
            Action::Transfer(at, to) => {
                self.spent.transfers += 1;
                self.step(*at, Input::Transfer { context: 0, to: NodeId(*to as u64 + 1) }, bounds);
            }
            Action::Snapshot(at) => self.save(*at, bounds),
            Action::LoseTouch(at) => {
                self.spent.losses += 1;
                self.step_at(*at, Nanos(LATE), Input::Tick, bounds);
            }
            Action::Evidence(at) => {
                self.spent.evidence += 1;
                let node = self.nodes[*at].core.leader().expect("there is evidence only of known leaders");
                self.step(*at, Input::Evidence { node, incarnation: Incarnation(1) }, bounds);
            }
            Action::Sync(at) => self.sync(*at, bounds),
            Action::Crash(at, survivors) => self.crash(*at, *survivors, bounds),
            Action::Arrive(parcel) => match &parcel.content {
                Content::Message(message) => {
                    let (from, message) = (NodeId(parcel.from as u64 + 1), message.clone());
                    self.step(parcel.to, Input::Message { from, message }, bounds);
                }
                Content::Image(meta) => self.stage(parcel.to, meta, bounds),
            },
            Action::Pass => self.spent.steps += 1,
        }
        while let Some(at) = self.nodes.iter().position(|node| !bounds.has_late_disks && !node.unsynced.is_empty()) {
            self.sync(at, bounds);
        }
        self.forget_what_cannot_matter();
    }

    /// The clock of a node.
    pub fn now(&self, at: usize, bounds: &Bounds) -> Nanos {
        match &bounds.clock {
            None => Nanos(2),
            Some(clock) => Nanos(EARLY + clock.step * u64::from(self.spent.steps) * clock.rates[at] / 100),
        }
    }

    /// Asks, and everyone else says yes at once: a pre-vote only keeps elections from happening. Whoever is bound by a promise of its
    /// own does not go on.
    fn campaign(&mut self, at: usize, bounds: &Bounds) {
        let now = self.now(at, bounds);
        let core = &mut Arc::make_mut(&mut self.nodes[at]).core;
        let mut effects = Vec::new();
        // A node in touch with a leader asks only on suspicion.
        if let Some(node) = core.leader() {
            core.step(now, Input::Suspected { node }, &mut effects);
        }
        core.campaign_now(now, &mut effects);
        let message = Message::PreVoteReply { epoch: core.epoch().next(), granted: true };
        for from in (1..=bounds.nodes).map(NodeId).filter(|node| node.0 != at as u64 + 1) {
            core.step(now, Input::Message { from, message: message.clone() }, &mut effects);
        }
        effects.retain(|effect| !matches!(effect, Effect::Send { message: Message::PreVote { .. }, .. }));
        self.carry_out(at, effects, bounds);
    }

    fn save(&mut self, at: usize, bounds: &Bounds) {
        let node = Arc::make_mut(&mut self.nodes[at]);
        let is_new = |meta: &SnapMeta| node.core.snapshot().is_none_or(|held| held.index < meta.last.index);
        let Some(meta) = node.core.snap_meta().filter(is_new).filter(|_| !node.core.is_installing()) else { return };
        node.disk.snapshot = Some(Snapshot { meta: meta.clone(), chunks: Vec::new() });
        self.spent.snapshots += 1;
        self.step(at, Input::Saved { meta, trailing: 0 }, bounds);
    }

    fn stage(&mut self, at: usize, meta: &SnapMeta, bounds: &Bounds) {
        if self.nodes[at].core.is_installing() {
            return; // A replica stages nothing before what it has installed.
        }
        Arc::make_mut(&mut self.nodes[at]).disk.staged = Some((meta.last, Vec::new()));
        self.step(at, Input::Staged { meta: meta.clone() }, bounds);
        if !self.nodes[at].core.is_installing() {
            Arc::make_mut(&mut self.nodes[at]).disk.staged = None;
        }
    }

    fn crash(&mut self, at: usize, survivors: usize, bounds: &Bounds) {
        self.spent.crashes += 1;
        let now = self.now(at, bounds);
        let node = Arc::make_mut(&mut self.nodes[at]);
        node.unsynced.drain(..).take(survivors).for_each(|batch| node.disk.apply(&batch));
        node.disk.staged = None;
        node.held.clear();
        node.core = Consensus::new(config(at, bounds), node.disk.clone(), now).with_bug(bounds.bug);
        self.step(at, Input::Tick, bounds);
    }

    fn sync(&mut self, at: usize, bounds: &Bounds) {
        let node = Arc::make_mut(&mut self.nodes[at]);
        let batches = std::mem::take(&mut node.unsynced);
        batches.iter().for_each(|batch| node.disk.apply(batch));
        let seq = batches.last().map_or(0, |batch| batch.seq);
        for (_, parcel) in std::mem::take(&mut node.held) {
            self.send(parcel, bounds);
        }
        self.step(at, Input::Persisted { seq }, bounds);
    }

    fn step(&mut self, at: usize, input: Input, bounds: &Bounds) {
        let now = self.now(at, bounds);
        self.step_at(at, now, input, bounds);
    }

    fn step_at(&mut self, at: usize, now: Nanos, input: Input, bounds: &Bounds) {
        let mut effects = Vec::new();
        Arc::make_mut(&mut self.nodes[at]).core.step(now, input, &mut effects);
        self.carry_out(at, effects, bounds);
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>, bounds: &Bounds) {
        let mut surrenders = None;
        for effect in effects {
            let node = Arc::make_mut(&mut self.nodes[at]);
            match effect {
                Effect::Persist(batch) => node.unsynced.push(batch),
                Effect::Send { to, message, after } => {
                    let parcel = Parcel::new(at, (to.0 - 1) as usize, Content::Message(timeless(message, bounds)));
                    match after {
                        Some(seq) => drop(node.held.insert((seq, parcel))),
                        None => self.send(parcel, bounds),
                    }
                }
                Effect::Fetch { from, meta } => {
                    self.send(Parcel::new((from.0 - 1) as usize, at, Content::Image(meta)), bounds);
                }
                Effect::Surrender { epoch, .. } => surrenders = Some(epoch),
                Effect::Fatal(why) => panic!("n{} stops: {why}", at + 1),
                _ => {}
            }
        }
        self.observe(at, bounds);
        // The master stops at once: how long that takes moves only the time-out of a hand-over.
        if let Some(epoch) = surrenders {
            return self.step(at, Input::Surrendered { epoch }, bounds);
        }
        let now = self.now(at, bounds);
        Arc::make_mut(&mut self.nodes[at]).forget(now, bounds);
    }

    fn send(&mut self, parcel: Arc<Parcel>, bounds: &Bounds) {
        if !bounds.links.is_empty() && !bounds.links.contains(&(parcel.from as u64 + 1, parcel.to as u64 + 1)) {
            return;
        }
        if let Err(place) = self.network.binary_search(&parcel) {
            Arc::make_mut(&mut self.network).insert(place, parcel);
        }
    }

    /// Notes what one core shows.
    fn observe(&mut self, at: usize, bounds: &Bounds) {
        let core = &self.nodes[at].core;
        let (elected, known) = ((core.epoch(), at), Index(self.history.committed.len() as u64 + 1));
        if core.role() == Role::Leader && !self.history.elected.contains(&elected) {
            Arc::make_mut(&mut self.history).elected.insert(elected);
        }
        if core.commit() > known {
            let (epoch, news) = (core.epoch(), core.entries(known.next()..=core.commit()).to_vec());
            for entry in news {
                let is_durable = self.is_durable(&entry, bounds);
                Arc::make_mut(&mut self.history).committed.push(Committed { entry, epoch, is_durable });
            }
        }
    }

    /// Whether a quorum holds an entry that was just committed. A configuration is in force for itself; what was appended since
    /// asks for no less, for a joint configuration is left only when it is committed.
    fn is_durable(&self, entry: &Entry, bounds: &Bounds) -> bool {
        let known = self.history.committed.iter().map(|known| &known.entry);
        let conf = known.chain([entry]).rev().find_map(|entry| match &entry.payload {
            Payload::Config(conf) => Some(conf.clone()),
            _ => None,
        });
        let genesis = || ConfState { voters: (1..=bounds.voters).map(NodeId).collect(), ..ConfState::default() };
        let conf = conf.unwrap_or_else(genesis);
        let holds = |node: &&NodeId| self.nodes[(node.0 - 1) as usize].holds(entry.id);
        let is_most = |voters: &[NodeId]| voters.iter().filter(holds).count() * 2 > voters.len();
        is_most(&conf.voters) && (conf.outgoing.is_empty() || is_most(&conf.outgoing))
    }

    /// Of an epoch that the receiver has durably left behind, only appends and snapshots are answered.
    fn forget_what_cannot_matter(&mut self) {
        let is_dead = |parcel: &Arc<Parcel>| match &parcel.content {
            Content::Message(Message::Append(_) | Message::Snapshot(_)) | Content::Image(_) => false,
            Content::Message(message) => message.epoch() < self.nodes[parcel.to].disk.hard_state.epoch,
        };
        if self.network.iter().any(is_dead) {
            let alive = self.network.iter().filter(|parcel| !is_dead(parcel)).cloned().collect();
            self.network = Arc::new(alive);
        }
    }

    fn prints(&self) -> impl Iterator<Item = u64> {
        self.nodes.iter().map(|node| node.print).chain(self.network.iter().map(|parcel| parcel.name))
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.prints().for_each(|print| hasher.write_u64(print));
        (&self.history, self.spent, &self.broken).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let is_same_past = self.history == other.history && self.spent == other.spent && self.broken == other.broken;
        is_same_past && self.prints().eq(other.prints())
    }
}

impl Node {
    /// Nothing was promised to anyone: the genesis was accepted in this run.
    fn founded(at: usize, genesis: &Genesis, bounds: &Bounds) -> Self {
        let mut disk = Durable::fresh(NodeId(at as u64 + 1), Incarnation(1));
        let (now, mut effects) = (Nanos(EARLY), Vec::new());
        let mut core = Consensus::new(config(at, bounds), disk.clone(), now).with_bug(bounds.bug);
        core.adopt_genesis(now, genesis, &mut effects);
        for effect in effects {
            if let Effect::Persist(batch) = effect {
                disk.apply(&batch);
                core.step(now, Input::Persisted { seq: batch.seq }, &mut Vec::new());
            }
        }
        let mut node = Self { core, disk, unsynced: Vec::new(), held: BTreeSet::new(), print: 0 };
        node.forget(now, bounds);
        node
    }

    /// Forgets what only counts or measures, and takes a new fingerprint.
    fn forget(&mut self, now: Nanos, bounds: &Bounds) {
        let durable = if bounds.clock.is_some() { self.core.forget_steps(now) } else { self.core.forget_time() };
        if durable > 0 {
            self.unsynced.iter_mut().for_each(|batch| batch.seq -= durable);
            let held = std::mem::take(&mut self.held);
            self.held = held.into_iter().map(|(seq, parcel)| (seq - durable, parcel)).collect();
        }
        let held: Vec<(u64, u64)> = self.held.iter().map(|(seq, parcel)| (*seq, parcel.name)).collect();
        self.print = hash(&(&self.core, &self.disk, &self.unsynced, held));
    }

    /// Whether the disk holds this entry, or a snapshot that stands for it.
    fn holds(&self, id: LogId) -> bool {
        match id.index.0.checked_sub(self.disk.base.index.0 + 1) {
            Some(place) => self.disk.entries.get(place as usize).is_some_and(|held| held.id == id),
            None => true,
        }
    }
}

impl Parcel {
    fn new(from: usize, to: usize, content: Content) -> Arc<Self> {
        Arc::new(Self { name: hash(&(from, to, &content)), from, to, content })
    }
}

impl Debug for Parcel {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{} to n{}: ", self.from + 1, self.to + 1)?;
        match &self.content {
            Content::Message(message) => write!(formatter, "{message:?}"),
            Content::Image(meta) => write!(formatter, "image of {}", meta.last),
        }
    }
}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By name: two parcels with one name are one.
impl Ord for Parcel {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

fn config(at: usize, bounds: &Bounds) -> Config {
    let for_ever = Profile { election_timeout: Duration::from_secs(FOR_EVER_S), ..Profile::LAN };
    let profile = bounds.clock.as_ref().map_or(for_ever, |clock| clock.profile);
    Config { node: NodeId(at as u64 + 1), profile, seed: 0 }
}

/// A message that does not say when it was sent, in worlds without time.
fn timeless(mut message: Message, bounds: &Bounds) -> Message {
    if bounds.clock.is_some() {
        return message;
    }
    match &mut message {
        Message::Append(append) => append.sent = Nanos(1),
        Message::AppendReply(reply) => reply.sent = Nanos(1),
        Message::Snapshot(snapshot) => snapshot.sent = Nanos(1),
        Message::SnapshotReply(reply) => reply.sent = Nanos(1),
        _ => {}
    }
    message
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The election timeout where there is no time.
const FOR_EVER_S: u64 = 1 << 30;
/// Later than that.
const LATE: u64 = 3_000_000_000 << 30;
/// Where the clocks begin.
const EARLY: u64 = 1_000_000_000;
