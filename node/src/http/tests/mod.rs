//! The routes, over real sockets, against a site whose cluster is one state machine in memory.

mod cluster;
mod keys;
mod rights;
mod sessions;
mod tasks;

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
use protocol::state::{
    Answer, ClaimState, Command, MasterCommand, NodeView, Offer, OpenSession, Operation, Outcome, Query, State,
};
use protocol::{Attempt, ClusterId, ClusterTime, Epoch, Fence, Incarnation, NodeId, Seq, SessionId, TaskId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::cli::{Cluster, Request};
use crate::client::{Backend, Client};
use crate::error::Error;
use crate::site::{Identity, Member, Presence};

/// One state machine instead of a cluster: commands are applied at once.
struct Toy {
    state: Mutex<(State, SessionId, u64)>,
    has_quorum: AtomicBool,
    /// Whether every answer to a question takes half a second.
    is_slow: AtomicBool,
}

impl Toy {
    fn new() -> Arc<Self> {
        let mut state = State::default();
        let ttl = Duration::from_secs(3600);
        let answer = state.apply(ClusterTime(1), &Command::Register { ttl }, &mut Vec::new());
        let Answer::Registered(session) = answer else { panic!("no session: {answer:?}") };
        Arc::new(Self {
            state: Mutex::new((state, session, 0)),
            has_quorum: AtomicBool::new(true),
            is_slow: AtomicBool::new(false),
        })
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
            Some(protocol::state::TaskState::Assigned { fence, .. }) => fence,
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
            if matches!(work, Work::Read(..)) && self.is_slow.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(500)).await;
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
                // Nothing ever happens to keys here: whoever watches waits until the time is over.
                Work::Read(Query::Watch(_), _) => {
                    tokio::time::sleep(timeout).await;
                    Err(Error::NoQuorum { maybe_applied: false, waited: timeout, master: None })
                }
                Work::Read(query, _) if query.waits() => loop {
                    let answer = self.state.lock().unwrap().0.query(&query);
                    match (&query, &answer) {
                        (_, Answer::Claim(ClaimState::Waiting)) => tokio::task::yield_now().await,
                        (Query::AwaitRight { after, .. }, Answer::Right(view)) if view.revision == *after => {
                            tokio::task::yield_now().await;
                        }
                        (Query::AwaitNodes { known }, Answer::Nodes(nodes)) if NodeView::sum(nodes) == *known => {
                            tokio::task::yield_now().await;
                        }
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
        Client::new(self.toy.clone(), protocol::Profile::WAN)
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
        is_forgetful: false,
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

impl Fixture {
    /// Opens a session and names it.
    async fn session(&self) -> String {
        let opened = self.post("/v1/sessions", json!({ "ttl_ms": 60_000 })).await.unwrap();
        opened["session"].as_str().unwrap().to_owned()
    }

    /// Begins a stream, and waits until the node has.
    async fn stream(&self, path: &str) -> Listener {
        let address = self.server.address();
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut listener = Listener { connection, heard: String::new() };
        listener.until("text/event-stream").await;
        listener
    }
}

/// Whoever reads a stream.
struct Listener {
    connection: TcpStream,
    heard: String,
}

impl Listener {
    /// Reads until this was heard.
    async fn until(&mut self, word: &str) {
        let mut buffer = [0; 4096];
        while !self.heard.contains(word) {
            let read = self.connection.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "it ended, and said no {word}: {}", self.heard);
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
}
