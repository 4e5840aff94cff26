//! Groups: who is here, each with something that it says of itself.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use protocol::state::{Mode, RightId, RightKind, RightView};
use protocol::{Fence, Revision, SessionId};

use super::hold::{Acquire, Hold};
use super::place::Patience;
use super::watch::{look, views};
use crate::client::Client;
use crate::error::Error;

/// A list of those who are here. Made by [`Client::group`].
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let group = client.group("renderers");
/// println!("{} of us", group.members().await?.len());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    right: RightId,
}

/// A place in a group. Dropped, it is given up in the background.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// let me = client.group("renderers").join("gpu=1").await?;
/// me.set("gpu=2").await?;
/// me.leave().await?;
/// # Ok(()) }
/// ```
#[must_use = "a place in a group is given up when it is dropped"]
#[derive(Debug)]
pub struct Membership {
    pub(super) hold: Hold,
}

/// One who is here.
///
/// ```no_run
/// # use tenure::prelude::*;
/// # async fn example(client: Client) -> Result<(), Error> {
/// for member in client.group("renderers").members().await? {
///     println!("{} says {:?}", member.session, member.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its session.
    pub session: SessionId,
    /// Since which revision: members are listed in the order in which they came.
    pub since: Fence,
    /// What it says of itself.
    pub value: Bytes,
}

impl Client {
    /// A group. Whoever dies is not in it any more as soon as its session ends.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let me = client.group("renderers").join(r#"{"gpu":1}"#).await?;
    /// for member in client.group("renderers").members().await? {
    ///     println!("{}: {:?}", member.session, member.value);
    /// }
    /// me.leave().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn group(&self, name: impl AsRef<str>) -> Group {
        Group { client: self.clone(), right: RightId::new(RightKind::Group, name.as_ref()) }
    }
}

impl Group {
    /// Joins. `value` is shown to whoever looks.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let me = client.group("renderers").join("gpu=1").await?;
    /// # drop(me);
    /// # Ok(()) }
    /// ```
    pub fn join(&self, value: impl Into<Bytes>) -> Acquire<Membership> {
        let make = |hold| Membership { hold };
        Acquire::new(&self.client, self.right.clone(), Mode::Member, Patience::Endless, make).value(value)
    }

    /// Who is here: all of them, which takes one question for every 1,000 members or mebibyte of their values.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// if let Some(oldest) = client.group("renderers").members().await?.first() {
    ///     println!("{:?} joined first", oldest.value);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn members(&self) -> Result<Vec<GroupMember>, Error> {
        Ok(members(look(&self.client, &self.right).await?))
    }

    /// Who is here, and then the whole list whenever it changed. Never goes back; a list that was true for a moment only may be passed
    /// over. Ends after an error. Every list costs what [`Group::members`] does.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use futures_util::StreamExt;
    /// let mut lists = std::pin::pin!(client.group("renderers").watch());
    /// while let Some(list) = lists.next().await {
    ///     println!("{} of us", list?.len());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn watch(&self) -> impl Stream<Item = Result<Vec<GroupMember>, Error>> + Send + use<> {
        views(self.client.clone(), self.right.clone()).map(|view| view.map(members))
    }
}

impl Membership {
    /// Says something else of itself.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let me = client.group("renderers").join("gpu=1").await?;
    /// me.set("gpu=2").await?; // whoever watches is told
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotHeld`] if the session is over; see [`Error`].
    pub async fn set(&self, value: impl Into<Bytes>) -> Result<Revision, Error> {
        self.hold.place().set_value(value.into()).await
    }

    /// Leaves.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let me = client.group("renderers").join("gpu=1").await?;
    /// me.leave().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Error`]. The place is given up in any case, at the latest with its session.
    pub async fn leave(self) -> Result<(), Error> {
        self.hold.release().await
    }
}

fn members(view: RightView) -> Vec<GroupMember> {
    let member = |holder: protocol::state::Holder| GroupMember {
        session: holder.session,
        since: holder.fence,
        value: holder.value,
    };
    view.holders.into_iter().map(member).collect()
}
