//! Functions that another process cannot find or call.

#[roadshow::task]
fn largest<T: Ord>(all: Vec<T>) -> Option<T> {
    all.into_iter().max()
}

/// Reads without looking.
///
/// # Safety
///
/// Look first.
#[roadshow::task]
unsafe fn blind(n: usize) -> usize {
    n
}

fn main() {}
