//! What is refused, and how that is said: the same code over HTTP and at the terminal, with the exit code that goes with it.

use std::process::Stdio;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tenure::cli::{Cluster, Code, Diagnostic, Request};

use crate::command_line::{ask, err, out};
use crate::support::{TestCluster, command};

/// Three nodes, and one that has forgotten what happened before its last snapshot.
struct Refusing {
    cluster: TestCluster,
    forgetful: String,
}

impl Refusing {
    fn start() -> Self {
        let mut cluster = TestCluster::with(|settings| settings.flags = vec![format!("--snapshot-every={EVERY}")]);
        let (master, _) = cluster.master_after(0);
        let place = (master + 1) % 3;
        for _ in 0..3 * EVERY {
            cluster.put("again", "and again").expect("a quorum is here");
        }
        cluster.until("it has a snapshot", || {
            cluster.status(place).is_some_and(|status| status["log_base"].as_u64() > Some(1))
        });
        cluster.processes.kill(place);
        cluster.processes.restart(place).expect("it starts again");
        cluster.ready();
        let forgetful = cluster.processes.https()[place].clone();
        Self { cluster, forgetful }
    }

    fn send(&self, request: Request) -> Result<Value, Diagnostic> {
        self.cluster.wait(self.cluster.http().send(request)).and_then(|reply| reply.json())
    }

    /// Opens a session that lives for as long as the test.
    fn session(&self) -> String {
        let request = Request::post("/v1/sessions").json(&json!({ "ttl_ms": 600_000 }));
        self.send(request).expect("it is opened")["session"].as_str().expect("it has an id").to_owned()
    }

    /// This request, and this verb, are refused in this way.
    #[track_caller]
    fn refuses(&self, code: Code, request: Request, verb: &[&str]) {
        let error = self.send(request).expect_err("it is refused");
        assert_eq!(error.code, code, "over HTTP: {error:?}");
        self.refuses_verb(code, verb);
    }

    #[track_caller]
    fn refuses_verb(&self, code: Code, verb: &[&str]) {
        let output = ask(&self.cluster, verb);
        let (said, exit) = (err(&output), i32::from(code.exit()));
        assert_eq!(output.status.code(), Some(exit), "{verb:?}: {said}");
        assert!(said.contains(&format!("code: {} (exit {exit})", code.as_str())), "{verb:?}: {said}");
        assert_eq!(out(&output), "", "{verb:?} prints nothing where a result would stand");
    }
}

#[test]
fn every_refusal_has_one_code_over_http_and_at_the_terminal() {
    let refusing = Refusing::start();
    let put = |path: &str| Request::new(Method::PUT, path).bytes("v");

    // A session that does not live.
    let ended = refusing.session();
    refusing.send(Request::new(Method::DELETE, format!("/v1/sessions/{ended}"))).expect("it is ended");
    refusing.refuses(
        Code::NoSession,
        put(&format!("/v1/kv/a?session={ended}")),
        &["kv", "put", "a", "v", "--session", &ended],
    );
    refusing.refuses(Code::NoSession, put(&format!("/v1/sessions/{ended}")), &["session", "kill", &ended]);
    let claim = Request::post("/v1/locks/a").json(&json!({ "session": ended }));
    assert_eq!(refusing.send(claim).expect_err("nobody holds it").code, Code::NoSession);

    // A lock that somebody else holds, and a holder whom nobody knows.
    let session = refusing.session();
    let claim = json!({ "session": session });
    let grant = refusing.send(Request::post("/v1/locks/a").json(&claim)).expect("it is free");
    refusing.refuses(Code::Held, Request::post("/v1/locks/a").json(&claim), &["lock", "a", "--", "true"]);
    refusing.refuses(
        Code::Fenced,
        put("/v1/locks/a/claims/c999999?session=s1"),
        &["fence", "check", &fenced_file(&refusing), "--fence", "7"],
    );
    refusing.refuses_verb(Code::NotFound, &["right", "show", "lock", "nobody"]);
    assert_eq!(out(&ask(&refusing.cluster, &["right", "ls", "lock", "-o", "name"])), "lock a", "what is held is shown");
    assert!(out(&ask(&refusing.cluster, &["right", "show", "lock", "a"])).contains(&session));

    // A fence of a holder who was replaced: the transaction is told apart from one that cannot be read.
    let place = format!("/v1/locks/a/claims/{}?session={session}", grant["claim"].as_str().expect("a claim"));
    refusing.send(Request::new(Method::DELETE, place.clone())).expect("it is given back");
    assert_eq!(refusing.send(put(&place)).expect_err("it was given back").code, Code::Fenced);
    let late =
        json!({ "when": [{ "held": "lock a", "fence": grant["fence"] }], "then": [{ "put": "a", "value": "1" }] });
    let done =
        refusing.send(Request::post("/v1/txn").json(&late)).expect("a condition that does not hold is an answer");
    assert_eq!(done["held"], false);
    let script = |document: &Value| {
        let script = refusing.cluster.processes.folder().join("transaction.json");
        std::fs::write(&script, document.to_string()).expect("it is written");
        script.display().to_string()
    };
    assert_eq!(ask(&refusing.cluster, &["kv", "txn", &script(&late)]).status.code(), Some(6));
    for (wrong, code) in [
        (json!({ "than": [] }), Code::Usage),
        (json!({ "when": [{ "held": "lock a" }] }), Code::Usage),
        (json!({ "then": [{ "put": "a" }, { "delete": "a" }] }), Code::Invalid),
    ] {
        refusing.refuses(code, Request::post("/v1/txn").json(&wrong), &["kv", "txn", &script(&wrong)]);
    }

    // More than fits: a value, and what goes with one session.
    let large = "x".repeat(MAX_VALUE + 1);
    let request = Request::new(Method::PUT, "/v1/kv/a").bytes(large.clone());
    let steps = json!({ "then": [{ "put": "a", "value": large }] });
    refusing.refuses(Code::TooLarge, request, &["kv", "txn", &script(&steps)]);
    fill(&refusing, &session);
    let path = format!("/v1/kv/{}?session={session}", long_name(0, 0));
    refusing.refuses(Code::Quota, put(&path), &["kv", "put", &long_name(0, 0), "v", "--session", &session]);

    // A precondition, and what is forgotten.
    let request = put("/v1/kv/again").header("if-none-match", "*");
    refusing.refuses(Code::Conflict, request, &["kv", "put", "again", "v", "--if-absent"]);
    let request = Request::get("/v1/kv?watch&from=1&wait=1s");
    let alone = Cluster::new(vec![refusing.forgetful.clone()]);
    let error = refusing.cluster.wait(alone.send(request)).expect_err("it is forgotten");
    assert_eq!((error.code, error.status(), error.code.exit()), (Code::Compacted, 410, 6));
}

#[test]
fn a_watch_at_the_terminal_goes_on_where_what_happened_is_forgotten() {
    let refusing = Refusing::start();
    let context = tempfile::tempdir().expect("a temporary folder");
    let args = ["--node", &refusing.forgetful, "kv", "watch", "--from", "1", "--count", "1"];
    let mut watch = command(&args, context.path());
    let watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let watch = watch.expect("the binary is there");
    // Whenever it looks, one more change is on its way.
    let writer = refusing.cluster.library();
    let writes = refusing.cluster.spawn(async move {
        loop {
            writer.kv().put("news", "v").await.expect("a quorum is here");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let output = watch.wait_with_output().expect("it ends after one change");
    writes.abort();
    assert!(output.status.success(), "{output:?}");
    assert!(err(&output).contains("are forgotten") && err(&output).contains("now comes instead"), "{}", err(&output));
    let told = out(&output);
    assert!(told.lines().any(|line| line.contains(" again = and again")), "what is there comes first: {told}");
    assert!(told.lines().last().is_some_and(|line| line.contains(" news = v")), "{told}");
}

/// A file that has seen a greater fence than those of today.
fn fenced_file(refusing: &Refusing) -> String {
    let file = refusing.cluster.processes.folder().join("stock.json").display().to_string();
    let check = ask(&refusing.cluster, &["fence", "check", &file, "--fence", "1000000"]);
    assert!(check.status.success(), "{check:?}");
    file
}

/// As many keys as go with one session.
fn fill(refusing: &Refusing, session: &str) {
    let mut left = OWNED_BYTES / long_name(0, 0).len();
    for round in 1.. {
        if left == 0 {
            return;
        }
        let steps = left.min(STEPS);
        let put = |step| json!({ "put": long_name(round, step), "value": "", "session": session });
        let steps: Vec<Value> = (0..steps).map(put).collect();
        left -= steps.len();
        let request = Request::post("/v1/txn").json(&json!({ "then": steps }));
        refusing.send(request).expect("there is room");
    }
}

/// A key of the greatest length.
fn long_name(round: usize, step: usize) -> String {
    format!("{round:0>256}{step:0>256}")
}

/// After how many entries these nodes write a snapshot.
const EVERY: u64 = 20;

const MAX_VALUE: usize = protocol::wire::MAX_VALUE;

const OWNED_BYTES: usize = protocol::state::limits::MAX_OWNED_BYTES;

const STEPS: usize = protocol::state::limits::MAX_STEPS;
