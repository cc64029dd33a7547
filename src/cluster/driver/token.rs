//! Enrolment of a driver: the cluster's token from the environment, or the agent that has started the driver.

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

/// Means by which this driver enrols with the cluster at these addresses.
///
/// A submitted job on a node that gives its drivers no token enrols through its agent, any other by the token.
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

/// Token of the cluster at one of these addresses.
///
/// It comes from `ROADSHOW_TOKEN`, from the file that `ROADSHOW_TOKEN_FILE` names, or from a session of this user on
/// this machine that belongs to the cluster.
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

/// Set while a cluster of this process has the job that the process was started for.
static JOB_IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Job that an agent has started this process for. It belongs to the process's first cluster: later clusters, and
/// those of programs that the process starts, are jobs of their own.
///
/// Dropping it without [`Submitted::take`] leaves the job to the next attempt to join.
#[derive(Debug)]
pub(super) struct Submitted(Option<JobId>);

impl Submitted {
    /// Reads `ROADSHOW_JOB`, which holds the job and the agent's process id.
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
        // Programs that the driver starts inherit the variable, but only the driver is the agent's own child.
        let is_its_driver = agent == std::os::unix::process::parent_id();
        Ok(Self(Some(job).filter(|_| is_its_driver && !JOB_IS_TAKEN.swap(true, Ordering::AcqRel))))
    }

    pub(super) fn job(&self) -> Option<JobId> {
        self.0
    }

    /// Consumes the job: this process has joined as its driver.
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

/// Value of an environment variable; `None` if it is unset or blank.
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

/// Same as [`variable`], for a value that no error may show.
fn secret(name: &'static str) -> Result<Option<String>, ClusterError> {
    variable(name)
        .map_err(|_| ClusterError::Token { from: name.to_owned(), why: "it is not text".to_owned() })
}

/// Searches the sessions of this user for the cluster. Each has its token and the head's address in private files.
fn of_session(heads: &[SocketAddr]) -> Option<(String, String)> {
    let sessions = sessions_directory();
    // The parent directory is world-writable, so another user may have created one of this name. A token from
    // it would lead this driver, with its executable and its data, into that user's cluster.
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

/// Write permission of group and others, in a file's mode.
const OTHERS_WRITE: u32 = 0o022;

/// Directory of this user's sessions, as the `roadshow` command creates it.
fn sessions_directory() -> PathBuf {
    std::env::temp_dir().join(format!("roadshow-{}", rustix::process::geteuid().as_raw()))
}
