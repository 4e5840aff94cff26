//! Every program in `examples/` runs to its end by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Turn};

#[test]
fn every_example_runs_to_its_end() {
    let _turn = Turn::take();
    let home = tempfile::tempdir().expect("a temporary folder");
    // All at once: each of them mostly waits.
    let programs: Vec<Program> = names().into_iter().map(|name| Program::start(name, home.path())).collect();
    for program in programs {
        let (name, status, told) = program.wait();
        assert!(status.is_some_and(|status| status.success()), "{name} ended with {status:?}:\n{told}");
        assert!(!told.is_empty(), "{name} shows nothing");
    }
}

/// An example that runs; killed if it is dropped before.
struct Program {
    name: String,
    child: Child,
    told: PathBuf,
}

impl Program {
    fn start(name: String, home: &Path) -> Self {
        let (program, told) = (binary(&name), home.join(&name));
        let file = File::create(&told).expect("a file for what it says");
        let both = (file.try_clone().expect("the same file"), file);
        let mut command = Command::new(&program);
        command.current_dir(home).stdin(Stdio::null()).stdout(both.0).stderr(both.1);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "{}: {error}; `cargo test` builds it, and so does `cargo build -p tenure --examples`",
                program.display()
            )
        });
        Self { name, child, told }
    }

    /// How it ended, if it has in time, and what it said.
    fn wait(mut self) -> (String, Option<ExitStatus>, String) {
        let late = Instant::now() + PATIENCE;
        let mut status = None;
        while status.is_none() && Instant::now() < late {
            status = self.child.try_wait().expect("it can be asked");
            std::thread::sleep(POLL);
        }
        let told = std::fs::read_to_string(&self.told).unwrap_or_default();
        (self.name.clone(), status, told)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The programs of the folder: one that nobody lists is not built, and found missing here.
fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(folder).expect("there are examples").map(|file| file.expect("a file").path());
    let programs = files.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let names: Vec<String> = programs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    assert!(names.len() > 10, "there are examples: {names:?}");
    names
}

/// Beside the binary itself.
fn binary(name: &str) -> PathBuf {
    Path::new(BINARY).with_file_name("examples").join(name)
}

/// Between two looks at a program.
const POLL: Duration = Duration::from_millis(10);

/// Far longer than any of them takes.
const PATIENCE: Duration = Duration::from_secs(120);
