//! Leases of a worker process, one after the other.
//!
//! The agent of the node grants and renews them. A task on the I/O runtime, which runs no user code, ends the holders
//! of a lease that has run out. If code of one of them still runs after the grace, it has the process killed.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;

use crate::background;
use crate::id::{ActorId, ActorIncarnation, Target};
use crate::lock::Mutex;
use crate::registry::{Lease, LeaseClock};
use crate::spec::{LeaseGrant, LeaseTime};

/// Time of this machine since it was booted.
///
/// It goes on while a process is stopped, and while the machine sleeps, in which other clocks stand.
pub(crate) fn machine_time() -> LeaseTime {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is negative since the boot.
    LeaseTime(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Function that ends the process, whose user code has overrun the lease.
pub(crate) type OnOverrun = Arc<dyn Fn() + Send + Sync>;

/// Leases of a process.
pub(crate) struct Leases {
    clock: LeaseClock,
    io: Handle,
    on_overrun: OnOverrun,
    present: Mutex<Option<Arc<Lease>>>,
    /// Latest incarnation of each exclusive actor that was created here.
    created: Mutex<FxHashMap<ActorId, ActorIncarnation>>,
}

impl Leases {
    pub(crate) fn new(clock: LeaseClock, io: Handle, on_overrun: OnOverrun) -> Self {
        Self { clock, io, on_overrun, present: Mutex::default(), created: Mutex::default() }
    }

    /// Records that an incarnation is about to be created; false if it was, or a later one.
    ///
    /// A repeated command may arrive after the end of the incarnation. A second one of the same number would run
    /// beside the next one, which begins once the head has heard of that end.
    pub(crate) fn admit(&self, target: Target) -> bool {
        let mut created = self.created.lock();
        let is_new = created.get(&target.actor).is_none_or(|latest| *latest < target.incarnation);
        if is_new {
            created.insert(target.actor, target.incarnation);
        }
        is_new
    }

    /// Records a grant or a renewal; returns the lease, or `None` if it belongs to an earlier lease.
    pub(crate) fn renew(&self, grant: LeaseGrant) -> Option<Arc<Lease>> {
        let mut present = self.present.lock();
        let number = present.as_ref().map_or(0, |lease| lease.number());
        match grant.number.cmp(&number) {
            Ordering::Less => None,
            Ordering::Equal if present.as_ref().is_some_and(|lease| lease.extend(grant.until)) => {
                present.clone()
            }
            // Those that hold a lease of this number which has expired have ended.
            Ordering::Equal | Ordering::Greater => {
                let lease = Lease::new(grant, self.clock);
                let before = present.replace(Arc::clone(&lease));
                drop(present);
                before.into_iter().for_each(|before| before.revoke());
                if grant.until != LeaseTime::NEVER {
                    let watching = watch(Arc::clone(&lease), grant.grace, Arc::clone(&self.on_overrun));
                    background::spawn_on(&self.io, watching);
                }
                Some(lease)
            }
        }
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("present", &*self.present.lock()).finish_non_exhaustive()
    }
}

/// Ends the holders of a lease once it is over.
async fn watch(lease: Arc<Lease>, grace: Duration, on_overrun: OnOverrun) {
    while !lease.expire() {
        tokio::select! {
            () = tokio::time::sleep(lease.left()) => {}
            () = lease.revoked() => {}
        }
    }
    lease.wake_all();
    tokio::time::sleep(grace).await;
    if lease.runs_code() {
        on_overrun();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn grant(number: u64, until: u64) -> LeaseGrant {
        LeaseGrant { number, until: LeaseTime(until), grace: Duration::from_millis(100) }
    }

    #[tokio::test(start_paused = true)]
    async fn later_lease_ends_the_holders_of_the_earlier_one() {
        let overruns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&overruns);
        let count = move || {
            counted.fetch_add(1, Relaxed);
        };
        let leases = Leases::new(|| LeaseTime(5), Handle::current(), Arc::new(count));
        let first = leases.renew(grant(1, 1_000_000)).unwrap();
        let (idle, busy) = (first.join(), first.join());
        let running = busy.enter().unwrap();
        let renewed = leases.renew(grant(1, 1_000_000)).unwrap();
        assert!(Arc::ptr_eq(&first, &renewed));
        let second = leases.renew(grant(2, 1_000_000)).unwrap();
        assert!(leases.renew(grant(1, 1_000_000)).is_none());
        assert!(first.is_over() && !second.is_over() && idle.enter().is_none());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(overruns.load(Relaxed), 1);
        drop(running);
        assert!(second.join().enter().is_some());
    }

    #[tokio::test]
    async fn incarnation_is_created_once() {
        let leases = Leases::new(machine_time, Handle::current(), Arc::new(|| ()));
        let admits = |actor, incarnation| {
            let target = Target { actor: ActorId(actor), incarnation: ActorIncarnation(incarnation) };
            leases.admit(target)
        };
        assert!(admits(1, 0) && !admits(1, 0));
        assert!(admits(2, 3) && admits(1, 2) && !admits(1, 1) && !admits(1, 2));
    }

    #[test]
    fn machine_time_advances() {
        let before = machine_time();
        assert!(machine_time() >= before && before.0 > 0);
    }
}
