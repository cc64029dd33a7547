//! Where the sessions of a user are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadshow::daemon::remove_tree;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{
    JOBS, LOGS, NODE_FILE, STATE, Session, check_root, let_others_pass, lock_shared, own_directory,
    own_passable_directory,
};
use crate::error::{CliError, CliResult};

const PREFIX: &str = "session_";
const LATEST: &str = "session_latest";

/// Where agents lock the uids that they have given to jobs.
const WORKER_UIDS: &str = "worker-uids";

/// `node.json` before it had its name, of a start that was broken off there.
const PARTIAL_NODE_FILE: &str = "node.new";

/// How long the path of a socket may be; the kernel has room for 108 bytes with the end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long the names of sockets within a session's directory may be.
const SOCKET_NAME_BYTES_MAX: usize = 24;

/// The directory of one user's sessions on this machine.
#[derive(Clone, Debug)]
pub(crate) struct SessionRoot(PathBuf);

impl SessionRoot {
    pub(crate) fn of_this_user() -> Self {
        Self(std::env::temp_dir().join(format!("roadshow-{}", geteuid().as_raw())))
    }

    #[cfg(test)]
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Refuses a directory that another user may have filled.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it is there, and not this user's alone.
    pub(crate) fn check(&self) -> CliResult<()> {
        match check_root(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let text = format!("{} is not used to look for sessions: {error}", self.0.display());
                Err(CliError::failed(text, "see who has made it; it must be yours alone, or set TMPDIR"))
            }
            _ => Ok(()),
        }
    }

    /// Keeps what removes old temporary files from the links to sessions, as long as the file is open.
    pub(crate) fn lock_shared(&self) -> io::Result<File> {
        lock_shared(&self.0)
    }

    /// All sessions, the newest first; none of a directory that [`SessionRoot::check`] refuses.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let mut names: Vec<_> = self.entries().collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        names.into_iter().filter_map(|path| Session::read(&path)).collect()
    }

    /// What looks like sessions and is not read, since other users can open it, and why.
    pub(crate) fn refused(&self) -> Vec<(PathBuf, io::Error)> {
        let mut names: Vec<_> = self.entries().collect();
        names.sort_unstable();
        names.into_iter().filter_map(|path| Session::refused(&path).map(|why| (path, why))).collect()
    }

    fn entries(&self) -> impl Iterator<Item = PathBuf> {
        // Links in a directory of this user's alone are those that `create` has made.
        let entries = check_root(&self.0).and_then(|()| fs::read_dir(&self.0));
        let entries = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(PREFIX) && name != LATEST
        })
    }

    /// Makes the directory of a new session: one of its own, or the one that is asked for, where a session
    /// of which nothing runs gives way.
    pub(crate) fn create(&self, asked_for: Option<&Path>) -> CliResult<SessionDir> {
        let fails = |path: &Path, error: &dyn std::fmt::Display| {
            let text = format!("cannot use {} for the session's files: {error}", path.display());
            CliError::failed(text, "give another directory with --session-dir, or set TMPDIR")
        };
        let name = name(SystemTime::now(), std::process::id());
        let dir = match asked_for {
            None => self.0.join(&name),
            Some(dir) => dir.to_owned(),
        };
        // It is named in files of JSON, which are text.
        if !std::path::absolute(&dir).is_ok_and(|dir| dir.to_str().is_some()) {
            return Err(fails(&dir, &"its path is not text (UTF-8)"));
        }
        if dir.as_os_str().len() + 1 + SOCKET_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX {
            return Err(fails(&dir, &"the path is too long for the sockets in it"));
        }
        // Jobs of another node may pass through, which is not to end for this one.
        own_passable_directory(&self.0).map_err(|error| fails(&self.0, &error))?;
        own_passable_directory(&dir).map_err(|error| fails(&dir, &error))?;
        let earlier = Session::read(&dir);
        if earlier.as_ref().is_some_and(Session::is_alive) {
            return Err(fails(&dir, &"a node runs in it"));
        }
        let patience = if earlier.is_some() { EXIT_WAIT } else { Duration::ZERO };
        let lock = lock_exclusive(&dir, patience).map_err(|error| fails(&dir, &error))?;
        // Looked at again, now that no other start makes one.
        if let Some(earlier) = Session::read(&dir) {
            if earlier.is_alive() {
                return Err(fails(&dir, &"a node runs in it"));
            }
            earlier.clear_for_reuse().map_err(|error| fails(&dir, &error))?;
            self.drop_stale_links();
        }
        if fs::read_dir(&dir).map_err(|error| fails(&dir, &error))?.any(|entry| !may_be_left_over(&entry)) {
            return Err(fails(&dir, &"there is something in it already"));
        }
        own_directory(&dir).map_err(|error| fails(&dir, &error))?;
        own_directory(&dir.join(LOGS)).map_err(|error| fails(&dir, &error))?;
        let dir = fs::canonicalize(&dir).map_err(|error| fails(&dir, &error))?;
        if asked_for.is_some() {
            std::os::unix::fs::symlink(&dir, self.0.join(&name)).map_err(|error| fails(&dir, &error))?;
        }
        self.point_latest(&dir).map_err(|error| fails(&self.0, &error))?;
        // It keeps other starts out as well, and lets the daemons take theirs.
        flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|error| fails(&dir, &error))?;
        Ok(SessionDir { dir, _lock: lock })
    }

    /// Lets other users pass through the directory of a session, and through this one where that is in it.
    pub(crate) fn make_passable(&self, session_dir: &SessionDir) -> io::Result<()> {
        let_others_pass(&session_dir.dir)?;
        match fs::canonicalize(&self.0)? {
            root if session_dir.dir.starts_with(&root) => let_others_pass(&root),
            _ => Ok(()),
        }
    }

    fn point_latest(&self, dir: &Path) -> io::Result<()> {
        let new = self.0.join(format!("latest-{}", std::process::id()));
        std::os::unix::fs::symlink(dir, &new)?;
        fs::rename(new, self.0.join(LATEST))
    }

    /// Removes links to what is no session any more, and the directory itself once nothing is in it.
    pub(crate) fn tidy(&self) {
        self.drop_stale_links();
        if check_root(&self.0).is_ok() && self.entries().next().is_none() {
            // Of agents that were killed; those that run have sessions.
            let _ = remove_tree(&self.0.join(WORKER_UIDS));
        }
        // Fails as long as there is something in it.
        let _ = fs::remove_dir(&self.0);
    }

    fn drop_stale_links(&self) {
        if check_root(&self.0).is_err() {
            return;
        }
        let latest = self.0.join(LATEST);
        for link in self.entries().chain([latest]) {
            let is_link = fs::symlink_metadata(&link).is_ok_and(|metadata| metadata.is_symlink());
            if is_link && !link.join(NODE_FILE).exists() {
                // Whatever stays is found again the next time.
                let _ = fs::remove_file(link);
            }
        }
    }
}

/// The directory of a new session, which nobody else takes as long as this is held.
#[derive(Debug)]
pub(crate) struct SessionDir {
    pub(crate) dir: PathBuf,
    _lock: File,
}

/// How long the last threads of daemons that were killed may hold their locks.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// Pause between two tries to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn lock_exclusive(dir: &Path, patience: Duration) -> io::Result<File> {
    let lock = File::open(dir)?;
    let until = Instant::now() + patience;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::park_timeout(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another command starts a node in it")),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(lock),
        }
    }
}

/// What an earlier session in the same directory may have left.
fn may_be_left_over(entry: &io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| {
        [LOGS, STATE, JOBS, PARTIAL_NODE_FILE].iter().any(|name| entry.file_name() == *name)
    })
}

/// `session_<date>_<time>_<micros>_<pid>`, in UTC: names in order are sessions in order.
fn name(now: SystemTime, pid: u32) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, rest) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let micros = since.subsec_micros();
    format!("{PREFIX}{year:04}-{month:02}-{day:02}_{hour:02}-{minute:02}-{second:02}_{micros:06}_{pid}")
}

/// The Gregorian date of a day, counted from the first of 1970, after Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, so that the leap day
/// is their last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Role;
    use super::super::tests::{Scratch, node};
    use super::*;

    #[test]
    fn names_are_dates() {
        let at = |seconds, micros: u32| UNIX_EPOCH + Duration::new(seconds, micros * 1000);
        assert_eq!(name(at(0, 0), 1), "session_1970-01-01_00-00-00_000000_1");
        assert_eq!(name(at(951_782_399, 7), 12), "session_2000-02-28_23-59-59_000007_12");
        assert_eq!(name(at(951_782_400, 7), 12), "session_2000-02-29_00-00-00_000007_12");
        assert_eq!(name(at(4_107_542_400, 0), 12), "session_2100-03-01_00-00-00_000000_12");
        assert_eq!(name(at(1_798_761_599, 0), 12), "session_2026-12-31_23-59-59_000000_12");
    }

    fn made(root: &SessionRoot, asked_for: Option<&Path>, port: u16) -> Session {
        let session = Session {
            dir: root.create(asked_for).unwrap().dir,
            node: node(port, &[(Role::Agent, std::process::id())]),
        };
        session.save().unwrap();
        session
    }

    #[test]
    fn a_directory_whose_path_is_no_text_is_refused_before_anything_is_made() {
        use std::os::unix::ffi::OsStrExt;
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let dir = scratch.0.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
        let refused = root.create(Some(&dir)).unwrap_err().to_string();
        assert!(refused.contains("its path is not text (UTF-8); give another directory"), "{refused}");
        assert!(!dir.exists());
    }

    #[test]
    fn sessions_are_found_wherever_they_are_and_the_newest_is_first() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        assert_eq!(root.sessions(), []);
        let first = made(&root, None, 1);
        let second = made(&root, Some(&scratch.0.join("elsewhere")), 2);
        // What is no session does not count.
        fs::create_dir(scratch.0.join("home/session_3")).unwrap();
        assert_eq!(root.sessions(), [second.clone(), first.clone()]);
        assert_eq!(Session::read(&scratch.0.join("home/session_latest")), Some(second.clone()));

        second.remove(false).unwrap();
        root.tidy();
        assert_eq!(root.sessions(), std::slice::from_ref(&first));
        assert!(fs::symlink_metadata(scratch.0.join("home/session_latest")).is_err());
        fs::remove_dir(scratch.0.join("home/session_3")).unwrap();
        first.remove(false).unwrap();
        root.tidy();
        assert!(!scratch.0.join("home").exists());
    }

    #[test]
    fn a_directory_that_is_in_use_is_refused() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let dir = scratch.0.join("elsewhere");
        let refused = |why: &str| {
            let refused = root.create(Some(&dir)).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        };
        let session = made(&root, Some(&dir), 1);
        refused("a node runs in it");
        session.remove(true).unwrap();
        let held = root.create(Some(&dir)).unwrap();
        refused("another command starts a node in it");
        drop(held);
        fs::write(dir.join("letters"), "").unwrap();
        refused("there is something in it");
    }

    #[test]
    fn a_home_that_others_may_write_into_has_no_sessions_and_its_links_are_left_alone() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        assert_eq!(root.check(), Ok(()));
        let session = made(&root, Some(&scratch.0.join("elsewhere")), 1);
        assert_eq!((root.check(), root.sessions()), (Ok(()), vec![session.clone()]));
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(&root.0, PermissionsExt::from_mode(mode)).unwrap();
            let refused = root.check().unwrap_err().to_string();
            assert!(refused.contains("it is not closed to other users"), "{refused}");
            assert_eq!(root.sessions(), [], "{mode:o}");
        }
        session.remove(false).unwrap();
        root.tidy();
        assert!(fs::symlink_metadata(root.0.join(LATEST)).is_ok());
    }

    #[test]
    fn a_home_of_another_user_has_no_sessions() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        made(&root, Some(&scratch.0.join("elsewhere")), 1);
        if std::os::unix::fs::chown(&root.0, Some(65534), None).is_err() {
            return println!("skipped: this user gives no directory away");
        }
        assert!(root.check().unwrap_err().to_string().contains("belongs to the user with the id 65534"));
        assert_eq!(root.sessions(), []);
    }

    #[test]
    fn a_link_to_what_is_no_session_s_directory_leads_nowhere() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let session = made(&root, None, 1);
        let checkout = scratch.0.join("checkout");
        fs::create_dir(&checkout).unwrap();
        fs::set_permissions(&checkout, PermissionsExt::from_mode(0o755)).unwrap();
        fs::copy(session.dir.join(NODE_FILE), checkout.join(NODE_FILE)).unwrap();
        std::os::unix::fs::symlink(&checkout, root.0.join("session_x")).unwrap();
        assert_eq!(root.sessions(), [session]);
    }

    #[test]
    fn a_session_that_others_can_open_is_not_read_and_it_is_said_why() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let (closed, open) = (made(&root, None, 1), made(&root, Some(&scratch.0.join("elsewhere")), 2));
        // What is no session is not worth a word.
        fs::create_dir(root.0.join("session_3")).unwrap();
        assert!(root.refused().is_empty());
        fs::set_permissions(&open.dir, PermissionsExt::from_mode(0o750)).unwrap();
        assert_eq!(root.sessions(), [closed]);
        let refused = root.refused();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].1.to_string().ends_with("(its mode is 750)"), "{refused:?}");
    }

    #[test]
    fn a_start_finds_a_node_in_the_directory_whose_daemon_holds_its_lock() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let dir = scratch.0.join("elsewhere");
        let mut session = made(&root, Some(&dir), 1);
        let daemon = lock_shared(&dir).unwrap();
        assert!(root.create(Some(&dir)).unwrap_err().to_string().contains("a node runs in it"));
        session.node.processes.clear();
        session.save().unwrap();
        assert!(root.create(Some(&dir)).unwrap_err().to_string().contains("another command starts"));
        drop(daemon);
        // The start's own lock lets daemons take theirs.
        let _room = root.create(Some(&dir)).unwrap();
        lock_shared(&dir).unwrap();
    }

    #[test]
    fn a_session_of_which_nothing_runs_gives_way_and_leaves_what_is_not_its_own() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let dir = scratch.0.join("elsewhere");
        let mut session = made(&root, Some(&dir), 1);
        session.node.processes.clear();
        session.save().unwrap();
        session.save_token(&"rs1_abc".parse().unwrap()).unwrap();
        for name in [STATE, JOBS, "executables"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let again = made(&root, Some(&dir), 2);
        assert_eq!(root.sessions(), [again]);
        let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort_unstable();
        assert_eq!(left, [JOBS, LOGS, NODE_FILE, STATE]);
    }

    #[test]
    fn a_path_that_no_socket_fits_in_is_refused() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let refused = root.create(Some(&scratch.0.join("n".repeat(100)))).unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
    }

    #[test]
    fn a_home_that_is_a_link_is_refused() {
        let scratch = Scratch::new();
        std::os::unix::fs::symlink(&scratch.0, scratch.0.join("home")).unwrap();
        assert!(SessionRoot::at(scratch.0.join("home")).create(None).is_err());
    }
}
