//! What is asked of an agent: by the head, by drivers, and at its desk.

use std::sync::{Arc, OnceLock, Weak};

use super::Agent;
use crate::cluster::admin::{AdminReply, AdminRequest};
use crate::cluster::desk::{BoxFuture, Service};
use crate::cluster::executable::StoreError;
use crate::cluster::protocol::{EXECUTABLE, ExecutableReply, ExecutableRequest, ORDER, Order};
use crate::host::{Host, HostCalls};
use crate::id::TypeHash;
use crate::registry::{Inbound, Responder, decode};
use crate::remote::stop_on_host;
use crate::transport::Role;
use crate::wire::CallFailure;

/// What calls to the agent's host do.
pub(super) fn calls(itself: Arc<OnceLock<Weak<Agent>>>) -> HostCalls {
    Box::new(move |host, service, inbound| {
        let Some(agent) = itself.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        let allowed = match service {
            ORDER => Role::Head,
            EXECUTABLE => Role::Driver,
            _ => return unknown(host, service, inbound),
        };
        if let Err(text) = is(host, &inbound, allowed) {
            return inbound.fail(&CallFailure::Refused { text });
        }
        match service {
            ORDER => order(&agent, inbound),
            _ => executable(agent, inbound),
        }
    })
}

/// Whether a call comes from a process of that role. Links that stay on this machine have no certificates:
/// who knows the cluster's secret here is one user's.
pub(in crate::cluster) fn is(host: &Host, inbound: &Inbound, allowed: Role) -> Result<(), String> {
    match host.role_of(inbound.from()) {
        Some(role) if role != allowed => Err(format!("only a {allowed} may ask for this, and not a {role}")),
        _ => Ok(()),
    }
}

fn unknown(host: &Host, service: TypeHash, inbound: Inbound) {
    let message = host.registry().name_of(service);
    inbound.fail(&CallFailure::NotHandled { actor: "an agent".to_owned(), message });
}

/// Takes an order of the head: it is answered at once, and carried out meanwhile.
fn order(agent: &Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let order = match decode::<Order>(&body) {
        Ok(order) => order,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    match order {
        Order::StartWorker { worker, job, detached } => agent.workers.start(agent, worker, job, detached),
        Order::StopWorker { worker } => agent.workers.stop(worker),
        Order::StopActor { at, .. } => {
            let (host, address) = (agent.host.clone(), agent.facts.address);
            tokio::spawn(async move {
                host.introduce(at.host, address);
                if let Err(error) = stop_on_host(&host, at).await {
                    tracing::debug!(?at, %error, "an actor could not be stopped");
                }
            });
        }
        Order::StopDriver { job } => agent.drivers.stop(job),
        Order::StopNode => agent.ending.cancel(),
    }
    responder.answer(());
}

/// Takes a driver's executable.
fn executable(agent: Arc<Agent>, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<ExecutableReply>();
    let request = match decode::<ExecutableRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.release();
    // Files are written there.
    tokio::task::spawn_blocking(move || store(&agent, request, responder));
}

fn store(agent: &Arc<Agent>, request: ExecutableRequest, responder: Responder<ExecutableReply>) {
    let reply = match request {
        ExecutableRequest::Have { digest, size, platform } => {
            agent.runnable(&platform).and_then(|()| agent.executables.have(digest, size)).map(ExecutableReply::Have)
        }
        ExecutableRequest::Put { digest, size, offset, bytes } => {
            agent.executables.put(digest, size, offset, &bytes).map(ExecutableReply::Have)
        }
        ExecutableRequest::Launch(launch) => agent.executables.hold(launch.digest).map(|executable| {
            agent.jobs.equip(launch, executable);
            ExecutableReply::Done
        }),
    };
    responder.answer(reply.unwrap_or_else(|error| ExecutableReply::Failed { text: error.to_string() }));
}

impl Agent {
    /// Whether this machine can run what is built for that platform.
    pub(super) fn runnable(&self, platform: &str) -> Result<(), StoreError> {
        crate::cluster::executable::runnable_here(platform)
    }
}

/// What the agent's desk answers.
pub(super) fn desk(agent: &Arc<Agent>) -> Arc<dyn Service> {
    Arc::new(AtDesk(Arc::downgrade(agent)))
}

#[derive(Debug)]
struct AtDesk(Weak<Agent>);

impl Service for AtDesk {
    fn answer(&self, request: AdminRequest) -> BoxFuture<'_, AdminReply> {
        Box::pin(async move {
            let Some(agent) = self.0.upgrade() else {
                return AdminReply::Failed { text: "the agent is ending".to_owned(), unknown: false };
            };
            // Files are read and written there.
            let answered = tokio::task::spawn_blocking(move || answer(&agent, request)).await;
            answered.unwrap_or_else(|error| failed(error.to_string()))
        })
    }
}

fn answer(agent: &Arc<Agent>, request: AdminRequest) -> AdminReply {
    let stored = |have| AdminReply::Stored { have };
    let reply = match request {
        AdminRequest::Stored { digest, size } => {
            agent.executables.have(digest, size).map(stored).map_err(|error| error.to_string())
        }
        AdminRequest::Store { digest, size, offset, bytes } => {
            agent.executables.put(digest, size, offset, &bytes).map(stored).map_err(|error| error.to_string())
        }
        AdminRequest::Begin { job, submission } => {
            agent.begin_driver(job, &submission).map(|()| AdminReply::Done)
        }
        AdminRequest::LogFiles => {
            agent.jobs.reader().list().map(AdminReply::LogFiles).map_err(|error| error.to_string())
        }
        AdminRequest::Log { file, from } => match agent.jobs.reader().read(&file, from) {
            Ok(part) => Ok(AdminReply::Log { text: part.text, offset: part.offset }),
            Err(error) => {
                return AdminReply::Failed { text: error.to_string(), unknown: error.is_unknown() };
            }
        },
        _ => Err("this is asked of the head, and not of an agent".to_owned()),
    };
    reply.unwrap_or_else(failed)
}

fn failed(text: String) -> AdminReply {
    AdminReply::Failed { text, unknown: false }
}
