//! Rights and counters, one sentence a test.

use super::*;
use crate::state::limits::MAX_FORGOTTEN;
use crate::types::{ClaimId, Fence};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn sessions<const N: usize>(&mut self) -> [SessionId; N] {
        std::array::from_fn(|_| self.register(10 * SECOND))
    }

    fn right(&mut self, operation: RightOperation) -> Answer {
        self.client(Operation::Right(operation))
    }

    fn claim_raw(&mut self, right: &RightId, session: SessionId, mode: Mode, wait: bool) -> Answer {
        self.right(RightOperation::Claim(Claim { right: right.clone(), session, mode, value: Bytes::new(), wait }))
    }

    /// Claims and waits.
    fn claim(&mut self, right: &RightId, session: SessionId, mode: Mode) -> Claimed {
        match self.claim_raw(right, session, mode, true) {
            Answer::Claimed(claimed) => claimed,
            other => panic!("not claimed: {other:?}"),
        }
    }

    fn free(&mut self, right: &RightId, claim: ClaimId) -> Answer {
        let session = self.owner(right, claim);
        self.right(RightOperation::Release { right: right.clone(), session, claim })
    }

    fn settle(&mut self, right: &RightId, claim: ClaimId, outcome: &'static str) -> Answer {
        let session = self.owner(right, claim);
        self.right(RightOperation::Settle { right: right.clone(), session, claim, outcome: outcome.into() })
    }

    /// Whose claim it is; nobody's, if it does not stand.
    fn owner(&self, right: &RightId, claim: ClaimId) -> SessionId {
        self.state.rights.owner(right, claim).unwrap_or(SessionId(0))
    }

    fn push(&mut self, queue: &RightId, value: &'static str, priority: i32) -> Answer {
        self.right(RightOperation::Push { queue: queue.name.clone(), value: value.into(), priority })
    }

    fn state_of(&self, right: &RightId, claim: ClaimId) -> ClaimState {
        match self.state.query(&Query::AwaitClaim { right: right.clone(), claim }) {
            Answer::Claim(state) => state,
            other => panic!("no claim: {other:?}"),
        }
    }

    fn fence(&self, right: &RightId, claim: ClaimId) -> Option<Fence> {
        match self.state_of(right, claim) {
            ClaimState::Held(grant) => Some(grant.fence),
            _ => None,
        }
    }

    fn item(&self, queue: &RightId, claim: ClaimId) -> Option<Bytes> {
        match self.state_of(queue, claim) {
            ClaimState::Held(grant) => grant.item.map(|item| item.value),
            _ => None,
        }
    }

    fn right_view(&self, right: &RightId) -> RightView {
        match self.state.query(&Query::Right { right: right.clone(), after: Fence(0) }) {
            Answer::Right(view) => *view,
            other => panic!("no right: {other:?}"),
        }
    }

    /// Keeps all sessions.
    fn renew(&mut self) {
        self.state.begin_epoch(self.now, &mut Vec::new());
    }

    fn add(&mut self, counter: &str, by: i64, once: Option<&str>) -> Answer {
        let once = once.map(Into::into);
        self.client(Operation::Counter(CounterOperation::Add(Add { counter: counter.into(), by, once })))
    }
}

fn lock() -> RightId {
    RightId::new(RightKind::Lock, "a")
}

fn held(fence: Fence) -> Answer {
    Answer::Refused(Refused::Held { fence })
}

#[test]
fn a_lock_goes_from_one_to_the_next_in_the_order_of_their_claims_with_growing_fences() {
    let mut world = World::new();
    let [a, b, c] = world.sessions();
    let first = world.claim(&lock(), a, Mode::Exclusive);
    let fence = first.fence.expect("it was free");
    let second = world.claim(&lock(), b, Mode::Exclusive);
    let third = world.claim(&lock(), c, Mode::Exclusive);
    assert_eq!((second.fence, third.fence), (None, None));
    assert_eq!(world.right_view(&lock()).waiting, 2);
    assert_eq!(world.free(&lock(), first.claim), Answer::Ok);
    let next = world.fence(&lock(), second.claim).expect("it is next");
    assert!(next > fence && world.state.is_held(&lock(), next) && !world.state.is_held(&lock(), fence));
    assert_eq!(world.state_of(&lock(), third.claim), ClaimState::Waiting);
    assert_eq!(world.state_of(&lock(), first.claim), ClaimState::Gone);
    let told = RightChange { right: lock(), granted: vec![(second.claim, next)], ended: vec![(first.claim, a)] };
    assert!(world.changes.contains(&ClusterChange::Right(Box::new(told))));
}

#[test]
fn a_claim_ends_by_its_own_session_and_nobody_elses_word() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let [first, second] = [a, b].map(|session| world.claim(&lock(), session, Mode::Exclusive));
    let fence = first.fence.expect("it was free");
    let release = |session, claim| RightOperation::Release { right: lock(), session, claim };
    let refused = Answer::Refused(Refused::NotHeld { current: fence });
    for (session, claim) in [(b, first.claim), (a, second.claim), (SessionId(0), first.claim)] {
        assert_eq!(world.right(release(session, claim)), refused);
    }
    assert_eq!(world.right(release(b, ClaimId(0))), Answer::Refused(Refused::NotFound));

    let claims = vec![first.claim, second.claim];
    let ask = |world: &World, session| world.state.query(&Query::AwaitEnd { session, claims: claims.clone() });
    assert_eq!(ask(&world, a), Answer::Ended(vec![second.claim]), "another session's claim is none of this one");
    assert_eq!(world.right(release(a, first.claim)), Answer::Ok);
    assert_eq!(ask(&world, a), Answer::Ended(claims.clone()));
    assert_eq!(ask(&world, b), Answer::Ended(vec![first.claim]));
    let many = Query::AwaitEnd { session: a, claims: vec![ClaimId(0); limits::MAX_OWNED + 1] };
    assert!(matches!(world.state.query(&many), Answer::Refused(Refused::TooLarge { .. })));
}

#[test]
fn readers_share_and_nobody_passes_a_writer_in_line() {
    let mut world = World::new();
    let [a, b, c, d] = world.sessions();
    let readers = [a, b].map(|session| world.claim(&lock(), session, Mode::Shared));
    assert!(readers.iter().all(|reader| reader.fence.is_some()));
    let writer = world.claim(&lock(), c, Mode::Exclusive);
    assert!(matches!(world.claim_raw(&lock(), d, Mode::Shared, false), Answer::Refused(Refused::Held { .. })));
    let late = [a, b].map(|session| world.claim(&lock(), session, Mode::Shared));
    readers.iter().for_each(|reader| assert_eq!(world.free(&lock(), reader.claim), Answer::Ok));
    assert!(world.fence(&lock(), writer.claim).is_some());
    assert!(late.iter().all(|reader| world.fence(&lock(), reader.claim).is_none()));
    world.free(&lock(), writer.claim);
    assert!(late.iter().all(|reader| world.fence(&lock(), reader.claim).is_some()), "both at once");
}

#[test]
fn whoever_does_not_wait_is_refused_and_leaves_nothing() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let fence = world.claim(&lock(), a, Mode::Exclusive).fence.unwrap();
    let before = world.right_view(&lock());
    assert_eq!(world.claim_raw(&lock(), b, Mode::Exclusive, false), held(fence));
    assert_eq!(world.right_view(&lock()), before);
    let queue = RightId::new(RightKind::Queue, "a");
    assert_eq!(world.claim_raw(&queue, b, Mode::Exclusive, false), held(Fence(0)));
    assert_eq!(world.right_view(&queue), RightView::default());
}

#[test]
fn with_its_session_everything_that_it_claims_goes_in_one_revision_and_the_next_get_fences_after_it() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let group = RightId::new(RightKind::Group, "g");
    let election = RightId::new(RightKind::Election, "e");
    world.claim(&group, a, Mode::Member);
    let held = [lock(), election].map(|right| {
        world.claim(&right, a, Mode::Exclusive);
        let next = world.claim(&right, b, Mode::Exclusive).claim;
        (right, next)
    });
    let before = world.state.revision();
    assert_eq!(world.client(Operation::EndSession { session: a, cause: ClientEnd::Killed }), Answer::Ok);
    assert_eq!(world.right_view(&group), RightView::default());
    let mut fences: Vec<u64> = held.iter().map(|(right, next)| world.fence(right, *next).unwrap().0).collect();
    fences.sort_unstable();
    assert_eq!(fences, [before.0 + 2, before.0 + 3], "one for the end, one for each grant");
    assert_eq!(world.state.revision().0, before.0 + 3);
}

#[test]
fn a_claim_needs_a_session_that_lives() {
    let mut world = World::with_worker();
    let [a] = world.sessions();
    world.client(Operation::EndSession { session: a, cause: ClientEnd::Killed });
    for session in [a, world.worker, SessionId(9_999)] {
        let answer = world.claim_raw(&lock(), session, Mode::Exclusive, true);
        assert_eq!(answer, Answer::Refused(Refused::NoSession(session)));
    }
}

#[test]
fn a_semaphore_has_as_many_permits_as_it_says_and_everybody_says_the_same() {
    let mut world = World::new();
    let [a, b, c] = world.sessions();
    let semaphore = RightId::new(RightKind::Semaphore, "s");
    let permits = |count| Mode::Permits { count, limit: 4 };
    let three = world.claim(&semaphore, a, permits(3));
    assert!(three.fence.is_some());
    let two = world.claim(&semaphore, b, permits(2));
    let one = world.claim(&semaphore, c, permits(1));
    assert_eq!((two.fence, one.fence), (None, None), "the small one does not pass the large one");
    let other = Mode::Permits { count: 1, limit: 5 };
    assert!(matches!(world.claim_raw(&semaphore, c, other, true), Answer::Refused(Refused::Invalid(_))));
    world.free(&semaphore, three.claim);
    assert!(world.fence(&semaphore, two.claim).is_some() && world.fence(&semaphore, one.claim).is_some());
    for mode in [permits(0), permits(5), Mode::Exclusive] {
        assert!(matches!(world.claim_raw(&semaphore, a, mode, true), Answer::Refused(Refused::Invalid(_))));
    }
    world.free(&semaphore, two.claim);
    world.free(&semaphore, one.claim);
    assert!(world.claim(&semaphore, a, other).fence.is_some(), "unused, it forgets its limit");
}

#[test]
fn a_barrier_opens_for_all_at_once_and_for_the_next_round_again() {
    let mut world = World::new();
    let [a, b, c] = world.sessions();
    let barrier = RightId::new(RightKind::Barrier, "b");
    let party = Mode::Party { parties: 3 };
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let first = world.claim(&barrier, a, party).claim;
        let second = world.claim(&barrier, b, party).claim;
        assert_eq!(world.state_of(&barrier, first), ClaimState::Waiting);
        let last = world.claim(&barrier, c, party);
        let grants = [first, second, last.claim].map(|claim| match world.state_of(&barrier, claim) {
            ClaimState::Held(grant) => grant,
            other => panic!("not through: {other:?}"),
        });
        assert_eq!(grants.iter().filter(|grant| grant.fence == grant.round).count(), 1, "one leads");
        assert!(grants.iter().all(|grant| grant.round == grants[0].round));
        rounds.push(grants[0].round);
    }
    assert!(rounds[0] < rounds[1]);
    assert_eq!(world.right_view(&barrier).holders.len(), 6, "nobody has left");
}

#[test]
fn a_once_is_settled_by_its_holder_and_everybody_hears_the_outcome() {
    let mut world = World::new();
    let [a, b, c] = world.sessions();
    let once = RightId::new(RightKind::Once, "migrate");
    let first = world.claim(&once, a, Mode::Exclusive);
    let [second, third] = [b, c].map(|session| world.claim(&once, session, Mode::Exclusive).claim);
    assert!(matches!(world.settle(&once, second, "no"), Answer::Refused(Refused::NotHeld { .. })));
    world.client(Operation::EndSession { session: a, cause: ClientEnd::Killed });
    assert!(world.fence(&once, second) > first.fence, "a runner that died passes it on");
    assert!(matches!(world.settle(&once, first.claim, "no"), Answer::Refused(Refused::NotHeld { .. })));
    written(world.settle(&once, second, "yes"));
    for claim in [second, third] {
        assert_eq!(world.state_of(&once, claim), ClaimState::Settled("yes".into()));
    }
    assert_eq!(world.claim_raw(&once, c, Mode::Exclusive, true), Answer::Refused(Refused::Settled));
    world.client(Operation::EndSession { session: b, cause: ClientEnd::Killed });
    assert_eq!(world.right_view(&once).settled, Some("yes".into()), "it outlives its runner");
    written(world.right(RightOperation::Forget(once.clone())));
    assert!(world.claim(&once, c, Mode::Exclusive).fence.is_some());
}

#[test]
fn many_items_are_forgotten_in_several_steps() {
    let mut world = World::new();
    let queue = RightId::new(RightKind::Queue, "q");
    for _ in 0..=MAX_FORGOTTEN {
        written(world.push(&queue, "item", 0));
    }
    for _ in 0..2 {
        written(world.right(RightOperation::Forget(queue.clone())));
    }
    assert_eq!(world.right(RightOperation::Forget(queue)), Answer::Refused(Refused::NotFound));
}

#[test]
fn an_item_that_was_not_settled_goes_back_to_its_old_place() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let queue = RightId::new(RightKind::Queue, "q");
    for (value, priority) in [("low", -1), ("first", 0), ("second", 0)] {
        written(world.push(&queue, value, priority));
    }
    let taken = world.claim(&queue, a, Mode::Exclusive).claim;
    assert_eq!(world.item(&queue, taken), Some("first".into()));
    written(world.push(&queue, "high", 1));
    world.client(Operation::EndSession { session: a, cause: ClientEnd::Killed });
    let mut order = Vec::new();
    for _ in 0..4 {
        let claim = world.claim(&queue, b, Mode::Exclusive).claim;
        order.push(world.item(&queue, claim).expect("there is one"));
        written(world.settle(&queue, claim, ""));
    }
    assert_eq!(order, ["high", "first", "second", "low"]);
    assert_eq!(world.right_view(&queue), RightView::default());
    let waiting = world.claim(&queue, b, Mode::Exclusive);
    assert_eq!(waiting.fence, None);
    written(world.push(&queue, "late", 0));
    assert_eq!(world.item(&queue, waiting.claim), Some("late".into()));
}

#[test]
fn a_page_of_holders_begins_behind_any_fence() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let first = world.claim(&lock(), a, Mode::Shared);
    world.claim(&lock(), b, Mode::Shared);
    let behind = |after| match world.state.query(&Query::Right { right: lock(), after }) {
        Answer::Right(view) => (view.holders.len(), view.has_more),
        other => panic!("no right: {other:?}"),
    };
    assert_eq!(behind(first.fence.unwrap()), (1, false));
    assert_eq!(behind(Fence(u64::MAX)), (0, false));
}

#[test]
fn a_holder_and_nobody_else_says_what_stands_beside_it() {
    let mut world = World::new();
    let [a, b] = world.sessions();
    let election = RightId::new(RightKind::Election, "e");
    let leader = world.claim(&election, a, Mode::Exclusive);
    let other = world.claim(&election, b, Mode::Exclusive);
    let say = |session, claim, value: &'static str| {
        let right = election.clone();
        RightOperation::SetValue { right, session, claim, value: value.into() }
    };
    let before = world.right_view(&election).revision;
    let revision = written(world.right(say(a, leader.claim, "v2")));
    let view = world.right_view(&election);
    assert_eq!((view.holders[0].value.clone(), view.revision), ("v2".into(), revision));
    assert!(revision > before);
    let current = leader.fence.unwrap();
    for (session, claim) in [(b, other.claim), (b, leader.claim)] {
        assert_eq!(world.right(say(session, claim, "no")), Answer::Refused(Refused::NotHeld { current }));
    }
}

#[test]
fn claims_of_a_session_have_a_limit() {
    let claim = |name: u64| {
        let right = RightId::new(RightKind::Lock, name.to_string());
        let (session, mode) = (SessionId(1), Mode::Exclusive);
        Operation::Right(RightOperation::Claim(Claim { right, session, mode, value: Bytes::new(), wait: true }))
    };
    let mut state = State::default();
    state.apply(ClusterTime(1), &Command::Register { ttl: SECOND }, &mut vec![]);
    let mut ask = |seq: u64, operation| {
        let command = Command::Client { session: SessionId(1), seq: Seq(seq), first_incomplete: Seq(seq), operation };
        state.apply(ClusterTime(1), &command, &mut vec![])
    };
    for seq in 1..=limits::MAX_OWNED as u64 {
        assert!(matches!(ask(seq, claim(seq)), Answer::Claimed(_)));
    }
    assert!(matches!(ask(5_000, claim(5_000)), Answer::Refused(Refused::Quota(_))));
}

#[test]
fn a_counter_adds_once_under_one_mark_until_the_mark_is_forgotten() {
    let mut world = World::new();
    let first = world.add("ids", 100, Some("request-9"));
    let Answer::Counted(counted) = first else { panic!("not counted: {first:?}") };
    assert_eq!(counted.value, 100);
    world.add("ids", -30, None);
    assert_eq!(world.add("ids", 100, Some("request-9")), first);
    let shown = world.state.query(&Query::Counter("ids".into()));
    assert!(matches!(shown, Answer::Counted(Counted { value: 70, .. })));
    world.advance(MARK_KEEP - SECOND);
    world.renew();
    world.expire();
    assert_eq!(world.add("ids", 100, Some("request-9")), first);
    world.advance(SECOND);
    world.expire();
    assert!(matches!(world.add("ids", 100, Some("request-9")), Answer::Counted(Counted { value: 170, .. })));
}

#[test]
fn a_sum_beyond_64_bits_is_refused_and_adds_nothing() {
    let mut world = World::new();
    world.add("n", i64::MAX, None);
    assert!(matches!(world.add("n", 1, Some("mark")), Answer::Refused(Refused::Invalid(_))));
    let Answer::Counted(counted) = world.add("n", -1, Some("mark")) else { panic!("the mark was not used up") };
    assert_eq!(counted.value, i64::MAX - 1);
    written(world.client(Operation::Counter(CounterOperation::Remove("n".into()))));
    assert_eq!(world.state.query(&Query::Counter("n".into())), Answer::Counted(Counted::default()));
}

#[test]
fn what_a_right_is_called_is_read_as_it_is_shown() {
    for kind in RightKind::ALL {
        let right = RightId::new(kind, "inventory/42 of the shop");
        assert_eq!(right.to_string().parse(), Ok(right));
    }
    assert!("padlock a".parse::<RightId>().is_err() && "lock ".parse::<RightId>().is_err());
}
