//! Whose data folder it is.
//!
//! The log knows its cluster by a number; people know it by a name. A node that was started over another cluster's folder by
//! mistake would wait for peers that refuse it, so the name stands in the folder and is compared before anything starts.
//!
//! # Invariants
//!
//! * The name is written only once the node is in a cluster: a start under a wrong name that came to nothing leaves no trace.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Diagnostic};

/// The place of the name in a data folder.
#[derive(Clone, Debug)]
pub(crate) struct NameFile(PathBuf);

impl NameFile {
    /// In this folder, which need not be there yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("cluster"))
    }

    /// Refuses a folder that belongs to a cluster of another name.
    pub(crate) fn check(&self, cluster: &str) -> Result<(), Diagnostic> {
        let Ok(found) = std::fs::read_to_string(&self.0) else {
            // Not there yet, or not readable: the store will say what is wrong with the folder.
            return Ok(());
        };
        let found = found.trim_end();
        if found == cluster {
            return Ok(());
        }
        let folder = self.0.parent().unwrap_or(&self.0).display();
        Err(Diagnostic::new(
            Code::WrongCluster,
            format!(
                "the data folder {folder} belongs to the cluster named `{}`, not `{cluster}`",
                found.escape_debug()
            ),
        )
        .hint("start it with that --cluster, or choose another folder with --data"))
    }

    /// Writes the name, if there is none yet.
    pub(crate) fn write(&self, cluster: &str) {
        if self.0.exists() {
            return;
        }
        let beside = self.0.with_extension("new");
        let written = std::fs::write(&beside, format!("{cluster}\n")).and_then(|()| std::fs::rename(&beside, &self.0));
        if let Err(error) = written {
            // Nothing rests on it but the comparison at the next start.
            tracing::warn!(%error, "the cluster's name could not be written into the data folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let file = NameFile::new(folder.path());
        assert_eq!(file.check("photos"), Ok(()), "nobody's yet");
        file.write("photos");
        file.write("music");
        assert_eq!(file.check("photos"), Ok(()));
        let error = file.check("music").unwrap_err();
        assert_eq!(error.code, Code::WrongCluster);
        assert!(error.message.contains("`photos`, not `music`"), "{}", error.message);
    }
}
