//! Connections of which nobody knows yet whose they are: how many there may be, and what is told of them.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::lock::Mutex;
use crate::observe::log;

/// The strangers that are open at one door, oldest first. Dropped, it shows all of them out.
#[derive(Debug, Default)]
pub(crate) struct Strangers(VecDeque<AbortHandle>);

impl Strangers {
    /// Lets one more in, and attends to it on this runtime.
    ///
    /// Where there is no room the oldest goes: an honest peer is through in one or two round trips, so those
    /// that linger are the ones that hold a place and say nothing.
    pub(crate) fn attend(&mut self, open_max: usize, to: impl Future<Output = ()> + Send + 'static) {
        self.make_room(open_max);
        self.0.push_back(tokio::spawn(to).abort_handle());
    }

    fn make_room(&mut self, open_max: usize) {
        if self.0.len() < open_max {
            return;
        }
        self.0.retain(|stranger| !stranger.is_finished());
        while self.0.len() >= open_max.max(1) {
            if let Some(oldest) = self.0.pop_front() {
                oldest.abort();
            }
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// How often refusals are told at most: whoever can connect must not be able to fill the log.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(1);

/// The connections that were refused and not told of yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<(u64, Option<Instant>)>);

impl Refusals {
    /// Counts one, and tells of it and of those before it, but not too often.
    pub(crate) fn note(&self, error: &dyn Display) {
        if let Some(connections) = self.count() {
            log::warn!(connections, %error, "refused; the error is the last one's");
        }
    }

    /// Counts one; gives how many are to be told of, if they are by now.
    fn count(&self) -> Option<u64> {
        let mut guard = self.0.lock();
        let (untold, told) = &mut *guard;
        *untold += 1;
        if told.is_some_and(|told| told.elapsed() < REFUSALS_TOLD_EVERY) {
            return None;
        }
        *told = Some(Instant::now());
        Some(std::mem::take(untold))
    }
}
