//! Defects of the pinned foca that the engine works around. A test that fails here is good news: the rule that it names
//! may go.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use foca::{Codec as _, Foca, Header, Member, Message, OwnedNotification, State, Timer};
use protocol::{Incarnation, NodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::outbox::Outbox;
use crate::board::SharedBoard;
use crate::codec::{Codec, scan};
use crate::identity::Identity;
use crate::packet::MAX_BODY;
use crate::timing::Timing;

type Raw = Foca<Identity, Codec, SmallRng, Anything>;

/// Lets every broadcast pass as news.
struct Anything;

impl foca::BroadcastHandler<Identity> for Anything {
    type Key = crate::board::Key;
    type Error = std::convert::Infallible;

    fn receive_item(&mut self, _: &[u8], _: Option<&Identity>) -> Result<Option<Self::Key>, Self::Error> {
        Ok(Some(crate::board::Key::Master))
    }
}

fn name(node: u64) -> Identity {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1000 + u16::try_from(node).unwrap()));
    Identity { node: NodeId(node), incarnation: Incarnation(1), bump: 0, addr, link: addr }
}

/// foca as node 1, which knows node 2.
fn raw() -> (Raw, Outbox) {
    let config = super::foca_config(&Timing::LAN);
    let mut foca = Foca::with_custom_broadcast(name(1), config, SmallRng::seed_from_u64(1), Codec, Anything);
    let mut outbox = Outbox::default();
    foca.apply_many([Member::alive(name(2))].into_iter(), true, &mut outbox).unwrap();
    outbox.sends.clear();
    (foca, outbox)
}

fn said(outbox: &Outbox) -> Vec<Message<Identity>> {
    outbox.sends.iter().map(|(_, packet)| scan(packet).unwrap().0.message).collect()
}

/// D1. The rule is `is_suspect` in `suspicion.rs`.
#[test]
fn foca_tells_a_member_that_refuted_that_it_is_down() {
    let (mut foca, mut outbox) = raw();
    let suspected = Member::new(name(2), 0, State::Suspect);
    let refuted = Member::new(name(2), 1, State::Alive);
    foca.apply_many([suspected, refuted].into_iter(), true, &mut outbox).unwrap();
    let timer = Timer::ChangeSuspectToDown { member_id: name(2), incarnation: 0, token: 0 };
    foca.handle_timer(timer, &mut outbox).unwrap();
    assert_eq!(foca.num_members(), 1, "it is still there");
    assert!(said(&outbox).contains(&Message::TurnUndead), "D1 is fixed upstream: {:?}", said(&outbox));
}

/// D6. The rule is `MAX_ITEM` in `board.rs`.
#[test]
fn foca_keeps_an_item_for_ever_that_fits_no_packet() {
    let (mut foca, mut outbox) = raw();
    assert!(foca.add_broadcast(&vec![0; MAX_BODY - 8]).unwrap());
    for _ in 0..100 {
        foca.gossip(&mut outbox).unwrap();
    }
    assert_eq!(foca.custom_broadcast_backlog(), 1, "D6 is fixed upstream");
    let longest = outbox.sends.iter().map(|(_, packet)| packet.len()).max().unwrap();
    assert!(longest < 200, "it was sent after all");
}

/// D7. The rule is that the engine never changes foca's settings.
#[test]
#[cfg(debug_assertions)]
fn foca_panics_when_packets_may_become_longer() {
    let (mut foca, mut outbox) = raw();
    let longer = NonZeroUsize::new(MAX_BODY * 2).unwrap();
    foca.set_config(foca::Config { max_packet_size: longer, ..super::foca_config(&Timing::LAN) }).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| foca.gossip(&mut outbox)));
    assert!(outcome.is_err(), "D7 is fixed upstream");
}

/// D8. The rule is that the engine looks at nothing after its farewell.
#[test]
fn foca_comes_back_to_life_after_its_farewell() {
    let (mut foca, mut outbox) = raw();
    foca.leave_cluster(&mut outbox).unwrap();
    let mut packet = Vec::new();
    let header = Header { src: name(2), src_incarnation: 0, dst: name(1), message: Message::Gossip };
    Codec.encode_header(&header, &mut packet).unwrap();
    packet.extend_from_slice(&1u16.to_be_bytes());
    Codec.encode_member(&Member::down(name(1)), &mut packet).unwrap();
    outbox.notes.clear();
    foca.handle_data(&packet, &mut outbox).unwrap();
    let is_back = outbox.notes.iter().any(|note| matches!(note, OwnedNotification::Rejoin(_)));
    assert!(is_back, "D8 is fixed upstream");
}

/// Not a defect, but what the settings rest on: foca's own formula sends news twice among three nodes.
#[test]
fn foca_by_itself_sends_news_too_rarely_in_small_clusters() {
    let own = foca::Config::new_lan(std::num::NonZeroU32::new(3).unwrap());
    assert_eq!(own.max_transmissions.get(), 2);
    let ours = super::foca_config(&Timing::LAN);
    assert!(ours.max_transmissions.get() >= 15);
    assert_eq!(ours.suspect_to_down_after, Duration::from_secs(1));
    let _: Foca<Identity, Codec, SmallRng, SharedBoard> =
        Foca::with_custom_broadcast(name(1), ours, SmallRng::seed_from_u64(1), Codec, SharedBoard::default());
}
