//! One look for all that ask at the same time.
//!
//! A look at the process table reads files of every process. When many workers end together, a look for each
//! of them would read the square of their number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shares what is seen among threads that look at the same time.
#[derive(Debug)]
pub(super) struct SharedLook<T> {
    /// How many looks have begun.
    begun: AtomicU64,
    newest: Mutex<Newest<T>>,
}

/// What was seen last, and by the look of which number.
#[derive(Debug)]
struct Newest<T> {
    number: u64,
    seen: Option<Arc<T>>,
}

impl<T> SharedLook<T> {
    pub(super) const fn new() -> Self {
        Self { begun: AtomicU64::new(0), newest: Mutex::new(Newest { number: 0, seen: None }) }
    }

    /// Gives what a look has seen that began after this call, of this thread or of another.
    pub(super) fn look(&self, look: impl FnOnce() -> T) -> Arc<T> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = newest.seen.as_ref().filter(|_| newest.number > before) {
            return Arc::clone(seen);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let seen = Arc::new(look());
        *newest = Newest { number, seen: Some(Arc::clone(&seen)) };
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    const THREADS: usize = 40;

    #[test]
    fn threads_that_ask_at_the_same_time_share_a_look_that_is_newer_than_their_question() {
        let (shared, asked, looks) = (SharedLook::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        let look = || {
            // The first look lasts until all have asked.
            while asked.load(Ordering::SeqCst) < THREADS {
                thread::yield_now();
            }
            looks.fetch_add(1, Ordering::SeqCst) + 1
        };
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let before = looks.load(Ordering::SeqCst);
                    asked.fetch_add(1, Ordering::SeqCst);
                    assert!(*shared.look(look) > before);
                });
            }
        });
        // Two, and one more for each thread that was held up between its two steps.
        let looks = looks.into_inner();
        assert!(looks <= THREADS / 4, "{looks} looks");
        assert_eq!(*shared.look(|| looks + 1), looks + 1, "an old look answers no new question");
    }
}
