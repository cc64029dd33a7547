//! Measures the peak memory of a piece of code.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that this process has allocated now, and the maximum since the last measurement.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `code` and returns its peak of allocated bytes above the state before.
///
/// Bytes requested from the allocator count even if they are never touched. Allocations of other threads
/// count as well; a target runs none that matter.
pub fn peak_of<R>(code: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = code();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// System allocator with a counter.
struct Counting;

impl Counting {
    fn on_alloc(bytes: usize) {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Relaxed order is enough: a target runs on one thread.
        PEAK.fetch_max(held, Ordering::Relaxed);
    }

    fn on_free(bytes: usize) {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call is forwarded unchanged to the system allocator; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::on_alloc(layout.size());
        // SAFETY: the caller upholds the contract of the system allocator, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::on_alloc(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::on_free(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Counts the new size before the old one is released: both blocks may exist during the copy.
        Self::on_alloc(size);
        Self::on_free(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}
