//! Removal of hostile directories.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, mkdirat, renameat_with};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::cluster::test_dir::TestDir;

/// Directory for many levels, in memory if possible. On a disk each level costs a block and an inode, and a busy
/// disk
/// needs a minute for 20,000. Dropping it does not use the code under test.
struct DeepDir(PathBuf);

impl DeepDir {
    fn new() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let above = if memory.is_dir() { memory } else { std::env::temp_dir() };
        Self(above.join(format!("roadshow-deep-{}", std::process::id())))
    }
}

impl Drop for DeepDir {
    fn drop(&mut self) {
        let _ = std::process::Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

/// Stack size of the thread that removes: a recursion of 20,000 levels does not fit.
const STACK_BYTES: usize = 256 << 10;

/// Creates nested directories, whose full path is too long for any system call, with a file in each hundredth.
fn make_deep(top: &Path, levels: u32) {
    fs::create_dir(top).unwrap();
    let open = |above: BorrowedFd<'_>, name: &OsStr| {
        openat(above, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let mut innermost = open(CWD, top.as_os_str()).unwrap();
    for level in 0..levels {
        mkdirat(&innermost, "d", Mode::from_raw_mode(0o700)).unwrap();
        if level % 100 == 0 {
            openat(&innermost, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        }
        innermost = open(innermost.as_fd(), OsStr::new("d")).unwrap();
    }
}

#[test]
fn directory_of_20000_levels_is_removed_with_little_stack() {
    let deep = DeepDir::new();
    let top = deep.0.clone();
    make_deep(&top, 20_000);
    // Names that the removal would use for directories that it moves.
    fs::write(top.join("removed-0"), "").unwrap();
    fs::create_dir_all(top.join("removed-1/full")).unwrap();
    let removed = top.clone();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(move || remove_tree(&removed)).unwrap().join().unwrap().unwrap();
    assert!(!top.exists());
}

#[test]
fn directory_of_as_many_levels_as_are_open_or_one_more_is_removed() {
    let scratch = TestDir::new();
    for levels in LEVELS_MAX as u32 - 2..LEVELS_MAX as u32 + 2 {
        let top = scratch.join("top");
        make_deep(&top, levels);
        remove_tree(&top).unwrap();
        assert!(!top.exists(), "{levels}");
    }
}

#[test]
fn links_are_removed_and_their_targets_stay() {
    let scratch = TestDir::new();
    let (top, outside) = (scratch.join("top"), scratch.join("outside"));
    fs::create_dir_all(top.join("a")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    symlink(&outside, top.join("directory")).unwrap();
    symlink(outside.join("file"), top.join("a/file")).unwrap();
    symlink("..", top.join("a/above")).unwrap();
    let link = scratch.join("link");
    symlink(&outside, &link).unwrap();
    remove_tree(&top).unwrap();
    remove_tree(&link).unwrap();
    assert!(!top.exists() && fs::symlink_metadata(&link).is_err());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
}

/// The entry was a directory when its parent was read, and is a link now.
#[test]
fn link_in_the_place_of_a_directory_is_removed_and_not_followed() {
    let scratch = TestDir::new();
    let (top, outside) = (scratch.join("top"), scratch.join("outside"));
    for dir in [&top, &outside] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(outside.join("file"), "kept").unwrap();
    let open = |path: &Path| openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let above = open(scratch.path());
    let mut removal = Removal { path: &top, above, levels: Vec::new(), moved_count: 0 };
    removal.enter(c"top").unwrap();
    for step in [
        |removal: &mut Removal<'_>| removal.remove(c"swapped", FileType::Directory),
        // The swap comes after the kernel has reported a directory with content.
        |removal: &mut Removal<'_>| removal.enter(c"swapped"),
    ] {
        symlink(&outside, top.join("swapped")).unwrap();
        step(&mut removal).unwrap();
        assert_eq!(removal.levels.len(), 1, "it was entered");
        assert!(fs::symlink_metadata(top.join("swapped")).is_err());
    }
    assert!(outside.join("file").exists());
}

/// Number of removals while a thread swaps entries.
const ROUNDS: usize = 50;

#[test]
fn continuous_swaps_do_not_lead_out_of_the_directory() {
    let scratch = TestDir::new();
    let outside = scratch.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let (top, over) = (scratch.join("top"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (link, directory) = (top.join("link"), top.join("directory"));
            while !over.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &link, CWD, &directory, RenameFlags::EXCHANGE);
                // The kernel serialises renames, and other tests rename as well.
                std::thread::yield_now();
            }
        });
        let removed: Vec<_> = (0..ROUNDS)
            .map(|_| {
                fs::create_dir_all(top.join("directory/a/b")).unwrap();
                symlink(&outside, top.join("link")).unwrap();
                // An entry that is swapped during its removal may stay, and is reported as busy.
                while matches!(remove_tree(&top), Err(RemoveTreeError::Busy { .. })) {}
                top.exists()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(removed, [false; ROUNDS]);
    });
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
}

/// Makes file modes apply to this thread, even if it is root's.
fn without_override() {
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(None, sets).unwrap();
}

#[test]
fn own_directories_that_their_mode_protects_are_removed() {
    let scratch = TestDir::new();
    let top = scratch.join("top");
    fs::create_dir_all(top.join("closed/a")).unwrap();
    fs::create_dir_all(top.join("unwritable/a")).unwrap();
    fs::write(top.join("unwritable/file"), "").unwrap();
    for (name, mode) in [("unwritable", 0o500), ("closed", 0)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::thread::spawn(move || {
        without_override();
        fs::read_dir(top.join("closed")).unwrap_err();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    })
    .join()
    .unwrap();
}

#[test]
fn entry_that_cannot_be_removed_is_named() {
    let scratch = TestDir::new();
    let (top, above) = (scratch.join("above/top"), scratch.join("above"));
    fs::create_dir_all(top.join("a")).unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o500)).unwrap();
    let error = std::thread::spawn(move || {
        without_override();
        remove_tree(&top).unwrap_err()
    });
    let error = error.join().unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(&error, RemoveTreeError::Denied { path, .. } if *path == above.join("top")), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
    let removal = |levels| Removal {
        path: Path::new("/top"),
        above: openat(CWD, scratch.path(), OFlags::PATH, Mode::empty()).unwrap(),
        levels,
        moved_count: 0,
    };
    let level = |name: &CStr| Level {
        name: name.to_owned(),
        entries: Dir::read_from(openat(CWD, scratch.path(), OFlags::RDONLY, Mode::empty()).unwrap()).unwrap(),
        passes: 0,
    };
    assert_eq!(removal(Vec::new()).path_of(c"top"), Path::new("/top"));
    assert_eq!(removal(vec![level(c"top"), level(c"a")]).path_of(c"b"), Path::new("/top/a/b"));
}

#[test]
fn single_file_is_removed_and_a_missing_one_is_no_error() {
    let scratch = TestDir::new();
    let file = scratch.join("file");
    fs::write(&file, "").unwrap();
    for _ in 0..2 {
        remove_tree(&file).unwrap();
        assert!(!file.exists());
    }
    remove_tree(&scratch.join("none/none")).unwrap();
    assert!(matches!(remove_tree(Path::new("/")), Err(RemoveTreeError::Failed { .. })));
}
