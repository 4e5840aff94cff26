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
