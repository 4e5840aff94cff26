//! Context files: where the clusters are that were started on this machine.
//!
//! `tenure dev` and `tenure demo` write one each, every other verb asks the cluster that was started last and still runs, so that a second
//! terminal needs no flags.
//!
//! # Invariants
//!
//! * A file is replaced as a whole (written beside itself, then renamed): a reader never sees half of one.
//! * It is removed by the process that wrote it, or when that process is no more.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
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

    /// The context of the cluster that was started last, of one that still runs if there is any.
    ///
    /// # Errors
    ///
    /// If a file exists and cannot be read or understood.
    pub fn load() -> Result<Option<Self>, Diagnostic> {
        let Some(folder) = folder() else { return Ok(None) };
        let mut found = Vec::new();
        for path in files(&folder) {
            let read = std::fs::metadata(&path).and_then(|about| Ok((about.modified()?, std::fs::read(&path)?)));
            let (written, text) = match read {
                Ok(read) => read,
                // Its cluster has ended meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unusable(&path, &error.to_string())),
            };
            let context: Self = serde_json::from_slice(&text).map_err(|error| unusable(&path, &error.to_string()))?;
            found.push((context.runs(), written, context));
        }
        let newest = found.into_iter().max_by_key(|(runs, written, _)| (*runs, *written));
        Ok(newest.map(|(_, _, context)| context))
    }

    /// Whether the process that wrote this runs.
    fn runs(&self) -> bool {
        let pid = i32::try_from(self.pid).map(Pid::from_raw);
        pid.is_ok_and(|pid| kill(pid, None) != Err(Errno::ESRCH))
    }

    /// Writes the context.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or written.
    pub fn save(&self) -> Result<(), Diagnostic> {
        let folder = folder().ok_or_else(|| {
            Diagnostic::new(Code::Config, "no place for the context file").hint("set TENURE_CONTEXT to a folder")
        })?;
        remove_if(&folder, |context| !context.runs());
        let path = folder.join(format!("{PREFIX}{}{SUFFIX}", self.pid));
        let text = serde_json::to_vec_pretty(self).expect("a context has a text");
        let beside = path.with_extension("new");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(|error| unusable(&path, &error.to_string()))
    }

    /// Removes the file that this process wrote.
    pub fn remove_own() {
        if let Some(folder) = folder() {
            remove_if(&folder, |context| context.pid == std::process::id());
        }
    }
}

/// Removes the files of some clusters.
fn remove_if(folder: &Path, is_meant: impl Fn(&Context) -> bool) {
    for path in files(folder) {
        let context = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if context.is_some_and(|context| is_meant(&context)) {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The context files in a folder, if there is one.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_context = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    };
    entries.filter(is_context).collect()
}

/// `TENURE_CONTEXT` names the folder; otherwise the state folder of the XDG rules.
fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TENURE_CONTEXT")
        .or_else(|| set("XDG_STATE_HOME").map(|state| state.join("tenure")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/tenure")))
}

fn unusable(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::new(Code::Config, format!("cannot use the context file {}: {why}", path.display()))
        .hint("remove it, or name the cluster with --node")
}

/// A context file is called by the process that wrote it: `context-4711.json`.
const PREFIX: &str = "context-";
const SUFFIX: &str = ".json";
