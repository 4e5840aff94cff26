//! An image of every kind of record, and of garbage.

use std::time::Duration;

use bytes::Bytes;

use super::world::{World, done};
use crate::state::image::Item;
use crate::state::limits::{MAX_KIND, MAX_NODES, MAX_SESSIONS, WINDOW};
use crate::state::*;
use crate::types::{ClaimId, ClusterTime, Incarnation, NodeId, Seq, SessionId};
use crate::wire;

/// A state with something of everything, one task with an input and a result like `large`.
fn full(large: &Bytes) -> State {
    let mut world = World::with_worker();
    let failing = world.submit(TaskSpec { retries: 0, ..TaskSpec::new("resize", large.clone()) });
    let fence = world.assign(failing, 1);
    world.finish(failing, fence, Outcome::Failed { message: "no".into(), retry: false, output: large.clone() });
    let held = world.submit(TaskSpec { once_key: Some("once".into()), ..TaskSpec::new("resize", "x") });
    world.assign(held, 1);
    let ended = world.submit(TaskSpec::new("resize", "y"));
    let fence = world.assign(ended, 1);
    world.finish(ended, fence, done("out"));
    for key in ["a", "b", "c"] {
        world.client(Operation::Put(Put::new(key, large.clone())));
    }
    let host = Some(Host { node: NodeId(1), incarnation: Incarnation(1) });
    let about = About { label: "mine".into(), host, fast_release: true };
    world.client(Operation::OpenSession(OpenSession { ttl: Duration::from_secs(9), about }));
    let owner = Some(world.register(Duration::from_secs(9)));
    let ttl = Some(Duration::from_secs(8));
    world.client(Operation::Put(Put { owner, ttl, sequence: true, ..Put::new("mine-", "v") }));
    world.client(Operation::Transact(Transaction {
        then: vec![KeyOperation::Get("a".into()), KeyOperation::Put(Put::new("d", "v"))],
        ..Transaction::default()
    }));
    world.client(Operation::Roster(RosterChange::Promote(NodeId(5))));
    world.client(Operation::Roster(RosterChange::Remove(NodeId(6))));
    world.everything_about_rights();
    world.state
}

fn large() -> Bytes {
    Bytes::from(vec![7; wire::MAX_VALUE])
}

/// The records of a small state with something of everything, and the state.
fn records() -> (Vec<Item>, State) {
    let state = full(&Bytes::from_static(b"small"));
    let mut records = Vec::new();
    for chunk in state.image() {
        let mut rest = &chunk[..];
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (record, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            records.push(wire::decode(record, wire::MAX_MESSAGE).unwrap());
            rest = after;
        }
    }
    (records, state)
}

/// A chunk of these records.
fn chunk(records: &[Item]) -> Bytes {
    let mut chunk = Vec::new();
    for record in records {
        let record = wire::encode(record, wire::MAX_MESSAGE).unwrap();
        chunk.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
        chunk.extend(record);
    }
    chunk.into()
}

/// How many records a restoration takes before it refuses one.
fn taken(mut record: impl FnMut(u64) -> Item) -> u64 {
    let mut restore = Restore::default();
    restore.take(&chunk(&records().0[..1])).unwrap();
    (1..).find(|&number| restore.take(&chunk(&[record(number)])).is_err()).unwrap() - 1
}

impl World {
    /// A right of every kind, held and waited for, an outcome, items and a counter.
    fn everything_about_rights(&mut self) {
        let session = self.register(std::time::Duration::from_secs(10));
        let claims = [
            (RightKind::Lock, Mode::Exclusive),
            (RightKind::Election, Mode::Exclusive),
            (RightKind::Semaphore, Mode::Permits { count: 2, limit: 3 }),
            (RightKind::Group, Mode::Member),
            (RightKind::Barrier, Mode::Party { parties: 3 }),
            (RightKind::Queue, Mode::Exclusive),
            (RightKind::Once, Mode::Exclusive),
        ];
        for priority in [0, 1] {
            let push = RightOperation::Push { queue: "r".into(), value: Bytes::from_static(b"item"), priority };
            self.client(Operation::Right(push));
        }
        let mut runner = ClaimId(0);
        for (kind, mode) in claims.into_iter().cycle().take(14) {
            let claim =
                Claim { right: RightId::new(kind, "r"), session, mode, value: Bytes::from_static(b"v"), wait: true };
            let answer = self.client(Operation::Right(RightOperation::Claim(claim.clone())));
            let Answer::Claimed(claimed) = answer else { panic!("not claimed: {answer:?}") };
            if kind == RightKind::Once && claimed.fence.is_some() {
                runner = claimed.claim;
            }
        }
        let right = RightId::new(RightKind::Once, "r");
        let settle = RightOperation::Settle { right, session, claim: runner, outcome: Bytes::from_static(b"done") };
        assert!(matches!(self.client(Operation::Right(settle)), Answer::Written(_)));
        let add = Add { counter: "n".into(), by: -7, once: Some("mark".into()) };
        self.client(Operation::Counter(CounterOperation::Add(add)));
    }
}

fn restore(chunks: &[Bytes]) -> Result<State, ImageError> {
    let mut restore = Restore::default();
    for chunk in chunks {
        restore.take(chunk)?;
    }
    restore.finish()
}

#[test]
fn an_image_restores_to_the_state_it_was_made_of() {
    let state = full(&large());
    let chunks: Vec<Bytes> = state.image().collect();
    assert!(chunks.len() >= 6, "large records stand alone");
    assert!(chunks.iter().all(|chunk| chunk.len() <= wire::MAX_MESSAGE - 1024), "every chunk fits into a message");
    let restored = restore(&chunks).unwrap();
    assert_eq!(restored, state);
    restored.assert_coherent();
    assert_eq!(restored.image().collect::<Vec<_>>(), chunks, "equal states have equal images");
    assert_eq!(restore(&State::default().image().collect::<Vec<_>>()), Ok(State::default()));
}

#[test]
fn an_image_that_lacks_a_chunk_is_refused() {
    let chunks: Vec<Bytes> = full(&large()).image().collect();
    for gone in 0..chunks.len() {
        let mut torn = chunks.clone();
        torn.remove(gone);
        assert!(restore(&torn).is_err(), "without chunk {gone}");
    }
    assert!(restore(&[chunks.clone(), chunks].concat()).is_err(), "twice");
}

#[test]
fn no_bytes_make_it_panic() {
    let (records, state) = records();
    let chunk = chunk(&records);
    assert_eq!(restore(std::slice::from_ref(&chunk)).as_ref(), Ok(&state));
    for place in 0..chunk.len() {
        for bit in 0..8 {
            let mut bytes = chunk.to_vec();
            bytes[place] ^= 1 << bit;
            match restore(&[bytes.into()]) {
                Ok(restored) => assert_eq!(restored, state, "bit {bit} of byte {place} changed the state unseen"),
                Err(_) => continue,
            }
        }
        assert!(restore(&[chunk.slice(..place)]).is_err(), "cut at {place}");
    }
}

#[test]
fn records_in_another_order_or_number_never_panic() {
    let (records, state) = records();
    let restored = |records: &[Item]| {
        if let Ok(restored) = restore(&[chunk(records)]) {
            assert_eq!(restored, state);
        }
    };
    for one in 0..records.len() {
        for other in 0..=records.len() {
            let mut twice = records.clone();
            twice.insert(other, records[one].clone());
            restored(&twice);
        }
        for other in 0..records.len() {
            let mut swapped = records.clone();
            swapped.swap(one, other);
            restored(&swapped);
            swapped.remove(one);
            restored(&swapped);
        }
    }
}

#[test]
fn endless_records_of_any_kind_are_refused() {
    let (ttl, deadline, first_incomplete) = (Duration::from_secs(1), ClusterTime(1), Seq(1));
    let client = |id, label: String| {
        let about = About { label, ..About::default() };
        Item::Client { id: SessionId(id), ttl, deadline, first_incomplete, about }
    };
    let node = |id, label: String| {
        let (offer, incarnation) = (Offer { label, ..Offer::default() }, Incarnation(1));
        Item::Node { id: SessionId(id), ttl, deadline, node: NodeId(id), incarnation, offer }
    };
    assert_eq!(taken(|id| client(id, String::new())), MAX_SESSIONS as u64);
    assert_eq!(taken(|id| node(id, String::new())), MAX_NODES as u64);
    assert_eq!(taken(|id| client(id, "x".repeat(MAX_KIND + 1))), 0, "what no session may say of itself");
    assert_eq!(taken(|id| node(id, "x".repeat(MAX_KIND + 1))), 0, "what no node may offer");
    assert_eq!(taken(|_| Item::Reply { seq: Seq(1), answer: Answer::Ok }), 0, "an answer without its client");
    let replies = taken(|number| match number {
        1 => client(1, String::new()),
        number => Item::Reply { seq: Seq(number - 1), answer: Answer::Ok },
    });
    assert_eq!(replies, 1 + WINDOW);
    assert_eq!(taken(|_| Item::Payload(Bytes::from(vec![0; wire::MAX_VALUE]))), 1, "an input without its task");
}

#[test]
fn a_copy_shares_what_does_not_change() {
    let mut world = World::with_worker();
    let tasks = world.submit_all((0..200).map(|_| TaskSpec::new("resize", "x")).collect());
    let frozen = world.state.clone();
    let before: Vec<Bytes> = frozen.image().collect();
    for submitted in tasks {
        world.assign(submitted.task, 1);
    }
    assert_eq!(frozen.image().collect::<Vec<_>>(), before, "the copy stays as it was");
    assert_ne!(frozen, world.state);
}
