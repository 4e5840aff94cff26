//! `tenure fence`: files that refuse a holder who was replaced, for scripts that run under `tenure lock` or `tenure elect`.

use std::io::Read;
use std::path::PathBuf;

use protocol::Fence;
use serde_json::json;

use super::{Code, Diagnostic, Exit, Format, Frame};
use crate::fenced::{self, File};

/// The verbs under `fence`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Take the fence for a file, or fail if a later holder was here
    Check(Held),
    /// Replace a file with stdin, or fail if a later holder was here: one step, unlike a check and a copy
    Write(Held),
    /// Print the highest fence that was taken for a file
    Show {
        /// The file
        file: PathBuf,
    },
}

/// Which file, under which right.
#[derive(Debug, clap::Args)]
pub(super) struct Held {
    /// The file; its fence is kept beside it, in FILE.fence
    file: PathBuf,
    /// The fence of the right under which it is written
    #[arg(long, env = "TENURE_FENCE", value_name = "NUMBER")]
    fence: u64,
}

pub(super) fn run(verb: Verb, frame: &Frame) -> Result<Exit, Diagnostic> {
    match verb {
        Verb::Check(held) => {
            let file = held.open()?;
            drop(file);
            held.tell(frame);
        }
        Verb::Write(held) => {
            let mut content = Vec::new();
            std::io::stdin()
                .read_to_end(&mut content)
                .map_err(|error| Diagnostic::new(Code::Usage, format!("cannot read stdin: {error}")))?;
            held.open()?.write(&content)?;
            held.tell(frame);
        }
        Verb::Show { file } => match File::current(&file)? {
            Some(fence) => tell(frame, &file, fence),
            None => {
                return Err(Diagnostic::new(
                    Code::NotFound,
                    format!("{}: nobody has taken a fence for it", file.display()),
                ));
            }
        },
    }
    Ok(Exit::OK)
}

impl Held {
    fn open(&self) -> Result<File, fenced::Error> {
        File::open(&self.file, Fence(self.fence))
    }

    fn tell(&self, frame: &Frame) {
        tell(frame, &self.file, Fence(self.fence));
    }
}

fn tell(frame: &Frame, file: &std::path::Path, fence: Fence) {
    match frame.output.format() {
        Format::Json | Format::Jsonl => frame.output.json(json!({ "file": file.to_string_lossy(), "fence": fence.0 })),
        _ => frame.output.line(fence.0.to_string()),
    }
}
