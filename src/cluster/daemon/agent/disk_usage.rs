//! Use of the file system with the session directory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::cluster::host_info::disk_bytes;

/// Used and total bytes of a file system, as a thread of its own has measured them.
///
/// The system call may block for ever if the file system is of a server that hangs. A heartbeat must not wait for that:
/// the node would be taken for dead.
#[derive(Debug, Default)]
pub(super) struct DiskUsage(Arc<Measurement>);

#[derive(Debug, Default)]
struct Measurement {
    /// Zero before the first measurement.
    latest: Mutex<(u64, u64)>,
    is_running: AtomicBool,
}

impl DiskUsage {
    /// Returns the latest measurement, and begins the next one unless it still runs.
    pub(super) fn latest(&self, directory: &Path) -> (u64, u64) {
        if !self.0.is_running.swap(true, Ordering::Relaxed) {
            let (measurement, directory) = (Arc::clone(&self.0), directory.to_owned());
            let started = thread::Builder::new().name("disk-usage".to_owned()).spawn(move || {
                let bytes = disk_bytes(&directory).unwrap_or_default();
                *measurement.latest.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
                measurement.is_running.store(false, Ordering::Relaxed);
            });
            if started.is_err() {
                self.0.is_running.store(false, Ordering::Relaxed);
            }
        }
        *self.0.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_hangs_is_not_waited_for() {
        let disk = DiskUsage::default();
        disk.0.is_running.store(true, Ordering::Relaxed);
        *disk.0.latest.lock().unwrap() = (1, 2);
        assert_eq!(disk.latest(Path::new("/")), (1, 2));
    }

    #[test]
    fn measurement_is_there_after_a_while() {
        let disk = DiskUsage::default();
        while disk.latest(Path::new("/")).1 == 0 {
            thread::yield_now();
        }
    }
}
