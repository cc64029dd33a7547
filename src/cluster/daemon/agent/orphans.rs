//! Orphaned processes of a node's jobs, which the agent adopts and ends.
//!
//! Processes that a worker has started end with it: they are found by their mark or their parents (see
//! [`descendants`](crate::cluster::launch::descendants)). A process that has made its own session, cleared its
//! environment and lost its parents has neither. It is still a child of the agent, which is a subreaper. Its job is
//! unknown, so it ends with the last of the jobs that ran here when it was first seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::Agent;
use crate::cluster::launch::{children, descendants};
use crate::cluster::model::JobId;
use crate::observe::log;

/// Adopted processes, with the jobs that may have started each.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<BTreeMap<descendants::ProcessId, BTreeSet<JobId>>>);

/// Makes this process the subreaper of all its descendants: the kernel reparents their orphans to it.
pub(super) fn adopt() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        log::warn!(%error, "daemons that workers start may outlive their jobs");
    }
}

/// Reaps adopted processes as they end.
pub(super) async fn reap() {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            return log::warn!(%error, "adopted processes stay as zombies until this agent ends");
        }
    };
    while ended.recv().await.is_some() {
        // On a thread that may block: it reads the process table, which takes a millisecond.
        drop(tokio::task::spawn_blocking(children::reap_adopted).await);
    }
}

impl Orphans {
    /// Looks for processes that the ended worker of a job has left behind, and ends those that belong to no running
    /// job.
    pub(super) fn worker_ended(&self, agent: &Arc<Agent>, job: JobId) {
        let agent = Arc::clone(agent);
        tokio::task::spawn_blocking(move || agent.orphans.sweep(&agent, job));
    }

    fn sweep(&self, agent: &Agent, job: JobId) {
        let mut running = agent.workers.jobs();
        running.extend(agent.drivers.running());
        let mut orphans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let adopted = children::adopted();
        // Entries of reaped processes would otherwise stay for ever.
        orphans.retain(|process, _| adopted.contains(process));
        for process in adopted {
            let jobs =
                orphans.entry(process).or_insert_with(|| running.iter().copied().chain([job]).collect());
            jobs.retain(|job| running.contains(job));
        }
        let ended: Vec<_> = orphans.iter().filter(|(_, jobs)| jobs.is_empty()).map(|(it, _)| *it).collect();
        // Ending a process waits for it, and other workers end meanwhile.
        drop(orphans);
        ended.into_iter().for_each(descendants::end);
    }
}
