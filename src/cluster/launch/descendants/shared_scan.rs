//! Scan shared by all threads that request it at the same time.
//!
//! A scan of the process table reads files of every process. If many workers end together and each scans for
//! itself, the cost is quadratic in their number.
//!
//! ```text
//!   scans     |---- 1 ----|---- 2 ----|
//!   thread A  ^ requests 1                  returns 1
//!   thread B      ^ too late for 1: it may have read the table already    returns 2
//!   thread C         ^ the same             returns 2, without a third scan
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Scanner that shares its results among concurrent callers.
#[derive(Debug)]
pub(super) struct SharedScan<T> {
    /// Number of scans that have begun.
    begun: AtomicU64,
    latest: Mutex<LatestScan<T>>,
}

/// Latest result, and the number of its scan.
#[derive(Debug)]
struct LatestScan<T> {
    number: u64,
    result: Option<Arc<T>>,
}

impl<T> SharedScan<T> {
    pub(super) const fn new() -> Self {
        Self { begun: AtomicU64::new(0), latest: Mutex::new(LatestScan { number: 0, result: None }) }
    }

    /// Returns the result of a scan that began after this call, by this thread or another.
    pub(super) fn scan(&self, scan: impl FnOnce() -> T) -> Arc<T> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        // Read before the lock: a scan that begins while this thread waits for the lock is recent enough.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = latest.result.as_ref().filter(|_| latest.number > begun_before) {
            return Arc::clone(result);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let result = Arc::new(scan());
        *latest = LatestScan { number, result: Some(Arc::clone(&result)) };
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    const THREADS: usize = 40;

    #[test]
    fn concurrent_callers_share_a_scan_that_began_after_their_calls() {
        let (shared, waiting, scans) = (SharedScan::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        let scan = || {
            // The first scan lasts until all threads have called.
            while waiting.load(Ordering::SeqCst) < THREADS {
                thread::yield_now();
            }
            scans.fetch_add(1, Ordering::SeqCst) + 1
        };
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let before = scans.load(Ordering::SeqCst);
                    waiting.fetch_add(1, Ordering::SeqCst);
                    assert!(*shared.scan(scan) > before);
                });
            }
        });
        // Two, and one more for each thread that was preempted between its call and its lock.
        let scans = scans.into_inner();
        assert!(scans <= THREADS / 4, "{scans} scans");
        assert_eq!(*shared.scan(|| scans + 1), scans + 1, "a later call needs a new scan");
    }
}
