//! Golden scripts: one rule each, in words that need no Rust.
//!
//! A script is a text file in `scripts/`. Its first line is the rule. Then come blocks: commands, a line `---`, what must
//! be seen, an empty line. `TENURE_BLESS=1` writes down what was seen; read every line of the difference before you keep it.
//!
//! ```text
//! cluster nodes=3 [voters=2] leader=1 [profile=dev|lan]
//!                                              founded nodes with good links; n1 leads and its no-op is applied
//! tap | untap                                  messages and writes are shown; tapped messages are not sent
//! advance 300ms                                time passes
//! cut n1 n2 | cut n1 -> n2 | mend              links
//! crash n1 [keep=2] | restart n1               what was not synced is lost, but for the first `keep` batches
//! log n1 epoch=4 [vote=n2] [entries=2,2,3]     sets the disk of a node that is down: epochs of the entries from index 2 on
//! disk n1 stuck|good | pause n1 300ms | clock n1 rate=1.1 | profile n1 dev
//! propose n1 x [epoch=2] [bytes=100] | read n1 a [lease]
//! change n1 c [epoch=2] voters=n1,n2 [learners=n3] | retire n3 | transfer n1 t n2 | surrender 1s
//! evidence n2 of n1 | suspect n2 of n1 | unreachable n1 of n2 | campaign n1 | tick n1 | break-disk n1
//! save n1 trailing=2                           n1 snapshots what it has applied, and forgets all but the last two entries of it
//! stage n2 last=9@2 voters=n1,n2,n3            the image of a snapshot is staged, whoever sent it
//! tell n2 from n1 MESSAGE                      a message arrives, whoever sent it
//! show n1 | time n1 | conf n1                  the state of a core, its cluster time, who votes
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use protocol::consensus::{Input, ReadMode, Target};
use protocol::durable::{Entry, HardState, Payload};
use protocol::{ClusterTime, Epoch, Incarnation, Index, LogId, NodeId, Profile};

use crate::text::{self, Words};
use crate::world::{MS, Seen, World};

/// One script under way.
#[derive(Default)]
struct Script {
    world: Option<World>,
    names: BTreeMap<u64, String>,
    leased: BTreeMap<usize, bool>,
    output: String,
}

impl Script {
    fn run(&mut self, line: &str) {
        let words = Words::new(line);
        match words.verb() {
            "cluster" => return self.cluster(&words),
            "propose" => self.propose(&words),
            "read" => self.read(&words),
            "change" => self.change(&words),
            "transfer" => {
                let (context, to) = (self.name(words.at(2)), NodeId(words.node(3) as u64 + 1));
                self.world().step(words.node(1), Input::Transfer { context, to });
            }
            "log" => self.write_log(&words),
            "show" | "time" | "conf" => self.show(&words),
            _ => self.act(&words),
        }
        self.print();
    }

    fn cluster(&mut self, words: &Words) {
        let profile = profile(words.value("profile").unwrap_or("lan"));
        let count = words.number("nodes").unwrap_or(3) as usize;
        let mut world =
            World::with(count, words.number("voters").map_or(count, |voters| voters as usize), 1, |_| profile);
        world.found();
        world.run_for(MS);
        if let Some(leader) = words.number("leader") {
            world.campaign(leader as usize - 1);
            world.run_for(MS * 80);
        }
        for (at, seen) in std::mem::take(&mut world.seen) {
            if let Seen::Authority(authority) = seen {
                self.leased.insert(at, authority.is_some());
            }
        }
        self.world = Some(world);
    }

    fn propose(&mut self, words: &Words) {
        let (at, context) = (words.node(1), self.name(words.at(2)));
        let epoch = words.number("epoch").map_or(self.world().core(at).epoch(), Epoch);
        let payload = Bytes::from(vec![0; words.number("bytes").unwrap_or(8) as usize]);
        self.world().step(at, Input::Propose { context, epoch, payload });
    }

    fn read(&mut self, words: &Words) {
        let context = self.name(words.at(2));
        let mode = if words.has("lease") { ReadMode::Lease } else { ReadMode::Quorum };
        self.world().step(words.node(1), Input::Read { context, mode });
    }

    fn change(&mut self, words: &Words) {
        let (at, context) = (words.node(1), self.name(words.at(2)));
        let epoch = words.number("epoch").map_or(self.world().core(at).epoch(), Epoch);
        let target = Target { voters: words.nodes("voters"), learners: words.nodes("learners") };
        self.world().step(at, Input::ProposeConf { context, epoch, target });
    }

    fn write_log(&mut self, words: &Words) {
        let node = &mut self.world().nodes[words.node(1)];
        let vote = words.value("vote").map(text::node);
        node.disk.hard_state = HardState { epoch: Epoch(words.number("epoch").expect("log needs epoch=")), vote };
        let epochs = words.value("entries").into_iter().flat_map(|list| list.split(','));
        let entry = |(place, epoch): (usize, &str)| Entry {
            id: LogId { epoch: Epoch(epoch.parse().expect("an epoch")), index: Index(place as u64 + 2) },
            time: ClusterTime(0),
            payload: Payload::Noop,
        };
        node.disk.entries = epochs.enumerate().map(entry).collect();
    }

    fn act(&mut self, words: &Words) {
        let world = self.world();
        let node = |place: usize| NodeId(words.node(place) as u64 + 1);
        match words.verb() {
            "tap" => world.is_tapped = true,
            "untap" => world.is_tapped = false,
            "advance" => world.run_for(words.span(1)),
            "mend" => world.net.cut.clear(),
            "cut" if words.at(2) == "->" => drop(world.net.cut.insert((words.node(1), words.node(3)))),
            "cut" => {
                let (one, other) = (words.node(1), words.node(2));
                world.net.cut.extend([(one, other), (other, one)]);
            }
            "crash" => world.crash(words.node(1), words.number("keep").unwrap_or(0) as usize),
            "restart" => world.restart(words.node(1)),
            "disk" if words.at(2) == "stuck" => world.nodes[words.node(1)].is_disk_stuck = true,
            "disk" if words.at(2) == "syncs-one" => world.sync_first(words.node(1), 1),
            "disk" => world.mend_disk(words.node(1)),
            "pause" => world.nodes[words.node(1)].paused_until = world.time + words.span(2),
            "clock" => {
                let rate: f64 = words.value("rate").and_then(|rate| rate.parse().ok()).expect("clock needs rate=");
                let now = world.local(words.node(1)).0;
                let rate = (rate * 1e6) as u64;
                // The clock goes on from where it stands.
                let passed = (u128::from(world.time) * u128::from(rate) / 1_000_000) as u64;
                world.nodes[words.node(1)].clock = (rate, now.checked_sub(passed).expect("faster clocks come early"));
            }
            "profile" => world.nodes[words.node(1)].profile = profile(words.at(2)),
            "evidence" => world.step(words.node(1), Input::Evidence { node: node(3), incarnation: Incarnation(1) }),
            "suspect" => world.step(words.node(1), Input::Suspected { node: node(3) }),
            "unreachable" => world.step(words.node(1), Input::Unreachable { node: node(3) }),
            "surrender" => world.surrender = (words.span(1), words.span(1)),
            "retire" => world.retire(words.node(1)),
            "save" => world.save(words.node(1), words.number("trailing").expect("save needs trailing=")),
            "stage" => world.stage(words.node(1), text::meta(words)),
            "campaign" => world.campaign(words.node(1)),
            "tick" => world.step(words.node(1), Input::Tick),
            "break-disk" => world.step(words.node(1), Input::StorageFailed { why: "no space left".into() }),
            "tell" => {
                let sender = world.local(words.node(3));
                let receiver = world.local(words.node(1));
                let message = text::message(words, sender, receiver);
                world.step(words.node(1), Input::Message { from: node(3), message });
            }
            other => panic!("no such command: {other}"),
        }
    }

    fn show(&mut self, words: &Words) {
        let (at, verb) = (words.node(1), words.verb().to_owned());
        let world = self.world();
        let core = world.core(at);
        let line = match verb.as_str() {
            "time" => format!("n{}: {} ms of cluster time", at + 1, core.cluster_time(world.local(at))),
            "conf" => format!("n{} has {}", at + 1, text::conf(core.conf().expect("every core is founded"))),
            _ => format!("n{} is {}", at + 1, text::state(core, world.local(at))),
        };
        writeln!(self.output, "{line}").expect("a string takes everything");
    }

    /// Writes down what was seen since the last command.
    fn print(&mut self) {
        for (at, seen) in std::mem::take(&mut self.world().seen) {
            if let Seen::Authority(authority) = &seen {
                // A lease that merely grew is no news.
                if self.leased.insert(at, authority.is_some()) == Some(authority.is_some()) {
                    continue;
                }
            }
            writeln!(self.output, "n{} {}", at + 1, text::seen(&seen, &self.names)).expect("a string takes everything");
        }
    }

    fn name(&mut self, name: &str) -> u64 {
        let context = self.names.len() as u64;
        self.names.insert(context, name.to_owned());
        context
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("a script begins with a cluster")
    }
}

/// Plays a script and answers with its text as it should be.
fn play(text: &str) -> String {
    let mut script = Script::default();
    let (mut played, mut is_answer) = (String::new(), false);
    for line in text.lines() {
        match line {
            "---" => {
                writeln!(played, "---").expect("a string takes everything");
                played.push_str(&std::mem::take(&mut script.output));
                is_answer = true;
            }
            "" => {
                played.push('\n');
                is_answer = false;
            }
            _ if is_answer => {}
            line => {
                writeln!(played, "{line}").expect("a string takes everything");
                if !line.starts_with('#') {
                    script.run(line);
                }
            }
        }
    }
    played
}

fn profile(name: &str) -> Profile {
    match name {
        "dev" => Profile::DEV,
        "lan" => Profile::LAN,
        other => panic!("no such profile: {other}"),
    }
}

/// A span like `300ms` or `2s` in nanoseconds.
pub fn span(word: &str) -> u64 {
    let (number, unit) = word.split_at(word.find(|letter: char| letter.is_alphabetic()).expect("a span has a unit"));
    let number: u64 = number.parse().expect("a span begins with a number");
    match unit {
        "us" => number * MS / 1000,
        "ms" => number * MS,
        "s" => number * 1000 * MS,
        other => panic!("no such unit: {other}"),
    }
}

/// The promise that most replies state.
pub const PROMISE: Duration = Profile::LAN.promise;

#[test]
fn every_script_shows_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core/scripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    let mut differing = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "txt")) {
        let text = std::fs::read_to_string(path).expect("a script is text");
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        assert!(text.starts_with("# "), "{name}: the first line is the rule");
        let played = std::panic::catch_unwind(|| play(&text)).unwrap_or_else(|_| panic!("{name} does not play"));
        if std::env::var_os("TENURE_BLESS").is_some() {
            std::fs::write(path, &played).expect("the script can be written");
        } else if played != text {
            println!("{name} shows instead:\n{played}");
            differing.push(name);
        }
    }
    assert!(differing.is_empty(), "these scripts show something else: {differing:?}");
}
