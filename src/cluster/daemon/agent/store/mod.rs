//! The executables that a node keeps: a directory of files named by their digests.
//!
//! An executable comes in pieces, in order, into `<digest>.part`. When all of it is there and has the
//! digest, the file gets its own name and may be run. The room is bounded: those that were used least
//! lately go first, and never one that somebody holds.
//!
//! ```text
//!  (nothing) --first piece--> Part --last piece, right digest--> Ready
//!      ^                       |  wrong digest                     |
//!      +----- Gone <-----------+                                   |
//!      +----- Gone <--wrong digest-- Unproved <--another life------+
//! ```
//!
//! No path comes from a peer, only digests. The table's lock is never held during I/O on a file's bytes;
//! a slot's lock may be held while the table's is taken, and never the other way round.

mod error;
mod file;

use std::collections::HashMap;
use std::collections::hash_map;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blake3::Hasher;

use crate::cluster::executable::Digest;
use crate::config;

pub(crate) use error::StoreError;

/// A directory of executables. Clones are the same store; all methods block.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Open and locked, so that no other process takes the directory.
    _lock: File,
    bounds: Bounds,
    table: Mutex<Table>,
}

/// What a store takes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    one_bytes: u64,
    all_bytes: u64,
    count: usize,
    part_idle: Duration,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Digest, Entry>,
    /// Counts uses, so that it is known which executable was used last.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    /// As its sender said; as much room is kept for it.
    size: u64,
    used: u64,
    used_at: Instant,
    /// Who works with it or runs it.
    pins: usize,
    complete: bool,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug)]
enum Slot {
    /// So much of it is there, with this digest.
    Uploading { have: u64, hasher: Box<Hasher> },
    /// It is from another life, and whether all of it reached the disk is not known.
    Unverified,
    /// It may be run.
    Ready,
    /// It was removed.
    Removed,
}

impl Store {
    /// The store in `dir`, which is made if it is not there. What another life has completed is kept, and
    /// what it has begun is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the directory cannot be used, or another process uses it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let bounds = Bounds {
            one_bytes: config::EXECUTABLE_BYTES_MAX,
            all_bytes: config::EXECUTABLES_BYTES_MAX,
            count: config::EXECUTABLES_MAX,
            part_idle: config::UPLOAD_IDLE_TIMEOUT,
        };
        Self::with_bounds(dir, bounds, Instant::now())
    }

    fn with_bounds(dir: &Path, bounds: Bounds, now: Instant) -> Result<Self, StoreError> {
        let lock = file::lock_directory(dir)?;
        let mut table = Table::default();
        for (digest, size) in file::recover(dir)? {
            table.uses += 1;
            let slot = Arc::new(Mutex::new(Slot::Unverified));
            let entry = Entry { size, used: table.uses, used_at: now, pins: 0, complete: true, slot };
            table.entries.insert(digest, entry);
        }
        Ok(Self(Arc::new(Shared { dir: dir.to_owned(), _lock: lock, bounds, table: Mutex::new(table) })))
    }

    /// How many bytes of an executable are there, from its start; all of them if it may be run.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is known with another size, or cannot be read.
    pub(crate) fn stored_bytes(&self, digest: Digest, size: u64) -> Result<u64, StoreError> {
        let Some(held) = self.get(Instant::now(), digest) else { return Ok(0) };
        held.check_size(size)?;
        let mut slot = lock(&held.slot);
        held.verify(&mut slot)?;
        Ok(match &*slot {
            Slot::Uploading { have, .. } => *have,
            Slot::Ready => held.size,
            Slot::Unverified | Slot::Removed => 0,
        })
    }

    /// Adds the bytes from `offset` on, and says how many there are then. Bytes that are there already are
    /// skipped, so two may send the same executable at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the bytes do not continue what is there, there is no room, or the whole has
    /// another digest; what was sent of it is then dropped.
    pub(crate) fn write(
        &self,
        digest: Digest,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        self.put_at(Instant::now(), digest, size, offset, bytes)
    }

    fn put_at(
        &self,
        now: Instant,
        digest: Digest,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        if size == 0 || size > self.0.bounds.one_bytes {
            return Err(StoreError::Size { size, limit: self.0.bounds.one_bytes });
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
            return Err(StoreError::OutOfRange { offset, length: bytes.len(), size });
        }
        loop {
            let held = self.get_or_create(now, digest, size)?;
            let mut slot = lock(&held.slot);
            held.verify(&mut slot)?;
            match &mut *slot {
                Slot::Ready => return Ok(size),
                Slot::Uploading { have, .. } if offset > *have => {
                    return Err(StoreError::Gap { offset, have: *have });
                }
                Slot::Uploading { have, hasher } => {
                    let fresh = bytes.get((*have - offset) as usize..).unwrap_or_default();
                    if let Err(error) = self.append(now, digest, *have, fresh) {
                        if matches!(error, StoreError::DiskFull { .. }) {
                            // What is there of it would keep the room from everybody, and be of use to nobody.
                            held.remove(&mut slot, false);
                        }
                        return Err(error);
                    }
                    hasher.update(fresh);
                    *have += fresh.len() as u64;
                    if *have < size {
                        return Ok(*have);
                    }
                    return held.complete(&mut slot);
                }
                // Somebody else saw it removed since it was looked up: it begins anew.
                Slot::Unverified | Slot::Removed => {}
            }
        }
    }

    /// Writes into a part; what nobody uses makes room if the disk is full.
    fn append(&self, now: Instant, digest: Digest, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            match file::write(&self.0.dir, digest, offset, bytes) {
                Err(StoreError::DiskFull { .. }) if lock(&self.0.table).evict_one(now, &self.0) => {}
                result => return result,
            }
        }
    }

    /// Holds a complete executable, so that it stays as long as it is run.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not there, or not all of it.
    pub(crate) fn pin(&self, digest: Digest) -> Result<PinnedExecutable, StoreError> {
        let missing = StoreError::Missing { digest, dir: self.0.dir.clone() };
        let Some(held) = self.get(Instant::now(), digest) else { return Err(missing) };
        let mut slot = lock(&held.slot);
        held.verify(&mut slot)?;
        let ready = matches!(*slot, Slot::Ready);
        drop(slot);
        if ready { Ok(PinnedExecutable(held)) } else { Err(missing) }
    }

    /// Bytes of a complete executable from `offset` on, `bytes_max` at most, and whether they are its last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not there, or not all of it; [`StoreError::OutOfRange`] if nothing of it lies
    /// behind `offset`.
    pub(crate) fn read(
        &self,
        digest: Digest,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, bool), StoreError> {
        let PinnedExecutable(held) = self.pin(digest)?;
        let left = held.size.saturating_sub(offset);
        if left == 0 {
            return Err(StoreError::OutOfRange { offset, length: bytes_max, size: held.size });
        }
        let length = left.min(bytes_max as u64);
        Ok((file::read(&self.0.dir, digest, offset, length as usize)?, length == left))
    }

    /// Whether somebody holds an executable, so that it does not give way to others.
    #[cfg(test)]
    pub(crate) fn is_held(&self, digest: Digest) -> bool {
        lock(&self.0.table).entries.get(&digest).is_some_and(|entry| entry.pins > 0)
    }

    fn get(&self, now: Instant, digest: Digest) -> Option<EntryRef> {
        let mut table = lock(&self.0.table);
        let (slot, size) = table.get(now, digest)?;
        Some(EntryRef { store: self.clone(), digest, size, slot })
    }

    fn get_or_create(&self, now: Instant, digest: Digest, size: u64) -> Result<EntryRef, StoreError> {
        let mut table = lock(&self.0.table);
        if !table.entries.contains_key(&digest) {
            table.make_room(now, size, &self.0)?;
        }
        if let hash_map::Entry::Vacant(vacant) = table.entries.entry(digest) {
            let slot = Slot::Uploading { have: 0, hasher: Box::default() };
            let slot = Arc::new(Mutex::new(slot));
            vacant.insert(Entry { size, used: 0, used_at: now, pins: 0, complete: false, slot });
        }
        let (slot, known) = table.get(now, digest).expect("it was there, or has just begun");
        drop(table);
        let held = EntryRef { store: self.clone(), digest, size: known, slot };
        held.check_size(size)?;
        Ok(held)
    }
}

impl Table {
    fn get(&mut self, now: Instant, digest: Digest) -> Option<(Arc<Mutex<Slot>>, u64)> {
        let entry = self.entries.get_mut(&digest)?;
        self.uses += 1;
        entry.used = self.uses;
        entry.used_at = now;
        entry.pins += 1;
        Some((Arc::clone(&entry.slot), entry.size))
    }

    fn make_room(&mut self, now: Instant, size: u64, store: &Shared) -> Result<(), StoreError> {
        let bounds = &store.bounds;
        loop {
            let bytes: u64 = self.entries.values().map(|entry| entry.size).sum();
            if self.entries.len() < bounds.count && bytes.saturating_add(size) <= bounds.all_bytes {
                return Ok(());
            }
            if !self.evict_one(now, store) {
                return Err(StoreError::Full { dir: store.dir.clone(), size, limit: bounds.all_bytes });
            }
        }
    }

    /// Removes what was used least lately and nobody holds, if there is such a thing.
    fn evict_one(&mut self, now: Instant, store: &Shared) -> bool {
        let abandoned = |entry: &Entry| {
            entry.complete || now.saturating_duration_since(entry.used_at) >= store.bounds.part_idle
        };
        let free = self.entries.iter().filter(|(_, entry)| entry.pins == 0 && abandoned(entry));
        let Some((&digest, entry)) = free.min_by_key(|(_, entry)| entry.used) else { return false };
        file::remove(&store.dir, digest, entry.complete);
        self.entries.remove(&digest);
        true
    }
}

/// An entry that stays as long as this is held.
#[derive(Debug)]
struct EntryRef {
    store: Store,
    digest: Digest,
    size: u64,
    slot: Arc<Mutex<Slot>>,
}

impl EntryRef {
    fn check_size(&self, size: u64) -> Result<(), StoreError> {
        match self.size == size {
            true => Ok(()),
            false => Err(StoreError::SizeDiffers { digest: self.digest, size, known: self.size }),
        }
    }

    /// Makes `Ready` or `Removed` of an executable of another life, and `Removed` of one whose file somebody has
    /// removed or cut: some systems clear away old files in directories such as this.
    fn verify(&self, slot: &mut Slot) -> Result<(), StoreError> {
        let (dir, digest) = (&self.store.0.dir, self.digest);
        let (sound, complete) = match slot {
            Slot::Uploading { have: 0, .. } | Slot::Removed => return Ok(()),
            // A write that failed may have left more.
            Slot::Uploading { have, .. } => {
                (file::size(dir, digest, false).is_some_and(|size| size >= *have), false)
            }
            Slot::Ready => (file::size(dir, digest, true) == Some(self.size), true),
            Slot::Unverified => (file::verify_digest(dir, digest)?, true),
        };
        match slot {
            _ if !sound => self.remove(slot, complete),
            Slot::Unverified => *slot = Slot::Ready,
            _ => {}
        }
        Ok(())
    }

    /// Makes `Ready` or `Removed` of a part that is complete.
    fn complete(&self, slot: &mut Slot) -> Result<u64, StoreError> {
        let Slot::Uploading { hasher, .. } = slot else { return Ok(self.size) };
        if Digest(hasher.finalize().into()) != self.digest {
            self.remove(slot, false);
            return Err(StoreError::WrongDigest { digest: self.digest });
        }
        if let Err(error) = file::complete(&self.store.0.dir, self.digest) {
            self.remove(slot, false);
            return Err(error);
        }
        *slot = Slot::Ready;
        self.entry(|entry| entry.complete = true);
        Ok(self.size)
    }

    fn remove(&self, slot: &mut Slot, complete: bool) {
        file::remove(&self.store.0.dir, self.digest, complete);
        *slot = Slot::Removed;
        let mut table = lock(&self.store.0.table);
        if table.entries.get(&self.digest).is_some_and(|entry| Arc::ptr_eq(&entry.slot, &self.slot)) {
            table.entries.remove(&self.digest);
        }
    }

    /// Does something with the entry, unless it was removed; another may have its digest by now.
    fn entry(&self, act: impl FnOnce(&mut Entry)) {
        let mut table = lock(&self.store.0.table);
        let entry = table.entries.get_mut(&self.digest);
        if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.slot, &self.slot)) {
            act(entry);
        }
    }
}

impl Drop for EntryRef {
    fn drop(&mut self) {
        self.entry(|entry| entry.pins -= 1);
    }
}

/// An executable that is run, and stays in the store as long as this is held.
#[derive(Debug)]
pub(crate) struct PinnedExecutable(EntryRef);

impl PinnedExecutable {
    /// Its file.
    ///
    /// Who starts it tries again for a moment if the operating system calls the file busy: a process that
    /// was forked just then still has it open for writing, until it has become another program.
    pub(crate) fn path(&self) -> PathBuf {
        file::path(&self.0.store.0.dir, self.0.digest, true)
    }

    /// Its digest.
    #[cfg(test)]
    pub(crate) fn digest(&self) -> Digest {
        self.0.digest
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
