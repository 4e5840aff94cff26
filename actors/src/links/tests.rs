//! What every implementation of the links promises, shown with the one in memory.

use std::time::Duration;

use bytes::Bytes;
use protocol::image::{self, CHUNK_BYTES};
use protocol::message::Body;
use protocol::{ClusterId, Incarnation, LogId, NodeId, wire};

use super::memory::{Hub, MemoryLinks};
use super::*;

pub(super) fn identity(node: u64) -> Identity {
    Identity {
        cluster_name: "photos".into(),
        cluster: ClusterId::NONE,
        node: NodeId(node),
        incarnation: Incarnation(1),
        role: Role::Node,
    }
}

fn target(links: &MemoryLinks) -> Target {
    Target { addr: links.address(), node: None }
}

/// Two linked nodes, after both heard `Up`.
async fn two(hub: &Hub) -> [(MemoryLinks, Inbox); 2] {
    let (a, mut inbox_a) = hub.join(identity(1), None);
    let (b, mut inbox_b) = hub.join(identity(2), None);
    a.set_targets(vec![target(&b)]);
    up(&mut inbox_a).await;
    up(&mut inbox_b).await;
    [(a, inbox_a), (b, inbox_b)]
}

pub(super) async fn next(inbox: &mut Inbox) -> LinkEvent {
    tokio::time::timeout(Duration::from_secs(30), inbox.recv()).await.expect("an event in time").expect("no end")
}

/// Waits for an event of one kind, and skips the others.
pub(super) async fn until<T>(inbox: &mut Inbox, mut pick: impl FnMut(LinkEvent) -> Option<T>) -> T {
    loop {
        if let Some(found) = pick(next(inbox).await) {
            return found;
        }
    }
}

pub(super) async fn up(inbox: &mut Inbox) -> Peer {
    until(inbox, |event| if let LinkEvent::Up(peer) = event { Some(peer) } else { None }).await
}

pub(super) async fn down(inbox: &mut Inbox) -> (Peer, Closed) {
    until(inbox, |event| if let LinkEvent::Down { peer, why } = event { Some((peer, why)) } else { None }).await
}

pub(super) async fn message(inbox: &mut Inbox) -> Bytes {
    until(inbox, |event| if let LinkEvent::Message { body, .. } = event { Some(body) } else { None }).await
}

#[tokio::test]
async fn a_message_comes_back_over_the_same_link() {
    let [(a, mut inbox_a), (b, mut inbox_b)] = two(&Hub::new()).await;
    a.send(NodeId(2), Class::Control, Bytes::from_static(b"ping")).unwrap();
    assert_eq!(message(&mut inbox_b).await, "ping");
    b.send(NodeId(1), Class::Data, Bytes::from_static(b"pong")).unwrap();
    assert_eq!(message(&mut inbox_a).await, "pong");
    assert_eq!(a.peers()[0].node, NodeId(2));
}

#[tokio::test]
async fn the_longest_message_arrives_through_a_smaller_window() {
    let [(a, _inbox_a), (_b, mut inbox_b)] = two(&Hub::new()).await;
    let long = Bytes::from_iter((0..wire::MAX_MESSAGE).map(|at| (at % 251) as u8));
    for class in [Class::Data, Class::Bulk] {
        a.send(NodeId(2), class, long.clone()).unwrap();
        assert_eq!(a.send(NodeId(2), class, Bytes::from_static(b"more")), Err(SendError::Busy));
        assert!(message(&mut inbox_b).await == long);
    }
    let longer = Bytes::from(vec![0; wire::MAX_MESSAGE + 1]);
    assert!(matches!(a.send(NodeId(2), Class::Bulk, longer), Err(SendError::TooLong { .. })));
}

#[tokio::test]
async fn a_consumer_that_takes_nothing_stops_its_peer_and_taking_frees_it() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two(&Hub::new()).await;
    let mut sent = 0;
    while a.send(NodeId(2), Class::Data, Bytes::from(vec![0; 1000])).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 448 * 1024 / 1064);
    a.send(NodeId(2), Class::Bulk, Bytes::from_static(b"another class")).unwrap();
    for _ in 0..sent {
        message(&mut inbox_b).await;
    }
    let class = until(&mut inbox_a, |event| match event {
        LinkEvent::Writable { class, .. } => Some(class),
        _ => None,
    });
    assert_eq!(class.await, Class::Data);
    a.send(NodeId(2), Class::Data, Bytes::from_static(b"again")).unwrap();
}

#[tokio::test]
async fn what_a_receiver_asks_for_of_an_image_fits_into_the_window_and_a_heartbeat_passes_it() {
    let [(a, _inbox_a), (_b, mut inbox_b)] = two(&Hub::new()).await;
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let last = LogId::default();
    let message =
        |place| Body::from(image::Message::Chunk { last, place, count: 9, crc: u32::MAX, chunk: chunk.clone() });
    for place in 0..image::WANTED_MAX {
        let body = message(place);
        let bytes = Bytes::from(wire::encode(&body, wire::MAX_MESSAGE).unwrap());
        a.send(NodeId(2), body.class(), bytes).unwrap();
    }
    // Nothing of them waits for credit, although nobody took anything off yet.
    a.send(NodeId(2), Class::Bulk, Bytes::from_static(b"a little more")).unwrap();
    a.send(NodeId(2), Class::Control, Bytes::from_static(b"beat")).unwrap();
    let mut lengths = Vec::new();
    for _ in 0..4 {
        lengths.push(self::message(&mut inbox_b).await.len());
    }
    lengths.sort_unstable();
    assert_eq!(lengths[..2], [4, 13]);
    assert!(lengths[2..].iter().all(|len| *len > CHUNK_BYTES));
}

#[tokio::test]
async fn a_full_control_class_drops_and_counts() {
    let [(a, _inbox_a), (_b, _inbox_b)] = two(&Hub::new()).await;
    for _ in 0..70 {
        a.send(NodeId(2), Class::Control, Bytes::from_static(b"beat")).unwrap();
    }
    assert_eq!(a.counts().control_full, 6);
}

#[tokio::test]
async fn messages_before_a_kill_are_heard_before_down_and_evidence() {
    let hub = Hub::new();
    let [(a, mut inbox_a), (b, _inbox_b)] = two(&hub).await;
    b.send(NodeId(1), Class::Data, Bytes::from_static(b"last words")).unwrap();
    hub.kill(NodeId(2));
    assert_eq!(message(&mut inbox_a).await, "last words");
    assert_eq!(down(&mut inbox_a).await.1, Closed::ByPeer);
    assert_eq!(next(&mut inbox_a).await, LinkEvent::Evidence { node: NodeId(2), incarnation: Incarnation(1) });
    assert_eq!(a.send(NodeId(2), Class::Data, Bytes::new()), Err(SendError::NoLink));
}

#[tokio::test]
async fn a_link_that_we_close_is_no_evidence_and_comes_back() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two(&Hub::new()).await;
    a.close(NodeId(2));
    let (first, why) = down(&mut inbox_a).await;
    assert_eq!(why, Closed::BySelf);
    assert_eq!(down(&mut inbox_b).await.1, Closed::ByPeer);
    let second = until(&mut inbox_a, |event| match event {
        LinkEvent::Evidence { .. } => panic!("evidence against the living"),
        LinkEvent::Up(peer) => Some(peer),
        _ => None,
    });
    assert!(second.await.generation > first.generation);
}

/// F15: gossip is wrong too often to close a link that talks.
#[tokio::test]
async fn a_suspicion_closes_only_a_link_that_has_been_silent_for_long_enough() {
    let [(a, mut inbox_a), _b] = two(&Hub::new()).await;
    let before = a.peers();
    a.close_if_silent(NodeId(2), Duration::from_secs(3600));
    assert_eq!(a.peers(), before);
    a.close_if_silent(NodeId(2), Duration::ZERO);
    assert_eq!(down(&mut inbox_a).await.1, Closed::Idle);
}

#[tokio::test]
async fn a_restarted_peer_replaces_its_older_run() {
    let hub = Hub::new();
    let [(a, mut inbox_a), (b, _inbox_b)] = two(&hub).await;
    b.send(NodeId(1), Class::Data, Bytes::from_static(b"from the older run")).unwrap();
    let (_again, _inbox) = hub.join(Identity { incarnation: Incarnation(2), ..identity(2) }, Some(b.address()));
    assert!(a.peers().iter().all(|peer| peer.incarnation == Incarnation(2)));
    assert_eq!(up(&mut inbox_a).await.incarnation, Incarnation(2));
}

#[tokio::test]
async fn what_an_older_link_left_in_the_inbox_is_dropped() {
    let hub = Hub::new();
    let [(a, mut inbox_a), (b, _inbox_b)] = two(&hub).await;
    b.send(NodeId(1), Class::Data, Bytes::from_static(b"old")).unwrap();
    while inbox_a.is_empty() {
        tokio::task::yield_now().await;
    }
    a.close(NodeId(2));
    while a.peers().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    b.send(NodeId(1), Class::Data, Bytes::from_static(b"new")).unwrap();
    assert_eq!(message(&mut inbox_a).await, "new");
    assert_eq!(a.counts().stale, 1);
}

#[tokio::test]
async fn a_partition_holds_messages_and_gives_up_in_the_end() {
    let hub = Hub::with_idle(Duration::from_millis(300));
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two(&hub).await;
    hub.cut(NodeId(1), NodeId(2));
    a.send(NodeId(2), Class::Data, Bytes::from_static(b"late")).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(inbox_b.try_recv(), None);
    hub.heal(NodeId(1), NodeId(2));
    assert_eq!(message(&mut inbox_b).await, "late");
    hub.isolate(NodeId(1));
    assert_eq!(down(&mut inbox_a).await.1, Closed::Idle);
    assert_eq!(down(&mut inbox_b).await.1, Closed::Idle);
    hub.heal_all();
    up(&mut inbox_a).await;
}

#[tokio::test]
async fn a_window_stays_full_until_what_was_taken_is_done_with() {
    let [(a, mut inbox_a), (_b, mut inbox_b)] = two(&Hub::new()).await;
    let body = Bytes::from(vec![7; 1024]);
    let mut sent = 0;
    while a.send(NodeId(2), Class::Data, body.clone()).is_ok() {
        sent += 1;
    }
    let mut held = Vec::new();
    while held.len() < sent {
        let (event, credit) = inbox_b.take().await.expect("no end");
        if let LinkEvent::Message { .. } = event {
            held.push(credit);
        }
    }
    assert_eq!(a.send(NodeId(2), Class::Data, body.clone()), Err(SendError::Busy), "taken, but not handled");
    drop(held);
    until(&mut inbox_a, |event| matches!(event, LinkEvent::Writable { .. }).then_some(())).await;
    assert_eq!(a.send(NodeId(2), Class::Data, body), Ok(()));
}

#[tokio::test]
async fn lag_delays_and_keeps_the_order() {
    let hub = Hub::new();
    let [(a, _inbox_a), (_b, mut inbox_b)] = two(&hub).await;
    hub.lag(NodeId(1), NodeId(2), Duration::from_millis(40));
    let start = tokio::time::Instant::now();
    for word in ["one", "two", "three"] {
        a.send(NodeId(2), Class::Data, Bytes::from(word)).unwrap();
    }
    for word in ["one", "two", "three"] {
        assert_eq!(message(&mut inbox_b).await, word);
    }
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn another_name_or_founding_or_node_is_refused_once() {
    let hub = Hub::new();
    let (a, mut inbox) = hub.join(Identity { cluster: ClusterId(1), ..identity(1) }, None);
    let (b, _b) = hub.join(Identity { cluster_name: "videos".into(), ..identity(2) }, None);
    let (c, _c) = hub.join(Identity { cluster: ClusterId(9), ..identity(3) }, None);
    let (d, _d) = hub.join(identity(4), None);
    let expected = NodeId(7);
    for _ in 0..2 {
        a.set_targets(vec![target(&b), target(&c), Target { addr: d.address(), node: Some(expected) }]);
    }
    let mut refusals = Vec::new();
    while let Some(event) = inbox.try_recv() {
        match event {
            LinkEvent::Refused { why, .. } => refusals.push(why),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        refusals,
        [
            Refusal::OtherName { theirs: "videos".into() },
            Refusal::OtherCluster { theirs: ClusterId(9) },
            Refusal::OtherNode { expected, found: NodeId(4) }
        ]
    );
}

#[tokio::test]
async fn a_node_recognises_itself_behind_an_address() {
    let (a, mut inbox) = Hub::new().join(identity(1), None);
    a.set_targets(vec![target(&a)]);
    assert_eq!(next(&mut inbox).await, LinkEvent::Identified { addr: a.address(), node: NodeId(1) });
    assert!(a.peers().is_empty());
}

#[tokio::test]
async fn a_node_that_leaves_loses_nothing_it_sent() {
    let [(a, mut inbox_a), (b, mut inbox_b)] = two(&Hub::new()).await;
    let long = Bytes::from(vec![7; wire::MAX_MESSAGE]);
    a.send(NodeId(2), Class::Data, long.clone()).unwrap();
    let reader = tokio::spawn(async move {
        let body = message(&mut inbox_b).await;
        let why = down(&mut inbox_b).await.1;
        until(&mut inbox_b, |event| matches!(event, LinkEvent::Evidence { .. }).then_some(())).await;
        (body, why)
    });
    a.shutdown().await;
    let (body, why) = reader.await.unwrap();
    assert!(body == long && why == Closed::ByPeer);
    assert_eq!(down(&mut inbox_a).await.1, Closed::BySelf);
    assert_eq!(inbox_a.recv().await, None);
    assert!(b.peers().is_empty());
}
