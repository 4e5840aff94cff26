//! The data folder: created, synced and held by one process at a time.
//!
//! # Invariants
//!
//! * While a [`Folder`] lives, no other process has one over the same path. The kernel drops the lock with the process,
//!   however it ends, so a lock that is free proves that the process before us is gone.
//! * A name in the folder is durable once [`Folder::sync`] has returned, and so is the folder itself.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// A data folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Keeps the lock for as long as it is open. Closed on exec, so children do not inherit it.
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, and takes its lock.
    pub(super) fn claim(path: &Path) -> Result<Self, StoreError> {
        create(path)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(|cause| StoreError::io("create the lock file in", path, cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.to_path_buf(), pid: owner(&mut lock) });
            }
            Err(TryLockError::Error(cause)) => return Err(StoreError::io("lock", path, cause)),
        }
        sign(&mut lock).map_err(|cause| StoreError::io("write the lock file in", path, cause))?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync(&self.path)
    }

    /// Gives a file of ours a name that nothing has, derived from `name`, and makes that durable. Returns the new path.
    pub(super) fn set_aside(&self, file: &str, name: &str) -> Result<PathBuf, StoreError> {
        let from = self.file(file);
        // There is one process in this folder, so nobody takes the name in between.
        let free = (0..).map(|n| self.file(&format!("{name}{n}"))).find(|path| !path.exists());
        let aside = free.expect("a folder has fewer files than there are numbers");
        fs::rename(&from, &aside).map_err(|cause| StoreError::io("move", &from, cause))?;
        self.sync()?;
        Ok(aside)
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Creates `path` and its missing parents, each durable before the next one is put into it.
fn create(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            // The run that created it may have died before it could sync. A parent that we may not read, or that knows
            // no sync, was not ours to create in.
            match sync(parent) {
                Err(StoreError::Io { cause, .. })
                    if matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) =>
                {
                    Ok(())
                }
                other => other,
            }
        }
        // Some file systems say "not found" below a parent that is there: trying again would never end.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !parent.exists() => {
            create(parent)?;
            create(path)
        }
        Err(cause) => Err(StoreError::io("create data folder", path, cause)),
    }
}

/// Makes the names in the folder `path` durable.
fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|cause| StoreError::io("sync", path, cause))
}

/// Writes our process id into the lock file, for the error that the next process shows.
fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

/// Reads who holds the lock. It may not have signed yet.
fn owner(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The lock file's name.
const LOCK: &str = "tenure.lock";
