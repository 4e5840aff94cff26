//! How long a question is asked whose answer is still to come, and how long its place is held: said once, for those who ask and for
//! those who are asked.

use std::time::Duration;

/// What a question waits for may be long in coming: silence is no failure, but after this long the question is asked again, which takes
/// the same place anew.
pub(crate) const AWAIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a place is held for a request that waits elsewhere or for something to happen: several times as long as it takes to be asked
/// again.
pub(crate) const HOLD: Duration = Duration::from_secs(6);

/// How late it may be noticed that a place was held long enough.
pub(crate) const SWEEP: Duration = Duration::from_millis(1_500);

/// A node that serves a watch says so sooner than this, even if nothing changes: its silence is a failure.
pub(crate) const WATCH_PATIENCE: Duration = Duration::from_secs(9);

/// The answer that nothing happened has a second for its way.
const _: () = assert!(HOLD.as_millis() + SWEEP.as_millis() + 1_000 <= WATCH_PATIENCE.as_millis());
const _: () = assert!(2 * AWAIT_PATIENCE.as_millis() < HOLD.as_millis());
