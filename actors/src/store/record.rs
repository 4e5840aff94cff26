//! Rows of the store: a checksum, then the encoded value.
//!
//! # Invariants
//!
//! * The checksum covers the key as well, so that a row found under another key is as bad as a changed one.

use protocol::wire;
use redb::{Key, StorageError, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A table whose values are rows of this module.
pub(super) type Rows<'txn, K> = Table<'txn, K, &'static [u8]>;

/// Writes the row of `key`, in place: the payload is copied once, into the page.
pub(super) fn put<K: Key + 'static>(
    table: &mut Rows<'_, K>,
    key: K::SelfType<'_>,
    body: &[u8],
) -> Result<(), StorageError> {
    let sum = checksum::<K>(&key, body);
    let mut row = table.insert_reserve(key, SUM_LEN + body.len())?;
    let (head, rest) = row.as_mut().split_at_mut(SUM_LEN);
    head.copy_from_slice(&sum.to_le_bytes());
    rest.copy_from_slice(body);
    Ok(())
}

/// Encodes a value for [`put`].
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, wire::WireError> {
    wire::encode(value, wire::MAX_MESSAGE)
}

/// Reads the row of `key`, or says what is wrong with it.
pub(super) fn read<K: Key + 'static, T: DeserializeOwned>(key: &K::SelfType<'_>, row: &[u8]) -> Result<T, String> {
    wire::decode(body::<K>(key, row)?, wire::MAX_MESSAGE).map_err(|error| error.to_string())
}

/// What [`put`] wrote as the row of `key`, or what is wrong with it.
pub(super) fn body<'row, K: Key + 'static>(key: &K::SelfType<'_>, row: &'row [u8]) -> Result<&'row [u8], String> {
    let Some((head, body)) = row.split_first_chunk::<SUM_LEN>() else {
        return Err(format!("only {} bytes long", row.len()));
    };
    let (written, found) = (u32::from_le_bytes(*head), checksum::<K>(key, body));
    if written != found {
        return Err(format!("checksum {found:08x}, written as {written:08x}"));
    }
    Ok(body)
}

/// The checksum of a row under its key.
fn checksum<K: Key + 'static>(key: &K::SelfType<'_>, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(K::as_bytes(key).as_ref()), body)
}

/// How many bytes the checksum takes.
const SUM_LEN: usize = 4;
