//! Processes that a node's jobs have started and left behind: the agent adopts them.
//!
//! What a worker has started ends with it, found by its mark or by its parents (see
//! [`descendants`](crate::cluster::launch::descendants)). A process without either, since it has made a session of its own, has
//! cleared its environment and has lost its parents, is still the agent's child. It cannot be said which job it
//! is of: it ends with the last of those that ran here when it was first seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::Agent;
use crate::cluster::launch::{children, descendants};
use crate::cluster::model::JobId;
use crate::observe::log;

/// The adopted processes, with the jobs that may have started each.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<BTreeMap<descendants::ProcessId, BTreeSet<JobId>>>);

/// Has the kernel give this process the orphans of all that it has started.
pub(super) fn adopt() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        log::warn!(%error, "daemons that workers start may outlive their jobs");
    }
}

/// Reaps adopted processes as they end, as long as it runs.
pub(super) async fn reap() {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            return log::warn!(%error, "adopted processes stay as zombies until this agent ends");
        }
    };
    while ended.recv().await.is_some() {
        // The process table is read, which takes a millisecond.
        drop(tokio::task::spawn_blocking(children::reap_adopted).await);
    }
}

impl Orphans {
    /// A worker of a job has ended: notes what it has left behind, and ends it if nothing of the job runs here.
    pub(super) fn worker_ended(&self, agent: &Arc<Agent>, job: JobId) {
        let agent = Arc::clone(agent);
        tokio::task::spawn_blocking(move || agent.orphans.look(&agent, job));
    }

    fn look(&self, agent: &Agent, job: JobId) {
        let mut running = agent.workers.jobs();
        running.extend(agent.drivers.running());
        let mut orphans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let adopted = children::adopted();
        orphans.retain(|process, _| adopted.contains(process));
        for process in adopted {
            let jobs =
                orphans.entry(process).or_insert_with(|| running.iter().copied().chain([job]).collect());
            jobs.retain(|job| running.contains(job));
        }
        let over: Vec<_> = orphans.iter().filter(|(_, jobs)| jobs.is_empty()).map(|(it, _)| *it).collect();
        drop(orphans);
        over.into_iter().for_each(descendants::end);
    }
}
