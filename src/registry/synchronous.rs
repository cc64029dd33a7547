//! The synchronous calls of user code on this thread: handlers, tasks, and actors' `spawn`.
//!
//! Until such a call returns, its thread does nothing else. Whatever waits has to know that, since it may wait
//! for what only this thread can do. Futures of handlers are polled outside of these calls.

use std::cell::Cell;
use std::num::NonZeroU64;

thread_local! {
    /// The number of the call that runs; 0 for none.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
    /// The number of the last call.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Runs `call`, which does not unwind.
#[inline]
pub(crate) fn call<R>(call: impl FnOnce() -> R) -> R {
    let number = LAST.get() + 1;
    LAST.set(number);
    let outer = RUNNING.replace(number);
    let outcome = call();
    RUNNING.set(outer);
    outcome
}

/// The number of the call that this thread is in, which it never has again.
#[inline]
pub(crate) fn running() -> Option<NonZeroU64> {
    NonZeroU64::new(RUNNING.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_number_of_its_own_and_ends() {
        let number = || running().map(NonZeroU64::get);
        assert_eq!(number(), None);
        let (outer, inner) = call(|| (number(), call(number)));
        assert!(outer.is_some() && inner > outer);
        assert!(call(number) > inner);
        assert_eq!(number(), None);
    }
}
