//! Requests that wait for the end of a node, a job or a managed actor.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::{ClusterState, ControlError, ControlReply, Ticket};
use crate::cluster::model::{ActorKey, JobId, JobState, NodeId};
use crate::config::{InjectedBug, WATCHERS_MAX};
use crate::spec::{End, EndReason};

/// Requests that wait for an end.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    nodes: BTreeSet<(NodeId, Ticket)>,
    jobs: BTreeSet<(JobId, Ticket)>,
    actors: BTreeSet<(ActorKey, Ticket)>,
    by_ticket: FxHashMap<Ticket, Watched>,
}

/// Object of a request.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Node(NodeId),
    Job(JobId),
    Actor(ActorKey),
}

impl Watchers {
    fn add(&mut self, ticket: Ticket, watched: Watched) -> Result<(), ControlError> {
        if self.by_ticket.len() >= WATCHERS_MAX {
            let text =
                format!("the head has {WATCHERS_MAX} watchers of nodes, jobs and restartable actors already");
            return Err(ControlError::Unknown(text));
        }
        self.by_ticket.insert(ticket, watched);
        match watched {
            Watched::Node(node) => self.nodes.insert((node, ticket)),
            Watched::Job(job) => self.jobs.insert((job, ticket)),
            Watched::Actor(actor) => self.actors.insert((actor, ticket)),
        };
        Ok(())
    }

    /// Removes a request that was cancelled.
    pub(super) fn cancel(&mut self, ticket: Ticket) {
        match self.by_ticket.remove(&ticket) {
            Some(Watched::Node(node)) => drop(self.nodes.remove(&(node, ticket))),
            Some(Watched::Job(job)) => drop(self.jobs.remove(&(job, ticket))),
            Some(Watched::Actor(actor)) => drop(self.actors.remove(&(actor, ticket))),
            None => {}
        }
    }

    /// Takes the requests that wait for an object.
    fn take(&mut self, watched: Watched) -> Vec<Ticket> {
        let (first, last) = (Ticket(0), Ticket(u64::MAX));
        let tickets: Vec<Ticket> = match watched {
            Watched::Node(node) => {
                self.nodes.range((node, first)..=(node, last)).map(|(_, it)| *it).collect()
            }
            Watched::Job(job) => self.jobs.range((job, first)..=(job, last)).map(|(_, it)| *it).collect(),
            Watched::Actor(actor) => {
                self.actors.range((actor, first)..=(actor, last)).map(|(_, it)| *it).collect()
            }
        };
        tickets.iter().for_each(|ticket| self.cancel(*ticket));
        tickets
    }

    /// Number of requests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_ticket.len(), self.nodes.len() + self.jobs.len() + self.actors.len());
        self.by_ticket.len()
    }
}

impl ClusterState {
    pub(super) fn watch_node(&mut self, ticket: Ticket, node: NodeId) {
        let end = match self.nodes.contains_key(&node) {
            true => None,
            false => Some(self.end_of_node(node)),
        };
        self.watch(ticket, Watched::Node(node), end);
    }

    pub(super) fn watch_job(&mut self, ticket: Ticket, job: JobId) {
        let end = match self.open_jobs.contains(&job) {
            true => None,
            false => Some(self.end_of_job(job)),
        };
        self.watch(ticket, Watched::Job(job), end);
    }

    /// Waits for the final end of a managed actor; its restarts are none.
    pub(super) fn watch_actor(&mut self, ticket: Ticket, actor: ActorKey) {
        let end = match self.managed.contains_key(&actor) {
            true => None,
            false => Some(self.end_of_actor(actor)),
        };
        self.watch(ticket, Watched::Actor(actor), end);
    }

    /// Answers a request with an end, or makes it wait for one.
    fn watch(&mut self, ticket: Ticket, watched: Watched, end: Option<End>) {
        match end {
            Some(end) => self.reply(ticket, Ok(ControlReply::End(Some(end)))),
            None => {
                if let Err(error) = self.watchers.add(ticket, watched) {
                    self.reply(ticket, Err(error));
                }
            }
        }
    }

    /// Answers the requests that wait for a node which has ended.
    pub(super) fn notify_node_watchers(&mut self, node: NodeId) {
        let waiting = self.watchers.take(Watched::Node(node));
        self.reply_end(waiting, |state| state.end_of_node(node));
    }

    /// Answers the requests that wait for a job which has ended.
    pub(super) fn notify_job_watchers(&mut self, job: JobId) {
        let waiting = self.watchers.take(Watched::Job(job));
        self.reply_end(waiting, |state| state.end_of_job(job));
    }

    /// Answers the requests that wait for a managed actor which has ended.
    pub(super) fn notify_actor_watchers(&mut self, actor: ActorKey, end: &End) {
        let waiting = self.watchers.take(Watched::Actor(actor));
        if self.settings.injected_bug == Some(InjectedBug::LostTermination) {
            return;
        }
        self.reply_end(waiting, |_| end.clone());
    }

    /// End of an actor that is dead, or was never there.
    pub(super) fn end_of_actor(&self, actor: ActorKey) -> End {
        match self.history.actor(actor) {
            Some(record) => (*record.end).clone(),
            None => End::new(EndReason::Unknown, "it ended long ago, or never existed"),
        }
    }

    fn reply_end(&mut self, tickets: Vec<Ticket>, end: impl FnOnce(&Self) -> End) {
        if tickets.is_empty() {
            return;
        }
        let end = end(self);
        for ticket in tickets {
            self.reply(ticket, Ok(ControlReply::End(Some(end.clone()))));
        }
    }

    /// End of a node that is dead, or was never there.
    fn end_of_node(&self, node: NodeId) -> End {
        match self.history.node(node) {
            Some(record) => {
                let cause = record.info.cause.as_deref().unwrap_or("it has ended");
                End::new(record.reason, format!("node {node}: {cause}"))
            }
            None => End::new(EndReason::Unknown, format!("there is no node {node} in the cluster")),
        }
    }

    /// End of a job that has ended, or was never there.
    fn end_of_job(&self, id: JobId) -> End {
        let Some(job) = self.jobs.get(&id) else {
            return End::new(EndReason::Unknown, format!("there is no job {id} in the cluster"));
        };
        let reason = match (job.state, job.exit_code) {
            (JobState::Succeeded, _) => EndReason::Stopped,
            (JobState::Stopped, _) => EndReason::Killed,
            (JobState::Failed, Some(code)) => EndReason::Exited(code),
            (JobState::Failed | JobState::Pending | JobState::Running, _) => EndReason::JobEnded,
        };
        let message = job.message.as_deref().unwrap_or("it has ended");
        End::new(reason, format!("job {id}: {message}"))
    }
}
