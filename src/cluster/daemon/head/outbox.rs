//! What the head tells agents and drivers, to each in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;

use crate::cluster::control_plane::state::JobEvent;
use crate::cluster::model::{JobId, NodeId, Usage};
use crate::cluster::protocol::{AGENT_COMMAND, AgentCommand, JOB_EVENT};
use crate::config::{COMMAND_QUEUE_MAX, HEAD_RPC_TIMEOUT};
use crate::host::{Host, SendError, deadline_in};
use crate::id::HostUid;
use crate::remote::call_host;

/// Who is whose host, and queues of what each is to be told.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    agents: FxHashMap<NodeId, HostUid>,
    drivers: FxHashMap<JobId, HostUid>,
    /// What each machine has last said that it is at.
    usages: FxHashMap<NodeId, Usage>,
    queues: FxHashMap<HostUid, mpsc::Sender<Notification>>,
    missed: LaggingRecipients,
    /// Jobs of which something was to be told before it was known whom.
    jobs_with_lost_events: FxHashSet<JobId>,
}

/// Those who did not take what they were told: they are to come again, and are told anew. Clones are the same.
#[derive(Clone, Debug, Default)]
struct LaggingRecipients(Arc<Mutex<FxHashSet<HostUid>>>);

impl LaggingRecipients {
    fn lock(&self) -> MutexGuard<'_, FxHashSet<HostUid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody is told.
#[derive(Debug)]
enum Notification {
    /// An agent, what to do.
    Order(AgentCommand),
    /// A driver, what has happened.
    JobEvent(JobEvent),
}

impl Outbox {
    /// The host of a node's agent; gives that of an earlier life, if there was one. Whoever comes after a
    /// later life of him changes nothing.
    pub(super) fn set_agent(&mut self, node: NodeId, agent: HostUid) -> Option<HostUid> {
        if self.agents.get(&node).is_some_and(|known| known.incarnation > agent.incarnation) {
            return None;
        }
        // It is about to be told all anew.
        self.missed.lock().remove(&agent);
        let earlier = self.agents.insert(node, agent).filter(|earlier| *earlier != agent);
        earlier.inspect(|earlier| self.forget(*earlier))
    }

    /// What a node's machine is at.
    pub(super) fn set_usage(&mut self, node: NodeId, usage: Usage) {
        self.usages.insert(node, usage);
    }

    /// What a node's machine is at, as far as it has said.
    pub(super) fn usage(&self, node: NodeId) -> Option<Usage> {
        self.usages.get(&node).copied()
    }

    /// A job's driver is about to be told all anew.
    pub(super) fn reset_driver(&mut self, job: JobId, driver: HostUid) {
        self.jobs_with_lost_events.remove(&job);
        self.missed.lock().remove(&driver);
    }

    /// The host of a job's driver. What has happened since the job was known, and before this, it has missed.
    pub(super) fn set_driver(&mut self, job: JobId, driver: HostUid) {
        self.drivers.insert(job, driver);
        if self.jobs_with_lost_events.remove(&job) {
            self.missed.lock().insert(driver);
        }
    }

    /// That life of an agent is over. A later one of its node may be here already.
    pub(super) fn forget_agent(&mut self, agent: HostUid) {
        let node = NodeId(agent.host.0);
        if self.agents.get(&node) == Some(&agent) {
            self.agents.remove(&node);
            self.usages.remove(&node);
        }
        self.forget(agent);
    }

    fn forget(&mut self, member: HostUid) {
        self.queues.remove(&member);
        self.missed.lock().remove(&member);
    }

    /// Whether a member has missed something since it came last, and is to come again.
    pub(super) fn take_lagging(&self, member: HostUid) -> bool {
        self.missed.lock().remove(&member)
    }

    /// A job is over. What its driver was told before it still gets.
    pub(super) fn forget_job(&mut self, job: JobId) {
        self.jobs_with_lost_events.remove(&job);
        if let Some(driver) = self.drivers.remove(&job) {
            self.forget(driver);
        }
    }

    /// Tells an agent what to do.
    pub(super) fn order(&mut self, host: &Host, node: NodeId, order: AgentCommand) {
        if let Some(&agent) = self.agents.get(&node) {
            self.tell(host, agent, Notification::Order(order));
        }
    }

    /// Tells a driver what has happened.
    pub(super) fn tell_driver(&mut self, host: &Host, job: JobId, news: JobEvent) {
        match self.drivers.get(&job) {
            Some(&driver) => self.tell(host, driver, Notification::JobEvent(news)),
            None => drop(self.jobs_with_lost_events.insert(job)),
        }
    }

    /// Tells a host something, behind what it was told before.
    ///
    /// One that is away, or is stopped for a while, misses it: agents and drivers come again with what they
    /// have, and are told anew.
    fn tell(&mut self, host: &Host, to: HostUid, word: Notification) {
        let missed = &self.missed;
        let queue = self.queues.entry(to).or_insert_with(|| spawn_sender(host.clone(), to, missed.clone()));
        if queue.try_send(word).is_err() && missed.lock().insert(to) {
            tracing::warn!(%to, "a member is far behind what it is told, and is to come again");
        }
    }
}

fn spawn_sender(host: Host, to: HostUid, missed: LaggingRecipients) -> mpsc::Sender<Notification> {
    let (queue, mut words) = mpsc::channel(COMMAND_QUEUE_MAX);
    let io = host.io().clone();
    io.spawn(async move {
        while let Some(word) = words.recv().await {
            let deadline = deadline_in(HEAD_RPC_TIMEOUT);
            let told: Result<(), SendError> = match word {
                Notification::Order(order) => call_host(&host, to, AGENT_COMMAND, order, deadline).await,
                Notification::JobEvent(news) => call_host(&host, to, JOB_EVENT, news, deadline).await,
            };
            if let Err(error) = told {
                tracing::debug!(%to, %error, "a member was not told");
                let mut missed = missed.lock();
                // Of one that is over nothing is remembered.
                if !words.is_closed() {
                    missed.insert(to);
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

    /// Somebody who was told something.
    fn queue() -> mpsc::Sender<Notification> {
        mpsc::channel(1).0
    }

    #[test]
    fn of_a_job_that_is_over_nothing_is_left() {
        let mut orders = Outbox::default();
        for job in [1, 2] {
            orders.set_driver(JobId(job), host(job.into(), 1));
            orders.queues.insert(host(job.into(), 1), queue());
        }
        orders.forget_job(JobId(1));
        orders.forget_job(JobId(1));
        assert_eq!(orders.drivers.keys().collect::<Vec<_>>(), [&JobId(2)]);
        assert_eq!(orders.queues.keys().collect::<Vec<_>>(), [&host(2, 1)]);
    }

    #[test]
    fn the_end_of_an_agent_s_earlier_life_leaves_the_later_one_alone() {
        let mut orders = Outbox::default();
        orders.set_agent(NodeId(1), host(1, 1));
        orders.queues.insert(host(1, 1), queue());
        assert_eq!(orders.set_agent(NodeId(1), host(1, 2)), Some(host(1, 1)));
        orders.queues.insert(host(1, 2), queue());
        orders.set_usage(NodeId(1), Usage::default());
        orders.forget_agent(host(1, 1));
        assert_eq!((orders.agents[&NodeId(1)], orders.queues.len()), (host(1, 2), 1));
        assert!(orders.usage(NodeId(1)).is_some());
        orders.missed.lock().extend([host(1, 1), host(1, 2)]);
        assert_eq!([host(1, 2), host(1, 2)].map(|agent| orders.take_lagging(agent)), [true, false]);
        // What was told before it was known whom, a driver has missed, unless it comes again.
        orders.jobs_with_lost_events.extend([JobId(1), JobId(2)]);
        orders.set_driver(JobId(1), host(5, 1));
        orders.reset_driver(JobId(2), host(6, 1));
        orders.set_driver(JobId(2), host(6, 1));
        assert_eq!([host(5, 1), host(6, 1)].map(|driver| orders.take_lagging(driver)), [true, false]);
        orders.missed.lock().insert(host(1, 2));
        orders.forget_agent(host(1, 1));
        orders.forget_agent(host(1, 2));
        assert!(orders.missed.lock().is_empty());
        assert!(orders.agents.is_empty() && orders.queues.is_empty() && orders.usages.is_empty());
    }
}
