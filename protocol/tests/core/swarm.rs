//! A seeded swarm: every seed draws its own mix of faults, so that no kind of bug can hide behind one fixed mix.
//!
//! `TENURE_SEEDS=5` replays one seed, `TENURE_SEEDS=0..1000` runs a range.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use protocol::consensus::{Input, ReadMode, Target};
use protocol::durable::ConfState;
use protocol::effects::Role;
use protocol::{Epoch, Incarnation, NodeId, Profile};

use crate::dice::Dice;
use crate::laws::Laws;
use crate::world::{MS, World};

/// One run: the world, its laws and the weather.
pub struct Run {
    /// The cluster.
    pub world: World,
    /// What must hold.
    pub laws: Laws,
    /// Whether the faults end and the cluster must heal.
    pub must_heal: bool,
    weather: Weather,
    dice: Dice,
    contexts: u64,
    election_timeout: u64,
}

/// What a seed draws, in parts per thousand of the beats.
#[derive(Clone, Debug)]
struct Weather {
    beat: u64,
    span: u64,
    /// The leader alone.
    regicide: u64,
    /// Whether the others see that a leader died.
    news: u64,
    /// A new cut mends the one before.
    one_cut: bool,
    crash: u64,
    restart: u64,
    cut: u64,
    mend: u64,
    pause: u64,
    stick: u64,
    evidence: u64,
    suspicion: u64,
    unreachable: u64,
    snapshot: u64,
    trailing: u64,
    proposals: u64,
    batch: u64,
    size: usize,
    reads: u64,
    lease_reads: bool,
    /// Changes of the configuration.
    changes: u64,
    /// Leadership is handed over.
    transfers: u64,
    /// Nodes without a place give up their log.
    retirements: u64,
}

/// What a seed is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Any,
    Leases,
    Churn,
    /// The voters change all the time.
    Changes,
    /// Short logs and long absences: who comes back is sent a snapshot, and has a tail of its own.
    Images,
}

impl Weather {
    fn draw(theme: Theme, dice: &mut Dice, world: &mut World) -> Self {
        let net = &mut world.net;
        net.twice = dice.pick(&[0, 0, 100]);
        let lease_reads = dice.happens(700);
        let any = Self {
            beat: 5 * MS,
            span: dice.between(2_000, 8_000) * MS,
            regicide: 0,
            news: 0,
            one_cut: false,
            crash: dice.pick(&[0, 2, 10, 30]),
            restart: dice.pick(&[10, 50, 200]),
            cut: dice.pick(&[0, 5, 30]),
            mend: dice.pick(&[5, 30, 100]),
            pause: dice.pick(&[0, 0, 5, 20]),
            stick: dice.pick(&[0, 0, 5]),
            evidence: dice.pick(&[0, 0, 20, 100]),
            suspicion: dice.pick(&[0, 20, 100]),
            unreachable: dice.pick(&[0, 20]),
            snapshot: 0,
            trailing: 0,
            proposals: dice.pick(&[10, 100, 500]),
            batch: dice.pick(&[1, 1, 64]),
            size: dice.pick(&[8, 8, 60_000, 200_000]),
            reads: dice.pick(&[0, 100, 500]),
            lease_reads,
            changes: 0,
            transfers: dice.pick(&[0, 0, 5, 30]),
            retirements: 0,
        };
        match theme {
            Theme::Any => {
                net.loss = dice.pick(&[0, 20, 100, 300]);
                net.delay = dice.pick(&[(MS / 10, MS), (MS, 20 * MS), (0, 60 * MS)]);
                net.slow = dice.pick(&[0, 0, 20, 200]);
                any
            }
            Theme::Leases => {
                net.delay = (MS / 10, dice.pick(&[MS, 8 * MS]));
                net.slow = dice.pick(&[0, 50, 300]);
                net.slow_delay = dice.pick(&[30, 100, 800]) * MS;
                Self {
                    beat: 2 * MS,
                    one_cut: true,
                    crash: dice.pick(&[0, 5, 15]),
                    restart: dice.pick(&[200, 900]),
                    cut: dice.pick(&[5, 20]),
                    mend: dice.pick(&[0, 2, 5]),
                    pause: dice.pick(&[0, 5]),
                    stick: 0,
                    evidence: dice.pick(&[0, 100, 300]),
                    proposals: dice.pick(&[1, 1, 20]),
                    batch: 1,
                    size: 8,
                    reads: 200,
                    lease_reads: true,
                    ..any
                }
            }
            Theme::Changes => {
                let is_split = dice.happens(500);
                net.loss = dice.pick(&[0, 20, 200]);
                net.delay = dice.pick(&[(MS / 10, MS), (MS, 10 * MS)]);
                net.slow = dice.pick(&[0, 50]);
                Self {
                    beat: dice.pick(&[MS, 5 * MS]),
                    regicide: dice.pick(&[0, 5, 30]),
                    news: dice.pick(&[0, 500]),
                    crash: dice.pick(&[0, 2, 10]),
                    restart: dice.pick(&[50, 200]),
                    cut: if is_split { 30 } else { dice.pick(&[0, 5, 20]) },
                    mend: if is_split { 5 } else { dice.pick(&[5, 30, 100]) },
                    one_cut: is_split,
                    stick: 0,
                    proposals: dice.pick(&[10, 100]),
                    size: 8,
                    changes: dice.pick(&[20, 100, 1000]),
                    retirements: dice.pick(&[0, 0, 50]),
                    ..any
                }
            }
            Theme::Images => {
                net.delay = dice.pick(&[(MS / 10, MS), (MS, 10 * MS)]);
                Self {
                    one_cut: true,
                    crash: dice.pick(&[0, 2]),
                    cut: dice.pick(&[5, 15]),
                    mend: dice.pick(&[5, 15]),
                    stick: 0,
                    proposals: dice.pick(&[100, 500]),
                    batch: dice.pick(&[1, 8]),
                    size: 8,
                    reads: dice.pick(&[0, 20]),
                    changes: dice.pick(&[0, 20, 100]),
                    ..any
                }
            }
            Theme::Churn => {
                net.loss = dice.pick(&[0, 50, 300]);
                net.delay = dice.pick(&[(MS / 10, MS), (MS, 20 * MS), (MS, 40 * MS)]);
                Self {
                    span: dice.between(5_000, 20_000) * MS,
                    regicide: dice.pick(&[10, 30]),
                    news: dice.pick(&[0, 500, 1000]),
                    crash: dice.pick(&[0, 5]),
                    restart: dice.pick(&[20, 50, 200]),
                    cut: dice.pick(&[0, 5, 30]),
                    mend: dice.pick(&[30, 100]),
                    evidence: dice.pick(&[20, 100]),
                    proposals: 300,
                    batch: dice.pick(&[1, 4]),
                    size: 200_000,
                    ..any
                }
            }
        }
    }
}

impl Run {
    /// Draws the weather of a seed. Some seeds hunt leases: good links with a slow path, a leader that one node does not hear,
    /// rumours, short crashes. Some churn: short reigns and long logs in small messages. Some change the voters, and some send
    /// snapshots to whoever was away.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x7e57);
        let theme = dice.pick(&[Theme::Any, Theme::Leases, Theme::Churn, Theme::Changes, Theme::Images]);
        let count = match theme {
            Theme::Any => dice.pick(&[1, 2, 3, 3, 4, 5]),
            Theme::Leases | Theme::Churn => dice.pick(&[3, 3, 5]),
            Theme::Changes => dice.pick(&[3, 4, 5, 6]),
            Theme::Images => dice.pick(&[3, 4, 5]),
        };
        let voters = match theme {
            Theme::Changes => dice.between(1, count as u64) as usize,
            Theme::Images => 3,
            Theme::Any | Theme::Leases | Theme::Churn => count,
        };
        let is_mixed = dice.happens(if theme == Theme::Leases { 500 } else { 150 });
        let profiles: Vec<Profile> = (0..count)
            .map(|_| if is_mixed { dice.pick(&[Profile::DEV, Profile::LAN]) } else { Profile::DEV })
            .collect();
        let mut world = World::with(count, voters, dice.any(), |at| profiles[at]);
        let is_wild = theme != Theme::Leases && dice.happens(200);
        for node in &mut world.nodes {
            let rate = match is_wild {
                true => dice.between(500_000, 2_000_000),
                false => dice.pick(&[954_000, 1_000_000, 1_049_000]),
            };
            node.clock = (rate, dice.between(0, 1_000_000 * MS));
            node.sync = match theme {
                Theme::Leases => (MS / 10, MS),
                _ => dice.pick(&[(MS / 10, MS), (MS, 10 * MS), (MS, 200 * MS)]),
            };
        }
        for at in 0..count {
            world.crash(at, 0); // The clocks were changed under them.
            world.restart(at);
        }
        let mut weather = Weather::draw(theme, &mut dice, &mut world);
        world.surrender = dice.pick(&[(0, MS), (0, 30 * MS)]);
        let election_timeout = profiles.iter().map(|profile| profile.election_timeout.as_nanos() as u64).max();
        if theme == Theme::Images || dice.happens(400) {
            weather.snapshot = dice.pick(&[5, 30, 100]);
            weather.trailing = dice.pick(&[0, 1, 20]);
            world.fetch_delay = dice.pick(&[2, 50, 800]) * MS;
            world.save_delay = dice.pick(&[1, 20, 300]) * MS;
        }
        let mut laws = Laws::default();
        laws.is_wild = is_wild;
        let election_timeout = election_timeout.expect("there is at least one node");
        Self { world, laws, must_heal: true, weather, dice, contexts: 0, election_timeout }
    }

    /// The same with every core broken in this way.
    #[cfg(feature = "mutants")]
    pub fn with_bug(seed: u64, bug: protocol::consensus::Bug) -> Self {
        let mut run = Self::new(seed);
        run.world.bug = Some(bug);
        for at in 0..run.world.nodes.len() {
            run.world.crash(at, 0);
            run.world.restart(at);
        }
        run
    }

    /// Faults for a while, then none: the cluster must heal.
    pub fn play(&mut self) {
        let end = self.world.time + self.weather.span;
        while self.world.time < end {
            self.pass(self.world.time + self.weather.beat);
            self.disturb();
            self.work();
        }
        if self.must_heal {
            self.heal();
        }
    }

    /// Lets time pass, checking after every step.
    fn pass(&mut self, until: u64) {
        while self.world.advance(until) {
            self.laws.check(&mut self.world);
        }
        self.laws.check(&mut self.world);
    }

    fn disturb(&mut self) {
        let weather = self.weather.clone();
        for at in 0..self.world.nodes.len() {
            let is_up = self.world.nodes[at].core.is_some();
            let is_leader = self.world.leader() == Some(at);
            // Votes are on their way to the disk for a moment only, and their loss is what a crash must not bring.
            let crash = weather.crash * if self.world.nodes[at].owes_vote() { VOTES_LOST } else { 1 };
            if is_up && self.dice.happens(crash + if is_leader { weather.regicide } else { 0 }) {
                let survivors = self.dice.between(0, 3) as usize;
                self.world.crash(at, survivors);
                self.laws.note_crash(at);
                if is_leader && self.dice.happens(weather.news) {
                    let evidence = Input::Evidence { node: NodeId(at as u64 + 1), incarnation: Incarnation(1) };
                    (0..self.world.nodes.len()).for_each(|other| self.world.step(other, evidence.clone()));
                }
            } else if !is_up && self.dice.happens(weather.restart) && self.may_start(at) {
                self.world.restart(at);
            }
            if self.dice.happens(weather.retirements) {
                self.retire(at);
            }
            if self.dice.happens(weather.pause) {
                self.world.nodes[at].paused_until = self.world.time + self.dice.between(10, 1500) * MS;
            }
            if self.dice.happens(weather.stick) {
                self.world.nodes[at].is_disk_stuck ^= true;
                self.world.sync(at);
            }
            if weather.snapshot > 0 && !self.is_paused(at) && self.dice.happens(weather.snapshot) {
                // What is forgotten cannot be looked at any more.
                self.laws.check(&mut self.world);
                self.world.begin_to_save(at, weather.trailing);
                self.laws.check(&mut self.world);
            }
            self.rumour(at);
        }
        if self.dice.happens(weather.mend) {
            self.world.net.cut.clear();
        }
        if self.dice.happens(weather.cut) {
            self.cut();
        }
    }

    /// Cuts one direction of one link, all links of a node, or one direction of all of them.
    fn cut(&mut self) {
        if self.weather.one_cut {
            self.world.net.cut.clear();
        }
        let count = self.world.nodes.len();
        let (mut one, kind) = (self.dice.between(0, count as u64 - 1) as usize, self.dice.between(0, 3));
        if let Some(leader) = self.world.leader().filter(|_| self.dice.happens(500)) {
            one = leader;
        }
        let only = self.dice.between(0, count as u64 - 1) as usize;
        for other in 0..count {
            match kind {
                0 if other == only => drop(self.world.net.cut.insert((one, other))),
                1 => drop(self.world.net.cut.insert((one, other))),
                2 => drop(self.world.net.cut.insert((other, one))),
                3 => self.world.net.cut.extend([(one, other), (other, one)]),
                _ => {}
            }
        }
    }

    /// Evidence and suspicion, mostly false: no safety may rest on them.
    fn rumour(&mut self, at: usize) {
        if self.is_paused(at) {
            return;
        }
        let mut node = NodeId(self.dice.between(1, self.world.nodes.len() as u64));
        if let Some(leader) = self.world.leader().filter(|_| self.dice.happens(500)) {
            node = NodeId(leader as u64 + 1);
        }
        if self.dice.happens(self.weather.evidence) {
            self.world.step(at, Input::Evidence { node, incarnation: Incarnation(1) });
        }
        if self.dice.happens(self.weather.suspicion) {
            self.world.step(at, Input::Suspected { node });
        }
        if self.dice.happens(self.weather.unreachable) {
            self.world.step(at, Input::Unreachable { node });
        }
        self.laws.check(&mut self.world);
    }

    /// Clients: they ask whoever believes to lead, and sometimes anyone.
    fn work(&mut self) {
        for at in 0..self.world.nodes.len() {
            let Some(core) = &self.world.nodes[at].core else { continue };
            let is_elsewhere = core.role() != Role::Leader;
            if is_elsewhere && !self.is_paused(at) && self.dice.happens(self.weather.reads / 4) {
                self.read(at);
                continue;
            }
            if self.is_paused(at) || (is_elsewhere && !self.dice.happens(20)) {
                continue;
            }
            let epoch = core.epoch();
            if self.dice.happens(self.weather.proposals) {
                for _ in 0..self.dice.between(1, self.weather.batch) {
                    self.contexts += 1;
                    // What it carries does not matter: entries are told apart by their places.
                    let payload = Bytes::from_static(&[0; 200_000]).slice(..self.weather.size);
                    self.world.step(at, Input::Propose { context: self.contexts, epoch, payload });
                    self.laws.check(&mut self.world);
                }
            }
            if self.dice.happens(self.weather.changes) {
                self.change(at, epoch);
            }
            if self.dice.happens(self.weather.transfers) {
                let to = NodeId(self.dice.between(1, self.world.nodes.len() as u64));
                self.contexts += 1;
                self.world.step(at, Input::Transfer { context: self.contexts, to });
                self.laws.check(&mut self.world);
            }
            if self.dice.happens(self.weather.reads) {
                self.read(at);
            }
        }
    }

    fn read(&mut self, at: usize) {
        let is_lease = self.weather.lease_reads && self.dice.happens(700);
        let mode = if is_lease { ReadMode::Lease } else { ReadMode::Quorum };
        self.contexts += 1;
        self.laws.note_read(at, self.contexts, mode);
        self.world.step(at, Input::Read { context: self.contexts, mode });
        self.laws.check(&mut self.world);
    }

    /// Asks for other voters and learners: some nodes move, at random.
    fn change(&mut self, at: usize, epoch: Epoch) {
        let conf = self.world.core(at).conf().expect("every core is founded");
        let mut target = Target { voters: conf.voters.clone(), learners: conf.learners.clone() };
        for _ in 0..self.dice.between(1, 3) {
            let place = self.dice.between(0, self.world.nodes.len() as u64 - 1);
            let node = NodeId(place + 1);
            if self.world.nodes[place as usize].is_retired {
                continue;
            }
            let was_learner = target.learners.contains(&node);
            target.voters.retain(|voter| *voter != node);
            target.learners.retain(|learner| *learner != node);
            match self.dice.between(0, 5) {
                0 => {}
                1 => target.learners.push(node),
                _ if was_learner || conf.voters.contains(&node) => target.voters.push(node),
                _ => target.learners.push(node),
            }
        }
        self.contexts += 1;
        self.world.step(at, Input::ProposeConf { context: self.contexts, epoch, target });
        self.laws.check(&mut self.world);
    }

    /// A node without a place in the leader's configuration, which is committed, gives up its log; older ones may still name it.
    fn retire(&mut self, at: usize) {
        let is_out = |leader| self.world.core(leader).dismissal(NodeId(at as u64 + 1)).is_some();
        if self.world.leader().is_some_and(is_out) {
            self.world.retire(at);
            self.laws.check(&mut self.world);
        }
    }

    /// An identity that has retired never starts again.
    fn may_start(&self, at: usize) -> bool {
        !self.world.nodes[at].is_retired
    }

    fn is_paused(&self, at: usize) -> bool {
        self.world.nodes[at].paused_until > self.world.time
    }

    /// After the faults end, there is one leader within ten election timeouts, a fresh write is acknowledged, and all logs
    /// are equal.
    fn heal(&mut self) {
        self.world.net = World::new(1, 0).net;
        for at in 0..self.world.nodes.len() {
            self.world.nodes[at].paused_until = 0;
            self.world.mend_disk(at);
            if self.world.nodes[at].core.is_none() && self.may_start(at) {
                self.world.restart(at);
            }
        }
        // What is still under way arrives at most this late, and clocks may be half as fast as they should be.
        let slack = 1_500 * MS + self.election_timeout * 10 * if self.laws.is_wild { 2 } else { 1 };
        let (end, acked) = (self.world.time + slack, self.laws.acked);
        while !(self.laws.acked > acked && self.is_level()) {
            assert!(self.world.time < end, "The cluster heals is broken: no leader, no write or no equal logs in time");
            self.pass(self.world.time + 5 * MS);
            if let Some(leader) = self.world.leader().filter(|_| self.laws.acked == acked) {
                self.contexts += 1;
                self.world.propose(leader, self.contexts);
            }
        }
        self.laws.log_matching(&self.world);
    }

    fn is_level(&self) -> bool {
        let Some(leader) = self.world.leader() else { return false };
        let core = self.world.core(leader);
        let (last, conf) = (core.last(), core.conf().expect("every core is founded"));
        let agrees = |at| {
            let core = self.world.core(at);
            core.last() == last && core.applied() == last.index && core.leader() == Some(NodeId(leader as u64 + 1))
        };
        let has_place = |at: &usize| is_named(conf, NodeId(*at as u64 + 1));
        conf.outgoing.is_empty() && (0..self.world.nodes.len()).filter(has_place).all(agrees)
    }
}

/// How many times more often a node crashes whose vote is not on its disk.
const VOTES_LOST: u64 = 10;

/// Whether a node has a place in a configuration.
pub fn is_named(conf: &ConfState, node: NodeId) -> bool {
    [&conf.voters, &conf.outgoing, &conf.learners].iter().any(|list| list.contains(&node))
}

/// Plays one seed; says in words what broke.
pub fn play(mut run: Run) -> Result<Run, String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        run.play();
        run
    }));
    played.map_err(words)
}

/// What somebody said who panicked.
pub fn words(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "panicked".into(), |words| words.to_string()),
    }
}

/// The seeds to run: those asked for, or these.
fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(asked) = std::env::var("TENURE_SEEDS") else { return default };
    let number = |word: &str| word.trim().parse::<u64>().expect("TENURE_SEEDS is a number or a range like 0..100");
    match asked.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&asked)..number(&asked) + 1,
    }
}

#[test]
fn no_seed_breaks_a_law() {
    let mut totals = (0, 0, 0, (0, 0));
    let (mut installs, seeds) = (0, seeds(0..1000));
    for seed in seeds.clone() {
        let run = play(Run::new(seed)).unwrap_or_else(|why| {
            panic!("seed {seed}: {why}\n  TENURE_SEEDS={seed} cargo test -p tenure-protocol --test core no_seed_breaks_a_law")
        });
        totals.0 += run.world.steps;
        totals.1 += run.laws.elections;
        installs += run.laws.installs;
        totals.2 += run.laws.acked;
        totals.3 = (totals.3.0 + run.laws.reads.0, totals.3.1 + run.laws.reads.1);
    }
    let (steps, elections, acked, (quorum, lease)) = totals;
    println!(
        "{steps} steps, {elections} elections, {acked} writes, {quorum} quorum reads, {lease} lease reads, {installs} installs"
    );
    // A swarm that never installs says nothing about installs.
    assert!(installs >= (seeds.end - seeds.start) / 100, "only {installs} installs in {seeds:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 14, 159] {
        let trace = || play(Run::new(seed)).expect("this seed breaks no law").laws.trace;
        assert_eq!(trace(), trace());
    }
}
