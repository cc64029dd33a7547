//! Users that a node's jobs run as, by the options of the start.

use std::net::{IpAddr, SocketAddr};

use roadshow::daemon::{JobUser, JobUsers, JobUsersError};

use super::StartArgs;
use crate::error::{CliError, CliResult};
use crate::session::{SessionDir, SessionRoot};

/// Returns the requested users, if this process may run jobs as them at this address with these heads.
pub(super) fn of_jobs(arguments: &StartArgs, host: IpAddr, heads: &[SocketAddr]) -> CliResult<JobUsers> {
    let users = asked_for(arguments)?;
    users.check(host, heads).map_err(refused)?;
    Ok(users)
}

fn asked_for(arguments: &StartArgs) -> CliResult<JobUsers> {
    Ok(match (&arguments.worker_user, arguments.worker_uids) {
        (Some(name), _) => JobUsers::One(JobUser::named(name).map_err(refused)?),
        (None, Some(uids)) => JobUsers::EachJob(uids),
        (None, None) => JobUsers::Agent,
    })
}

/// Names the option that requests other users than the running agent has, if one does.
pub(super) fn differ(arguments: &StartArgs, running: &JobUsers) -> CliResult<Option<&'static str>> {
    let option = match arguments.worker_user {
        Some(_) => "--worker-user",
        None => "--worker-uids",
    };
    let asked = asked_for(arguments)?;
    Ok((asked != JobUsers::Agent && asked != *running).then_some(option))
}

/// Gives the users of jobs search permission, but not read permission, on the directories above their own.
pub(super) fn make_passable(users: &JobUsers, root: &SessionRoot, session_dir: &SessionDir) -> CliResult<()> {
    if *users == JobUsers::Agent {
        return Ok(());
    }
    root.make_passable(session_dir).map_err(|error| {
        let text = format!("the users of jobs cannot be let into {}: {error}", session_dir.dir.display());
        CliError::failed(text, "give another directory with --session-dir, or set TMPDIR")
    })?;
    users.check_above(&session_dir.dir).map_err(refused)
}

/// Passes the error on: its text has the next step.
fn refused(error: JobUsersError) -> CliError {
    CliError::failed(error, "")
}
