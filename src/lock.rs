//! Locks under which no foreign code runs: no handler, no destructor of a program's values, no log
//! subscriber.
//!
//! Such code may send a message, and would deadlock on a lock that its own thread holds. In debug builds
//! each thread counts the locks that it holds, and tests compare the count with zero wherever foreign
//! code runs. In release builds these are the standard library's locks. Poisoning is ignored: the guarded
//! state is changed in steps that do not panic.

use std::ops::{Deref, DerefMut};
use std::sync::{self, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Mutex of the library.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

/// Reader-writer lock of the library.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

/// Guard of a held lock.
#[derive(Debug)]
pub(crate) struct Guard<G> {
    guard: G,
    _held: HeldCount,
}

/// Guard of a held mutex.
pub(crate) type Locked<'a, T> = Guard<MutexGuard<'a, T>>;

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> Locked<'_, T> {
        // Guarded state is changed in steps that do not panic, so poisoning carries no information.
        Guard::new(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    #[inline]
    pub(crate) fn read(&self) -> Guard<RwLockReadGuard<'_, T>> {
        Guard::new(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    pub(crate) fn write(&self) -> Guard<RwLockWriteGuard<'_, T>> {
        Guard::new(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<G> Guard<G> {
    #[inline(always)]
    fn new(guard: G) -> Self {
        Self { guard, _held: HeldCount::count() }
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline(always)]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// Number of the library's locks that this thread holds, in a debug build.
#[cfg(debug_assertions)]
#[must_use]
pub fn held() -> usize {
    HELD.get()
}

/// Always zero: a release build does not count locks.
#[cfg(not(debug_assertions))]
#[must_use]
pub fn held() -> usize {
    0
}

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Count of one held lock; empty in a release build.
#[derive(Debug)]
struct HeldCount;

impl HeldCount {
    #[inline(always)]
    fn count() -> Self {
        #[cfg(debug_assertions)]
        // Thread-local, so counting needs no synchronization.
        HELD.set(HELD.get() + 1);
        Self
    }
}

#[cfg(debug_assertions)]
impl Drop for HeldCount {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_locks_are_counted() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(2));
        assert_eq!(held(), 0);
        let mut locked = mutex.lock();
        *locked += 1;
        assert_eq!(held(), 1);
        {
            let _reading = lock.read();
            assert_eq!(held(), 2);
        }
        drop(locked);
        *lock.write() = 3;
        assert_eq!((held(), *mutex.lock(), *lock.read()), (0, 2, 3));
    }
}
