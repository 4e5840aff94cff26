//! The thread that owns the store, and the queue in front of it.
//!
//! Everything that is queued when the thread comes by becomes one commit, so a slow disk makes larger commits, not a
//! longer queue of them. The caller's way back is one call from this thread, without a hop in between.
//!
//! # Invariants
//!
//! * Batches become durable in the order in which they were queued, and are acknowledged only after that.
//! * After the first failure nothing is written, nothing is acknowledged, and what is queued is dropped.
//! * The queue is bounded: the machines bound what may be undurable, and a queue that outgrows even
//!   [`QUEUE_BYTES_MAX`] is a failure, not more memory.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use protocol::durable::{Entry, Payload, Persist};

use super::LogStore;

/// What the store's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// This batch and all before it are durable.
    Persisted {
        /// The batch's number.
        seq: u64,
    },
    /// The store has failed, for good. The node must stop: what was queued is not durable, as far as anybody knows.
    Failed {
        /// What happened, for the operator.
        message: String,
    },
}

/// A store at work. Dropping it commits what is queued and waits for that, so that the folder is free afterwards.
#[derive(Debug)]
pub struct StoreThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl StoreThread {
    /// Starts the thread. `on_event` is called on it and must not block.
    ///
    /// # Errors
    ///
    /// If the system gives us no thread.
    pub fn start(store: Box<dyn LogStore>, on_event: Box<dyn Fn(StoreEvent) + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name(String::from("tenure-store")).spawn(move || run(&queue, store, &*on_event))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        StoreHandle { shared: Arc::clone(&self.shared) }
    }

    /// Commits what is queued, ends the thread and closes the store.
    pub fn shutdown(self) {}
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

/// The way in to a [`StoreThread`].
#[derive(Clone, Debug)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

impl StoreHandle {
    /// Queues a batch; never waits. It is answered by [`StoreEvent::Persisted`], or by [`StoreEvent::Failed`] if that
    /// has not come already. Nothing answers after the store was shut down.
    pub fn persist(&self, batch: Persist) {
        self.shared.push(batch);
    }
}

/// What the thread and its callers share.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn push(&self, batch: Persist) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        // The thread sleeps only over an empty queue, so one wake-up serves all that follow the first.
        let is_first = queue.batches.is_empty();
        queue.bytes = queue.bytes.saturating_add(weight(&batch));
        queue.batches.push(batch);
        drop(queue);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Waits for batches and takes them all. `None` once the queue is closed and empty.
    fn take(&self) -> Option<Queue> {
        let mut queue = self.lock();
        while queue.batches.is_empty() {
            if queue.is_closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let is_closed = queue.is_closed;
        Some(mem::replace(&mut *queue, Queue { is_closed, ..Queue::default() }))
    }

    /// Lets nothing more in.
    fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Lets nothing more in and drops what is there.
    fn abandon(&self) {
        *self.lock() = Queue { is_closed: true, ..Queue::default() };
    }

    /// Nothing panics while it holds the lock, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("queued", &self.lock().batches.len()).finish()
    }
}

/// What waits for the thread.
#[derive(Default)]
struct Queue {
    batches: Vec<Persist>,
    bytes: usize,
    is_closed: bool,
}

/// Commits until the queue is closed or something fails.
fn run(shared: &Shared, mut store: Box<dyn LogStore>, on_event: &dyn Fn(StoreEvent)) {
    while let Some(Queue { batches, bytes, .. }) = shared.take() {
        match commit(&mut *store, &batches, bytes) {
            Ok(seq) => on_event(StoreEvent::Persisted { seq }),
            Err(message) => {
                shared.abandon();
                on_event(StoreEvent::Failed { message });
                return;
            }
        }
    }
}

/// Commits the batches as one; returns the number of the last.
fn commit(store: &mut dyn LogStore, batches: &[Persist], bytes: usize) -> Result<u64, String> {
    if bytes > QUEUE_BYTES_MAX {
        return Err(format!("{bytes} bytes wait for the disk, more than the {QUEUE_BYTES_MAX} allowed"));
    }
    let started = Instant::now();
    catch_unwind(AssertUnwindSafe(|| store.commit(batches)))
        .map_err(|panic| reason(panic.as_ref()))?
        .map_err(|error| error.to_string())?;
    metrics::counter!("tenure_store_commits_total").increment(1);
    metrics::histogram!("tenure_store_commit_seconds").record(started.elapsed());
    metrics::histogram!("tenure_store_commit_batches").record(u32::try_from(batches.len()).unwrap_or(u32::MAX));
    Ok(batches.iter().map(|batch| batch.seq).max().expect("a commit has batches"))
}

/// What a panic said.
pub(super) fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}

/// Roughly how much memory a batch holds.
fn weight(batch: &Persist) -> usize {
    let payload = |entry: &Entry| match &entry.payload {
        Payload::Commands(bytes) => bytes.len(),
        Payload::Noop | Payload::Config(_) => 0,
    };
    size_of::<Persist>() + batch.append.iter().map(|entry| size_of::<Entry>() + payload(entry)).sum::<usize>()
}

/// How much may wait for the disk: far more than the machines let in, far less than a host has.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
