//! The children that this process has started itself.
//!
//! An agent adopts what its workers have started and left behind. To reap those, and no child that another part
//! of this process waits for, it has to tell the two apart.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a child, and notes its number before anything can reap it.
pub(crate) fn start<C>(
    start: impl FnOnce() -> io::Result<C>,
    pid: impl FnOnce(&C) -> Option<u32>,
) -> io::Result<C> {
    let mut started = started();
    let child = start()?;
    started.extend(pid(&child));
    Ok(child)
}

/// A child has been reaped.
pub(crate) fn ended(pid: u32) {
    started().remove(&pid);
}

/// Reaps the adopted children that have ended.
#[cfg(feature = "cli")]
pub(crate) fn reap_adopted() {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    // Held meanwhile: no child is started that is not noted.
    let started = started();
    let table = super::descendants::Table::read();
    let adopted = table.children().filter(|row| row.has_ended() && !started.contains(&row.pid));
    for pid in adopted.filter_map(|row| Pid::from_raw(i32::try_from(row.pid).ok()?)) {
        // It fails for one that has been reaped.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// The adopted children that live.
#[cfg(feature = "cli")]
pub(crate) fn adopted() -> BTreeSet<super::descendants::ProcessId> {
    let started = started();
    let table = super::descendants::Table::read();
    let adopted = table.children().filter(|row| !row.has_ended() && !started.contains(&row.pid));
    adopted.map(super::descendants::Row::id).collect()
}

fn started() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}
