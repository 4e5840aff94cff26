//! One real node in this process: storage, links, membership, HTTP and handlers together, through the public face alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::diagnostic::Code;
use crate::prelude::*;
use crate::{Builder, Lost, SessionId, StartError, TaskState};

/// Adds two numbers.
struct Add;

impl TaskHandler for Add {
    const NAME: &'static str = "add";
    type Input = (i64, i64);
    type Output = i64;

    async fn run(&self, _: &TaskCx, (a, b): (i64, i64)) -> Result<i64, TaskError> {
        a.checked_add(b).ok_or_else(|| TaskError::fatal("too large"))
    }
}

/// Fails, then panics, then succeeds; tells the once keys and fences of all attempts.
struct Third {
    runs: Arc<AtomicU32>,
}

impl TaskHandler for Third {
    const NAME: &'static str = "third";
    type Input = ();
    type Output = (u32, String, u64);

    async fn run(&self, cx: &TaskCx, (): ()) -> Result<(u32, String, u64), TaskError> {
        match self.runs.fetch_add(1, Ordering::SeqCst) {
            0 => Err("seven".parse::<u32>().unwrap_err().into()),
            1 => panic!("out of luck"),
            _ => Ok((cx.attempt().number, cx.once_key().to_owned(), cx.fence().0)),
        }
    }
}

/// Says that it runs, and when it is cancelled says so and ends.
struct Stuck {
    begun: Arc<AtomicU32>,
    cancelled: Arc<AtomicU32>,
}

impl TaskHandler for Stuck {
    const NAME: &'static str = "stuck";
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &TaskCx, (): ()) -> Result<(), TaskError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        cx.cancelled().await;
        self.cancelled.fetch_add(1, Ordering::SeqCst);
        Err(TaskError::retry("cancelled"))
    }
}

/// Runs until it is dropped, and counts how many of it are at work.
struct Endless {
    at_work: Arc<AtomicU32>,
}

impl TaskHandler for Endless {
    const NAME: &'static str = "endless";
    type Input = ();
    type Output = ();

    async fn run(&self, _: &TaskCx, (): ()) -> Result<(), TaskError> {
        struct AtWork(Arc<AtomicU32>);
        impl Drop for AtWork {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.at_work.fetch_add(1, Ordering::SeqCst);
        let _at_work = AtWork(self.at_work.clone());
        std::future::pending().await
    }
}

/// A node at whose end a handler is at work, and how many are.
async fn busy() -> (Node, Arc<AtomicU32>) {
    let at_work = Arc::new(AtomicU32::new(0));
    let node = single().register(Endless { at_work: at_work.clone() }).start().await.unwrap();
    node.client().submit::<Endless>(()).await.unwrap();
    until(&at_work, 1).await;
    (node, at_work)
}

async fn until(number: &AtomicU32, value: u32) {
    while number.load(Ordering::SeqCst) != value {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handler_outlives_its_node() {
    let (node, at_work) = busy().await;
    node.shutdown(Duration::from_millis(50)).await;
    assert_eq!(at_work.load(Ordering::SeqCst), 0, "a node that says goodbye has stopped what ran");
    let (node, at_work) = busy().await;
    drop(node);
    until(&at_work, 0).await;
}

fn single() -> Builder {
    Node::builder("single").ephemeral().profile(CALM).slots(4).label("name", "solo")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_is_a_cluster_that_runs_tasks() {
    let [runs, begun, cancelled] = std::array::from_fn(|_| Arc::new(AtomicU32::new(0)));
    let stuck = Stuck { begun: begun.clone(), cancelled: cancelled.clone() };
    let builder = single().register(Add).register(Third { runs }).register(stuck);
    let node = builder.http("127.0.0.1:0").start().await.unwrap();
    node.ready().await;
    let client = node.client();

    let sum = client.submit::<Add>((40, 2)).key("sum").await.unwrap();
    assert!(sum.is_fresh());
    assert_eq!(sum.result().await, Ok(42));
    let again = client.submit::<Add>((1, 1)).key("sum").await.unwrap();
    assert_eq!((again.id(), again.is_fresh(), again.result().await), (sum.id(), false, Ok(42)));

    let failed = client.submit::<Add>((i64::MAX, 1)).await.unwrap();
    assert_eq!(failed.result().await, Err(Error::Task(TaskEnd::Failed("too large".into()))));

    let third = client.submit::<Third>(()).backoff(Duration::from_millis(1)).await.unwrap();
    let (attempt, once_key, fence) = third.result().await.unwrap();
    assert_eq!((attempt, once_key), (3, format!("single/{}", third.id())));
    assert!(fence > 0);

    let stuck = client.submit::<Stuck>(()).await.unwrap();
    until(&begun, 1).await;
    assert!(matches!(stuck.view().await.unwrap().state, TaskState::Assigned { .. }));
    stuck.cancel("enough").await.unwrap();
    assert_eq!(stuck.result().await, Err(Error::Task(TaskEnd::Cancelled("enough".into()))));
    until(&cancelled, 1).await;
    assert_eq!(stuck.cancel("again").await, Err(Error::Ended));
    assert_eq!(client.task(TaskId(999)).view().await.unwrap_err(), Error::NotFound);

    let ended = client.tasks(TaskId(0), 100).await.unwrap();
    assert_eq!(ended.len(), 4);
    let status = client.status().await.unwrap();
    assert_eq!((status.done, status.results_recorded), (2, 2));
    let members = client.nodes().await.unwrap();
    assert_eq!((members.len(), members[0].offer.label.as_str()), (1, "solo"));
    assert_eq!(node.members().snapshot()[0].name, "solo");
    node.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_let_in_once_hears_of_no_refusal_any_more() {
    let foreign = Node::builder("foreign").ephemeral().profile(Profile::DEV).start().await.unwrap();
    let own = crate::ports::free(1).unwrap()[0].to_string();
    let client = Client::connect("single", [foreign.address().to_string(), own.clone()]).await.unwrap();
    let client = client.timeout(Duration::from_millis(100));
    while !matches!(client.status().await, Err(Error::NotLetIn(_))) {}
    let node = single().listen(&own).start().await.unwrap();
    while client.status().await.is_err() {}
    node.shutdown(Duration::from_secs(20)).await;
    for _ in 0..5 {
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, Error::NoQuorum { .. }), "its cluster may come back: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_given_another_name_is_told_so() {
    let node = single().start().await.unwrap();
    let client = Client::connect("other", [node.address().to_string()]).await.unwrap();
    let error = loop {
        match client.clone().timeout(Duration::from_millis(100)).status().await {
            Err(Error::NoQuorum { .. }) => {} // the refusal has not come yet
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(&error, Error::NotLetIn(why) if why.contains("named \"single\"")), "{error}");
    assert!(!error.maybe_applied() && !error.is_retryable());
    // So is whoever waits less long for a right than the client does for an answer.
    let error = client.lock("a").wait(Duration::from_millis(100)).await.map(drop).unwrap_err();
    assert!(matches!(&error, Error::NotLetIn(_)), "{error}");
    node.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Node::builder("single").data_dir(folder.path()).profile(Profile::DEV);
    let node = builder().start().await.unwrap();
    let kv = node.client().kv();
    let first = kv.put("config/limit", "10").await.unwrap();
    assert!(
        matches!(kv.cas("config/limit", Revision(0), "11").await, Err(Error::Conflict { current }) if current == first)
    );
    let second = kv.cas("config/limit", first, "12").await.unwrap();
    kv.put("gone", "soon").await.unwrap();
    kv.delete("gone").await.unwrap();
    assert_eq!(kv.delete("gone").await, Err(Error::NotFound));
    let (id, run) = (node.id(), node.incarnation());
    let taken = builder().start().await.unwrap_err();
    assert_eq!(taken.diagnostic().code, Code::DataFolder, "{taken}");
    while !folder.path().join("cluster").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await; // the name is written beside everything else
    }
    node.shutdown(Duration::from_secs(20)).await;
    let (code, why) = refused(Node::builder("other").data_dir(folder.path())).await;
    assert_eq!(code, Code::WrongCluster, "{why}");

    let node = builder().start().await.unwrap();
    assert_eq!(node.id(), id);
    assert!(node.incarnation() > run);
    let kv = node.client().kv();
    let value = kv.get("config/limit").await.unwrap().unwrap();
    assert_eq!((&value.value[..], value.created, value.modified), (&b"12"[..], first, second));
    assert_eq!(kv.get("gone").await.unwrap(), None);
    assert_eq!(kv.get("config/limit").stale().await.unwrap().unwrap().modified, second);
    node.shutdown(Duration::from_secs(20)).await;
}

async fn refused(builder: Builder) -> (Code, String) {
    let error: StartError = builder.start().await.map(drop).unwrap_err();
    (error.diagnostic().code, error.to_string())
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, why) = refused(single().http(&address)).await;
    assert_eq!((code, why), (Code::PortInUse, format!("cannot serve HTTP at {address}: the address is in use")));
    assert_eq!(refused(single().listen(&address)).await.0, Code::PortInUse);
    assert_eq!(refused(single().listen("192.0.2.1:7400")).await.0, Code::Config);
    assert_eq!(refused(single().http("0.0.0.0:0")).await.0, Code::Config);
    assert_eq!(refused(single().listen("nonsense")).await.0, Code::Config);
    assert_eq!(refused(Node::builder("").ephemeral()).await.0, Code::Config);
    let file = tempfile::NamedTempFile::new().unwrap();
    let (code, why) = refused(Node::builder("single").data_dir(file.path())).await;
    assert_eq!(code, Code::DataFolder);
    assert!(why.contains(&file.path().display().to_string()), "{why}");
    let (code, why) = refused(single().label("note", "x".repeat(300))).await;
    let words = "the label `note` has 300 bytes; a label's name and its value may have 256 each";
    assert_eq!((code, why.as_str()), (Code::Config, words));
    let many = (0..65).fold(single(), |builder, number| builder.label(number.to_string(), "x"));
    assert_eq!(refused(many).await, (Code::Config, "65 labels are more than the 64 allowed".to_owned()));
    let mut late = Profile::LAN;
    late.promise = late.heartbeat;
    let (code, why) = refused(single().profile(late)).await;
    assert_eq!(code, Code::Config);
    assert!(why.starts_with("inconsistent profile: the promise"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_nodes_own_client_names_its_run_and_ends_with_the_last_clone() {
    let node = single().start().await.unwrap();
    node.ready().await;
    let client = node.client();
    let session = client.session(Duration::from_secs(600)).label("inside").fast_release().await.unwrap();
    assert!(session.expires_in() > Duration::from_secs(500) && !session.is_lost());
    let views = client.sessions(SessionId(0), 100).await.unwrap();
    let view = views.iter().find(|view| view.id == session.id()).unwrap();
    let host = view.about.host.unwrap();
    assert_eq!((host.node, host.incarnation, view.about.fast_release), (node.id(), node.incarnation(), true));
    let id = session.id();
    drop(session);
    while client.sessions(SessionId(0), 100).await.unwrap().iter().any(|view| view.id == id) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let session = client.session(Duration::from_secs(60)).await.unwrap();
    let lost = tokio::spawn({
        let session = session.clone();
        async move { session.lost().await }
    });
    session.close().await.unwrap();
    assert_eq!(lost.await.unwrap(), Lost::Closed);
    node.shutdown(Duration::from_secs(1)).await;
}

/// A machine that stands still for seconds ends no session, and a handler that is stopped has seconds to return.
const CALM: Profile =
    Profile { election_timeout: Duration::from_secs(5), session: Duration::from_secs(120), ..Profile::DEV };
