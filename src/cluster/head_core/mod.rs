//! Head without its process: the control plane, the outbox, and the requests of agents and drivers.
//!
//! The daemon of the head adds certificates, the database, spans and the dashboard. A simulated head has the same
//! core, with a simulated disk.
//!
//! ```text
//!   agents  --NodeRequest--> serve_node --events--> ControlPlane --Action--> execute --> Outbox --> agents, drivers
//!   drivers --JobRequest---> serve_job ---'
//! ```

pub(in crate::cluster) mod checks;
mod incarnations;
mod jobs;
mod nodes;
mod outbox;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::control_plane::state::Action;
use super::control_service::{ControlPlane, Persistence};
use super::model::NodeId;
use super::protocol::AgentCommand;
use crate::host::Host;
use incarnations::{HeldCommands, Start, Stop};
pub(in crate::cluster) use outbox::Outbox;

/// State of a head that does not depend on how it runs.
pub(in crate::cluster) struct HeadCore {
    host: Host,
    control: Arc<ControlPlane>,
    outbox: Mutex<Outbox>,
    held: Mutex<HeldCommands>,
    /// Waits until all writes that were requested are durable.
    flushed: Persistence,
}

impl HeadCore {
    pub(in crate::cluster) fn new(host: Host, control: Arc<ControlPlane>, flushed: Persistence) -> Arc<Self> {
        Arc::new(Self { host, control, outbox: Mutex::default(), held: Mutex::default(), flushed })
    }

    pub(in crate::cluster) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes the part of an action that concerns agents and drivers. It runs under the lock of the state, so it only
    /// queues.
    pub(in crate::cluster) fn execute(self: &Arc<Self>, action: &Action) {
        match action.clone() {
            Action::StartWorker { node, worker, job, detached } => {
                self.send_command(node, AgentCommand::StartWorker { worker, job, detached });
            }
            Action::StopWorker { node, worker } => {
                self.send_command(node, AgentCommand::StopWorker { worker })
            }
            Action::StartActor { node, worker, actor, at, recipe, lease } => {
                self.start_when_durable(Start { node, worker, actor, at, recipe, lease });
            }
            Action::RemoveState { key, nodes } => self.remove_when_durable(key, &nodes),
            Action::StopActor { node, worker, at, .. } => {
                self.send_command(node, AgentCommand::StopActor { worker, at })
            }
            Action::StopIncarnation { node, worker, at, .. } => {
                self.stop_when_durable(Stop { node, worker, at });
            }
            Action::StopDriver { node, job } => self.send_command(node, AgentCommand::StopDriver { job }),
            Action::StopNode { node } => self.send_command(node, AgentCommand::StopNode),
            Action::ReleaseJob { job, nodes } => {
                nodes.into_iter().for_each(|node| self.send_command(node, AgentCommand::ReleaseJob { job }));
                self.outbox().forget_job(job);
            }
            Action::ForgetAgent { agent } => self.outbox().forget_agent(agent),
            Action::NotifyDriver { job, event } => self.outbox().notify_driver(&self.host, job, event),
            // The owner of the disk and the shell of the state carry these out.
            Action::Persist(_) | Action::Delete(_) | Action::Reply { .. } => {}
        }
    }

    fn send_command(&self, node: NodeId, command: AgentCommand) {
        self.outbox().send_command(&self.host, node, command);
    }
}

impl fmt::Debug for HeadCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadCore").field("host", &self.host.identity()).finish_non_exhaustive()
    }
}
