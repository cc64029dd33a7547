//! The stack size of threads that run user code.

use rustix::process::{Resource, getrlimit};

use crate::cluster::error::ClusterError;
use crate::config::{STACK_BYTES_LEAST, STACK_BYTES_MAX, STACK_BYTES_MIN, STACK_BYTES_UNLIMITED};

/// The variable that says how large the stack is.
const VARIABLE: &str = "ROADSHOW_STACK_BYTES";

/// The size in bytes: what the program asks for, else what the environment does, else that of `main`.
pub(crate) fn bytes(asked: Option<usize>) -> Result<usize, ClusterError> {
    let refused = |from, value| ClusterError::StackSize { from, value };
    if let Some(bytes) = asked {
        return checked(bytes).ok_or_else(|| refused(".stack_bytes(..)", bytes.to_string()));
    }
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    if value.is_empty() {
        return Ok(of_main().max(of_threads()).clamp(STACK_BYTES_MIN, STACK_BYTES_MAX));
    }
    let bytes = value.to_str().and_then(|value| checked(value.trim().parse().ok()?));
    bytes.ok_or_else(|| refused(VARIABLE, value.to_string_lossy().into_owned()))
}

fn checked(bytes: usize) -> Option<usize> {
    (STACK_BYTES_LEAST..=STACK_BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// What the main thread has: its stack grows up to the limit.
fn of_main() -> usize {
    let limit = getrlimit(Resource::Stack).current;
    limit.map_or(STACK_BYTES_UNLIMITED, |bytes| usize::try_from(bytes).unwrap_or(STACK_BYTES_UNLIMITED))
}

/// What the standard library gives to threads if its own variable is set.
fn of_threads() -> usize {
    let value = std::env::var("RUST_MIN_STACK").ok();
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}
