//! Services of an agent: commands of the head, requests of drivers, and the admin requests of operators.

use std::sync::{Arc, Weak};

use super::executable_exchange;
use super::{Agent, AgentCell};
use crate::cluster::admin::{AdminReply, AdminRequest};
use crate::cluster::authorization;
use crate::cluster::daemon::agent::store::ExecutableStoreError;
use crate::cluster::daemon::logs::LogError;
use crate::cluster::daemon::logs::LogReader;
use crate::cluster::daemon::token_rpc_server::TokenService;
use crate::cluster::executable::{Digest, Platform, check_runs_here, this_machine};
use crate::cluster::protocol::worker::ActorEvent;
use crate::cluster::protocol::{
    AGENT_COMMAND, AgentCommand, EXECUTABLE, ExecutableReply, ExecutableRequest, FETCH, FLUSH, Flush,
    JobSpec, NodeEvent,
};
use crate::config::LOGS_LISTED_MAX;
use crate::durable::protocol::STATE;
use crate::host::{ActorEnd, Host, HostServices};
use crate::id::{HostUid, TypeHash};
use crate::registry::{Inbound, decode};
use crate::remote::stop_on_host;
use crate::spec::ActorKey;
use crate::wire::CallFailure;

/// Handler of the calls to the agent's host.
pub(super) fn host_services(cell: AgentCell) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(agent) = cell.get().and_then(Weak::upgrade) else {
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
            STATE => agent.holder.serve(host, inbound),
            _ => unknown(host, service, inbound),
        }
    })
}

fn unknown(host: &Host, service: TypeHash, inbound: Inbound) {
    let message = host.registry().name_of(service);
    inbound.fail(&CallFailure::NotHandled { actor: "an agent".to_owned(), message });
}

/// Handles a command of the head. It is acknowledged immediately and executed in the background: the head delivers
/// its commands one after the other, and a slow one must not delay the next.
fn handle_command(agent: &Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let command = match decode::<AgentCommand>(&body) {
        Ok(command) => command,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    match command {
        AgentCommand::StartWorker { worker, job, detached } => {
            agent.workers.start(agent, worker, job, detached)
        }
        AgentCommand::StopWorker { worker } => agent.workers.stop(worker),
        AgentCommand::StartActor { worker, at, recipe, lease }
            if agent.workers.add_peer(agent, worker, at.host) =>
        {
            let agent = Arc::clone(agent);
            tokio::spawn(async move {
                // Before the actor exists, which ends without renewals.
                let prepare = || agent.workers.need_lease(worker);
                let starting = agent.lease.start_incarnation(&agent.host, at, recipe, lease, prepare);
                let Some(ended) = starting.await else { return };
                if let Some(number) = at.target.actor.managed_number() {
                    let ActorEnd { incarnation, end, handled } = ended;
                    let event = ActorEvent::Stopped { actor: ActorKey(number), incarnation, end, handled };
                    agent.record(NodeEvent::Actor { worker, event });
                }
            });
        }
        AgentCommand::StopActor { worker, at } if agent.workers.add_peer(agent, worker, at.host) => {
            let host = agent.host.clone();
            tokio::spawn(async move {
                if let Err(error) = stop_on_host(&host, at).await {
                    tracing::debug!(?at, %error, "cannot stop an actor");
                }
            });
        }
        // The worker has ended, which was reported, or is about to be.
        AgentCommand::StartActor { .. } | AgentCommand::StopActor { .. } => {}
        AgentCommand::StopDriver { job } => agent.drivers.stop(job),
        AgentCommand::ReleaseJob { job } => {
            agent.holder.remove_job(job);
            agent.end_job(job);
        }
        AgentCommand::RemoveState { key } => agent.holder.remove(key),
        AgentCommand::StopNode => agent.shutdown.cancel(),
    }
    responder.reply(());
}

/// Sends a driver the output that its workers have written up to now.
fn flush(agent: Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let Flush { job } = match decode(&body) {
        Ok(flush) => flush,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    // A flush waits for the driver itself, so its credit must not depend on it.
    responder.release_credit();
    tokio::spawn(async move {
        agent.outputs.flush(job).await;
        responder.reply(());
    });
}

/// Handles a driver's request about its executable.
fn handle_executable(agent: Arc<Agent>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<ExecutableReply>();
    let request = match decode::<ExecutableRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    // A small request keeps its credit until the reply. The credit of a chunk returns here, before it is written:
    // chunks are bounded by the driver, which waits for the reply to each one before it sends a node the next.
    responder.start();
    tokio::spawn(async move { responder.reply(answer_driver(agent, from, request).await) });
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
                Err(wrong @ ExecutableStoreError::WrongDigest { .. }) => {
                    Ok(ExecutableReply::Wrong { text: text(wrong) })
                }
                put => put.map(ExecutableReply::Stat).map_err(text),
            })
            .await
        }
        ExecutableRequest::Fetch(wanted) => executable_exchange::fetch(&agent, wanted).await,
        ExecutableRequest::Launch(launch) => {
            at_files(move || provision(&agent, from, launch).map(|()| ExecutableReply::Done)).await
        }
    }
}

/// Computes a reply on a thread that may block on files.
async fn at_files(
    reply: impl FnOnce() -> Result<ExecutableReply, String> + Send + 'static,
) -> ExecutableReply {
    let replied = tokio::task::spawn_blocking(reply).await.unwrap_or_else(|error| Err(text(error)));
    replied.unwrap_or_else(|text| ExecutableReply::Failed { text })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Records how the workers of a driver's job are started.
fn provision(agent: &Arc<Agent>, from: HostUid, launch: JobSpec) -> Result<(), String> {
    let job = launch.job;
    if launch.driver != from {
        return Err("a driver can have workers started only for itself".to_owned());
    }
    authorization::check_job(&agent.host, from, job)?;
    // The pin comes before the event: the head may have workers started as soon as it knows of the executable.
    let executable = agent.executables.pin(launch.digest).map_err(text)?;
    check_runs_here(&executable.path()).map_err(text)?;
    let account = agent.accounts.of(job).map_err(text)?;
    agent.jobs.provision(launch, executable, account);
    agent.record(NodeEvent::ExecutablePinned { job });
    Ok(())
}

/// Checks that this machine can run programs of a platform, or returns the next step.
pub(super) fn runs_here(platform: &str) -> Result<(), String> {
    let program: Platform = platform.parse().map_err(|error| format!("{error}"))?;
    this_machine().can_run(&program).map_err(|error| error.to_string())
}

/// Token RPC service of the agent.
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

    async fn reply(&self, request: AdminRequest) -> AdminReply {
        let Some(agent) = self.0.upgrade() else { return failed("the agent is ending".to_owned()) };
        // A thread that may block: the requests read and write files.
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
        _ => Err("this request is for the head, not for an agent; send it to the head's address".to_owned()),
    };
    reply.unwrap_or_else(failed)
}

fn failed(text: String) -> AdminReply {
    AdminReply::Failed { text, unknown: false }
}
