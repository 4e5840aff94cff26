//! A master that is slow and not dead: it stays while it keeps its time, hands over before it would be suspected, and is never one
//! of two.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Clients, Ledger, Running, TestCluster};

/// Stops a node for so long, and lets it run for so long. Says how long it stood still: on a busy machine, longer than it should.
fn stutter(cluster: &mut TestCluster, place: usize, still: Duration, at_work: Duration) -> Duration {
    let begin = Instant::now();
    cluster.processes.pause(place);
    std::thread::sleep(still);
    cluster.processes.resume(place);
    let stood = begin.elapsed();
    std::thread::sleep(at_work);
    stood
}

/// Processes that need a processor each and do nothing with it.
fn burn() -> Vec<Running> {
    let burn = || Command::new("sh").args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn();
    (0..2).map(|_| Running(burn().expect("there is a shell"))).collect()
}

/// Tasks that note every attempt that really began.
fn submit_tasks(cluster: &TestCluster, started: &Ledger, count: usize) -> Vec<String> {
    let script = format!("{}; sleep 0.1", started.append("$TENURE_ATTEMPT"));
    (0..count).map(|_| cluster.submit_script(&script)).collect()
}

/// Every attempt that began was assigned by a committed entry, and began once.
fn only_what_was_assigned_began(cluster: &TestCluster, tasks: &[String], started: &Ledger) {
    let assigned: BTreeSet<String> = tasks.iter().flat_map(|task| assigned(cluster, task)).collect();
    let lines = started.lines();
    let began: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(began.len(), lines.len(), "an attempt began twice: {lines:?}");
    assert!(began.is_subset(&assigned), "began: {began:?}, assigned: {assigned:?}");
}

fn assigned(cluster: &TestCluster, task: &str) -> Vec<String> {
    let view = cluster.task(task);
    let lines = view["history"].as_array().expect("a task has a history").iter();
    lines.filter(|line| line["event"] == "assigned").map(|line| format!("{task}#{}", line["attempt"])).collect()
}

#[test]
fn a_master_that_is_slow_but_keeps_its_time_stays_and_nothing_runs_twice() {
    // 400 ms of silence again and again, and no processor to be had: below the two seconds of this profile.
    let mut cluster = TestCluster::with(|settings| settings.profile = "wan".into());
    let started = cluster.ledger("started");
    let (master, epoch) = cluster.master_after(0);
    let clients = Clients::start(&cluster);
    let _burning = burn();
    let tasks = submit_tasks(&cluster, &started, 20);
    let seconds = std::env::var("TENURE_OVERLOAD_S").map_or(10, |text| text.parse().expect("a number of seconds"));
    let mut longest = Duration::ZERO;
    for _ in 0..seconds * 2 {
        let (still, at_work) = (Duration::from_millis(400), Duration::from_millis(100));
        longest = longest.max(stutter(&mut cluster, master, still, at_work));
    }
    for task in &tasks {
        assert_eq!(cluster.ended(task)["state"], "done");
        assert_eq!(assigned(&cluster, task).len(), 1, "it was given to one worker");
    }
    assert_eq!(started.lines().len(), tasks.len());
    // Whoever stands still for a second does not keep its time.
    assert!(longest > SECOND || cluster.master_after(0) == (master, epoch), "somebody took over");
    clients.check(&cluster);
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_slow_master_hands_over_by_itself_before_it_is_suspected() {
    let mut cluster = TestCluster::with(|settings| settings.profile = "wan".into());
    let (old, epoch) = cluster.master_after(0);
    let clients = Clients::start(&cluster);
    clients.go_on(&cluster, 60);
    // Less than half of the time-out, over and over: nobody has a reason to suspect it, but itself.
    let log = cluster.processes.log(old);
    let hands_over = || std::fs::read_to_string(&log).unwrap_or_default().contains("hands mastership over");
    for _ in 0..50 {
        if hands_over() {
            break;
        }
        stutter(&mut cluster, old, Duration::from_millis(800), Duration::from_millis(120));
    }
    assert!(hands_over(), "it did not notice");
    let (new, next) = cluster.master_after(epoch);
    assert_ne!(new, old);
    assert_eq!(next, epoch + 1, "one hand-over, no contest");
    clients.go_on(&cluster, 60);
    clients.check(&cluster);
}

#[test]
fn a_master_that_wakes_up_in_an_epoch_that_is_over_neither_writes_nor_dispatches() {
    let mut cluster = TestCluster::with(|settings| settings.profile = "wan".into());
    let started = cluster.ledger("started");
    let (old, epoch) = cluster.master_after(0);
    let clients = Clients::start(&cluster);
    let tasks = submit_tasks(&cluster, &started, 30);
    cluster.until("tasks run", || started.lines().len() > 3);
    cluster.processes.pause(old);
    let (new, next) = cluster.master_after(epoch);
    assert_ne!(new, old);
    // It sleeps until others have done its work.
    clients.go_on(&cluster, 100);
    let done = started.lines().len();
    cluster.until("the new master dispatches", || started.lines().len() >= (done + 5).min(tasks.len()));
    cluster.processes.resume(old);
    cluster.ready();
    for task in &tasks {
        assert_eq!(cluster.ended(task)["state"], "done");
        assert_eq!(cluster.count(task, "done"), 1);
    }
    let status = cluster.answer(old);
    assert_eq!((status["role"].as_str(), status["epoch"].as_u64()), (Some("follower"), Some(next)), "{status}");
    assert_eq!(cluster.master_after(0), (new, next), "one new master, and it stays");
    only_what_was_assigned_began(&cluster, &tasks, &started);
    let late = cluster.submit(json!({ "kind": "tenure.echo", "payload": "late" }));
    assert_eq!(cluster.ended(&late)["state"], "done");
    clients.check(&cluster);
}
