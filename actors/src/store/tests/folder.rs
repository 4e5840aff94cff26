//! Identity, incarnation, and what is said about folders that cannot be used.

use std::fs;

use protocol::{Incarnation, NodeId};

use super::super::{DiskStore, LogStore, StoreError};

#[test]
fn an_identity_is_drawn_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/there/yet");
    for fresh in 7..10 {
        let found = DiskStore::open(&path, 0, NodeId(fresh)).unwrap().load().unwrap();
        assert_eq!(found.node, NodeId(7));
    }
}

#[test]
fn incarnations_grow_whatever_the_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let incarnations = [1000, 500, 0, 2000, 2000]
        .map(|unix_ms| DiskStore::open(folder.path(), unix_ms, NodeId(7)).unwrap().load().unwrap().incarnation);
    assert_eq!(incarnations, [1000, 1001, 1002, 2000, 2001].map(Incarnation));
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_system_that_knows_no_folders_is_refused() {
    for path in ["/proc/nope", "/proc/nope/deeper"] {
        let error = DiskStore::open(path.as_ref(), 0, NodeId(7)).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}

#[test]
fn a_folder_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap();
    let error = DiskStore::open(folder.path(), 0, NodeId(8)).unwrap_err();
    let (path, pid) = (folder.path().display(), std::process::id());
    assert_eq!(error.to_string(), format!("data folder {path} is in use by process {pid}"));
    drop(store);
    DiskStore::open(folder.path(), 0, NodeId(8)).unwrap();
}

#[test]
fn a_path_that_is_no_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "here already").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = DiskStore::open(&path, 0, NodeId(7)).unwrap_err();
        assert!(matches!(&error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_folder_that_takes_no_files_is_refused_by_name() {
    let error = DiskStore::open("/proc/self/fd".as_ref(), 0, NodeId(7)).unwrap_err();
    assert!(matches!(&error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/fd"), "{error}");
}

#[test]
fn another_programs_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for content in ["", "not a log", &"x".repeat(10_000)] {
        fs::write(folder.path().join("tenure.redb"), content).unwrap();
        let error = DiskStore::open(folder.path(), 0, NodeId(7)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("tenure.redb")).unwrap(), content, "it is left alone");
    }
}

#[test]
fn a_half_created_file_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tenure.redb.new"), vec![0; 10_000]).unwrap();
    assert_eq!(DiskStore::open(folder.path(), 0, NodeId(7)).unwrap().load().unwrap().node, NodeId(7));
}

#[test]
fn a_retired_identity_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::open(folder.path(), 0, NodeId(7)).unwrap().retire().unwrap();
    for _ in 0..2 {
        let error = DiskStore::open(folder.path(), 0, NodeId(8)).unwrap_err();
        assert!(matches!(error, StoreError::Retired { node: NodeId(7), .. }), "{error}");
    }
}
