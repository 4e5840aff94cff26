//! Rights of processes that are killed and frozen, while masters die: `tenure lock` and its kin.

use std::process::{Command, Stdio};

use axum::http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tenure::cli::Request;

use crate::support::{Running, TestCluster, command};

/// Starts `tenure` with these arguments.
fn start(cluster: &TestCluster, args: &[&str]) -> Running {
    let nodes = cluster.processes.https().join(",");
    let mut command: Command = command(&[&["--node", &nodes], args].concat(), cluster.processes.folder());
    command.current_dir(cluster.processes.folder());
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is there"))
}

/// A script that notes its fence, waits for a file, and notes its fence again.
fn script(ledger: &str, go: &str) -> String {
    format!(
        "echo begin $TENURE_FENCE >> {ledger}; until [ -e {go} ]; do sleep 0.05; done; echo end $TENURE_FENCE >> {ledger}"
    )
}

/// The lines of a file: a word and a fence each.
fn lines(cluster: &TestCluster, file: &str) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(cluster.processes.folder().join(file)).unwrap_or_default();
    let line = |line: &str| {
        let (word, fence) = line.split_once(' ').expect("two words");
        (word.to_owned(), fence.parse().expect("a fence"))
    };
    text.lines().map(line).collect()
}

#[test]
fn a_lock_outlives_the_master_and_passes_on_when_its_holder_is_killed() {
    let mut cluster = TestCluster::start();
    let under = script("ledger", "go");
    let lock = ["lock", "a", "--wait", "--ttl", "4s", "--", "sh", "-c", &under];
    let mut first = start(&cluster, &lock);
    cluster.until("the first one holds it", || lines(&cluster, "ledger").len() == 1);
    let mut second = start(&cluster, &lock);

    let (master, epoch) = cluster.master_after(0);
    cluster.processes.kill(master);
    cluster.master_after(epoch);
    cluster.until("the second one stands in line", || {
        let shown = cluster.wait(cluster.client.get("/v1/locks/a"));
        shown.is_ok_and(|shown| shown["waiting"] == 1)
    });
    assert_eq!(lines(&cluster, "ledger").len(), 1, "the first one holds it still");

    first.signal(Signal::SIGKILL);
    first.code();
    cluster.until("the second one holds it", || lines(&cluster, "ledger").len() == 2);
    std::fs::write(cluster.processes.folder().join("go"), "").expect("written");
    assert_eq!(second.code(), Some(0));
    let fences = lines(&cluster, "ledger");
    assert_eq!(fences.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>(), ["begin", "begin", "end"]);
    assert!(
        fences[0].1 < fences[1].1 && fences[1].1 == fences[2].1,
        "the first command ended with its holder: {fences:?}"
    );
}

#[test]
fn a_holder_that_was_frozen_for_too_long_stops_its_command_and_says_that_the_right_was_lost() {
    let cluster = TestCluster::start();
    let under = script("ledger", "never");
    let elect = ["elect", "e", "--ttl", "2s", "--grace", "100ms", "--", "sh", "-c", &under];
    let mut first = start(&cluster, &elect);
    cluster.until("the first one leads", || lines(&cluster, "ledger").len() == 1);
    let mut second = start(&cluster, &elect);
    first.signal(Signal::SIGSTOP);
    cluster.until("the second one leads", || lines(&cluster, "ledger").len() == 2);
    first.signal(Signal::SIGCONT);
    assert_eq!(first.code(), Some(75));
    second.signal(Signal::SIGTERM);
    second.code();
    assert!(lines(&cluster, "ledger").iter().all(|(word, _)| word == "begin"));
}

#[test]
fn what_many_try_to_do_once_is_done_once() {
    let cluster = TestCluster::start();
    let once = ["once", "migrate", "--", "sh", "-c", "echo done $TENURE_FENCE >> ledger"];
    let runners: Vec<Running> = (0..5).map(|_| start(&cluster, &once)).collect();
    for mut runner in runners {
        assert_eq!(runner.code(), Some(0));
    }
    assert_eq!(lines(&cluster, "ledger").len(), 1);
}

#[test]
fn a_killed_holder_hands_over_at_once_however_long_its_session_would_live() {
    // Its node holds a handle of the process: nobody waits for an hour.
    let cluster = TestCluster::start();
    let under = script("ledger", "go");
    let lock = ["lock", "b", "--wait", "--ttl", "1h", "--", "sh", "-c", &under];
    let mut first = start(&cluster, &lock);
    cluster.until("the first one holds it", || lines(&cluster, "ledger").len() == 1);
    let mut second = start(&cluster, &lock);
    first.signal(Signal::SIGKILL);
    first.code();
    cluster.until("the second one holds it", || lines(&cluster, "ledger").len() == 2);
    std::fs::write(cluster.processes.folder().join("go"), "").expect("written");
    assert_eq!(second.code(), Some(0));
}

/// A command whose children, one of them in a session of its own, write their fence into `ledger` for ever.
const BROOD: &str = "tick='while :; do echo tick $TENURE_FENCE >> ledger; sleep 0.005; done'
    sh -c \"$tick\" & (sh -c \"$tick\" &); setsid sh -c \"$tick\" & wait";

/// A child of a process, as soon as there is one.
fn child_of(cluster: &TestCluster, parent: Pid) -> Pid {
    let mut found = None;
    cluster.until("it has a child", || {
        let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        found = text.split_whitespace().next().map(|pid| Pid::from_raw(pid.parse().expect("a number")));
        found.is_some()
    });
    found.expect("waited for it")
}

#[test]
fn a_right_passes_on_when_all_that_its_command_has_started_is_gone_whoever_is_killed() {
    let cluster = TestCluster::start();
    let guardian = |holder: &Running| child_of(&cluster, holder.pid());
    let command = |holder: &Running| child_of(&cluster, guardian(holder));
    let victims: [&dyn Fn(&Running) -> Pid; 3] = [&Running::pid, &guardian, &command];
    let mut holder = start(&cluster, &["lock", "c", "--wait", "--ttl", "1h", "--", "sh", "-c", BROOD]);
    for victim in victims {
        cluster.until("all of the command is at work", || lines(&cluster, "ledger").len() > 20);
        let next =
            start(&cluster, &["lock", "c", "--wait", "--ttl", "1h", "--", "sh", "-c", &format!("rm ledger; {BROOD}")]);
        cluster.until("the next one stands in line", || {
            let shown = cluster.wait(cluster.client.get("/v1/locks/c"));
            shown.is_ok_and(|shown| shown["waiting"] == 1)
        });
        let fence = lines(&cluster, "ledger")[0].1;
        kill(victim(&holder), Signal::SIGKILL).expect("it runs");
        holder.code();
        cluster.until("the next one is at work", || {
            let lines = lines(&cluster, "ledger");
            lines.len() > 20 && lines[0].1 != fence
        });
        let fences: Vec<u64> = lines(&cluster, "ledger").iter().map(|(_, fence)| *fence).collect();
        assert!(fences.iter().all(|other| *other == fences[0]), "two holders at once: {fences:?}");
        holder = next;
    }
}

#[test]
fn a_command_is_stopped_when_its_claim_was_given_back_in_its_name() {
    let cluster = TestCluster::start();
    let under = script("ledger", "never");
    let mut holder = start(&cluster, &["lock", "d", "--ttl", "1h", "--", "sh", "-c", &under]);
    cluster.until("it holds the lock", || lines(&cluster, "ledger").len() == 1);
    let shown = cluster.wait(cluster.client.get("/v1/locks/d")).expect("it is shown");
    let holder_shown = &shown["holders"][0];
    let (claim, session) = (holder_shown["claim"].as_str().unwrap(), holder_shown["session"].as_str().unwrap());
    let release = |query: &str| Request::new(Method::DELETE, format!("/v1/locks/d/claims/{claim}{query}"));
    for refused in ["", "?session=s1"] {
        assert!(cluster.wait(cluster.http().send(release(refused))).is_err(), "it is somebody else's");
    }
    cluster.wait(cluster.http().send(release(&format!("?session={session}")))).expect("it is given back");
    assert_eq!(holder.code(), Some(75));
    assert_eq!(lines(&cluster, "ledger").len(), 1);
}
