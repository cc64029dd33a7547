//! State directory of a head, locked during a start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, CliResult};
use crate::session::{Session, own_directory, read_own, write_private};

const HEAD_FILE: &str = "head.json";

/// Name of the file that is locked while a head starts.
const LOCK_FILE: &str = "start.lock";

/// State directory, locked against other starts of a head until it is dropped.
#[derive(Debug)]
pub(super) struct LockedStateDir {
    pub(super) path: PathBuf,
    _lock: File,
}

/// Content of `head.json`.
#[derive(Debug, Serialize, Deserialize)]
struct HeadFile {
    /// Session of the last head that was started with the directory.
    session_dir: PathBuf,
}

impl LockedStateDir {
    /// Default state directory for the port of a head, below `$XDG_STATE_HOME` or `~/.local/state`.
    pub(super) fn default_path(port: u16) -> CliResult<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        let base = base.ok_or_else(|| {
            CliError::usage("neither XDG_STATE_HOME nor HOME names a directory", "give --state-dir")
        })?;
        Ok(base.join("roadshow").join(format!("head-{port}")))
    }

    /// Creates the directory if it is missing, and locks it.
    pub(super) fn lock(path: &Path) -> CliResult<Self> {
        let fails = |error: &dyn std::fmt::Display| {
            let text = format!("cannot use {} for the head's state: {error}", path.display());
            CliError::failed(text, "give another directory with --state-dir")
        };
        // `head.json` and `node.json` contain the path, and JSON strings are UTF-8.
        let is_text = std::path::absolute(path).is_ok_and(|path| path.to_str().is_some());
        if !is_text {
            return Err(fails(&"its path is not text (UTF-8)"));
        }
        let locked = (|| {
            own_directory(path)?;
            let path = fs::canonicalize(path)?;
            let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE))?;
            Ok::<_, io::Error>(Self { path, _lock: lock })
        })();
        let locked = locked.map_err(|error| fails(&error))?;
        match flock(&locked._lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(locked),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::failed(
                format!("another command is starting a head with the state in {}", path.display()),
                "wait for it, or give another directory with --state-dir",
            )),
            Err(error) => Err(fails(&error)),
        }
    }

    /// Session of the last head that was started with the directory, if it still exists.
    pub(super) fn session(&self) -> Option<Session> {
        let head: HeadFile = serde_json::from_slice(&read_own(&self.path.join(HEAD_FILE)).ok()?).ok()?;
        Session::read(&head.session_dir)
    }

    /// Records the session in `head.json`.
    pub(super) fn record(&self, session: &Session) -> CliResult<()> {
        let head = HeadFile { session_dir: session.dir.clone() };
        let json = serde_json::to_vec_pretty(&head).map_err(io::Error::other);
        json.and_then(|json| write_private(&self.path.join(HEAD_FILE), &json)).map_err(|error| {
            let text = format!("cannot write to {}: {error}", self.path.display());
            CliError::failed(text, "give another directory with --state-dir")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Role;
    use crate::session::tests::{Scratch, node};

    #[test]
    fn directory_is_locked_by_one_start_at_a_time() {
        let scratch = Scratch::new();
        let path = scratch.0.join("a/state");
        let locked = LockedStateDir::lock(&path).unwrap();
        assert!(LockedStateDir::lock(&path).is_err());
        drop(locked);
        LockedStateDir::lock(&path).unwrap();
    }

    #[test]
    fn session_is_recorded_as_long_as_it_exists() {
        let scratch = Scratch::new();
        let locked = LockedStateDir::lock(&scratch.0.join("state")).unwrap();
        assert_eq!(locked.session(), None);
        let dir = scratch.0.join("session");
        own_directory(&dir).unwrap();
        let session = Session { dir, node: node(1, &[(Role::Agent, std::process::id())]) };
        session.save().unwrap();
        locked.record(&session).unwrap();
        assert_eq!(locked.session(), Some(session.clone()));
        session.remove(false).unwrap();
        assert_eq!(locked.session(), None);
    }
}
