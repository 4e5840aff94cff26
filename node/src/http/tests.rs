//! The routes, over real sockets, against a site whose cluster is one state machine in memory.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::KeptSession;
use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::client::Work;
use protocol::effects::Role;
use protocol::replica::Status;
use protocol::state::{Answer, Command, MasterCommand, Offer, OpenSession, Operation, Outcome, Query, State};
use protocol::{Attempt, ClusterId, ClusterTime, Epoch, Fence, Incarnation, NodeId, Seq, SessionId, TaskId};
use serde_json::{Value, json};

use super::*;
use crate::cli::{Cluster, Request};
use crate::client::{Backend, Client};
use crate::error::Error;
use crate::site::{Identity, Member, Presence};

/// One state machine instead of a cluster: commands are applied at once.
struct Toy {
    state: Mutex<(State, SessionId, u64)>,
    has_quorum: AtomicBool,
}

impl Toy {
    fn new() -> Arc<Self> {
        let mut state = State::default();
        let ttl = Duration::from_secs(3600);
        let answer = state.apply(ClusterTime(1), &Command::Register { ttl }, &mut Vec::new());
        let Answer::Registered(session) = answer else { panic!("no session: {answer:?}") };
        Arc::new(Self { state: Mutex::new((state, session, 0)), has_quorum: AtomicBool::new(true) })
    }

    fn apply(&self, command: &Command) -> Answer {
        let mut guard = self.state.lock().unwrap();
        let time = ClusterTime(guard.0.time().0 + 1);
        guard.0.apply(time, command, &mut Vec::new())
    }

    /// Opens a session of a node that runs `kind`.
    fn add_worker(&self, kind: &str) -> SessionId {
        let offer = Offer { label: "n2".into(), slots: 2, kinds: [kind.to_owned()].into(), ..Offer::default() };
        let (node, incarnation) = (NodeId(2), Incarnation(1));
        self.apply(&Command::Master(MasterCommand::OpenNode {
            node,
            incarnation,
            offer,
            ttl: Duration::from_secs(60),
        }));
        let guard = self.state.lock().unwrap();
        let Answer::Nodes(nodes) = guard.0.query(&Query::Nodes) else { panic!("no nodes") };
        nodes[0].session
    }

    fn finish(&self, session: SessionId, task: TaskId, outcome: Outcome) {
        let attempt = Attempt { task, number: 1 };
        self.apply(&Command::Master(MasterCommand::Assign { attempt, session }));
        let fence = self.fence(task);
        self.apply(&Command::Master(MasterCommand::Finish { task, fence, outcome }));
    }

    fn fence(&self, task: TaskId) -> Fence {
        match self.state.lock().unwrap().0.task_state(task) {
            Some(protocol::state::TaskState::Assigned { fence, .. }) => *fence,
            other => panic!("{task} is not assigned: {other:?}"),
        }
    }
}

impl Backend for Toy {
    fn call(&self, work: Work, timeout: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        async move {
            if !self.has_quorum.load(Ordering::SeqCst) {
                let maybe_applied = matches!(work, Work::Write(Operation::Delete(_)));
                return Err(Error::NoQuorum { maybe_applied, waited: timeout, master: None });
            }
            match work {
                Work::Write(operation) => {
                    let (session, seq) = {
                        let mut guard = self.state.lock().unwrap();
                        guard.2 += 1;
                        (guard.1, Seq(guard.2))
                    };
                    Ok(self.apply(&Command::Client { session, seq, first_incomplete: seq, operation }))
                }
                Work::Read(Query::Await(task), _) => loop {
                    let answer = self.state.lock().unwrap().0.query(&Query::Task(task));
                    match &answer {
                        Answer::Task(view) if !view.state.is_final() => tokio::task::yield_now().await,
                        _ => return Ok(answer),
                    }
                },
                Work::HandOver { .. } => Ok(Answer::Ok),
                Work::Read(query, _) => Ok(self.state.lock().unwrap().0.query(&query)),
                Work::Renew(session) => Ok(self.apply(&Command::Renew { sessions: vec![session] })),
                Work::Keep(_) => panic!("nobody keeps sessions here"),
            }
        }
        .boxed()
    }

    fn keep(&self, _: OpenSession, _: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
        panic!("nobody keeps sessions here")
    }

    fn end(&self, _: SessionId) {}

    fn host(&self) -> Option<protocol::state::Host> {
        None
    }
}

struct ToySite {
    toy: Arc<Toy>,
    identity: Identity,
}

impl Site for ToySite {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn client(&self) -> Client {
        Client::new(self.toy.clone())
    }

    fn status(&self) -> BoxFuture<'_, Option<Status>> {
        let has_quorum = self.toy.has_quorum.load(Ordering::SeqCst);
        std::future::ready(Some(Status {
            cluster: ClusterId(7),
            role: Role::Follower,
            epoch: Epoch(3),
            leader: Some(NodeId(2)),
            master_fresh: has_quorum,
            part: protocol::effects::Part::Voter,
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            ..Status::default()
        }))
        .boxed()
    }

    fn members(&self) -> Vec<Member> {
        let member = |number: u64, presence| Member {
            node: NodeId(number),
            incarnation: Incarnation(1),
            name: format!("n{number}"),
            presence,
            link: format!("127.0.0.1:740{number}").parse().unwrap(),
            http: None,
            part: protocol::effects::Part::Voter,
            rtt: Some(Duration::from_micros(400)),
        };
        let second = if self.toy.has_quorum.load(Ordering::SeqCst) { Presence::Alive } else { Presence::Suspect };
        vec![member(1, Presence::Alive), member(2, second), member(3, Presence::Unreachable)]
    }

    fn is_leaving(&self) -> bool {
        false
    }

    fn found_without(&self, _: &[String]) -> Result<(), crate::diagnostic::Diagnostic> {
        Ok(())
    }
}

struct Fixture {
    toy: Arc<Toy>,
    server: Server,
    cluster: Cluster,
    _backstage: crate::backstage::Backstage,
}

fn fixture() -> Fixture {
    let toy = Toy::new();
    let identity = Identity {
        node: NodeId(1),
        incarnation: Incarnation(1),
        cluster: "toy".into(),
        name: "n1".into(),
        link: "127.0.0.1:7401".parse().unwrap(),
        http: None,
        kinds: BTreeSet::from(["tenure.echo".to_owned()]),
    };
    let site = Arc::new(ToySite { toy: toy.clone(), identity });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backstage = crate::backstage::Backstage::start().unwrap();
    let server = Server::start(listener, site, false, backstage.handle()).unwrap();
    let cluster = Cluster::new([server.address().to_string()]).timeout(Duration::from_secs(20));
    Fixture { toy, server, cluster, _backstage: backstage }
}

impl Fixture {
    async fn get(&self, path: &str) -> Value {
        self.cluster.get(path).await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Diagnostic> {
        self.cluster.send(Request::post(path).json(&body)).await?.json()
    }

    /// The very first answer, without retries.
    async fn once(&self, request: Request) -> Result<crate::cli::http::Reply, Diagnostic> {
        self.cluster.send_to(&self.server.address().to_string(), request).await
    }

    async fn echo(&self) -> String {
        let answer = self.post("/v1/tasks", json!({ "kind": "tenure.echo", "payload": { "a": 1 } })).await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_submitted_task_can_be_read_waited_for_and_listed() {
    let fixture = fixture();
    let worker = fixture.toy.add_worker("tenure.echo");
    let id = fixture.echo().await;
    assert_eq!(fixture.get(&format!("/v1/tasks/{id}")).await["state"], "pending");
    let waiting = fixture.cluster.clone();
    let path = format!("/v1/tasks/{id}?wait=30s");
    let waiting = tokio::spawn(async move { waiting.get(path).await });
    fixture.toy.finish(worker, crate::cli::parse::task(&id).unwrap(), Outcome::Done("{\"a\":1}".into()));
    let task = waiting.await.unwrap().unwrap();
    assert_eq!((&task["state"], &task["output"]), (&json!("done"), &json!("{\"a\":1}")));
    assert_eq!(task["output_encoding"], "utf-8");
    assert_eq!(task["history"][0]["label"], "n2");
    let list = fixture.get("/v1/tasks?limit=10&state=done").await;
    assert_eq!((&list["tasks"][0]["id"], &list["next"]), (&json!(id), &Value::Null));
    assert_eq!(fixture.get("/v1/tasks?state=failed").await["tasks"], json!([]));
}

#[tokio::test]
async fn the_cursor_pages_through_all_tasks() {
    let fixture = fixture();
    for _ in 0..5 {
        fixture.echo().await;
    }
    let (mut seen, mut path) = (0, "/v1/tasks?limit=2".to_owned());
    loop {
        let page = fixture.get(&path).await;
        seen += page["tasks"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tasks?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 5);
}

#[tokio::test]
async fn large_results_hide_no_task_behind_them() {
    let fixture = fixture();
    let worker = fixture.toy.add_worker("tenure.echo");
    for _ in 0..3 {
        let id = fixture.echo().await;
        let output = Outcome::Done(vec![b'x'; 600 * 1024].into());
        fixture.toy.finish(worker, crate::cli::parse::task(&id).unwrap(), output);
    }
    let list = fixture.get("/v1/tasks").await;
    assert_eq!((list["tasks"].as_array().unwrap().len(), &list["next"]), (3, &Value::Null));
}

#[tokio::test]
async fn an_idempotency_key_names_one_task() {
    let fixture = fixture();
    let request =
        || Request::post("/v1/tasks").json(&json!({ "kind": "tenure.echo" })).header("idempotency-key", "same");
    let first = fixture.once(request()).await.unwrap();
    let second = fixture.once(request()).await.unwrap();
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 200));
    let (first, second) = (first.json().unwrap(), second.json().unwrap());
    assert_eq!(first["id"], second["id"]);
    assert_eq!((&first["fresh"], &second["fresh"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn a_batch_is_recorded_in_order() {
    let fixture = fixture();
    let tasks: Vec<Value> = (0..3).map(|n| json!({ "kind": "tenure.echo", "payload": n })).collect();
    let answer = fixture.post("/v1/tasks:batch", json!({ "tasks": tasks })).await.unwrap();
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 3);
    let empty = fixture.post("/v1/tasks:batch", json!({ "tasks": [] })).await.unwrap_err();
    assert_eq!(empty.code, Code::Invalid);
}

#[tokio::test]
async fn a_kind_that_nobody_runs_is_refused_unless_it_may_wait() {
    let fixture = fixture();
    fixture.toy.add_worker("render");
    let error = fixture.post("/v1/tasks", json!({ "kind": "rendr" })).await.unwrap_err();
    assert_eq!((error.code, error.code.exit()), (Code::UnknownKind, 2));
    assert_eq!(error.message, "no live node has a handler for kind `rendr`; known: render, tenure.echo");
    assert!(fixture.post("/v1/tasks", json!({ "kind": "rendr", "queue": true })).await.is_ok());
    assert!(fixture.post("/v1/tasks", json!({ "kind": "render" })).await.is_ok());
}

#[tokio::test]
async fn a_cancelled_task_has_ended_and_cannot_be_cancelled_again() {
    let fixture = fixture();
    let id = fixture.echo().await;
    let path = format!("/v1/tasks/{id}/cancel");
    let cancel = || fixture.post(&path, json!({ "reason": "no need" }));
    let task = cancel().await.unwrap();
    assert_eq!((&task["state"], &task["message"]), (&json!("cancelled"), &json!("no need")));
    assert_eq!(cancel().await.unwrap_err().code, Code::Ended);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_exit_5() {
    let fixture = fixture();
    for path in ["/v1/tasks/t999", "/v1/kv/none", "/v2/tasks"] {
        let error = fixture.cluster.get(path).await.unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::NotFound, 5), "{path}");
    }
    let error = fixture.once(Request::new(Method::PATCH, "/v1/tasks")).await.unwrap_err();
    assert_eq!(error.code, Code::MethodNotAllowed);
}

#[tokio::test]
async fn keys_carry_revisions_and_preconditions() {
    let fixture = fixture();
    let put = |value: &'static str| Request::new(Method::PUT, "/v1/kv/config%2Flimit").bytes(value);
    let first = fixture.once(put("10").header("if-none-match", "*")).await.unwrap();
    let revision = first.header("x-revision").unwrap().to_owned();
    assert_eq!(first.json().unwrap()["key"], "config/limit");
    assert_eq!(fixture.once(put("11").header("if-none-match", "*")).await.unwrap_err().code, Code::Conflict);
    let second = fixture.once(put("12").header("if-match", &revision)).await.unwrap();
    let lost = fixture.once(put("13").header("if-match", &revision)).await.unwrap_err();
    assert_eq!((lost.status(), lost.code.exit()), (412, 6));
    let read = fixture.once(Request::get("/v1/kv/config/limit")).await.unwrap();
    assert_eq!((&read.body[..], read.header("x-revision")), (&b"12"[..], second.header("x-revision")));
    let json = fixture.once(Request::get("/v1/kv/config/limit").header("accept", "application/json")).await.unwrap();
    assert_eq!(json.json().unwrap()["value"], "12");
    let delete = fixture.once(Request::new(Method::DELETE, "/v1/kv/config/limit")).await.unwrap();
    assert!(delete.header("x-revision").is_some());
    let wrong = fixture.once(put("1").header("if-match", "soon")).await.unwrap_err();
    assert_eq!(wrong.code, Code::Usage);
}

#[tokio::test]
async fn keys_have_owners_ends_and_names_of_their_own() {
    let fixture = fixture();
    let session = fixture.post("/v1/sessions", json!({ "ttl_ms": 60_000 })).await.unwrap();
    let session = session["session"].as_str().unwrap().to_owned();
    let put = |path: String| fixture.once(Request::new(Method::PUT, path).bytes("v"));
    put(format!("/v1/kv/a?session={session}")).await.unwrap();
    let made = put("/v1/kv/job-?seq&ttl=30s".into()).await.unwrap().json().unwrap();
    let name = format!("job-{:020}", made["revision"].as_u64().unwrap());
    assert_eq!(made["key"], name.as_str());
    let all = fixture.get("/v1/kv").await;
    assert_eq!((&all["keys"][0]["session"], &all["keys"][1]["key"]), (&json!(session), &json!(name)));
    assert!(all["keys"][1]["expires_ms"].is_u64() && all["more"] == false);
    let page = fixture.get("/v1/kv?prefix=&after=a&limit=1&keys_only").await;
    assert_eq!((&page["keys"][0]["key"], page["keys"][0].get("value")), (&json!(name), None));
    fixture.once(Request::new(Method::DELETE, format!("/v1/sessions/{session}"))).await.unwrap();
    assert_eq!(fixture.once(Request::get("/v1/kv/a")).await.unwrap_err().code, Code::NotFound);
    assert_eq!(put(format!("/v1/kv/a?session={session}")).await.unwrap_err().code, Code::NotFound);
    for wrong in ["/v1/kv/a?session=me", "/v1/kv/a?ttl=soon", "/v1/kv/a?tll=3s"] {
        assert_eq!(put(wrong.into()).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn a_transaction_answers_what_each_step_came_to() {
    let fixture = fixture();
    let made = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes("1")).await.unwrap().json().unwrap();
    let transaction = json!({
        "when": [{ "key": "a", "revision": made["revision"] }, { "key": "a", "value": "1" }, { "key": "b", "absent": true }],
        "then": [
            { "put": "a", "value": "/w==", "value_encoding": "base64" },
            { "get": "a" },
            { "get": "c" },
            { "delete": "c" },
            { "put": "b", "value": "2" },
        ],
        "or_else": [{ "get": "a" }],
    });
    let done = fixture.post("/v1/txn", transaction.clone()).await.unwrap();
    assert_eq!(done["held"], true);
    let results = done["results"].as_array().unwrap();
    assert_eq!(results[0], json!({ "written": "a" }));
    assert_eq!((&results[1]["value"], &results[1]["value_encoding"]), (&json!("/w=="), &json!("base64")));
    assert_eq!((&results[2], &results[3]), (&Value::Null, &json!({ "deleted": false })));
    let again = fixture.post("/v1/txn", transaction).await.unwrap();
    assert_eq!((&again["held"], again["results"].as_array().unwrap().len()), (&json!(false), 1));
    for wrong in [
        json!({ "when": [{ "key": "a" }] }),
        json!({ "when": [{ "key": "a", "revision": 1, "absent": true }] }),
        json!({ "then": [{ "put": "a", "get": "a" }] }),
        json!({ "then": [{ "put": "a", "value": "%", "value_encoding": "base64" }] }),
        json!({ "then": [{ "put": "a", "vaule": "1" }] }),
    ] {
        assert_eq!(fixture.post("/v1/txn", wrong.clone()).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
    let twice = json!({ "then": [{ "put": "a" }, { "delete": "a" }] });
    assert_eq!(fixture.post("/v1/txn", twice).await.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused_in_words() {
    let fixture = fixture();
    let send = |body: &'static str| fixture.once(Request::post("/v1/tasks").bytes(body));
    let error = send("{\"kind\": ").await.unwrap_err();
    assert_eq!((error.code, error.status(), error.code.exit()), (Code::MalformedJson, 400, 2));
    assert!(error.message.contains("line 1 column"), "{}", error.message);
    let error = send(r#"{"kind": "tenure.echo", "retires": 3}"#).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("unknown field `retires`"), "{}", error.message);
    let large = "x".repeat(protocol::wire::MAX_VALUE + 1);
    let body = json!({ "kind": "tenure.echo", "payload_text": large });
    let error = fixture.post("/v1/tasks", body).await.unwrap_err();
    assert_eq!((error.code, error.status()), (Code::TooLarge, 413));
    let error = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes(large)).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    assert_eq!(fixture.get("/v1/status").await["tasks"]["pending"], 0, "nothing was recorded");
}

#[tokio::test]
async fn without_a_quorum_an_answer_says_whether_it_may_have_been_done() {
    let fixture = fixture();
    fixture.toy.has_quorum.store(false, Ordering::SeqCst);
    let certain = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes("1")).await.unwrap_err();
    assert_eq!((certain.status(), certain.code.exit(), certain.is_retryable()), (503, 4, true));
    assert_eq!(certain.message, "no quorum: 1 of 3 voters answer (n1); need 2");
    assert_eq!(certain.causes, ["n2 127.0.0.1:7402  suspect", "n3 127.0.0.1:7403  unreachable"]);
    let maybe = fixture.once(Request::new(Method::DELETE, "/v1/kv/a")).await.unwrap_err();
    assert_eq!((maybe.status(), maybe.maybe_applied, maybe.is_retryable()), (504, true, false));
    let ready = fixture.once(Request::get("/readyz?verbose")).await.unwrap_err();
    assert!(ready.message.contains("[-]master failed") && ready.message.contains("[+]gossip ok"), "{}", ready.message);
    assert!(fixture.once(Request::get("/livez")).await.is_ok());
}

#[tokio::test]
async fn members_join_gossip_with_sessions() {
    let fixture = fixture();
    fixture.toy.add_worker("render");
    let members = fixture.get("/v1/members").await;
    let states: Vec<_> = members["members"].as_array().unwrap().iter().map(|member| member["state"].clone()).collect();
    assert_eq!(states, ["alive", "alive", "unreachable"]);
    let second = &members["members"][1];
    assert_eq!(
        (&second["role"], &second["slots"], &second["kinds"]),
        (&json!("master"), &json!(2), &json!(["render"]))
    );
    assert_eq!(second["node"], "0000000000000002");
}

#[tokio::test]
async fn a_foreign_page_or_host_is_refused() {
    let fixture = fixture();
    let page = fixture.once(Request::get("/v1/status").header("origin", "https://example.org")).await.unwrap_err();
    assert_eq!((page.code, page.status()), (Code::Foreign, 403));
    let host = fixture.once(Request::get("/v1/status").header("host", "example.org")).await.unwrap_err();
    assert_eq!(host.code, Code::Foreign);
}

#[tokio::test]
async fn a_stopping_server_ends_long_waits() {
    let fixture = fixture();
    let id = fixture.echo().await;
    let waiting = fixture.cluster.clone();
    let waiting = tokio::spawn(async move { waiting.get(format!("/v1/tasks/{id}?wait=60s")).await });
    while !waiting.is_finished() && fixture.toy.state.lock().unwrap().2 == 0 {
        tokio::task::yield_now().await;
    }
    fixture.server.stop().await;
    // Either the wait was answered with what is known, or its connection had not been accepted yet.
    if let Ok(task) = waiting.await.unwrap() {
        assert_eq!(task["state"], "pending");
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let fixture = fixture();
    let reply = fixture.once(Request::get("/metrics")).await.unwrap();
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains("\ntenure_epoch 3\n") && text.contains("tenure_members{state=\"alive\"} 2"), "{text}");
}

#[tokio::test]
async fn a_verb_on_a_node_is_checked_before_it_is_recorded() {
    let fixture = fixture();
    fixture.toy.state.lock().unwrap().0.found(&[NodeId(1), NodeId(2), NodeId(3)], 3);
    let post = |path: &str| fixture.cluster.send(Request::post(path.to_owned()).repeatable());

    let unknown = post("/v1/nodes/nobody/promote").await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
    assert!(unknown.hint.as_deref().is_some_and(|hint| hint.contains("n1, n2, n3")), "{unknown:?}");
    assert_eq!(post("/v1/nodes/n1/praise").await.unwrap_err().code, Code::NotFound);

    // No leader says who is here: whoever goes would take the majority along.
    let dangerous = post("/v1/nodes/n2/demote").await.unwrap_err();
    assert_eq!(dangerous.code, Code::Conflict);
    assert_eq!(dangerous.causes, ["n1  does not answer", "n3  does not answer"]);

    // By number, and for a voter no change at all.
    let answer = post(&format!("/v1/nodes/{}/promote", NodeId(3))).await.unwrap().json().unwrap();
    assert_eq!((&answer["target"], &answer["node"]), (&json!(3), &json!(NodeId(3).to_string())));
    assert_eq!(fixture.get("/v1/roster").await["voters"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_session_is_opened_renewed_shown_and_ended() {
    let fixture = fixture();
    let opened = fixture.post("/v1/sessions", json!({ "ttl_ms": 6_000, "label": "indexer" })).await.unwrap();
    let valid = opened["valid_for_ms"].as_u64().unwrap();
    assert!(valid < 5_455, "it is over for its owner before it is over: {valid}");
    let path = format!("/v1/sessions/{}", opened["session"].as_str().unwrap());
    let renewed = fixture.cluster.send(Request::new(Method::PUT, path.clone())).await.unwrap().json().unwrap();
    assert_eq!((&renewed["session"], &renewed["ttl_ms"]), (&opened["session"], &json!(6_000)));
    assert!(renewed["valid_for_ms"].as_u64().unwrap() < 5_455);
    let list = fixture.get("/v1/sessions").await;
    let labels: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|session| session["label"].clone()).collect();
    assert_eq!(labels.last(), Some(&json!("indexer")));
    assert_eq!(fixture.get(&path).await["label"], "indexer");
    fixture.cluster.send(Request::new(Method::DELETE, path.clone())).await.unwrap();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let gone = fixture.once(Request::new(method, path.clone())).await.unwrap_err();
        assert_eq!(gone.code, Code::NotFound);
    }
}

#[tokio::test]
async fn words_that_describe_no_session_are_refused() {
    let fixture = fixture();
    for wrong in [json!({}), json!({ "ttl_ms": "6s" }), json!({ "ttl_ms": 5, "owner": "me" })] {
        assert_eq!(fixture.post("/v1/sessions", wrong).await.unwrap_err().code, Code::Usage);
    }
    for ttl in [0, u64::MAX] {
        let wrong = fixture.post("/v1/sessions", json!({ "ttl_ms": ttl })).await.unwrap_err();
        assert_eq!(wrong.code, Code::Invalid);
    }
    let wrong = fixture.once(Request::get("/v1/sessions/mine")).await.unwrap_err();
    assert_eq!(wrong.code, Code::Usage);
}
