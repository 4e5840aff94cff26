//! How fast the consensus core is: steps per CPU-second of three cores that elect, replicate, commit and beat.
//!
//! `cargo run -p tenure-protocol --example core_speed`
//!
//! A step is one input to one core: a message, a proposal, a completed batch, a tick. Messages are handed over in memory and
//! disks answer at once, so nothing but the cores is measured (and the queue between them).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement looks at the clock")]

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use protocol::consensus::{Config, Consensus, Effect, Input};
use protocol::durable::{Ballot, Durable, Genesis};
use protocol::effects::Role;
use protocol::{ClusterId, Incarnation, Nanos, NodeId, Profile};

/// Three cores and what is on its way to them.
struct Cluster {
    cores: Vec<Consensus>,
    queue: VecDeque<(usize, Input)>,
    effects: Vec<Effect>,
    now: u64,
    steps: u64,
    applied: u64,
}

impl Cluster {
    fn new() -> Self {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let genesis = Genesis { cluster: ClusterId(1), ballot: Ballot::default(), voters: voters.clone(), target: 3 };
        let core = |node: &NodeId| {
            let config = Config { node: *node, profile: Profile::LAN, seed: node.0 };
            Consensus::new(config, Durable::fresh(*node, Incarnation(1)), Nanos(0))
        };
        let cores = voters.iter().map(core).collect();
        let mut cluster = Self { cores, queue: VecDeque::new(), effects: Vec::new(), now: 1, steps: 0, applied: 0 };
        for at in 0..3 {
            cluster.cores[at].adopt_genesis(Nanos(1), &genesis, &mut cluster.effects);
            cluster.carry_out(at);
        }
        cluster.settle();
        cluster.cores[0].campaign_now(Nanos(2), &mut cluster.effects);
        cluster.carry_out(0);
        cluster.settle();
        assert_eq!(cluster.cores[0].role(), Role::Leader);
        cluster
    }

    /// One round: a few proposals, what follows from them, and every deadline that has come.
    fn round(&mut self, payload: &Bytes) {
        self.now += 100_000;
        let epoch = self.cores[0].epoch();
        for context in 0..4 {
            self.queue.push_back((0, Input::Propose { context, epoch, payload: payload.clone() }));
        }
        for at in 0..3 {
            if self.cores[at].next_deadline() <= Nanos(self.now) {
                self.queue.push_back((at, Input::Tick));
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((at, input)) = self.queue.pop_front() {
            self.now += 1;
            self.steps += 1;
            self.cores[at].step(Nanos(self.now), input, &mut self.effects);
            self.carry_out(at);
        }
    }

    fn carry_out(&mut self, at: usize) {
        let from = NodeId(at as u64 + 1);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Persist(batch) => self.queue.push_back((at, Input::Persisted { seq: batch.seq })),
                Effect::Send { to, message, .. } => {
                    self.queue.push_back(((to.0 - 1) as usize, Input::Message { from, message }));
                }
                Effect::Apply { from, to } => self.applied += to.0 - from.0 + 1,
                Effect::Fatal(why) => panic!("{why}"),
                _ => {}
            }
        }
    }
}

/// CPU time of this thread in nanoseconds, where the kernel tells it.
fn cpu_time() -> Option<u64> {
    let words = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    words.split_whitespace().next()?.parse().ok()
}

fn main() {
    let payload = Bytes::from_static(b"sixteen bytes...");
    let (wall, cpu) = (Instant::now(), cpu_time());
    let (mut steps, mut applied) = (0, 0);
    for _ in 0..20 {
        let mut cluster = Cluster::new();
        for _ in 0..20_000 {
            cluster.round(&payload);
        }
        steps += cluster.steps;
        applied += cluster.applied;
    }
    let spent = match (cpu, cpu_time()) {
        (Some(before), Some(after)) => (after - before) as f64 / 1e9,
        _ => wall.elapsed().as_secs_f64(),
    };
    let rate = steps as f64 / spent / 1e6;
    println!("core.steps_per_cpu_second  {rate:.2} M  (target 5 M)");
    println!("{steps} steps and {applied} applied entries in {spent:.2} CPU-seconds");
}
