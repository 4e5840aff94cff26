//! Recording a task, and waiting for what becomes of it.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use protocol::TaskId;
use protocol::state::{Delivery, Operation, TaskSpec, TaskState, TaskView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::{Error, TaskEnd};
use crate::task::{self, TaskHandler};

/// A task about to be recorded. Awaiting it records it. Made by [`Client::submit`] and [`Client::submit_raw`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let handle = client
///     .submit_raw("exec", r#"{"command":["true"]}"#)
///     .key("nightly-2026-11-28")           // the same key again names the same task
///     .retries(5)
///     .backoff(Duration::from_millis(200)) // doubles with every further failure
///     .await?;
/// println!("{} is recorded", handle.id());
/// # Ok(())
/// # }
/// ```
#[must_use = "a task is recorded when this is awaited"]
pub struct Submit<T> {
    client: Client,
    spec: Result<TaskSpec, Error>,
    decode: Decode<T>,
}

/// A recorded task.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let handle = client.task(TaskId(42));
/// println!("{:?}", handle.view().await?.state); // as it is now
/// match handle.result().await {                 // as soon as it has ended, also across a failover
///     Ok(bytes) => println!("{} bytes", bytes.len()),
///     Err(Error::Task(end)) => println!("the task {end}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Handle<T> {
    client: Client,
    task: TaskId,
    is_fresh: bool,
    decode: Decode<T>,
}

type Decode<T> = fn(Bytes) -> Result<T, Error>;

impl<T> Submit<T> {
    pub(crate) fn typed<H>(client: Client, input: &H::Input) -> Self
    where
        H: TaskHandler<Input: Serialize, Output = T>,
        T: DeserializeOwned,
    {
        let spec = serde_json::to_vec(input)
            .map(|payload| TaskSpec::new(H::NAME, payload))
            .map_err(|error| Error::Codec(format!("the input has no JSON form: {error}")));
        Self { client, spec, decode: from_json }
    }

    /// A second submission with the same key returns the first one's task, until its record is gone.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let first = client.submit_raw("report", "42").key("report-42").await?;
    /// let again = client.submit_raw("report", "42").key("report-42").await?;
    /// assert_eq!(first.id(), again.id());
    /// # Ok(()) }
    /// ```
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with(|spec| spec.once_key = Some(key.into()))
    }

    /// How many failed attempts are followed by another one (three unless told otherwise).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("report", "42").retries(10).await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn retries(self, retries: u32) -> Self {
        self.with(|spec| spec.retries = retries)
    }

    /// The wait before the first retry; it doubles with every further one.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let handle = client.submit_raw("report", "42").backoff(Duration::from_secs(1)).await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn backoff(self, backoff: Duration) -> Self {
        self.with(|spec| spec.backoff = backoff)
    }

    /// How long one attempt may run.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let handle = client.submit_raw("report", "42").attempt_timeout(Duration::from_secs(60)).await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn attempt_timeout(self, timeout: Duration) -> Self {
        self.with(|spec| spec.timeout = timeout)
    }

    /// Higher goes first.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("report", "42").priority(10).await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn priority(self, priority: i32) -> Self {
        self.with(|spec| spec.priority = priority)
    }

    /// Runs it once at most, without retries: it ends *lost* if its worker vanishes.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::TaskEnd;
    /// let handle = client.submit_raw("pay", "42").at_most_once().await?;
    /// if handle.result().await == Err(Error::Task(TaskEnd::Lost)) {
    ///     println!("it may have been paid, and is not paid again");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn at_most_once(self) -> Self {
        self.with(|spec| {
            spec.delivery = Delivery::AtMostOnce;
            spec.retries = 0;
        })
    }

    /// Runs only on nodes with this label.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("report", "42").needs("gpu", "yes").await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn needs(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|spec| drop(spec.needs.insert(key.into(), value.into())))
    }

    /// For how long the record, and with it the key, is kept after the task ended.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let handle = client.submit_raw("report", "42").key("report-42").keep(Duration::from_secs(24 * 3600)).await?;
    /// # drop(handle);
    /// # Ok(()) }
    /// ```
    pub fn keep(self, keep: Duration) -> Self {
        self.with(|spec| spec.keep = keep)
    }

    fn with(mut self, change: impl FnOnce(&mut TaskSpec)) -> Self {
        if let Ok(spec) = &mut self.spec {
            change(spec);
        }
        self
    }
}

impl Submit<Bytes> {
    pub(crate) fn raw(client: Client, spec: TaskSpec) -> Self {
        Self { client, spec: Ok(spec), decode: Ok }
    }
}

impl<T: 'static> IntoFuture for Submit<T> {
    type Output = Result<Handle<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, spec, decode } = self;
            let submitted = client.submit_all(vec![spec?]).await?;
            let first = submitted.first().ok_or_else(|| Error::Codec("the cluster recorded no task".into()))?;
            Ok(Handle { client, task: first.task, is_fresh: first.fresh, decode })
        })
    }
}

impl Handle<Bytes> {
    pub(crate) fn raw(client: Client, task: TaskId) -> Self {
        Self { client, task, is_fresh: false, decode: Ok }
    }
}

impl<T> Handle<T> {
    /// The task's id.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("report", "42").await?;
    /// println!("tenure task get {}", handle.id());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task
    }

    /// Whether this submission made the task, rather than found it by its key.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let handle = client.submit_raw("report", "42").key("report-42").await?;
    /// if !handle.is_fresh() {
    ///     println!("somebody had asked for it");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Waits for the task's end, for as long as it takes, also over changes of the master. Cancellation safe: dropping the
    /// wait leaves the task alone.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let report = client.submit_raw("report", "42").await?.result().await?;
    /// println!("{} bytes", report.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Task`] if it ended without a result; see [`Error`]. An absence of quorum does not end the wait.
    pub async fn result(&self) -> Result<T, Error> {
        loop {
            match self.client.wait(self.task, SLICE).await {
                Ok(task) if task.state.is_final() => return self.outcome(task.state),
                Ok(_) => {}
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The task as soon as it has ended, or as it is when `patience` runs out.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use std::time::Duration;
    /// let task = client.task(TaskId(42)).wait(Duration::from_secs(5)).await?;
    /// println!("after five seconds at most: {:?}", task.state);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn wait(&self, patience: Duration) -> Result<TaskView, Error> {
        self.client.wait(self.task, patience).await
    }

    /// The task as it is now.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let task = client.task(TaskId(42)).view().await?;
    /// println!("now: {:?}, after {} attempts", task.state, task.attempts);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn view(&self) -> Result<TaskView, Error> {
        self.wait(Duration::ZERO).await
    }

    /// Ends the task if it has not ended.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.task(TaskId(42)).cancel("the user closed the page").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] if it has; see [`Error`].
    pub async fn cancel(&self, reason: impl Into<String>) -> Result<(), Error> {
        self.client.write(Operation::Cancel { task: self.task, reason: reason.into() }).await.map(drop)
    }

    fn outcome(&self, state: TaskState) -> Result<T, Error> {
        match state {
            TaskState::Done { output, .. } => (self.decode)(output),
            TaskState::Failed { message, .. } => Err(Error::Task(TaskEnd::Failed(message))),
            TaskState::Cancelled { reason, .. } => Err(Error::Task(TaskEnd::Cancelled(reason))),
            TaskState::Lost { .. } => Err(Error::Task(TaskEnd::Lost)),
            TaskState::Pending { .. } | TaskState::Assigned { .. } => {
                Err(Error::Codec("the task has not ended".into()))
            }
        }
    }
}

fn from_json<T: DeserializeOwned>(output: Bytes) -> Result<T, Error> {
    task::decode(&output).map_err(|error| Error::Codec(format!("the output does not fit: {error}")))
}

/// One question waits for this long; then the next one is asked.
const SLICE: Duration = Duration::from_secs(20);

/// Between questions while nobody can answer.
const PAUSE: Duration = Duration::from_millis(200);
