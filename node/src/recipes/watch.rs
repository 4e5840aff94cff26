//! How a right looks, now and whenever it changes.

use futures_util::Stream;
use protocol::state::{Answer, Query, RightId, RightView};
use protocol::{Fence, Revision};

use super::place::long;
use crate::client::{Client, unexpected};
use crate::error::Error;

/// A right as it is, with all who hold it, however many pages that takes.
pub(crate) async fn look(client: &Client, right: &RightId) -> Result<RightView, Error> {
    let first = page(client, right, Fence(0)).await?;
    complete(client, right, first).await
}

/// A right as soon as it is not as it was at `after`, with all who hold it. Cancellation safe.
pub(crate) async fn changed(client: &Client, right: &RightId, after: Revision) -> Result<RightView, Error> {
    let first = changed_page(client, right, after).await?;
    complete(client, right, first).await
}

/// A right as it is, with a page of those who hold it under greater fences than `after`.
pub(crate) async fn page(client: &Client, right: &RightId, after: Fence) -> Result<RightView, Error> {
    view(client.read(Query::Right { right: right.clone(), after }).await?)
}

/// A right as soon as it is not as it was at `after`, with the first page of those who hold it. Cancellation safe.
pub(crate) async fn changed_page(client: &Client, right: &RightId, after: Revision) -> Result<RightView, Error> {
    view(long(client, Query::AwaitRight { right: right.clone(), after }).await?)
}

/// A right with all who hold it, as it is, and then whenever it changed; states in between may be passed over. Ends after an error.
pub(crate) fn views(client: Client, right: RightId) -> impl Stream<Item = Result<RightView, Error>> + Send {
    follow(client, right, true)
}

/// The same with the first page of those who hold it.
pub(crate) fn pages(client: Client, right: RightId) -> impl Stream<Item = Result<RightView, Error>> + Send {
    follow(client, right, false)
}

fn follow(client: Client, right: RightId, is_whole: bool) -> impl Stream<Item = Result<RightView, Error>> + Send {
    futures_util::stream::unfold(Some((client, right, None)), move |state| async move {
        let (client, right, seen) = state?;
        let view = match (seen, is_whole) {
            (None, true) => look(&client, &right).await,
            (None, false) => page(&client, &right, Fence(0)).await,
            (Some(revision), true) => changed(&client, &right, revision).await,
            (Some(revision), false) => changed_page(&client, &right, revision).await,
        };
        let next = view.as_ref().ok().map(|view| (client, right, Some(view.revision)));
        Some((view, next))
    })
}

/// Adds the holders that are not on the first page; begins anew if the right changed in between.
async fn complete(client: &Client, right: &RightId, mut view: RightView) -> Result<RightView, Error> {
    while view.has_more {
        let after = view.holders.last().map_or(Fence(0), |holder| holder.fence);
        let page = page(client, right, after).await?;
        if page.revision == view.revision {
            view.holders.extend(page.holders);
            view.has_more = page.has_more;
        } else {
            view = self::page(client, right, Fence(0)).await?;
        }
    }
    Ok(view)
}

fn view(answer: Answer) -> Result<RightView, Error> {
    match answer {
        Answer::Right(view) => Ok(*view),
        other => Err(unexpected(&other)),
    }
}
