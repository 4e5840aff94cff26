//! Ports that nobody uses.
//!
//! A node is found by one port: that of its links, and for UDP that of its gossip. A node of a cluster that is started as a whole has to be
//! told its own address and those of its peers before it starts, and comes back under the same address after a crash. So these ports lie
//! outside the range from which the kernel takes the ports of outgoing connections: a connection of some other program cannot sit on one
//! while the node is away.
//!
//! # Invariants
//!
//! * A port handed out is free for TCP and UDP as long as it is held. After that another program may be faster: starting a cluster is
//!   tried again with other ports then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// A port that nobody else can take.
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    pub(crate) datagrams: UdpSocket,
    _stream: TcpListener,
}

/// Finds a free port and holds it.
pub(crate) fn hold(ip: IpAddr) -> io::Result<Held> {
    let low = ephemeral_low().clamp(FIRST + 1000, 60_000);
    for _ in 0..TRIES {
        let address = SocketAddr::from((ip, rand::random_range(FIRST..low)));
        let Ok(stream) = TcpListener::bind(address) else { continue };
        let Ok(datagrams) = UdpSocket::bind(address) else { continue };
        return Ok(Held { address, datagrams, _stream: stream });
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free ports at {ip}")))
}

/// Finds `count` loopback addresses with different free ports.
pub(crate) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    // Held until all are found, so that none is found twice.
    let held: Vec<Held> = (0..count).map(|_| hold(Ipv4Addr::LOCALHOST.into())).collect::<io::Result<_>>()?;
    Ok(held.iter().map(|held| held.address).collect())
}

/// Where the ports of outgoing connections begin.
fn ephemeral_low() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

const FIRST: u16 = 10_000;

const TRIES: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let ports: BTreeSet<_> = free(12).expect("there are free ports").into_iter().collect();
        assert_eq!(ports.len(), 12);
        assert!(ports.iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn a_node_that_takes_any_port_has_the_same_one_for_links_and_gossip() {
        let Held { address, datagrams, .. } = hold(Ipv4Addr::LOCALHOST.into()).unwrap();
        let links = TcpListener::bind(address).unwrap();
        assert!(UdpSocket::bind(address).is_err(), "nobody else takes it meanwhile");
        drop(datagrams);
        assert!(UdpSocket::bind(address).is_ok() && links.local_addr().unwrap() == address);
    }
}
