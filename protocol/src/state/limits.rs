//! What is too much: bounds on everything that a client or node may put into the state.
//!
//! # Invariants
//!
//! * What passes here can be stored; nothing else bounds the memory of a replica.
//! * Limits count the content and never the allocator, so that all replicas refuse the same command.

use std::time::Duration;

use crate::state::{Delivery, Offer, Operation, Query, Refused, TaskSpec};
use crate::wire::{MAX_COMMAND, MAX_VALUE};

/// How many requests of one client session may be under way.
pub const WINDOW: u64 = 512;
/// How many client sessions may live at once.
pub const MAX_SESSIONS: usize = 16_384;
/// How many client sessions may live in the process of one node: all of them end in one step when it is proven dead.
pub const MAX_HOSTED: usize = 4_096;
/// How many sessions one request may renew.
pub const MAX_RENEWED: usize = 1_024;
/// How many node sessions may live at once.
pub const MAX_NODES: usize = 4_096;
/// How many bytes all that they offer may take together: the list of all nodes is one message.
pub const MAX_OFFERED: usize = 1024 * 1024;
/// How many labels a node may have, and how many a task may need.
pub const MAX_LABELS: usize = 64;
/// How many kinds of task a node may have handlers for.
pub const MAX_KINDS: usize = 1_024;
/// How many bytes tasks, keys, rights and counters may take together before what adds to them is refused.
pub const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// How many bytes the backlog may take: the tasks that have not ended, and those that have and are kept only because all are, for
/// [`MIN_KEEP`]. A submission that finds no room waits until some have ended or their time is over.
pub const MAX_BACKLOG: u64 = 26 * 1024 * 1024;
/// The longest name of a kind of task, in bytes.
pub const MAX_KIND: usize = 256;
/// How many claims one right may have, granted or in line: one step may have to grant them all (F28).
pub const MAX_CLAIMS: usize = 16_384;
/// How many items of a queue one step forgets (F28).
pub const MAX_FORGOTTEN: usize = 1_024;
/// How many parties a barrier may wait for.
pub const MAX_PARTIES: u32 = 4_096;
/// The longest value beside a claim, in bytes.
pub const MAX_CLAIM_VALUE: usize = 64 * 1024;
/// The longest outcome of a once, in bytes.
pub const MAX_OUTCOME: usize = 64 * 1024;
/// The longest key, once keys and names of rights and counters included, in bytes.
pub const MAX_KEY: usize = 512;
/// The greatest number of tasks in one submission.
pub const MAX_BATCH: usize = 8_192;
/// The longest a record is kept after its task ended.
pub const MAX_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// The shortest a record is kept after its task ended, whatever was asked for: whoever waits for the end sees it, and a
/// worker that did not hear that its result was recorded can ask again.
pub const MIN_KEEP: Duration = Duration::from_secs(10);
/// How many entries of one kind (keys, claims) go with one session.
pub const MAX_OWNED: usize = 4_096;
/// How many bytes the names of the keys of one session may take: its end tells them all at once.
pub const MAX_OWNED_BYTES: usize = 512 * 1024;
/// How many conditions a transaction may have, and how many steps each of its branches.
pub const MAX_STEPS: usize = 128;
/// How many bytes the values may have that one transaction reads: its answer is kept until the client has it.
pub const MAX_TRANSACTION_READ: usize = 256 * 1024;
/// How many effects a result may have.
pub const MAX_EFFECTS: usize = 128;
/// How many attempts a goodbye names one by one.
pub const MAX_BEGUN: usize = 8_192;
/// How many lines of a task's history are kept.
pub const MAX_HISTORY: usize = 32;
/// How many deaths of its workers a task survives before it is taken for their cause.
pub const MAX_DEATHS: u32 = 3;

/// What a command takes in the log beside its content.
pub(crate) const COMMAND_BYTES: usize = 64;
/// How many bytes the outcomes of recorded tasks may reach: results of work that was accepted go beyond [`MAX_BYTES`].
pub(super) const MAX_BYTES_WITH_RESULTS: u64 = 2 * MAX_BYTES;
/// How many sessions and how many records one `Expire` ends; the rest waits for the next one, so that none holds up the
/// heartbeats (F28).
pub(super) const MAX_EXPIRED_AT_ONCE: usize = 2_048;
/// After how many changes (keys, claims and attempts that went with them) an `Expire` ends no more sessions; the rest waits, too.
pub(super) const MAX_ENDED_AT_ONCE: usize = 4 * MAX_EXPIRED_AT_ONCE;
/// How many attempts of a task are remembered by their fence.
pub(super) const MAX_PAST: usize = 16;
/// The longest text of a failure or a cancel, in bytes.
pub(super) const MAX_TEXT: usize = 4_096;
/// The longest text in a line of the history, in bytes.
pub(super) const MAX_LINE: usize = 256;
/// The longest wait between two attempts that doubling leads to.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// What a task takes beside its content while its record is whole: so much at the master, which has it on its board, too.
pub(super) const TASK_BYTES: u64 = 1024;
/// What the record of a task that has ended takes beside its bytes.
pub(super) const PACKED_BYTES: u64 = 96;
/// The most that input and outcome may have of a task that has ended for its record to be packed.
pub(super) const MAX_PACKED: usize = 4 * 1024;
/// What a key takes beside its content.
pub(super) const KEY_BYTES: u64 = 128;
/// What a right takes beside its name, its claims and its items.
pub(super) const RIGHT_BYTES: u64 = 384;
/// What a claim takes beside its value.
pub(super) const CLAIM_BYTES: u64 = 320;
/// What an item of a queue takes beside its content.
pub(super) const ITEM_BYTES: u64 = 160;
/// What a counter takes beside its name.
pub(super) const COUNTER_BYTES: u64 = 96;
/// What the mark of an addition takes beside its names.
pub(super) const MARK_BYTES: u64 = 192;
/// What a kept answer takes beside its content.
pub(super) const REPLY_BYTES: u64 = 160;
/// About what a line of history takes in a kept answer.
pub(super) const LINE_BYTES: u64 = 96;
/// How many bytes the kept answers of all client sessions may take before new requests are put off.
pub(super) const MAX_REPLY_BYTES: u64 = 64 * 1024 * 1024;
/// How many tasks or keys one page shows.
pub(super) const MAX_PAGE: usize = 1_000;
/// How many bytes of results or values one page shows; one task or key is always shown.
pub(super) const MAX_PAGE_BYTES: usize = MAX_VALUE;

const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_SPAN: Duration = MAX_KEEP;

/// Refuses a task that could not be kept or run.
pub(super) fn check_spec(spec: &TaskSpec) -> Result<(), Refused> {
    if spec.kind.is_empty() {
        return invalid("a task needs a kind");
    }
    check_size(spec.kind.len(), MAX_KIND)?;
    check_size(spec.payload.len(), MAX_VALUE)?;
    if let Some(key) = &spec.once_key {
        check_key(key)?;
    }
    check_labels(spec.needs.iter())?;
    if spec.delivery == Delivery::AtMostOnce && spec.retries > 0 {
        return invalid("a task that runs at most once cannot be retried");
    }
    if spec.keep > MAX_KEEP {
        return invalid("a task is kept for 30 days at most");
    }
    if spec.backoff > MAX_SPAN || spec.timeout > MAX_SPAN {
        return invalid("a time of a task is 30 days at most");
    }
    Ok(())
}

/// Refuses a key that is empty or too long.
pub(super) fn check_key(key: &str) -> Result<(), Refused> {
    if key.is_empty() {
        return invalid("a key must not be empty");
    }
    check_size(key.len(), MAX_KEY)
}

/// Refuses a key that would go at once or hardly ever.
pub(super) fn check_life(ttl: Duration) -> Result<(), Refused> {
    if ttl < Duration::from_millis(1) || ttl > MAX_KEEP {
        return invalid("a key with a time to live lives between a millisecond and 30 days");
    }
    Ok(())
}

/// Refuses what is longer than its limit.
pub(super) fn check_size(len: usize, limit: usize) -> Result<(), Refused> {
    if len > limit {
        return Err(Refused::TooLarge { len: len as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Refuses an operation that the log cannot carry.
///
/// # Errors
///
/// [`Refused::TooLarge`].
pub fn check_operation(operation: &Operation) -> Result<(), Refused> {
    check_size(operation.size() + COMMAND_BYTES, MAX_COMMAND)
}

/// Refuses a question about names that nothing can have: while it waits for its answer, it is held.
///
/// # Errors
///
/// [`Refused::TooLarge`].
pub fn check_query(query: &Query) -> Result<(), Refused> {
    match query {
        Query::Get(key) => check_size(key.len(), MAX_KEY),
        Query::List(list) => check_size(list.prefix.len().max(list.after.len()), MAX_KEY),
        Query::Watch(watch) => check_size(watch.prefix.len(), MAX_KEY),
        Query::Counter(name) => check_size(name.len(), MAX_KEY),
        Query::Right { right, .. }
        | Query::AwaitRight { right, .. }
        | Query::AwaitClaim { right, .. }
        | Query::Claim { right, .. } => check_size(right.name.len(), MAX_KEY),
        Query::Rights { after, .. } => check_size(after.as_ref().map_or(0, |right| right.name.len()), MAX_KEY),
        Query::AwaitEnd { claims, .. } => check_size(claims.len(), MAX_OWNED),
        Query::Task(_)
        | Query::Await(_)
        | Query::Tasks { .. }
        | Query::NewestTasks { .. }
        | Query::Nodes
        | Query::AwaitNodes { .. }
        | Query::Sessions { .. }
        | Query::Summary
        | Query::Roster => Ok(()),
    }
}

/// Refuses a session that would end at once or hardly ever.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), Refused> {
    if ttl < Duration::from_millis(1) || ttl > MAX_TTL {
        return invalid("a session lives between a millisecond and a day without a renewal");
    }
    Ok(())
}

/// Refuses an offer that is too long to keep.
///
/// # Errors
///
/// [`Refused::TooLarge`]: more than [`MAX_LABELS`] labels or [`MAX_KINDS`] kinds, or a word of more than [`MAX_KIND`] bytes.
pub fn check_offer(offer: &Offer) -> Result<(), Refused> {
    check_size(offer.label.len(), MAX_KIND)?;
    check_size(offer.kinds.len(), MAX_KINDS)?;
    for kind in &offer.kinds {
        check_size(kind.len(), MAX_KIND)?;
    }
    check_labels(offer.labels.iter())
}

/// Refuses a batch of too many tasks.
pub(super) fn check_batch(specs: &[TaskSpec]) -> Result<(), Refused> {
    check_size(specs.len(), MAX_BATCH)?;
    specs.iter().try_for_each(check_spec)
}

/// Cuts a text to at most `limit` bytes, at a character's boundary.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The refusal of everything that would take more room than there is.
pub(super) fn full() -> Refused {
    Refused::Quota(format!("the cluster is full: all that is kept may take {} MiB together", MAX_BYTES >> 20))
}

fn check_labels<'a>(labels: impl ExactSizeIterator<Item = (&'a String, &'a String)>) -> Result<(), Refused> {
    check_size(labels.len(), MAX_LABELS)?;
    for (name, value) in labels {
        check_size(name.len(), MAX_KIND)?;
        check_size(value.len(), MAX_KIND)?;
    }
    Ok(())
}

fn invalid(why: &str) -> Result<(), Refused> {
    Err(Refused::Invalid(why.into()))
}
