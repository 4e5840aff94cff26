use super::*;
use crate::state::{Delivery, Expect};
use crate::types::{ClaimId, Fence, Revision};

fn timed<A>(begin: u64, end: u64, act: A) -> Timed<A> {
    Timed { begin, end: Some(end), act }
}

fn doubtful<A>(begin: u64, act: A) -> Timed<A> {
    Timed { begin, end: None, act }
}

fn write(value: u64, expect: Expect, answer: WriteAnswer) -> RegisterAct {
    RegisterAct::Write { value: Some(value), expect, answer }
}

fn put(value: u64, revision: u64) -> RegisterAct {
    write(value, Expect::Any, WriteAnswer::Done(Revision(revision)))
}

fn maybe_put(value: u64) -> RegisterAct {
    write(value, Expect::Any, WriteAnswer::Unknown)
}

fn delete(answer: WriteAnswer) -> RegisterAct {
    RegisterAct::Write { value: None, expect: Expect::Any, answer }
}

fn get(value: u64, revision: u64) -> RegisterAct {
    RegisterAct::Read(Some((value, Revision(revision))))
}

fn holds(acts: &[Timed<RegisterAct>]) -> bool {
    match check(&Register::of(acts), acts) {
        Ok(()) => true,
        Err(Fault::NoOrder { .. }) => false,
        Err(Fault::TooHard) => panic!("too hard"),
    }
}

#[test]
fn a_read_that_misses_an_acknowledged_write_is_found() {
    let read = timed(4, 5, get(7, 1));
    assert!(!holds(&[timed(0, 1, put(7, 1)), timed(2, 3, put(8, 2)), read.clone()]));
    assert!(holds(&[timed(0, 1, put(7, 1)), timed(2, 6, put(8, 2)), read]));
}

#[test]
fn a_read_that_goes_back_behind_another_one_is_found() {
    let writes = [timed(0, 1, put(7, 1)), timed(2, 9, put(8, 2))];
    let reads = |first, second| [timed(3, 4, first), timed(5, 6, second)];
    let with = |reads: [Timed<RegisterAct>; 2]| [&writes[..], &reads].concat();
    assert!(holds(&with(reads(get(7, 1), get(8, 2)))));
    assert!(!holds(&with(reads(get(8, 2), get(7, 1)))));
}

#[test]
fn a_write_of_unknown_outcome_may_come_later_or_never_but_not_come_and_go() {
    let first = timed(0, 1, put(7, 1));
    let unknown = doubtful(2, maybe_put(8));
    let old = |begin| timed(begin, begin + 1, get(7, 1));
    let new = |begin| timed(begin, begin + 1, get(8, 2));
    assert!(holds(&[first.clone(), unknown.clone(), old(4), new(6)]));
    assert!(holds(&[first.clone(), unknown.clone(), old(4), old(6)]));
    assert!(!holds(&[first.clone(), unknown, new(4), old(6)]));
    assert!(!holds(&[first, new(4), doubtful(6, maybe_put(8))]), "not before it was asked");
}

#[test]
fn a_write_of_unknown_outcome_takes_effect_once() {
    let acts = [doubtful(0, maybe_put(8)), timed(2, 3, get(8, 4)), timed(4, 5, put(9, 5)), timed(6, 7, get(8, 6))];
    assert!(!holds(&acts));
}

#[test]
fn two_writes_on_one_revision_are_found() {
    let first = timed(0, 1, put(7, 1));
    let at_one = Expect::Revision(Revision(1));
    let cas = |value, revision| write(value, at_one, WriteAnswer::Done(Revision(revision)));
    let refused = |current| write(9, at_one, WriteAnswer::Conflict(current));
    assert!(!holds(&[first.clone(), timed(2, 5, cas(8, 2)), timed(3, 6, cas(9, 3))]));
    assert!(holds(&[first.clone(), timed(2, 5, cas(8, 2)), timed(3, 6, refused(None))]));
    assert!(holds(&[first.clone(), timed(2, 5, cas(8, 2)), timed(3, 6, refused(Some(Revision(2))))]));
    assert!(!holds(&[first.clone(), timed(2, 5, cas(8, 2)), timed(3, 6, refused(Some(Revision(3))))]));
    assert!(!holds(&[first, timed(2, 3, refused(None))]));
}

#[test]
fn a_refusal_may_show_what_a_write_of_unknown_outcome_did() {
    let first = timed(0, 1, put(7, 1));
    let at_one = Expect::Revision(Revision(1));
    let refused = timed(4, 5, write(9, at_one, WriteAnswer::Conflict(Some(Revision(2)))));
    assert!(!holds(&[first.clone(), refused.clone()]));
    assert!(holds(&[first, doubtful(2, maybe_put(8)), refused]));
}

#[test]
fn revisions_only_grow() {
    assert!(!holds(&[timed(0, 1, put(7, 5)), timed(2, 3, put(8, 4))]));
    assert!(!holds(&[timed(0, 1, put(7, 5)), doubtful(2, maybe_put(8)), timed(3, 4, get(8, 4))]));
}

#[test]
fn what_is_removed_is_gone_and_is_removed_once() {
    let first = timed(0, 1, put(7, 1));
    let removed = timed(2, 3, delete(WriteAnswer::Done(Revision(2))));
    let nothing = |begin, end| timed(begin, end, RegisterAct::Read(None));
    assert!(holds(&[first.clone(), removed.clone(), nothing(4, 5)]));
    assert!(!holds(&[first.clone(), nothing(4, 5)]));
    assert!(!holds(&[first.clone(), removed.clone(), timed(4, 5, delete(WriteAnswer::Done(Revision(3))))]));
    assert!(holds(&[first.clone(), removed, timed(4, 5, delete(WriteAnswer::NotFound))]));
    let again = write(9, Expect::Absent, WriteAnswer::Done(Revision(4)));
    assert!(holds(&[first.clone(), doubtful(2, delete(WriteAnswer::Unknown)), timed(6, 7, again.clone())]));
    assert!(!holds(&[first, timed(6, 7, again)]));
}

#[test]
fn many_writes_of_unknown_outcome_cost_little() {
    let mut acts: Vec<_> = (0..50).map(|value| doubtful(0, maybe_put(1000 + value))).collect();
    acts.extend((0..50).map(|_| doubtful(0, delete(WriteAnswer::Unknown))));
    for round in 0..200 {
        acts.push(timed(10 * round + 1, 10 * round + 5, put(round, 2 * round + 1)));
        if round % 4 == 0 {
            acts.push(timed(10 * round + 6, 10 * round + 7, get(1000 + round / 4, 2 * round + 2)));
        } else if round % 4 == 1 {
            acts.push(timed(10 * round + 6, 10 * round + 7, RegisterAct::Read(None)));
        }
    }
    assert!(holds(&acts));
}

#[test]
fn a_search_agrees_with_trying_every_order() {
    let mut random = 7_u64;
    let mut dice = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut counts = [0; 2];
    for _ in 0..20_000 {
        let acts: Vec<_> = (0..5)
            .map(|place| {
                let (revision, expect) = (Revision(1 + dice(4)), Revision(dice(3)));
                let act = match dice(6) {
                    0 => put(place, revision.0),
                    1 => maybe_put(place),
                    2 => write(place, Expect::Revision(expect), WriteAnswer::Done(revision)),
                    3 => write(place, Expect::Revision(expect), WriteAnswer::Conflict(None)),
                    4 => get(dice(5), revision.0),
                    _ => delete([WriteAnswer::Unknown, WriteAnswer::NotFound][dice(2) as usize]),
                };
                let begin = dice(12);
                let is_doubtful = matches!(act, RegisterAct::Write { answer: WriteAnswer::Unknown, .. });
                Timed { begin, end: (!is_doubtful).then(|| begin + dice(6)), act }
            })
            .collect();
        let model = Register::of(&acts);
        let expected = some_order_holds(&model, model.initial(), &acts.iter().collect::<Vec<_>>());
        assert_eq!(holds(&acts), expected, "{acts:#?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts[0] > 1_000 && counts[1] > 1_000, "{counts:?}");
}

/// The definition itself.
fn some_order_holds<M: Model>(model: &M, state: M::State, open: &[&Timed<M::Act>]) -> bool {
    open.iter().all(|act| act.end.is_none())
        || (0..open.len()).any(|place| {
            let act = open[place];
            let is_next = open.iter().all(|other| other.end.is_none_or(|end| end >= act.begin));
            let rest: Vec<_> = open.iter().filter(|other| !std::ptr::eq(**other, act)).copied().collect();
            is_next && model.after(&state, &act.act).is_some_and(|state| some_order_holds(model, state, &rest))
        })
}

#[test]
fn a_fault_names_the_act_that_fits_nowhere() {
    let acts = [timed(0, 1, put(7, 1)), timed(2, 3, put(8, 2)), timed(4, 5, get(7, 1))];
    assert_eq!(check(&Register::of(&acts), &acts), Err(Fault::NoOrder { placed: 1, stuck: 2 }));
    let mut history = History::default();
    acts.into_iter().for_each(|act| history.add("a", act));
    let words = history.check(Register::of).expect_err("it is not linearizable");
    assert!(words.contains("\"a\"") && words.contains("Read"), "{words}");
}

// ---- tasks ----

fn task(acts: Vec<TaskAct>) -> bool {
    let acts: Vec<_> = (0..).zip(acts).map(|(place, act)| timed(10 * place, 10 * place + 5, act)).collect();
    check(&Task, &acts).is_ok()
}

fn start(number: u32, fence: u64) -> TaskAct {
    TaskAct::Start { number, fence: Fence(fence) }
}

fn ended(ending: Ending) -> TaskAct {
    TaskAct::Look(Some(Standing::Ended(ending)))
}

fn live(attempts: u32) -> TaskAct {
    TaskAct::Look(Some(Standing::Live(attempts)))
}

const OFTEN: TaskAct = TaskAct::Submit(Delivery::AtLeastOnce);
const ONCE: TaskAct = TaskAct::Submit(Delivery::AtMostOnce);

#[test]
fn what_may_run_once_is_started_once() {
    assert!(task(vec![OFTEN, start(1, 10), start(2, 20)]));
    assert!(task(vec![ONCE, start(1, 10), ended(Ending::Lost)]));
    assert!(task(vec![ONCE, start(2, 20)]), "the first attempt was never started");
    assert!(!task(vec![ONCE, start(1, 10), start(2, 20)]));
    assert!(!task(vec![OFTEN, start(1, 10), start(1, 10)]));
    assert!(!task(vec![OFTEN, start(1, 20), start(2, 10)]), "fences grow");
    assert!(!task(vec![start(1, 10), OFTEN]), "nothing runs before it is submitted");
}

#[test]
fn a_task_ends_once() {
    let done = |fence| ended(Ending::Done(Fence(fence)));
    assert!(task(vec![OFTEN, start(1, 10), start(2, 20), done(10), done(10), TaskAct::Name]));
    assert!(!task(vec![OFTEN, start(1, 10), start(2, 20), done(10), done(20)]));
    assert!(!task(vec![OFTEN, start(1, 10), done(10), live(1)]));
    assert!(!task(vec![OFTEN, start(1, 10), done(20)]), "a result of nobody");
    assert!(!task(vec![OFTEN, start(1, 10), live(2), live(1)]));
    assert!(!task(vec![OFTEN, ended(Ending::Lost)]));
    assert!(!task(vec![OFTEN, TaskAct::Look(None)]));
    assert!(!task(vec![TaskAct::Name, OFTEN]));
}

#[test]
fn a_cancelled_task_stays_cancelled() {
    let cancel = TaskAct::Cancel;
    let cancelled = ended(Ending::Cancelled);
    assert!(task(vec![OFTEN, cancel(CancelAnswer::Done), start(1, 10), cancelled.clone()]), "a worker hears late");
    assert!(!task(vec![OFTEN, cancel(CancelAnswer::Done), cancel(CancelAnswer::Done)]));
    assert!(!task(vec![OFTEN, cancel(CancelAnswer::Done), ended(Ending::Failed)]));
    assert!(!task(vec![OFTEN, cancel(CancelAnswer::Ended), live(1)]));
    assert!(task(vec![OFTEN, cancel(CancelAnswer::Ended), ended(Ending::Failed)]));
    let doubt = doubtful(11, cancel(CancelAnswer::Unknown));
    let acts = |second| vec![timed(0, 1, OFTEN), doubt.clone(), timed(20, 21, live(0)), timed(30, 31, second)];
    assert!(check(&Task, &acts(cancelled)).is_ok());
    assert!(check(&Task, &acts(live(1))).is_ok());
}

#[test]
fn a_submission_of_unknown_outcome_shows_itself() {
    let acts = [doubtful(5, ONCE), timed(20, 20, start(1, 10))];
    assert!(check(&Task, &acts).is_ok());
    let early = [doubtful(30, ONCE), timed(20, 20, start(1, 10))];
    assert!(check(&Task, &early).is_err());
}

// ---- locks ----

fn grant(claim: u64, fence: u64) -> LockAct {
    LockAct::Grant { claim: ClaimId(claim), fence: Some(Fence(fence)), is_shared: false }
}

fn read_grant(claim: u64, fence: u64) -> LockAct {
    LockAct::Grant { claim: ClaimId(claim), fence: Some(Fence(fence)), is_shared: true }
}

fn maybe_grant(claim: u64) -> LockAct {
    LockAct::Grant { claim: ClaimId(claim), fence: None, is_shared: false }
}

fn end(claim: u64) -> LockAct {
    LockAct::End(ClaimId(claim))
}

fn look(holders: &[(u64, u64)]) -> LockAct {
    LockAct::Look(holders.iter().map(|(claim, fence)| (ClaimId(*claim), Fence(*fence))).collect())
}

fn locks(acts: &[Timed<LockAct>]) -> bool {
    match check(&Lock::of(acts), acts) {
        Ok(()) => true,
        Err(Fault::NoOrder { .. }) => false,
        Err(Fault::TooHard) => panic!("too hard"),
    }
}

fn lock(acts: Vec<LockAct>) -> bool {
    let acts: Vec<_> = (0..).zip(acts).map(|(place, act)| timed(10 * place, 10 * place + 5, act)).collect();
    locks(&acts)
}

#[test]
fn a_lock_is_granted_again_when_its_holder_has_ended_and_under_a_greater_fence() {
    assert!(lock(vec![grant(1, 10), end(1), grant(2, 20), end(2)]));
    assert!(!lock(vec![grant(1, 10), grant(2, 20), end(1)]));
    assert!(!lock(vec![grant(1, 20), end(1), grant(2, 10)]), "fences grow");
    assert!(!lock(vec![grant(1, 10), end(1), grant(2, 10)]), "and none comes twice");
    assert!(!lock(vec![grant(1, 10), end(1), end(1)]), "a claim ends once");
    assert!(!lock(vec![end(1), grant(1, 10)]));
    assert!(lock(vec![end(7), grant(1, 10)]), "one that was in line");
}

#[test]
fn a_holder_that_may_have_died_may_have_handed_over_since_and_not_before() {
    let acts = |death| [timed(0, 5, grant(1, 10)), doubtful(death, end(1)), timed(10, 15, grant(2, 20))];
    assert!(locks(&acts(7)) && locks(&acts(12)));
    assert!(!locks(&acts(16)));
    let back = [&acts(7)[..], &[timed(20, 25, end(1))]].concat();
    assert!(!locks(&back), "it cannot give back what another one holds");
}

#[test]
fn readers_share_a_lock_and_a_writer_does_not() {
    assert!(lock(vec![read_grant(1, 10), read_grant(2, 20), look(&[(1, 10), (2, 20)]), end(1), end(2), grant(3, 30)]));
    assert!(!lock(vec![read_grant(1, 10), read_grant(2, 20), end(1), grant(3, 30)]));
    assert!(!lock(vec![grant(1, 10), read_grant(2, 20)]));
}

#[test]
fn who_holds_a_lock_is_what_is_seen_and_why_others_are_refused() {
    assert!(lock(vec![look(&[]), grant(1, 10), look(&[(1, 10)]), LockAct::Refuse(Fence(10)), end(1), look(&[])]));
    assert!(!lock(vec![grant(1, 10), look(&[])]));
    assert!(!lock(vec![grant(1, 10), end(1), look(&[(1, 10)])]));
    assert!(!lock(vec![LockAct::Refuse(Fence(10)), grant(1, 10)]));
    assert!(!lock(vec![grant(1, 10), end(1), LockAct::Refuse(Fence(10))]));
    let unknown = [doubtful(0, maybe_grant(1)), timed(5, 6, LockAct::Refuse(Fence(3)))];
    assert!(locks(&unknown), "one of unknown outcome may be in the way");
    assert!(!locks(&[&unknown[..], &[timed(10, 11, grant(2, 20))]].concat()), "and then it is");
    assert!(locks(&[&unknown[..], &[doubtful(7, end(1)), timed(10, 11, grant(2, 20))]].concat()));
}

#[test]
fn a_search_for_an_order_of_a_lock_agrees_with_trying_every_order() {
    let mut random = 11_u64;
    let mut dice = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut counts = [0; 2];
    for _ in 0..20_000 {
        let acts: Vec<_> = (0..6)
            .map(|place| {
                let (claim, fence) = (1 + dice(3), 1 + dice(5));
                let (act, is_doubtful) = match dice(8) {
                    0 | 1 => (grant(claim, fence), false),
                    2 => (read_grant(claim, fence), false),
                    3 => (maybe_grant(100 + place), true),
                    4 => (end(claim), false),
                    5 => (end([claim, 100 + dice(6)][dice(2) as usize]), true),
                    6 => (LockAct::Refuse(Fence(fence)), false),
                    _ => (look(&[(claim, fence)][dice(2) as usize..]), false),
                };
                let begin = dice(12);
                Timed { begin, end: (!is_doubtful).then(|| begin + dice(8)), act }
            })
            .collect();
        let model = Lock::of(&acts);
        let expected = some_order_holds(&model, model.initial(), &acts.iter().collect::<Vec<_>>());
        assert_eq!(locks(&acts), expected, "{acts:#?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts[0] > 1_000 && counts[1] > 1_000, "{counts:?}");
}
