//! Sessions of processes that are killed, frozen, or told to go; and of those that lose the node they talked to.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tenure::Lost;

use crate::support::{PATIENCE, Running, TestCluster, command, runtime};

/// Another process that opens a session and says when it is lost.
struct Holder {
    process: Running,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Holder {
    fn start(cluster: &TestCluster, label: &str, ttl: Duration) -> Self {
        let links: Vec<String> = cluster.processes.links().iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().expect("a test knows its program"))
            .args(["--exact", "sessions::a_process_that_holds_a_session", "--nocapture"])
            .env(HOLD, format!("{label} {} {}", ttl.as_millis(), links.join(",")))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut holder = Self { process: Running(child), lines };
        holder.line("held");
        holder
    }

    /// Waits for a line that begins with this word, and returns the rest of it.
    fn line(&mut self, word: &str) -> String {
        let found = self.lines.find_map(|line| Some(line.ok()?.strip_prefix(word)?.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the holder never said {word}"))
    }
}

#[test]
fn a_process_that_holds_a_session() {
    let Ok(wish) = std::env::var(HOLD) else { return };
    let [label, ttl, links] = wish.split(' ').collect::<Vec<_>>()[..] else { panic!("{wish}") };
    let ttl = Duration::from_millis(ttl.parse().expect("a number"));
    runtime().block_on(async {
        let client = tenure::Client::connect("test", links.split(',')).await.expect("the addresses make sense");
        let session = client.timeout(PATIENCE).session(ttl).label(label).await.expect("it is opened");
        println!("\nheld {}", session.id());
        println!("\nlost {}", session.lost().await);
    });
}

fn sessions(cluster: &TestCluster, label: &str) -> Vec<Value> {
    let answer = cluster.wait(cluster.client.get("/v1/sessions")).expect("they are shown");
    let sessions = answer["sessions"].as_array().cloned().expect("a list");
    sessions.into_iter().filter(|session| session["label"] == label).collect()
}

/// How many sessions of processes of this machine the nodes watch.
pub fn witnessed(cluster: &TestCluster) -> u64 {
    let count = |place: usize| {
        let http = tenure::cli::Cluster::new(vec![cluster.processes.https()[place].clone()]);
        let reply = cluster.wait(http.send(tenure::cli::Request::get("/metrics"))).ok()?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        text.lines().find_map(|line| line.strip_prefix("tenure_sessions_witnessed ")?.parse::<f64>().ok())
    };
    (0..cluster.processes.len()).filter_map(count).map(|count| count as u64).sum()
}

#[test]
fn a_killed_process_loses_its_session_at_once_and_not_when_its_time_is_over() {
    let cluster = TestCluster::start();
    let mut holder = Holder::start(&cluster, "killed", Duration::from_secs(3600));
    cluster.until("all nodes watch it", || witnessed(&cluster) == 3);
    assert_eq!(sessions(&cluster, "killed").len(), 1);
    holder.process.signal(Signal::SIGKILL);
    holder.process.code();
    cluster.until("its session is gone", || sessions(&cluster, "killed").is_empty());
    cluster.until("nobody watches it", || witnessed(&cluster) == 0);
}

#[test]
fn a_process_that_was_frozen_for_too_long_hears_first_that_its_session_is_lost() {
    let cluster = TestCluster::start();
    let mut holder = Holder::start(&cluster, "frozen", Duration::from_secs(3));
    holder.process.signal(Signal::SIGSTOP);
    cluster.until("its session has expired", || sessions(&cluster, "frozen").is_empty());
    holder.process.signal(Signal::SIGCONT);
    assert!(!holder.line("lost").is_empty());
}

#[test]
fn a_session_outlives_the_node_that_carried_it_and_the_master() {
    let mut cluster = TestCluster::start();
    let client = cluster.library();
    let session = cluster.wait(async { client.session(Duration::from_secs(12)).label("roams").await }).expect("opened");
    let (master, epoch) = cluster.master_after(0);
    cluster.processes.kill(master);
    cluster.master_after(epoch);
    let left = session.expires_in();
    cluster.until("it is renewed through others", || session.expires_in() > left);
    assert_eq!(sessions(&cluster, "roams").len(), 1);
    cluster.wait(session.close()).expect("it is closed");
    assert!(sessions(&cluster, "roams").is_empty());
}

#[test]
fn a_session_that_an_operator_ends_is_lost_to_its_owner() {
    let cluster = TestCluster::start();
    let client = cluster.library();
    let session = cluster.wait(async { client.session(Duration::from_secs(9)).label("killed").await }).expect("opened");
    let nodes = cluster.processes.https().join(",");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ask = |args: &[&str]| {
        let output = command(&[&["--node", &nodes, "session"], args].concat(), folder.path()).output();
        output.expect("the binary is there")
    };
    let id = session.id().to_string();
    let shown = String::from_utf8_lossy(&ask(&["ls"]).stdout).into_owned();
    assert!(shown.lines().any(|line| line.contains(&id) && line.contains("killed")), "{shown}");
    assert_eq!(ask(&["kill", &id]).status.code(), Some(0));
    assert_eq!(cluster.wait(session.lost()), Lost::Gone);
    assert_eq!(ask(&["kill", &id]).status.code(), Some(5), "there is no such session any more");
}

#[test]
fn a_session_that_nobody_holds_any_more_is_ended_in_the_background() {
    let cluster = TestCluster::start();
    let client = cluster.library();
    let hour = Duration::from_secs(3600);
    let session = cluster.wait(async { client.session(hour).label("dropped").await }).expect("opened");
    let clone = session.clone();
    drop(session);
    assert_eq!(sessions(&cluster, "dropped").len(), 1);
    drop(clone);
    cluster.until("it is gone", || sessions(&cluster, "dropped").is_empty());
}

const HOLD: &str = "TENURE_TEST_HOLD";
