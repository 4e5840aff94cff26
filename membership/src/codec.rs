//! How foca's headers and members become bytes.
//!
//! Written by hand because a packet is a sequence of parts that must each be read from the front of what is left, and
//! because every byte of an identity is paid for some forty times in each full packet. An IPv4 member whose links and
//! gossip share one address takes 30 bytes.
//!
//! # Invariants
//!
//! * Arbitrary bytes never panic and never allocate.
//! * Flags and tags without a meaning are refused, so that a later version can give them one.
//! * A member that does not fit is not written in part: space is checked first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use protocol::{Incarnation, NodeId};

use crate::identity::Identity;

/// foca's view of the bytes of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec;

/// Why a header or member could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// The packet ends in the middle of a value.
    #[error("the packet is cut short")]
    Short,
    /// A tag or flag has no meaning.
    #[error("byte {0} has no meaning here")]
    Unknown(u8),
    /// No room for the value in this packet.
    #[error("the packet is full")]
    Full,
}

impl From<bytes::TryGetError> for CodecError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Short
    }
}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < 3 * MAX_IDENTITY + 4 {
            return Err(CodecError::Full);
        }
        put_identity(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_identity(&header.dst, &mut buf);
        put_message(&header.message, &mut buf);
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        Ok(Header {
            src: take_identity(&mut buf)?,
            src_incarnation: buf.try_get_u16()?,
            dst: take_identity(&mut buf)?,
            message: take_message(&mut buf)?,
        })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < MAX_IDENTITY + 3 {
            return Err(CodecError::Full);
        }
        put_identity(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(state_tag(member.state()));
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let id = take_identity(&mut buf)?;
        let generation = buf.try_get_u16()?;
        Ok(Member::new(id, generation, tagged_state(buf.try_get_u8()?)?))
    }
}

/// Reads a whole packet before foca sees it: its header and the members it speaks of.
///
/// # Errors
///
/// [`CodecError`] if foca would not be able to read it.
pub(crate) fn scan(mut packet: &[u8]) -> Result<(Header<Identity>, Vec<Member<Identity>>), CodecError> {
    use foca::Codec as _;
    let header = Codec.decode_header(&mut packet)?;
    let mut members = Vec::new();
    if !packet.is_empty() && header.message != Message::Broadcast {
        // Not reserved from the count: the packet's own length bounds the loop.
        for _ in 0..packet.try_get_u16()? {
            members.push(Codec.decode_member(&mut packet)?);
        }
    }
    Ok((header, members))
}

fn put_message(message: &Message<Identity>, buf: &mut impl BufMut) {
    match message {
        Message::Ping(number) => buf.put_slice(&[0, *number]),
        Message::Ack(number) => buf.put_slice(&[1, *number]),
        Message::PingReq { target, probe_number } => put_indirect(2, target, *probe_number, buf),
        Message::IndirectPing { origin, probe_number } => put_indirect(3, origin, *probe_number, buf),
        Message::IndirectAck { target, probe_number } => put_indirect(4, target, *probe_number, buf),
        Message::ForwardedAck { origin, probe_number } => put_indirect(5, origin, *probe_number, buf),
        Message::Announce => buf.put_u8(6),
        Message::Feed => buf.put_u8(7),
        Message::Gossip => buf.put_u8(8),
        Message::Broadcast => buf.put_u8(9),
        Message::TurnUndead => buf.put_u8(10),
    }
}

fn put_indirect(tag: u8, third: &Identity, number: u8, buf: &mut impl BufMut) {
    buf.put_slice(&[tag, number]);
    put_identity(third, buf);
}

fn take_message(buf: &mut impl Buf) -> Result<Message<Identity>, CodecError> {
    Ok(match buf.try_get_u8()? {
        0 => Message::Ping(buf.try_get_u8()?),
        1 => Message::Ack(buf.try_get_u8()?),
        2 => {
            let probe_number = buf.try_get_u8()?;
            Message::PingReq { target: take_identity(buf)?, probe_number }
        }
        3 => {
            let probe_number = buf.try_get_u8()?;
            Message::IndirectPing { origin: take_identity(buf)?, probe_number }
        }
        4 => {
            let probe_number = buf.try_get_u8()?;
            Message::IndirectAck { target: take_identity(buf)?, probe_number }
        }
        5 => {
            let probe_number = buf.try_get_u8()?;
            Message::ForwardedAck { origin: take_identity(buf)?, probe_number }
        }
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        other => return Err(CodecError::Unknown(other)),
    })
}

fn put_identity(id: &Identity, buf: &mut impl BufMut) {
    let shares_ip = id.addr.ip() == id.link.ip();
    let mut flags = 0;
    flags |= if id.addr.is_ipv6() { ADDR_V6 } else { 0 };
    flags |= if id.link.is_ipv6() { LINK_V6 } else { 0 };
    flags |= if shares_ip { LINK_SHARES_IP } else { 0 };
    flags |= if id.bump > 0 { HAS_BUMP } else { 0 };
    buf.put_u8(flags);
    buf.put_u64(id.node.0);
    buf.put_u64(id.incarnation.0);
    if id.bump > 0 {
        buf.put_u32(id.bump);
    }
    put_ip(id.addr.ip(), buf);
    buf.put_u16(id.addr.port());
    if !shares_ip {
        put_ip(id.link.ip(), buf);
    }
    buf.put_u16(id.link.port());
}

fn take_identity(buf: &mut impl Buf) -> Result<Identity, CodecError> {
    let flags = buf.try_get_u8()?;
    if flags & !(ADDR_V6 | LINK_V6 | LINK_SHARES_IP | HAS_BUMP) != 0 {
        return Err(CodecError::Unknown(flags));
    }
    let node = NodeId(buf.try_get_u64()?);
    let incarnation = Incarnation(buf.try_get_u64()?);
    let bump = if flags & HAS_BUMP != 0 { buf.try_get_u32()? } else { 0 };
    let ip = take_ip(flags & ADDR_V6 != 0, buf)?;
    let addr = SocketAddr::new(ip, buf.try_get_u16()?);
    let link_ip = if flags & LINK_SHARES_IP != 0 { ip } else { take_ip(flags & LINK_V6 != 0, buf)? };
    let link = SocketAddr::new(link_ip, buf.try_get_u16()?);
    Ok(Identity { node, incarnation, bump, addr, link })
}

fn put_ip(ip: IpAddr, buf: &mut impl BufMut) {
    match ip {
        IpAddr::V4(ip) => buf.put_slice(&ip.octets()),
        IpAddr::V6(ip) => buf.put_slice(&ip.octets()),
    }
}

fn take_ip(is_v6: bool, buf: &mut impl Buf) -> Result<IpAddr, CodecError> {
    Ok(if is_v6 {
        Ipv6Addr::from_bits(buf.try_get_u128()?).into()
    } else {
        Ipv4Addr::from_bits(buf.try_get_u32()?).into()
    })
}

fn state_tag(state: State) -> u8 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

fn tagged_state(tag: u8) -> Result<State, CodecError> {
    match tag {
        0 => Ok(State::Alive),
        1 => Ok(State::Suspect),
        2 => Ok(State::Down),
        other => Err(CodecError::Unknown(other)),
    }
}

const ADDR_V6: u8 = 1;
const LINK_V6: u8 = 2;
const LINK_SHARES_IP: u8 = 4;
const HAS_BUMP: u8 = 8;

/// The longest encoding of an identity: flags, node, incarnation, bump, two IPv6 addresses and ports.
const MAX_IDENTITY: usize = 1 + 8 + 8 + 4 + 18 + 18;

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::identity::tests::drawn;

    fn drawn_message(rng: &mut SmallRng) -> Message<Identity> {
        let (number, third) = (rng.random(), drawn(rng));
        match rng.random_range(0..11u8) {
            0 => Message::Ping(number),
            1 => Message::Ack(number),
            2 => Message::PingReq { target: third, probe_number: number },
            3 => Message::IndirectPing { origin: third, probe_number: number },
            4 => Message::IndirectAck { target: third, probe_number: number },
            5 => Message::ForwardedAck { origin: third, probe_number: number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        }
    }

    fn drawn_member(rng: &mut SmallRng) -> Member<Identity> {
        let state = [State::Alive, State::Suspect, State::Down][rng.random_range(0..3)];
        Member::new(drawn(rng), rng.random(), state)
    }

    #[test]
    fn headers_and_members_come_back_as_they_were() {
        let mut rng = SmallRng::seed_from_u64(3);
        for _ in 0..5_000 {
            let header = Header {
                src: drawn(&mut rng),
                src_incarnation: rng.random(),
                dst: drawn(&mut rng),
                message: drawn_message(&mut rng),
            };
            let member = drawn_member(&mut rng);
            let mut bytes = Vec::new();
            Codec.encode_header(&header, &mut bytes).unwrap();
            Codec.encode_member(&member, &mut bytes).unwrap();
            let mut rest = bytes.as_slice();
            assert_eq!(Codec.decode_header(&mut rest).unwrap(), header);
            assert_eq!(Codec.decode_member(&mut rest).unwrap(), member);
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_refused() {
        let mut rng = SmallRng::seed_from_u64(4);
        for _ in 0..500 {
            let member = drawn_member(&mut rng);
            let mut bytes = Vec::new();
            Codec.encode_member(&member, &mut bytes).unwrap();
            for end in 0..bytes.len() {
                assert!(Codec.decode_member(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut rng = SmallRng::seed_from_u64(5);
        for _ in 0..50_000 {
            let length = rng.random_range(0..200);
            let bytes: Vec<u8> = (0..length).map(|_| if rng.random_bool(0.7) { 0 } else { rng.random() }).collect();
            let _ = scan(&bytes);
        }
    }

    #[test]
    fn a_full_buffer_is_left_clean() {
        let mut rng = SmallRng::seed_from_u64(6);
        let member = drawn_member(&mut rng);
        let mut bytes = Vec::new();
        let mut limited = (&mut bytes).limit(MAX_IDENTITY);
        assert_eq!(Codec.encode_member(&member, &mut limited), Err(CodecError::Full));
        assert!(bytes.is_empty());
    }
}
