//! The journal: what was committed since the engine's file was last written, in one small file that is only written at its
//! end, with one write and one fsync per commit.
//!
//! ```text
//! journal = head, records of this round, whatever is left of earlier rounds
//! record  = tag u32, length u32, checksum u32, round u64, body, zeros up to a multiple of eight bytes
//! ```
//!
//! Behind a record its page is filled with zeros, where the next record goes: so no write ever changes a part of a page that
//! is not in memory yet, which the kernel would have to read first.
//!
//! The file has one length for ever and is filled with zeros when it is created, so that a commit changes no metadata of the
//! file system. A round begins at the front again, over what is there. The tag and the checksum depend on the node, the
//! round and the place, so nothing that is left of another round, another node or another place counts as a record.
//!
//! # Invariants
//!
//! * A record counts as a whole or not at all, and one record is one commit.
//! * At most the last record of a round is torn, because each is durable before the next is written: a record behind one
//!   that does not count is rot.
//! * The first record of a round stands where that of the round before stood. If it is of a later round than the engine's file says, that
//!   file is an older one than the one which this journal was in front of.
//! * What is written is never read again in the same run.

use std::path::{Path, PathBuf};

use protocol::NodeId;
use protocol::durable::{Entry, Persist};
use protocol::wire::{self, WireError};
use redb::StorageBackend;

use super::mutants::{Bug, is_on};
use super::{StoreError, payload_bytes};

/// The journal of one node, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    path: PathBuf,
    key: Key,
    /// Where the next record goes.
    end: usize,
}

impl Journal {
    /// Fills a new file, durably. `path` is for errors.
    pub(super) fn create(file: &dyn StorageBackend, path: &Path, node: NodeId) -> Result<(), StoreError> {
        let mut image = Key { node, round: HEAD_ROUND }.record(0, Vec::new());
        image.resize(LEN, 0);
        file.set_len(LEN as u64)
            .and_then(|()| file.write(0, &image))
            .and_then(|()| file.sync_data())
            .map_err(|cause| StoreError::io("create", path, cause))
    }

    /// Reads what is in the file of `round`, in order. The next round must begin before anything is appended, as every start does.
    pub(super) fn open(
        file: Box<dyn StorageBackend>,
        path: PathBuf,
        node: NodeId,
        round: u64,
    ) -> Result<(Self, Vec<Persist>), StoreError> {
        let batches = read(&*file, &path, Key { node, round })?;
        Ok((Self { file, path, key: Key { node, round }, end: FRONT }, batches))
    }

    /// Makes a commit durable, if there is room for it. One that is large for a journal is not worth writing twice.
    pub(super) fn append(&mut self, batches: &[&Persist]) -> Result<bool, StoreError> {
        if batches.iter().map(|batch| payload_bytes(batch)).sum::<usize>() > RECORD_MAX {
            return Ok(false);
        }
        let mut record = self.key.record(self.end, encode(batches)?);
        let next = self.end + record.len();
        if next > LEN {
            return Ok(false);
        }
        record.resize(next.next_multiple_of(PAGE) - self.end, 0);
        self.file
            .write(self.end as u64, &record)
            .and_then(|()| if is_on(Bug::SkipsSync) { Ok(()) } else { self.file.sync_data() })
            .map_err(|cause| StoreError::io("write", &self.path, cause))?;
        self.end = next;
        Ok(true)
    }

    /// Begins again at the front. The engine's file must hold all that was appended, and that this round is over.
    pub(super) fn begin_round(&mut self) {
        self.key.round = self.next_round();
        self.end = FRONT;
    }

    /// The round that follows this one.
    pub(super) fn next_round(&self) -> u64 {
        self.key.round + u64::from(!is_on(Bug::NeverEndsRound))
    }

    /// Whether it is time to begin a new round when nothing else is to be done.
    pub(super) fn is_half_full(&self) -> bool {
        self.end > LEN / 2
    }
}

/// What makes a record one of ours and of now.
#[derive(Clone, Copy, Debug)]
struct Key {
    node: NodeId,
    round: u64,
}

impl Key {
    /// The record of `body` at this place.
    fn record(self, at: usize, body: Vec<u8>) -> Vec<u8> {
        let tag = self.tag(at);
        let mut record = Vec::with_capacity(padded(HEADER + body.len()));
        let len = u32::try_from(body.len()).expect("a record is shorter than a journal");
        for word in [tag, len, checksum(tag, &body)] {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record.extend_from_slice(&self.round.to_le_bytes());
        record.extend_from_slice(&body);
        record.resize(padded(record.len()), 0);
        record
    }

    /// The body of the record at this place, if there is a whole one.
    fn body(self, image: &[u8], at: usize) -> Option<&[u8]> {
        let (header, rest) = image.get(at..)?.split_first_chunk::<HEADER>()?;
        let word = |n: usize| u32::from_le_bytes([header[n], header[n + 1], header[n + 2], header[n + 3]]);
        let tag = self.tag(at);
        if word(0) != tag || header[ROUND_AT..] != self.round.to_le_bytes() {
            return None;
        }
        let body = rest.get(..word(4) as usize)?;
        (word(8) == checksum(tag, body) || is_on(Bug::IgnoresChecksum)).then_some(body)
    }

    /// The round of which the first record says that it is, if it is a whole one.
    fn newest_round(self, image: &[u8]) -> Option<u64> {
        let round = image.get(FRONT..)?.get(ROUND_AT..)?.first_chunk().map(|round| u64::from_le_bytes(*round))?;
        Key { round, ..self }.body(image, FRONT).map(|_| round)
    }

    fn tag(self, at: usize) -> u32 {
        let words = [self.node.0, self.round, at as u64].map(u64::to_le_bytes);
        crc32c::crc32c(words.as_flattened())
    }
}

/// Reads all records of a round.
fn read(file: &dyn StorageBackend, path: &Path, key: Key) -> Result<Vec<Persist>, StoreError> {
    let corrupt = |what: String| StoreError::corrupt(path, what);
    let failed = |cause| StoreError::io("read", path, cause);
    let len = file.len().map_err(failed)?;
    if len != LEN as u64 {
        return Err(corrupt(format!("{len} bytes long, not {LEN}")));
    }
    let mut image = vec![0; LEN];
    file.read(0, &mut image).map_err(failed)?;
    if (Key { round: HEAD_ROUND, ..key }).body(&image, 0).is_none() {
        return Err(corrupt(format!("not a journal of node {}", key.node)));
    }
    if let Some(round) = key.newest_round(&image).filter(|round| *round > key.round) {
        return Err(corrupt(format!("in round {round}, the log in round {}", key.round)));
    }
    let mut batches = Vec::new();
    let mut at = FRONT;
    while let Some(body) = key.body(&image, at) {
        decode(body, &mut batches).map_err(|error| corrupt(format!("record at {at}: {error}")))?;
        at += padded(HEADER + body.len());
    }
    if is_on(Bug::LosesLast) {
        batches.pop();
    }
    match (at..LEN).step_by(ALIGN).find(|&at| key.body(&image, at).is_some()) {
        None => Ok(batches),
        Some(next) => Err(corrupt(format!("no record at {at}, but one at {next}"))),
    }
}

/// A batch without its entries, and how many follow it.
type Head = (Persist, u32);

/// Encodes the batches of a commit: each a head and its entries, as pieces with their length in front.
fn encode(batches: &[&Persist]) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    let mut put = |piece: Vec<u8>| {
        let len = u32::try_from(piece.len()).expect("no longer than a message");
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(&piece);
    };
    for batch in batches {
        let count = u32::try_from(batch.append.len()).expect("a batch has fewer entries than that");
        let (genesis, install) = (batch.genesis.clone(), batch.install.clone());
        let head: Head = (Persist { genesis, install, append: Vec::new(), ..**batch }, count);
        put(wire::encode(&head, wire::MAX_MESSAGE)?);
        for entry in &batch.append {
            put(wire::encode(entry, wire::MAX_MESSAGE)?);
        }
    }
    Ok(body)
}

/// Decodes what [`encode`] made.
fn decode(mut body: &[u8], batches: &mut Vec<Persist>) -> Result<(), WireError> {
    while !body.is_empty() {
        let (mut batch, count): Head = wire::decode(piece(&mut body)?, wire::MAX_MESSAGE)?;
        for _ in 0..count {
            batch.append.push(wire::decode::<Entry>(piece(&mut body)?, wire::MAX_MESSAGE)?);
        }
        batches.push(batch);
    }
    Ok(())
}

/// Takes the next piece off the front.
fn piece<'body>(body: &mut &'body [u8]) -> Result<&'body [u8], WireError> {
    let cut = body.split_first_chunk().and_then(|(len, rest)| rest.split_at_checked(u32::from_le_bytes(*len) as usize));
    let (piece, rest) = cut.ok_or_else(|| WireError::Malformed(String::from("a piece is cut off")))?;
    *body = rest;
    Ok(piece)
}

fn checksum(tag: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(tag, body)
}

/// How much room something of this length takes.
fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// How long the file is. What is in a journal is written once more, in one commit that all others wait for: a millisecond
/// or two for each thousand small entries.
pub(super) const LEN: usize = if cfg!(test) { 32 * 1024 } else { 1024 * 1024 };

/// Where the first record of a round stands: no sector of the head is ever written again.
const FRONT: usize = PAGE;

/// What the kernel reads and writes at least, in bytes. The length of the file is a multiple of it.
const PAGE: usize = 4096;

/// The round of the record that names the node: before the first one.
const HEAD_ROUND: u64 = 0;

/// The largest commit that is written here first.
const RECORD_MAX: usize = LEN / 4;

/// Where records may begin.
const ALIGN: usize = 8;

/// Tag, length, checksum and round, in bytes.
const HEADER: usize = ROUND_AT + 8;

/// Where the round stands in a record.
const ROUND_AT: usize = 12;
