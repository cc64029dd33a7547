//! Log files of a node: those of the daemons, and the output of workers and drivers.

pub(crate) mod daemon_log;
mod reader;

pub(super) use reader::{LogError, LogReader};
