//! Memberships on real sockets of this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use membership::{Config, Event, EventStream, MemberState, Membership, StartError, Timing};
use protocol::{Epoch, Incarnation, NodeId};

fn link(node: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_000 + u16::try_from(node).unwrap()))
}

fn config(node: u64, incarnation: u64, seeds: &[&Membership]) -> Config {
    Config {
        seeds: seeds.iter().map(|seed| seed.local_addr()).collect(),
        timing: Timing::DEV,
        tags: BTreeMap::from([("label".into(), format!("n{node}"))]),
        ..Config::loopback(NodeId(node), Incarnation(incarnation), "photos", link(node))
    }
}

/// Reads events until one satisfies `is_it`. The limit is there only to end a test that hangs.
async fn until<T>(events: &mut EventStream, mut is_it: impl FnMut(&Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.next().await.expect("the membership ended");
            if let Some(found) = is_it(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the event never came")
}

async fn joined(events: &mut EventStream, node: u64) {
    until(events, |event| match event {
        Event::Joined(member) if member.node == NodeId(node) => Some(()),
        Event::Snapshot(view) if view.members.contains_key(&NodeId(node)) => Some(()),
        _ => None,
    })
    .await;
}

async fn holds(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the condition never held");
}

#[tokio::test]
async fn the_stream_begins_with_a_snapshot() {
    let (alone, mut events) = Membership::start(config(1, 1, &[])).unwrap();
    let Some(Event::Snapshot(view)) = events.next().await else { panic!("no snapshot") };
    assert_eq!(view.me.node, NodeId(1));
    assert_eq!(view.me.addr, alone.local_addr());
    assert!(view.members.is_empty() && !view.is_connected);
}

#[tokio::test]
async fn three_nodes_see_each_other_with_links_and_tags() {
    let (a, _) = Membership::start(config(1, 1, &[])).unwrap();
    let (b, _) = Membership::start(config(2, 1, &[&a])).unwrap();
    let (c, _) = Membership::start(config(3, 1, &[&a])).unwrap();
    for (me, handle) in [(1, &a), (2, &b), (3, &c)] {
        holds(|| {
            let view = handle.members();
            [1, 2, 3].iter().filter(|node| **node != me).all(|node| {
                view.members.get(&NodeId(*node)).is_some_and(|member| {
                    member.state == MemberState::Alive
                        && member.link == link(*node)
                        && member.tags.get("label").is_some_and(|label| *label == format!("n{node}"))
                })
            })
        })
        .await;
    }
    holds(|| a.members().members.values().all(|member| member.rtt.is_some())).await;
    assert_eq!(a.stats().malformed + a.stats().foreign + a.stats().errors, 0);
}

#[tokio::test]
async fn a_dropped_node_has_failed_and_a_leaving_one_has_left() {
    // A machine that stands still for a moment lets nobody fail who is about to leave.
    let timing = Timing { suspicion: Duration::from_secs(3), ..Timing::DEV };
    let patient = |node, seeds: &[&Membership]| Config { timing, ..config(node, 1, seeds) };
    let (a, mut events) = Membership::start(patient(1, &[])).unwrap();
    let (b, _) = Membership::start(patient(2, &[&a])).unwrap();
    let (c, mut last_words) = Membership::start(patient(3, &[&a])).unwrap();
    joined(&mut events, 2).await;
    holds(|| a.members().active().count() == 2 && b.members().active().count() == 2).await;

    c.leave(Duration::from_secs(5)).await;
    let first = until(&mut events, |event| match event {
        Event::Left(member) | Event::Failed(member) if member.node == NodeId(3) => Some(event.clone()),
        _ => None,
    })
    .await;
    assert!(matches!(first, Event::Left(_)), "{first:?}");
    while last_words.next().await.is_some() {}

    drop(b);
    until(&mut events, |event| match event {
        Event::Failed(member) if member.node == NodeId(2) => Some(()),
        Event::Left(member) if member.node == NodeId(2) => panic!("it said no farewell"),
        _ => None,
    })
    .await;
    until(&mut events, |event| matches!(event, Event::Isolated).then_some(())).await;
}

#[tokio::test]
async fn a_restart_is_told_with_both_incarnations() {
    let (a, mut events) = Membership::start(config(1, 1, &[])).unwrap();
    let (b, _) = Membership::start(config(2, 5, &[&a])).unwrap();
    joined(&mut events, 2).await;
    drop(b);
    let (_b, _) = Membership::start(config(2, 6, &[&a])).unwrap();
    let old = until(&mut events, |event| match event {
        Event::Restarted { old, new } if new.node == NodeId(2) && new.incarnation == Incarnation(6) => Some(*old),
        _ => None,
    })
    .await;
    assert_eq!(old, Incarnation(5));
}

#[tokio::test]
async fn tags_and_the_master_reach_everybody_and_late_joiners_too() {
    let (a, mut events_a) = Membership::start(config(1, 1, &[])).unwrap();
    let (b, mut events_b) = Membership::start(config(2, 1, &[&a])).unwrap();
    joined(&mut events_a, 2).await;
    joined(&mut events_b, 1).await;
    b.set_tags(BTreeMap::from([("slots".into(), "4".into())])).unwrap();
    until(&mut events_a, |event| match event {
        Event::TagsChanged(member) if member.tags.contains_key("slots") => Some(()),
        _ => None,
    })
    .await;
    a.announce_master(Epoch(3), NodeId(1));
    a.announce_master(Epoch(2), NodeId(2));
    let master = until(&mut events_b, |event| match event {
        Event::Master { epoch, node } => Some((*epoch, *node)),
        _ => None,
    })
    .await;
    assert_eq!(master, (Epoch(3), NodeId(1)));
    let (late, _) = Membership::start(config(3, 1, &[&b])).unwrap();
    holds(|| {
        let view = late.members();
        let has_tags = view.members.get(&NodeId(2)).is_some_and(|member| member.tags.contains_key("slots"));
        has_tags && view.master == Some((Epoch(3), NodeId(1)))
    })
    .await;
    let long = BTreeMap::from([("label".into(), "x".repeat(600))]);
    assert!(b.set_tags(long).unwrap_err().to_string().contains("512"));
}

#[tokio::test]
async fn another_cluster_at_the_same_address_does_not_merge() {
    let (a, _) = Membership::start(config(1, 1, &[])).unwrap();
    let stranger = Config { cluster: "videos".into(), ..config(2, 1, &[&a]) };
    let (stranger, _) = Membership::start(stranger).unwrap();
    holds(|| a.stats().foreign > 2).await;
    assert!(a.members().members.is_empty() && stranger.members().members.is_empty());
}

#[tokio::test]
async fn noise_is_counted_and_changes_nothing() {
    let (a, _) = Membership::start(config(1, 1, &[])).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 1..200 {
        socket.send_to(&vec![b'T'; length], a.local_addr()).unwrap();
        // A few at a time: the kernel drops what a slow reader has no room for.
        if length % 20 == 0 {
            holds(|| a.stats().malformed == length as u64).await;
        }
    }
    holds(|| a.stats().malformed == 199).await;
    assert!(a.members().members.is_empty());
}

#[tokio::test]
async fn a_second_run_of_a_node_silences_the_first() {
    let (a, _) = Membership::start(config(1, 1, &[])).unwrap();
    let (_old, mut events) = Membership::start(config(2, 1, &[&a])).unwrap();
    joined(&mut events, 1).await;
    let (new, _) = Membership::start(config(2, 2, &[&a])).unwrap();
    until(&mut events, |event| matches!(event, Event::DuplicateNode(NodeId(2))).then_some(())).await;
    holds(|| new.members().members.get(&NodeId(1)).is_some_and(|member| member.state == MemberState::Alive)).await;
    holds(|| a.members().members.get(&NodeId(2)).is_some_and(|member| member.incarnation == Incarnation(2))).await;
    assert!(!new.members().is_duplicate);
}

#[tokio::test]
async fn wrong_settings_are_refused_in_words() {
    let outside = SocketAddr::from(([192, 0, 2, 1], 7400));
    let error = Membership::start(Config { seeds: vec![outside], ..config(1, 1, &[]) }).unwrap_err();
    assert!(error.to_string().contains("outside loopback"), "{error}");
    let (a, _) = Membership::start(config(1, 1, &[])).unwrap();
    let error = Membership::start(Config { bind: a.local_addr(), ..config(2, 1, &[]) }).unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
}
