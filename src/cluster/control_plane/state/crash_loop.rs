//! Restart back-off of pools whose workers crash soon after they are ready.
//!
//! ```text
//!   crashes in a row   1   2      3      4      ...
//!   delay              0   base   2*base 4*base ... up to WORKER_RESTART_DELAY_MAX
//! ```
//!
//! The first crash is replaced immediately. `base` is `WORKER_RESTART_BACKOFF`. A worker that has been stable
//! for `WORKER_STABLE_AFTER` resets the count.
//!
//! A kill from outside is no crash. After `WORKER_KILLS_MAX` of them in a row each start is delayed by
//! `WORKER_KILLED_DELAY`, since a program may also kill itself, and a killer may never stop.

use super::pool::Pool;
use super::{ClusterState, Millis, millis};
use crate::cluster::model::{JobId, NodeId, WorkerId};
use crate::config::{
    WORKER_KILLED_DELAY, WORKER_KILLS_MAX, WORKER_RESTART_BACKOFF, WORKER_RESTART_DELAY_MAX,
};

/// Crash history of a pool.
#[derive(Debug, Default)]
pub(super) struct CrashLoop {
    /// Number of crashes since the last stable worker.
    consecutive: u32,
    /// Number of kills from outside since the last stable worker.
    kills: u32,
    /// Exit cause of the last crash.
    last: String,
    /// End of the current delay; `None` if the pool is not backing off.
    next_start: Option<Millis>,
}

impl CrashLoop {
    pub(super) fn is_backing_off(&self) -> bool {
        self.next_start.is_some()
    }

    pub(super) fn next_start(&self) -> Option<Millis> {
        self.next_start
    }

    /// Delay before the next start, in milliseconds.
    fn delay_ms(&self) -> u64 {
        match self.consecutive.checked_sub(2) {
            None => 0,
            Some(doublings) => {
                let longest = millis(WORKER_RESTART_DELAY_MAX);
                // A shift by 64 or more would overflow; the delay is capped anyway.
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                millis(WORKER_RESTART_BACKOFF).saturating_mul(factor).min(longest)
            }
        }
    }
}

impl ClusterState {
    /// Alert for a pool that has crashed more than once in a row.
    pub(super) fn crash_alert(&self, node: NodeId, pool: &Pool) -> Option<String> {
        let CrashLoop { consecutive, last, next_start, .. } = &pool.crash_loop;
        let now = self.now;
        let is_stable_worker =
            |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.is_stable(now));
        if *consecutive < 2 || (next_start.is_none() && pool.workers.iter().any(is_stable_worker)) {
            return None;
        }
        let next = next_start.map_or_else(String::new, |at| {
            format!("; the next is started in {} s", at.since(now).div_ceil(1000))
        });
        Some(format!(
            "workers crash at their start on node {node}, {consecutive} in a row, the last: {last}{next}"
        ))
    }

    /// Counts the exit of a ready worker, and backs off if it was a crash.
    pub(super) fn record_exit(&mut self, job: JobId, node: NodeId, was_stable: bool, cause: &str) {
        let now = self.now;
        let Some(pool) = self.pool(job, node) else { return };
        let crash_loop = &mut pool.crash_loop;
        if was_stable {
            // A stable worker that ends during a back-off proves nothing about the crashing ones.
            if !crash_loop.is_backing_off() {
                *crash_loop = CrashLoop::default();
            }
            return;
        }
        cause.clone_into(&mut crash_loop.last);
        // Workers of a pool often crash together for one reason; they count as one crash.
        if crash_loop.is_backing_off() {
            return;
        }
        crash_loop.consecutive = crash_loop.consecutive.saturating_add(1);
        let delay_ms = crash_loop.delay_ms();
        if delay_ms > 0 {
            let at = now.after(delay_ms);
            crash_loop.next_start = Some(at);
            self.restarts.insert((at, job, node));
        }
    }

    /// Counts a worker that was killed from outside, ready or not.
    pub(super) fn record_kill(&mut self, job: JobId, node: NodeId, was_stable: bool) {
        let at = self.now.after(millis(WORKER_KILLED_DELAY));
        let Some(pool) = self.pool(job, node) else { return };
        let crash_loop = &mut pool.crash_loop;
        if was_stable {
            crash_loop.kills = 0;
        }
        crash_loop.kills = crash_loop.kills.saturating_add(1);
        if crash_loop.kills > WORKER_KILLS_MAX && !crash_loop.is_backing_off() {
            crash_loop.next_start = Some(at);
            self.restarts.insert((at, job, node));
        }
    }

    /// Fills the pools whose delay has passed.
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
