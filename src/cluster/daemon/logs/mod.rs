//! Log files of a node: the daemons' own, and what workers and drivers have written.

pub(crate) mod daemon_log;
mod reader;

pub(super) use reader::{LogError, LogReader};
