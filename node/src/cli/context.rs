//! The context file: where the cluster is that was started last on this machine.
//!
//! `tenure dev` and `tenure demo` write it, every other verb reads it, so that a second terminal needs no flags.
//!
//! # Invariants
//!
//! * It is replaced as a whole (written beside itself, then renamed): a reader never sees half of one.
//! * It is removed only by the process that wrote it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic};

/// Where a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The cluster's name.
    pub cluster: String,
    /// The HTTP addresses of its nodes.
    pub nodes: Vec<String>,
    /// The process that wrote this.
    pub pid: u32,
}

impl Context {
    /// A context written by this process.
    #[must_use]
    pub fn new(cluster: impl Into<String>, nodes: Vec<String>) -> Self {
        Self { cluster: cluster.into(), nodes, pid: std::process::id() }
    }

    /// The context, if there is one.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be read or understood.
    pub fn load() -> Result<Option<Self>, Diagnostic> {
        let Some(path) = path() else { return Ok(None) };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| unusable(&path, &error.to_string()))
    }

    /// Writes the context.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or written.
    pub fn save(&self) -> Result<(), Diagnostic> {
        let path = path().ok_or_else(|| {
            Diagnostic::new(Code::Config, "no place for the context file").hint("set TENURE_CONTEXT to a folder")
        })?;
        let folder = path.parent().expect("a file lies in a folder");
        let text = serde_json::to_vec_pretty(self).expect("a context has a text");
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(|error| unusable(&path, &error.to_string()))
    }

    /// Removes the file if it still is the one that this process wrote.
    pub fn remove_own() {
        let is_own = matches!(Self::load(), Ok(Some(context)) if context.pid == std::process::id());
        if let (true, Some(path)) = (is_own, path()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `TENURE_CONTEXT` names the folder; otherwise the state folder of the XDG rules.
fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("TENURE_CONTEXT")
        .or_else(|| set("XDG_STATE_HOME").map(|state| state.join("tenure")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/tenure")))?;
    Some(folder.join("context.json"))
}

fn unusable(path: &std::path::Path, why: &str) -> Diagnostic {
    Diagnostic::new(Code::Config, format!("cannot use the context file {}: {why}", path.display()))
        .hint("remove it, or name the cluster with --node")
}
