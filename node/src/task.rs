//! Tasks as an application writes them: an async function with a name, an input and an output.
//!
//! ```
//! use tenure::prelude::*;
//!
//! #[task]
//! async fn greet(name: String) -> Result<String, TaskError> {
//!     if name.is_empty() {
//!         return Err(TaskError::fatal("nobody to greet")); // another attempt would not help
//!     }
//!     Ok(format!("hello, {name}"))
//! }
//! ```
//!
//! # Invariants
//!
//! * A handler's result counts only if the log accepts it under the attempt's fence: at most one result per task does.
//! * What stands in `effects()` is written with that result, or not at all.
//! * `once_key()` is equal in all attempts of a task, so a sink that remembers keys sees one effect.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::worker::Run;
use protocol::{Attempt, Fence, TaskId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::effects::Effects;

/// Work that a node can do. A function becomes one by [`#[task]`](macro@crate::task); this is for work that has a state.
///
/// ```
/// use tenure::prelude::*;
///
/// struct Greet {
///     greeting: &'static str,
/// }
///
/// impl TaskHandler for Greet {
///     const NAME: &'static str = "greet";
///     type Input = String;
///     type Output = String;
///
///     async fn run(&self, cx: &TaskCx, name: String) -> Result<String, TaskError> {
///         if name.is_empty() {
///             return Err(TaskError::fatal("nobody to greet")); // another attempt would not help
///         }
///         Ok(format!("{}, {name}, says attempt {}", self.greeting, cx.attempt()))
///     }
/// }
///
/// let builder = Node::builder("orders").register(Greet { greeting: "hello" });
/// # drop(builder);
/// ```
///
/// Input and output travel as JSON. Whoever wants the bytes themselves implements [`RawHandler`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` handles no tasks",
    note = "a function with `#[task]` is named, and not given: `.task::<greet>()` and `.submit::<greet>(input)`"
)]
pub trait TaskHandler: Send + Sync + 'static {
    /// The kind of task, unique in the cluster.
    const NAME: &'static str;
    /// What the submitter gives.
    type Input: DeserializeOwned + Send;
    /// What the submitter gets.
    type Output: Serialize + Send;

    /// Runs one attempt.
    ///
    /// When the right to run ends (cancelled, timed out, cut off from the cluster, its node stops), [`TaskCx::cancelled`] resolves at once and
    /// the future is dropped shortly after. A handler that blocks instead should poll [`TaskCx::is_cancelled`]; if it ignores
    /// that, its result is refused.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tenure::prelude::*;
    /// # struct Nap;
    /// # impl TaskHandler for Nap {
    /// #     const NAME: &'static str = "nap";
    /// #     type Input = u64;
    /// #     type Output = ();
    /// async fn run(&self, cx: &TaskCx, seconds: u64) -> Result<(), TaskError> {
    ///     tokio::select! {
    ///         () = tokio::time::sleep(Duration::from_secs(seconds)) => Ok(()),
    ///         () = cx.cancelled() => Err(TaskError::retry("woken up")),
    ///     }
    /// }
    /// # }
    /// ```
    fn run(&self, cx: &TaskCx, input: Self::Input) -> impl Future<Output = Result<Self::Output, TaskError>> + Send;
}

/// A handler that takes and gives bytes as they are.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::future::BoxFuture;
/// use tenure::prelude::*;
///
/// struct Reverse;
///
/// impl RawHandler for Reverse {
///     fn run<'a>(&'a self, _cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
///         Box::pin(async move { Ok(payload.iter().rev().copied().collect()) })
///     }
/// }
/// ```
pub trait RawHandler: Send + Sync + 'static {
    /// Runs one attempt. See [`TaskHandler::run`].
    fn run<'a>(&'a self, cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>>;
}

/// What a handler knows of the attempt that it runs.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
/// println!("{} under fence {}, its sinks know it as {}", cx.attempt(), cx.fence(), cx.once_key());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TaskCx {
    attempt: Attempt,
    fence: Fence,
    once_key: String,
    cancel: CancellationToken,
    effects: Arc<Effects>,
}

/// Why an attempt did not succeed.
///
/// Any error type becomes a failure that is worth another attempt, so `?` works; what cannot get better is
/// [`TaskError::fatal`]. It is deliberately no error type itself, as otherwise that conversion would be ambiguous.
///
/// ```
/// use tenure::TaskError;
///
/// fn parse(text: &str) -> Result<u32, TaskError> {
///     if text.is_empty() {
///         return Err(TaskError::fatal("nothing to parse")); // it will not get better
///     }
///     Ok(text.parse()?) // a failure that is worth another attempt
/// }
/// # assert!(parse("7").is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    message: String,
    is_retryable: bool,
    output: Bytes,
}

impl TaskCx {
    pub(crate) fn new(run: &Run, cluster: &str, cancel: CancellationToken) -> Self {
        let grant = &run.grant;
        let once_key = grant.once_key.clone().unwrap_or_else(|| format!("{cluster}/{}", grant.attempt.task));
        Self { attempt: grant.attempt, fence: grant.fence, once_key, cancel, effects: Arc::default() }
    }

    /// Which run of which task this is, shown `t42#2`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// println!("{} begins", cx.attempt()); // t42#1 begins
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The task.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// let folder = format!("results/{}", cx.task());
    /// # drop(folder);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.attempt.task
    }

    /// A number that grows with every grant of any right in the cluster. A store that remembers the highest fence it saw and
    /// refuses lower ones cannot be written by an attempt that was replaced.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// use tenure::fenced;
    /// fenced::File::open("report.html", cx.fence())?.write(b"...")?; // an attempt that was replaced fails here
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The same in all attempts of this task: the submitter's key, or one made of the cluster's name and the task's id.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// let key = cx.once_key().to_owned(); // for the header `Idempotency-Key` of a payment, say
    /// # drop(key);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn once_key(&self) -> &str {
        &self.once_key
    }

    /// What this attempt writes together with its result, exactly once in the life of the task. The only way to change something
    /// once and no more; whatever else a handler does may be done again by another attempt, unless its sink remembers
    /// [`TaskCx::once_key`].
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// cx.effects().put("report", "done")?.add("reports", 1)?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// Resolves when the right to run has ended. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// # use std::time::Duration;
    /// tokio::select! {
    ///     () = cx.cancelled() => return Err(TaskError::retry("stopped")),
    ///     () = tokio::time::sleep(Duration::from_secs(10)) => {}
    /// }
    /// # Ok(()) }
    /// ```
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancel.cancelled()
    }

    /// Whether the right to run has ended.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(cx: &TaskCx) -> Result<(), TaskError> {
    /// for row in 0..1_000_000 {
    ///     if row % 1_000 == 0 && cx.is_cancelled() {
    ///         return Err(TaskError::retry("stopped"));
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl TaskError {
    /// Another attempt makes sense.
    ///
    /// ```
    /// # use tenure::TaskError;
    /// assert!(TaskError::retry("the printer is out of paper").is_retryable());
    /// ```
    #[must_use]
    pub fn retry(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_retryable: true, output: Bytes::new() }
    }

    /// No other attempt will do better.
    ///
    /// ```
    /// # use tenure::TaskError;
    /// assert!(!TaskError::fatal("no such customer").is_retryable());
    /// ```
    #[must_use]
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { is_retryable: false, ..Self::retry(message) }
    }

    /// Keeps what the attempt produced nevertheless.
    ///
    /// ```
    /// # use tenure::TaskError;
    /// let error = TaskError::fatal("3 of 48 frames are missing").with_output("45 frames");
    /// # drop(error);
    /// ```
    #[must_use]
    pub fn with_output(mut self, output: impl Into<Bytes>) -> Self {
        self.output = output.into();
        self
    }

    /// In words.
    ///
    /// ```
    /// # use tenure::TaskError;
    /// let error = TaskError::from("seven".parse::<u32>().unwrap_err());
    /// assert_eq!(error.message(), "invalid digit found in string");
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether another attempt makes sense.
    ///
    /// ```
    /// # use tenure::TaskError;
    /// assert!(TaskError::from(std::io::Error::other("no route")).is_retryable(), "as every error that comes by `?`");
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }

    pub(crate) fn into_output(self) -> Bytes {
        self.output
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::retry(error.to_string())
    }
}

/// What a function that is a task may return: `#[task]` knows it, and nobody else needs it.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a task returns a `Result`, not `{Self}`",
    note = "its error is a `TaskError`, or one that becomes a `TaskError` by `?`"
)]
pub trait Returned {
    /// What the submitter gets.
    type Output;

    /// With an error that says whether another attempt makes sense.
    fn returned(self) -> Result<Self::Output, TaskError>;
}

impl<T, E: Into<TaskError>> Returned for Result<T, E> {
    type Output = T;

    fn returned(self) -> Result<T, TaskError> {
        self.map_err(Into::into)
    }
}

/// Makes bytes of a typed handler's input and output.
pub(crate) struct Typed<H>(pub(crate) H);

impl<H: TaskHandler> RawHandler for Typed<H> {
    fn run<'a>(&'a self, cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
        async move {
            let input =
                decode(&payload).map_err(|error| TaskError::fatal(format!("the payload does not fit: {error}")))?;
            let output = self.0.run(cx, input).await?;
            let output = serde_json::to_vec(&output)
                .map_err(|error| TaskError::fatal(format!("the output has no JSON form: {error}")))?;
            // Nothing is nothing: whoever reads the output need not know that JSON has a word for it.
            Ok(if output == b"null" { Bytes::new() } else { output.into() })
        }
        .boxed()
    }
}

/// Reads JSON; nothing at all is `null`, so that a handler without input can be submitted without payload.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(if payload.is_empty() { b"null" } else { payload })
}
