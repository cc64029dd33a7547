//! Allocation of job, worker and actor ids, each used once across restarts of the head.

use std::ops::{Add, Div};

use super::{Action, ClusterState, ControlError, Record};
use crate::cluster::model::{ActorKey, JobId, WorkerId};
use crate::config::{ACTOR_ID_BLOCK, JOB_ID_BLOCK, WORKER_ID_BLOCK};

/// Id allocator of this incarnation of the head.
///
/// Waiting for the disk with each id would cost a write each. The record
/// [`IdWatermarks`](Record::IdWatermarks) therefore holds a watermark per kind, and ids up to one block above
/// it may be allocated. A restart continues above that block.
///
/// ```text
///                      durable watermark      watermark + block
///    ------------------------|-------------------------|----------->
///     ids allocated so far lie anywhere below `end`   `end`: next incarnation starts here
/// ```
///
/// The watermark is raised half a block before it is reached.
#[derive(Debug)]
pub(super) struct IdAllocator {
    job: Counter<u32>,
    worker: Counter<u64>,
    actor: Counter<u64>,
    /// First actor id of this incarnation.
    first_actor: u64,
}

/// Allocator of one kind of id.
#[derive(Clone, Copy, Debug)]
struct Counter<N> {
    next: N,
    /// Watermark that is durable, or is being written.
    wanted: N,
    /// First id that needs a higher durable watermark; the maximum where nothing outlives the process.
    end: N,
}

impl<N: Copy + Ord + From<u8> + Add<Output = N> + Div<Output = N>> Counter<N> {
    fn first(end: N) -> Self {
        Self { next: N::from(1), wanted: N::from(1), end }
    }

    /// Starts above all ids that an incarnation with this durable watermark may have allocated.
    fn begin(bound: N, block: N) -> Self {
        let end = bound.max(N::from(1)) + block;
        Self { next: end, wanted: end + block, end }
    }

    fn mark_durable(&mut self, bound: N, block: N) {
        self.end = self.end.max(bound + block);
    }

    /// Allocates an id, and reports whether the watermark was raised.
    fn take(&mut self, block: N) -> (N, bool) {
        let number = self.next;
        self.next = number + N::from(1);
        // Half a block early, so that the write completes before `end` is reached.
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
    /// Starts an incarnation with these durable watermarks.
    pub(super) fn start_at(&mut self, jobs: u32, workers: u64, actors: u64) {
        self.job = Counter::begin(jobs, JOB_ID_BLOCK);
        self.worker = Counter::begin(workers, WORKER_ID_BLOCK);
        self.actor = Counter::begin(actors, ACTOR_ID_BLOCK);
        self.first_actor = self.actor.next;
    }

    /// Starts the first incarnation, without any record.
    pub(super) fn start_first(&mut self) {
        self.job = Counter { next: 1, ..Counter::begin(1, JOB_ID_BLOCK) };
        self.worker = Counter { next: 1, ..Counter::begin(1, WORKER_ID_BLOCK) };
        self.actor = Counter { next: 1, ..Counter::begin(1, ACTOR_ID_BLOCK) };
    }

    /// Notes that these watermarks are durable.
    pub(super) fn mark_durable(&mut self, jobs: u32, workers: u64, actors: u64) {
        self.job.mark_durable(jobs, JOB_ID_BLOCK);
        self.worker.mark_durable(workers, WORKER_ID_BLOCK);
        self.actor.mark_durable(actors, ACTOR_ID_BLOCK);
    }

    /// Checks whether an earlier incarnation may have allocated the id.
    pub(super) fn predates_restart(&self, actor: ActorKey) -> bool {
        actor.0 < self.first_actor
    }

    pub(super) fn id_watermarks(&self) -> Record {
        Record::IdWatermarks { jobs: self.job.wanted, workers: self.worker.wanted, actors: self.actor.wanted }
    }
}

impl ClusterState {
    pub(super) fn new_job(&mut self) -> Result<JobId, ControlError> {
        self.check_persistence()?;
        self.require_id(self.ids.job.next < self.ids.job.end)?;
        let (number, raised) = self.ids.job.take(JOB_ID_BLOCK);
        self.persist_watermarks(raised);
        Ok(JobId(number))
    }

    /// Allocates a worker id without waiting for the disk.
    pub(super) fn new_worker(&mut self) -> WorkerId {
        // A block is more than the workers that start while a disk takes no writes.
        let (number, raised) = self.ids.worker.take(WORKER_ID_BLOCK);
        self.persist_watermarks(raised);
        WorkerId(number)
    }

    /// Allocates an actor id. An actor without a record of its own gets one while writes fail, up to the
    /// block.
    pub(super) fn new_actor(&mut self, is_durable: bool) -> Result<ActorKey, ControlError> {
        if is_durable {
            self.check_persistence()?;
        }
        self.require_id(self.ids.actor.next < self.ids.actor.end)?;
        let (number, raised) = self.ids.actor.take(ACTOR_ID_BLOCK);
        self.persist_watermarks(raised);
        Ok(ActorKey(number))
    }

    fn require_id(&self, has_numbers: bool) -> Result<(), ControlError> {
        if has_numbers {
            return Ok(());
        }
        self.check_persistence()?;
        // Writes have not failed, but a whole block was used while one was in progress.
        Err(ControlError::NotPersisted("its disk has accepted no writes for long".to_owned()))
    }

    fn persist_watermarks(&mut self, raised: bool) {
        if raised {
            self.actions.push(Action::Persist(self.ids.id_watermarks()));
        }
    }
}
