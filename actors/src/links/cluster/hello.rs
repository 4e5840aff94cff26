//! The first words on every stream, before ractor_cluster sees it: who is there, and shall this be a link?
//!
//! The dialler says [`Hello`]; the other side answers with its own and, if it sees a reason, a refusal; the dialler
//! decides. So an address can be identified, even as our own, without making a link, and of two links between the same
//! two nodes one is given up before it exists.
//!
//! # Invariants
//!
//! * Nothing here reads more than [`MAX_HELLO`] bytes or waits longer than [`DEADLINE`].
//! * Not one byte beyond the hello is taken off the stream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use protocol::{ClusterId, Incarnation, NodeId, wire};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::links::table::are_compatible;
use crate::links::{Refusal, Role};

/// Who one side is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`VERSION`].
    pub version: u8,
    /// The name it was started with.
    pub cluster_name: String,
    /// Its cluster, zero if it is in none yet.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// What it is.
    pub role: Role,
    /// Where it listens. An unspecified address stands for the one it speaks from.
    pub addr: SocketAddr,
    /// The random part of its gateway's name: two links of one process never mean each other's gateway.
    pub gateway: u64,
    /// Its name for the link, random.
    pub link: u64,
    /// [`proof`] of the secret, for these names.
    pub proof: u64,
}

/// What the side that was dialled says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Who it is.
    pub hello: Hello,
    /// Why it wants no link.
    pub refusal: Option<Refusal>,
}

/// What the dialler makes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Decision {
    /// This stream becomes a link.
    Link,
    /// It knows enough, and closes.
    Leave,
}

impl Hello {
    /// Why a link between `self` and `theirs` is impossible, if it is.
    pub(super) fn refusal(&self, theirs: &Self, cookie: &str) -> Option<Refusal> {
        if theirs.version != VERSION {
            return Some(Refusal::Version);
        }
        if theirs.cluster_name != self.cluster_name {
            return Some(Refusal::OtherName { theirs: theirs.cluster_name.clone() });
        }
        if theirs.proof != proof(cookie, theirs.node, theirs.link) {
            return Some(Refusal::OtherSecret);
        }
        if !are_compatible(self.cluster, theirs.cluster) {
            return Some(Refusal::OtherCluster { theirs: theirs.cluster });
        }
        // Two runs over one data folder: impossible on one machine, and a copied folder on two.
        if theirs.node == self.node && theirs.incarnation != self.incarnation {
            return Some(Refusal::OldIncarnation { newer: theirs.incarnation.max(self.incarnation) });
        }
        None
    }
}

/// Shows that a node was started with the same name and secret. It keeps a mis-wired one from replacing links; it is no
/// protection against somebody who listens.
pub(super) fn proof(cookie: &str, node: NodeId, link: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(cookie.as_bytes());
    hash.update(node.0.to_be_bytes());
    hash.update(link.to_be_bytes());
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest is longer than eight bytes"))
}

/// Writes one word of the hello.
pub(super) async fn write<T: Serialize>(stream: &mut TcpStream, word: &T) -> io::Result<()> {
    let body = wire::encode(word, MAX_HELLO).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let length = u16::try_from(body.len()).expect("a hello is shorter than 64 KiB");
    let mut frame = Vec::with_capacity(body.len() + 6);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await
}

/// Reads one word of the hello.
///
/// # Errors
///
/// `InvalidData` if the other side does not speak this protocol, `UnexpectedEof` if it left.
pub(super) async fn read<T: DeserializeOwned>(stream: &mut TcpStream) -> io::Result<T> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if head[..4] != MAGIC || length > MAX_HELLO {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a hello"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    wire::decode(&body, MAX_HELLO).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The version of the hello and of everything behind it, the messages of the machines included.
pub(super) const VERSION: u8 = 2;

/// How long the whole hello may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// The longest cluster name, in bytes.
pub(super) const MAX_NAME: usize = 255;

/// The longest word, in bytes: a name, its echo in a refusal, and what surrounds them.
const MAX_HELLO: usize = 1024;

const MAGIC: [u8; 4] = *b"TENU";
