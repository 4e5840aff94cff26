//! The cluster as a program uses it, inside a node ([`crate::Node::client`]) or from outside ([`Client::connect`]).
//!
//! # Invariants
//!
//! * A write is executed once, however often it had to be sent: retries inside the deadline carry the same number.
//! * Reads miss nothing that was acknowledged before they began, unless a method says `stale`.
//! * Dropping any future of this module withdraws the wait, not the write.

use std::sync::Arc;
use std::time::Duration;

use actors::KeptSession;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::client::{Consistency, Work};
use protocol::state::{
    Answer, Changes, ClientEnd, NodeView, OpenSession, Operation, Query, RightId, RightLine, SessionView, Submitted,
    Summary, TaskSpec, TaskView, Watch,
};
use protocol::{Epoch, NodeId, Profile, Revision, SessionId, TaskId};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::Error;
use crate::kv::Kv;
use crate::nodes::NodeSessions;
use crate::session::Session;
use crate::submit::{Handle, Submit};
use crate::task::TaskHandler;

/// The cluster, ready to be asked. Cheap to clone.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # async fn example(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let client = node.client();                                                      // inside a node, or
/// let client = Client::connect("orders", ["127.0.0.1:7001", "127.0.0.1:7002"]).await?; // from any process
/// let quick = client.clone().timeout(Duration::from_millis(200));                  // gives up sooner
/// match quick.kv().get("config/limit").await {
///     Ok(found) => println!("{found:?}"),
///     Err(error) if error.is_retryable() => println!("not now: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    backend: Arc<dyn Backend>,
    timeout: Duration,
    /// The timers of the cluster, as far as whoever made this knows.
    profile: Profile,
    /// The session of all rights that name no other one, once there is one.
    shared: Arc<Mutex<Option<Session>>>,
    /// Places for claims and their ends on the way to the cluster: they go on when nobody waits for them any more.
    ways: Arc<Semaphore>,
}

/// Carries a call to the client machine, wherever that runs.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Does the work, or gives up after `timeout`.
    fn call(&self, work: Work, timeout: Duration) -> BoxFuture<'_, Result<Answer, Error>>;

    /// Opens a session and keeps it.
    fn keep(&self, opening: OpenSession, timeout: Duration) -> BoxFuture<'_, Result<KeptSession, Error>>;

    /// Ends a session that is kept, in the background.
    fn end(&self, session: SessionId);

    /// The run of a node in whose process this is, if it is in one.
    fn host(&self) -> Option<protocol::state::Host>;
}

impl Client {
    pub(crate) fn new(backend: Arc<dyn Backend>, profile: Profile) -> Self {
        Self { backend, timeout: TIMEOUT, profile, shared: Arc::default(), ways: Arc::new(Semaphore::new(WAYS)) }
    }

    /// Gives up on a call after this long (ten seconds unless told otherwise).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let quick = client.timeout(Duration::from_millis(200));
    /// assert!(quick.kv().get("a").await.is_ok_and(|found| found.is_none()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Prepares to record a task for a handler; await the result to record it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # #[task] async fn greet(name: String) -> Result<String, TaskError> { Ok(format!("hello, {name}")) }
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit::<greet>("Ada".to_owned()).key("greet-ada").await?;
    /// assert_eq!(handle.result().await?, "hello, Ada");
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit<H>(&self, input: H::Input) -> Submit<H::Output>
    where
        H: TaskHandler<Input: serde::Serialize, Output: serde::de::DeserializeOwned>,
    {
        Submit::typed::<H>(self.clone(), &input)
    }

    /// Prepares to record a task whose input and output are bytes.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("tenure.echo", "hello").await?;
    /// assert_eq!(handle.result().await?, "hello");
    /// # Ok(()) }
    /// ```
    pub fn submit_raw(&self, kind: impl Into<String>, payload: impl Into<Bytes>) -> Submit<Bytes> {
        Submit::raw(self.clone(), TaskSpec::new(kind, payload))
    }

    /// Records many tasks, all or none, in order.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// use tenure::TaskSpec;
    /// let frames = (0..48).map(|frame| TaskSpec::new("tenure.render", frame.to_string())).collect();
    /// for submitted in client.submit_all(frames).await? {
    ///     println!("{} is recorded", submitted.task);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn submit_all(&self, tasks: Vec<TaskSpec>) -> Result<Vec<Submitted>, Error> {
        match self.write(Operation::Submit(tasks)).await? {
            Answer::Submitted(submitted) => Ok(submitted),
            other => Err(unexpected(&other)),
        }
    }

    /// A handle to a task that was recorded earlier; its output are bytes.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.task(TaskId(42)); // from a process that did not submit it
    /// println!("{} bytes", handle.result().await?.len());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn task(&self, task: TaskId) -> Handle<Bytes> {
        Handle::raw(self.clone(), task)
    }

    /// Tasks with ids greater than `after`, at most `limit`, oldest first.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut after = TaskId(0);
    /// loop {
    ///     let page = client.tasks(after, 100).await?;
    ///     let Some(last) = page.last() else { break };
    ///     after = last.id;
    ///     page.iter().for_each(|task| println!("{}: {:?}", task.id, task.state));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn tasks(&self, after: TaskId, limit: u32) -> Result<Vec<TaskView>, Error> {
        tasks(self.read(Query::Tasks { after, limit }).await?)
    }

    /// Tasks with ids smaller than `before`, or all of them, at most `limit`, newest first.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if let [newest] = &client.newest_tasks(None, 1).await?[..] {
    ///     println!("{} was submitted last", newest.id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn newest_tasks(&self, before: Option<TaskId>, limit: u32) -> Result<Vec<TaskView>, Error> {
        tasks(self.read(Query::NewestTasks { before, limit }).await?)
    }

    /// Keys and their values.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.kv().put("greeting", "hello").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// The nodes that have a session, which is what the master gives work to: a stream that begins with all of them and tells what changes.
    /// Whom one node merely *sees* is told by [`Node::members`](crate::Node::members).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::NodeEvent;
    /// let mut members = client.members();
    /// while let Some(event) = members.next().await {
    ///     if let NodeEvent::Down(node) = event? {
    ///         println!("{} is given no work any more", node.offer.label);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn members(&self) -> NodeSessions {
        NodeSessions::new(self.clone())
    }

    /// The nodes that have a session now.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let busy: u32 = client.nodes().await?.iter().map(|node| node.assigned).sum();
    /// println!("{busy} attempts are under way");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        nodes(self.read(Query::Nodes).await?)
    }

    /// Counts over the whole state, its revision and hash.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let status = client.status().await?;
    /// println!("{} tasks wait, {} are done", status.pending, status.done);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn status(&self) -> Result<Summary, Error> {
        match self.read(Query::Summary).await? {
            Answer::Summary(summary) => Ok(summary),
            other => Err(unexpected(&other)),
        }
    }

    /// Client sessions with ids greater than `after`, at most `limit`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::SessionId;
    /// for session in client.sessions(SessionId(0), 100).await? {
    ///     println!("{} owns {} keys", session.id, session.keys);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn sessions(&self, after: SessionId, limit: u32) -> Result<Vec<SessionView>, Error> {
        match self.read(Query::Sessions { after, limit }).await? {
            Answer::Sessions(sessions) => Ok(sessions),
            other => Err(unexpected(&other)),
        }
    }

    /// The rights that are in use, by kind and name: those after `after`, at most `limit`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// for line in client.rights(None, 100).await? {
    ///     println!("{}: {} hold it, {} wait", line.right, line.holders, line.waiting);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn rights(&self, after: Option<RightId>, limit: u32) -> Result<Vec<RightLine>, Error> {
        match self.read(Query::Rights { after, limit }).await? {
            Answer::Rights(rights) => Ok(rights),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends somebody's session now, and with it everything that it owns.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::SessionId;
    /// client.end_session(SessionId(42)).await?; // its keys and rights are gone when this returns
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoSession`] if it does not live; see [`Error`].
    pub async fn end_session(&self, session: SessionId) -> Result<(), Error> {
        match self.write(Operation::EndSession { session, cause: ClientEnd::Killed }).await? {
            Answer::Ok => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a session that the caller renews by itself.
    pub(crate) async fn open_session(&self, opening: OpenSession) -> Result<SessionId, Error> {
        match self.write(Operation::OpenSession(opening)).await? {
            Answer::Registered(session) => Ok(session),
            other => Err(unexpected(&other)),
        }
    }

    /// Renews a session that the caller keeps.
    pub(crate) async fn renew_session(&self, session: SessionId) -> Result<(), Error> {
        match self.call(Work::Renew(session), self.timeout).await? {
            Answer::Renewed { ended } if ended.is_empty() => Ok(()),
            Answer::Renewed { .. } => Err(Error::NoSession(session)),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// A place on the way to the cluster for what goes on until it is known. Others that have none of these are not held up by it.
    pub(crate) async fn way(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.ways).acquire_owned().await.expect("nobody closes it")
    }

    pub(crate) fn patience(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    /// The session of all rights of this client that name no other one. Lost, it is followed by a new one. Whoever opens it gives up by
    /// itself after `patience`, and so knows why.
    pub(crate) async fn shared_session(&self, patience: Duration) -> Result<Session, Error> {
        let nobody = |_| Error::NoQuorum { maybe_applied: false, waited: patience, master: None };
        let began = Instant::now();
        // Others may be waiting for an answer to the same question, one after the other.
        let mut shared = tokio::time::timeout(patience, self.shared.lock()).await.map_err(nobody)?;
        if let Some(session) = shared.as_ref().filter(|session| !session.is_lost()) {
            return Ok(session.clone());
        }
        // A session that held the place that holds it would never be dropped.
        let bare = Self { shared: Arc::default(), ..self.clone() };
        let opening = bare.session(self.profile.application_session()).label("rights");
        match opening.within(patience.saturating_sub(began.elapsed())).await {
            Ok(session) => Ok(shared.insert(session).clone()),
            // A session that was opened all the same owns nothing.
            Err(Error::NoQuorum { waited, master, .. }) => {
                Err(Error::NoQuorum { maybe_applied: false, waited, master })
            }
            Err(error) => Err(error),
        }
    }

    /// The shared session lives no more, as the cluster says: whoever asks next opens another one.
    pub(crate) async fn forget_shared(&self, session: SessionId) {
        let mut shared = self.shared.lock().await;
        if shared.as_ref().is_some_and(|known| known.id() == session) {
            *shared = None;
        }
    }

    pub(crate) async fn write(&self, operation: Operation) -> Result<Answer, Error> {
        self.call(Work::Write(operation), self.timeout).await
    }

    pub(crate) async fn read(&self, query: Query) -> Result<Answer, Error> {
        self.call(Work::Read(query, Consistency::Linearizable), self.timeout).await
    }

    /// What happened to keys after a revision, as soon as something did, or how far the asked node is after a while of nothing.
    pub(crate) async fn changes(&self, prefix: &str, after: Revision, patience: Duration) -> Result<Changes, Error> {
        let query = Query::Watch(Watch { prefix: prefix.into(), after });
        match self.call(Work::Read(query, Consistency::Stale), patience).await? {
            Answer::Changes(changes) => Ok(changes),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn read_stale(&self, query: Query) -> Result<Answer, Error> {
        self.call(Work::Read(query, Consistency::Stale), self.timeout).await
    }

    /// An order to the master of this epoch: hand over, to the best heir if nobody is named.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>, epoch: Epoch) -> Result<Answer, Error> {
        self.call(Work::HandOver { to, epoch }, self.timeout).await
    }

    /// The task as soon as it has ended, or as it is when `patience` runs out.
    pub(crate) async fn wait(&self, task: TaskId, patience: Duration) -> Result<TaskView, Error> {
        if !patience.is_zero() {
            match self.call(Work::Read(Query::Await(task), Consistency::Linearizable), patience).await {
                Ok(answer) => return view(answer),
                // Nothing is wrong with a task that takes longer; the question below tells whether anything else is.
                Err(Error::NoQuorum { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        view(self.read(Query::Task(task)).await?)
    }

    async fn call(&self, work: Work, timeout: Duration) -> Result<Answer, Error> {
        match self.backend.call(work, timeout).await? {
            Answer::Refused(refused) => Err(refused.into()),
            answer => Ok(answer),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn view(answer: Answer) -> Result<TaskView, Error> {
    match answer {
        Answer::Task(task) => Ok(*task),
        other => Err(unexpected(&other)),
    }
}

fn tasks(answer: Answer) -> Result<Vec<TaskView>, Error> {
    match answer {
        Answer::Tasks(tasks) => Ok(tasks),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn nodes(answer: Answer) -> Result<Vec<NodeView>, Error> {
    match answer {
        Answer::Nodes(nodes) => Ok(nodes),
        other => Err(unexpected(&other)),
    }
}

/// The session that was opened, or why there is none.
pub(crate) fn kept(opened: Result<KeptSession, Answer>) -> Result<KeptSession, Error> {
    opened.map_err(|answer| match answer {
        Answer::Refused(refused) => refused.into(),
        other => unexpected(&other),
    })
}

/// An answer to another question than the one asked: a newer cluster, or our mistake.
pub(crate) fn unexpected(answer: &Answer) -> Error {
    let text: String = format!("{answer:?}").chars().take(80).collect();
    Error::Codec(format!("the cluster answered something else: {text}"))
}

/// How many claims and ends of claims of one client are on the way at once: far fewer than calls may be under way.
const WAYS: usize = 256;

const TIMEOUT: Duration = Duration::from_secs(10);
