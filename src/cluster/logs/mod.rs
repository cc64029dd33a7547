//! What processes print: captured into files by a node's agent, read back, and shown at a driver's terminal.
//!
//! A log is one stream of one process, such as `worker-00..01-00000001-4711.out`. When it gets long it is
//! put aside as `.out.1`, then `.out.2` and so on, and a new one is begun; the last few are kept. The
//! numbers grow and a file never changes its name again, so that whoever follows a log can go on where it
//! was, also across files.
//!
//! `capture` is async and does no file I/O itself; `file` and `reader` block; `folding` and `split` are
//! functions of their arguments.

#[cfg(feature = "cli")]
mod capture;
#[cfg(feature = "cli")]
mod file;
mod folding;
#[cfg(feature = "cli")]
mod name;
#[cfg(feature = "cli")]
mod outlet;
#[cfg(feature = "cli")]
pub(crate) mod own;
#[cfg(feature = "cli")]
mod reader;
#[cfg(feature = "cli")]
mod split;

use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
pub(crate) use capture::{Capture, CapturedLines};
pub(crate) use folding::{Folding, Shown};
#[cfg(feature = "cli")]
pub(crate) use name::LogName;
#[cfg(feature = "cli")]
pub(crate) use reader::{LogError, LogReader};

/// Which of a process's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Err,
}
