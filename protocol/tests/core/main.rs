//! The consensus core alone: golden scripts, one rule each, and a seeded swarm of faults with every invariant checked.

mod dice;
mod laws;
#[cfg(feature = "mutants")]
mod mutants;
mod swarm;
mod world;

use protocol::effects::Role;
use world::World;

#[test]
fn three_founders_elect_a_leader_and_replicate() {
    let mut world = World::new(3, 1);
    world.run_until(|world| world.leader().is_some());
    let leader = world.leader().expect("just waited for it");
    for value in 0..100 {
        world.propose(leader, value);
    }
    world.run_until(|world| world.nodes.iter().all(|node| node.applied.len() >= 101));
    assert_eq!(world.core(leader).role(), Role::Leader);
    assert!(world.nodes.iter().all(|node| node.fatal.is_none()));
}
