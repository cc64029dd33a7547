//! The directory that a head goes on from, and who uses it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, CliResult};
use crate::session::{Session, own_directory, read_own, write_private};

const HEAD_FILE: &str = "head.json";

/// What is held while somebody starts a head.
const LOCK_FILE: &str = "start.lock";

/// The directory, held: nobody else starts a head with it meanwhile.
#[derive(Debug)]
pub(super) struct StateDir {
    pub(super) path: PathBuf,
    _lock: File,
}

/// What `head.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct HeadFile {
    /// The session of the last head that was started with it.
    session_dir: PathBuf,
}

impl StateDir {
    /// Where the head of a port keeps its state unless it is told: where the user's programs do.
    pub(super) fn default_path(port: u16) -> CliResult<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        let base = base.ok_or_else(|| {
            CliError::usage("neither XDG_STATE_HOME nor HOME names a directory", "give --state-dir")
        })?;
        Ok(base.join("roadshow").join(format!("head-{port}")))
    }

    /// Makes the directory if it is not there, and holds it.
    pub(super) fn lock(path: &Path) -> CliResult<Self> {
        let fails = |error: &dyn std::fmt::Display| {
            let text = format!("cannot use {} for the head's state: {error}", path.display());
            CliError::failed(text, "give another directory with --state-dir")
        };
        // It is named in files of JSON, which are text.
        let is_text = std::path::absolute(path).is_ok_and(|path| path.to_str().is_some());
        if !is_text {
            return Err(fails(&"its path is not text (UTF-8)"));
        }
        let held = (|| {
            own_directory(path)?;
            let path = fs::canonicalize(path)?;
            let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE))?;
            Ok::<_, io::Error>(Self { path, _lock: lock })
        })();
        let held = held.map_err(|error| fails(&error))?;
        match flock(&held._lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(held),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::failed(
                format!("somebody else starts a head with the state in {}", path.display()),
                "wait for it, or give another directory with --state-dir",
            )),
            Err(error) => Err(fails(&error)),
        }
    }

    /// The session of the last head that was started with it, as far as it is there.
    pub(super) fn session(&self) -> Option<Session> {
        let head: HeadFile = serde_json::from_slice(&read_own(&self.path.join(HEAD_FILE)).ok()?).ok()?;
        Session::read(&head.session_dir)
    }

    /// Remembers the session.
    pub(super) fn remember(&self, session: &Session) -> CliResult<()> {
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
    fn one_at_a_time_holds_it() {
        let scratch = Scratch::new();
        let path = scratch.0.join("a/state");
        let held = StateDir::lock(&path).unwrap();
        assert!(StateDir::lock(&path).is_err());
        drop(held);
        StateDir::lock(&path).unwrap();
    }

    #[test]
    fn it_remembers_the_session_as_long_as_that_is_there() {
        let scratch = Scratch::new();
        let held = StateDir::lock(&scratch.0.join("state")).unwrap();
        assert_eq!(held.session(), None);
        let dir = scratch.0.join("session");
        own_directory(&dir).unwrap();
        let session = Session { dir, node: node(1, &[(Role::Agent, std::process::id())]) };
        session.save().unwrap();
        held.remember(&session).unwrap();
        assert_eq!(held.session(), Some(session.clone()));
        session.remove(false).unwrap();
        assert_eq!(held.session(), None);
    }
}
