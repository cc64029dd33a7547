//! What is asked of an agent: by the head, by drivers, and at its desk.

use std::sync::{Arc, OnceLock, Weak};

use super::Agent;
use super::executable_exchange;
use crate::cluster::admin::{AdminReply, AdminRequest};
use crate::cluster::authorization;
use crate::cluster::daemon::agent::store::StoreError;
use crate::cluster::daemon::logs::LogError;
use crate::cluster::daemon::logs::LogReader;
use crate::cluster::daemon::token_rpc_server::TokenService;
use crate::cluster::executable::{Digest, Platform, check_runs_here, this_machine};
use crate::cluster::protocol::{
    AGENT_COMMAND, AgentCommand, EXECUTABLE, ExecutableReply, ExecutableRequest, FETCH, FLUSH, Flush,
    JobSpec, NodeEvent,
};
use crate::config::LOGS_LISTED_MAX;
use crate::host::{Host, HostServices};
use crate::id::{HostUid, TypeHash};
use crate::registry::{Inbound, decode};
use crate::remote::stop_on_host;
use crate::wire::CallFailure;

/// What calls to the agent's host do.
pub(super) fn host_services(itself: Arc<OnceLock<Weak<Agent>>>) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(agent) = itself.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            AGENT_COMMAND => handle_command(&agent, inbound),
            FLUSH => flush(agent, inbound),
            EXECUTABLE => handle_executable(agent, inbound),
            FETCH => executable_exchange::serve(agent, inbound),
            _ => unknown(host, service, inbound),
        }
    })
}

fn unknown(host: &Host, service: TypeHash, inbound: Inbound) {
    let message = host.registry().name_of(service);
    inbound.fail(&CallFailure::NotHandled { actor: "an agent".to_owned(), message });
}

/// Takes an order of the head: it is answered at once, and carried out meanwhile.
fn handle_command(agent: &Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let order = match decode::<AgentCommand>(&body) {
        Ok(order) => order,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    match order {
        AgentCommand::StartWorker { worker, job, detached } => {
            agent.workers.start(agent, worker, job, detached)
        }
        AgentCommand::StopWorker { worker } => agent.workers.stop(worker),
        AgentCommand::StopActor { at, .. } => {
            let (host, address) = (agent.host.clone(), agent.facts.address);
            tokio::spawn(async move {
                host.add_peer(at.host, address);
                if let Err(error) = stop_on_host(&host, at).await {
                    tracing::debug!(?at, %error, "an actor could not be stopped");
                }
            });
        }
        AgentCommand::StopDriver { job } => agent.drivers.stop(job),
        AgentCommand::ReleaseJob { job } => agent.end_job(job),
        AgentCommand::StopNode => agent.shutdown.cancel(),
    }
    responder.answer(());
}

/// Sends a driver what its workers have written by now.
fn flush(agent: Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let Flush { job } = match decode(&body) {
        Ok(flush) => flush,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.release_credit();
    tokio::spawn(async move {
        agent.outputs.flush(job).await;
        responder.answer(());
    });
}

/// Takes a driver's executable.
fn handle_executable(agent: Arc<Agent>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<ExecutableReply>();
    let request = match decode::<ExecutableRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    // The credit is given back with the answer: it bounds how much waits for the disk.
    responder.start();
    tokio::spawn(async move { responder.answer(answer_driver(agent, from, request).await) });
}

async fn answer_driver(agent: Arc<Agent>, from: HostUid, request: ExecutableRequest) -> ExecutableReply {
    match request {
        ExecutableRequest::Stat { digest, size, platform } => {
            at_files(move || {
                runs_here(&platform)?;
                agent.executables.stored_bytes(digest, size).map(ExecutableReply::Stat).map_err(text)
            })
            .await
        }
        ExecutableRequest::Write { digest, size, offset, bytes } => {
            at_files(move || match agent.executables.write(digest, size, offset, &bytes) {
                Err(wrong @ StoreError::WrongDigest { .. }) => {
                    Ok(ExecutableReply::Wrong { text: text(wrong) })
                }
                put => put.map(ExecutableReply::Stat).map_err(text),
            })
            .await
        }
        ExecutableRequest::Fetch(wanted) => executable_exchange::fetch(&agent, wanted).await,
        ExecutableRequest::Launch(launch) => {
            at_files(move || equip(&agent, from, launch).map(|()| ExecutableReply::Done)).await
        }
    }
}

/// Makes a reply where files may be read and written.
async fn at_files(
    reply: impl FnOnce() -> Result<ExecutableReply, String> + Send + 'static,
) -> ExecutableReply {
    let replied = tokio::task::spawn_blocking(reply).await.unwrap_or_else(|error| Err(text(error)));
    replied.unwrap_or_else(|text| ExecutableReply::Failed { text })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Takes note of how a driver's workers are started.
fn equip(agent: &Arc<Agent>, from: HostUid, launch: JobSpec) -> Result<(), String> {
    let job = launch.job;
    if launch.driver != from {
        return Err("a driver has workers started for itself alone".to_owned());
    }
    authorization::check_job(&agent.host, from, job)?;
    let executable = agent.executables.pin(launch.digest).map_err(text)?;
    check_runs_here(&executable.path()).map_err(text)?;
    let account = agent.accounts.of(job).map_err(text)?;
    agent.jobs.provision(launch, executable, account);
    agent.record(NodeEvent::ExecutablePinned { job });
    Ok(())
}

/// Whether this machine can run what is built for that platform; else what to do.
pub(super) fn runs_here(platform: &str) -> Result<(), String> {
    let program: Platform = platform.parse().map_err(|error| format!("{error}"))?;
    this_machine().can_run(&program).map_err(|error| error.to_string())
}

/// What the agent's desk answers.
#[derive(Debug)]
pub(super) struct AgentAdminService(Weak<Agent>);

impl AgentAdminService {
    pub(super) fn of(agent: &Arc<Agent>) -> Self {
        Self(Arc::downgrade(agent))
    }
}

impl TokenService for AgentAdminService {
    type Request = AdminRequest;
    type Reply = AdminReply;

    async fn answer(&self, request: AdminRequest) -> AdminReply {
        let Some(agent) = self.0.upgrade() else { return failed("the agent is ending".to_owned()) };
        // Files are read and written there.
        let answered = tokio::task::spawn_blocking(move || answer(&agent, request)).await;
        answered.unwrap_or_else(|error| failed(error.to_string()))
    }
}

fn answer(agent: &Arc<Agent>, request: AdminRequest) -> AdminReply {
    let stored = |have| AdminReply::ExecutableStatus { have };
    let reply = match request {
        AdminRequest::ExecutableStatus { digest, size } => agent
            .executables
            .stored_bytes(Digest(digest), size)
            .map(stored)
            .map_err(|error| error.to_string()),
        AdminRequest::UploadExecutable { digest, size, offset, bytes } => agent
            .executables
            .write(Digest(digest), size, offset, &bytes)
            .map(stored)
            .map_err(|error| error.to_string()),
        AdminRequest::StartDriver { job, submission } => {
            agent.launch_driver(job, &submission).map(|()| AdminReply::Done)
        }
        AdminRequest::LogFiles { after } => LogReader::new(agent.jobs.logs())
            .list(after.as_deref(), LOGS_LISTED_MAX)
            .map(|(files, more)| AdminReply::LogFiles { files, more })
            .map_err(|error| error.to_string()),
        AdminRequest::Log { file, from } => match LogReader::new(agent.jobs.logs()).read(&file, from) {
            Ok(part) => Ok(AdminReply::Log { text: part.text, offset: part.offset }),
            Err(error) => {
                return AdminReply::Failed {
                    text: error.to_string(),
                    unknown: matches!(error, LogError::Unknown { .. }),
                };
            }
        },
        _ => Err("this is asked of the head, and not of an agent".to_owned()),
    };
    reply.unwrap_or_else(failed)
}

fn failed(text: String) -> AdminReply {
    AdminReply::Failed { text, unknown: false }
}
