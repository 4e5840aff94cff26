//! A file that remembers the highest fence of its writers.
//!
//! The fence stands in a second file beside it (`stock.json.fence`), which is also what writers lock. A write raises it
//! first and replaces the file then, so a crash between the two leaves a fence that is too high, never one that is too low:
//! the same holder may simply write again.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use protocol::Fence;

use super::Error;

/// A file, opened by the holder of a right. Every write looks at the fence again.
///
/// Works between all processes that use it, on file systems where `flock` does (local ones, and network file systems that
/// say so). Calls block: from async code use `tokio::task::spawn_blocking` for large files.
///
/// ```
/// # use tenure::fenced;
/// # use tenure::Fence;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("stock.json");
/// let older = fenced::File::open(&path, Fence(7))?;
/// let newer = fenced::File::open(&path, Fence(12))?;
/// newer.write(b"{\"apples\": 3}")?;
/// assert!(older.write(b"{}").is_err_and(|error| error.is_stale()), "it was replaced");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    beside: PathBuf,
    fence: Fence,
}

impl File {
    /// Opens a file under the fence of a guard, which is taken at once: whoever comes with a lower one is refused from here
    /// on. Neither the file nor its fence need be there.
    ///
    /// ```
    /// # use tenure::fenced;
    /// # use tenure::Fence;
    /// # let folder = tempfile::tempdir()?;
    /// let stock = fenced::File::open(folder.path().join("stock.json"), Fence(7))?; // lower fences are refused from here on
    /// # drop(stock);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] if a later holder was here, and what the file system says.
    pub fn open(path: impl Into<PathBuf>, fence: impl Into<Fence>) -> Result<Self, Error> {
        let path = path.into();
        let file = Self { beside: beside(&path), path, fence: fence.into() };
        file.admit()?;
        Ok(file)
    }

    /// Replaces what is in the file, durably: readers see the old content or the new one, never a part. The mode of the file stays as it is,
    /// and so do its owner and group where this process may give a file to them; other attributes, and further names of it, do not. A crash
    /// may leave the new content in a file of the same folder whose name begins with `.tenure-new-`.
    ///
    /// ```
    /// # use tenure::fenced;
    /// # use tenure::Fence;
    /// # let folder = tempfile::tempdir()?;
    /// # let stock = fenced::File::open(folder.path().join("stock.json"), Fence(7))?;
    /// stock.write(b"{\"apples\": 3}")?;
    /// assert_eq!(stock.read()?, b"{\"apples\": 3}");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`File::open`].
    pub fn write(&self, content: &[u8]) -> Result<(), Error> {
        let _lock = self.admit()?;
        let folder = folder(&self.path);
        // Under a name that nobody else has. What replaces something is for nobody else before it is as that was; what is new is as wide
        // as the process makes files.
        let permissions = fs::Permissions::from_mode(if self.path.exists() { 0o600 } else { 0o666 });
        let made = tempfile::Builder::new().prefix(".tenure-new-").permissions(permissions).tempfile_in(folder);
        let mut new = made.map_err(failed("make a file in", folder))?;
        let written = like(new.as_file(), &self.path).and_then(|()| {
            new.write_all(content)?;
            new.as_file().sync_all()
        });
        written.map_err(failed("write", new.path()))?;
        new.persist(&self.path).map_err(|error| failed("replace", &self.path)(error.error))?;
        sync_folder(&self.path)
    }

    /// Adds to the end of the file, durably. A crash may leave a part of it.
    ///
    /// ```
    /// # use tenure::fenced;
    /// # use tenure::Fence;
    /// # let folder = tempfile::tempdir()?;
    /// # let log = fenced::File::open(folder.path().join("log"), Fence(7))?;
    /// log.append(b"one\n")?;
    /// log.append(b"two\n")?;
    /// assert_eq!(log.read()?, b"one\ntwo\n");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`File::open`].
    pub fn append(&self, content: &[u8]) -> Result<(), Error> {
        let _lock = self.admit()?;
        let is_new = !self.path.exists();
        let appended = OpenOptions::new().append(true).create(true).open(&self.path).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        appended.map_err(failed("append to", &self.path))?;
        if is_new { sync_folder(&self.path) } else { Ok(()) }
    }

    /// What is in the file; nothing if it is not there.
    ///
    /// ```
    /// # use tenure::fenced;
    /// # use tenure::Fence;
    /// # let folder = tempfile::tempdir()?;
    /// # let stock = fenced::File::open(folder.path().join("stock.json"), Fence(7))?;
    /// stock.write(b"3")?;
    /// assert_eq!(stock.read()?, b"3");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(failed("read", &self.path)),
        }
    }

    /// The highest fence that was taken for the file at this path, if any was.
    ///
    /// ```
    /// # use tenure::fenced;
    /// # use tenure::Fence;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("stock.json");
    /// assert_eq!(fenced::File::current(&path)?, None);
    /// fenced::File::open(&path, Fence(7))?;
    /// assert_eq!(fenced::File::current(&path)?, Some(Fence(7)));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn current(path: impl AsRef<Path>) -> Result<Option<Fence>, Error> {
        let beside = beside(path.as_ref());
        match fs::File::open(&beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => highest(&mut other.map_err(failed("read", &beside))?, &beside),
        }
    }

    /// Looks at the fence and raises it, durably. Nobody else writes while the answer is held.
    fn admit(&self) -> Result<fs::File, Error> {
        let at = &self.beside;
        let is_new = !at.exists();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(at);
        let mut file = opened.map_err(failed("open", at))?;
        file.lock().map_err(failed("lock", at))?;
        match highest(&mut file, at)? {
            Some(current) if current > self.fence => return Err(Error::Stale { held: self.fence, current }),
            Some(current) if current == self.fence => return Ok(file),
            _ => {}
        }
        // One sector, written at once and of one length, so that it is the old fence or the new one.
        let raised = file
            .rewind()
            .and_then(|()| file.write_all(format!("{:020}\n", self.fence.0).as_bytes()))
            .and_then(|()| file.sync_all());
        raised.map_err(failed("write", at))?;
        if is_new {
            sync_folder(at)?;
        }
        Ok(file)
    }
}

/// Reads the fence in an open file; none in an empty one, which is one that was just made.
fn highest(file: &mut fs::File, path: &Path) -> Result<Option<Fence>, Error> {
    let mut text = String::new();
    let mut reader = file.take(TEXT_MAX);
    match reader.read_to_string(&mut text) {
        Ok(0) => Ok(None),
        Ok(_) => text.trim_end().parse().map(|number| Some(Fence(number))).map_err(|_| Error::Unreadable(path.into())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::Unreadable(path.into())),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Gives a file the mode of the one that it is to replace, and the owner and group if that is allowed.
fn like(new: &fs::File, old: &Path) -> io::Result<()> {
    let old = match fs::metadata(old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mine = new.metadata()?;
    let has_owner = old.uid() == mine.uid() || fchown(new, Some(old.uid()), None).is_ok();
    let has_group = old.gid() == mine.gid() || fchown(new, None, Some(old.gid())).is_ok();
    // What runs as its owner must not run as somebody else, and another group may do no more than everybody.
    let mode = if has_owner && has_group { old.mode() } else { old.mode() & 0o777 };
    let mode = if has_group { mode } else { mode & !0o070 | (mode & 0o007) << 3 };
    new.set_permissions(fs::Permissions::from_mode(mode & 0o7777))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a new name in a folder durable.
fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = folder(path);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".fence")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { what, path, cause }
}

/// A fence has twenty digits; whatever is longer is none.
const TEXT_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_holder_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stock.json");
        let first = File::open(&path, Fence(7)).unwrap();
        first.write(b"first").unwrap();
        let second = File::open(&path, Fence(12)).unwrap();
        let refused = first.write(b"late").unwrap_err();
        assert!(matches!(refused, Error::Stale { held: Fence(7), current: Fence(12) }), "{refused}");
        assert!(first.append(b"late").unwrap_err().is_stale());
        assert!(File::open(&path, Fence(11)).unwrap_err().is_stale());
        assert_eq!(second.read().unwrap(), b"first", "opening changes nothing but the fence");
        second.write(b"second").unwrap();
        second.append(b" and more").unwrap();
        assert_eq!(second.read().unwrap(), b"second and more");
        assert_eq!(File::current(&path).unwrap(), Some(Fence(12)));
    }

    #[test]
    fn a_file_that_is_replaced_stays_as_private_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let neighbour = folder.path().join("secret.new");
        fs::write(&neighbour, "somebody else's").unwrap();
        let file = File::open(&path, Fence(1)).unwrap();
        file.write(b"first").unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        let as_others = folder.path().join("other");
        fs::write(&as_others, "").unwrap();
        assert_eq!(mode(), fs::metadata(as_others).unwrap().mode() & 0o7777, "as the process makes files");
        for private in [0o600, 0o640, 0o755] {
            fs::set_permissions(&path, fs::Permissions::from_mode(private)).unwrap();
            file.write(b"second").unwrap();
            assert_eq!((mode(), &file.read().unwrap()[..]), (private, &b"second"[..]));
        }
        assert_eq!(fs::read_to_string(neighbour).unwrap(), "somebody else's");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 4, "the file, its fence, and two of others: nothing is left");
    }

    #[test]
    fn a_file_that_is_not_there_has_no_fence_and_no_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        assert_eq!(File::current(&path).unwrap(), None);
        let file = File::open(&path, Fence(1)).unwrap();
        assert_eq!(file.read().unwrap(), b"");
        file.append(b"a").unwrap();
        assert_eq!(file.read().unwrap(), b"a");
    }

    #[test]
    fn a_fence_that_cannot_be_read_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for rot in [&b"seven"[..], &[0xff, 0xfe], &[b'9'; 1000]] {
            fs::write(beside(&path), rot).unwrap();
            assert!(matches!(File::open(&path, Fence(u64::MAX)), Err(Error::Unreadable(_))));
        }
    }

    #[test]
    fn writers_of_one_fence_do_not_come_between_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let file = File::open(&path, Fence(3)).unwrap();
                    (0..8).for_each(|_| file.append(b"line\n").unwrap());
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n".repeat(32));
    }
}
