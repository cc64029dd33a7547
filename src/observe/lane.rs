//! Numbers of the threads that run handlers and tasks, for timelines.

use std::sync::Arc;
use std::thread;

use crate::config::SPAN_LANES_MAX;
use crate::lock::Mutex;

/// Numbers that threads have now, as bits.
static TAKEN: Mutex<u64> = Mutex::new(0);

const _: () = assert!(SPAN_LANES_MAX == u64::BITS as usize, "a lane is a bit of `TAKEN`");

/// Lane of a thread in the timeline of its process. Spans of one lane never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) number: u16,
    /// Name of the thread.
    pub(crate) thread: Arc<str>,
}

/// Lane that its thread holds until it ends.
struct OwnLane(Lane);

thread_local! {
    static OWN: OwnLane = OwnLane::claim();
}

impl Lane {
    /// Lane of the calling thread; `None` while the thread ends.
    pub(super) fn of_this_thread() -> Option<Self> {
        OWN.try_with(|own| own.0.clone()).ok()
    }
}

impl OwnLane {
    /// Takes the lowest free number. Threads of a pool come and go, and would otherwise use up all numbers.
    fn claim() -> Self {
        let mut taken = TAKEN.lock();
        // Threads beyond the limit share the last lane, where their spans may overlap.
        let number = taken.trailing_ones().min(u64::BITS - 1);
        *taken |= 1 << number;
        // Fits: it is below 64.
        Self(Lane { number: number as u16, thread: thread::current().name().unwrap_or("thread").into() })
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        *TAKEN.lock() &= !(1 << self.0.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_keeps_its_lane_and_no_living_thread_has_the_same() {
        let [own, again] = [(); 2].map(|()| Lane::of_this_thread().unwrap());
        assert_eq!(own, again);
        let named = thread::Builder::new().name("named".to_owned());
        let other = named.spawn(|| Lane::of_this_thread().unwrap()).unwrap().join().unwrap();
        assert!(other.number != own.number && &*other.thread == "named");
    }
}
