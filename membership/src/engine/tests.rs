//! The engine against everything that a network can bring, well-formed or not.

use bytes::Bytes;
use foca::Codec as _;
use rand::seq::IndexedRandom;

use super::*;
use protocol::Incarnation;

use crate::codec::Codec;
use crate::identity::tests::drawn;
use crate::member::MemberState;
use crate::member::Tags;
use crate::packet::{Entry, EntryState, Sync, wrap_gossip, wrap_message};

const CLUSTER: &str = "noise";

/// An engine of node 1, which is one of the few nodes that [`drawn`] makes names of.
fn engine(seed: u64) -> Engine {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let setup = Setup {
        node: NodeId(1),
        incarnation: Incarnation(2),
        cluster: CLUSTER.into(),
        addr,
        link: addr,
        seeds: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        timing: Timing::LAN,
        tags: Tags::new().try_into().unwrap(),
        insecure: false,
        seed,
    };
    Engine::new(setup, Nanos(0))
}

fn drawn_item(rng: &mut SmallRng) -> Bytes {
    let name = drawn(rng);
    let tags = board::encode_tags(&Tags::from([("label".into(), format!("{}", name.bump))])).unwrap();
    let item = match rng.random_range(0..4u8) {
        0 => Item::Master { epoch: Epoch(rng.random_range(0..9)), node: name.node },
        1 => Item::Tags { node: name.node, incarnation: name.incarnation, version: rng.random_range(0..5), tags },
        2 => Item::Leave { node: name.node, incarnation: name.incarnation },
        _ => return Bytes::from_static(b"noise"),
    };
    board::item(&item).unwrap()
}

fn drawn_message(rng: &mut SmallRng, me: Identity) -> Message {
    let entry = |rng: &mut SmallRng| Entry {
        id: if rng.random_bool(0.1) { me } else { drawn(rng) },
        generation: *[0, 1, u16::MAX].choose(rng).unwrap(),
        state: *[EntryState::Alive, EntryState::Suspect, EntryState::Down, EntryState::Left].choose(rng).unwrap(),
        tags_version: rng.random_range(0..5),
    };
    match rng.random_range(0..5u8) {
        0 => Message::SeenDown { name: if rng.random() { me } else { drawn(rng) } },
        1 => Message::WantTags { nodes: (0..rng.random_range(0..9)).map(NodeId).collect() },
        2 => Message::Items { items: vec![drawn_item(rng)] },
        _ => Message::Sync(Sync {
            from: drawn(rng),
            generation: rng.random(),
            wants_reply: rng.random(),
            items: vec![drawn_item(rng)],
            entries: (0..rng.random_range(0..5)).map(|_| entry(rng)).collect(),
        }),
    }
}

fn drawn_packet(rng: &mut SmallRng, me: Identity) -> Vec<u8> {
    use foca::Message as Said;
    let src = drawn(rng);
    let said = [Said::Ping(1), Said::Ack(1), Said::Announce, Said::Feed, Said::Gossip, Said::TurnUndead];
    let message = match rng.random_range(0..8u8) {
        0 => Said::PingReq { target: drawn(rng), probe_number: 1 },
        1 => Said::ForwardedAck { origin: drawn(rng), probe_number: 1 },
        _ => said.choose(rng).unwrap().clone(),
    };
    let mut packet = Vec::new();
    Codec.encode_header(&foca::Header { src, src_incarnation: 0, dst: me, message }, &mut packet).unwrap();
    let members: u16 = rng.random_range(0..3);
    packet.extend_from_slice(&members.to_be_bytes());
    for _ in 0..members {
        let state = *[foca::State::Alive, foca::State::Suspect, foca::State::Down].choose(rng).unwrap();
        Codec.encode_member(&foca::Member::new(drawn(rng), rng.random_range(0..2), state), &mut packet).unwrap();
    }
    let item = drawn_item(rng);
    packet.extend_from_slice(&u16::try_from(item.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&item);
    packet
}

fn drawn_datagram(rng: &mut SmallRng, me: Identity) -> Vec<u8> {
    let cluster = packet::cluster_hash(CLUSTER);
    let mut datagram = match rng.random() {
        true => wrap_gossip(cluster, &drawn_packet(rng, me)),
        false => wrap_message(cluster, &drawn_message(rng, me)).unwrap(),
    };
    if rng.random_bool(0.2) {
        let at = rng.random_range(0..datagram.len());
        datagram[at] = rng.random();
    }
    datagram
}

#[test]
fn no_sequence_of_datagrams_breaks_the_engine() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut engine = engine(seed);
        let mut replayed = engine.view();
        let mut now = Nanos(0);
        for _ in 0..200 {
            now = now + Duration::from_millis(rng.random_range(0..200));
            let mut effects = Effects::default();
            let from = SocketAddr::from(([127, 0, 0, 1], 5));
            let datagram = drawn_datagram(&mut rng, *engine.me());
            let input = match rng.random_range(0..3u8) {
                0 => Input::Time,
                _ => Input::Datagram { from, bytes: &datagram },
            };
            let before = engine.view();
            engine.step(now, input, &mut effects);
            effects.events.iter().for_each(|event| event.apply(&mut replayed));
            check(&before, &engine.view(), &replayed);
            assert!(
                effects.sends.iter().all(|(to, bytes)| to.ip().is_loopback() && bytes.len() <= packet::MAX_DATAGRAM)
            );
            assert!(engine.next_deadline() > now || engine.phase == Phase::Running);
        }
    }
}

fn check(before: &View, after: &View, replayed: &View) {
    assert!(after.version >= before.version && after.master >= before.master);
    assert!(!after.members.contains_key(&after.me.node), "a node is no member of its own picture");
    for (node, member) in &before.members {
        let now = after.members.get(node).expect("nobody is forgotten so soon");
        assert!(now.incarnation >= member.incarnation, "an earlier run came back");
    }
    let brief = |view: &View| -> Vec<(NodeId, Incarnation, MemberState, Arc<Tags>)> {
        view.members.values().map(|m| (m.node, m.incarnation, m.state, m.tags.clone())).collect()
    };
    assert_eq!(brief(after), brief(replayed));
    assert_eq!(
        (after.version, after.master, after.is_connected),
        (replayed.version, replayed.master, replayed.is_connected)
    );
}

#[test]
fn a_table_that_is_full_takes_nobody_in() {
    let mut engine = engine(1);
    let mut effects = Effects::default();
    let addr = SocketAddr::from(([127, 0, 0, 1], 5));
    let name = |node| Identity { node: NodeId(node), incarnation: Incarnation(1), bump: 0, addr, link: addr };
    let cluster = packet::cluster_hash(CLUSTER);
    for first in (0..MAX_MEMBERS as u64 + 200).step_by(20) {
        let entries = (0..20)
            .map(|at| Entry { id: name(100 + first + at), generation: 0, state: EntryState::Alive, tags_version: 0 })
            .collect();
        let sync = Sync { from: name(2), generation: 0, wants_reply: false, items: vec![], entries };
        let bytes = wrap_message(cluster, &Message::Sync(sync)).unwrap();
        engine.step(Nanos(1), Input::Datagram { from: addr, bytes: &bytes }, &mut effects);
        effects.sends.clear();
    }
    let size = engine.view().members.len();
    assert!((MAX_MEMBERS..MAX_MEMBERS + 25).contains(&size), "{size}");
}
