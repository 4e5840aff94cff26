//! The house rules that a compiler does not check: which package may know which, and what `protocol` may not know at all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in the `[dependencies]` section of a package.
fn dependencies(package: &str) -> BTreeSet<String> {
    let manifest = read(&root().join(package).join("Cargo.toml"));
    let section = manifest.split("[dependencies]").nth(1).expect("every package has dependencies");
    let section = section.split("\n[").next().expect("split gives at least one part");
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().trim().to_owned();
    section
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Every Rust source below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The lines of a package's sources, without comments, that contain one of `words`.
fn lines_with(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources(&root().join(folder)) {
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn dependencies_form_a_diamond() {
    let ours = ["protocol", "membership", "actors"];
    let known = |package| {
        let all = dependencies(package);
        ours.into_iter().filter(|name| all.contains(*name)).collect::<Vec<_>>()
    };
    assert_eq!(known("protocol"), [""; 0]);
    assert_eq!(known("membership"), ["protocol"]);
    assert_eq!(known("actors"), ["protocol"]);
    assert_eq!(known("node"), ours);
    assert_eq!(known("macros"), [""; 0]);
}

#[test]
fn each_foreign_world_is_known_by_one_package() {
    for (library, owner) in [
        ("foca", "membership"),
        ("ractor", "actors"),
        ("ractor_cluster", "actors"),
        ("redb", "actors"),
        ("axum", "node"),
        ("clap", "node"),
        ("syn", "macros"),
    ] {
        for package in ["protocol", "membership", "actors", "macros", "node"] {
            assert_eq!(dependencies(package).contains(library), package == owner, "{package} and {library}");
        }
    }
}

#[test]
fn protocol_is_pure() {
    assert_eq!(
        dependencies("protocol").into_iter().collect::<Vec<_>>(),
        ["bincode", "bytes", "crc32c", "imbl", "serde", "thiserror"],
        "a machine needs nothing else"
    );
    let impure =
        ["HashMap", "HashSet", "Instant", "SystemTime", "std::net", "std::fs", "std::env", "std::thread", "println!"];
    let mut found = lines_with("protocol/src", &impure);
    // Tests beside the code, and one that compares with cases of another project, may read files.
    let tests = ["tests.rs", "consensus/oracle.rs", "founding/search.rs"];
    let is_test = |line: &String| tests.iter().any(|file| line.contains(file));
    found.retain(|line| !is_test(line) && !line.contains("net::SocketAddr"));
    assert_eq!(found, [""; 0]);
}

#[test]
fn only_the_links_know_what_carries_them() {
    let mut found = lines_with("actors/src", &["ractor_cluster"]);
    found.retain(|line| !line.contains("/links/"));
    assert_eq!(found, [""; 0]);
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", "dbg!"];
    let found: Vec<String> = ["protocol/src", "membership/src", "actors/src", "macros/src", "node/src"]
        .iter()
        .flat_map(|folder| lines_with(folder, &words))
        .collect();
    assert_eq!(found, [""; 0]);
}

/// The name of a module that a line declares, if it does.
fn module(line: &str) -> Option<&str> {
    line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))
}

/// Whether a line begins an item that other crates may use.
fn is_public(line: &str) -> bool {
    let words = line.strip_prefix("pub ").map(|rest| rest.split([' ', '<', '(']));
    let kinds = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];
    words.is_some_and(|mut words| {
        words.find(|word| !["async", "unsafe"].contains(word)).is_some_and(|word| kinds.contains(&word))
    })
}

#[test]
fn every_public_item_of_the_library_has_an_example() {
    let folder = root().join("node/src");
    let door = read(&folder.join("lib.rs"));
    let hidden: Vec<&str> =
        door.split("#[doc(hidden)]\n").skip(1).filter_map(|rest| module(rest.lines().next()?)).collect();
    assert!(hidden.contains(&"cli"), "what is hidden is found: {hidden:?}");
    let (mut count, mut without) = (0, Vec::new());
    for path in sources(&folder) {
        let name = path.strip_prefix(&folder).expect("it lies there").display().to_string();
        let first = name.split(['/', '.']).next().unwrap_or_default();
        if hidden.contains(&first) || name.ends_with("tests.rs") {
            continue;
        }
        let text = read(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_public(line)) {
            // What stands above it and belongs to it: comments and attributes, which may have several lines.
            let is_of_it =
                |line: &&&str| line.starts_with("///") || !(line.is_empty() || line.ends_with(['{', '}', ';']));
            let above: Vec<&&str> = lines[..number].iter().rev().take_while(is_of_it).collect();
            let is_shown = above.iter().any(|line| line.starts_with("/// ```"));
            let is_hidden = above.iter().any(|line| **line == "#[doc(hidden)]");
            count += 1;
            if !is_shown && !is_hidden {
                without.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(count > 250, "{count} items are no library");
    assert_eq!(without, [""; 0], "an example, or `pub(crate)`");
}
