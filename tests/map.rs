//! `tenure map` over real lines, while nodes die.

use std::io::Write as _;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{TestCluster, command};

/// Runs `map` with these lines on stdin; `meanwhile` is called while it runs, with its process number.
fn map(
    cluster: &mut TestCluster,
    args: &[&str],
    lines: &[String],
    meanwhile: impl FnOnce(&mut TestCluster, Pid),
) -> Output {
    let context = tempfile::tempdir().expect("a temporary folder");
    let nodes = cluster.processes.https().join(",");
    let mut child = command(&[&["map", "--node", &nodes], args].concat(), context.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process numbers are small"));
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    // It need not read all of it: it may be interrupted.
    let feed = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let wait = std::thread::spawn(move || child.wait_with_output().expect("it ends"));
    meanwhile(cluster, pid);
    feed.join().expect("it does not panic");
    wait.join().expect("it does not panic")
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn outputs_come_in_order_and_once_although_the_master_and_the_asked_node_die() {
    let mut cluster = TestCluster::start();
    let ledger = cluster.ledger("runs");
    let script = format!("{}; printf '%s\\n' \"$0\"", ledger.append("$0"));
    let lines = numbers(120);
    let output = map(&mut cluster, &["--", "sh", "-c", &script, "{}"], &lines, |cluster, _| {
        // The first node is the one that is asked.
        cluster.until("a third is done", || ledger.lines().len() > 40);
        cluster.processes.kill(0);
        cluster.until("two thirds are done", || ledger.lines().len() > 80);
        cluster.processes.restart(0).expect("it starts again");
        cluster.ready();
        let (master, _) = cluster.master_after(0);
        cluster.processes.kill(master);
    });
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), lines);
    let place = (0..3).find(|place| cluster.status(*place).is_some()).expect("two nodes live");
    let recorded = || cluster.status(place).and_then(|status| status["tasks"]["results_recorded"].as_u64());
    // A node may be a moment behind the one that told the last result.
    cluster.until("every line has a result", || recorded() >= Some(lines.len() as u64));
    assert_eq!(recorded(), Some(lines.len() as u64), "and no line has two");
}

#[test]
fn lines_that_fail_are_listed_and_the_others_are_printed() {
    let mut cluster = TestCluster::start();
    let lines: Vec<String> = ["a", "bad one", "c"].map(String::from).into();
    let script = "case \"$0\" in bad*) echo why >&2; exit 3;; esac; echo \"<$0>\"";
    let output = map(&mut cluster, &["--retries", "1", "--", "sh", "-c", script, "{}"], &lines, |_, _| {});
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "<a>\n<c>\n");
    let stderr = text(&output.stderr);
    for part in ["line 2 `bad one`", "exit code 3", "why", "1 of 3 lines failed"] {
        assert!(stderr.contains(part), "{part} is not in {stderr}");
    }
}

#[test]
fn many_lines_go_through_a_small_window() {
    let mut cluster = TestCluster::with(|settings| settings.slots = 2);
    let lines = numbers(200);
    let output = map(&mut cluster, &["-j", "5", "--", "echo"], &lines, |_, _| {});
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), lines);
}

#[test]
fn an_interrupted_map_takes_its_tasks_with_it() {
    let mut cluster = TestCluster::start();
    let started = cluster.ledger("started");
    let script = format!("{}; exec sleep 600", started.append("$0"));
    let output = map(&mut cluster, &["--", "sh", "-c", &script, "{}"], &numbers(20), |cluster, pid| {
        cluster.until("three lines run", || started.lines().len() >= 3);
        kill(pid, Signal::SIGINT).expect("it runs");
    });
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("tasks under way were cancelled"), "{}", text(&output.stderr));
    cluster.until("nothing is left to do", || {
        let tasks = cluster.answer(0)["tasks"].clone();
        tasks["pending"] == 0 && tasks["assigned"] == 0
    });
}

#[test]
fn an_interrupted_map_counts_and_takes_also_what_nobody_waits_for_yet() {
    let mut cluster = TestCluster::with(|settings| settings.slots = 4);
    let started = cluster.ledger("started");
    // The first one holds up the outputs of the next three. Others have begun in their places by then.
    let script = format!("{}; case \"$0\" in *[123]) ;; *) exec sleep 600;; esac", started.append("$0"));
    let output = map(&mut cluster, &["-j", "4", "--", "sh", "-c", &script, "{}"], &numbers(20), |cluster, pid| {
        cluster.until("seven lines have begun", || started.lines().len() >= 7);
        kill(pid, Signal::SIGINT).expect("it runs");
    });
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stopped: 4 tasks under way were cancelled"), "{}", text(&output.stderr));
    cluster.until("nothing is left to do", || {
        let tasks = cluster.answer(0)["tasks"].clone();
        tasks["pending"] == 0 && tasks["assigned"] == 0
    });
}
