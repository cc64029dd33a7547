//! What the head tells agents and drivers, to each in order.

use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::cluster::model::{JobId, NodeId, Usage};
use crate::cluster::protocol::{NEWS, ORDER, Order};
use crate::cluster::state::News;
use crate::config::{HEAD_ANSWER_TIMEOUT, ORDERS_MAX};
use crate::host::{Host, SendError, deadline_in};
use crate::id::Identity;
use crate::remote::ask_host;

/// Who is whose host, and queues of what each is to be told.
#[derive(Debug, Default)]
pub(super) struct Orders {
    agents: FxHashMap<NodeId, Identity>,
    drivers: FxHashMap<JobId, Identity>,
    /// What each machine has last said that it is at.
    usages: FxHashMap<NodeId, Usage>,
    queues: FxHashMap<Identity, mpsc::Sender<Word>>,
}

/// What somebody is told.
#[derive(Debug)]
enum Word {
    /// An agent, what to do.
    Order(Order),
    /// A driver, what has happened.
    News(News),
}

impl Orders {
    /// The host of a node's agent; gives that of an earlier life, if there was one.
    pub(super) fn agent_is(&mut self, node: NodeId, agent: Identity) -> Option<Identity> {
        let earlier = self.agents.insert(node, agent).filter(|earlier| *earlier != agent);
        earlier.inspect(|earlier| drop(self.queues.remove(earlier)))
    }

    /// What a node's machine is at.
    pub(super) fn usage_is(&mut self, node: NodeId, usage: Usage) {
        self.usages.insert(node, usage);
    }

    /// What a node's machine is at, as far as it has said.
    pub(super) fn usage(&self, node: NodeId) -> Option<Usage> {
        self.usages.get(&node).copied()
    }

    /// The host of a job's driver.
    pub(super) fn driver_is(&mut self, job: JobId, driver: Identity) {
        self.drivers.insert(job, driver);
    }

    /// A node has gone for good; gives its agent's host.
    pub(super) fn forget_node(&mut self, node: NodeId) -> Option<Identity> {
        self.usages.remove(&node);
        let agent = self.agents.remove(&node)?;
        self.queues.remove(&agent);
        Some(agent)
    }

    /// A job is over; gives its driver's host.
    pub(super) fn forget_job(&mut self, job: JobId) -> Option<Identity> {
        let driver = self.drivers.remove(&job)?;
        self.queues.remove(&driver);
        Some(driver)
    }

    /// Tells an agent what to do.
    pub(super) fn order(&mut self, host: &Host, node: NodeId, order: Order) {
        if let Some(&agent) = self.agents.get(&node) {
            self.tell(host, agent, Word::Order(order));
        }
    }

    /// Tells a driver what has happened.
    pub(super) fn tell_driver(&mut self, host: &Host, job: JobId, news: News) {
        if let Some(&driver) = self.drivers.get(&job) {
            self.tell(host, driver, Word::News(news));
        }
    }

    /// Tells a host something, behind what it was told before.
    ///
    /// One that is away misses it: agents and drivers come back with what they have, and are told anew.
    fn tell(&mut self, host: &Host, to: Identity, word: Word) {
        let queue = self.queues.entry(to).or_insert_with(|| begin(host.clone(), to));
        if queue.try_send(word).is_err() {
            tracing::warn!(%to, "a member is far behind what it is told, and misses some of it");
        }
    }
}

fn begin(host: Host, to: Identity) -> mpsc::Sender<Word> {
    let (queue, mut words) = mpsc::channel(ORDERS_MAX);
    let io = host.io().clone();
    io.spawn(async move {
        while let Some(word) = words.recv().await {
            let deadline = deadline_in(HEAD_ANSWER_TIMEOUT);
            let told: Result<(), SendError> = match word {
                Word::Order(order) => ask_host(&host, to, ORDER, order, deadline).await,
                Word::News(news) => ask_host(&host, to, NEWS, news, deadline).await,
            };
            if let Err(error) = told {
                tracing::debug!(%to, %error, "a member was not told");
            }
        }
    });
    queue
}
