//! What lets a driver join: the cluster's token, from the environment or from a node of this machine.

use std::env::VarError;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::error::ClusterError;
use crate::cluster::model::JobId;
use crate::cluster::security::Token;
use crate::cluster::security::enrol::{DriverEnrolment, ENROLMENT_VARIABLE};

/// What lets this driver into the cluster at one of these addresses: the agent that has started it for a job, where that
/// gives its drivers no token, or else the token.
pub(super) fn admission(
    heads: &[SocketAddr],
    submitted: &Submitted,
) -> Result<DriverEnrolment, ClusterError> {
    let socket = std::env::var_os(ENROLMENT_VARIABLE).filter(|socket| !socket.is_empty());
    match (socket, submitted.job()) {
        (Some(socket), Some(_)) => Ok(DriverEnrolment::Agent(socket.into())),
        (socket, _) => match token(heads) {
            Err(ClusterError::NoToken { .. }) if socket.is_some() => Err(ClusterError::OneCluster),
            found => found.map(DriverEnrolment::Token),
        },
    }
}

/// The token of the cluster at one of these addresses: `ROADSHOW_TOKEN`, the file that `ROADSHOW_TOKEN_FILE` names, or
/// that of a session of this user on this machine which belongs to the cluster.
fn token(heads: &[SocketAddr]) -> Result<Token, ClusterError> {
    let (text, from) = if let Some(token) = secret("ROADSHOW_TOKEN")? {
        (token, "ROADSHOW_TOKEN".to_owned())
    } else if let Some(file) = std::env::var_os("ROADSHOW_TOKEN_FILE").filter(|file| !file.is_empty()) {
        let from = PathBuf::from(&file).display().to_string();
        let read = fs::read_to_string(&file);
        let text =
            read.map_err(|error| ClusterError::Token { from: from.clone(), why: error.to_string() })?;
        (text, from)
    } else {
        of_session(heads).ok_or(ClusterError::NoToken { address: heads[0] })?
    };
    text.trim().parse().map_err(|error| ClusterError::Token { from, why: format!("{error}") })
}

/// Whether a cluster of this process has the job that the process was started for.
static JOB_IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The job that an agent has started this process for. It is the first cluster's of the process: later ones,
/// and those of programs that the process starts, are jobs of their own.
///
/// Dropping it without [`Submitted::take`] leaves the job to the next attempt to join.
#[derive(Debug)]
pub(super) struct Submitted(Option<JobId>);

impl Submitted {
    /// Reads `ROADSHOW_JOB`: the job, and the agent's process id, which only the agent's own child has as
    /// its parent.
    pub(super) fn find() -> Result<Self, ClusterError> {
        let Some(value) = variable("ROADSHOW_JOB")? else { return Ok(Self(None)) };
        let wrong = |value| ClusterError::Environment {
            variable: "ROADSHOW_JOB",
            value,
            why: "is set by agents alone; unset it",
        };
        let parsed = value
            .split_once(':')
            .and_then(|(job, agent)| Some((job.parse::<JobId>().ok()?, agent.parse::<u32>().ok()?)));
        let Some((job, agent)) = parsed else { return Err(wrong(value)) };
        let is_its_driver = agent == std::os::unix::process::parent_id();
        Ok(Self(Some(job).filter(|_| is_its_driver && !JOB_IS_TAKEN.swap(true, Ordering::AcqRel))))
    }

    pub(super) fn job(&self) -> Option<JobId> {
        self.0
    }

    /// The process has joined as this job.
    pub(super) fn take(mut self) {
        self.0 = None;
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if self.0.is_some() {
            JOB_IS_TAKEN.store(false, Ordering::Release);
        }
    }
}

/// A variable that is set to something.
pub(in crate::cluster) fn variable(name: &'static str) -> Result<Option<String>, ClusterError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => {
            let (value, why) = (value.to_string_lossy().into_owned(), "is not text");
            Err(ClusterError::Environment { variable: name, value, why })
        }
    }
}

/// The same for one whose value is not to be shown.
fn secret(name: &'static str) -> Result<Option<String>, ClusterError> {
    variable(name)
        .map_err(|_| ClusterError::Token { from: name.to_owned(), why: "it is not text".to_owned() })
}

/// Looks through the sessions of this user. Each has its token and its head's address, for this user alone.
fn of_session(heads: &[SocketAddr]) -> Option<(String, String)> {
    let sessions = sessions_directory();
    // Anybody may have made a directory of that name: a token of theirs leads into a cluster of theirs.
    let found = fs::symlink_metadata(&sessions).ok()?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
        return None;
    }
    let session = fs::read_dir(sessions).ok()?.flatten().map(|entry| entry.path()).find(|session| {
        let address = fs::read_to_string(session.join("head_address"));
        address.is_ok_and(|address| address.trim().parse().is_ok_and(|address| heads.contains(&address)))
    })?;
    let token = session.join("token");
    Some((fs::read_to_string(&token).ok()?, token.display().to_string()))
}

/// The permission of others to write.
const OTHERS_WRITE: u32 = 0o022;

/// Where the sessions of this user are, as the command makes them.
fn sessions_directory() -> PathBuf {
    std::env::temp_dir().join(format!("roadshow-{}", rustix::process::geteuid().as_raw()))
}
