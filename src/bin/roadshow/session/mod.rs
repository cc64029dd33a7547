//! What a node leaves of itself on its machine: its session's directory, and what is in it.
//!
//! `<temporary files>/roadshow-<uid>/session_<date>_<time>_<micros>_<pid>` belongs to the user and is
//! closed to others. In it, `node.json` says which processes and addresses the session has, `token` is
//! the cluster's token, `logs` and `sockets` are the daemons'. `session_latest` is a link to the newest.

mod private_files;
mod process;
mod root;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use roadshow::daemon::{JobUsers, remove_tree};
use roadshow::model::NodeId;
use serde::{Deserialize, Serialize};

use crate::cli::token::TokenText;

use private_files::{check_closed, check_root};
use private_files::{let_others_pass, own_passable_directory};

pub(crate) use private_files::{lock_shared, own_directory, read_own, write_private};
pub(crate) use process::{Process, ProcessRecord, Role, all_ended, boot_id, descendants};
pub(crate) use root::{SessionDir, SessionRoot};

const NODE_FILE: &str = "node.json";
const TOKEN_FILE: &str = "token";
const LOGS: &str = "logs";

/// Where a head keeps its state that was told no other place: it outlives what else is in the session.
pub(crate) const STATE: &str = "state";

/// Where the processes of jobs run: what is there is theirs.
const JOBS: &str = "jobs";

/// What a head that was ready has there.
const DATABASE: &str = "head.redb";

/// A node's session on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeFile,
}

/// What `node.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeFile {
    /// Which start of the machine the processes are of.
    pub(crate) boot_id: String,
    pub(crate) is_head: bool,
    /// Where the node is reached; none until it is ready.
    pub(crate) address: Option<SocketAddr>,
    /// Where its cluster is reached; none until the head's node is ready.
    pub(crate) head_address: Option<SocketAddr>,
    pub(crate) node_id: Option<NodeId>,
    /// Where the head keeps its state; none on other nodes.
    pub(crate) state_dir: Option<PathBuf>,
    /// The users that its jobs run as.
    #[serde(default)]
    pub(crate) job_users: JobUsers,
    pub(crate) processes: Vec<ProcessRecord>,
}

impl Session {
    /// The session whose directory that is; none if it is no session, or not this user's alone: what it says
    /// is signalled, and the directory removed.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let dir = fs::canonicalize(dir).ok()?;
        check_closed(&dir).ok()?;
        let node = serde_json::from_slice(&read_own(&dir.join(NODE_FILE)).ok()?).ok()?;
        Some(Self { dir, node })
    }

    /// Why a directory that looks like a session's is not read, if it is not this user's alone.
    pub(crate) fn refused(dir: &Path) -> Option<io::Error> {
        let dir = fs::canonicalize(dir).ok()?;
        fs::symlink_metadata(dir.join(NODE_FILE)).ok()?;
        check_closed(&dir).err()
    }

    /// Writes `node.json` anew.
    pub(crate) fn save(&self) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.node).map_err(io::Error::other)?;
        write_private(&self.dir.join(NODE_FILE), &json)
    }

    /// Those of its daemons that still run.
    pub(crate) fn live_processes(&self) -> Vec<ProcessRecord> {
        match boot_id().is_ok_and(|boot_id| boot_id == self.node.boot_id) {
            true => self.node.processes.iter().copied().filter(|record| record.is_alive()).collect(),
            false => Vec::new(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.live_processes().is_empty()
    }

    pub(crate) fn live_process(&self, role: Role) -> Option<ProcessRecord> {
        self.live_processes().into_iter().find(|record| record.role == role)
    }

    /// Remembers a daemon, in place of an earlier one.
    pub(crate) fn add_process(&mut self, record: ProcessRecord) -> io::Result<()> {
        self.node.processes.retain(|other| other.role != record.role);
        self.node.processes.push(record);
        self.save()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.node.processes.iter().map(|record| record.pid).collect()
    }

    pub(crate) fn token(&self) -> Option<TokenText> {
        let bytes = read_own(&self.dir.join(TOKEN_FILE)).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }

    pub(crate) fn save_token(&self, token: &TokenText) -> io::Result<()> {
        write_private(&self.dir.join(TOKEN_FILE), format!("{}\n", token.reveal()).as_bytes())
    }

    pub(crate) fn log(&self, role: Role) -> PathBuf {
        self.dir.join(LOGS).join(format!("{}.log", role.name()))
    }

    /// The socket on which the agent hands connections to the head.
    pub(crate) fn head_socket(&self) -> PathBuf {
        self.dir.join("head.sock")
    }

    /// Removes what it has left; with `keep_logs` all but its logs.
    pub(crate) fn remove(&self, keep_logs: bool) -> io::Result<()> {
        match keep_logs {
            false => Ok(remove_tree(&self.dir)?),
            true if self.dir.exists() => self.remove_all_but(&[LOGS]),
            true => Ok(()),
        }
    }

    /// Whether something is in it that outlives it: what a head has kept, or what jobs have left.
    pub(crate) fn has_more(&self) -> bool {
        self.dir.join(STATE).join(DATABASE).exists()
            || fs::read_dir(self.dir.join(JOBS)).is_ok_and(|mut jobs| jobs.next().is_some())
    }

    /// Removes what is of no use once nothing of it runs, the token for one. `stop` finds the rest.
    pub(crate) fn clean_secrets(&self) -> io::Result<()> {
        self.remove_all_but(&[LOGS, STATE, JOBS, NODE_FILE])
    }

    /// Makes room for another session in its directory.
    fn clear_for_reuse(&self) -> io::Result<()> {
        self.remove_all_but(&[LOGS, STATE, JOBS])
    }

    fn remove_all_but(&self, kept: &[&str]) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !kept.iter().any(|name| entry.file_name() == *name) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory that nobody else has, closed to others. It is removed when this is dropped.
    #[derive(Debug)]
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("roadshow-test-{}-{number}", std::process::id()));
            // What an earlier process of this number may have left.
            let _ = fs::remove_dir_all(&dir);
            own_directory(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub(crate) fn node(port: u16, pids: &[(Role, u32)]) -> NodeFile {
        let record = |(role, pid): &(Role, u32)| ProcessRecord::of(*role, *pid).unwrap();
        NodeFile {
            boot_id: boot_id().unwrap(),
            is_head: true,
            address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            head_address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            node_id: Some(NodeId(7)),
            state_dir: None,
            job_users: JobUsers::Agent,
            processes: pids.iter().map(record).collect(),
        }
    }

    #[test]
    fn a_session_is_read_as_it_was_saved() {
        let scratch = Scratch::new();
        let mut session =
            Session { dir: scratch.0.clone(), node: node(7, &[(Role::Agent, std::process::id())]) };
        session.save().unwrap();
        session.save_token(&"rs1_abc".parse().unwrap()).unwrap();
        let read = Session::read(&scratch.0).unwrap();
        assert_eq!(read, session);
        assert_eq!(read.token().unwrap().reveal(), "rs1_abc");
        assert!(read.is_alive() && read.live_process(Role::Head).is_none());

        session.node.boot_id = "another".to_owned();
        session.save().unwrap();
        assert!(!Session::read(&scratch.0).unwrap().is_alive());
    }

    #[test]
    fn a_directory_that_others_can_look_into_is_no_session() {
        let scratch = Scratch::new();
        let session = Session { dir: scratch.0.clone(), node: node(7, &[]) };
        session.save().unwrap();
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(&scratch.0, &link).unwrap();
        assert_eq!(Session::read(&link), Some(session));
        for mode in [0o755, 0o750, 0o701] {
            fs::set_permissions(&scratch.0, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!((Session::read(&scratch.0), Session::read(&link)), (None, None), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_session_is_none() {
        let scratch = Scratch::new();
        assert_eq!(Session::read(&scratch.0), None);
        write_private(&scratch.0.join(NODE_FILE), b"{}").unwrap();
        assert_eq!(Session::read(&scratch.0), None);
    }

    #[test]
    fn a_daemon_takes_the_place_of_the_one_before() {
        let scratch = Scratch::new();
        let mut session = Session { dir: scratch.0.clone(), node: node(7, &[]) };
        let record = ProcessRecord { role: Role::Head, pid: 1, start_ticks: 1 };
        session.add_process(record).unwrap();
        session.add_process(ProcessRecord { pid: 2, ..record }).unwrap();
        session.add_process(ProcessRecord { role: Role::Agent, ..record }).unwrap();
        assert_eq!(Session::read(&scratch.0).unwrap().pids(), [2, 1]);
    }

    #[test]
    fn logs_can_be_kept() {
        let scratch = Scratch::new();
        let session = Session { dir: scratch.0.join("session"), node: node(7, &[]) };
        let fill = || {
            fs::create_dir_all(session.dir.join(LOGS)).unwrap();
            fs::create_dir_all(session.dir.join("jobs/1")).unwrap();
            fs::write(session.log(Role::Head), "text").unwrap();
            session.save().unwrap();
        };
        fill();
        session.remove(true).unwrap();
        let left: Vec<_> =
            fs::read_dir(&session.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOGS]);
        assert!(session.log(Role::Head).exists());
        fill();
        session.remove(false).unwrap();
        assert!(!session.dir.exists());
    }
}
