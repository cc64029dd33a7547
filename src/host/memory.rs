//! Guard of a host's memory: it refuses new actors and tasks while little memory is left.
//!
//! A worker that takes all the work that it gets is killed by the kernel, with all of its actors. The guard asks for a
//! reading only when new work arrives, and keeps it for [`MEMORY_SAMPLE_INTERVAL`]. Messages to existing actors never
//! reach it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::config::MEMORY_SAMPLE_INTERVAL;
use crate::id::HostUid;
use crate::lock::Mutex;
use crate::wire::CallFailure;

/// Memory in use under one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in use, without the file cache that the kernel can drop.
    pub used: u64,
    /// Bytes that may be in use before the kernel kills processes.
    pub limit: u64,
    /// Object that has the limit, such as a control group.
    pub limited: String,
}

/// Function that reads the memory in use under the nearest limit; `None` if there is no reading.
pub type MemoryReader = Box<dyn Fn() -> Option<MemoryUse> + Send + Sync>;

/// Guard of one host. Without a reader it admits everything.
pub(super) struct MemoryGuard {
    host: HostUid,
    percent_max: u8,
    created_at: Instant,
    reader: OnceLock<MemoryReader>,
    /// Time of the next reading in milliseconds since `created_at`.
    next_sample_ms: AtomicU64,
    is_low: AtomicBool,
    /// Explanation by the last reading, while it is low.
    refusal: Mutex<Option<String>>,
}

impl MemoryUse {
    /// True if more than a part of the limit is in use, in per cent.
    #[must_use]
    pub fn is_over(&self, percent: u8) -> bool {
        u128::from(self.used) * 100 > u128::from(self.limit) * u128::from(percent)
    }
}

impl MemoryGuard {
    pub(super) fn new(host: HostUid, percent_max: u8, now: Instant) -> Self {
        Self {
            host,
            percent_max,
            created_at: now,
            reader: OnceLock::new(),
            next_sample_ms: AtomicU64::new(0),
            is_low: AtomicBool::new(false),
            refusal: Mutex::new(None),
        }
    }

    pub(super) fn set_reader(&self, reader: MemoryReader) {
        // A host belongs to a single process for its lifetime.
        let _ = self.reader.set(reader);
    }

    /// Checks whether the host takes new work.
    pub(super) fn admit(&self, now: Instant) -> Result<(), CallFailure> {
        let Some(reader) = self.reader.get().filter(|_| self.percent_max < 100) else { return Ok(()) };
        let since = now.saturating_duration_since(self.created_at).as_millis();
        let now_ms = u64::try_from(since).unwrap_or(u64::MAX);
        let due = self.next_sample_ms.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(MEMORY_SAMPLE_INTERVAL.as_millis() as u64);
        // One thread reads; the others go by the reading before. The atomics guard no other memory.
        if now_ms >= due
            && self.next_sample_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let over = reader().filter(|reading| reading.is_over(self.percent_max));
            self.is_low.store(over.is_some(), Ordering::Relaxed);
            *self.refusal.lock() = over.map(|reading| self.explain(&reading));
        }
        if !self.is_low.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refusal = self.refusal.lock().clone();
        refusal.map_or(Ok(()), |text| Err(CallFailure::LowMemory { text }))
    }

    fn explain(&self, reading: &MemoryUse) -> String {
        let Self { host, percent_max, .. } = self;
        let MemoryUse { used, limit, limited } = reading;
        let (process, used, limit) = (std::process::id(), used >> 20, limit >> 20);
        format!(
            "the worker with host {host} (process {process}) takes no new work, since {used} MiB of the {limit} MiB \
             of {limited} are in use, and at most {percent_max} % may be; stop actors there, give it more memory, or \
             raise `Limits::memory_percent_max`"
        )
    }
}

impl fmt::Debug for MemoryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryGuard").field("percent_max", &self.percent_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::id::{HostId, Incarnation};

    /// Guard with a reading of `used` per cent, and the number of its readings.
    struct Guarded {
        guard: MemoryGuard,
        now: Instant,
        used: Arc<AtomicU64>,
        readings: Arc<AtomicU64>,
    }

    impl Guarded {
        fn new(percent_max: u8) -> Self {
            let now = Instant::now();
            let identity = HostUid { host: HostId(7), incarnation: Incarnation(1) };
            let guard = MemoryGuard::new(identity, percent_max, now);
            let (used, readings) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
            let (reading, count) = (Arc::clone(&used), Arc::clone(&readings));
            guard.set_reader(Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                let used = reading.load(Ordering::Relaxed) << 20;
                Some(MemoryUse { used, limit: 100 << 20, limited: "the machine".to_owned() })
            }));
            Self { guard, now, used, readings }
        }

        fn admits(&mut self, used: u64, after: Duration) -> bool {
            self.used.store(used, Ordering::Relaxed);
            self.now += after;
            self.guard.admit(self.now).is_ok()
        }

        fn readings(&self) -> u64 {
            self.readings.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn work_is_refused_while_more_than_the_limit_is_in_use() {
        let mut guarded = Guarded::new(95);
        let interval = MEMORY_SAMPLE_INTERVAL;
        let admitted = [95, 96, 100, 95, 12].map(|used| guarded.admits(used, interval));
        assert_eq!(admitted, [true, false, false, true, true]);
    }

    #[test]
    fn memory_is_read_once_in_an_interval_and_only_for_new_work() {
        let mut guarded = Guarded::new(95);
        assert_eq!(guarded.readings(), 0);
        assert!(guarded.admits(50, Duration::ZERO));
        let just_within = MEMORY_SAMPLE_INTERVAL - Duration::from_millis(1);
        assert!(guarded.admits(99, just_within), "by the reading before");
        assert_eq!(guarded.readings(), 1);
        assert!(!guarded.admits(99, Duration::from_millis(1)));
        assert!(!guarded.admits(50, just_within), "by the reading before");
        assert_eq!(guarded.readings(), 2);
        assert!(guarded.admits(50, MEMORY_SAMPLE_INTERVAL * 1000));
        assert_eq!(guarded.readings(), 3);
    }

    #[test]
    fn full_use_turns_the_guard_off() {
        for percent_max in [100, u8::MAX] {
            let mut guarded = Guarded::new(percent_max);
            assert!(guarded.admits(200, MEMORY_SAMPLE_INTERVAL));
            assert_eq!(guarded.readings(), 0);
        }
    }

    #[test]
    fn refusal_names_use_limit_worker_and_next_step() {
        let guarded = Guarded::new(90);
        guarded.used.store(91, Ordering::Relaxed);
        let Err(CallFailure::LowMemory { text }) = guarded.guard.admit(guarded.now) else {
            panic!("it is refused")
        };
        for part in ["7.1", "91 MiB of the 100 MiB of the machine", "90 %", "Limits::memory_percent_max"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn only_more_than_the_part_is_over_it() {
        let is_over = |used, limit, percent| {
            MemoryUse { used, limit, limited: "the machine".to_owned() }.is_over(percent)
        };
        assert_eq!([949, 950, 951, 1200].map(|used| is_over(used, 1000, 95)), [false, false, true, true]);
        assert!(!is_over(u64::MAX, u64::MAX, 100));
        assert!(is_over(1, 1000, 0));
    }

    #[test]
    fn host_without_a_reading_takes_work() {
        let identity = HostUid { host: HostId(7), incarnation: Incarnation(1) };
        let now = Instant::now();
        let guard = MemoryGuard::new(identity, 0, now);
        assert_eq!(guard.admit(now), Ok(()));
        guard.set_reader(Box::new(|| None));
        assert_eq!(guard.admit(now), Ok(()));
    }
}
