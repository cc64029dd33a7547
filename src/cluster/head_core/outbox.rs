//! Outbox of the head: ordered queues of commands to agents and events to drivers.
//!
//! A queue is bounded, and a recipient that falls behind loses messages. It is then marked as lagging, and its
//! next heartbeat is answered with a request to rejoin. At the rejoin both sides exchange their whole state, so
//! nothing has to be replayed:
//!
//! ```text
//!            enqueue ok                    heartbeat: "rejoin"
//!   ┌──────────────────┐  queue full, or  ┌─────────┐   takes the mark   ┌───────────┐
//!   │ in step          │ ───────────────▶ │ lagging │ ─────────────────▶ │ rejoining │
//!   └──────────────────┘  a call failed   └─────────┘                    └───────────┘
//!            ▲                 set_agent, reset_driver                         │
//!            └─────────────────────────────────────────────────────────────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;

use crate::background;
use crate::cluster::control_plane::state::JobEvent;
use crate::cluster::model::{JobId, NodeId, Usage};
use crate::cluster::protocol::{AGENT_COMMAND, AgentCommand, JOB_EVENT};
use crate::config::{COMMAND_QUEUE_MAX, HEAD_RPC_TIMEOUT};
use crate::host::{Host, SendError, deadline_in};
use crate::id::HostUid;
use crate::remote::call_host;

/// Hosts of agents and drivers, and the queue of each.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Outbox {
    agents: FxHashMap<NodeId, HostUid>,
    drivers: FxHashMap<JobId, HostUid>,
    /// Latest usage that each node's agent has reported.
    usages: FxHashMap<NodeId, Usage>,
    queues: FxHashMap<HostUid, mpsc::Sender<Notification>>,
    lagging: LaggingRecipients,
    /// Jobs with an event that found no driver, because the host of the driver was not known yet.
    jobs_with_lost_events: FxHashSet<JobId>,
}

/// Recipients that have missed messages and must rejoin. Clones share one set.
#[derive(Clone, Debug, Default)]
struct LaggingRecipients(Arc<Mutex<FxHashSet<HostUid>>>);
impl LaggingRecipients {
    fn lock(&self) -> MutexGuard<'_, FxHashSet<HostUid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Message to an agent or a driver.
#[derive(Debug)]
enum Notification {
    /// Command to an agent.
    Command(AgentCommand),
    /// Event for a driver.
    JobEvent(JobEvent),
}

impl Outbox {
    /// Records the host of a node's agent, and returns the previous incarnation, if any. A stale incarnation is
    /// ignored.
    pub(in crate::cluster) fn set_agent(&mut self, node: NodeId, agent: HostUid) -> Option<HostUid> {
        // A join of an earlier incarnation may have been delayed, and arrive behind the later one.
        if self.agents.get(&node).is_some_and(|known| known.incarnation > agent.incarnation) {
            return None;
        }
        // The agent rejoins right now, and gets the whole state.
        self.lagging.lock().remove(&agent);
        let earlier = self.agents.insert(node, agent).filter(|earlier| *earlier != agent);
        earlier.inspect(|earlier| self.forget(*earlier))
    }

    /// Records the usage of a node's machine.
    pub(in crate::cluster) fn set_usage(&mut self, node: NodeId, usage: Usage) {
        self.usages.insert(node, usage);
    }

    /// Latest reported usage of a node's machine, if any.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command lists it"))]
    pub(in crate::cluster) fn usage(&self, node: NodeId) -> Option<Usage> {
        self.usages.get(&node).copied()
    }

    /// Clears the lag of a driver that rejoins. Call it before the state answers: an event after that answer counts
    /// as lost again.
    pub(in crate::cluster) fn reset_driver(&mut self, job: JobId, driver: HostUid) {
        self.jobs_with_lost_events.remove(&job);
        self.lagging.lock().remove(&driver);
    }

    /// Records the host of a job's driver. Events since the job was known found no host, so the driver lags.
    pub(in crate::cluster) fn set_driver(&mut self, job: JobId, driver: HostUid) {
        self.drivers.insert(job, driver);
        if self.jobs_with_lost_events.remove(&job) {
            self.lagging.lock().insert(driver);
        }
    }

    /// Forgets an incarnation of an agent. A later incarnation of the same node may have joined already.
    pub(in crate::cluster) fn forget_agent(&mut self, agent: HostUid) {
        let node = NodeId(agent.host.0);
        if self.agents.get(&node) == Some(&agent) {
            self.agents.remove(&node);
            self.usages.remove(&node);
        }
        self.forget(agent);
    }

    fn forget(&mut self, member: HostUid) {
        self.queues.remove(&member);
        self.lagging.lock().remove(&member);
    }

    /// Returns true, once, if a member has missed messages and must rejoin.
    pub(in crate::cluster) fn take_lagging(&self, member: HostUid) -> bool {
        self.lagging.lock().remove(&member)
    }

    /// Forgets a job that has ended. Its sender delivers the messages that are queued already.
    pub(in crate::cluster) fn forget_job(&mut self, job: JobId) {
        self.jobs_with_lost_events.remove(&job);
        if let Some(driver) = self.drivers.remove(&job) {
            self.forget(driver);
        }
    }

    /// Queues a command for the agent of a node.
    pub(in crate::cluster) fn send_command(&mut self, host: &Host, node: NodeId, command: AgentCommand) {
        if let Some(&agent) = self.agents.get(&node) {
            self.enqueue(host, agent, Notification::Command(command));
        }
    }

    /// Queues an event for the driver of a job.
    pub(in crate::cluster) fn notify_driver(&mut self, host: &Host, job: JobId, event: JobEvent) {
        match self.drivers.get(&job) {
            Some(&driver) => self.enqueue(host, driver, Notification::JobEvent(event)),
            None => drop(self.jobs_with_lost_events.insert(job)),
        }
    }

    /// Queues a message behind the earlier ones to the same host.
    ///
    /// A recipient that is away or suspended loses messages once its queue is full. It rejoins later.
    fn enqueue(&mut self, host: &Host, to: HostUid, message: Notification) {
        let lagging = &self.lagging;
        let queue = self.queues.entry(to).or_insert_with(|| spawn_sender(host.clone(), to, lagging.clone()));
        // The caller holds the lock of the state, so a full queue must not block it.
        if queue.try_send(message).is_err() && lagging.lock().insert(to) {
            tracing::warn!(%to, "command queue overflow; the member must rejoin");
        }
    }
}

/// Starts the task that delivers the messages to one host, one call after the other.
fn spawn_sender(host: Host, to: HostUid, lagging: LaggingRecipients) -> mpsc::Sender<Notification> {
    let (queue, mut messages) = mpsc::channel(COMMAND_QUEUE_MAX);
    let io = host.io().clone();
    background::spawn_on(&io, async move {
        while let Some(message) = messages.recv().await {
            let deadline = deadline_in(HEAD_RPC_TIMEOUT);
            let delivered: Result<(), SendError> = match message {
                Notification::Command(command) => {
                    call_host(&host, to, AGENT_COMMAND, command, deadline).await
                }
                Notification::JobEvent(event) => call_host(&host, to, JOB_EVENT, event, deadline).await,
            };
            if let Err(error) = delivered {
                tracing::debug!(%to, %error, "cannot deliver a message; the member must rejoin");
                let mut lagging = lagging.lock();
                // `forget` closes the queue before it clears the mark. Without this check the mark of a member
                // that has ended would stay for ever.
                if !messages.is_closed() {
                    lagging.insert(to);
                }
            }
        }
    });
    queue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostId, Incarnation};

    fn host(host: u64, incarnation: u64) -> HostUid {
        HostUid { host: HostId(host), incarnation: Incarnation(incarnation) }
    }

    /// Queue of a recipient that has received messages before.
    fn queue() -> mpsc::Sender<Notification> {
        mpsc::channel(1).0
    }

    #[test]
    fn ended_job_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        for job in [1, 2] {
            outbox.set_driver(JobId(job), host(job.into(), 1));
            outbox.queues.insert(host(job.into(), 1), queue());
        }
        outbox.forget_job(JobId(1));
        outbox.forget_job(JobId(1));
        assert_eq!(outbox.drivers.keys().collect::<Vec<_>>(), [&JobId(2)]);
        assert_eq!(outbox.queues.keys().collect::<Vec<_>>(), [&host(2, 1)]);
    }

    #[test]
    fn end_of_an_earlier_incarnation_does_not_affect_the_later_one() {
        let mut outbox = Outbox::default();
        outbox.set_agent(NodeId(1), host(1, 1));
        outbox.queues.insert(host(1, 1), queue());
        assert_eq!(outbox.set_agent(NodeId(1), host(1, 2)), Some(host(1, 1)));
        outbox.queues.insert(host(1, 2), queue());
        outbox.set_usage(NodeId(1), Usage::default());
        outbox.forget_agent(host(1, 1));
        assert_eq!((outbox.agents[&NodeId(1)], outbox.queues.len()), (host(1, 2), 1));
        assert!(outbox.usage(NodeId(1)).is_some());
        outbox.lagging.lock().extend([host(1, 1), host(1, 2)]);
        assert_eq!([host(1, 2), host(1, 2)].map(|agent| outbox.take_lagging(agent)), [true, false]);
        // Events that found no driver make it lag, unless it rejoins.
        outbox.jobs_with_lost_events.extend([JobId(1), JobId(2)]);
        outbox.set_driver(JobId(1), host(5, 1));
        outbox.reset_driver(JobId(2), host(6, 1));
        outbox.set_driver(JobId(2), host(6, 1));
        assert_eq!([host(5, 1), host(6, 1)].map(|driver| outbox.take_lagging(driver)), [true, false]);
        outbox.lagging.lock().insert(host(1, 2));
        outbox.forget_agent(host(1, 1));
        outbox.forget_agent(host(1, 2));
        assert!(outbox.lagging.lock().is_empty());
        assert!(outbox.agents.is_empty() && outbox.queues.is_empty() && outbox.usages.is_empty());
    }
}
