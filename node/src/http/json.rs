//! How values look in JSON: the schema `tenure/v1`.
//!
//! # Invariants
//!
//! * Bytes are shown as text where they are UTF-8 and as base64 otherwise, and a second field says which.
//! * Times carry their unit in the name; nodes are 16 hexadecimal digits; tasks are shown `t42`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The name and version of all documents.
pub const SCHEMA: &str = "tenure/v1";

/// Bytes in base64.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a base64 text.
///
/// # Errors
///
/// The sentence to show.
pub fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))
}

/// Puts bytes under `name`, and how they are written under `name_encoding`.
pub fn encoded(document: &mut Value, name: &str, bytes: &[u8]) {
    let (text, encoding) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), UTF_8),
        Err(_) => (base64(bytes), BASE64),
    };
    document[name] = text.into();
    document[format!("{name}_encoding")] = encoding.into();
}

/// The bytes that [`encoded`] put under `name`.
#[must_use]
pub fn decoded(document: &Value, name: &str) -> Option<Vec<u8>> {
    let text = document[name].as_str()?;
    match document[format!("{name}_encoding")].as_str() {
        Some(BASE64) => from_base64(text).ok(),
        _ => Some(text.as_bytes().to_vec()),
    }
}

const UTF_8: &str = "utf-8";
const BASE64: &str = "base64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_become_base64() {
        let mut document = serde_json::json!({});
        encoded(&mut document, "output", "ü".as_bytes());
        assert_eq!(document, serde_json::json!({ "output": "ü", "output_encoding": "utf-8" }));
        encoded(&mut document, "output", &[0xff, 0]);
        assert_eq!(document["output_encoding"], "base64");
        assert_eq!(decoded(&document, "output"), Some(vec![0xff, 0]));
    }
}
