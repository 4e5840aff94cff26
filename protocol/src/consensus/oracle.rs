//! Where the answers of etcd-io/raft are (Apache-2.0): data files beside the repository, compared with ours by tests.

use std::path::{Path, PathBuf};

/// The folder of this name among the oracles: below `TENURE_ORACLES` if that is set, which must then exist, else beside the
/// repository. Where there is none, the test compares nothing and says so.
#[allow(clippy::disallowed_methods, reason = "a test may ask its environment where its data is")]
pub(super) fn folder(name: &str) -> Option<PathBuf> {
    if let Some(asked) = std::env::var_os("TENURE_ORACLES") {
        let folder = Path::new(&asked).join(name);
        assert!(folder.is_dir(), "TENURE_ORACLES names no folder that holds {name}");
        return Some(folder);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.ancestors().map(|above| above.join("shared/oracles/etcd-raft").join(name)).find(|it| it.is_dir());
    if found.is_none() {
        println!("skipped: no ../shared/oracles/etcd-raft beside the repository, and TENURE_ORACLES is not set");
    }
    found
}
