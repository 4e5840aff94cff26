//! Story 1, ten minutes to the first result: an empty crate, one dependency, the program of the first page, a cluster and a task from two
//! other shells, and the same program's test on three nodes.
//!
//! The programs are taken from the README as they stand there, so what a newcomer pastes is what runs here. Only the time is not a
//! newcomer's: the crate uses what the workspace has built of other people's crates.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::command_line::{err, out};
use crate::support::{BINARY, Running, Turn, tenure};

#[test]
fn from_an_empty_crate_to_the_first_result() {
    let _turn = Turn::take();
    let home = tempfile::tempdir().expect("a temporary folder");
    let empty = Crate::empty(home.path());
    empty.cargo(&["add", "--offline", "--path", env!("CARGO_MANIFEST_DIR")]);
    empty.cargo(&["add", "--offline", "tokio", "--features", "macros,rt-multi-thread"]);

    let programs = programs();
    let [program, test] = programs.as_slice() else { panic!("the first page has two programs: {programs:#?}") };
    assert!(program.lines().count() <= 25, "25 lines are enough");
    assert_eq!(program.matches("#[task]").count(), 1);
    empty.write("src/main.rs", &format!("{program}\n{test}"));

    assert_eq!(out(&empty.cargo(&["run", "--offline", "--quiet"])), "hello, world");

    let mut dev = Running::dev(&[], home.path());
    let echo = tenure(&["submit", "tenure.echo", "\"hello\"", "--wait"], home.path());
    assert_eq!((out(&echo), echo.status.code()), ("\"hello\"".to_owned(), Some(0)), "{}", err(&echo));
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.code(), Some(0));

    let tested = out(&empty.cargo(&["test", "--offline", "--quiet", "--", "--format", "pretty"]));
    assert!(tested.contains("greets_although_the_master_dies ... ok"), "{tested}");
}

/// A crate outside of the workspace.
struct Crate(PathBuf);

impl Crate {
    /// Nothing but `cargo new`, the versions that the workspace uses, and how it builds other people's crates: those are there already.
    fn empty(home: &Path) -> Self {
        let new = Self(home.to_path_buf()).cargo(&["new", "--quiet", "--vcs", "none", "hello"]);
        assert!(new.status.success());
        let empty = Self(home.join("hello"));
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read =
            |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        empty.write("Cargo.lock", &read(&workspace.join("Cargo.lock")));
        let manifest = read(&empty.0.join("Cargo.toml"));
        empty.write("Cargo.toml", &format!("{manifest}\n{}", profile(&read(&workspace.join("Cargo.toml")))));
        empty
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).expect("the crate is ours");
    }

    /// Runs cargo in the crate; it succeeds.
    #[track_caller]
    fn cargo(&self, args: &[&str]) -> Output {
        let target = Path::new(BINARY).ancestors().nth(2).expect("it lies in target/debug");
        let mut command = Command::new(env!("CARGO"));
        command.args(args).current_dir(&self.0).env("CARGO_TARGET_DIR", target).env("NO_COLOR", "1");
        let output = command.output().expect("whoever runs tests has cargo");
        assert!(output.status.success(), "cargo {args:?}: {}\n{}", out(&output), err(&output));
        output
    }
}

/// The programs of the first page, in order.
fn programs() -> Vec<String> {
    include_str!("../../README.md")
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect()
}

/// The workspace's dev profile, but for its own packages.
fn profile(manifest: &str) -> String {
    let sections = manifest.split_inclusive('\n').fold(Vec::new(), |mut sections: Vec<String>, line| {
        if line.starts_with('[') {
            sections.push(String::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push_str(line);
        }
        sections
    });
    let is_meant =
        |section: &&String| section.starts_with("[profile.dev") && !section.starts_with("[profile.dev.package.tenure");
    sections.iter().filter(is_meant).cloned().collect()
}
