//! Once: one recorded success in the life of the cluster.

use std::future::Future;

use bytes::Bytes;
use protocol::state::limits::MAX_OUTCOME;
use protocol::state::{Mode, RightId, RightKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::guard::Guard as _;
use super::hold::{Acquire, Hold};
use super::place::{Patience, forget};
use super::watch::look;
use crate::client::Client;
use crate::error::Error;
use crate::session::Lost;

/// Something that is to be done once. It counts one *recorded* success: whoever dies between doing it and recording that is followed by
/// another runner, so that what it does must bear to be begun again.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let migration = client.once("migrate-v7");
/// println!("done: {}", migration.outcome().await?.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Once {
    client: Client,
    right: RightId,
}

/// Why there is no outcome.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// # use tenure::OnceError;
/// let done = client.once("migrate-v7").run(|| async { std::fs::read_to_string("migrate.sql") }).await;
/// match done {
///     Ok(sql) => println!("{} bytes, whoever read them", sql.len()),
///     Err(OnceError::Failed(why)) => println!("it failed here, and the next one tries: {why}"),
///     Err(other) => println!("not now: {other}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum OnceError<E> {
    /// It was run here and failed: the next one runs it again.
    #[error("it failed, and the next one tries: {0}")]
    Failed(E),
    /// The right to run it was lost while it ran: another one runs it.
    #[error("the right to run it was lost: {0}")]
    Lost(Lost),
    /// It was done here, and that may not be recorded: then the next one does it again. [`Error::TooLarge`]: its outcome takes more than
    /// 64 KiB as JSON, and does so every time.
    #[error("it was done, and that is not recorded for certain: {0}")]
    Unrecorded(Error),
    /// The cluster did not answer, or refused. Nothing was done here.
    #[error(transparent)]
    Cluster(#[from] Error),
}

impl Client {
    /// Something that is to be done once.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn migrate() -> Result<u32, std::io::Error> { Ok(7) }
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let rows: u32 = client.once("migrate-v7").run(migrate).await?; // the same number for everybody
    /// # let _ = rows;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn once(&self, key: impl AsRef<str>) -> Once {
        Once { client: self.clone(), right: RightId::new(RightKind::Once, key.as_ref()) }
    }
}

impl Once {
    /// Runs it here if it is our turn and nobody has succeeded yet, and returns the outcome of whoever succeeded. If the right to run it
    /// is about to be lost, the future of `work` is dropped. Cancellation: the next one runs it.
    ///
    /// An outcome takes at most 64 KiB as JSON: what is larger belongs elsewhere, and a reference to it here.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let rows: Result<u32, _> = client.once("migrate-v7").run(|| async { Ok::<_, std::io::Error>(7) }).await;
    /// # drop(rows);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`OnceError`].
    pub async fn run<T, E, F>(&self, work: impl FnOnce() -> F) -> Result<T, OnceError<E>>
    where
        T: Serialize + DeserializeOwned + Send,
        E: Send,
        F: Future<Output = Result<T, E>> + Send,
    {
        let hold = match self.claim().await {
            Ok(hold) => hold,
            Err(Error::Settled) => return self.known().await,
            Err(error) => return Err(error.into()),
        };
        let outcome = hold.run(work()).await.map_err(OnceError::Lost)?.map_err(OnceError::Failed)?;
        let bytes = recordable(&outcome).map_err(OnceError::Unrecorded)?;
        hold.settle(bytes.into()).await.map_err(OnceError::Unrecorded)?;
        Ok(outcome)
    }

    /// The outcome, if it is known: JSON, unless it was recorded by other means. Whoever settled it over HTTP without one left it empty,
    /// and `run` takes that for `null`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if client.once("migrate-v7").outcome().await?.is_none() {
    ///     println!("nobody has done it yet");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn outcome(&self) -> Result<Option<Bytes>, Error> {
        Ok(look(&self.client, &self.right).await?.settled)
    }

    /// Forgets the outcome, so that it can be done again.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// client.once("migrate-v7").forget().await?; // it may happen again
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none; see [`Error`].
    pub async fn forget(&self) -> Result<(), Error> {
        forget(&self.client, &self.right).await.map(drop)
    }

    fn claim(&self) -> Acquire<Hold> {
        Acquire::new(&self.client, self.right.clone(), Mode::Exclusive, Patience::Endless, |hold| hold)
    }

    async fn known<T: DeserializeOwned, E>(&self) -> Result<T, OnceError<E>> {
        let bytes = self.outcome().await?.ok_or(Error::NotFound)?;
        // What was settled without an outcome is done all the same.
        let bytes = if bytes.is_empty() { NOTHING } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| Error::Codec(format!("the outcome: {error}")).into())
    }
}

/// An outcome as it is recorded. One that would be refused is not sent.
fn recordable(outcome: &impl Serialize) -> Result<Vec<u8>, Error> {
    let bytes = serde_json::to_vec(outcome).map_err(|error| Error::Codec(format!("the outcome: {error}")))?;
    if bytes.len() > MAX_OUTCOME {
        return Err(Error::TooLarge { len: bytes.len() as u64, limit: MAX_OUTCOME as u64 });
    }
    Ok(bytes)
}

/// What `()` is as JSON.
const NOTHING: &[u8] = b"null";
