//! Registry of the child processes that this process has started itself.
//!
//! An agent adopts the processes that its workers leave behind. It must reap those, but no child that another part
//! of this process waits for.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a child and registers its pid before anything can reap it.
pub(crate) fn start<C>(
    start: impl FnOnce() -> io::Result<C>,
    pid: impl FnOnce(&C) -> Option<u32>,
) -> io::Result<C> {
    let mut started = started();
    // The lock is held across the fork: `reap_adopted` cannot take the new child for an adopted one.
    let child = start()?;
    started.extend(pid(&child));
    Ok(child)
}

/// Removes a child that was reaped.
pub(crate) fn ended(pid: u32) {
    started().remove(&pid);
}

/// Reaps the adopted children that have ended.
#[cfg(feature = "cli")]
pub(crate) fn reap_adopted() {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    // The lock is held until the end, so every child in the table below was registered before the table was read.
    let started = started();
    let table = super::descendants::ProcessTable::read();
    let adopted = table.children().filter(|row| row.has_ended() && !started.contains(&row.pid));
    for pid in adopted.filter_map(|row| Pid::from_raw(i32::try_from(row.pid).ok()?)) {
        // It fails if the child was reaped meanwhile.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Adopted children that live.
#[cfg(feature = "cli")]
pub(crate) fn adopted() -> BTreeSet<super::descendants::ProcessId> {
    let started = started();
    let table = super::descendants::ProcessTable::read();
    let adopted = table.children().filter(|row| !row.has_ended() && !started.contains(&row.pid));
    adopted.map(super::descendants::ProcessRow::id).collect()
}

fn started() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}
