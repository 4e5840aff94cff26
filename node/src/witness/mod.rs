//! Witnesses of death: a node knows for certain that a process of its own machine has ended, and says so to the cluster.
//!
//! A client process tells every node of its machine which sessions it owns, over a local socket. The node asks the kernel who is at the
//! other end, holds a handle of that process, and proposes the end of these sessions when the process has ended: proof (F12), where
//! silence would have to wait for the time to live.
//!
//! The socket has a name in the kernel's abstract namespace, made of the node's id, which the client knows from its link: no path to
//! hand around, nothing left behind by a crash. Instead of a file's mode, each side looks at the user id of the other.
//!
//! # Invariants
//!
//! * A closed socket is no proof, and neither is silence on it: only the kernel's word about the process is.
//! * A handle stands for the process that opened the socket: somebody answered on it after the handle was taken, so its number had not
//!   been given to another process by then.
//! * Sessions of a process that named others beside itself end when all of these have ended too.
//! * What a client can make a node hold is bounded: [`CONNECTIONS_MAX`] sockets, [`NAMED_MAX`] sessions each. A session beyond that
//!   expires.

mod node;
mod process;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;

use protocol::{NodeId, SessionId};

pub(crate) use node::{Process, Stand};
pub(crate) use process::{Watched, Witnesses, be_watched};

/// What a client says: nine bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// I own this session.
    Mine(SessionId),
    /// I own it no more.
    NotMine(SessionId),
    /// What I own is not over before this process is.
    With(u32),
}

impl Word {
    fn encode(self) -> [u8; WORD] {
        let (kind, number) = match self {
            Self::Mine(session) => (1, session.0),
            Self::NotMine(session) => (0, session.0),
            Self::With(process) => (2, u64::from(process)),
        };
        let mut bytes = [kind; WORD];
        bytes[1..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn decode(bytes: [u8; WORD]) -> Option<Self> {
        let (&kind, number) = bytes.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match kind {
            1 => Some(Self::Mine(SessionId(number))),
            0 => Some(Self::NotMine(SessionId(number))),
            2 => u32::try_from(number).ok().map(Self::With),
            _ => None,
        }
    }
}

/// Where a node's witness listens.
fn address(node: NodeId) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("tenure-witness-{:016x}", node.0))
}

/// Whether a process of this user is one of ours.
fn is_trusted(user: u32) -> bool {
    user == nix::unistd::getuid().as_raw() || user == 0
}

/// The length of a word, in bytes.
const WORD: usize = 9;

/// The length of the greeting that a client says back, in bytes.
const GREETING: usize = 16;

/// How many processes a node watches at once.
const CONNECTIONS_MAX: usize = 1_024;

/// How many sessions of one process are watched: as many as may live in all.
const NAMED_MAX: usize = protocol::state::limits::MAX_SESSIONS;

/// How many processes one may name beside itself.
const OTHERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_said_and_nonsense_is_none() {
        for word in [Word::Mine(SessionId(7)), Word::NotMine(SessionId(u64::MAX)), Word::With(42)] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        for kind in 3..=u8::MAX {
            assert_eq!(Word::decode([kind; WORD]), None);
        }
    }
}
