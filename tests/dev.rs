//! A cluster that stays up, and the figures that `bench` prints.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Running, Turn, command, tenure};

#[test]
fn a_dev_cluster_is_found_without_flags_and_brings_killed_nodes_back() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ask = |args: &[&str]| tenure(args, folder.path());
    let dev = command(&["dev", "-o", "jsonl"], folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut dev = Running(dev.expect("the binary is there"));
    let mut line = String::new();
    BufReader::new(dev.0.stdout.take().expect("it is a pipe")).read_line(&mut line).expect("it speaks");
    let cluster: Value = serde_json::from_str(&line).expect("one document");
    let nodes = cluster["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    let master = nodes.iter().find(|node| node["label"] == cluster["master_label"]);
    assert!(master.is_some() && cluster["epoch"].as_u64() >= Some(1), "{cluster}");

    assert!(ask(&["kv", "put", "greeting", "hello"]).status.success(), "the context names the cluster");
    let node = i32::try_from(nodes[0]["pid"].as_u64().expect("a number")).expect("process numbers are small");
    kill(Pid::from_raw(node), Signal::SIGKILL).expect("it runs");
    let notes = BufReader::new(dev.0.stderr.take().expect("it is a pipe"));
    let mut notes = notes.lines().map(|line| line.expect("it is text"));
    let back = notes.find(|line| line.contains("n1 started again")).expect("it comes back");
    assert!(back.contains("pid"), "{back}");
    assert_eq!(ask(&["kv", "get", "greeting"]).stdout, b"hello");

    dev.signal(Signal::SIGINT);
    assert_eq!(dev.code(), Some(0), "being interrupted is how it is meant to end");
    assert_eq!(ask(&["status"]).status.code(), Some(3), "nothing is left to ask");
}

#[test]
fn a_dev_cluster_of_one_node_works_too() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut dev = Running::dev(&["-n", "1"], folder.path());
    let output = tenure(&["submit", "tenure.echo", "7", "--wait"], folder.path());
    assert_eq!(output.stdout, b"7\n");
    let status = tenure(&["status"], folder.path());
    let hint = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(hint.contains("one voter") && hint.contains("--join 127.0.0.1:"), "{hint}");
    dev.signal(Signal::SIGTERM);
    assert_eq!(dev.code(), Some(143));
}

#[test]
fn the_cluster_that_was_started_last_is_asked_and_the_one_before_when_that_has_ended() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let asked = || {
        let status = tenure(&["status", "-o", "json"], folder.path());
        let told = String::from_utf8_lossy(&status.stderr);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        status["cluster"].as_str().expect("it has a name").to_owned()
    };
    let mut first = Running::dev(&["-n", "1", "--cluster", "first"], folder.path());
    assert_eq!(asked(), "first");
    let mut second = command(&["dev", "-n", "1", "--cluster", "second", "-o", "jsonl"], folder.path());
    let second = second.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut second = Running(second.expect("the binary is there"));
    let mut line = String::new();
    BufReader::new(second.0.stdout.take().expect("it is a pipe")).read_line(&mut line).expect("it speaks");
    assert_eq!(asked(), "second");
    // It cannot remove what it has written.
    second.signal(Signal::SIGKILL);
    second.code();
    assert_eq!(asked(), "first");
    first.signal(Signal::SIGINT);
    assert_eq!(first.code(), Some(0));
}

#[test]
fn bench_prints_every_figure_with_its_target() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = ["bench", "all", "--rounds", "1", "--length", "200ms", "-o", "json"];
    let bench = command(&args, folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut bench = Running(bench.expect("the binary is there"));
    let mut text = String::new();
    bench.0.stdout.take().expect("it is a pipe").read_to_string(&mut text).expect("it is text");
    // 1: a target was missed, which says something about this machine and nothing about the program.
    assert!(matches!(bench.code(), Some(0 | 1)), "{text}");
    let document: Value = serde_json::from_str(&text).expect("one document");
    let figures = document["figures"].as_array().expect("a list");
    for name in [
        "failover.master_killed.median",
        "failover.master_paused.max",
        "failover.graceful.median",
        "failover.both_killed.max",
        "failover.master_killed_task.median",
        "kv.write_1.p50",
        "kv.write_1.cpu",
        "kv.write_512.per_s",
        "kv.read_lin_128.per_s",
        "tasks.1.p50",
        "tasks.256.disk",
        "tasks.batch_finish.per_s",
        "txn_1.p50",
        "txn_128.per_s",
        "watch.write_to_notify.p50",
        "session.holder_killed.median",
        "session.rss_each",
        "watch.rss_each",
        "lock.handover.holder_killed.median",
        "lock.handover.holder_frozen.max",
        "node.rss_idle",
        "node.cpu_idle",
        "node.start_to_first_write.median",
    ] {
        let figure = figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        assert_eq!(figure["pass"].is_boolean(), figure["target"].is_number(), "{figure}");
    }
}
