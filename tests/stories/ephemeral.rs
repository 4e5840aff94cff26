//! What belongs to a process goes with it: a key, a lock, a place in a group and a campaign of one session.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tenure::kv::{KeyEnd, WatchEvent, put};
use tenure::prelude::*;

use crate::support::{Ledger, PATIENCE, Running, TestCluster, runtime};

/// Another process that owns all that a session can own, writes a line of work every few milliseconds as long as it holds its lock,
/// and says when it is lost.
struct Owner {
    process: Running,
    orders: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    session: String,
}

impl Owner {
    fn start(cluster: &TestCluster, ledger: &Ledger, ttl: Duration) -> Self {
        let links: Vec<String> = cluster.processes.links().iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().expect("a test knows its program"))
            .args(["--exact", "stories::ephemeral::a_process_that_owns_all_there_is", "--nocapture"])
            .env(OWN, format!("{} {} {}", ttl.as_millis(), links.join(","), ledger.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let orders = child.stdin.take().expect("it is piped");
        let mut owner = Self { process: Running(child), orders, lines, session: String::new() };
        owner.session = owner.line("owns");
        owner
    }

    /// Waits for a line that begins with this word, and returns the rest of it.
    fn line(&mut self, word: &str) -> String {
        let found = self.lines.find_map(|line| Some(line.ok()?.strip_prefix(word)?.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the owner never said {word}"))
    }

    /// Lets it close its session and end.
    fn close(&mut self) {
        self.orders.write_all(b"close\n").expect("it listens");
        assert_eq!(self.process.code(), Some(0));
    }
}

#[test]
fn a_process_that_owns_all_there_is() {
    let Ok(wish) = std::env::var(OWN) else { return };
    let [ttl, links, ledger] = wish.split(' ').collect::<Vec<_>>()[..] else { panic!("{wish}") };
    let ttl = Duration::from_millis(ttl.parse().expect("a number"));
    let ledger = Ledger::new(ledger.into());
    runtime().block_on(async {
        let client = tenure::Client::connect("test", links.split(',')).await.expect("the addresses make sense");
        let client = client.timeout(PATIENCE);
        let session = client.session(ttl).label(LABEL).await.expect("it is opened");
        client.kv().put("owned/key", "here").ephemeral(&session).await.expect("it is written");
        let lock = client.lock("owned").session(&session).await.expect("nobody holds it");
        let place = client.group("owned").join("me").session(&session).await.expect("anybody may come");
        let leadership = client.election("owned").campaign("me").session(&session).await.expect("nobody else wants it");
        println!("\nowns {}", session.id());

        let work = async {
            for number in 0.. {
                ledger.write(&number.to_string());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (sender, told_to_close) = tokio::sync::oneshot::channel();
        // A thread of its own: one of the runtime's would have to end before the process may.
        std::thread::spawn(|| sender.send(std::io::stdin().read_line(&mut String::new())));
        tokio::select! {
            why = lock.run(work) => println!("\nlost {}", why.expect_err("the work has no end")),
            _ = told_to_close => return session.close().await.expect("it is closed"),
        }
        let late = client.kv().put("owned/late", "1").ephemeral(&session).await;
        println!("\nkey {:?}", late.expect_err("the session is over"));
        let late = client.kv().txn().when(tenure::kv::held(&lock)).then(put("late", "1")).await;
        println!("\ntransaction {}", late.expect("it is answered").held);
        println!("\nkin {:?} {:?}", place.valid_for(), leadership.valid_for());
    });
}

/// Somebody else, who watches the owner's key, is in its group, and stands in line for its lock and its office.
struct Heir {
    watch: tenure::kv::Watch,
    lock: tokio::task::JoinHandle<Result<tenure::LockGuard, Error>>,
    office: tokio::task::JoinHandle<Result<tenure::Leadership, Error>>,
    _place: tenure::Membership,
}

impl Heir {
    fn stand_in_line(cluster: &TestCluster, owner: &Owner) -> Self {
        for kind in ["locks", "groups", "elections"] {
            assert_eq!(sessions_of(cluster, kind), std::slice::from_ref(&owner.session), "{kind}");
        }
        let client = cluster.library();
        let (watch, place) = cluster.wait(async {
            let watch = client.kv().watch("owned/").await.expect("it begins");
            (watch, client.group("owned").join("heir").await.expect("anybody may come"))
        });
        let (one, other) = (client.clone(), client.clone());
        let lock = cluster.spawn(async move { one.lock("owned").wait_long().await });
        let office = cluster.spawn(async move { other.election("owned").campaign("heir").await });
        for kind in ["locks", "elections"] {
            cluster.until("the heir stands in line", || shown(cluster, kind)["waiting"] == 1);
        }
        Self { watch, lock, office, _place: place }
    }

    /// Waits until all is the heir's. It must have changed hands in one step, of which nobody can see a half: every grant has a revision
    /// of its own, and there is nothing between them.
    fn inherit(mut self, cluster: &TestCluster, owner: &Owner) {
        let (key, lock, office) = cluster.wait(async {
            let key = loop {
                let event = self.watch.next().await.expect("it goes on").expect("nothing is wrong with it");
                if let WatchEvent::Delete { key, why, revision } = event {
                    assert_eq!((key.as_str(), why), ("owned/key", KeyEnd::SessionEnded));
                    break revision.0;
                }
            };
            let lock = self.lock.await.expect("nothing panics").expect("it is granted");
            let office = self.office.await.expect("nothing panics").expect("it is granted");
            (key, lock.fence().0, office.fence().0)
        });
        let group = shown(cluster, "groups");
        assert!(!sessions_of(cluster, "groups").contains(&owner.session), "{group}");
        let group = group["revision"].as_u64().expect("a number");
        let mut revisions = [key, lock, office, group];
        revisions.sort_unstable();
        assert!(revisions[3] - revisions[0] <= 2, "key {key}, lock {lock}, office {office}, group {group}");
        assert!(lock > key && office > key && lock != office, "the heir's fences are new ones");
    }
}

/// A right of this kind named `owned`, as HTTP shows it.
fn shown(cluster: &TestCluster, kind: &str) -> Value {
    cluster.wait(cluster.client.get(&format!("/v1/{kind}/owned"))).expect("it is shown")
}

/// The sessions of those who hold it.
fn sessions_of(cluster: &TestCluster, kind: &str) -> Vec<String> {
    let shown = shown(cluster, kind);
    let holders = shown["holders"].as_array().expect("a list").iter();
    holders.map(|holder| holder["session"].as_str().expect("a session").to_owned()).collect()
}

#[test]
fn what_a_killed_process_owned_changes_hands_in_one_step() {
    let cluster = TestCluster::start();
    let ledger = cluster.ledger("work");
    let mut owner = Owner::start(&cluster, &ledger, HOUR);
    let heir = Heir::stand_in_line(&cluster, &owner);
    owner.process.signal(Signal::SIGKILL);
    owner.process.code();
    heir.inherit(&cluster, &owner);
}

#[test]
fn what_a_process_owned_that_ends_in_order_changes_hands_at_once() {
    let cluster = TestCluster::start();
    let mut owner = Owner::start(&cluster, &cluster.ledger("work"), HOUR);
    let heir = Heir::stand_in_line(&cluster, &owner);
    owner.close();
    heir.inherit(&cluster, &owner);
}

#[test]
fn a_process_that_was_frozen_for_too_long_knows_before_it_works_on() {
    let cluster = TestCluster::start();
    let ledger = cluster.ledger("work");
    let mut owner = Owner::start(&cluster, &ledger, Duration::from_secs(6));
    let heir = Heir::stand_in_line(&cluster, &owner);
    cluster.until("it works", || ledger.lines().len() > 3);
    owner.process.signal(Signal::SIGSTOP);
    // It may have been frozen within a line; this is all that it wrote before.
    heir.inherit(&cluster, &owner);
    let before = ledger.lines();
    owner.process.signal(Signal::SIGCONT);
    assert!(!owner.line("lost").is_empty());
    assert!(owner.line("key").contains("NoSession"), "a session that is over writes nothing");
    assert_eq!(owner.line("transaction"), "false", "nor does a transaction that asks for its lock");
    assert_eq!(owner.line("kin"), "None None", "the group and the office are gone with the lock");
    assert_eq!(owner.process.code(), Some(0));
    assert_eq!(ledger.lines(), before, "no line of work after it woke up");

    // Whoever comes back under the same name is somebody else.
    let reborn = cluster.library();
    let session = cluster.wait(async { reborn.session(HOUR).label(LABEL).await }).expect("it is opened");
    assert_ne!(session.id().to_string(), owner.session);
    let key = cluster.wait(async { reborn.kv().get("owned/key").await }).expect("it is read");
    assert!(key.is_none(), "{key:?}");
}

#[test]
fn a_process_that_only_loses_its_node_keeps_everything() {
    let mut cluster = TestCluster::start();
    let ledger = cluster.ledger("work");
    let mut owner = Owner::start(&cluster, &ledger, Duration::from_secs(20));
    // Whichever node it talks to is away once; a quorum is always left.
    for place in 0..3 {
        let (_, epoch) = cluster.master_after(0);
        let was_master = cluster.status(place).is_some_and(|status| status["role"] == "leader");
        cluster.processes.kill(place);
        if was_master {
            cluster.master_after(epoch);
        }
        let before = ledger.lines().len();
        cluster.until("it works on", || ledger.lines().len() > before + 20);
        for kind in ["locks", "groups", "elections"] {
            assert_eq!(sessions_of(&cluster, kind), std::slice::from_ref(&owner.session), "{kind}");
        }
        cluster.processes.restart(place).expect("it starts again");
        cluster.ready();
    }
    assert_eq!(cluster.get("owned/key").as_deref(), Some("here"));
    owner.close();
}

const OWN: &str = "TENURE_TEST_OWN";

const LABEL: &str = "owner";

const HOUR: Duration = Duration::from_secs(3600);
