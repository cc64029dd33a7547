//! Roles that may call each service of a cluster.
//!
//! Every service that a process of a cluster offers checks its caller here first. The service itself then checks
//! what the caller may say of which job, node or actor: `check_event` of the head for events of nodes,
//! `check_sender` of the control service for requests to the control plane, the head's services for drivers.

use super::control_service::CONTROL;
use super::model::JobId;
use super::protocol::{AGENT_COMMAND, EXECUTABLE, FETCH, FLUSH, JOB, JOB_EVENT, NODE, OUTPUT};
use super::security::{ONE_JOB, job_name};
use crate::cluster::protocol::MEMBERSHIP;
use crate::durable::protocol::STATE;
use crate::host::Host;
use crate::id::{HostUid, TypeHash};
use crate::registry::Inbound;
use crate::transport::Role;
use crate::wire::CallFailure;

/// Services of the cluster, each with the roles that may call it.
const CALLERS: [(TypeHash, &[Role]); 11] = [
    (CONTROL, &[Role::Driver, Role::Worker]),
    (NODE, &[Role::Agent]),
    (JOB, &[Role::Driver]),
    (AGENT_COMMAND, &[Role::Head]),
    (JOB_EVENT, &[Role::Head]),
    (EXECUTABLE, &[Role::Driver]),
    (FETCH, &[Role::Agent]),
    (OUTPUT, &[Role::Agent]),
    (FLUSH, &[Role::Driver]),
    (MEMBERSHIP, &[Role::Driver, Role::Agent]),
    (STATE, &[Role::Worker]),
];

/// Rejects a call of a service by a process whose role may not make it. Services that are not listed are open.
///
/// Links that stay on this machine have no certificates: only processes of one user know their secret.
pub(super) fn check(host: &Host, service: TypeHash, inbound: &Inbound) -> Result<(), CallFailure> {
    // Spawns and tasks take this path too. They return here, before the look-up of the peer costs a lock.
    let Some(allowed) = callers(service) else { return Ok(()) };
    check_known(host, inbound.from()).map_err(|text| CallFailure::Refused { text })?;
    match host.role_of(inbound.from()) {
        Some(role) => check_role(allowed, role),
        None => Ok(()),
    }
}

/// Rejects a driver that speaks for a job it may not speak for. A driver that enrolled through its node's agent is
/// bound to the job of its certificate; one with the token may speak for any job.
pub(super) fn check_job(host: &Host, driver: HostUid, job: JobId) -> Result<(), String> {
    check_known(host, driver)?;
    let has = |name: &str| host.is_certified(driver, name) == Some(true);
    match has(ONE_JOB) && !has(&job_name(job, Role::Driver)) {
        true => Err(format!("this driver was enrolled for another job than {job}")),
        false => Ok(()),
    }
}

/// Rejects a worker that asks for the state of another job than its own.
pub(super) fn check_worker(host: &Host, worker: HostUid, job: JobId) -> Result<(), String> {
    check_known(host, worker)?;
    // Links that stay on this machine have no certificates.
    match host.is_certified(worker, &job_name(job, Role::Worker)) {
        Some(false) => Err(format!("this worker does not belong to job {job}")),
        Some(true) | None => Ok(()),
    }
}

/// Rejects a caller that this host no longer knows. Its certificate went with its link, and a caller without a
/// certificate would pass for a process of this machine.
pub(super) fn check_known(host: &Host, from: HostUid) -> Result<(), String> {
    match from == host.identity() || host.peer(from).is_ok() {
        true => Ok(()),
        false => Err(format!("{from} is not known here any more; connect again and repeat the request")),
    }
}

/// Roles that may call a service; `None` if it is not one of the cluster's.
fn callers(service: TypeHash) -> Option<&'static [Role]> {
    CALLERS.iter().find(|(known, _)| *known == service).map(|(_, allowed)| *allowed)
}

fn check_role(allowed: &[Role], role: Role) -> Result<(), CallFailure> {
    match allowed.contains(&role) {
        true => Ok(()),
        false => {
            let allowed: Vec<_> = allowed.iter().map(|role| format!("{role}s")).collect();
            let text = format!("only {} may call this service, not {role}s", allowed.join(" and "));
            Err(CallFailure::Refused { text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 4] = [Role::Head, Role::Agent, Role::Worker, Role::Driver];

    #[test]
    fn every_role_that_is_not_listed_is_rejected() {
        for (service, allowed) in CALLERS {
            for role in ROLES {
                let may_call = check_role(callers(service).unwrap(), role).is_ok();
                assert_eq!(may_call, allowed.contains(&role), "{service:?} {role}");
            }
        }
        assert!(callers(TypeHash::of("roadshow::Stop")).is_none());
        let refused = check_role(callers(CONTROL).unwrap(), Role::Agent);
        let Err(CallFailure::Refused { text }) = refused else { panic!("it may") };
        assert_eq!(text, "only drivers and workers may call this service, not agents");
    }

    #[test]
    fn the_table_of_the_protocol_names_the_same_callers() {
        let page = include_str!("../../docs/protocol.md");
        for (service, allowed) in CALLERS {
            let rows = page.lines().filter_map(|line| {
                let mut cells = line.strip_prefix("| `roadshow::")?.split(" | ");
                let name = format!("roadshow::{}", cells.next()?.trim_end_matches('`'));
                (TypeHash::of(&name) == service).then(|| cells.next().unwrap_or_default().to_owned())
            });
            let rows: Vec<_> = rows.collect();
            let expected = match allowed {
                [Role::Head] => "the head".to_owned(),
                allowed => allowed.iter().map(|role| format!("{role}s")).collect::<Vec<_>>().join(", "),
            };
            assert_eq!(rows, [expected], "{service:?}");
        }
    }
}
