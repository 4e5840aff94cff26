//! An item of a queue, as the command finds it that was started for it.
//!
//! It is in a file. It is also in a variable, for commands of one line, where a variable can hold it: nobody can start a command with one
//! that has a NUL in it or is longer than [`WORD_MAX`], and an item that nothing can be started for would come first for ever. Where no file
//! can be written the variable must do.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::guardian::Variable;
use super::{Code, Diagnostic};
use crate::http::decoded;

/// The file is removed with it.
pub(super) struct Item {
    file: io::Result<NamedTempFile>,
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
        Self::within(&std::env::temp_dir(), value).map(Some)
    }

    /// An item that is in a file of this folder, or fits a variable.
    fn within(folder: &Path, value: Vec<u8>) -> Result<Self, Diagnostic> {
        let written = || {
            let mut file = tempfile::Builder::new().prefix("tenure-item-").tempfile_in(folder)?;
            file.write_all(&value)?;
            Ok(file)
        };
        let item = Self { file: written(), value };
        match item.without_file() {
            Some(why) if item.word().is_none() => {
                Err(Diagnostic::new(Code::Internal, why).hint("TMPDIR names another folder"))
            }
            _ => Ok(item),
        }
    }

    /// Why it is in no file, if that is so.
    pub(super) fn without_file(&self) -> Option<String> {
        self.file.as_ref().err().map(|error| format!("cannot write the item to a file: {error}"))
    }

    /// What a variable can hold.
    fn word(&self) -> Option<OsString> {
        let fits = !self.value.contains(&0) && ITEM.len() + "=".len() + self.value.len() <= WORD_MAX;
        fits.then(|| OsString::from_vec(self.value.clone()))
    }

    pub(super) fn environment(&self) -> [Variable; 2] {
        let file = self.file.as_ref().ok().map(|file| file.path().into());
        [(ITEM, self.word()), ("TENURE_ITEM_FILE", file)]
    }
}

const ITEM: &str = "TENURE_ITEM";

/// How many bytes Linux allows for one argument of a program, or for one variable with its name, beside the NUL that ends it.
pub(crate) const WORD_MAX: usize = 128 * 1024 - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_file_can_be_written_the_variable_must_do() {
        let folder = tempfile::tempdir().unwrap();
        let both = Item::within(folder.path(), b"a".to_vec()).unwrap();
        assert!(both.without_file().is_none());
        assert!(both.environment().iter().all(|(_, value)| value.is_some()));
        let nowhere = folder.path().join("nowhere");
        let word = Item::within(&nowhere, b"a".to_vec()).unwrap();
        assert!(word.without_file().is_some());
        assert_eq!(word.environment(), [(ITEM, Some("a".into())), ("TENURE_ITEM_FILE", None)]);
        assert!(Item::within(&nowhere, b"a\0b".to_vec()).is_err(), "it would reach nobody");
    }
}
