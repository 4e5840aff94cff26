//! What people and scripts see: outputs, errors and exit codes.

use std::fs::File;
use std::future::IntoFuture as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{BINARY, Running, TestCluster, Turn, command, tenure};

/// Runs a verb against a cluster.
pub fn ask(cluster: &TestCluster, args: &[&str]) -> Output {
    let context = tempfile::tempdir().expect("a temporary folder");
    let nodes = cluster.processes.https().join(",");
    tenure(&[&["--node", &nodes], args].concat(), context.path())
}

/// Runs a verb without any cluster.
fn alone(args: &[&str]) -> Output {
    let context = tempfile::tempdir().expect("a temporary folder");
    tenure(args, context.path())
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

/// The exit code, with everything that was printed if it is not the expected one.
#[track_caller]
fn expect(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", out(output), err(output));
}

#[test]
fn without_a_cluster_the_error_names_the_address_and_what_to_do() {
    let _turn = Turn::take();
    // Bound, so that nobody else comes to listen there, and no listener.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = socket.local_addr().expect("it is bound").to_string();
    let output = alone(&["--node", &address, "status"]);
    expect(&output, 3);
    for part in ["error:", &address, "connection refused", "hint:", "code: unreachable (exit 3)"] {
        assert!(err(&output).contains(part), "{part} is not in {}", err(&output));
    }
    assert_eq!(out(&output), "");
    let output = alone(&["--node", &address, "-o", "json", "status"]);
    let problem: Value = serde_json::from_slice(&output.stderr).expect("one line of JSON");
    assert_eq!((&problem["code"], &problem["maybe_applied"]), (&"unreachable".into(), &false.into()));
}

#[test]
fn a_fenced_file_refuses_a_holder_who_was_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("stock.json");
    let file = file.to_str().expect("a plain path");
    expect(&alone(&["fence", "show", file]), 5);
    let write = |fence: &str, content: &str| {
        let mut command = command(&["fence", "write", file], folder.path());
        let mut child = command.env("TENURE_FENCE", fence).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.as_mut().expect("the binary is there");
        child.stdin.take().expect("it is piped").write_all(content.as_bytes()).expect("it reads");
        child.wait().expect("it ends").code()
    };
    assert_eq!(write("7", "first"), Some(0));
    expect(&alone(&["fence", "check", file, "--fence", "12"]), 0);
    assert_eq!(write("7", "late"), Some(6));
    let refused = alone(&["fence", "check", file, "--fence", "7"]);
    expect(&refused, 6);
    assert!(err(&refused).contains("fence 7 was replaced: 12 was here"), "{}", err(&refused));
    assert_eq!(std::fs::read_to_string(file).expect("it is there"), "first");
    assert_eq!(out(&alone(&["fence", "show", file])), "12");
    expect(&alone(&["fence", "check", file, "--fence", "seven"]), 2);
}

#[test]
fn words_that_make_no_sense_are_usage_errors() {
    for args in [&["frobnicate"][..], &["task", "get", "42"], &["map"], &["dev", "-n", "0"], &["bench", "nothing"]] {
        expect(&alone(args), 2);
    }
    // Nothing is claimed for longer than can be counted.
    for args in [&["lock", "a", "--wait=1e19", "--", "true"][..], &["barrier", "b", "2", "--timeout=1e19"]] {
        expect(&alone(args), 2);
    }
    for (args, said) in [
        (&["--node", "localhost:99999", "status"][..], "`99999` is no port"),
        (&["--node", "localhost", "status"], "`localhost` of --node cannot be used: it has no port"),
        (
            &["node", "--ephemeral", "--join", "127.0.0.1:7400,nonsense"],
            "`nonsense` of the join list cannot be used: it has no port",
        ),
        (&["lock", "a", "--wait", "5s", "--", "true"], "to give '--wait' a value, write '--wait=5s'"),
        (&["lock", "--wait", "5s", "a", "--", "true"], "to give '--wait' a value, write '--wait=5s'"),
    ] {
        let output = alone(args);
        expect(&output, 2);
        assert!(err(&output).contains(said), "{said} is not in {}", err(&output));
    }
    let output = alone(&["help", "exit-codes"]);
    expect(&output, 0);
    assert!(out(&output).contains("130"));
    expect(&alone(&["completions", "bash"]), 0);
}

#[test]
fn a_session_at_the_terminal() {
    let cluster = TestCluster::start();

    let status = ask(&cluster, &["-o", "json", "status"]);
    expect(&status, 0);
    let status: Value = serde_json::from_slice(&status.stdout).expect("one document");
    assert_eq!((&status["schema"], &status["cluster"]), (&"tenure/v1".into(), &"test".into()));
    assert_eq!(status["voters"].as_array().map(Vec::len), Some(3));
    let members = ask(&cluster, &["members"]);
    expect(&members, 0);
    for label in ["n1", "n2", "n3", "master"] {
        assert!(out(&members).contains(label), "{label} is not in {}", out(&members));
    }

    // Keys: a revision grows, and a write on an old one is a conflict.
    let first = ask(&cluster, &["kv", "put", "colour", "red"]);
    expect(&first, 0);
    expect(&ask(&cluster, &["kv", "cas", "colour", &out(&first), "blue"]), 0);
    let refused = ask(&cluster, &["kv", "cas", "colour", &out(&first), "green"]);
    expect(&refused, 6);
    assert!(err(&refused).contains("code: conflict (exit 6)"), "{}", err(&refused));
    assert_eq!(out(&ask(&cluster, &["kv", "get", "colour"])), "blue");
    expect(&ask(&cluster, &["kv", "rm", "colour"]), 0);
    expect(&ask(&cluster, &["kv", "get", "colour"]), 5);

    // Sessions: those that only number requests are told from those that own something.
    let nodes = cluster.processes.https().join(",");
    let listed = ask(&cluster, &["lock", "a", "--", BINARY, "--node", &nodes, "session", "ls"]);
    expect(&listed, 0);
    let line = |kind: &str, label: &str| {
        out(&listed).lines().any(|line| line.split_whitespace().skip(1).take(2).eq([kind, label]))
    };
    assert!(line("owner", "/v1/locks/a"), "{}", out(&listed));
    assert!(out(&listed).lines().any(|line| line.split_whitespace().nth(1) == Some("requests")), "{}", out(&listed));

    // Tasks: ids paste back, a failure is exit code 1, an unknown one 5.
    let id = ask(&cluster, &["submit", "tenure.echo", "{\"n\":1}", "--key", "same"]);
    expect(&id, 0);
    assert_eq!(out(&ask(&cluster, &["submit", "tenure.echo", "{\"n\":2}", "--key", "same"])), out(&id), "a once key");
    let newer = out(&ask(&cluster, &["submit", "tenure.noop"]));
    let ids = |args: &[&str]| out(&ask(&cluster, &[&["task", "ls", "-o", "name"], args].concat()));
    assert_eq!(ids(&[]), format!("{newer}\n{}", out(&id)), "newest first");
    assert_eq!(ids(&["--before", &newer]), out(&id));
    assert_eq!(ids(&["--after", "t0"]), format!("{}\n{newer}", out(&id)));
    let done = ask(&cluster, &["task", "wait", &out(&id)]);
    expect(&done, 0);
    assert_eq!(out(&done), "{\"n\":1}");
    let fails = r#"{"command":["sh","-c","echo because >&2; exit 7"]}"#;
    let failed = ask(&cluster, &["submit", "exec", fails, "--retries", "0", "--wait"]);
    expect(&failed, 1);
    assert!(err(&failed).contains("exit code 7: because"), "{}", err(&failed));
    expect(&ask(&cluster, &["task", "get", "t999999"]), 5);
    let sleeping = ask(&cluster, &["submit", "tenure.sleep", "{\"ms\":600000}"]);
    expect(&ask(&cluster, &["--timeout", "100ms", "task", "wait", &out(&sleeping)]), 124);
    expect(&ask(&cluster, &["task", "cancel", &out(&sleeping)]), 0);
    let cancelled = ask(&cluster, &["-o", "json", "task", "get", &out(&sleeping)]);
    let cancelled: Value = serde_json::from_slice(&cancelled.stdout).expect("one document");
    assert_eq!(cancelled["state"], "cancelled");

    // Mistakes: nothing is recorded, and the error says what is possible.
    let unknown = ask(&cluster, &["submit", "no.such.kind", "1"]);
    expect(&unknown, 2);
    assert!(err(&unknown).contains("tenure.echo"), "it names what there is: {}", err(&unknown));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 1024 * 1024 + 1]).expect("the folder is there");
    let large = format!("@{}", large.display());
    let refused = ask(&cluster, &["submit", "tenure.echo", &large]);
    expect(&refused, 2);
    assert!(err(&refused).contains("code: too-large"), "{}", err(&refused));
}

#[test]
fn without_a_quorum_it_is_said_what_is_known_and_no_command_waits_beyond_its_time() {
    let mut cluster = TestCluster::start();
    for place in [1, 2] {
        cluster.processes.kill(place);
    }
    cluster.until("the quorum is missed", || {
        let why = cluster.status(0).map(|status| status["waits_for"]["why"].clone()).unwrap_or_default();
        why.as_str().is_some_and(|why| why.contains("no quorum: 1 of 3 voters answer (n1); need 2"))
    });
    let status = ask(&cluster, &["status"]);
    expect(&status, 4);
    assert!(out(&status).contains("cluster    test") && out(&status).contains("revision"), "{}", out(&status));
    for part in ["no quorum: 1 of 3 voters answer", "n2", "n3", "hint:", "code: no-quorum (exit 4)"] {
        assert!(err(&status).contains(part), "{part} is not in {}", err(&status));
    }
    let status = ask(&cluster, &["status", "-o", "json"]);
    expect(&status, 4);
    let document: Value = serde_json::from_slice(&status.stdout).expect("one document");
    assert_eq!(document["waits_for"]["causes"].as_array().map(Vec::len), Some(2));

    let lock = ask(&cluster, &["lock", "a", "--wait=100ms", "--timeout=5s", "--", "true"]);
    expect(&lock, 4);
    assert!(err(&lock).contains("no quorum: 1 of 3 voters answer"), "{}", err(&lock));
}

#[test]
fn a_command_has_as_long_to_end_as_its_session_allows() {
    let cluster = TestCluster::start();
    let lock =
        |args: &[&str]| ask(&cluster, &[&["lock", "a"], args, &["--", "sh", "-c", "sleep 1.2; echo done"]].concat());
    let output = lock(&[]);
    expect(&output, 0);
    assert_eq!(out(&output), "done");
    let refused = lock(&["--grace=10s"]);
    expect(&refused, 2);
    for part in ["a session of 6s is too short for a command that has 10s to end", "--grace=1900ms", "--ttl=30.3s"] {
        assert!(err(&refused).contains(part), "{part} is not in {}", err(&refused));
    }
    expect(&lock(&["--ttl=200ms"]), 2);
    expect(&lock(&["--grace=1e19"]), 2);
    let nameless = ask(&cluster, &["lock", "", "--", "true"]);
    expect(&nameless, 2);
    assert!(err(&nameless).contains("a name has at least one character"), "{}", err(&nameless));
    expect(&ask(&cluster, &["session", "open", "--ttl=1s", "--grace=1s", "--", "true"]), 2);
}

#[test]
fn an_item_reaches_its_command_whatever_is_in_it() {
    let cluster = TestCluster::start();
    let (long, library) = (vec![b'x'; 200 * 1024], cluster.library());
    let nodes = cluster.processes.https().join(",");
    let pop = |script: &str| {
        let args = ["--node", &nodes, "queue", "pop", "q", "--", "sh", "-c", script];
        // As if this were the command of another item.
        command(&args, cluster.processes.folder()).env("TENURE_ITEM", "another").output().expect("the binary is there")
    };
    let word = "printf %s \"${TENURE_ITEM-none}\"; echo \"$TENURE_ITEM_FILE\" >&2";
    for (item, in_word) in
        [(&b"img-42"[..], &b"img-42"[..]), (b"a\xffb\n", b"a\xffb\n"), (b"a\0b", b"none"), (&long, b"none"), (b"", b"")]
    {
        let push = || cluster.wait(library.queue("q").push(item.to_vec()).into_future()).expect("it is taken");
        push();
        let output = pop("cat \"$TENURE_ITEM_FILE\"");
        expect(&output, 0);
        assert!(output.stdout == item, "{} bytes arrived as {}", item.len(), output.stdout.len());
        push();
        let output = pop(word);
        expect(&output, 0);
        assert_eq!(output.stdout, in_word);
        assert!(!Path::new(&err(&output)).exists(), "the file goes with its command");
    }
    assert_eq!(cluster.wait(library.queue("q").waiting_items()), Ok(0));
}

/// `tenure members --watch` under way.
struct Watch {
    running: Running,
    lines: PathBuf,
    errors: PathBuf,
}

impl Watch {
    fn start(cluster: &TestCluster, name: &str, args: &[&str]) -> Self {
        let folder = cluster.processes.folder();
        let (lines, errors) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let nodes = cluster.processes.https().join(",");
        let mut command = command(&[&["--node", &nodes, "members", "--watch"], args].concat(), folder);
        let file = |path: &Path| File::create(path).expect("the folder is there");
        let child = command.stdout(file(&lines)).stderr(file(&errors)).spawn();
        Self { running: Running(child.expect("the binary is there")), lines, errors }
    }

    fn until(&self, cluster: &TestCluster, said: &[&str]) {
        let text = || std::fs::read_to_string(&self.lines).unwrap_or_default();
        let is_said = || text().lines().any(|line| said.iter().all(|word| line.contains(word)));
        cluster.until(&format!("{said:?} is said"), is_said);
    }

    /// Its exit code, and what it said at last.
    fn end(mut self) -> (Option<i32>, String) {
        (self.running.code(), std::fs::read_to_string(&self.errors).expect("it was made"))
    }
}

#[test]
fn members_are_followed_when_the_node_that_is_asked_dies_and_until_nobody_answers() {
    let mut cluster = TestCluster::start();
    let people = Watch::start(&cluster, "people", &[]);
    let program = Watch::start(&cluster, "program", &["-o", "json", "--timeout", "5s"]);
    people.until(&cluster, &["n3", "alive"]);
    program.until(&cluster, &[r#""event":"snapshot""#, r#""label":"n3""#, r#""schema":"tenure/v1""#]);

    // The first one is the one that is asked.
    for (place, label) in [(2, "n3"), (0, "n1")] {
        cluster.processes.kill(place);
        people.until(&cluster, &[&format!("{label} does not answer")]);
        program.until(&cluster, &[r#""event":"down""#, &format!(r#""label":"{label}""#)]);
        cluster.processes.restart(place).expect("it starts again");
        people.until(&cluster, &[&format!("{label} is back, in another run")]);
        program.until(&cluster, &[r#""event":"up""#, &format!(r#""label":"{label}""#)]);
    }
    cluster.ready();
    cluster.processes.ask_to_end(1);
    people.until(&cluster, &["n2 said goodbye"]);
    program.until(&cluster, &[r#""event":"left""#, r#""label":"n2""#]);

    people.running.signal(Signal::SIGINT);
    assert_eq!(people.end(), (Some(130), String::new()));
    cluster.processes.kill_all();
    let (code, said) = program.end();
    assert_eq!(code, Some(3), "{said}");
    let problem: Value = serde_json::from_str(&said).expect("one line of JSON");
    assert_eq!((&problem["code"], problem["causes"].as_array().map(Vec::len)), (&"unreachable".into(), Some(3)));
}

#[test]
fn a_body_that_is_not_json_is_refused_and_the_node_lives_on() {
    let cluster = TestCluster::start();
    let post = |body: &str| {
        let request = tenure::cli::Request::post("/v1/tasks").bytes(body.to_owned());
        cluster.wait(cluster.http().send(request)).expect_err("it is wrong").code.as_str()
    };
    assert_eq!(post("{\"kind\": "), "malformed-json");
    assert_eq!(post("{\"kind\": 7}"), "invalid");
    assert_eq!(post("{\"kind\": \"tenure.echo\", \"retires\": 1}"), "invalid", "a misspelt word is not passed over");
    cluster.put("still", "here").expect("nothing happened");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let cluster = TestCluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data").display().to_string();
    let any = "127.0.0.1:0";
    let taken = cluster.processes.link(0).to_string();
    let output = alone(&["node", "--data", &data, "--listen", &taken, "--http", any]);
    expect(&output, 1);
    assert!(err(&output).contains("code: port-in-use") && err(&output).contains(&taken), "{}", err(&output));

    let http = cluster.processes.http(0).to_string();
    let output = alone(&["node", "--data", &data, "--listen", any, "--http", &http]);
    expect(&output, 1);
    assert!(err(&output).contains("code: port-in-use") && err(&output).contains(&http), "{}", err(&output));

    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").expect("the folder is there");
    let output = alone(&["node", "--data", &file.display().to_string(), "--listen", any, "--http", any]);
    expect(&output, 1);
    assert!(err(&output).contains("code: data-folder"), "{}", err(&output));

    // The folder of a node that runs belongs to that node.
    let busy = cluster.processes.folder().join("n1").display().to_string();
    let output = alone(&["node", "--cluster", "test", "--data", &busy, "--listen", any, "--http", any]);
    expect(&output, 1);
    assert!(err(&output).contains("code: data-folder"), "{}", err(&output));
}
