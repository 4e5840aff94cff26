//! How long the state takes to apply a command: `cargo run -p tenure-protocol --example state_speed`.
//!
//! Prints nanoseconds of CPU time for one command of each kind, applied one after the other to a state that grows by them,
//! and ends by itself.
#![allow(clippy::disallowed_types)] // it measures, so it needs the clock that a machine must not have

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::state::{
    ClusterChange, Command, MasterCommand, Offer, Operation, Outcome, Put, Restore, State, TaskSpec,
};
use protocol::{Attempt, ClusterTime, Epoch, Fence, Incarnation, NodeId, Seq, SessionId, TaskId};

/// How many commands of each kind are applied.
const COUNT: u64 = 200_000;

fn main() {
    let mut run = Run { state: State::default(), changes: Vec::new(), seq: 0 };
    let ttl = Duration::from_secs(3600);
    run.apply(&Command::Register { ttl });
    let node = MasterCommand::OpenNode { node: NodeId(1), incarnation: Incarnation(1), offer: Offer::default(), ttl };
    run.apply(&Command::Master(node));

    let value = Bytes::from(vec![7; 100]);
    let put = |key: u64| Operation::Put(Put::new(format!("key/{key:08}"), value.clone()));
    run.measure("put, new key", |run, n| run.request(put(n)));
    run.measure("put, known key", |run, n| run.request(put(n * 7919 % COUNT)));
    run.measure("renew, two sessions", |_, _| Command::Renew { sessions: vec![SessionId(1), SessionId(2)] });

    let spec = TaskSpec { keep: Duration::ZERO, ..TaskSpec::new("resize", vec![7; 100]) };
    run.measure("submit", |run, _| run.request(Operation::Submit(vec![spec.clone()])));
    let began = Clock::now();
    black_box(run.state.master_view(Epoch(1)));
    report("view for a new master, a task", began.elapsed(), COUNT);
    let began = Clock::now();
    let frozen = run.state.clone();
    report("copy", began.elapsed(), 1);
    let began = Clock::now();
    let chunks: Vec<_> = frozen.image().collect();
    report("image, a chunk", began.elapsed(), chunks.len() as u64);
    let began = Clock::now();
    let mut restore = Restore::default();
    chunks.iter().for_each(|chunk| restore.take(chunk).expect("an image is readable"));
    let restored = restore.finish().expect("an image is whole");
    report("restore, a chunk", began.elapsed(), chunks.len() as u64);
    assert_eq!(restored.digest(), run.state.digest());
    drop((frozen, restored));
    run.measure("assign", |_, n| {
        let attempt = Attempt { task: TaskId(n + 1), number: 1 };
        Command::Master(MasterCommand::Assign { attempt, session: SessionId(2) })
    });
    let first = run.state.revision().0 + 1 - COUNT;
    run.measure("finish", |_, n| {
        let (task, fence) = (TaskId(n + 1), Fence(first + n));
        Command::Master(MasterCommand::Finish { task, fence, outcome: Outcome::done(value.clone()) })
    });
    let began = Clock::now();
    let rounds = COUNT.div_ceil(2048);
    for _ in 0..rounds {
        run.apply(&Command::Expire { before: ClusterTime::NEVER });
    }
    report("expire, as many as one may end", began.elapsed(), rounds);

    let began = Clock::now();
    for _ in 0..COUNT {
        black_box(run.state.digest());
    }
    report("digest", began.elapsed(), COUNT);
}

struct Run {
    state: State,
    changes: Vec<ClusterChange>,
    seq: u64,
}

impl Run {
    fn measure(&mut self, name: &str, command: impl Fn(&mut Self, u64) -> Command) {
        let commands: Vec<_> = (0..COUNT).map(|n| command(self, n)).collect();
        let before = self.state.revision();
        let began = Clock::now();
        for command in &commands {
            self.apply(command);
        }
        report(name, began.elapsed(), COUNT);
        assert_eq!(self.state.revision().0, before.0 + COUNT, "every command changed something");
    }

    fn request(&mut self, operation: Operation) -> Command {
        self.seq += 1;
        let first_incomplete = Seq(self.seq.saturating_sub(100).max(1));
        Command::Client { session: SessionId(1), seq: Seq(self.seq), first_incomplete, operation }
    }

    fn apply(&mut self, command: &Command) {
        self.changes.clear();
        // Slow enough that no session ends while it is measured, and never the same.
        let time = ClusterTime(self.state.time().0 + 1);
        black_box(self.state.apply(time, command, &mut self.changes));
    }
}

/// Time on the CPU where the system tells it, else time on the wall: other processes must not spoil the figures.
struct Clock {
    cpu: Option<Duration>,
    wall: Instant,
}

impl Clock {
    fn now() -> Self {
        let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let cpu = schedule.and_then(|text| text.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
        Self { cpu, wall: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        match (self.cpu, Self::now().cpu) {
            (Some(began), Some(ended)) => ended.saturating_sub(began),
            _ => self.wall.elapsed(),
        }
    }
}

fn report(name: &str, took: Duration, count: u64) {
    println!("{name:36} {:>9} ns", took.as_nanos() / u128::from(count));
}
