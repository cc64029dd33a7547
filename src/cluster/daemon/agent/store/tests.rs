//! Tests of the store, with small bounds.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::cluster::executable::{Executable, check_runs_here};
use crate::cluster::test_dir::TestDir;

const BOUNDS: Bounds =
    Bounds { one_bytes: 100, all_bytes: 250, count: 4, part_idle: Duration::from_secs(60) };

fn small(scratch: &TestDir) -> Store {
    Store::with_bounds(scratch.path(), BOUNDS, Instant::now()).unwrap()
}

/// An executable of `size` bytes that are all `fill`.
fn executable(fill: u8, size: usize) -> (Digest, Vec<u8>) {
    let bytes = vec![fill; size];
    (Digest(blake3::hash(&bytes).into()), bytes)
}

fn put_all(store: &Store, digest: Digest, bytes: &[u8]) {
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
fn an_executable_comes_in_pieces_and_is_run_when_it_is_complete() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 0);
    assert_eq!(store.write(digest, 90, 0, &bytes[..40]).unwrap(), 40);
    assert_eq!(names(&scratch), [format!("{digest}.part")]);
    assert!(matches!(store.pin(digest), Err(StoreError::Missing { .. })));
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 40);
    assert_eq!(store.write(digest, 90, 40, &bytes[40..]).unwrap(), 90);
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 90);

    let held = store.pin(digest).unwrap();
    assert_eq!(held.path(), scratch.join(&digest.to_string()));
    assert_eq!(fs::read(held.path()).unwrap(), bytes);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(scratch.path()), mode(&held.path())), (0o700, 0o700));
}

#[test]
fn what_was_sent_runs() {
    let scratch = TestDir::new();
    let store = Store::open(scratch.path()).unwrap();
    let shell = Executable::open(Path::new("/bin/sh")).unwrap();
    let mut have = 0;
    while have < shell.size() {
        let bytes = shell.read(have, 10_000).unwrap();
        have = store.write(shell.digest(), shell.size(), have, &bytes).unwrap();
    }
    let held = store.pin(shell.digest()).unwrap();
    check_runs_here(&held.path()).unwrap();
    let run = || Command::new(held.path()).arg0("sh").args(["-c", "exit 7"]).status();
    let start = Instant::now();
    let status = loop {
        match run() {
            // Another test's process has just been forked.
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
fn bytes_that_are_there_are_skipped_and_a_gap_is_told() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    store.write(digest, 90, 0, &bytes[..40]).unwrap();
    assert_eq!(store.write(digest, 90, 0, &bytes[..30]).unwrap(), 40);
    assert_eq!(store.write(digest, 90, 20, &bytes[20..60]).unwrap(), 60);
    let gap = store.write(digest, 90, 70, &bytes[70..]).unwrap_err();
    assert!(matches!(gap, StoreError::Gap { offset: 70, have: 60 }), "{gap}");
    assert_eq!(store.write(digest, 90, 60, &bytes[60..]).unwrap(), 90);
    // Whoever is late hears that all of it is there.
    assert_eq!(store.write(digest, 90, 60, &bytes[60..]).unwrap(), 90);
}

#[test]
fn what_has_another_digest_is_dropped_and_can_be_sent_again() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    store.write(digest, 90, 0, &[2; 40]).unwrap();
    let error = store.write(digest, 90, 40, &bytes[40..]).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    assert!(names(&scratch).is_empty());
    assert_eq!(store.stored_bytes(digest, 90).unwrap(), 0);
    put_all(&store, digest, &bytes);
}

#[test]
fn sizes_and_places_that_cannot_be_are_refused() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let (digest, bytes) = executable(1, 90);
    for size in [0, 101, u64::MAX] {
        assert!(matches!(store.write(digest, size, 0, &[]), Err(StoreError::Size { .. })));
    }
    for offset in [1, u64::MAX] {
        assert!(matches!(store.write(digest, 90, offset, &bytes), Err(StoreError::OutOfRange { .. })));
    }
    assert!(names(&scratch).is_empty());
    store.write(digest, 90, 0, &bytes[..10]).unwrap();
    assert!(matches!(store.write(digest, 91, 10, &bytes[..10]), Err(StoreError::SizeDiffers { .. })));
    assert!(matches!(store.stored_bytes(digest, 91), Err(StoreError::SizeDiffers { .. })));
}

#[test]
fn the_one_used_least_lately_goes_first_and_never_one_in_use() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [a, b, c, d] = [1, 2, 3, 4].map(|fill| executable(fill, 100));
    put_all(&store, a.0, &a.1);
    put_all(&store, b.0, &b.1);
    drop(store.pin(a.0).unwrap());
    put_all(&store, c.0, &c.1);
    assert_eq!(store.stored_bytes(b.0, 100).unwrap(), 0, "b was used before a");
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 100);

    let (a_held, a_held_too, c_held) =
        (store.pin(a.0).unwrap(), store.pin(a.0).unwrap(), store.pin(c.0).unwrap());
    let full = store.write(d.0, 100, 0, &d.1).unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    drop(a_held);
    assert!(matches!(store.write(d.0, 100, 0, &d.1), Err(StoreError::Full { .. })));
    drop(a_held_too);
    put_all(&store, d.0, &d.1);
    assert!(c_held.path().exists());
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 0);
}

#[test]
fn no_more_executables_are_kept_than_the_bound_says() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    for fill in 0..10 {
        let (digest, bytes) = executable(fill, 1);
        put_all(&store, digest, &bytes);
    }
    assert_eq!(names(&scratch).len(), BOUNDS.count);
}

#[test]
fn a_part_keeps_its_room_until_nothing_came_for_long() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [a, b, c] = [1, 2, 3].map(|fill| executable(fill, 100));
    let start = Instant::now();
    store.put_at(start, a.0, 100, 0, &a.1[..1]).unwrap();
    store.put_at(start + Duration::from_secs(30), b.0, 100, 0, &b.1[..1]).unwrap();
    let put_c = |at: u64| store.put_at(start + Duration::from_secs(at), c.0, 100, 0, &c.1);
    assert!(matches!(put_c(59), Err(StoreError::Full { .. })));
    assert_eq!(put_c(60).unwrap(), 100);
    assert_eq!(store.stored_bytes(a.0, 100).unwrap(), 0);
    assert_eq!(store.stored_bytes(b.0, 100).unwrap(), 1);
}

#[test]
fn another_life_finds_what_is_complete_and_removes_what_is_not() {
    let scratch = TestDir::new();
    let [whole, part, damaged] = [1, 2, 3].map(|fill| executable(fill, 80));
    {
        let store = small(&scratch);
        put_all(&store, whole.0, &whole.1);
        put_all(&store, damaged.0, &damaged.1);
        store.write(part.0, 80, 0, &part.1[..10]).unwrap();
    }
    fs::write(scratch.join(&damaged.0.to_string()), [0; 80]).unwrap();
    fs::write(scratch.join("notes.txt"), "not ours").unwrap();

    let store = small(&scratch);
    assert_eq!(names(&scratch).len(), 3, "two executables and the notes");
    assert_eq!(store.stored_bytes(part.0, 80).unwrap(), 0);
    assert_eq!(store.stored_bytes(damaged.0, 80).unwrap(), 0);
    assert!(matches!(store.pin(damaged.0), Err(StoreError::Missing { .. })));
    assert_eq!(store.stored_bytes(whole.0, 80).unwrap(), 80);
    store.pin(whole.0).unwrap();
    put_all(&store, damaged.0, &damaged.1);
    assert!(scratch.join("notes.txt").exists());
}

#[test]
fn files_that_somebody_clears_away_are_asked_for_again() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [whole, part] = [1, 2].map(|fill| executable(fill, 80));
    put_all(&store, whole.0, &whole.1);
    store.write(part.0, 80, 0, &part.1[..10]).unwrap();
    for name in names(&scratch) {
        fs::remove_file(scratch.join(&name)).unwrap();
    }
    assert!(matches!(store.pin(whole.0), Err(StoreError::Missing { .. })));
    assert!(matches!(store.write(part.0, 80, 10, &part.1[10..]), Err(StoreError::Gap { have: 0, .. })));
    put_all(&store, whole.0, &whole.1);
    put_all(&store, part.0, &part.1);
}

#[test]
fn a_directory_is_one_stores_alone() {
    let scratch = TestDir::new();
    let dir = scratch.join("a/b");
    let store = Store::open(&dir).unwrap();
    assert!(matches!(Store::open(&dir), Err(StoreError::Locked { .. })));
    drop(store);
    Store::open(&dir).unwrap();
    symlink(&dir, scratch.join("link")).unwrap();
    assert!(matches!(Store::open(&scratch.join("link")), Err(StoreError::NotOurs { .. })));
    fs::write(scratch.join("file"), "").unwrap();
    assert!(matches!(Store::open(&scratch.join("file")), Err(StoreError::Directory { .. })));
}

#[test]
fn a_full_disk_is_told_with_the_directory_after_all_that_is_unused_was_given_up() {
    let scratch = TestDir::new();
    let store = small(&scratch);
    let [used, unused, next] = [1, 2, 3].map(|fill| executable(fill, 50));
    put_all(&store, used.0, &used.1);
    put_all(&store, unused.0, &unused.1);
    let held = store.pin(used.0).unwrap();
    symlink("/dev/full", scratch.join(&format!("{}.part", next.0))).unwrap();
    let error = store.write(next.0, 50, 0, &next.1).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains(scratch.path().to_str().unwrap()), "{error}");
    assert!(held.path().exists());
    assert_eq!(store.stored_bytes(unused.0, 50).unwrap(), 0);
    assert!(!fs::exists(scratch.join(&format!("{}.part", next.0))).unwrap(), "its part keeps the room taken");
}

#[test]
fn many_may_send_the_same_executable_at_once() {
    let scratch = TestDir::new();
    let store = Store::open(scratch.path()).unwrap();
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
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked in whatever order: no more is kept than the bounds say, what is held stays and
    /// is what it should be, and the files are those that the store knows of.
    #[test]
    fn the_bounds_hold_and_what_is_held_stays(
        steps in prop::collection::vec((0..6u8, 0..4u8, 0..100usize), 1..60),
    ) {
        let scratch = TestDir::new();
        let store = small(&scratch);
        let mut held: HashMap<u8, PinnedExecutable> = HashMap::new();
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
                2 => drop(store.pin(digest).map(|in_use| held.insert(which, in_use))),
                _ => drop(held.remove(&which)),
            }
            let entries = fs::read_dir(scratch.path()).unwrap();
            let kept: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
            prop_assert!(kept <= BOUNDS.all_bytes);
            prop_assert!(names(&scratch).len() <= BOUNDS.count);
            for (&which, in_use) in &held {
                let (digest, bytes) = executable(which, 40 + 10 * usize::from(which));
                prop_assert_eq!(in_use.digest(), digest);
                prop_assert_eq!(fs::read(in_use.path()).unwrap(), bytes);
            }
        }
    }
}
