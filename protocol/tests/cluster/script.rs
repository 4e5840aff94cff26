//! Golden scripts: one rule each, told in the words of the product, with the evidence below.
//!
//! A script is a rule in its first line, then steps. A step is some commands, a line `---`, and what must be seen then,
//! line by line. The hosts are called by what they are when the script begins: `m` the master, `x`, `y`, ... the other
//! nodes, `c` the client outside. `TENURE_BLESS=1` writes down what is seen, for a human to judge.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::client::{CallError, Consistency, Work};
use protocol::durable::Ballot;
use protocol::effects::{Event, Local, Role};
use protocol::message::Body;
use protocol::state::{
    self, About, Answer, ClientEnd, Delivery, Expect, MasterCommand, OpenSession, Operation, Put, Query, RosterChange,
    TaskSpec, TaskState,
};
use protocol::types::{Attempt, NodeId, TaskId};
use protocol::{Incarnation, Profile, founding, replica, worker};

use crate::host::Part;
use crate::options::{MS, Options, Replacement, SECOND};
use crate::oracle::Decided;
use crate::travel::place;
use crate::work::value;
use crate::world::{Seen, World};

#[test]
fn every_script_says_what_is_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/scripts");
    let entries = std::fs::read_dir(&folder).expect("the scripts lie beside this file");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let mut wrong = String::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a readable script");
        let found = play(&text);
        if found != text && std::env::var_os("TENURE_BLESS").is_some() {
            std::fs::write(path, &found).expect("a writable script");
        } else if found != text {
            let _ = writeln!(wrong, "==== {}\n{found}", path.display());
        }
    }
    assert!(wrong.is_empty(), "these scripts saw something else:\n{wrong}");
}

/// Plays a script and writes it down with what was seen.
fn play(text: &str) -> String {
    let mut stage: Option<Stage> = None;
    let mut found = String::new();
    for block in text.split("\n\n") {
        let commands = block.split("\n---").next().expect("split gives at least one part").trim_end();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            match (&mut stage, line.strip_prefix("cluster ")) {
                (None, Some(rest)) => stage = Some(Stage::new(&Words::of(rest))),
                (Some(stage), None) => stage.command(line),
                _ => panic!("a script begins with a cluster, and only once: {line}"),
            }
        }
        if !found.is_empty() {
            found.push('\n');
        }
        found.push_str(commands);
        found.push('\n');
        let seen = stage.as_mut().map(Stage::seen).unwrap_or_default();
        if block.contains("\n---") {
            found.push_str("---\n");
            seen.iter().for_each(|line| found.push_str(&format!("{line}\n")));
        }
    }
    found
}

/// The words of a command: names, and values by name.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let words = line.split_whitespace();
        let (named, plain): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        Self { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.named.get(name).map_or(otherwise, |text| text.parse().expect("a number"))
    }
}

/// A world, and the names of what is in it.
struct Stage {
    world: World,
    /// Host by name.
    hosts: BTreeMap<String, usize>,
    tasks: BTreeMap<TaskId, String>,
    calls: BTreeMap<u64, (String, Vec<String>)>,
    /// Whether grants are told.
    tells_grants: bool,
}

impl Stage {
    fn new(words: &Words) -> Self {
        let nodes = words.number("nodes", 3) as usize;
        // Another node that a later command starts at the address of this one.
        let replaced = words.named.get("replaced").map(|name| name[1..].parse::<usize>().expect("a number") - 1);
        let options = Options {
            replaced_at_founding: replaced.map(|at| Replacement { at, when: 0, pause: 0, is_cut: false }),
            slots: words.number("slots", 4) as u32,
            voters: words.named.get("voters").map(|text| text.parse().expect("a number")),
            replace_after: words.number("replace-after", 300) * SECOND,
            ..Options::calm(nodes)
        };
        let mut world = World::new(words.number("seed", 27), options, Profile::LAN);
        world.is_idle = true;
        let mut stage =
            Self { world, hosts: BTreeMap::new(), tasks: BTreeMap::new(), calls: BTreeMap::new(), tells_grants: false };
        if words.plain.contains(&"cold") {
            for at in (0..stage.world.hosts.len()).filter(|at| stage.world.hosts[*at].is_node) {
                stage.hosts.insert(format!("n{}", at + 1), at);
            }
        } else {
            stage.world.start_all();
            stage.advance(8 * SECOND);
            let master = stage.world.leader().expect("a calm cluster elects a master in no time");
            let others = (0..nodes).filter(|at| *at != master);
            stage.hosts = others.zip(["x", "y", "z", "w"]).map(|(at, name)| (name.to_owned(), at)).collect();
            stage.hosts.insert("m".into(), master);
        }
        stage.hosts.insert("c".into(), nodes);
        stage.world.seen = Some(Vec::new());
        stage.world.check.oracle.decided = Some(Vec::new());
        stage
    }

    fn command(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = Words::of(rest);
        let all = || words.plain.clone();
        match verb {
            "advance" => self.advance(span(words.plain[0])),
            "start" => all().iter().for_each(|name| self.world.restart_in(self.host(name), 0)),
            "kill" => all().iter().for_each(|name| self.world.crash(self.host(name))),
            "pause" => self.world.pause(self.host(words.plain[0]), span(words.plain[1])),
            "isolate" => all().iter().for_each(|name| self.isolate(self.host(name))),
            "cut" => {
                let (one, other) = (self.host(words.plain[0]), self.host(words.plain[1]));
                self.world.cut(one, other);
                self.world.cut(other, one);
            }
            "break" => self.world.break_link(self.host(words.plain[0]), self.host(words.plain[1])),
            "drain" => {
                let at = self.host(words.plain[0]);
                self.world.hand_on(at, Part::Application, Local::Worker(worker::Input::Drain));
            }
            "leave" => {
                let at = self.host(words.plain[0]);
                self.world.hand_on(at, Part::Application, Local::Replica(replica::Input::Leave));
            }
            "hand-over" => {
                let (from, to) = (self.host(words.plain[0]), words.plain.get(1));
                let to = to.map(|name| self.world.hosts[self.host(name)].id);
                self.world.hand_on(from, Part::Application, Local::Replica(replica::Input::Transfer { to }));
            }
            "stop" => {
                let at = self.host(words.plain[0]);
                self.world.hand_on(at, Part::Application, Local::Worker(worker::Input::Stop));
            }
            "heal" => self.world.heal(),
            "hold-up" => {
                let part = match words.plain[1] {
                    "master" => Part::Master,
                    "worker" => Part::Worker,
                    other => panic!("nothing holds up {other}"),
                };
                let at = self.host(words.plain[0]);
                self.world.hosts[at].held_up = Some((part, span(words.plain[2])));
            }
            "let-go" => {
                let at = self.host(words.plain[0]);
                self.world.hosts[at].held_up = None;
            }
            "lose" if words.plain == ["responses"] => {
                self.world.lose = |_, _, body| matches!(body, Body::Response(_));
            }
            "lose" if words.plain == ["results"] => {
                self.world.lose =
                    |_, _, body| matches!(body, Body::ToMaster(protocol::worker::ToMaster::Finish { .. }));
            }
            "lose" if words.plain == ["geneses"] => {
                self.world.lose = |_, _, body| matches!(body, Body::Founding(founding::Message::Genesis(_)));
            }
            "lose" if words.plain == ["nothing"] => self.world.lose = |_, _, _| false,
            "evidence" => {
                let (at, peer) = (self.host(words.plain[0]), self.host(words.plain[1]));
                let run = self.world.hosts[peer].run;
                self.world.tell_evidence(at, peer, run);
            }
            "replace" => self.world.replace(),
            "wipe" => all().iter().for_each(|name| self.world.lose_disk(self.host(name))),
            "tell" if words.plain == ["grants"] => self.tells_grants = true,
            "promote" | "demote" | "remove" => {
                let node = self.world.hosts[self.host(words.plain[1])].id;
                let change = match verb {
                    "promote" => RosterChange::Promote(node),
                    "demote" => RosterChange::Demote(node),
                    _ => RosterChange::Remove(node),
                };
                self.call(&words, |_| Work::Write(Operation::Roster(change)));
            }
            "submit" => self.submit(&words),
            "cancel" => {
                let task = *self.tasks.iter().find(|(_, name)| *name == words.plain[1]).expect("a known task").0;
                self.call(&words, |_| Work::Write(Operation::Cancel { task, reason: "no use".into() }));
            }
            "put" => {
                let (key, size) = (words.plain[1].to_owned(), words.number("size", 8) as usize);
                let expect = if words.plain.contains(&"absent") { Expect::Absent } else { Expect::Any };
                self.call(&words, |call| {
                    let mut bytes = value(call, 0).to_vec();
                    bytes.resize(size, 7);
                    Work::Write(Operation::Put(Put { expect, ..Put::new(key, bytes) }))
                });
            }
            "open" => {
                let ttl = Duration::from_millis(words.number("ttl", 3_000));
                let host = &self.world.hosts[self.host(words.plain[0])];
                let run = state::Host { node: host.id, incarnation: Incarnation(host.run) };
                let about = About {
                    label: words.plain[1].to_owned(),
                    host: host.is_node.then_some(run),
                    fast_release: words.plain.contains(&"fast"),
                };
                self.call(&words, |_| Work::Keep(OpenSession { ttl, about }));
            }
            "end" => {
                let session = self.world.check.oracle.owners.named(words.plain[1]).expect("a known session");
                let cause = ClientEnd::Killed;
                self.call(&words, |_| Work::Write(Operation::EndSession { session, cause }));
            }
            "get" => {
                let key = words.plain[1].to_owned();
                let is_stale = words.plain.contains(&"stale");
                let consistency = if is_stale { Consistency::Stale } else { Consistency::Linearizable };
                self.call(&words, |_| Work::Read(Query::Get(key), consistency));
            }
            "count" => {} // Answered when the step is told.
            "" => {}
            other => panic!("unknown command {other}"),
        }
        if verb == "count" {
            self.count(&words);
        }
    }

    /// Says how many grants and fences there are for these tasks, or how many versions of a key.
    fn count(&mut self, words: &Words) {
        let line = match words.plain[0] {
            "versions" => {
                let key = words.plain[1];
                format!("{key} has been written {} times", self.world.check.oracle.versions(key).len() - 1)
            }
            "voters" => self.voters(),
            "promises" => self.promises(),
            "replicas" => {
                let digests: Vec<u64> =
                    self.world.hosts.iter().filter_map(|host| Some(host.replica()?.state().digest())).collect();
                let is_equal = digests.windows(2).all(|pair| pair[0] == pair[1]);
                format!("{} replicas, {}", digests.len(), if is_equal { "all equal" } else { "not equal" })
            }
            _ => {
                let ids = self.tasks.iter().filter(|(_, name)| words.plain.contains(&name.as_str()));
                let ids: Vec<TaskId> = ids.map(|(id, _)| *id).collect();
                let tasks = ids.iter().filter_map(|id| self.world.check.oracle.tasks.get(id.0 as usize - 1));
                let mut fences: Vec<_> = tasks.flat_map(|task| task.fences.clone()).collect();
                let grants = fences.len();
                fences.sort_unstable();
                fences.dedup();
                format!("{grants} grants, {} fences", fences.len())
            }
        };
        self.calls.insert(u64::MAX - self.calls.len() as u64, (line, Vec::new()));
    }

    /// Who votes, by what they are; whoever lost its disk still votes under its old name until somebody takes the seat.
    fn voters(&self) -> String {
        let conf = self.world.check.oracle.conf.as_ref().expect("a cluster began");
        let names = |nodes: &[NodeId]| {
            let name = |node: &NodeId| {
                let (at, is_gone) = (place(*node), self.world.hosts[place(*node)].id != *node);
                format!("{}{}", self.name(at), if is_gone { " (lost)" } else { "" })
            };
            let mut names: Vec<String> = nodes.iter().map(name).collect();
            names.sort();
            names.join(", ")
        };
        let learners =
            if conf.learners.is_empty() { String::new() } else { format!("; learns: {}", names(&conf.learners)) };
        format!("votes: {}{learners}", names(&conf.voters))
    }

    /// What is on the disks of nodes that begin.
    fn promises(&self) -> String {
        let hosts = self.world.hosts.iter().filter(|host| host.machines.is_some() && host.is_node);
        let told = hosts.map(|host| {
            let durable = &host.disk.durable;
            let Ballot { round, node } = durable.promised;
            let rival =
                if round == 0 { "nobody".into() } else { format!("round {round} of {}", self.name(place(node))) };
            let begun = if durable.genesis.is_some() { "a genesis" } else { "none" };
            format!("{} has promised {rival} and holds {begun}", self.name(place(host.id)))
        });
        told.collect::<Vec<_>>().join("\n")
    }

    fn submit(&mut self, words: &Words) {
        let names: Vec<String> = words.plain[1..].iter().map(|name| (*name).to_owned()).collect();
        let kind = words.named.get("kind").copied().unwrap_or("quick").to_owned();
        let place = words.named.get("at").map(|name| format!("n{}", self.host(name) + 1));
        let is_once = words.named.get("run") == Some(&"once");
        let key = words.named.get("key").map(|key| (*key).to_owned());
        let timeout = Duration::from_millis(words.number("timeout", 0));
        let count = names.len() as u64;
        let tasks = |call| {
            let specs = (0..count).map(|place_in_batch| {
                let mut spec = TaskSpec::new(kind.clone(), value(call, place_in_batch));
                spec.needs = place.iter().map(|place| ("at".to_owned(), place.clone())).collect();
                (spec.timeout, spec.once_key) = (timeout, key.clone());
                if is_once {
                    (spec.delivery, spec.retries) = (Delivery::AtMostOnce, 0);
                }
                spec
            });
            Work::Write(Operation::Submit(specs.collect()))
        };
        let call = self.call(words, tasks);
        self.calls.get_mut(&call).expect("made just now").1 = names;
    }

    fn call(&mut self, words: &Words, work: impl FnOnce(u64) -> Work) -> u64 {
        let at = self.host(words.plain[0]);
        let (call, work) = self.world.history.scripted(at, self.world.time, work);
        let name = match &work {
            Work::Write(Operation::Submit(_)) => "submit".to_owned(),
            Work::Write(Operation::Cancel { .. }) => format!("cancel {}", words.plain[1]),
            Work::Write(Operation::Roster(RosterChange::Promote(_))) => format!("promote {}", words.plain[1]),
            Work::Write(Operation::Roster(RosterChange::Demote(_))) => format!("demote {}", words.plain[1]),
            Work::Write(Operation::Roster(RosterChange::Remove(_))) => format!("remove {}", words.plain[1]),
            Work::Read(..) => format!("get {}", words.plain[1]),
            Work::HandOver { .. } => "hand over".to_owned(),
            Work::Write(Operation::EndSession { .. }) => format!("end {}", words.plain[1]),
            Work::Write(_) => format!("put {}", words.plain[1]),
            Work::Keep(_) => format!("open {}", words.plain[1]),
            Work::Renew(_) => panic!("no script renews by hand"),
        };
        let name = format!("{name} by {}", words.plain[0]);
        self.calls.insert(call, (name, Vec::new()));
        self.world.call(at, call, work, Duration::from_millis(words.number("within", 20_000)));
        call
    }

    fn isolate(&mut self, at: usize) {
        for peer in 0..self.world.hosts.len() {
            self.world.cut(at, peer);
            self.world.cut(peer, at);
        }
    }

    fn advance(&mut self, span: u64) {
        let until = self.world.time + span;
        self.world.run_until(until).expect("no script breaks an invariant");
    }

    fn host(&self, name: &str) -> usize {
        *self.hosts.get(name).unwrap_or_else(|| panic!("no host is called {name}"))
    }

    // ---- telling ----

    /// What was seen since this was asked last.
    fn seen(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for seen in self.world.seen.replace(Vec::new()).unwrap_or_default() {
            let line = match seen {
                Seen::Said(at, event) => self.said(at, event),
                Seen::Decided(decided) => self.decided(decided),
            };
            lines.extend(line);
        }
        // Counts stand at the end, as the last command of their step.
        let counts = self.calls.split_off(&(u64::MAX / 2));
        lines.extend(counts.into_values().rev().map(|(line, _)| line));
        lines
    }

    fn said(&mut self, at: usize, event: Event) -> Option<String> {
        let who = self.name(at);
        match event {
            Event::Role { role: Role::Leader, .. } => Some(format!("{who} leads")),
            Event::Start(run) => Some(format!("{} starts at {who}", self.attempt(run.grant.attempt))),
            Event::Abort { attempt, why, .. } => {
                Some(format!("{} is stopped at {who}: {why:?}", self.attempt(attempt)))
            }
            Event::Completed { call, result } => {
                let (name, tasks) = self.calls.remove(&call)?;
                if let Ok(Answer::Submitted(submitted)) = &result {
                    for (task, name) in submitted.iter().zip(tasks) {
                        self.tasks.entry(task.task).or_insert(name);
                    }
                }
                Some(format!("{name}: {}", result_in_words(&result)))
            }
            Event::Ended { session, why } => {
                let name = self.world.check.oracle.owners.label(session).unwrap_or("a session");
                Some(format!("{name} is over for {who}: {why:?}"))
            }
            Event::Drained => Some(format!("{who} is drained")),
            _ => None,
        }
    }

    fn decided(&self, decided: Decided) -> Option<String> {
        match decided {
            Decided::Master(MasterCommand::Release { task, cause, .. }, Answer::Ok) => {
                Some(format!("{} is taken back: {cause:?}", self.task(task)))
            }
            Decided::Master(MasterCommand::Finish { task, .. }, answer) => {
                let verdict = if answer == Answer::Ok { "counts" } else { "is refused" };
                Some(format!("a result of {} {verdict}", self.task(task)))
            }
            Decided::Master(MasterCommand::AssignSubmitted { .. }, Answer::Ok) if self.tells_grants => {
                Some("a task is granted in the entry that records it".into())
            }
            Decided::Master(MasterCommand::Assign { attempt, .. }, Answer::Ok) if self.tells_grants => {
                Some(format!("{} is granted", self.attempt(attempt)))
            }
            Decided::Master(..) => None,
            Decided::Over(name, cause) => Some(format!("{name} ends: {cause:?}")),
            Decided::Ended(task, state) => {
                let state = match state {
                    TaskState::Done { .. } => "Done",
                    TaskState::Failed { .. } => "Failed",
                    TaskState::Cancelled { .. } => "Cancelled",
                    TaskState::Lost { .. } => "Lost",
                    TaskState::Pending { .. } | TaskState::Assigned { .. } => "not at all",
                };
                Some(format!("{} ends {state}", self.task(task)))
            }
        }
    }

    fn name(&self, at: usize) -> String {
        self.hosts
            .iter()
            .find(|(_, host)| **host == at)
            .map_or_else(|| format!("n{}", at + 1), |(name, _)| name.clone())
    }

    fn attempt(&self, attempt: Attempt) -> String {
        format!("{}#{}", self.task(attempt.task), attempt.number)
    }

    /// Tasks are named when their submission is answered; one that starts before that has its number only.
    fn task(&self, task: TaskId) -> String {
        self.tasks.get(&task).cloned().unwrap_or_else(|| task.to_string())
    }
}

fn result_in_words(result: &Result<Answer, CallError>) -> String {
    match result {
        Ok(Answer::Submitted(tasks)) if tasks.iter().all(|task| task.fresh) => "recorded".into(),
        Ok(Answer::Submitted(_)) => "recorded before".into(),
        Ok(Answer::Written(_)) => "written".into(),
        Ok(Answer::Value { found, .. }) => found.as_ref().map_or("nothing", |_| "a value").into(),
        Ok(Answer::Task(_)) => "done".into(),
        Ok(Answer::Registered(_)) => "opened".into(),
        Ok(other) => format!("{other:?}"),
        Err(CallError::Deadline { maybe_applied: true, .. } | CallError::SessionExpired { maybe_applied: true }) => {
            "maybe done".into()
        }
        Err(_) => "certainly not done".into(),
    }
}

fn span(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_alphabetic()).expect("a time has a unit"));
    let number: u64 = number.parse().expect("a number");
    match unit {
        "s" => number * SECOND,
        "ms" => number * MS,
        other => panic!("unknown unit {other}"),
    }
}
