//! A file outside the cluster: whoever does the work writes a line. It knows how often work was really done.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Lines that scripts append.
pub struct Ledger(PathBuf);

impl Ledger {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The whole lines so far. (A short append to a file is one step: lines of different processes do not mix.)
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// Where it lies, for another process.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Appends a line.
    pub fn write(&self, line: &str) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&self.0);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the folder is there");
    }

    /// The shell words that append `line`.
    pub fn append(&self, line: &str) -> String {
        format!("echo \"{line}\" >> '{}'", self.0.display())
    }

    /// The shell words that append `line` if it is not there.
    pub fn append_once(&self, line: &str) -> String {
        format!("grep -sqx \"{line}\" '{}' || {}", self.0.display(), self.append(line))
    }

    /// Lets scripts go on that wait with [`Ledger::until_open`].
    pub fn open(&self) {
        std::fs::write(self.gate(), "").expect("the folder is there");
    }

    /// The shell words that wait until the test opens the gate.
    pub fn until_open(&self) -> String {
        format!("while [ ! -e '{}' ]; do sleep 0.05; done", self.gate().display())
    }

    /// The file that opens it.
    pub fn gate(&self) -> PathBuf {
        self.0.with_extension("open")
    }
}
