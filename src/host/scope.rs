//! Which host is decoding just now: the addresses in a message bind to it.

use std::cell::RefCell;

use super::Host;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Makes `host` the current one until the guard is dropped. Synchronous code only: a guard is
/// never held across an await.
pub(crate) fn enter(host: &Host) -> Scope {
    Scope { previous: CURRENT.replace(Some(host.clone())) }
}

/// The host that is decoding on this thread.
pub(crate) fn current() -> Option<Host> {
    CURRENT.with_borrow(Clone::clone)
}

/// Restores the host that was current before.
pub(crate) struct Scope {
    previous: Option<Host>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        drop(CURRENT.replace(self.previous.take()));
    }
}
