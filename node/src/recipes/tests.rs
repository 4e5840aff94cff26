//! Every recipe on one real node, through the public face.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::KeptSession;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt as _, StreamExt as _};
use protocol::client::Work;
use protocol::state::{Answer, ClaimState, Claimed, Grant, Host, Mode, OpenSession, Query, RightId, RightKind};
use protocol::{ClaimId, Fence, SessionId};

use super::OnceError;
use super::place::{Patience, Place, Wish, release};
use crate::client::Backend;
use crate::kv::{held, put};
use crate::prelude::*;

const SHORT: Duration = Duration::from_millis(50);

/// Enough for a claim to be in line, also on a machine that stands still for a while.
const SPAN: Duration = Duration::from_secs(5);

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

async fn node() -> Node {
    // A machine that stands still for seconds ends no session.
    let calm = Profile { session: LONG, ..Profile::DEV };
    let node = Node::builder("rights").ephemeral().profile(calm).start().await.unwrap();
    node.ready().await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_and_its_next_one_a_greater_fence() {
    let node = node().await;
    let (one, two) = (node.client(), node.client());
    let guard = one.lock("a").await.unwrap();
    let fence = guard.fence();
    assert!(guard.valid_for().is_some());
    assert!(matches!(two.lock("a").await, Err(Error::Held { fence: held }) if held == fence));
    assert!(matches!(two.lock("a").wait(Duration::ZERO).await, Err(Error::Held { fence: held }) if held == fence));
    assert!(matches!(two.lock("a").wait(SPAN).await, Err(Error::Held { fence: held }) if held == fence));
    let line = super::watch::look(&one, guard.hold.place().right()).await.unwrap();
    assert_eq!(line.waiting, 0, "whoever waited in vain has left the line");
    let waits = tokio::spawn(async move { two.lock("a").wait_long().await });
    guard.release().await.unwrap();
    let next = waits.await.unwrap().unwrap();
    assert!(next.fence() > fence);
    drop(next);
    one.lock("a").wait_long().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_under_a_right_does_nothing_once_that_is_lost() {
    let node = node().await;
    let client = node.client();
    let guard = client.lock("a").await.unwrap();
    let (is_held, fence) = (held(&guard), Fence::from(&guard));
    assert_eq!(fence, guard.fence());
    let write = |value: &'static str| client.kv().txn().when(is_held.clone()).then(put("stock", value)).into_future();
    assert!(write("first").await.unwrap().held);
    guard.release().await.unwrap();
    let _next = client.lock("a").wait_long().await.unwrap();
    assert!(!write("late").await.unwrap().held);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_has_left_the_line() {
    let node = node().await;
    let (one, two, three) = (node.client(), node.client(), node.client());
    let guard = one.lock("a").await.unwrap();
    let given_up = tokio::spawn(async move { two.lock("a").wait_long().await });
    let right = RightId::new(RightKind::Lock, "a");
    while super::watch::look(&one, &right).await.unwrap().waiting == 0 {
        tokio::task::yield_now().await;
    }
    given_up.abort();
    guard.release().await.unwrap();
    three.lock("a").wait_long().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_a_right_is_dropped_when_its_session_ends() {
    let node = node().await;
    let client = node.client();
    let session = client.session(LONG).await.unwrap();
    let guard = client.lock("a").session(&session).await.unwrap();
    assert_eq!(guard.run(std::future::ready(7)).await, Ok(7));
    let ends = client.clone();
    let (id, work) = (session.id(), guard.run(std::future::pending::<()>()));
    let end = async move { ends.end_session(id).await.unwrap() };
    let (lost, ()) = tokio::join!(work, end);
    assert!(lost.is_err() && guard.valid_for().is_none());
    client.lock("a").wait_long().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_hears_that_its_claim_was_given_back_in_its_name() {
    let node = node().await;
    let (client, other) = (node.client(), node.client());
    let session = client.session(LONG).await.unwrap();
    let (guard, kept) = (client.lock("a").session(&session).await.unwrap(), client.lock("b").session(&session).await);
    let (right, claim) = (guard.hold.place().right().clone(), guard.hold.place().claim());
    let by_a_stranger = release(&other, right.clone(), (SessionId(0), claim)).await;
    assert!(matches!(by_a_stranger, Err(Error::NotHeld { current }) if current == guard.fence()));
    assert!(guard.valid_for().is_some());

    let work = guard.run(std::future::pending::<()>());
    let release = release(&other, right, (session.id(), claim));
    let (lost, released) = tokio::join!(work, release);
    released.unwrap();
    assert_eq!(lost, Err(crate::session::Lost::Gone));
    assert_eq!((guard.lost().await, guard.valid_for()), (crate::session::Lost::Gone, None));
    let kept = kept.unwrap();
    assert!(!session.is_lost() && kept.valid_for().is_some(), "the session and its other rights go on");
    let next = other.lock("a").await.unwrap();
    assert!(next.fence() > guard.fence());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_a_lock() {
    let node = node().await;
    let (one, two) = (node.client(), node.client());
    let first = one.lock("a").shared().await.unwrap();
    let second = two.lock("a").shared().await.unwrap();
    assert_ne!(first.fence(), second.fence());
    assert!(matches!(one.lock("a").await, Err(Error::Held { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_says_who_it_is_and_observers_hear_of_the_next_one() {
    let node = node().await;
    let client = node.client();
    let election = client.election("reporter");
    let mut observed = Box::pin(election.observe());
    assert_eq!(observed.next().await.unwrap().unwrap(), None);
    let leadership = election.campaign("a").await.unwrap();
    let leader = observed.next().await.unwrap().unwrap().unwrap();
    assert_eq!((leader.fence, &leader.value[..]), (leadership.fence(), &b"a"[..]));
    leadership.proclaim("a2").await.unwrap();
    assert_eq!(observed.next().await.unwrap().unwrap().unwrap().value, "a2");
    leadership.resign().await.unwrap();
    assert_eq!(observed.next().await.unwrap().unwrap(), None);
    assert_eq!(election.leader().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_semaphore_gives_out_no_more_than_it_has() {
    let node = node().await;
    let semaphore = node.client().semaphore("s", 3);
    let two = semaphore.acquire(2).await.unwrap();
    assert!(matches!(semaphore.acquire(2).no_wait().await, Err(Error::Held { .. })));
    let one = semaphore.acquire(1).await.unwrap();
    two.release().await.unwrap();
    drop(semaphore.acquire(2).await.unwrap());
    drop(one);
    assert!(matches!(semaphore.acquire(4).await, Err(Error::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_lets_all_through_at_once_and_one_of_them_leads() {
    let node = node().await;
    let parties: Vec<_> = (0..3)
        .map(|_| {
            let barrier = node.client().barrier("b", 3);
            tokio::spawn(async move {
                let pass = barrier.wait().await?;
                let leads = pass.is_leader();
                pass.leave().await?;
                Ok::<_, Error>(leads)
            })
        })
        .collect();
    let mut leaders = 0;
    for party in parties {
        leaders += u32::from(party.await.unwrap().unwrap());
    }
    assert_eq!(leaders, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_lists_who_is_here() {
    let node = node().await;
    let (one, two) = (node.client(), node.client());
    let group = one.group("g");
    let mut watch = Box::pin(group.watch());
    assert_eq!(watch.next().await.unwrap().unwrap(), []);
    let first = group.join("a").await.unwrap();
    let second = two.group("g").join("b").await.unwrap();
    let values = |members: Vec<crate::GroupMember>| members.into_iter().map(|member| member.value).collect::<Vec<_>>();
    assert_eq!(values(group.members().await.unwrap()), ["a", "b"]);
    second.set("b2").await.unwrap();
    first.leave().await.unwrap();
    loop {
        if values(watch.next().await.unwrap().unwrap()) == ["b2"] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_gone_when_it_is_done_and_back_when_it_is_not() {
    let node = node().await;
    let queue = node.client().queue("q");
    queue.push("low").priority(-1).await.unwrap();
    queue.push("high").await.unwrap();
    let taken = queue.pop().await.unwrap();
    assert_eq!(taken.value(), "high");
    let id = taken.id();
    taken.give_back().await.unwrap();
    let again = queue.pop().await.unwrap();
    assert_eq!((again.value(), again.id()), (&"high".into(), id));
    again.done().await.unwrap();
    let last = queue.pop().await.unwrap();
    assert_eq!(last.value(), "low");
    last.done().await.unwrap();
    assert!(matches!(queue.pop().no_wait().await, Err(Error::Held { .. })));
    assert_eq!(queue.waiting_items().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_done_is_so_before_the_session_ends_that_only_its_guard_holds() {
    let node = node().await;
    let client = node.client();
    let queue = client.queue("q");
    for item in ["a", "b", "c", "d"] {
        queue.push(item).await.unwrap();
        let session = client.session(LONG).await.unwrap();
        let taken = queue.pop().session(&session).await.unwrap();
        drop(session);
        taken.done().await.unwrap();
        assert_eq!(queue.waiting_items().await.unwrap(), 0, "{item} went back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_once_has_one_outcome_for_all_and_a_failure_is_none() {
    let node = node().await;
    let once = node.client().once("migrate");
    let failed = once.run(|| async { Err::<u32, _>("no") }).await;
    assert!(matches!(failed, Err(OnceError::Failed("no"))));
    assert_eq!(once.run(|| async { Ok::<u32, &str>(7) }).await.unwrap(), 7);
    assert_eq!(node.client().once("migrate").run(|| async { Ok::<u32, &str>(8) }).await.unwrap(), 7);
    assert_eq!(once.outcome().await.unwrap(), Some("7".into()));
    once.forget().await.unwrap();
    assert_eq!(once.run(|| async { Ok::<u32, &str>(9) }).await.unwrap(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_without_an_outcome_is_done_with_none() {
    let node = node().await;
    let client = node.client();
    let once = client.once("migrate");
    let session = client.session(LONG).await.unwrap();
    let wish = Wish { session: session.id(), ..wish(RightId::new(RightKind::Once, "migrate"), Patience::None) };
    let (place, _) = Place::take(&client, wish).await.unwrap();
    place.settle("".into()).await.unwrap();
    once.run(|| async { Err::<(), _>("it is done already") }).await.unwrap();
    let number = once.run(|| async { Ok::<u32, &str>(7) }).await;
    assert!(matches!(number, Err(OnceError::Cluster(Error::Codec(_)))), "{number:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_go_on_under_another_session_when_somebody_has_ended_the_shared_one() {
    let node = node().await;
    let client = Client::connect("rights", [node.address().to_string()]).await.unwrap();
    let lost = client.lock("a").await.unwrap();
    let own = client.session(LONG).await.unwrap();
    for session in node.client().sessions(SessionId(0), 10).await.unwrap() {
        node.client().end_session(session.id).await.unwrap();
    }
    // The client does not know yet.
    let guard = client.lock("a").await.unwrap();
    assert!(guard.fence() > lost.fence() && guard.valid_for().is_some());
    let refused = client.lock("b").session(&own).await;
    assert!(matches!(refused, Err(Error::NoSession(session)) if session == own.id()), "who names a session means it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_and_cannot_be_recorded_is_said_to_be_so() {
    let node = node().await;
    let once = node.client().once("large");
    let large = |len| once.run(move || async move { Ok::<String, &str>("x".repeat(len)) });
    let unrecorded = large(64 * 1024).await;
    let expected = Error::TooLarge { len: 64 * 1024 + 2, limit: 64 * 1024 };
    assert!(matches!(&unrecorded, Err(OnceError::Unrecorded(why)) if *why == expected), "{unrecorded:?}");
    assert_eq!(large(64 * 1024 - 2).await.map(|outcome| outcome.len()).unwrap(), 64 * 1024 - 2);
    assert_eq!(large(0).await.map(|outcome| outcome.len()).unwrap(), 64 * 1024 - 2, "it is recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_addition_under_a_key_counts_once() {
    let node = node().await;
    let counter = node.client().counter("ids");
    assert_eq!(counter.get().await.unwrap(), 0);
    assert_eq!(counter.add(100).once("request-9").await.unwrap(), 100);
    assert_eq!(counter.add(-1).await.unwrap(), 99);
    assert_eq!(counter.add(100).once("request-9").await.unwrap(), 100);
    assert_eq!(counter.get().await.unwrap(), 99);
    counter.remove().await.unwrap();
    assert_eq!(counter.get().await.unwrap(), 0);
}

/// A cluster that answers nothing, or nothing more when it has put so many claims in line.
#[derive(Default)]
struct Silent {
    claims: usize,
    /// What it says when it is asked once more where a claim stands.
    stands: Option<ClaimState>,
    /// How often it was asked anything else.
    asked: AtomicUsize,
}

impl Backend for Silent {
    fn call(&self, work: Work, _: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        if let (Work::Read(Query::Claim { .. }, _), Some(stands)) = (&work, &self.stands) {
            return std::future::ready(Ok(Answer::Claim(stands.clone()))).boxed();
        }
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.claims {
            let claimed = Claimed { claim: ClaimId(1), fence: None };
            return std::future::ready(Ok(Answer::Claimed(claimed))).boxed();
        }
        std::future::pending().boxed()
    }

    fn keep(&self, _: OpenSession, timeout: Duration) -> BoxFuture<'_, Result<KeptSession, Error>> {
        async move {
            tokio::time::sleep(timeout).await;
            Err(Error::NoQuorum { maybe_applied: true, waited: timeout, master: None })
        }
        .boxed()
    }

    fn end(&self, _: SessionId) {}

    fn host(&self) -> Option<Host> {
        None
    }
}

fn wish(right: RightId, patience: Patience) -> Wish {
    Wish { right, session: SessionId(1), mode: Mode::Exclusive, value: "".into(), patience }
}

#[tokio::test]
async fn nobody_is_said_to_hold_what_nobody_answers_for() {
    let lock = wish(RightId::new(RightKind::Lock, "a"), Patience::UpTo(SHORT));
    let in_doubt = |taken: Result<_, Error>| match taken {
        Err(Error::NoQuorum { maybe_applied, .. }) => maybe_applied,
        Err(error) => panic!("nobody answers, and that is said to mean: {error}"),
        Ok(_) => panic!("nobody answers"),
    };
    // Without a session there is no claim.
    let client = Client::new(Arc::new(Silent::default()), Profile::DEV).timeout(LONG);
    assert!(!in_doubt(client.lock("a").wait(SHORT).await.map(drop)));
    // The claim is on its way.
    assert!(in_doubt(Place::take(&client, lock.clone()).await.map(drop)));
    // The claim is in line, and nobody can say who is before it.
    let client = Client::new(Arc::new(Silent { claims: 1, ..Silent::default() }), Profile::DEV).timeout(SHORT);
    assert!(in_doubt(Place::take(&client, lock).await.map(drop)));
}

#[tokio::test]
async fn whoever_has_waited_until_the_end_keeps_what_was_granted_meanwhile() {
    let take = async |stands| {
        let silent = Arc::new(Silent { claims: 1, stands: Some(stands), ..Silent::default() });
        let client = Client::new(silent.clone(), Profile::DEV).timeout(SHORT);
        let taken = Place::take(&client, wish(RightId::new(RightKind::Lock, "a"), Patience::UpTo(SHORT))).await;
        // Whatever is dropped is given back, later than this.
        (taken.map(|(place, grant)| (place.keep(), grant)), silent.asked.load(Ordering::SeqCst))
    };
    let grant = Grant { fence: Fence(7), round: Fence(7), item: None };
    let (claim, wait, release) = (1, 1, 1);
    let granted = take(ClaimState::Held(grant.clone())).await;
    assert_eq!(granted, (Ok((ClaimId(1), grant)), claim + wait), "and nothing is released");
    let settled = take(ClaimState::Settled("done".into())).await;
    assert_eq!(settled, (Err(Error::Settled), claim + wait));
    let gone = take(ClaimState::Gone).await;
    assert_eq!(gone, (Err(Error::NotHeld { current: Fence(0) }), claim + wait));
    let (waiting, asked) = take(ClaimState::Waiting).await;
    assert!(matches!(waiting, Err(Error::NoQuorum { maybe_applied: true, .. })), "{waiting:?}");
    assert_eq!(asked, claim + wait + release);
}

#[tokio::test]
async fn claims_that_nobody_answers_leave_room_for_other_calls() {
    let silent = Arc::new(Silent::default());
    let client = Client::new(silent.clone(), Profile::DEV).timeout(SHORT);
    let enter = |number| {
        let right = RightId::new(RightKind::Lock, format!("a{number}"));
        Place::enter(&client, wish(right, Patience::Endless))
    };
    let entered = join_all((0..1_000).map(enter)).await;
    let is_maybe = |entered: &Result<_, Error>| match entered {
        Err(Error::NoQuorum { maybe_applied, .. }) => *maybe_applied,
        _ => panic!("nobody answers"),
    };
    let (asked, maybe) =
        (silent.asked.load(Ordering::SeqCst), entered.iter().filter(|entered| is_maybe(entered)).count());
    assert!(asked < 512, "fewer than one session has places for");
    assert!((asked..1_000).contains(&maybe), "{maybe} claims may stand, {asked} were asked for");
}
