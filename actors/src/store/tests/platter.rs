//! A disk in memory that can lose power, tear and reorder what was not synced, and fail. Two files are on it: the journal,
//! and behind it the engine's file. They fail together, and are synced one by one.
//!
//! It keeps, per sector, every content since the last sync, as a page cache and a drive may have written back any of
//! them: after a loss of power each sector holds one of them, whatever the others hold. A sector itself is never torn.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::super::journal;
use super::script::Dice;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(in super::super) struct Platter(Arc<Mutex<State>>);

/// Called before every write, resize and sync, with the disk as it then is.
type Watcher = Box<dyn FnMut(&State) + Send>;

/// What a disk holds and what will happen to it.
#[derive(Default)]
pub(super) struct State {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What is certain to survive.
    synced: Vec<u8>,
    /// What may survive instead, by sector, oldest first.
    pending: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths that may survive instead.
    lengths: Vec<usize>,
    /// Writes, resizes and syncs so far.
    steps: u64,
    /// How many of them were syncs.
    syncs: u64,
    fault: Option<Fault>,
    is_dead: bool,
    watcher: Option<Watcher>,
}

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Power is lost before the step.
    Crash { at: u64 },
    /// The step fails, and all that follow if it `lasts`.
    Fail { at: u64, kind: io::ErrorKind, lasts: bool },
}

/// How much of what was not synced survives a loss of power.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Nothing.
    All,
    /// Everything.
    None,
    /// Whatever the dice say, sector by sector: its latest content `latest` times in 64, else any of the others.
    Some { latest: u64 },
}

impl Loss {
    /// Some kind of loss, often one that spares nearly everything.
    pub(super) fn any(dice: &mut Dice) -> Self {
        match dice.below(6) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Some { latest: 0 },
            3 => Self::Some { latest: 32 },
            4 => Self::Some { latest: 58 },
            _ => Self::Some { latest: 62 },
        }
    }
}

impl Platter {
    /// A disk that holds `image` durably.
    pub(super) fn new(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { cached: image.clone(), synced: image, ..State::default() })))
    }

    /// Sets what will go wrong, counted from now.
    pub(super) fn arm(&self, fault: Fault) {
        let mut state = self.lock();
        let now = state.steps;
        state.fault = Some(match fault {
            Fault::Crash { at } => Fault::Crash { at: now + at },
            Fault::Fail { at, kind, lasts } => Fault::Fail { at: now + at, kind, lasts },
        });
    }

    /// Calls `watcher` before every step from now on.
    pub(super) fn watch(&self, watcher: impl FnMut(&State) + Send + 'static) {
        self.lock().watcher = Some(Box::new(watcher));
    }

    /// Cuts the power: nothing works from now on.
    pub(super) fn kill(&self) {
        let mut state = self.lock();
        state.is_dead = true;
        state.watcher = None;
    }

    /// What is found after a loss of power now.
    pub(super) fn image(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        self.lock().image(loss, dice)
    }

    /// Writes, resizes and syncs so far, and how many of them were syncs.
    pub(super) fn steps(&self) -> (u64, u64) {
        let state = self.lock();
        (state.steps, state.syncs)
    }

    /// How long the disk is.
    pub(super) fn len(&self) -> usize {
        self.lock().cached.len()
    }

    /// The journal on it.
    pub(in super::super) fn journal(&self) -> Part {
        Part { platter: self.clone(), is_journal: true }
    }

    /// The engine's file on it.
    pub(in super::super) fn engine(&self) -> Part {
        Part { platter: self.clone(), is_journal: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is found after a loss of power now.
    pub(super) fn image(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.synced.clone();
        for (&sector, contents) in &self.pending {
            if let Some(content) = survivor(contents, loss, dice) {
                let from = sector * SECTOR;
                image.resize(image.len().max(from + content.len()), 0);
                image[from..from + content.len()].copy_from_slice(content);
            }
        }
        let len = survivor(&self.lengths, loss, dice).copied().unwrap_or(self.synced.len());
        image.resize(len, 0);
        image
    }

    /// Counts a step, unless it fails.
    fn step(&mut self) -> io::Result<()> {
        if let Some(mut watcher) = self.watcher.take() {
            watcher(self);
            self.watcher = Some(watcher);
        }
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            _ if self.is_dead => return Err(io::Error::other("the power is off")),
            Some(Fault::Crash { at }) if step >= at => {
                self.is_dead = true;
                return Err(io::Error::other("the power went off"));
            }
            Some(Fault::Fail { at, kind, lasts }) if step == at || (lasts && step > at) => return Err(kind.into()),
            _ => {}
        }
        Ok(())
    }

    /// Makes one of the files durable.
    fn sync(&mut self, part: &Part) {
        self.syncs += 1;
        if !part.is_journal || self.cached.len() == journal::LEN {
            self.synced.resize(self.cached.len(), 0);
            self.lengths.clear();
        }
        for sector in self.take_pending(part).into_keys() {
            let (from, to) = span(sector, self.cached.len());
            self.synced[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }

    /// After a failed sync the kernel calls its pages clean, whether or not they are on the disk: no later sync writes
    /// them.
    fn forget_pending(&mut self, part: &Part) {
        let mut dice = Dice::new(self.steps);
        let mut forgotten = Self { synced: self.synced.clone(), pending: self.take_pending(part), ..Self::default() };
        if !part.is_journal {
            forgotten.lengths = mem::take(&mut self.lengths);
        }
        self.synced = forgotten.image(Loss::Some { latest: 32 }, &mut dice);
    }

    /// Takes what is pending in one of the files.
    fn take_pending(&mut self, part: &Part) -> BTreeMap<usize, Vec<Vec<u8>>> {
        let behind = self.pending.split_off(&(journal::LEN / SECTOR));
        if part.is_journal { mem::replace(&mut self.pending, behind) } else { behind }
    }
}

/// One of the files on a disk.
pub(in super::super) struct Part {
    platter: Platter,
    is_journal: bool,
}

impl Part {
    /// Where it begins.
    fn front(&self) -> usize {
        if self.is_journal { 0 } else { journal::LEN }
    }

    /// Where on the disk this place of it is.
    fn place(&self, offset: u64) -> io::Result<usize> {
        usize::try_from(offset).map(|offset| self.front().saturating_add(offset)).map_err(io::Error::other)
    }
}

impl StorageBackend for Part {
    fn len(&self) -> io::Result<u64> {
        let len = self.platter.len();
        Ok(if self.is_journal { len.min(journal::LEN) } else { len.saturating_sub(journal::LEN) } as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.platter.lock();
        let from = self.place(offset)?;
        let found = state.cached.get(from..from.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.platter.lock();
        state.step()?;
        let len = self.place(len)?;
        assert!(!self.is_journal || state.cached.len() <= len, "a journal has one length for ever");
        state.cached.resize(len, 0);
        state.lengths.push(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.platter.lock();
        if let Err(error) = state.step() {
            if !state.is_dead {
                state.forget_pending(self);
            }
            return Err(error);
        }
        state.sync(self);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.platter.lock();
        let state = &mut *state;
        let was_dead = state.is_dead;
        let result = state.step();
        if was_dead {
            return result;
        }
        let from = self.place(offset)?;
        // A write that fails may have been carried out in part.
        let to = from.saturating_add(if result.is_ok() { data.len() } else { data.len() / 2 });
        let Some(room) = state.cached.get_mut(from..to) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        room.copy_from_slice(&data[..to - from]);
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let (from, to) = span(sector, state.cached.len());
            state.pending.entry(sector).or_default().push(state.cached[from..to].to_vec());
        }
        result
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

/// Which of the contents that may have survived did; `None` for the synced one.
fn survivor<'a, T>(contents: &'a [T], loss: Loss, dice: &mut Dice) -> Option<&'a T> {
    match loss {
        _ if contents.is_empty() => None,
        Loss::All => None,
        Loss::None => contents.last(),
        Loss::Some { latest } if dice.below(64) < latest => contents.last(),
        Loss::Some { .. } => {
            let choice = usize::try_from(dice.below(contents.len() as u64)).expect("a small number");
            choice.checked_sub(1).map(|index| &contents[index])
        }
    }
}

/// Where a sector begins and ends on a disk of this length.
fn span(sector: usize, len: usize) -> (usize, usize) {
    (sector * SECTOR, len.min((sector + 1) * SECTOR))
}

/// What a drive writes as a whole, in bytes.
const SECTOR: usize = 512;
