//! Deadline of a call that is about to be queued.

use std::time::Instant;

/// Deadline of a call, with the time at which its sender last read the clock.
///
/// The frame carries the time that is left. A call with a timeout has just read the clock to compute its
/// deadline, and a second read would be a tenth of what the timeout costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) now: Instant,
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        Self { at, now: tokio::time::Instant::now().into_std() }
    }
}
