//! The numbers of jobs, workers and actors, of which none is given twice.

use super::{Action, Denied, Record, State};
use crate::cluster::model::{ActorKey, JobId, WorkerId};
use crate::config::{ACTORS_SET_ASIDE, JOBS_SET_ASIDE, WORKERS_SET_ASIDE};

/// The next numbers to give, and the first that are not set aside yet.
#[derive(Debug)]
pub(super) struct Numbers {
    job: Next<u32>,
    worker: Next<u64>,
    actor: Next<u64>,
    /// The first actor of this life of the head.
    first_actor: u64,
}

#[derive(Clone, Copy, Debug)]
struct Next<N> {
    next: N,
    set_aside: N,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            job: Next { next: 1, set_aside: 1 },
            worker: Next { next: 1, set_aside: 1 },
            actor: Next { next: 1, set_aside: 1 },
            first_actor: 1,
        }
    }
}

impl Numbers {
    /// Numbers below these may have been given.
    pub(super) fn start_at(&mut self, jobs: u32, workers: u64, actors: u64) {
        self.job = Next { next: jobs.max(1), set_aside: jobs.max(1) };
        self.worker = Next { next: workers.max(1), set_aside: workers.max(1) };
        self.actor = Next { next: actors.max(1), set_aside: actors.max(1) };
        self.first_actor = self.actor.next;
    }

    /// Whether an earlier life of the head may have given the number.
    pub(super) fn is_of_earlier_life(&self, actor: ActorKey) -> bool {
        actor.0 < self.first_actor
    }

    pub(super) fn given(&self) -> Record {
        Record::Given {
            jobs: self.job.set_aside,
            workers: self.worker.set_aside,
            actors: self.actor.set_aside,
        }
    }
}

impl State {
    pub(super) fn new_job(&mut self) -> Result<JobId, Denied> {
        self.can_keep()?;
        let job = &mut self.numbers.job;
        job.next += 1;
        if job.next > job.set_aside {
            job.set_aside = job.next + JOBS_SET_ASIDE;
            self.actions.push(Action::Keep(self.numbers.given()));
        }
        Ok(JobId(self.numbers.job.next - 1))
    }

    pub(super) fn new_worker(&mut self) -> WorkerId {
        let worker = &mut self.numbers.worker;
        worker.next += 1;
        if worker.next > worker.set_aside {
            worker.set_aside = worker.next + WORKERS_SET_ASIDE;
            self.actions.push(Action::Keep(self.numbers.given()));
        }
        WorkerId(self.numbers.worker.next - 1)
    }

    /// One that does not have to be kept gets a number as long as there are such that were set aside.
    pub(super) fn new_actor(&mut self, is_kept: bool) -> Result<ActorKey, Denied> {
        let Next { next, set_aside } = self.numbers.actor;
        if is_kept || next >= set_aside {
            self.can_keep()?;
        }
        let actor = &mut self.numbers.actor;
        actor.next += 1;
        if actor.next > actor.set_aside {
            actor.set_aside = actor.next + ACTORS_SET_ASIDE;
            self.actions.push(Action::Keep(self.numbers.given()));
        }
        Ok(ActorKey(self.numbers.actor.next - 1))
    }
}
