//! What every revocable right has: a fence, an end, and a way to stop in time.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use protocol::Fence;
use protocol::state::Condition;

use super::hold::Hold;
use crate::session::Lost;

/// A right that this process holds and may lose.
///
/// ```no_run
/// # use tenure::prelude::*;
/// async fn under<G: Guard>(guard: G, work: impl Future<Output = ()> + Send) {
///     println!("fence {}, certainly ours for {:?}", guard.fence(), guard.valid_for());
///     match guard.run(work).await {
///         Ok(()) => println!("done, and still ours"),
///         Err(lost) => println!("dropped before anybody else can be granted it: {lost}"),
///     }
/// }
/// ```
///
/// Its end is counted by this machine's own clock and comes before anybody else can be granted the right, as long as clocks differ in
/// rate by at most a tenth, the process is not frozen, and nobody takes the right away: who gives the claim back in its name, ends its
/// session, or may end that by evidence ([`fast_release`](crate::Opening::fast_release)). Of that it hears as soon as the cluster
/// can say so. Everything else rests on the fence: show it to whatever you change, and let that refuse a smaller one than it has seen.
pub trait Guard: Send + Sync {
    /// The revision of the grant: greater than that of every grant before it, of any right.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(guard: impl Guard) {
    /// println!("every write carries {}", guard.fence());
    /// # }
    /// ```
    fn fence(&self) -> Fence;

    /// What a transaction may ask for: that this very grant is live when it is applied. See [`held`](crate::kv::held).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// # use tenure::kv::put;
    /// let guard = client.lock("stock").await?;
    /// client.kv().txn().when(guard.condition()).then(put("stock/42", "6")).await?;
    /// # Ok(()) }
    /// ```
    fn condition(&self) -> Condition;

    /// For how long the right certainly lasts from now on if nothing renews its session; nothing if it is over: its session, or this
    /// claim to it alone, which whoever speaks in the session's name may give back (`DELETE …/claims/c57`).
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(guard: impl Guard) {
    /// match guard.valid_for() {
    ///     Some(left) => println!("certainly ours for another {left:?}"),
    ///     None => println!("it is over"),
    /// }
    /// # }
    /// ```
    fn valid_for(&self) -> Option<Duration>;

    /// Waits until the right is lost, and says why. Cancellation safe.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(guard: impl Guard) {
    /// println!("stop: {}", guard.lost().await);
    /// # }
    /// ```
    fn lost(&self) -> impl Future<Output = Lost> + Send;

    /// Runs `work` as long as the right lasts: 20 ms before it ends, `work` is dropped, so that a poll that takes less has returned in
    /// time. It is never polled after that, also not when the process wakes up from a pause. Dropping the future drops `work`; the right
    /// stays.
    ///
    /// ```no_run
    /// # use tenure::prelude::*;
    /// # async fn example(guard: impl Guard) {
    /// if let Err(lost) = guard.run(async { println!("alone") }).await {
    ///     println!("dropped in time: {lost}");
    /// }
    /// # }
    /// ```
    fn run<F>(&self, work: F) -> impl Future<Output = Result<F::Output, Lost>> + Send
    where
        F: Future + Send,
        F::Output: Send;
}

/// Runs `work` until `hold` is over.
async fn run_under<F: Future>(hold: &Hold, work: F) -> Result<F::Output, Lost> {
    let mut work = pin!(work);
    loop {
        let mut turn = pin!(tokio::time::timeout(hold.step()?, hold.over()));
        let step = std::future::poll_fn(|cx| {
            // Asked before the work goes on: the process may have stood still in between.
            if let Err(why) = hold.step() {
                return Poll::Ready(Err(why));
            }
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(Some(output)));
            }
            turn.as_mut().poll(cx).map(|over| over.map_or(Ok(None), Err))
        });
        if let Some(output) = step.await? {
            return Ok(output);
        }
    }
}

impl Guard for Hold {
    fn fence(&self) -> Fence {
        self.grant().fence
    }

    fn condition(&self) -> Condition {
        Condition::Held { right: self.place().right().clone(), fence: self.fence() }
    }

    fn valid_for(&self) -> Option<Duration> {
        Some(self.left()).filter(|left| !left.is_zero())
    }

    async fn lost(&self) -> Lost {
        self.over().await
    }

    async fn run<F>(&self, work: F) -> Result<F::Output, Lost>
    where
        F: Future + Send,
        F::Output: Send,
    {
        run_under(self, work).await
    }
}

/// Gives a type that has a `Hold` in its field `hold` the guard of that.
macro_rules! guards {
    ($($name:ident)*) => {$(
        impl $crate::recipes::Guard for $name {
            fn fence(&self) -> protocol::Fence {
                self.hold.fence()
            }

            fn condition(&self) -> protocol::state::Condition {
                self.hold.condition()
            }

            fn valid_for(&self) -> Option<std::time::Duration> {
                self.hold.valid_for()
            }

            fn lost(&self) -> impl Future<Output = $crate::session::Lost> + Send {
                self.hold.lost()
            }

            fn run<F>(&self, work: F) -> impl Future<Output = Result<F::Output, $crate::session::Lost>> + Send
            where
                F: Future + Send,
                F::Output: Send,
            {
                self.hold.run(work)
            }
        }

        impl From<&$name> for protocol::Fence {
            fn from(guard: &$name) -> Self {
                $crate::recipes::Guard::fence(guard)
            }
        }
    )*};
}
pub(super) use guards;
