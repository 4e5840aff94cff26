//! How a right looks, now and whenever it changes.

use futures_util::Stream;
use protocol::state::{Answer, Query, RightId, RightView};
use protocol::{Fence, Revision};

use super::place::long;
use crate::client::{Client, unexpected};
use crate::error::Error;

/// A right as it is, with all who hold it.
pub(crate) async fn look(client: &Client, right: &RightId) -> Result<RightView, Error> {
    let view = view(client.read(Query::Right { right: right.clone(), after: Fence(0) }).await?)?;
    complete(client, right, view).await
}

/// A right as soon as it is not as it was at `after`. Cancellation safe.
pub(crate) async fn changed(client: &Client, right: &RightId, after: Revision) -> Result<RightView, Error> {
    let view = view(long(client, Query::AwaitRight { right: right.clone(), after }).await?)?;
    complete(client, right, view).await
}

/// A right as it is, and then whenever it changed; states in between may be passed over. Ends after an error.
pub(crate) fn views(client: Client, right: RightId) -> impl Stream<Item = Result<RightView, Error>> + Send {
    futures_util::stream::unfold(Some((client, right, None)), |state| async move {
        let (client, right, seen) = state?;
        let view = match seen {
            None => look(&client, &right).await,
            Some(revision) => changed(&client, &right, revision).await,
        };
        let next = view.as_ref().ok().map(|view| (client, right, Some(view.revision)));
        Some((view, next))
    })
}

/// Adds the holders that are not on the first page; begins anew if the right changed in between.
async fn complete(client: &Client, right: &RightId, mut view: RightView) -> Result<RightView, Error> {
    while view.has_more {
        let after = view.holders.last().map_or(Fence(0), |holder| holder.fence);
        let page = self::view(client.read(Query::Right { right: right.clone(), after }).await?)?;
        if page.revision == view.revision {
            view.holders.extend(page.holders);
            view.has_more = page.has_more;
        } else {
            view = self::view(client.read(Query::Right { right: right.clone(), after: Fence(0) }).await?)?;
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
