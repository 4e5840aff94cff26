//! Ports that nobody uses.
//!
//! A node has to be told its own address and those of its peers before it starts, and comes back under the same address
//! after a crash. So its ports lie outside the range from which the kernel takes the ports of outgoing connections: a
//! connection of some other program cannot sit on one while the node is away.
//!
//! # Invariants
//!
//! * A port handed out was free for TCP and UDP a moment ago. Another program may still be faster: starting a cluster is
//!   tried again with other ports then.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Finds `count` loopback addresses with different free ports.
pub(super) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    let low = ephemeral_low().clamp(FIRST + 1000, 60_000);
    // Held until all are found, so that none is found twice.
    let mut held = Vec::with_capacity(count);
    for _ in 0..TRIES {
        if held.len() == count {
            break;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(FIRST..low)));
        let Ok(stream) = TcpListener::bind(address) else { continue };
        let Ok(datagrams) = UdpSocket::bind(address) else { continue };
        held.push((address, stream, datagrams));
    }
    if held.len() < count {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "no free ports on the loopback interface"));
    }
    Ok(held.into_iter().map(|(address, ..)| address).collect())
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
}
