//! Tests of a store with small limits.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use crate::property_tests;
use proptest::prelude::*;

use super::*;
use crate::cluster::executable::{Executable, check_runs_here};
use crate::cluster::test_dir::TestDir;

const BOUNDS: Bounds =
    Bounds { one_bytes: 100, all_bytes: 250, count: 4, part_idle: Duration::from_secs(60) };

fn small(scratch: &TestDir) -> ExecutableStore {
    ExecutableStore::with_bounds(scratch.path(), BOUNDS, Instant::now()).unwrap()
}

/// An executable of `size` bytes that are all `fill`.
fn executable(fill: u8, size: usize) -> (Digest, Vec<u8>) {
    let bytes = vec![fill; size];
    (Digest(blake3::hash(&bytes).into()), bytes)
}

fn write_all(store: &ExecutableStore, digest: Digest, bytes: &[u8]) {
    let size = bytes.len() as u64;
    assert_eq!(store.write(digest, size, 0, bytes).unwrap(), size);
}

fn names(scratch: &TestDir) -> Vec<String> {
    let entries = fs::read_dir(scratch.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn executable_arrives_in_chunks_and_can_be_pinned_when_complete() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 0);
    assert_eq!(store.write(digest, 90, 0, &bytes[..40]).unwrap(), 40);
    assert_eq!(names(&scratch), [format!("{digest}.part")]);
    assert!(matches!(store.pin(digest), Err(ExecutableStoreError::Missing { .. })));
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 40);
    assert_eq!(store.write(digest, 90, 40, &bytes[40..]).unwrap(), 90);
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 90);

    let pinned = store.pin(digest).unwrap();
    assert_eq!(pinned.path(), scratch.join(&digest.to_string()));
    assert_eq!(fs::read(pinned.path()).unwrap(), bytes);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(scratch.path()), mode(&pinned.path())), (0o700, 0o700));
}

#[test]
fn stored_executable_runs() {
    let scratch = TestDir::new();
    let store = ExecutableStore::open(scratch.path()).unwrap();
    let shell = Executable::open(Path::new("/bin/sh")).unwrap();
    let mut have = 0;
    while have < shell.size() {
        let bytes = shell.read(have, 10_000).unwrap();
        have = store.write(shell.digest(), shell.size(), have, &bytes).unwrap();
    }
    let pinned = store.pin(shell.digest()).unwrap();
    check_runs_here(&pinned.path()).unwrap();
    let run = || Command::new(pinned.path()).arg0("sh").args(["-c", "exit 7"]).status();
    let start = Instant::now();
    let status = loop {
        match run() {
            // Another test has just forked, and its child still has the file open.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                assert!(start.elapsed() < Duration::from_secs(60), "{error}");
                thread::yield_now();
            }
            result => break result.unwrap(),
        }
    };
    assert_eq!(status.code(), Some(7));
}

#[test]
fn stored_bytes_are_skipped_and_a_gap_is_reported() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    store.write(digest, 90, 0, &bytes[..40]).unwrap();
    assert_eq!(store.write(digest, 90, 0, &bytes[..30]).unwrap(), 40);
    assert_eq!(store.write(digest, 90, 20, &bytes[20..60]).unwrap(), 60);
    let gap = store.write(digest, 90, 70, &bytes[70..]).unwrap_err();
    assert!(matches!(gap, ExecutableStoreError::Gap { offset: 70, have: 60 }), "{gap}");
    assert_eq!(store.write(digest, 90, 60, &bytes[60..]).unwrap(), 90);
    // A late sender gets the complete size.
    assert_eq!(store.write(digest, 90, 60, &bytes[60..]).unwrap(), 90);
}

#[test]
fn executable_with_a_wrong_digest_is_removed_and_can_be_sent_again() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    store.write(digest, 90, 0, &[2; 40]).unwrap();
    let error = store.write(digest, 90, 40, &bytes[40..]).unwrap_err();
    assert!(matches!(error, ExecutableStoreError::WrongDigest { .. }), "{error}");
    assert!(names(&scratch).is_empty());
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 0);
    write_all(&store, digest, &bytes);
}

#[test]
fn invalid_sizes_and_offsets_are_refused() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    for size in [0, 101, u64::MAX] {
        assert!(matches!(store.write(digest, size, 0, &[]), Err(ExecutableStoreError::Size { .. })));
    }
    for offset in [1, u64::MAX] {
        assert!(matches!(
            store.write(digest, 90, offset, &bytes),
            Err(ExecutableStoreError::OutOfRange { .. })
        ));
    }
    assert!(names(&scratch).is_empty());
    store.write(digest, 90, 0, &bytes[..10]).unwrap();
    assert!(matches!(
        store.write(digest, 91, 10, &bytes[..10]),
        Err(ExecutableStoreError::SizeDiffers { .. })
    ));
    assert!(matches!(store.stored_bytes(digest, 91), Err(ExecutableStoreError::SizeDiffers { .. })));
}

#[test]
fn least_recently_used_executable_is_evicted_unless_pinned() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [a, b, c, d] = [1, 2, 3, 4].map(|fill| executable(fill, 100));
    write_all(&store, a.0, &a.1);
    write_all(&store, b.0, &b.1);
    drop(store.pin(a.0).unwrap());
    write_all(&store, c.0, &c.1);
    assert_eq!(store.stored_bytes(b.0, 100).unwrap(), 0, "b was used before a");
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 100);

    let (a_pinned, a_pinned_twice, c_pinned) =
        (store.pin(a.0).unwrap(), store.pin(a.0).unwrap(), store.pin(c.0).unwrap());
    let full = store.write(d.0, 100, 0, &d.1).unwrap_err();
    assert!(matches!(full, ExecutableStoreError::Full { .. }), "{full}");
    drop(a_pinned);
    assert!(matches!(store.write(d.0, 100, 0, &d.1), Err(ExecutableStoreError::Full { .. })));
    drop(a_pinned_twice);
    write_all(&store, d.0, &d.1);
    assert!(c_pinned.path().exists());
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 0);
}

#[test]
fn number_of_executables_is_bounded() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    for fill in 0..10 {
        let (digest, bytes) = executable(fill, 1);
        write_all(&store, digest, &bytes);
    }
    assert_eq!(names(&scratch).len(), BOUNDS.count);
}

#[test]
fn incomplete_executable_is_evicted_only_after_the_idle_timeout() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [a, b, c] = [1, 2, 3].map(|fill| executable(fill, 100));
    let start = Instant::now();
    store.write_at(start, a.0, 100, 0, &a.1[..1]).unwrap();
    store.write_at(start + Duration::from_secs(30), b.0, 100, 0, &b.1[..1]).unwrap();
    let write_c = |at: u64| store.write_at(start + Duration::from_secs(at), c.0, 100, 0, &c.1);
    assert!(matches!(write_c(59), Err(ExecutableStoreError::Full { .. })));
    assert_eq!(write_c(60).unwrap(), 100);
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 0);
    assert_eq!(store.stored_bytes(b.0, 100).unwrap(), 1);
}

#[test]
fn restart_keeps_complete_executables_and_removes_the_others() {
    let scratch = TestDir::new();
    let [whole, part, damaged] = [1, 2, 3].map(|fill| executable(fill, 80));
    {
        let store = small(&scratch);
        write_all(&store, whole.0, &whole.1);
        write_all(&store, damaged.0, &damaged.1);
        store.write(part.0, 80, 0, &part.1[..10]).unwrap();
    }
    fs::write(scratch.join(&damaged.0.to_string()), [0; 80]).unwrap();
    fs::write(scratch.join("notes.txt"), "not ours").unwrap();

    let store = small(&scratch);
    assert_eq!(names(&scratch).len(), 3, "two executables and the notes");
    assert_eq!(store.stored_bytes(part.0, 80).unwrap(), 0);
    assert_eq!(store.stored_bytes(damaged.0, 80).unwrap(), 0);
    assert!(matches!(store.pin(damaged.0), Err(ExecutableStoreError::Missing { .. })));
    assert_eq!(store.stored_bytes(whole.0, 80).unwrap(), 80);
    store.pin(whole.0).unwrap();
    write_all(&store, damaged.0, &damaged.1);
    assert!(scratch.join("notes.txt").exists());
}

#[test]
fn deleted_files_are_requested_again() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [whole, part] = [1, 2].map(|fill| executable(fill, 80));
    write_all(&store, whole.0, &whole.1);
    store.write(part.0, 80, 0, &part.1[..10]).unwrap();
    for name in names(&scratch) {
        fs::remove_file(scratch.join(&name)).unwrap();
    }
    assert!(matches!(store.pin(whole.0), Err(ExecutableStoreError::Missing { .. })));
    assert!(matches!(
        store.write(part.0, 80, 10, &part.1[10..]),
        Err(ExecutableStoreError::Gap { have: 0, .. })
    ));
    write_all(&store, whole.0, &whole.1);
    write_all(&store, part.0, &part.1);
}

#[test]
fn directory_belongs_to_one_store() {
    let scratch = TestDir::new();
    let dir = scratch.join("a/b");
    let store = ExecutableStore::open(&dir).unwrap();
    assert!(matches!(ExecutableStore::open(&dir), Err(ExecutableStoreError::Locked { .. })));
    drop(store);
    ExecutableStore::open(&dir).unwrap();
    symlink(&dir, scratch.join("link")).unwrap();
    assert!(matches!(
        ExecutableStore::open(&scratch.join("link")),
        Err(ExecutableStoreError::NotOurs { .. })
    ));
    fs::write(scratch.join("file"), "").unwrap();
    assert!(matches!(
        ExecutableStore::open(&scratch.join("file")),
        Err(ExecutableStoreError::Directory { .. })
    ));
}

#[test]
fn full_disk_is_reported_after_unused_executables_were_evicted() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [used, unused, next] = [1, 2, 3].map(|fill| executable(fill, 50));
    write_all(&store, used.0, &used.1);
    write_all(&store, unused.0, &unused.1);
    let pinned = store.pin(used.0).unwrap();
    symlink("/dev/full", scratch.join(&format!("{}.part", next.0))).unwrap();
    let error = store.write(next.0, 50, 0, &next.1).unwrap_err();
    assert!(matches!(error, ExecutableStoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains(scratch.path().to_str().unwrap()), "{error}");
    assert!(pinned.path().exists());
    assert_eq!(store.stored_bytes(unused.0, 50).unwrap(), 0);
    assert!(
        !fs::exists(scratch.join(&format!("{}.part", next.0))).unwrap(),
        "its part still occupies disk space"
    );
}

#[test]
fn several_senders_can_upload_the_same_executable_concurrently() {
    let scratch = TestDir::new();
    let store = ExecutableStore::open(scratch.path()).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let (digest, size) = (Digest(blake3::hash(&bytes).into()), bytes.len() as u64);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for piece in [1000, 4096, 50_000, 70_000] {
            let (store, bytes, barrier) = (&store, &bytes, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut have = 0;
                while have < size {
                    let from = have as usize;
                    have =
                        store.write(digest, size, have, &bytes[from..bytes.len().min(from + piece)]).unwrap();
                }
                assert_eq!(fs::read(store.pin(digest).unwrap().path()).unwrap(), *bytes);
            });
        }
    });
    assert_eq!(names(&scratch), [digest.to_string()]);
}

proptest! {
    #![proptest_config(property_tests::cases(64))]

    /// For any sequence of requests: the limits hold, pinned executables keep their content, and the files are those
    /// that the store knows.
    #[test]
    fn limits_hold_and_pinned_executables_stay(
        steps in prop::collection::vec((0..6u8, 0..4u8, 0..100usize), 1..60),
    ) {
        let scratch = TestDir::new();
        let store = small(&scratch);
        let mut pinned: HashMap<u8, PinnedExecutable> = HashMap::new();
        for (which, what, amount) in steps {
            let (digest, bytes) = executable(which, 40 + 10 * usize::from(which));
            let size = bytes.len() as u64;
            match what {
                0 => {
                    let have = store.stored_bytes(digest, size).unwrap() as usize;
                    let _ = store.write(digest, size, have as u64, &bytes[have..bytes.len().min(have + amount)]);
                }
                1 => {
                    let bad = [99; 10];
                    let _ = store.write(digest, size, 0, &bad);
                }
                2 => drop(store.pin(digest).map(|in_use| pinned.insert(which, in_use))),
                _ => drop(pinned.remove(&which)),
            }
            let entries = fs::read_dir(scratch.path()).unwrap();
            let stored: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
            prop_assert!(stored <= BOUNDS.all_bytes);
            prop_assert!(names(&scratch).len() <= BOUNDS.count);
            for (&which, in_use) in &pinned {
                let (digest, bytes) = executable(which, 40 + 10 * usize::from(which));
                prop_assert_eq!(in_use.digest(), digest);
                prop_assert_eq!(fs::read(in_use.path()).unwrap(), bytes);
            }
        }
    }
}
