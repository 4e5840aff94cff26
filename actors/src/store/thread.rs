//! The thread that owns the store, and the queue in front of it.
//!
//! Everything that is queued when the thread comes by becomes one commit, so a slow disk makes larger commits, not a
//! longer queue of them. The caller's way back is one call from this thread, without a hop in between.
//!
//! A snapshot of our own is written beside that, chunk by chunk, each with whatever is queued by then. A chunk costs some
//! times as much as a small batch, so after each the disk belongs to the batches for a while: a snapshot takes longer, and
//! few batches meet one. Tidying up goes by the same rule when nothing else is to be done.
//!
//! # Invariants
//!
//! * Batches become durable in the order in which they were queued, and are acknowledged only after that.
//! * No batch waits for more than one chunk of a snapshot of our own.
//! * Of several snapshots of our own one is written at a time, in order. An installed one is newer than all that were
//!   asked for before, so it stands for them.
//! * After the first failure nothing is written, nothing is acknowledged, and what is queued is dropped.
//! * The queue is bounded: the machines bound what may be undurable, and a queue that outgrows even
//!   [`QUEUE_BYTES_MAX`] is a failure, not more memory. What is staged counts too.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::iter::Peekable;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::durable::{Entry, Persist, SnapMeta};
use protocol::image::Done;
use protocol::{LogId, NodeId};

use super::{Change, LogStore, payload_bytes};

/// What the store's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// This batch and all before it are durable.
    Persisted {
        /// The batch's number.
        seq: u64,
    },
    /// Work on an image is done.
    Image(Done),
    /// The store has failed, for good. The node must stop: what was queued is not durable, as far as anybody knows.
    Failed {
        /// What happened, for the operator.
        message: String,
    },
}

/// A store at work. Dropping it commits what is queued and waits for that, so that the folder is free afterwards. A
/// snapshot that is not whole by then is given up.
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
        let thread = thread::Builder::new()
            .name(String::from("tenure-store"))
            .spawn(move || Worker::new(store).run(&queue, &*on_event))?;
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
        self.shared.push(Job::Persist(batch));
    }

    /// Queues an image to write as our snapshot; never waits. Its chunks, of which there must be one, are made on the
    /// store's thread, one per commit. It is answered by [`Done::Saved`] once it is durable.
    pub fn save(&self, meta: SnapMeta, chunks: impl Iterator<Item = Bytes> + Send + 'static) {
        let chunks: Box<dyn Iterator<Item = Bytes> + Send> = Box::new(chunks);
        self.shared.push(Job::Save(Saving { meta, chunks: chunks.peekable(), place: 0 }));
    }

    /// Queues that the snapshot before ours is not needed any more, if it ends with `last`; never waits.
    pub fn forget(&self, last: LogId) {
        self.shared.push(Job::Forget { last });
    }

    /// Queues a chunk of an image that is being received; never waits. It is answered by [`Done::Staged`] with `turn`.
    pub fn stage(&self, turn: u64, last: LogId, place: u32, chunk: Bytes) {
        self.shared.push(Job::Stage { turn, last, place, chunk });
    }

    /// Asks for a chunk of our snapshot, or of the one before it, on behalf of `to`; never waits. It is answered by [`Done::Read`].
    pub fn read(&self, to: NodeId, last: LogId, place: u32) {
        self.shared.push(Job::Read { to, last, place });
    }
}

/// What the thread is asked to do.
enum Job {
    Persist(Persist),
    Save(Saving),
    Forget { last: LogId },
    Stage { turn: u64, last: LogId, place: u32, chunk: Bytes },
    Read { to: NodeId, last: LogId, place: u32 },
}

impl Job {
    /// Roughly how much memory it holds. A frozen state is shared with the replica, of which there is one.
    fn weight(&self) -> usize {
        let held = match self {
            Self::Persist(batch) => batch.append.len() * size_of::<Entry>() + payload_bytes(batch),
            Self::Stage { chunk, .. } => chunk.len(),
            Self::Save(_) | Self::Forget { .. } | Self::Read { .. } => 0,
        };
        size_of::<Self>() + held
    }
}

/// An image of our own on its way to the disk.
struct Saving {
    meta: SnapMeta,
    chunks: Peekable<Box<dyn Iterator<Item = Bytes> + Send>>,
    place: u32,
}

impl Saving {
    /// The next chunk.
    fn next(&mut self) -> Change {
        let chunk = self.chunks.next().expect("an image has a chunk, and is done with its last");
        let place = self.place;
        self.place += 1;
        Change::Save { place, chunk, whole: self.chunks.peek().is_none().then(|| self.meta.clone()) }
    }
}

/// What the thread and its callers share.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn push(&self, job: Job) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        // The thread sleeps only over an empty queue, so one wake-up serves all that follow the first.
        let is_first = queue.jobs.is_empty();
        queue.bytes = queue.bytes.saturating_add(job.weight());
        queue.jobs.push(job);
        drop(queue);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Waits for jobs, or until it is time for something `else_at`, and takes all there are. `None` once the queue is
    /// closed and empty.
    fn take(&self, else_at: Option<Instant>) -> Option<Queue> {
        let mut queue = self.lock();
        while queue.jobs.is_empty() && !queue.is_closed {
            queue = match else_at.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(rest) => self.wake.wait_timeout(queue, rest).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let is_closed = queue.is_closed;
        if is_closed && queue.jobs.is_empty() {
            return None;
        }
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
        f.debug_struct("Shared").field("queued", &self.lock().jobs.len()).finish()
    }
}

/// What waits for the thread.
#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    is_closed: bool,
}

/// What the thread has in hand.
struct Worker {
    store: Box<dyn LogStore>,
    /// Images to write, the first of them perhaps in part.
    saving: VecDeque<Saving>,
    /// Whether the store has something to tidy up.
    is_untidy: bool,
    /// Until when the disk belongs to the batches.
    rest_until: Instant,
}

impl Worker {
    fn new(store: Box<dyn LogStore>) -> Self {
        // A store that was just opened may have left-overs of the last run: the first commit will tell.
        Self { store, saving: VecDeque::new(), is_untidy: false, rest_until: Instant::now() }
    }

    /// Commits until the queue is closed or something fails.
    fn run(mut self, shared: &Shared, on_event: &dyn Fn(StoreEvent)) {
        while let Some(Queue { jobs, bytes, .. }) = shared.take(self.else_at()) {
            let done = if bytes > QUEUE_BYTES_MAX {
                Err(format!("{bytes} bytes wait for the disk, more than the {QUEUE_BYTES_MAX} allowed"))
            } else {
                catch_unwind(AssertUnwindSafe(|| self.round(jobs, on_event)))
                    .unwrap_or_else(|panic| Err(reason(panic.as_ref())))
            };
            if let Err(message) = done {
                shared.abandon();
                on_event(StoreEvent::Failed { message });
                return;
            }
        }
    }

    /// When there is something to do beside what is queued.
    fn else_at(&self) -> Option<Instant> {
        (self.is_untidy || !self.saving.is_empty()).then_some(self.rest_until)
    }

    /// Makes all changes among the jobs durable in one commit, answers, then reads what is asked for.
    fn round(&mut self, jobs: Vec<Job>, on_event: &dyn Fn(StoreEvent)) -> Result<(), String> {
        let mut changes = Vec::with_capacity(jobs.len() + 1);
        let mut batches = 0u32;
        let mut persisted = None;
        let mut done = Vec::new();
        let mut reads = Vec::new();
        for job in jobs {
            match job {
                Job::Persist(batch) => {
                    if batch.install.is_some() {
                        done.extend(self.saving.drain(..).map(|saving| Done::Saved { last: saving.meta.last }));
                    }
                    batches += 1;
                    persisted = persisted.max(Some(batch.seq));
                    changes.push(Change::Batch(batch));
                }
                Job::Save(saving) => self.saving.push_back(saving),
                Job::Forget { last } => changes.push(Change::Forget { last }),
                Job::Stage { turn, last, place, chunk } => {
                    done.push(Done::Staged { turn, place });
                    changes.push(Change::Stage { last, place, chunk });
                }
                Job::Read { to, last, place } => reads.push((to, last, place)),
            }
        }
        let begun = Instant::now();
        let has_rested = begun >= self.rest_until;
        if has_rested && let Some(saving) = self.saving.front_mut() {
            let change = saving.next();
            if matches!(change, Change::Save { whole: Some(_), .. }) {
                done.push(Done::Saved { last: saving.meta.last });
                self.saving.pop_front();
            }
            changes.push(change);
        }
        if !changes.is_empty() || (has_rested && self.is_untidy) {
            self.commit(&changes, batches)?;
        }
        if has_rested && self.else_at().is_some() {
            self.rest_until = Instant::now() + (begun.elapsed() * REST_PART).min(REST_MAX);
        }
        if let Some(seq) = persisted {
            on_event(StoreEvent::Persisted { seq });
        }
        done.into_iter().for_each(|done| on_event(StoreEvent::Image(done)));
        for (to, last, place) in reads {
            let found = self.store.read(last, place).map_err(|error| error.to_string())?;
            on_event(StoreEvent::Image(Done::Read { to, last, place, found }));
        }
        Ok(())
    }

    fn commit(&mut self, changes: &[Change], batches: u32) -> Result<(), String> {
        let started = Instant::now();
        self.is_untidy = self.store.commit(changes).map_err(|error| error.to_string())?;
        metrics::counter!("tenure_store_commits_total").increment(1);
        metrics::histogram!("tenure_store_commit_seconds").record(started.elapsed());
        if batches > 0 {
            metrics::histogram!("tenure_store_commit_batches").record(batches);
        }
        Ok(())
    }
}

/// What a panic said.
pub(super) fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}

/// How much may wait for the disk: far more than the machines let in, far less than a host has.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many times as long as a chunk took the disk belongs to the batches after it.
const REST_PART: u32 = 3;

/// A disk that takes longer than this for a chunk has no time for batches in any case.
const REST_MAX: Duration = Duration::from_millis(20);
