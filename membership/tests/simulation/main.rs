//! The engine under loss, stalls, crashes and partitions, in virtual time. Every run follows from its seed.
//!
//! The letters are those of the design: (a) tables become exact after faults, (b) a crash is known in time, (c) nobody is
//! declared down for a short stall or lost packets, (d) a restart is told if and only if the process changed, (e) no name
//! is given up unless somebody held it to be down, (f) a farewell is known at once and final, (g) idling is cheap.

mod world;

use std::time::Duration;

use membership::{Event, MemberState, Timing};
use protocol::Nanos;
use rand::RngExt;
use world::{World, id};

const SECOND: Duration = Duration::from_secs(1);

/// (a) on joining.
#[test]
fn everybody_who_starts_together_meets() {
    for seed in 0..3 {
        let mut world = World::new(seed, Timing::LAN);
        for _ in 0..16 {
            world.add();
        }
        world.loss = 0.05;
        world.run_until(5 * SECOND, "sixteen meet", World::is_exact);
        world.check_replay();
    }
}

/// (b)
#[test]
fn everybody_knows_of_a_crash_in_time() {
    for seed in 0..40 {
        let mut world = World::settled(seed, Timing::LAN, 5);
        world.loss = 0.01;
        let victim = world.rng.random_range(0..5);
        world.crash(victim);
        let knows = |world: &World| {
            (0..5).filter(|at| *at != victim).all(|at| world.state(at, victim) == Some(MemberState::Unreachable))
        };
        world.run_until(3 * SECOND, "all know of the crash", knows);
        assert!(count(&world, |event| matches!(event, Event::Failed(m) if m.node != id(victim))) == 0, "seed {seed}");
    }
}

/// (c)
#[test]
fn a_short_stall_and_lost_packets_fail_nobody() {
    for seed in 0..10 {
        let mut world = World::settled(seed, Timing::LAN, 5);
        world.loss = [0.0, 0.05, 0.25][seed as usize % 3];
        for _ in 0..10 {
            let index = world.rng.random_range(0..5);
            let span = world.rng.random_range(50..800);
            world.stall(index, Duration::from_millis(span));
            world.run(2 * SECOND);
        }
        assert_eq!(count(&world, |event| matches!(event, Event::Failed(_))), 0, "seed {seed}");
        assert_eq!(count(&world, |event| matches!(event, Event::SelfDeclaredDown)), 0, "seed {seed}");
    }
}

/// (c) for a node whose timers run while its datagrams wait: it must not take its own trouble for everybody else's.
#[test]
fn a_deaf_node_declares_nobody_down() {
    for (seed, size) in [(0, 3), (1, 3), (2, 5), (3, 5), (4, 5), (5, 8)] {
        let mut world = World::settled(seed, Timing::LAN, size);
        world.deafen(1, 3 * SECOND);
        world.run(6 * SECOND);
        let healthy = |event: &Event| matches!(event, Event::Failed(member) if member.node != id(1));
        assert_eq!(count(&world, healthy), 0, "seed {seed}");
    }
}

/// (c) for two nodes that cannot hear each other while others hear both.
#[test]
fn a_link_cut_between_two_fails_neither() {
    for seed in 0..4 {
        let mut world = World::settled(seed, Timing::LAN, 5);
        world.cut.insert((0, 1));
        if seed % 2 == 1 {
            world.cut.insert((1, 0));
        }
        world.loss = 0.02;
        world.run(20 * SECOND);
        assert_eq!(count(&world, |event| matches!(event, Event::Failed(_))), 0, "seed {seed}");
    }
}

/// (c) with nobody else there whose contact could tell.
#[test]
fn a_node_that_stood_still_gives_its_suspect_the_time_it_missed() {
    for seed in 0..5 {
        let mut world = World::settled(seed, Timing::LAN, 2);
        world.nodes[1].side = 1;
        world.run_until(2 * SECOND, "a suspicion", |world| world.state(0, 1) == Some(MemberState::Suspect));
        world.stall(0, 3 * SECOND);
        world.run(Duration::from_millis(2_990));
        world.nodes[1].side = 0;
        world.run(3 * SECOND);
        let wrong = world.history.iter().filter(|(_, who, event)| *who == 0 && matches!(event, Event::Failed(_)));
        assert_eq!(wrong.count(), 0, "seed {seed}");
    }
}

/// (d)
#[test]
fn a_restart_is_told_once_by_everybody_with_both_incarnations() {
    for seed in 0..10 {
        let mut world = World::settled(seed, Timing::LAN, 5);
        world.loss = 0.05;
        let gone = Duration::from_millis(world.rng.random_range(0..4_000));
        world.crash(3);
        world.run(gone);
        world.start(3);
        world.run_until(5 * SECOND, "the new run is known", World::is_exact);
        for at in [0, 1, 2, 4] {
            let told = |(_, who, event): &&(Nanos, usize, Event)| {
                *who == at
                    && matches!(event, Event::Restarted { old, new } if new.node == id(3) && *old < new.incarnation)
            };
            assert_eq!(world.history.iter().filter(told).count(), 1, "seed {seed}, node {at}");
        }
        world.check_replay();
    }
}

/// (f)
#[test]
fn a_farewell_is_known_at_once_and_final() {
    for seed in 0..20 {
        let mut world = World::settled(seed, Timing::LAN, 8);
        world.loss = 0.05;
        world.leave(2);
        let knows =
            |world: &World| (0..8).filter(|at| *at != 2).all(|at| world.state(at, 2) == Some(MemberState::Left));
        world.run_until(SECOND / 2, "all know of the farewell", knows);
        world.run(20 * SECOND);
        assert!(knows(&world), "seed {seed}");
        let wrong = |event: &Event| matches!(event, Event::Failed(m) | Event::Rejoined(m) if m.node == id(2));
        assert_eq!(count(&world, wrong), 0, "seed {seed}");
        world.check_replay();
    }
}

/// (a) after a partition long enough that everybody forgot how the other side was.
#[test]
fn a_long_partition_heals_in_seconds() {
    for (seed, sides) in [
        (0, vec![0, 1]),
        (1, vec![0, 1, 1]),
        (2, vec![0, 0, 1, 1]),
        (3, vec![0, 1, 2, 3, 4]),
        (4, vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
    ] {
        let mut world = World::settled(seed, Timing::LAN, sides.len());
        for (index, side) in sides.iter().enumerate() {
            world.nodes[index].side = *side;
        }
        world.run(60 * SECOND);
        for (at, side) in sides.iter().enumerate() {
            let active = world.view(at).active().count();
            assert_eq!(active, sides.iter().filter(|other| *other == side).count() - 1, "{sides:?}");
        }
        let cut = world.history.len();
        for node in &mut world.nodes {
            node.side = 0;
        }
        let took = world.run_until(15 * SECOND, "the halves are one again", World::is_exact);
        eprintln!("{sides:?} healed in {took:?}");
        world.check_replay();
        let again: Vec<_> = world.history[cut..].iter().filter(|(_, _, e)| matches!(e, Event::Failed(_))).collect();
        assert!(again.is_empty(), "nobody fails because of the healing: {again:?}");
    }
}

/// (g)
#[test]
fn idling_is_cheap() {
    let mut world = World::settled(1, Timing::LAN, 8);
    world.run(30 * SECOND);
    (world.bytes, world.datagrams) = (0, 0);
    world.run(60 * SECOND);
    let (bytes, datagrams) = (world.bytes / 60 / 8, world.datagrams / 60 / 8);
    eprintln!("idle: {datagrams} datagrams and {bytes} bytes a second per node");
    assert!(datagrams <= 11 && bytes <= 1200, "{datagrams} datagrams and {bytes} bytes a second per node");
}

#[test]
fn new_tags_reach_everybody_in_spite_of_loss() {
    for seed in 0..5 {
        let mut world = World::settled(seed, Timing::LAN, 8);
        world.loss = 0.25;
        world.set_tags(4, "renamed");
        world.run_until(3 * SECOND, "all know the new tags", World::is_exact);
        world.check_replay();
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    assert_eq!(storm(7).trace(), storm(7).trace());
    assert_ne!(storm(7).trace(), storm(8).trace());
}

/// (a), (d), (e) and the replay of events, under everything at once.
#[test]
fn whatever_happened_the_tables_become_exact() {
    let seeds = std::env::var("TENURE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let world = storm(seed);
        restarts_are_real(&world);
        renewals_have_a_reason(&world);
    }
}

/// Twenty seconds of faults drawn from the seed, and the healing.
fn storm(seed: u64) -> World {
    let mut world = World::new(seed, Timing::LAN);
    let size = world.rng.random_range(2..7);
    for _ in 0..size {
        world.add();
    }
    world.loss = [0.0, 0.02, 0.1, 0.3][world.rng.random_range(0..4)];
    for _ in 0..40 {
        let index = world.rng.random_range(0..size);
        let span = Duration::from_millis(world.rng.random_range(10..3_000));
        match world.rng.random_range(0..10) {
            0 if world.runs(index) => world.crash(index),
            0..=2 if world.nodes[index].engine.is_none() => world.start(index),
            2 if world.runs(index) => world.leave(index),
            3 | 4 if world.runs(index) => world.stall(index, span),
            5 if world.runs(index) => world.deafen(index, span),
            6 if world.runs(index) => world.set_tags(index, &format!("{span:?}")),
            7 => world.nodes[index].side = world.rng.random_range(0..2),
            8 => world.nodes.iter_mut().for_each(|node| node.side = 0),
            _ => {}
        }
        let pause = world.rng.random_range(0..1_000);
        world.run(Duration::from_millis(pause));
        world.check_replay();
    }
    world.loss = 0.0;
    for index in 0..size {
        world.nodes[index].side = 0;
        world.stall(index, Duration::ZERO);
        world.deafen(index, Duration::ZERO);
        if world.nodes[index].engine.is_none() {
            world.start(index);
        }
    }
    world.run_until(20 * SECOND, &format!("seed {seed} heals"), World::is_exact);
    world.check_replay();
    world
}

fn restarts_are_real(world: &World) {
    for (_, _, event) in &world.history {
        match event {
            Event::Restarted { old, new } => assert!(*old < new.incarnation),
            Event::Joined(member) | Event::Rejoined(member) => {
                let index = (member.node.0 - id(0).0) as usize;
                assert!(member.incarnation <= world.nodes[index].incarnation);
            }
            _ => {}
        }
    }
}

/// Each new name of a node follows a moment at which some other node held the last one to be down.
fn renewals_have_a_reason(world: &World) {
    let mut reasons = vec![0; world.nodes.len()];
    for (at, who, event) in &world.history {
        match event {
            Event::Failed(member) | Event::Left(member) => reasons[(member.node.0 - id(0).0) as usize] += 1,
            Event::SelfDeclaredDown => {
                assert!(reasons[*who] > 0, "at {at:?} node {who} gave up its name, and nobody held it to be down");
            }
            _ => {}
        }
    }
}

fn count(world: &World, is_it: impl Fn(&Event) -> bool) -> usize {
    world.history.iter().filter(|(_, _, event)| is_it(event)).count()
}

/// Prints what the design promises beside what is so: `cargo test -p tenure-membership --test simulation figures --
/// --ignored --nocapture`.
#[test]
#[ignore = "prints figures, decides nothing"]
fn figures() {
    for (name, timing, size, rounds) in [
        ("lan", Timing::LAN, 5, 100),
        ("lan", Timing::LAN, 16, 30),
        ("lan", Timing::LAN, 50, 6),
        ("dev", Timing::DEV, 5, 100),
    ] {
        let mut spans: Vec<Duration> = (0..rounds).map(|seed| time_to_know(seed, timing, size)).collect();
        spans.sort_unstable();
        let mean = spans.iter().sum::<Duration>() / u32::try_from(spans.len()).expect("few");
        println!("crash known by all, {name}, {size} nodes: mean {mean:.2?}, longest {:.2?}", spans[spans.len() - 1]);
    }
    for size in [16, 64] {
        let mut world = World::new(1, Timing::LAN);
        (0..size).for_each(|_| {
            world.add();
        });
        let took = world.run_until(60 * SECOND, "all meet", World::is_exact);
        println!("{size} nodes that start together know each other and all tags after {took:.2?}");
        world.run(5 * SECOND);
        world.add();
        let took = world.run_until(60 * SECOND, "one joins", World::is_exact);
        println!("one more joins {size}: known by all, knowing all, after {took:.2?}");
    }
    for half in [8, 32] {
        let mut world = World::settled(1, Timing::LAN, half * 2);
        world.nodes.iter_mut().take(half).for_each(|node| node.side = 1);
        world.run(120 * SECOND);
        world.nodes.iter_mut().for_each(|node| node.side = 0);
        let took = world.run_until(60 * SECOND, "healed", World::is_exact);
        println!("{half}/{half} healed in {took:.2?}");
    }
}

fn time_to_know(seed: u64, timing: Timing, size: usize) -> Duration {
    let mut world = World::settled(seed, timing, size);
    world.loss = 0.01;
    let pause = world.rng.random_range(0..1_000);
    world.run(Duration::from_millis(pause));
    world.crash(0);
    world.run_until(20 * SECOND, "known", |world| {
        (1..size).all(|at| world.state(at, 0) == Some(MemberState::Unreachable))
    })
}
