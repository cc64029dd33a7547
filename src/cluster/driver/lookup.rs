//! What lets a driver join: the cluster's token, from the environment or from a node of this machine.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::cluster::ClusterError;
use crate::cluster::model::JobId;
use crate::cluster::trust::Token;

/// The token of the cluster at that address: `ROADSHOW_TOKEN`, the file that `ROADSHOW_TOKEN_FILE` names, or
/// that of a session of this user on this machine which belongs to the cluster.
pub(super) fn token(head: SocketAddr) -> Result<Token, ClusterError> {
    let (text, from) = if let Some(token) = variable("ROADSHOW_TOKEN") {
        (token, "ROADSHOW_TOKEN".to_owned())
    } else if let Some(file) = variable("ROADSHOW_TOKEN_FILE") {
        let read = fs::read_to_string(&file);
        let text =
            read.map_err(|error| ClusterError::Token { from: file.clone(), why: error.to_string() })?;
        (text, file)
    } else {
        of_session(head).ok_or(ClusterError::NoToken { address: head })?
    };
    text.trim().parse().map_err(|error| ClusterError::Token { from, why: format!("{error}") })
}

/// The job that an agent has started this driver for.
pub(super) fn submitted_as() -> Option<JobId> {
    variable("ROADSHOW_JOB")?.parse().ok()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Looks through the sessions of this user. Each has its token and its head's address, for this user alone.
fn of_session(head: SocketAddr) -> Option<(String, String)> {
    let sessions = sessions_directory();
    // Anybody may have made a directory of that name: a token of theirs leads into a cluster of theirs.
    let found = fs::symlink_metadata(&sessions).ok()?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
        return None;
    }
    let session = fs::read_dir(sessions).ok()?.flatten().map(|entry| entry.path()).find(|session| {
        let address = fs::read_to_string(session.join("head_address"));
        address.is_ok_and(|address| address.trim().parse() == Ok(head))
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
