//! Semaphores: a number of permits.

use protocol::state::{Mode, RightId, RightKind};

use super::hold::{Acquire, Hold};
use super::place::Patience;
use crate::client::Client;
use crate::error::Error;

/// A number of permits under one name. Everybody who uses it at one time says the same number. Made by [`Client::semaphore`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let semaphore = client.semaphore("ffmpeg", 4);
/// let (one, two) = (semaphore.acquire(1).await?, semaphore.acquire(2).await?);
/// # drop((one, two));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore {
    client: Client,
    name: String,
    limit: u32,
}

/// Permits that are held. Dropped, they are given back in the background.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let permit = client.semaphore("ffmpeg", 4).acquire(1).await?;
/// permit.run(async { println!("at most four of these") }).await.expect("it was not lost");
/// # Ok(()) }
/// ```
#[must_use = "permits are given back when they are dropped"]
#[derive(Debug)]
pub struct Permit {
    pub(super) hold: Hold,
}

impl Client {
    /// A semaphore of `limit` permits.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let permit = client.semaphore("ffmpeg", 4).acquire(1).await?;
    /// // at most four of these at a time, in the whole cluster
    /// permit.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn semaphore(&self, name: impl Into<String>, limit: u32) -> Semaphore {
        Semaphore { client: self.clone(), name: name.into(), limit }
    }
}

impl Semaphore {
    /// Permits, as soon as so many are free and nobody else is before us.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let permit = client.semaphore("ffmpeg", 4).acquire(2).await?; // waits until two are free
    /// # drop(permit);
    /// # Ok(()) }
    /// ```
    pub fn acquire(&self, count: u32) -> Acquire<Permit> {
        let right = RightId::new(RightKind::Semaphore, self.name.as_str());
        let mode = Mode::Permits { count, limit: self.limit };
        Acquire::new(&self.client, right, mode, Patience::Endless, |hold| Permit { hold })
    }
}

impl Permit {
    /// Gives the permits back.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let permit = client.semaphore("ffmpeg", 4).acquire(1).await?;
    /// permit.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. They are given back in any case, at the latest with their session.
    pub async fn release(self) -> Result<(), Error> {
        self.hold.release().await
    }
}
