//! Locks: one writer, or any number of readers.

use protocol::state::{Mode, RightId, RightKind};

use super::hold::{Acquire, Hold};
use super::place::Patience;
use crate::client::Client;
use crate::error::Error;

/// A lock that is held: see [`Client::lock`]. Dropped, it is given back in the background.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let guard = client.lock("stock").wait_long().await?;
/// println!("ours, under fence {}", guard.fence());
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[must_use = "a lock is given back when its guard is dropped"]
#[derive(Debug)]
pub struct LockGuard {
    pub(super) hold: Hold,
}

impl Client {
    /// A lock. Awaited as it is, it does not wait; see [`Acquire::wait`]. It is not re-entrant: a second claim of the same process stands
    /// in line behind its own first one.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let guard = client.lock("inventory/42").wait(Duration::from_secs(5)).await?;
    /// let fence = guard.fence(); // goes with every write that the lock protects
    /// match guard.run(async { /* write with the fence */ }).await {
    ///     Ok(()) => guard.release().await?,
    ///     Err(lost) => println!("stopped in time: {lost}"),
    /// }
    /// # let _ = fence;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, name: impl AsRef<str>) -> Acquire<LockGuard> {
        let right = RightId::new(RightKind::Lock, name.as_ref());
        Acquire::new(self, right, Mode::Exclusive, Patience::None, |hold| LockGuard { hold })
    }
}

impl Acquire<LockGuard> {
    /// For a reader: readers hold the lock together.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let readers = (client.lock("stock").shared().await?, client.lock("stock").shared().await?);
    /// # drop(readers);
    /// # Ok(()) }
    /// ```
    pub fn shared(self) -> Self {
        self.mode(Mode::Shared)
    }
}

impl LockGuard {
    /// Gives the lock back, and returns when the next in line has it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let guard = client.lock("stock").await?;
    /// guard.release().await?; // the next in line has it when this returns
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. The lock is given back in any case, at the latest with its session.
    pub async fn release(self) -> Result<(), Error> {
        self.hold.release().await
    }
}
