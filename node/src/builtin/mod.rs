//! The kinds of task that come with Tenure.
//!
//! | kind | payload | output |
//! |---|---|---|
//! | `tenure.noop` | anything | nothing |
//! | `tenure.echo` | anything | the same |
//! | `tenure.sleep` | `{"ms": 500}` | nothing, after that long |
//! | `tenure.render` | the number of a frame of the demo | the frame as a PNG file; with the feature `cli` |
//! | `exec` | [`exec::Exec`] as JSON | [`exec::Report`] as JSON; only on nodes that allow it |
//!
//! The first four are always there: benchmarks and trials need something to run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::task::{RawHandler, TaskCx, TaskError, TaskHandler, Typed};

pub mod exec;

/// The handlers that every node has.
pub(crate) fn always() -> Vec<(&'static str, Arc<dyn RawHandler>)> {
    vec![
        #[cfg(feature = "cli")]
        (crate::demo::handler::KIND, Arc::new(crate::demo::handler::Render)),
        ("tenure.noop", Arc::new(Noop)),
        ("tenure.echo", Arc::new(Echo)),
        (Sleep::NAME, Arc::new(Typed(Sleep))),
    ]
}

/// Does nothing.
struct Noop;

impl RawHandler for Noop {
    fn run<'a>(&'a self, _cx: &'a TaskCx, _payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
        std::future::ready(Ok(Bytes::new())).boxed()
    }
}

/// Gives back what it got.
struct Echo;

impl RawHandler for Echo {
    fn run<'a>(&'a self, _cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
        std::future::ready(Ok(payload)).boxed()
    }
}

/// Waits.
struct Sleep;

/// The input of `tenure.sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SleepInput {
    /// For how long.
    ms: u64,
}

impl TaskHandler for Sleep {
    const NAME: &'static str = "tenure.sleep";
    type Input = SleepInput;
    type Output = ();

    async fn run(&self, cx: &TaskCx, input: SleepInput) -> Result<(), TaskError> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(input.ms)) => Ok(()),
            () = cx.cancelled() => Err(TaskError::retry("interrupted")),
        }
    }
}
