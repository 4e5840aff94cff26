//! Barriers: nobody passes until everybody is there.

use protocol::state::{Mode, RightId, RightKind};

use super::hold::{Acquire, Hold};
use super::place::Patience;
use super::watch::{changed, look};
use crate::client::Client;
use crate::error::Error;

/// Opens when so many wait for it, for all of them at once, and can be used again and again. Made by [`Client::barrier`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let barrier = client.barrier("epoch-7", 3);
/// let pass = barrier.wait().await?;
/// # drop(pass);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Barrier {
    client: Client,
    name: String,
    parties: u32,
}

/// A barrier that was passed. Dropped, it is left in the background.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let pass = client.barrier("epoch-7", 3).wait().await?;
/// println!("leads: {}", pass.is_leader());
/// pass.leave().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Pass {
    pub(super) hold: Hold,
}

impl Client {
    /// A barrier for `parties`.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let pass = client.barrier("epoch-7", 3).wait().await?;
    /// if pass.is_leader() { /* exactly one of the three */ }
    /// pass.leave().await?; // all three have come this far
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn barrier(&self, name: impl Into<String>, parties: u32) -> Barrier {
        Barrier { client: self.clone(), name: name.into(), parties }
    }
}

impl Barrier {
    /// Waits until as many wait as the barrier is for. Whoever dies does not count when its session has ended.
    ///
    /// Cancellation: the claim is withdrawn in the background. Until the cluster has applied that it counts, and the barrier may open with it.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let pass = client.barrier("epoch-7", 3).wait().await?; // when three wait
    /// # drop(pass);
    /// # Ok(()) }
    /// ```
    pub fn wait(&self) -> Acquire<Pass> {
        let right = RightId::new(RightKind::Barrier, self.name.as_str());
        let mode = Mode::Party { parties: self.parties };
        Acquire::new(&self.client, right, mode, Patience::Endless, |hold| Pass { hold })
    }
}

impl Pass {
    /// Whether this is the one of its round that leads: exactly one does.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let pass = client.barrier("epoch-7", 3).wait().await?;
    /// if pass.is_leader() {
    ///     println!("one of the three does this");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.hold.grant().fence == self.hold.grant().round
    }

    /// Leaves, and waits until everybody of this round has left: a second barrier at the end of what was done together.
    ///
    /// Cancellation: it is left nevertheless.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let pass = client.barrier("epoch-7", 3).wait().await?;
    /// pass.leave().await?; // when all three have left
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn leave(self) -> Result<(), Error> {
        let round = self.hold.grant().round;
        let place = self.hold.place();
        let (client, right) = (place.client().clone(), place.right().clone());
        self.hold.release().await?;
        let mut view = look(&client, &right).await?;
        while view.holders.iter().any(|holder| holder.round == round) {
            view = changed(&client, &right, view.revision).await?;
        }
        Ok(())
    }
}
