//! Sessions: the directory that a node keeps on its machine, and the files in it.
//!
//! ```text
//! <temporary files>/roadshow-<uid>/        SessionRoot: owned by the user, closed to others
//!   session_latest                         link to the newest session
//!   session_<date>_<time>_<micros>_<pid>/  NodeSession, or a link to a --session-dir elsewhere
//!     node.json                            addresses, and processes for `stop` and restarts
//!     token                                token of the cluster, mode 0600
//!     logs/  jobs/  state/                 kept when the session ends without `stop`
//!     head.sock, ...                       sockets of the daemons
//! ```

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
pub(crate) use process::{DaemonRole, Process, ProcessRecord, all_ended, boot_id, descendants};
pub(crate) use root::{SessionDir, SessionRoot};

const NODE_FILE: &str = "node.json";
const TOKEN_FILE: &str = "token";
const LOGS: &str = "logs";

/// Name of the default state directory of a head; it survives the end of the session.
pub(crate) const STATE: &str = "state";

/// Name of the directory with the working directories of jobs, whose files belong to the operator.
const JOBS: &str = "jobs";

/// Name of the head's database, which exists once a head was ready.
const DATABASE: &str = "head.redb";

/// Session of a node on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSession {
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeFile,
}

/// Content of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeFile {
    /// Boot of the machine in which the processes were started.
    pub(crate) boot_id: String,
    pub(crate) is_head: bool,
    /// Address of the node; none until it is ready.
    pub(crate) address: Option<SocketAddr>,
    /// Address of the head; none until the head's node is ready.
    pub(crate) head_address: Option<SocketAddr>,
    pub(crate) node_id: Option<NodeId>,
    /// State directory of the head; none on other nodes.
    pub(crate) state_dir: Option<PathBuf>,
    /// Users that jobs of the node run as.
    #[serde(default)]
    pub(crate) job_users: JobUsers,
    pub(crate) processes: Vec<ProcessRecord>,
}

impl NodeSession {
    /// Reads the session in a directory; none if there is none, or if the directory is not this user's alone.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let dir = fs::canonicalize(dir).ok()?;
        // `stop` signals the processes of this file as the caller, and removes the directory: another user must not be
        // able to write it.
        check_closed(&dir).ok()?;
        let node = serde_json::from_slice(&read_own(&dir.join(NODE_FILE)).ok()?).ok()?;
        Some(Self { dir, node })
    }

    /// Error that keeps a session's directory from being read, if other users can open it.
    pub(crate) fn refused(dir: &Path) -> Option<io::Error> {
        let dir = fs::canonicalize(dir).ok()?;
        fs::symlink_metadata(dir.join(NODE_FILE)).ok()?;
        check_closed(&dir).err()
    }

    /// Writes `node.json`.
    pub(crate) fn save(&self) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.node).map_err(io::Error::other)?;
        write_private(&self.dir.join(NODE_FILE), &json)
    }

    /// Daemons that still run.
    pub(crate) fn live_processes(&self) -> Vec<ProcessRecord> {
        // Start times count from boot, so a record of an earlier boot could match a process of this one.
        match boot_id().is_ok_and(|boot_id| boot_id == self.node.boot_id) {
            true => self.node.processes.iter().copied().filter(|record| record.is_alive()).collect(),
            false => Vec::new(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.live_processes().is_empty()
    }

    pub(crate) fn live_process(&self, role: DaemonRole) -> Option<ProcessRecord> {
        self.live_processes().into_iter().find(|record| record.role == role)
    }

    /// Records a daemon, in place of an earlier one in the same role.
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

    pub(crate) fn log(&self, role: DaemonRole) -> PathBuf {
        self.dir.join(LOGS).join(format!("{}.log", role.name()))
    }

    /// Socket through which the agent passes connections to the head.
    pub(crate) fn head_socket(&self) -> PathBuf {
        self.dir.join("head.sock")
    }

    /// Removes the files of the session, except the logs with `keep_logs`.
    pub(crate) fn remove(&self, keep_logs: bool) -> io::Result<()> {
        match keep_logs {
            false => Ok(remove_tree(&self.dir)?),
            true if self.dir.exists() => self.remove_all_but(&[LOGS]),
            true => Ok(()),
        }
    }

    /// Reports if the directory has files that outlive the session: a head's state, or files of jobs.
    pub(crate) fn has_more(&self) -> bool {
        self.dir.join(STATE).join(DATABASE).exists()
            || fs::read_dir(self.dir.join(JOBS)).is_ok_and(|mut jobs| jobs.next().is_some())
    }

    /// Removes the token and everything else that only running daemons need.
    // `node.json` stays, so that `stop` still finds the directory and removes the rest.
    pub(crate) fn clean_secrets(&self) -> io::Result<()> {
        self.remove_all_but(&[LOGS, STATE, JOBS, NODE_FILE])
    }

    /// Makes the directory ready for another session.
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

    /// Private directory of one test, removed on drop.
    #[derive(Debug)]
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("roadshow-test-{}-{number}", std::process::id()));
            // Left over from an earlier process with the same id.
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

    pub(crate) fn node(port: u16, pids: &[(DaemonRole, u32)]) -> NodeFile {
        let record = |(role, pid): &(DaemonRole, u32)| ProcessRecord::of(*role, *pid).unwrap();
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
    fn session_is_read_as_it_was_saved() {
        let scratch = Scratch::new();
        let mut session =
            NodeSession { dir: scratch.0.clone(), node: node(7, &[(DaemonRole::Agent, std::process::id())]) };
        session.save().unwrap();
        session.save_token(&"rs1_abc".parse().unwrap()).unwrap();
        let read = NodeSession::read(&scratch.0).unwrap();
        assert_eq!(read, session);
        assert_eq!(read.token().unwrap().reveal(), "rs1_abc");
        assert!(read.is_alive() && read.live_process(DaemonRole::Head).is_none());

        session.node.boot_id = "another".to_owned();
        session.save().unwrap();
        assert!(!NodeSession::read(&scratch.0).unwrap().is_alive());
    }

    #[test]
    fn directory_that_others_can_open_is_no_session() {
        let scratch = Scratch::new();
        let session = NodeSession { dir: scratch.0.clone(), node: node(7, &[]) };
        session.save().unwrap();
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(&scratch.0, &link).unwrap();
        assert_eq!(NodeSession::read(&link), Some(session));
        for mode in [0o755, 0o750, 0o701] {
            fs::set_permissions(&scratch.0, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!((NodeSession::read(&scratch.0), NodeSession::read(&link)), (None, None), "{mode:o}");
        }
    }

    #[test]
    fn directory_without_a_valid_node_file_is_no_session() {
        let scratch = Scratch::new();
        assert_eq!(NodeSession::read(&scratch.0), None);
        write_private(&scratch.0.join(NODE_FILE), b"{}").unwrap();
        assert_eq!(NodeSession::read(&scratch.0), None);
    }

    #[test]
    fn daemon_replaces_the_one_before_in_its_role() {
        let scratch = Scratch::new();
        let mut session = NodeSession { dir: scratch.0.clone(), node: node(7, &[]) };
        let record = ProcessRecord { role: DaemonRole::Head, pid: 1, start_ticks: 1 };
        session.add_process(record).unwrap();
        session.add_process(ProcessRecord { pid: 2, ..record }).unwrap();
        session.add_process(ProcessRecord { role: DaemonRole::Agent, ..record }).unwrap();
        assert_eq!(NodeSession::read(&scratch.0).unwrap().pids(), [2, 1]);
    }

    #[test]
    fn logs_can_be_kept() {
        let scratch = Scratch::new();
        let session = NodeSession { dir: scratch.0.join("session"), node: node(7, &[]) };
        let fill = || {
            fs::create_dir_all(session.dir.join(LOGS)).unwrap();
            fs::create_dir_all(session.dir.join("jobs/1")).unwrap();
            fs::write(session.log(DaemonRole::Head), "text").unwrap();
            session.save().unwrap();
        };
        fill();
        session.remove(true).unwrap();
        let left: Vec<_> =
            fs::read_dir(&session.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOGS]);
        assert!(session.log(DaemonRole::Head).exists());
        fill();
        session.remove(false).unwrap();
        assert!(!session.dir.exists());
    }
}
