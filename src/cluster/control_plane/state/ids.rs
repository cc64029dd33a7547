//! Numbers of jobs, workers and actors. None is given twice.

use std::ops::{Add, Div};

use super::{Action, ControlError, Record, State};
use crate::cluster::model::{ActorKey, JobId, WorkerId};
use crate::config::{ACTOR_ID_BLOCK, JOB_ID_BLOCK, WORKER_ID_BLOCK};

/// The numbers of this life of the head.
///
/// Record [`IdWatermarks`](Record::IdWatermarks) on disk holds a bound for each kind. Numbers below the bound plus one
/// block may be given, so a number costs no wait for the disk; a later life of the head begins behind that
/// block. A bound is raised half a block before it is reached.
#[derive(Debug)]
pub(super) struct IdAllocator {
    job: Counter<u32>,
    worker: Counter<u64>,
    actor: Counter<u64>,
    /// First actor of this life of the head.
    first_actor: u64,
}

#[derive(Clone, Copy, Debug)]
struct Counter<N> {
    next: N,
    /// Bound that is, or is about to be, on disk.
    wanted: N,
    /// First number that must not be given before more is on disk. The maximum where nothing outlives the
    /// process.
    end: N,
}

impl<N: Copy + Ord + From<u8> + Add<Output = N> + Div<Output = N>> Counter<N> {
    fn first(end: N) -> Self {
        Self { next: N::from(1), wanted: N::from(1), end }
    }

    /// Begins behind all numbers that a life of the head with this bound on disk may have given.
    fn begin(bound: N, block: N) -> Self {
        let end = bound.max(N::from(1)) + block;
        Self { next: end, wanted: end + block, end }
    }

    fn kept(&mut self, bound: N, block: N) {
        self.end = self.end.max(bound + block);
    }

    /// Gives a number; tells whether the bound was raised.
    fn take(&mut self, block: N) -> (N, bool) {
        let number = self.next;
        self.next = number + N::from(1);
        let raise = self.next + block / N::from(2) > self.wanted;
        if raise {
            self.wanted = self.next + block;
        }
        (number, raise)
    }
}

impl Default for IdAllocator {
    fn default() -> Self {
        Self {
            job: Counter::first(u32::MAX),
            worker: Counter::first(u64::MAX),
            actor: Counter::first(u64::MAX),
            first_actor: 1,
        }
    }
}

impl IdAllocator {
    /// Begins a life of the head with these bounds on disk.
    pub(super) fn start_at(&mut self, jobs: u32, workers: u64, actors: u64) {
        self.job = Counter::begin(jobs, JOB_ID_BLOCK);
        self.worker = Counter::begin(workers, WORKER_ID_BLOCK);
        self.actor = Counter::begin(actors, ACTOR_ID_BLOCK);
        self.first_actor = self.actor.next;
    }

    /// Begins the first life of the head, whose disk has nothing yet.
    pub(super) fn start_first(&mut self) {
        self.job = Counter { next: 1, ..Counter::begin(1, JOB_ID_BLOCK) };
        self.worker = Counter { next: 1, ..Counter::begin(1, WORKER_ID_BLOCK) };
        self.actor = Counter { next: 1, ..Counter::begin(1, ACTOR_ID_BLOCK) };
    }

    /// These bounds are on disk.
    pub(super) fn kept(&mut self, jobs: u32, workers: u64, actors: u64) {
        self.job.kept(jobs, JOB_ID_BLOCK);
        self.worker.kept(workers, WORKER_ID_BLOCK);
        self.actor.kept(actors, ACTOR_ID_BLOCK);
    }

    /// Whether an earlier life of the head may have given the number.
    pub(super) fn predates_restart(&self, actor: ActorKey) -> bool {
        actor.0 < self.first_actor
    }

    pub(super) fn id_watermarks(&self) -> Record {
        Record::IdWatermarks { jobs: self.job.wanted, workers: self.worker.wanted, actors: self.actor.wanted }
    }
}

impl State {
    pub(super) fn new_job(&mut self) -> Result<JobId, ControlError> {
        self.check_persistence()?;
        self.is_on_disk(self.ids.job.next < self.ids.job.end)?;
        let (number, raised) = self.ids.job.take(JOB_ID_BLOCK);
        self.keep_bounds(raised);
        Ok(JobId(number))
    }

    /// A worker's number does not wait for the disk: a block is more than start while a disk takes nothing.
    pub(super) fn new_worker(&mut self) -> WorkerId {
        let (number, raised) = self.ids.worker.take(WORKER_ID_BLOCK);
        self.keep_bounds(raised);
        WorkerId(number)
    }

    /// One that does not have to be kept itself gets a number while the disk takes nothing, up to the block.
    pub(super) fn new_actor(&mut self, is_durable: bool) -> Result<ActorKey, ControlError> {
        if is_durable {
            self.check_persistence()?;
        }
        self.is_on_disk(self.ids.actor.next < self.ids.actor.end)?;
        let (number, raised) = self.ids.actor.take(ACTOR_ID_BLOCK);
        self.keep_bounds(raised);
        Ok(ActorKey(number))
    }

    fn is_on_disk(&self, has_numbers: bool) -> Result<(), ControlError> {
        if has_numbers {
            return Ok(());
        }
        self.check_persistence()?;
        Err(ControlError::NotPersisted("its disk has not taken anything for long".to_owned()))
    }

    fn keep_bounds(&mut self, raised: bool) {
        if raised {
            self.actions.push(Action::Persist(self.ids.id_watermarks()));
        }
    }
}
