//! The thread on which all actors of a process live.
//!
//! They share one thread, so that a hop between two of them wakes nobody up, and it is theirs alone, so that a handler of the
//! application that blocks cannot hold up a lease or a heartbeat.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A running control thread. Dropping it stops it and waits for its end.
pub(crate) struct Control {
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread, runs `begin` on it, and keeps what that built until the end; then hands it to `end`.
    ///
    /// # Errors
    ///
    /// What `begin` returned, or the system's refusal to give us a thread.
    pub(crate) async fn start<T, E, Begin, End>(begin: Begin, end: End) -> Result<(Self, T::Outside), E>
    where
        T: Built,
        E: From<io::Error> + Send + 'static,
        Begin: AsyncFnOnce() -> Result<T, E> + Send + 'static,
        End: AsyncFnOnce(T) + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (ready, built) = oneshot::channel();
        let (bye, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("tenure-control".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(E::from(error)))),
            };
            runtime.block_on(async {
                match begin().await {
                    Ok(inside) => {
                        if ready.send(Ok((inside.outside(), Handle::current()))).is_ok() {
                            let _ = stopped.await;
                        }
                        end(inside).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            drop(runtime);
            drop(bye);
        })?;
        match built.await {
            Ok(Ok((outside, runtime))) => {
                Ok((Self { stop: Some(stop), ended: Some(ended), runtime, thread: Some(thread) }, outside))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(E::from(io::Error::other("the control thread ended while it started"))),
        }
    }

    /// Lets the thread stand still until what this returns is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        let (thaw, thawed) = mpsc::channel();
        self.runtime.spawn(async move {
            // It is the point of it that this blocks.
            let _ = thawed.recv();
        });
        Frozen { _thaw: thaw }
    }

    /// Stops the thread and waits for its end without blocking the caller's.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread has panicked");
        }
    }
}

/// A process that stands still, as one does that the system has stopped. Must be dropped before the process is.
#[must_use = "it goes on when this is dropped"]
pub struct Frozen {
    _thaw: mpsc::Sender<()>,
}

/// What lives on the control thread, and the part of it that may be used from elsewhere.
pub(crate) trait Built: 'static {
    /// That part.
    type Outside: Send + 'static;
    /// Takes it out.
    fn outside(&self) -> Self::Outside;
}
