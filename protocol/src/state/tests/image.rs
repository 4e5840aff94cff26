//! An image of every kind of record, and of garbage.

use bytes::Bytes;

use super::world::{World, done};
use crate::state::*;
use crate::wire;

/// A state with something of everything, one task with a large input and a large result.
fn full() -> State {
    let mut world = World::with_worker();
    let large = Bytes::from(vec![7; wire::MAX_VALUE]);
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
    world.state
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
    let state = full();
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
    let chunks: Vec<Bytes> = full().image().collect();
    for gone in 0..chunks.len() {
        let mut torn = chunks.clone();
        torn.remove(gone);
        assert!(restore(&torn).is_err(), "without chunk {gone}");
    }
    assert!(restore(&[chunks.clone(), chunks].concat()).is_err(), "twice");
}

#[test]
fn no_bytes_make_it_panic() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("resize", "x"));
    world.assign(task, 1);
    let owner = Some(world.register(std::time::Duration::from_secs(9)));
    let ttl = Some(std::time::Duration::from_secs(8));
    world.client(Operation::Put(Put { owner, ttl, ..Put::new("k", "v") }));
    let chunks: Vec<Bytes> = world.state.image().collect();
    let [chunk] = &chunks[..] else { panic!("a small state is one chunk") };
    for place in 0..chunk.len() {
        for bit in 0..8 {
            let mut bytes = chunk.to_vec();
            bytes[place] ^= 1 << bit;
            match restore(&[bytes.into()]) {
                Ok(restored) => assert_eq!(restored, world.state, "bit {bit} of byte {place} changed the state unseen"),
                Err(_) => continue,
            }
        }
        assert!(restore(&[chunk.slice(..place)]).is_err(), "cut at {place}");
    }
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
