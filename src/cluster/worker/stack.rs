//! Stack size of the threads that run user code.

use rustix::process::{Resource, getrlimit};

use crate::cluster::error::ClusterError;
use crate::config::{STACK_BYTES_LEAST, STACK_BYTES_MAX, STACK_BYTES_MIN, STACK_BYTES_UNLIMITED};

/// Environment variable with the stack size in bytes.
const VARIABLE: &str = "ROADSHOW_STACK_BYTES";

/// Stack size in bytes: as the program requests, else as the environment does, else that of `main`.
pub(crate) fn bytes(asked: Option<usize>) -> Result<usize, ClusterError> {
    let refused = |from, value| ClusterError::StackSize { from, value };
    if let Some(bytes) = asked {
        return checked(bytes).ok_or_else(|| refused(".stack_bytes(..)", bytes.to_string()));
    }
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    if value.is_empty() {
        // A recursion that works in `main`, or in a thread of the standard library, must not overflow in a worker.
        return Ok(of_main().max(of_threads()).clamp(STACK_BYTES_MIN, STACK_BYTES_MAX));
    }
    let bytes = value.to_str().and_then(|value| checked(value.trim().parse().ok()?));
    bytes.ok_or_else(|| refused(VARIABLE, value.to_string_lossy().into_owned()))
}

fn checked(bytes: usize) -> Option<usize> {
    (STACK_BYTES_LEAST..=STACK_BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// Stack size of the main thread: the kernel grows it up to the resource limit.
fn of_main() -> usize {
    let limit = getrlimit(Resource::Stack).current;
    limit.map_or(STACK_BYTES_UNLIMITED, |bytes| usize::try_from(bytes).unwrap_or(STACK_BYTES_UNLIMITED))
}

/// Stack size that the standard library gives to threads if `RUST_MIN_STACK` is set.
fn of_threads() -> usize {
    let value = std::env::var("RUST_MIN_STACK").ok();
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}
