//! Lease of the exclusive actors of a process, and the actors that hold it.
//!
//! ```text
//!   valid ---- renewed in time ----.          expired: no holder runs code of its actor any more
//!     ^ '--------------------------'            ^
//!     '---- its end has passed, or a later lease has begun
//! ```
//! Each holder checks the lease by the clock before it runs code of its actor. So a process that was suspended past the
//! end begins no handler when it continues, whatever its other threads have done.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Context as TaskContext;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::lock::Mutex;
use crate::spec::{End, EndReason, LeaseGrant, LeaseTime};

/// Clock of leases.
pub(crate) type LeaseClock = fn() -> LeaseTime;

/// End of a lease that has expired, whatever its clock says.
const EXPIRED: u64 = 0;

thread_local! {
    /// True while this thread runs an exclusive actor.
    static RUNS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Lease of a process.
pub(crate) struct Lease {
    number: u64,
    clock: LeaseClock,
    /// Its end in nanoseconds, or [`EXPIRED`].
    until: AtomicU64,
    /// Notified when it expires before its end.
    revoked: Notify,
    holders: Mutex<Vec<Weak<LeaseHolder>>>,
}

impl Lease {
    pub(crate) fn new(grant: LeaseGrant, clock: LeaseClock) -> Arc<Self> {
        Arc::new(Self {
            number: grant.number,
            clock,
            until: AtomicU64::new(grant.until.0),
            revoked: Notify::new(),
            holders: Mutex::default(),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// True once no code of its holders may begin.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        (self.clock)().0 >= self.until.load(Ordering::Acquire)
    }

    /// Time until its present end.
    pub(crate) fn left(&self) -> Duration {
        LeaseTime(self.until.load(Ordering::Acquire)).since((self.clock)())
    }

    /// Renews the lease; false if it has expired.
    pub(crate) fn extend(&self, until: LeaseTime) -> bool {
        let extended = |end: u64| (end != EXPIRED).then(|| end.max(until.0));
        self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, extended).is_ok()
    }

    /// Lets the lease expire if its end has passed: it cannot be renewed from here on.
    pub(crate) fn expire(&self) -> bool {
        let now = (self.clock)().0;
        let expired = |end: u64| (end <= now).then_some(EXPIRED);
        self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, expired).is_ok()
    }

    /// Lets the lease expire before its end.
    pub(crate) fn revoke(&self) {
        self.until.store(EXPIRED, Ordering::Release);
        self.revoked.notify_one();
    }

    /// Waits until the lease is revoked.
    pub(crate) async fn revoked(&self) {
        self.revoked.notified().await;
    }

    /// Adds an actor.
    pub(crate) fn join(self: &Arc<Self>) -> Arc<LeaseHolder> {
        let holder = LeaseHolder {
            lease: Arc::clone(self),
            is_running: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        };
        let holder = Arc::new(holder);
        let mut holders = self.holders.lock();
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
        }
        holders.push(Arc::downgrade(&holder));
        holder
    }

    /// Wakes the tasks of all holders, which then end.
    pub(crate) fn wake_all(&self) {
        self.all().iter().for_each(|holder| holder.waker.wake());
    }

    /// True while a holder runs code of its actor.
    pub(crate) fn runs_code(&self) -> bool {
        self.all().iter().any(|holder| holder.is_running.load(Ordering::Acquire))
    }

    fn all(&self) -> Vec<Arc<LeaseHolder>> {
        self.holders.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("number", &self.number)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

/// Exclusive actor of this process.
#[derive(Debug)]
pub(crate) struct LeaseHolder {
    lease: Arc<Lease>,
    /// Set while the thread of the actor runs its code.
    is_running: AtomicBool,
    waker: AtomicWaker,
}

impl LeaseHolder {
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Notes the task that ends the actor when the lease is over.
    pub(crate) fn register(&self, task: &TaskContext<'_>) {
        // Before the lease is checked: an expiry between the two would wake nothing otherwise.
        self.waker.register(task.waker());
    }

    /// Begins code of the actor on this thread; `None` if the lease is over.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<RunningHolder> {
        // First: code that begins just before the end is counted a grace later.
        self.is_running.store(true, Ordering::Release);
        let running = RunningHolder { holder: Arc::clone(self), runs_outer: RUNS_HERE.replace(true) };
        (!self.lease.is_over()).then_some(running)
    }

    /// True if this thread runs an exclusive actor now.
    #[inline]
    pub(crate) fn runs_here() -> bool {
        RUNS_HERE.get()
    }
}

/// Running code of an exclusive actor, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningHolder {
    holder: Arc<LeaseHolder>,
    /// True if the code that begins is called from that of another exclusive actor.
    runs_outer: bool,
}

impl RunningHolder {
    /// True once the lease is over.
    pub(crate) fn is_over(&self) -> bool {
        self.holder.lease.is_over()
    }
}

impl Drop for RunningHolder {
    fn drop(&mut self) {
        RUNS_HERE.set(self.runs_outer);
        self.holder.is_running.store(false, Ordering::Release);
    }
}

/// End of an actor whose lease is over.
pub(crate) fn lease_expired() -> End {
    End::new(EndReason::LeaseExpired, "it is exclusive, and the lease of its node has run out")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::Waker;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(1) };
    }

    fn lease(until: u64) -> Arc<Lease> {
        let clock = || LeaseTime(NOW.get());
        Lease::new(LeaseGrant { number: 1, until: LeaseTime(until), grace: Duration::ZERO }, clock)
    }

    #[test]
    fn a_lease_that_has_expired_is_not_renewed() {
        let lease = lease(10);
        assert!(lease.extend(LeaseTime(20)) && !lease.is_over() && !lease.expire());
        NOW.set(20);
        assert!(lease.is_over());
        // Its process read the renewal late, and no holder has noticed.
        assert!(lease.extend(LeaseTime(30)) && !lease.is_over());
        NOW.set(30);
        assert!(lease.expire() && !lease.extend(LeaseTime(40)) && lease.is_over());
    }

    #[test]
    fn a_holder_runs_nothing_after_the_end() {
        let lease = lease(u64::MAX);
        let holder = lease.join();
        holder.register(&TaskContext::from_waker(Waker::noop()));
        {
            let _running = holder.enter().unwrap();
            assert!(lease.runs_code() && LeaseHolder::runs_here());
        }
        assert!(!lease.runs_code() && !LeaseHolder::runs_here());
        lease.revoke();
        assert!(holder.enter().is_none());
        assert!(!lease.runs_code() && !LeaseHolder::runs_here());
    }
}
