//! A small file of fixed length that is written again and again, piece by piece.
//!
//! # Invariants
//!
//! * A sync writes little more than what was written since the last one. The kernel keeps a file in memory in blocks as
//!   large as the reads and writes that brought them there, and writes a block as a whole even if one byte of it changed:
//!   after a read of the whole file, a commit of 400 bytes sends a megabyte to the disk. So what was read is not kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::StorageBackend;

/// See the module.
#[derive(Debug)]
pub(super) struct Sheet(pub(super) File);

impl StorageBackend for Sheet {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|data| data.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)?;
        // Of what was not synced, nothing is dropped. A kernel that does not follow the advice is slow, not wrong.
        let _ = posix_fadvise(&self.0, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
