//! Store of executables on a node: a directory of files that are named by their digests.
//!
//! An executable arrives in chunks, in order, in `<digest>.part`. Once it is complete and has the right digest, the
//! file gets its own name and may be run. Count and total size are bounded: the least recently used executable is
//! evicted first, and never one that is pinned.
//!
//! ```text
//!             first chunk            last chunk, right digest
//!  (nothing) ─────────────▶ Uploading ───────────────────────▶ Ready
//!      ▲                        │ wrong digest,                  │ restart
//!      │                        │ disk full                      ▼
//!      └────── Removed ◀────────┴───────── wrong digest ──── Unverified ──▶ Ready
//!                                                              right digest
//! ```
//!
//! A path never comes from a peer, only a digest. Lock order: the state of an entry, then the table, and never the
//! other way round. The table is not locked during I/O on the content of a file, so a slow upload blocks no other.

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

pub(crate) use error::ExecutableStoreError;

/// Store of executables in one directory. Clones share it; all methods block.
#[derive(Clone, Debug)]
pub(crate) struct ExecutableStore(Arc<StoreShared>);

#[derive(Debug)]
struct StoreShared {
    dir: PathBuf,
    /// Directory handle that holds the lock against other processes.
    _lock: File,
    bounds: Bounds,
    table: Mutex<EntryTable>,
}

/// Limits of a store.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Size of one executable, in bytes.
    one_bytes: u64,
    /// Total size of all executables, in bytes.
    all_bytes: u64,
    /// Number of executables.
    count: usize,
    /// Time without a chunk after which an incomplete executable may be evicted.
    part_idle: Duration,
}

#[derive(Debug, Default)]
struct EntryTable {
    entries: HashMap<Digest, StoreEntry>,
    /// Number of uses so far: the clock of the LRU order.
    uses: u64,
}

#[derive(Debug)]
struct StoreEntry {
    /// Announced size in bytes, which is reserved from the start.
    size: u64,
    used: u64,
    used_at: Instant,
    /// Number of references that protect it from eviction.
    pins: usize,
    complete: bool,
    state: Arc<Mutex<FileState>>,
}

#[derive(Debug)]
enum FileState {
    /// `have` bytes are in the part, and `hasher` has consumed them.
    Uploading { have: u64, hasher: Box<Hasher> },
    /// The file is from an earlier process, so its content may be incomplete after a crash.
    Unverified,
    /// The file is complete and verified.
    Ready,
    /// The file was removed.
    Removed,
}

impl ExecutableStore {
    /// Opens the store in `dir`, and creates the directory if needed. Complete files of an earlier process stay, and
    /// incomplete ones are removed.
    ///
    /// # Errors
    ///
    /// [`ExecutableStoreError`] if the directory cannot be used, or another process uses it.
    pub(crate) fn open(dir: &Path) -> Result<Self, ExecutableStoreError> {
        let bounds = Bounds {
            one_bytes: config::EXECUTABLE_BYTES_MAX,
            all_bytes: config::EXECUTABLES_BYTES_MAX,
            count: config::EXECUTABLES_MAX,
            part_idle: config::UPLOAD_IDLE_TIMEOUT,
        };
        Self::with_bounds(dir, bounds, Instant::now())
    }

    fn with_bounds(dir: &Path, bounds: Bounds, now: Instant) -> Result<Self, ExecutableStoreError> {
        let lock = file::lock_directory(dir)?;
        let mut table = EntryTable::default();
        for (digest, size) in file::recover(dir)? {
            table.uses += 1;
            let state = Arc::new(Mutex::new(FileState::Unverified));
            let entry = StoreEntry { size, used: table.uses, used_at: now, pins: 0, complete: true, state };
            table.entries.insert(digest, entry);
        }
        Ok(Self(Arc::new(StoreShared { dir: dir.to_owned(), _lock: lock, bounds, table: Mutex::new(table) })))
    }

    /// Number of bytes of an executable that are stored, from its start; its size if it may be run.
    ///
    /// # Errors
    ///
    /// [`ExecutableStoreError`] if it was announced with another size, or cannot be read.
    pub(crate) fn stored_bytes(&self, digest: Digest, size: u64) -> Result<u64, ExecutableStoreError> {
        let Some(pinned) = self.get(Instant::now(), digest) else { return Ok(0) };
        pinned.check_size(size)?;
        let mut state = lock(&pinned.state);
        pinned.verify(&mut state)?;
        Ok(match &*state {
            FileState::Uploading { have, .. } => *have,
            FileState::Ready => pinned.size,
            FileState::Unverified | FileState::Removed => 0,
        })
    }

    /// Appends the bytes from `offset` on, and returns the number of bytes that are stored then. Bytes that are stored
    /// already are skipped, so several senders can upload the same executable concurrently.
    ///
    /// # Errors
    ///
    /// [`ExecutableStoreError`] if the bytes leave a gap, the store or the disk is full, or the complete executable has another
    /// digest. In the last two cases its part is removed.
    pub(crate) fn write(
        &self,
        digest: Digest,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, ExecutableStoreError> {
        self.write_at(Instant::now(), digest, size, offset, bytes)
    }

    fn write_at(
        &self,
        now: Instant,
        digest: Digest,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, ExecutableStoreError> {
        if size == 0 || size > self.0.bounds.one_bytes {
            return Err(ExecutableStoreError::Size { size, limit: self.0.bounds.one_bytes });
        }
        // Checked, since both numbers come from the sender.
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
            return Err(ExecutableStoreError::OutOfRange { offset, length: bytes.len(), size });
        }
        loop {
            let pinned = self.get_or_create(now, digest, size)?;
            let mut state = lock(&pinned.state);
            pinned.verify(&mut state)?;
            match &mut *state {
                FileState::Ready => return Ok(size),
                FileState::Uploading { have, .. } if offset > *have => {
                    return Err(ExecutableStoreError::Gap { offset, have: *have });
                }
                FileState::Uploading { have, hasher } => {
                    // Another sender may have delivered a part of these bytes already.
                    let fresh = bytes.get((*have - offset) as usize..).unwrap_or_default();
                    if let Err(error) = self.append(now, digest, *have, fresh) {
                        if matches!(error, ExecutableStoreError::DiskFull { .. }) {
                            // An incomplete part only occupies the space that other executables need.
                            pinned.remove(&mut state, false);
                        }
                        return Err(error);
                    }
                    // Hashed as it arrives: a verification at the end would read the whole file again.
                    hasher.update(fresh);
                    *have += fresh.len() as u64;
                    if *have < size {
                        return Ok(*have);
                    }
                    return pinned.complete(&mut state);
                }
                // Another thread removed it after the lookup. The next turn creates it again.
                FileState::Unverified | FileState::Removed => {}
            }
        }
    }

    /// Writes into a part. If the disk is full, it evicts unused executables one by one.
    fn append(
        &self,
        now: Instant,
        digest: Digest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), ExecutableStoreError> {
        loop {
            match file::write(&self.0.dir, digest, offset, bytes) {
                Err(ExecutableStoreError::DiskFull { .. }) if lock(&self.0.table).evict_one(now, &self.0) => {
                }
                result => return result,
            }
        }
    }

    /// Pins a complete executable: it stays in the store while the result exists.
    ///
    /// # Errors
    ///
    /// [`ExecutableStoreError::Missing`] if it is absent or incomplete.
    pub(crate) fn pin(&self, digest: Digest) -> Result<PinnedExecutable, ExecutableStoreError> {
        let missing = ExecutableStoreError::Missing { digest, dir: self.0.dir.clone() };
        let Some(pinned) = self.get(Instant::now(), digest) else { return Err(missing) };
        let mut state = lock(&pinned.state);
        pinned.verify(&mut state)?;
        let ready = matches!(*state, FileState::Ready);
        drop(state);
        if ready { Ok(PinnedExecutable(pinned)) } else { Err(missing) }
    }

    /// Reads at most `bytes_max` bytes of a complete executable from `offset` on. The flag is true for the last bytes.
    ///
    /// # Errors
    ///
    /// [`ExecutableStoreError::Missing`] if it is absent or incomplete; [`ExecutableStoreError::OutOfRange`] if it ends before `offset`.
    pub(crate) fn read(
        &self,
        digest: Digest,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, bool), ExecutableStoreError> {
        let PinnedExecutable(pinned) = self.pin(digest)?;
        let left = pinned.size.saturating_sub(offset);
        if left == 0 {
            return Err(ExecutableStoreError::OutOfRange { offset, length: bytes_max, size: pinned.size });
        }
        let length = left.min(bytes_max as u64);
        Ok((file::read(&self.0.dir, digest, offset, length as usize)?, length == left))
    }

    /// Returns true if an executable is pinned.
    #[cfg(test)]
    pub(crate) fn is_pinned(&self, digest: Digest) -> bool {
        lock(&self.0.table).entries.get(&digest).is_some_and(|entry| entry.pins > 0)
    }

    fn get(&self, now: Instant, digest: Digest) -> Option<EntryRef> {
        let mut table = lock(&self.0.table);
        let (state, size) = table.get(now, digest)?;
        Some(EntryRef { store: self.clone(), digest, size, state })
    }

    fn get_or_create(
        &self,
        now: Instant,
        digest: Digest,
        size: u64,
    ) -> Result<EntryRef, ExecutableStoreError> {
        let mut table = lock(&self.0.table);
        if !table.entries.contains_key(&digest) {
            table.make_room(now, size, &self.0)?;
        }
        if let hash_map::Entry::Vacant(vacant) = table.entries.entry(digest) {
            let state = FileState::Uploading { have: 0, hasher: Box::default() };
            let state = Arc::new(Mutex::new(state));
            vacant.insert(StoreEntry { size, used: 0, used_at: now, pins: 0, complete: false, state });
        }
        let (state, known) = table.get(now, digest).expect("the entry exists or was just inserted");
        drop(table);
        let pinned = EntryRef { store: self.clone(), digest, size: known, state };
        pinned.check_size(size)?;
        Ok(pinned)
    }
}

impl EntryTable {
    fn get(&mut self, now: Instant, digest: Digest) -> Option<(Arc<Mutex<FileState>>, u64)> {
        let entry = self.entries.get_mut(&digest)?;
        self.uses += 1;
        entry.used = self.uses;
        entry.used_at = now;
        // Pinned under the lock of the table, so that the entry is not evicted before its user has it.
        entry.pins += 1;
        Some((Arc::clone(&entry.state), entry.size))
    }

    fn make_room(
        &mut self,
        now: Instant,
        size: u64,
        store: &StoreShared,
    ) -> Result<(), ExecutableStoreError> {
        let bounds = &store.bounds;
        loop {
            // A scan per eviction: the number of entries is bounded by some hundred.
            let bytes: u64 = self.entries.values().map(|entry| entry.size).sum();
            if self.entries.len() < bounds.count && bytes.saturating_add(size) <= bounds.all_bytes {
                return Ok(());
            }
            if !self.evict_one(now, store) {
                return Err(ExecutableStoreError::Full {
                    dir: store.dir.clone(),
                    size,
                    limit: bounds.all_bytes,
                });
            }
        }
    }

    /// Evicts the least recently used entry that is not pinned, if any.
    fn evict_one(&mut self, now: Instant, store: &StoreShared) -> bool {
        // An upload is evicted only when it idles: two large ones could otherwise evict each other in turn.
        let abandoned = |entry: &StoreEntry| {
            entry.complete || now.saturating_duration_since(entry.used_at) >= store.bounds.part_idle
        };
        let free = self.entries.iter().filter(|(_, entry)| entry.pins == 0 && abandoned(entry));
        let Some((&digest, entry)) = free.min_by_key(|(_, entry)| entry.used) else { return false };
        file::remove(&store.dir, digest, entry.complete);
        self.entries.remove(&digest);
        true
    }
}

/// Reference to an entry, which is pinned as long as this exists.
#[derive(Debug)]
struct EntryRef {
    store: ExecutableStore,
    digest: Digest,
    size: u64,
    state: Arc<Mutex<FileState>>,
}

impl EntryRef {
    fn check_size(&self, size: u64) -> Result<(), ExecutableStoreError> {
        match self.size == size {
            true => Ok(()),
            false => Err(ExecutableStoreError::SizeDiffers { digest: self.digest, size, known: self.size }),
        }
    }

    /// Checks the file of an entry: an unverified one becomes ready or removed, and one whose file has disappeared or
    /// shrunk becomes removed. Some systems clean up old files in directories such as this one.
    fn verify(&self, state: &mut FileState) -> Result<(), ExecutableStoreError> {
        let (dir, digest) = (&self.store.0.dir, self.digest);
        let (sound, complete) = match state {
            FileState::Uploading { have: 0, .. } | FileState::Removed => return Ok(()),
            // A failed write may have left more bytes behind the accepted ones.
            FileState::Uploading { have, .. } => {
                (file::size(dir, digest, false).is_some_and(|size| size >= *have), false)
            }
            // The size only: hashing a large executable again would delay the start of every worker.
            FileState::Ready => (file::size(dir, digest, true) == Some(self.size), true),
            FileState::Unverified => (file::verify_digest(dir, digest)?, true),
        };
        match state {
            _ if !sound => self.remove(state, complete),
            FileState::Unverified => *state = FileState::Ready,
            _ => {}
        }
        Ok(())
    }

    /// Verifies a complete part, which becomes ready or removed.
    fn complete(&self, state: &mut FileState) -> Result<u64, ExecutableStoreError> {
        let FileState::Uploading { hasher, .. } = state else { return Ok(self.size) };
        if Digest(hasher.finalize().into()) != self.digest {
            self.remove(state, false);
            return Err(ExecutableStoreError::WrongDigest { digest: self.digest });
        }
        if let Err(error) = file::complete(&self.store.0.dir, self.digest) {
            self.remove(state, false);
            return Err(error);
        }
        *state = FileState::Ready;
        self.entry(|entry| entry.complete = true);
        Ok(self.size)
    }

    fn remove(&self, state: &mut FileState, complete: bool) {
        file::remove(&self.store.0.dir, self.digest, complete);
        *state = FileState::Removed;
        let mut table = lock(&self.store.0.table);
        // The digest may have a new entry by now, which must stay.
        if table.entries.get(&self.digest).is_some_and(|entry| Arc::ptr_eq(&entry.state, &self.state)) {
            table.entries.remove(&self.digest);
        }
    }

    /// Applies a change to the entry, unless it was removed. The digest may have a new entry by now.
    fn entry(&self, act: impl FnOnce(&mut StoreEntry)) {
        let mut table = lock(&self.store.0.table);
        let entry = table.entries.get_mut(&self.digest);
        if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.state, &self.state)) {
            act(entry);
        }
    }
}

impl Drop for EntryRef {
    fn drop(&mut self) {
        self.entry(|entry| entry.pins -= 1);
    }
}

/// Executable that stays in the store as long as this exists.
#[derive(Debug)]
pub(crate) struct PinnedExecutable(EntryRef);

impl PinnedExecutable {
    /// Path of the file.
    ///
    /// Retry the start while the operating system reports the file as busy (ETXTBSY). A process that was forked during
    /// the upload has inherited the file open for writing, until its own `exec`.
    pub(crate) fn path(&self) -> PathBuf {
        file::path(&self.0.store.0.dir, self.0.digest, true)
    }

    /// Digest of the executable.
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
