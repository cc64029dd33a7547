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

/// Lane that its thread holds until it ends; `None` if all were taken.
struct OwnLane(Option<Lane>);

thread_local! {
    static OWN: OwnLane = OwnLane::claim();
}

impl Lane {
    /// Calls a function with the lane of the calling thread. `None` if the thread has no lane, also while it ends.
    ///
    /// The first call of a thread takes a lock, but not during the function.
    pub(super) fn with_this_thread<T>(use_lane: impl FnOnce(&Self) -> T) -> Option<T> {
        OWN.try_with(|own| own.0.as_ref().map(use_lane)).ok().flatten()
    }
}

impl OwnLane {
    /// Takes the lowest free number. Threads of a pool come and go, and would otherwise use up all numbers.
    ///
    /// A thread that finds none has no lane until it ends. On a shared one spans would overlap.
    fn claim() -> Self {
        let number = claim_number(&mut TAKEN.lock());
        let thread = || thread::current().name().unwrap_or("thread").into();
        Self(number.map(|number| Lane { number, thread: thread() }))
    }
}

/// Takes the lowest free bit.
fn claim_number(taken: &mut u64) -> Option<u16> {
    let number = taken.trailing_ones();
    *taken |= 1_u64.checked_shl(number)?;
    // Fits: it is below 64.
    Some(number as u16)
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        if let Some(lane) = &self.0 {
            *TAKEN.lock() &= !(1 << lane.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_keeps_its_lane_and_no_living_thread_has_the_same() {
        let lane = || Lane::with_this_thread(Lane::clone).unwrap();
        let [own, again] = [lane(), lane()];
        assert_eq!(own, again);
        let named = thread::Builder::new().name("named".to_owned());
        let other = named.spawn(lane).unwrap().join().unwrap();
        assert!(other.number != own.number && &*other.thread == "named");
    }

    #[test]
    fn thread_beyond_the_limit_has_no_lane() {
        let mut taken = 0b101;
        assert_eq!(claim_number(&mut taken), Some(1));
        taken = u64::MAX >> 1;
        assert_eq!(claim_number(&mut taken), Some(63));
        assert_eq!((claim_number(&mut taken), taken), (None, u64::MAX));
    }
}
