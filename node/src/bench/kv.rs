//! Reads and writes of keys, one after the other and many at once.

use std::time::Duration;

use super::figure::Figure;
use super::load::Load;
use super::rig::Rig;
use crate::cli::Diagnostic;

/// Measures all of it.
pub(super) async fn measure(rig: &Rig, length: Duration) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (kind, name, widths) in CASES {
        for &width in widths {
            let name = format!("kv.{name}_{width}");
            let load = Load { name: &name, width, length };
            let once = async |place: usize| {
                let (kv, key) = (rig.client.kv(), format!("bench/{place}"));
                match kind {
                    Kind::Write => kv.put(key, VALUE).await.map(drop),
                    Kind::ReadLinearizable => kv.get(key).await.map(drop),
                    Kind::ReadStale => kv.get(key).stale().await.map(drop),
                }
            };
            figures.extend(load.run(rig, once).await?);
        }
    }
    Ok(figures)
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    ReadLinearizable,
    ReadStale,
}

/// What is done, its name, and how many of it are under way at once.
const CASES: [(Kind, &str, &[usize]); 3] = [
    (Kind::Write, "write", &[1, 128, 512]),
    (Kind::ReadLinearizable, "read_lin", &[1, 128]),
    (Kind::ReadStale, "read_stale", &[1, 128]),
];

/// 256 bytes, like a small record.
const VALUE: &[u8] = &[b'v'; 256];
