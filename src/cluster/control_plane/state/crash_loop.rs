//! Workers that crash as soon as they are ready: the next ones are started later and later.
//!
//! The first crash costs nothing: the next worker is started at once. From the second in a row on, what a
//! job has not got on a node is started after a rest that doubles with each. A worker that has lived for a
//! while ends the row.

use super::job::Pool;
use super::{Millis, State, millis};
use crate::cluster::model::{JobId, NodeId, WorkerId};
use crate::config::{WORKER_RESTART_BACKOFF, WORKER_RESTART_DELAY_MAX};

/// The workers of a job on one node that crashed at their start.
#[derive(Debug, Default)]
pub(super) struct CrashLoop {
    /// How many, with none between them that has lived for a while.
    consecutive: u32,
    /// How the last one ended.
    last: String,
    /// Until then no other is started.
    next_start: Option<Millis>,
}

impl CrashLoop {
    pub(super) fn is_backing_off(&self) -> bool {
        self.next_start.is_some()
    }

    pub(super) fn next_start(&self) -> Option<Millis> {
        self.next_start
    }

    /// How long to wait with the next one.
    fn delay_ms(&self) -> u64 {
        match self.consecutive.checked_sub(2) {
            None => 0,
            Some(doublings) => {
                let longest = millis(WORKER_RESTART_DELAY_MAX);
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                millis(WORKER_RESTART_BACKOFF).saturating_mul(factor).min(longest)
            }
        }
    }
}

impl State {
    /// What an operator is to know of a pool whose workers crash, if it is more than a mishap.
    pub(super) fn crash_alert(&self, node: NodeId, pool: &Pool) -> Option<String> {
        let CrashLoop { consecutive, last, next_start } = &pool.crash_loop;
        let now = self.now;
        let is_settled = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.is_stable(now));
        if *consecutive < 2 || (next_start.is_none() && pool.workers.iter().any(is_settled)) {
            return None;
        }
        let next = next_start.map_or_else(String::new, |at| {
            format!("; the next is started in {} s", at.since(now).div_ceil(1000))
        });
        Some(format!(
            "workers crash at their start on node {node}, {consecutive} in a row, the last: {last}{next}"
        ))
    }

    /// A worker that was ready has ended by itself.
    pub(super) fn record_exit(&mut self, job: JobId, node: NodeId, was_settled: bool, cause: &str) {
        let now = self.now;
        let Some(pool) = self.pool(job, node) else { return };
        let crashes = &mut pool.crash_loop;
        if was_settled {
            if !crashes.is_backing_off() {
                *crashes = CrashLoop::default();
            }
            return;
        }
        cause.clone_into(&mut crashes.last);
        // Those that crash together are one mishap.
        if crashes.is_backing_off() {
            return;
        }
        crashes.consecutive = crashes.consecutive.saturating_add(1);
        let delay_ms = crashes.delay_ms();
        if delay_ms > 0 {
            let at = now.after(delay_ms);
            crashes.next_start = Some(at);
            self.restarts.insert((at, job, node));
        }
    }

    /// Starts the workers whose time has come.
    pub(super) fn restart_workers(&mut self) {
        while let Some(&(at, job, node)) = self.restarts.first().filter(|(at, ..)| *at <= self.now) {
            self.restarts.remove(&(at, job, node));
            let Some(pool) = self.pool(job, node) else { continue };
            pool.crash_loop.next_start = None;
            if pool.blocked.is_none() {
                self.fill_pool(job, node);
            }
        }
    }
}
