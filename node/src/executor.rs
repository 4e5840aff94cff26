//! Runs the attempts that the worker grants, on the application's own runtime.
//!
//! The worker machine decides which attempt runs and when its right ends; this file only starts handlers and stops them.
//!
//! # Invariants
//!
//! * Every attempt that ends by itself is reported exactly once; a panic is a failure like any other.
//! * An attempt whose right ended sees its cancellation first and is dropped a moment later. A success that it still reached
//!   is reported (the log judges it), a failure is not: it was not the handler's.
//! * No attempt outlives the node: when the control plane is gone, all of them are stopped like one whose right has ended.
//! * Nothing here blocks the caller, which is the control plane.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::FutureExt as _;
use protocol::Fence;
use protocol::state::Outcome;
use protocol::wire::MAX_VALUE;
use protocol::worker::{GRACE, Run};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::task::{RawHandler, TaskCx, TaskError};

/// The handlers of a node, and the attempts that run.
pub(crate) struct Handlers {
    cluster: String,
    by_kind: BTreeMap<String, Arc<dyn RawHandler>>,
    runtime: Handle,
    running: Arc<Running>,
    /// The parent of every attempt's.
    cancel: CancellationToken,
}

type Running = Mutex<HashMap<Fence, CancellationToken>>;

impl Handlers {
    /// These handlers, run on `runtime`.
    pub(crate) fn new(cluster: String, by_kind: BTreeMap<String, Arc<dyn RawHandler>>, runtime: Handle) -> Self {
        Self { cluster, by_kind, runtime, running: Arc::default(), cancel: CancellationToken::new() }
    }

    /// Starts an attempt; `finish` is called when it ends by itself.
    pub(crate) fn start(&self, run: Run, finish: impl FnOnce(Outcome) + Send + 'static) {
        let Some(handler) = self.by_kind.get(&run.grant.kind).cloned() else {
            // The worker offers exactly these kinds, so this is a race with nothing: still, say it in words.
            finish(failed(TaskError::fatal(format!("this node has no handler for `{}`", run.grant.kind))));
            return;
        };
        let fence = run.grant.fence;
        let cancel = self.cancel.child_token();
        lock(&self.running).insert(fence, cancel.clone());
        let entry = Entry { fence, running: self.running.clone() };
        let cx = TaskCx::new(&run, &self.cluster, cancel);
        self.runtime.spawn(async move {
            let outcome = attend(handler, &cx, run.grant.payload).await;
            drop(entry);
            if let Some(outcome) = outcome {
                finish(outcome);
            }
        });
    }

    /// The right of an attempt has ended.
    pub(crate) fn abort(&self, fence: Fence) {
        if let Some(cancel) = lock(&self.running).get(&fence) {
            cancel.cancel();
        }
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Drives the handler to its end, or until shortly after its right ended.
async fn attend(handler: Arc<dyn RawHandler>, cx: &TaskCx, payload: Bytes) -> Option<Outcome> {
    let work = AssertUnwindSafe(async { handler.run(cx, payload).await }).catch_unwind();
    let deadline = async {
        cx.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        result = work => match result {
            Ok(Ok(output)) if output.len() > MAX_VALUE => Some(failed(TaskError::fatal(format!(
                "the output has {} bytes, more than the {MAX_VALUE} allowed; store it elsewhere and return a reference",
                output.len()
            )))),
            Ok(Ok(output)) => Some(Outcome::Done { output, effects: cx.effects().take() }),
            Ok(Err(_)) | Err(_) if cx.is_cancelled() => None,
            Ok(Err(error)) => Some(failed(error)),
            Err(panic) => Some(failed(TaskError::retry(format!("the handler panicked: {}", words(&*panic))))),
        },
        () = deadline => None,
    }
}

/// Takes the attempt off the table, however its future ends.
struct Entry {
    fence: Fence,
    running: Arc<Running>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.fence);
    }
}

fn lock(running: &Running) -> MutexGuard<'_, HashMap<Fence, CancellationToken>> {
    // Nothing that holds the lock can panic; if it did, the table would still be whole.
    running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn failed(error: TaskError) -> Outcome {
    let message = error.message().chars().take(MESSAGE_MAX).collect();
    let retry = error.is_retryable();
    let mut output = error.into_output();
    output.truncate(MAX_VALUE);
    Outcome::Failed { message, retry, output }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// A failure's message is a sentence, not a log.
const MESSAGE_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use protocol::master::Grant;
    use protocol::state::{Delivery, TaskEffect};
    use protocol::{Attempt, Epoch, SessionId, TaskId};
    use tokio::sync::oneshot;

    use super::*;

    /// Makes a handler of a closure.
    struct Closure<F>(F);

    impl<F> RawHandler for Closure<F>
    where
        F: Fn(TaskCx, Bytes) -> BoxFuture<'static, Result<Bytes, TaskError>> + Send + Sync + 'static,
    {
        fn run<'a>(&'a self, cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
            (self.0)(cx.clone(), payload)
        }
    }

    fn handlers<F>(handler: F) -> Handlers
    where
        F: Fn(TaskCx, Bytes) -> BoxFuture<'static, Result<Bytes, TaskError>> + Send + Sync + 'static,
    {
        let handler: Arc<dyn RawHandler> = Arc::new(Closure(handler));
        Handlers::new("test".into(), [("job".to_owned(), handler)].into(), Handle::current())
    }

    fn run(kind: &str) -> Run {
        Run {
            grant: Grant {
                attempt: Attempt { task: TaskId(42), number: 2 },
                fence: Fence(7),
                session: SessionId(3),
                kind: kind.into(),
                payload: Bytes::from_static(b"in"),
                delivery: Delivery::AtLeastOnce,
                timeout: Duration::ZERO,
                once_key: None,
            },
            epoch: Epoch(1),
        }
    }

    fn start(handlers: &Handlers, kind: &str) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        handlers.start(run(kind), move |outcome| drop(sender.send(outcome)));
        receiver
    }

    #[tokio::test]
    async fn an_attempt_reports_what_its_handler_returned() {
        let handlers = handlers(|cx, payload| {
            async move {
                assert_eq!(cx.once_key(), "test/t42");
                Ok(payload)
            }
            .boxed()
        });
        assert_eq!(start(&handlers, "job").await, Ok(Outcome::done(Bytes::from_static(b"in"))));
        assert!(lock(&handlers.running).is_empty());
    }

    #[tokio::test]
    async fn effects_go_with_a_success_and_with_nothing_else() {
        let handlers = handlers(|cx, _| {
            async move {
                cx.effects().add("n", 1)?;
                Ok(Bytes::new())
            }
            .boxed()
        });
        let effects = vec![TaskEffect::Add { counter: "n".into(), by: 1 }];
        assert_eq!(start(&handlers, "job").await, Ok(Outcome::Done { output: Bytes::new(), effects }));
        let handlers = self::handlers(|cx, _| {
            async move {
                cx.effects().add("n", 1)?.add("", 1)?;
                Ok(Bytes::new())
            }
            .boxed()
        });
        let Ok(Outcome::Failed { message, retry, .. }) = start(&handlers, "job").await else { panic!("not failed") };
        assert_eq!((message.as_str(), retry), ("the name of a key or counter must not be empty", false));
    }

    #[tokio::test]
    async fn a_panicking_handler_is_a_failed_attempt() {
        let handlers = handlers(|_, _| async { panic!("no {}", "luck") }.boxed());
        let Ok(Outcome::Failed { message, retry, .. }) = start(&handlers, "job").await else { panic!("not failed") };
        assert_eq!((message.as_str(), retry), ("the handler panicked: no luck", true));
    }

    #[tokio::test]
    async fn an_unknown_kind_is_a_final_failure() {
        let handlers = handlers(|_, payload| async { Ok(payload) }.boxed());
        assert!(matches!(start(&handlers, "else").await, Ok(Outcome::Failed { retry: false, .. })));
    }

    #[tokio::test]
    async fn a_cancelled_attempt_is_told_then_dropped_and_reports_nothing() {
        struct Told(Arc<AtomicBool>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = dropped.clone();
        let handlers = handlers(move |_, _| {
            let told = Told(flag.clone());
            async move {
                let _told = told;
                std::future::pending::<()>().await; // ignores its cancellation
                Ok(Bytes::new())
            }
            .boxed()
        });
        let outcome = start(&handlers, "job");
        handlers.abort(Fence(7));
        assert!(outcome.await.is_err(), "nothing is reported");
        assert!(dropped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn no_attempt_outlives_what_started_it() {
        let handlers = handlers(|cx, _| {
            async move {
                cx.cancelled().await;
                std::future::pending().await // ignores it
            }
            .boxed()
        });
        let outcome = start(&handlers, "job");
        drop(handlers);
        assert!(outcome.await.is_err(), "the handler is dropped, and nothing is reported");
    }

    #[tokio::test]
    async fn a_success_reached_in_spite_of_the_cancellation_is_still_reported() {
        let handlers = handlers(|cx, _| {
            async move {
                cx.cancelled().await;
                Ok(Bytes::from_static(b"done"))
            }
            .boxed()
        });
        let outcome = start(&handlers, "job");
        handlers.abort(Fence(7));
        assert_eq!(outcome.await, Ok(Outcome::done(Bytes::from_static(b"done"))));
    }

    #[tokio::test]
    async fn an_output_larger_than_allowed_is_a_final_failure() {
        let handlers = handlers(|_, _| async { Ok(Bytes::from(vec![0; MAX_VALUE + 1])) }.boxed());
        assert!(matches!(start(&handlers, "job").await, Ok(Outcome::Failed { retry: false, .. })));
    }
}
