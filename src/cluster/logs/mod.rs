//! What processes print: captured into files by a node's agent, read back, and shown at a driver's terminal.
//!
//! A log is one stream of one process, such as `worker-00..01-00000001-4711.out`. When it gets long it is
//! put aside as `.out.1`, then `.out.2` and so on, and a new one is begun; the last few are kept. The
//! numbers grow and a file never changes its name again, so that whoever follows a log can go on where it
//! was, also across files.
//!
//! In a local cluster the driver captures the output of its workers and writes no files.
//!
//! `capture` and `display` are async and do no file I/O themselves; `file`, `reader` and the thread of
//! `terminal` block; `folding` and `split` are functions of their arguments.

mod capture;
mod display;
mod file;
mod folding;
mod label;
mod name;
mod outlet;
#[cfg(feature = "cli")]
pub(crate) mod own;
#[cfg(feature = "cli")]
mod reader;
mod split;
mod terminal;

use serde::{Deserialize, Serialize};

pub(crate) use capture::{Capture, Captured, Flusher};
pub(crate) use display::{Display, Kept, VARIABLE as DEDUP_VARIABLE};
use folding::OutputLine;
#[cfg(feature = "cli")]
pub(crate) use folding::harmless;
pub(crate) use label::Label;
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
