//! The one place where values become bytes and bytes become values.
//!
//! Everything that crosses a link, a gossip packet or the disk goes through [`encode`] and [`decode`]: a leading format
//! byte, then bincode with variable-length integers. The size is checked before anything is decoded and after anything
//! is encoded, and the whole input must be consumed.
//!
//! # Invariants
//!
//! * Arbitrary bytes never panic and never allocate more than the limit.
//! * What `encode` accepted under a limit, `decode` accepts under the same limit.
//!
//! Two traps of the format, both measured: a type on the wire must not be recursive (the stack overflows), and a byte
//! string must be [`bytes::Bytes`] or `serde_bytes`, because a plain `Vec<u8>` is coded byte by byte, twenty times slower.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than the caller allows.
    #[error("{len} bytes exceed the limit of {limit}")]
    TooLong {
        /// What it would take.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Written by a version that this build does not know.
    #[error("unknown format {0}")]
    Format(u8),
    /// Not a value of the expected type.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Encodes `value`, refusing more than `limit` bytes.
///
/// # Errors
///
/// [`WireError::TooLong`] if the encoding exceeds `limit`.
pub fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(128);
    out.push(FORMAT);
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if out.len() > limit {
        return Err(WireError::TooLong { len: out.len(), limit });
    }
    Ok(out)
}

/// Decodes a value that [`encode`] made, refusing more than `limit` bytes.
///
/// # Errors
///
/// [`WireError`] for anything but one whole value of this format.
pub fn decode<T: DeserializeOwned>(input: &[u8], limit: usize) -> Result<T, WireError> {
    if input.len() > limit {
        return Err(WireError::TooLong { len: input.len(), limit });
    }
    let (&format, body) = input.split_first().ok_or_else(|| WireError::Malformed("empty".into()))?;
    if format != FORMAT {
        return Err(WireError::Format(format));
    }
    // The decoder's own limit counts the memory it claims, so a hostile length prefix cannot allocate more than this.
    let config = bincode::config::standard().with_limit::<{ MAX_MESSAGE }>();
    let (value, used) =
        bincode::serde::decode_from_slice(body, config).map_err(|error| WireError::Malformed(error.to_string()))?;
    if used != body.len() {
        return Err(WireError::Malformed(format!("{} bytes left over", body.len() - used)));
    }
    Ok(value)
}

/// The first byte of everything we write.
const FORMAT: u8 = 1;

/// The largest message between two nodes, in bytes: one entry of the greatest size and room for what surrounds it.
pub const MAX_MESSAGE: usize = 2 * 1024 * 1024;

/// The largest value or payload that a client may store, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// The largest single command, in bytes.
pub const MAX_COMMAND: usize = MAX_VALUE + 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = (7u64, String::from("seven"), vec![1u32, 2, 3]);
        let bytes = encode(&value, 100).unwrap();
        assert_eq!(decode::<(u64, String, Vec<u32>)>(&bytes, 100).unwrap(), value);
    }

    #[test]
    fn a_hostile_length_is_refused_without_allocating() {
        let mut bytes = vec![FORMAT, 253];
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(matches!(decode::<bytes::Bytes>(&bytes, 100), Err(WireError::Malformed(_))));
        assert!(matches!(decode::<String>(&bytes, 100), Err(WireError::Malformed(_))));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64, 100).unwrap();
        bytes.push(0);
        assert!(decode::<u64>(&bytes, 100).is_err());
    }

    #[test]
    fn the_limit_holds_both_ways() {
        assert!(matches!(encode(&bytes::Bytes::from(vec![0; 100]), 50), Err(WireError::TooLong { .. })));
        assert!(matches!(decode::<u64>(&[0; 51], 50), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn another_format_is_refused() {
        assert_eq!(decode::<u64>(&[9, 1], 50), Err(WireError::Format(9)));
        assert!(matches!(decode::<u64>(&[], 50), Err(WireError::Malformed(_))));
    }
}
