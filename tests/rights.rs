//! Rights of processes that are killed and frozen, while masters die: `tenure lock` and its kin.

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getuid};
use serde_json::json;
use tenure::cli::Request;

use crate::command_line::{ask, err};
use crate::support::{BINARY, PATIENCE, Running, TestCluster, command};

/// Starts `tenure` with these arguments.
fn start(cluster: &TestCluster, args: &[&str]) -> Running {
    let nodes = cluster.processes.https().join(",");
    let mut command: Command = command(&[&["--node", &nodes], args].concat(), cluster.processes.folder());
    command.current_dir(cluster.processes.folder());
    let errors = File::options().create(true).append(true).open(cluster.processes.folder().join("errors"));
    command.stdout(Stdio::null()).stderr(errors.expect("the folder is there"));
    Running(command.spawn().expect("the binary is there"))
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
    let lock = ["lock", "a", "--wait", "--ttl", "20s", "--", "sh", "-c", &under];
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
    let known = cluster.wait(cluster.client.get("/v1/once/migrate")).expect("it is settled");
    assert_eq!(known["outcome"], "null", "what `()` is in the library");
}

#[test]
fn a_barrier_that_does_not_open_in_time_says_so() {
    let cluster = TestCluster::start();
    let waited = ask(&cluster, &["barrier", "b", "2", "--timeout=2s"]);
    assert_eq!(waited.status.code(), Some(124), "{}", err(&waited));
    assert!(err(&waited).contains("the barrier `b` has not opened within 2s"), "{}", err(&waited));
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

#[test]
fn a_place_in_line_outlasts_the_time_that_one_answer_may_take() {
    let cluster = TestCluster::start();
    let under = script("ledger", "go");
    let lock = ["lock", "w", "--wait", "--timeout", "2s", "--", "sh", "-c", &under];
    let mut first = start(&cluster, &lock);
    cluster.until("the first one holds it", || lines(&cluster, "ledger").len() == 1);
    let mut second = start(&cluster, &lock);
    // More than twice as long as one answer may take.
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(cluster.processes.folder().join("go"), "").expect("written");
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)));
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
    let errors = std::fs::read_to_string(cluster.processes.folder().join("errors")).expect("it was made");
    for part in ["the cluster says that its claim has ended", "hint: ", "code: lost (exit 75)"] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
}

#[test]
fn a_command_ends_before_the_next_one_begins_although_its_holder_is_frozen() {
    let cluster = TestCluster::start();
    let lock = ["lock", "f", "--wait", "--ttl", "4s", "--grace", "100ms", "--", "sh", "-c", BROOD];
    let mut first = start(&cluster, &lock);
    cluster.until("it holds the lock", || !lines(&cluster, "ledger").is_empty());
    let held = Instant::now();
    cluster.until("the session was renewed", || held.elapsed() > Duration::from_secs(4));
    let _second = start(&cluster, &lock);
    cluster.until("the next one stands in line", || {
        let shown = cluster.wait(cluster.client.get("/v1/locks/f"));
        shown.is_ok_and(|shown| shown["waiting"] == 1)
    });
    first.signal(Signal::SIGSTOP);
    let fence = lines(&cluster, "ledger")[0].1;
    cluster.until("the next one is at work", || {
        lines(&cluster, "ledger").iter().filter(|(_, other)| *other != fence).count() > 20
    });
    let fences: Vec<u64> = lines(&cluster, "ledger").iter().map(|(_, fence)| *fence).collect();
    assert!(fences.is_sorted(), "two holders at once: {fences:?}");
    first.signal(Signal::SIGCONT);
    assert_eq!(first.code(), Some(75));
}

#[test]
fn a_command_is_not_begun_when_its_right_is_about_to_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = format!("tenure-test-{:032x}", rand::random::<u128>());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("nobody else has it");
    let begun = folder.path().join("begun");
    // Plays `tenure lock`: the guardian hears from it until when the right lasts.
    let guard = |left: Duration| {
        let mut command = command(&["guardian", &name, "1s", "--", "touch"], folder.path());
        let mut guardian = Running(command.arg(&begun).spawn().expect("the binary is there"));
        let (mut link, _) = listener.accept().expect("it calls");
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists"));
        let until = u64::try_from((now + left).as_nanos()).expect("the machine is young");
        link.write_all(&until.to_be_bytes()).expect("it listens");
        guardian.code()
    };
    assert_eq!((guard(Duration::from_millis(50)), begun.exists()), (Some(75), false));
    assert_eq!((guard(PATIENCE), begun.exists()), (Some(0), true));
}

#[test]
fn a_process_of_another_user_that_the_guardian_may_not_kill_holds_up_nobody() {
    if !getuid().is_root() {
        println!("skipped: only root can start processes of other users");
        return;
    }
    let cluster = TestCluster::start();
    let folder = cluster.processes.folder();
    // Whoever runs it is root from then on, for whatever it starts.
    let root = folder.join("root");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let setpriv = std::env::split_paths(&path).map(|path| path.join("setpriv")).find(|path| path.exists());
    std::fs::copy(setpriv.expect("a system has it"), &root).expect("there is room");
    std::fs::set_permissions(&root, Permissions::from_mode(0o4755)).expect("it is ours");
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("it is ours");
    let script = "./root --reuid=0 sleep 1000 & echo $! > pid; until grep -q sleep /proc/$!/comm; do sleep 0.01; done";

    let nodes = cluster.processes.https().join(",");
    let mut lock = command(&["--node", &nodes, "lock", "g", "--", "sh", "-c", script], folder);
    lock.current_dir(folder).uid(NOBODY).gid(NOBODY);
    let mut holder = Running(lock.spawn().expect("everybody may run the binary"));
    assert_eq!(holder.code(), Some(0));
    let left = std::fs::read_to_string(folder.join("pid")).expect("it was noted");
    // It runs still, and is ours to kill.
    kill(Pid::from_raw(left.trim().parse().expect("a number")), Signal::SIGKILL).expect("it was not killed");
    let mut next = start(&cluster, &["lock", "g", "--", "true"]);
    assert_eq!(next.code(), Some(0), "the lock is free");
}

#[test]
fn a_command_with_a_session_owns_what_goes_with_it() {
    let cluster = TestCluster::start();
    let nodes = cluster.processes.https().join(",");
    let script = format!(
        "{BINARY} --node {nodes} kv put workers/w1 here --session $TENURE_SESSION; until [ -e go ]; do sleep 0.05; done"
    );
    let mut open = start(&cluster, &["session", "open", "--label", "indexer", "--", "sh", "-c", &script]);
    cluster.until("it is there", || cluster.get("workers/w1").is_some());
    let sessions = cluster.wait(cluster.client.get("/v1/sessions")).expect("they are shown");
    assert!(sessions["sessions"].as_array().expect("a list").iter().any(|session| session["label"] == "indexer"));
    std::fs::write(cluster.processes.folder().join("go"), "").expect("written");
    assert_eq!(open.code(), Some(0));
    assert_eq!(cluster.get("workers/w1"), None);
}

#[test]
fn what_was_recorded_is_said_to_be_although_the_first_answer_is_lost() {
    let cluster = TestCluster::start();
    let item = json!({ "value": "holiday.png" });
    cluster.wait(cluster.client.post("/v1/queues/thumbs/items", &item)).expect("it is pushed");
    for args in [&["once", "migrate", "--", "true"][..], &["queue", "pop", "thumbs", "--", "true"]] {
        let node = without_first_answer(cluster.processes.https()[0].clone(), "/settle");
        let mut runner = Running(
            command(&[&["--node", &node], args].concat(), cluster.processes.folder()).spawn().expect("it is there"),
        );
        assert_eq!(runner.code(), Some(0), "{args:?}");
    }
    let queue = cluster.wait(cluster.client.get("/v1/queues/thumbs")).expect("it is shown");
    assert_eq!(queue["items"], 0, "the item was taken: {queue}");
}

/// A way to a node, on which the answer to the first request that contains this word is lost.
fn without_first_answer(node: String, word: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let is_first = Arc::new(AtomicBool::new(true));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&node)) else { return };
            let (is_first, is_lost) = (is_first.clone(), Arc::new(AtomicBool::new(false)));
            let lost = is_lost.clone();
            let upstream = (client.try_clone().expect("the same"), server.try_clone().expect("the same"));
            std::thread::spawn(move || {
                pass(upstream.0, upstream.1, |text| {
                    let is_meant = text.contains(word) && is_first.swap(false, Ordering::SeqCst);
                    lost.fetch_or(is_meant, Ordering::SeqCst);
                    true
                });
            });
            std::thread::spawn(move || pass(server, client, |_| !is_lost.load(Ordering::SeqCst)));
        }
    });
    address
}

/// Passes on what comes, until something is not to be.
fn pass(mut from: TcpStream, mut to: TcpStream, mut is_passed: impl FnMut(&str) -> bool) {
    let mut bytes = [0; 16_384];
    while let Ok(len) = from.read(&mut bytes)
        && len > 0
        && is_passed(&String::from_utf8_lossy(&bytes[..len]))
        && to.write_all(&bytes[..len]).is_ok()
    {}
    // One of them may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// A user who owns nothing.
const NOBODY: u32 = 65_534;
