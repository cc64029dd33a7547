//! Synchronous calls of user code on this thread: handlers, tasks, and actors' `spawn`.
//!
//! During such a call the thread does nothing else, so code that waits in it may wait for this very
//! thread. Futures of handlers are polled outside of these calls.

use std::cell::Cell;
use std::num::NonZeroU64;

thread_local! {
    /// Number of the running call; 0 for none.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
    /// Number of the last call.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Runs `call`, which must not unwind.
#[inline]
pub(crate) fn call<R>(call: impl FnOnce() -> R) -> R {
    // A new number for each call, by which a stored wait is recognized as one of an earlier call.
    let number = LAST.get() + 1;
    LAST.set(number);
    // Calls nest: a handler may run a task or spawn an actor.
    let outer = RUNNING.replace(number);
    let outcome = call();
    RUNNING.set(outer);
    outcome
}

/// Number of the call that this thread is in; it is never reused on the thread.
#[inline]
pub(crate) fn running() -> Option<NonZeroU64> {
    NonZeroU64::new(RUNNING.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_calls_have_increasing_numbers_and_none_remains() {
        let number = || running().map(NonZeroU64::get);
        assert_eq!(number(), None);
        let (outer, inner) = call(|| (number(), call(number)));
        assert!(outer.is_some() && inner > outer);
        assert!(call(number) > inner);
        assert_eq!(number(), None);
    }
}
