//! An item of a queue, as the command finds it that was started for it.
//!
//! It is in a file, always. It is also in a variable, for commands of one line, where a variable can hold it: nobody can start a command with
//! one that has a NUL in it or is longer than [`WORD_MAX`], and an item that nothing can be started for would come first for ever.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::guardian::Variable;
use super::{Code, Diagnostic};
use crate::http::decoded;

/// The file is removed with it.
pub(super) struct Item {
    file: NamedTempFile,
    value: Vec<u8>,
}

impl Item {
    /// The item of a grant, if there is one.
    pub(super) fn of(grant: &Value) -> Result<Option<Self>, Diagnostic> {
        if grant["item"].is_null() {
            return Ok(None);
        }
        let value =
            decoded(grant, "value").ok_or_else(|| Diagnostic::new(Code::Internal, "the item cannot be read"))?;
        let written = || {
            let mut file = tempfile::Builder::new().prefix("tenure-item-").tempfile()?;
            file.write_all(&value)?;
            Ok(file)
        };
        let failed = |error: std::io::Error| {
            let folder = std::env::temp_dir();
            Diagnostic::new(Code::Internal, format!("cannot write the item to a file in {}: {error}", folder.display()))
                .hint("TMPDIR names another folder")
        };
        let file = written().map_err(failed)?;
        Ok(Some(Self { file, value }))
    }

    pub(super) fn environment(&self) -> [Variable; 2] {
        let fits = !self.value.contains(&0) && ITEM.len() + "=".len() + self.value.len() <= WORD_MAX;
        let value = fits.then(|| OsString::from_vec(self.value.clone()));
        [(ITEM, value), ("TENURE_ITEM_FILE", Some(self.file.path().into()))]
    }
}

const ITEM: &str = "TENURE_ITEM";

/// How many bytes Linux allows for one argument of a program, or for one variable with its name, beside the NUL that ends it.
pub(crate) const WORD_MAX: usize = 128 * 1024 - 1;
