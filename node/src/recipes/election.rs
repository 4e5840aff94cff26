//! Elections: one leader under a name, which says something of itself.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use protocol::state::{Mode, RightId, RightKind, RightView};
use protocol::{Fence, Revision, SessionId};

use super::hold::{Acquire, Hold};
use super::place::Patience;
use super::watch::{look, views};
use crate::client::Client;
use crate::error::Error;

/// An election among the programs of an application; the cluster's own master has nothing to do with it. Made by [`Client::election`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let election = client.election("reporter");
/// println!("{:?} leads", election.leader().await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    client: Client,
    right: RightId,
}

/// Leadership that is held. Dropped, it is given up in the background.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let leadership = client.election("reporter").campaign("node-a").await?;
/// leadership.proclaim("node-a, warmed up").await?;
/// leadership.resign().await?;
/// # Ok(()) }
/// ```
#[must_use = "leadership is given up when it is dropped"]
#[derive(Debug)]
pub struct Leadership {
    pub(super) hold: Hold,
}

/// Who leads.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// if let Some(leader) = client.election("reporter").leader().await? {
///     println!("{} leads and says {:?}", leader.session, leader.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its session.
    pub session: SessionId,
    /// The fence of its leadership: greater than that of every leader before it.
    pub fence: Fence,
    /// What it says of itself.
    pub value: Bytes,
}

impl Client {
    /// An election.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn report_forever(_: Fence) {}
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let leadership = client.election("reporter").campaign("node-a").await?;
    /// let fence = leadership.fence();
    /// if let Err(lost) = leadership.run(report_forever(fence)).await {
    ///     println!("stopped before anybody else can lead: {lost}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn election(&self, name: impl AsRef<str>) -> Election {
        Election { client: self.clone(), right: RightId::new(RightKind::Election, name.as_ref()) }
    }
}

impl Election {
    /// Leadership, as soon as nobody before us wants it. `value` is shown to whoever observes. Dropping the future withdraws.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let leadership = client.election("reporter").campaign("node-a").await?; // in line, until it is our turn
    /// # drop(leadership);
    /// # Ok(()) }
    /// ```
    pub fn campaign(&self, value: impl Into<Bytes>) -> Acquire<Leadership> {
        let make = |hold| Leadership { hold };
        Acquire::new(&self.client, self.right.clone(), Mode::Exclusive, Patience::Endless, make).value(value)
    }

    /// Who leads, if anybody does.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let is_led = client.election("reporter").leader().await?.is_some();
    /// # let _ = is_led;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        Ok(leader(&look(&self.client, &self.right).await?))
    }

    /// Who leads now, and then whenever that, or what the leader says of itself, changes. Never goes back; a leadership that ended
    /// before it was looked at may be passed over. Ends after an error.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use futures_util::StreamExt;
    /// let mut leaders = std::pin::pin!(client.election("reporter").observe());
    /// while let Some(leader) = leaders.next().await {
    ///     println!("{:?} leads now", leader?.map(|leader| leader.value));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn observe(&self) -> impl Stream<Item = Result<Option<Leader>, Error>> + Send + use<> {
        let mut shown: Option<Option<Leader>> = None;
        let views = views(self.client.clone(), self.right.clone());
        views.filter_map(move |view| {
            let news = view.map(|view| leader(&view));
            let is_news = !matches!(&news, Ok(leader) if shown.as_ref() == Some(leader));
            if let Ok(leader) = &news {
                shown = Some(leader.clone());
            }
            std::future::ready(is_news.then_some(news))
        })
    }
}

impl Leadership {
    /// Says something else of itself.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let leadership = client.election("reporter").campaign("starting").await?;
    /// leadership.proclaim("ready").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotHeld`] if somebody else may lead by now; see [`Error`].
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<Revision, Error> {
        self.hold.place().set_value(value.into()).await
    }

    /// Gives leadership up, and returns when the next in line leads.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let leadership = client.election("reporter").campaign("node-a").await?;
    /// leadership.resign().await?; // the next in line leads when this returns
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. It is given up in any case, at the latest with its session.
    pub async fn resign(self) -> Result<(), Error> {
        self.hold.release().await
    }
}

fn leader(view: &RightView) -> Option<Leader> {
    let holder = view.holders.first()?;
    Some(Leader { session: holder.session, fence: holder.fence, value: holder.value.clone() })
}
