//! The demo as a whole, and what it leaves behind: nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Running, Turn, command, has_context, tenure};

#[test]
fn the_demo_passes_all_its_checks_while_its_master_is_killed_and_paused() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    let args = ["demo", "--no-ui", "-o", "json", "--out", out.to_str().expect("plain words")];
    let output = tenure(&args, folder.path());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert!(output.status.success(), "{verdict:#}\n{stderr}");
    assert_eq!(verdict["pass"], true);
    let names: Vec<&str> =
        verdict["checks"].as_array().expect("a list").iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, ["frames", "results", "late-result", "states", "masters"]);
    assert_eq!(verdict["failovers"].as_array().map(Vec::len), Some(2));
    let sheet = std::fs::read(out.join("contact-sheet.png")).expect("the picture is there");
    assert!(sheet.starts_with(b"\x89PNG"));
    assert!(!has_context(folder.path()), "the context goes with the cluster");
}

#[test]
fn a_lock_and_a_fence_do_not_keep_an_effect_from_coming_twice_and_a_record_does() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = tenure(&["demo", "lock-is-not-enough", "-o", "json"], folder.path());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert!(output.status.success(), "{verdict:#}\n{stderr}");
    assert_eq!(verdict["effects"], json!([2, 2, 1, 1]));
    for run in verdict["runs"].as_array().expect("a list") {
        let fences: Vec<u64> = serde_json::from_value(run["lock_fences"].clone()).expect("numbers");
        assert!(fences.len() == 2 && fences[0] < fences[1], "the lock was granted twice, one after the other: {run}");
        assert_ne!(run["attempts"][0]["worker"], run["attempts"][1]["worker"], "two workers: {run}");
    }
    assert_eq!(verdict["reported"]["attempts"].as_array().map(Vec::len), Some(1), "nobody else was started");
}

#[test]
fn no_process_outlives_a_demo_that_is_killed() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = start(folder.path());
    let nodes = nodes_of(&demo);
    demo.signal(Signal::SIGKILL);
    demo.code();
    until("all nodes are gone", || nodes.iter().all(|node| !is_there(node)));
}

#[test]
fn no_process_and_no_folder_outlives_a_demo_that_is_interrupted() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = start(folder.path());
    let nodes = nodes_of(&demo);
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.code(), Some(130));
    assert!(nodes.iter().all(|node| !is_there(node)), "they end before it does");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("tmp")).expect("it was made").collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!has_context(folder.path()));
}

/// A demo whose three nodes run.
fn start(folder: &Path) -> Running {
    let tmp = folder.join("tmp");
    std::fs::create_dir_all(&tmp).expect("the folder is there");
    let out = folder.join("out");
    let demo = command(&["demo", "--out", out.to_str().expect("plain words")], folder)
        .env("TMPDIR", &tmp)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let demo = Running(demo.expect("the binary is there"));
    until("the demo has written its context", || has_context(folder));
    demo
}

/// The processes that a demo has started, by their number and the time of their start.
fn nodes_of(demo: &Running) -> Vec<(u32, String)> {
    let nodes: Vec<_> = std::fs::read_dir("/proc")
        .expect("Linux shows processes there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let fields = fields(pid)?;
            (fields[PARENT] == demo.pid().to_string()).then(|| (pid, fields[STARTED].clone()))
        })
        .collect();
    assert_eq!(nodes.len(), 3, "three nodes: {nodes:?}");
    nodes
}

/// Whether this very process is there; a zombie is not.
fn is_there((pid, started): &(u32, String)) -> bool {
    fields(*pid).is_some_and(|fields| fields[STARTED] == *started && fields[STATE] != "Z")
}

/// The fields of `/proc/PID/stat` after the program's name.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    (fields.len() > STARTED).then_some(fields)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

const STATE: usize = 0;
const PARENT: usize = 1;
const STARTED: usize = 19;
