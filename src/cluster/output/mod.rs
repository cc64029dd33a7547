//! Output of processes: captured into log files by a node's agent, read back, and shown at a driver's terminal.
//!
//! A log is one stream of one process, such as `worker-00..01-00000001-4711.out`. A long log is rotated: the file is
//! renamed to `.out.1`, later ones to `.out.2` and so on, and the last few are kept. The numbers grow, and a rotated
//! file never changes its name again, so a reader that follows a log can resume across files.
//!
//! In a local cluster the driver captures the output of its workers and writes no files.
//!
//! ```text
//!   agent:   pipe -> capture --+--> file (log)
//!                    lines     '--> network -> driver: display -> log_dedup -> terminal -> standard error
//!   local:   pipe -> capture -----------------------> display -> log_dedup -> terminal -> standard error
//! ```
//!
//! `capture` and `display` are async and do no file I/O themselves; `file`, `reader` and the thread of `terminal`
//! block; `log_dedup` and `lines` are functions of their arguments.

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
pub(crate) use display::{Display, Retention, VARIABLE as DEDUP_VARIABLE};
pub(crate) use label::Label;
use log_dedup::OutputLine;
#[cfg(feature = "cli")]
pub(crate) use log_dedup::sanitised;
pub(crate) use name::LogName;
