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
//! `terminal` block; `log_dedup` and `lines` are functions of their arguments.

mod bounded_sender;
mod capture;
mod display;
pub(super) mod file;
mod label;
pub(super) mod lines;
mod log_dedup;
pub(super) mod name;
mod terminal;

pub(crate) use capture::{Capture, Captured, Flusher};
pub(crate) use display::{Display, Kept, VARIABLE as DEDUP_VARIABLE};
pub(crate) use label::Label;
use log_dedup::OutputLine;
#[cfg(feature = "cli")]
pub(crate) use log_dedup::harmless;
pub(crate) use name::LogName;
