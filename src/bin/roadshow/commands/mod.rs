//! Subcommands, one module for each.

pub(super) mod dashboard;
pub(super) mod drain;
pub(super) mod get;
pub(super) mod health_check;
pub(super) mod job;
pub(super) mod kill;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod microbenchmark;
pub(super) mod report;
pub(super) mod start;
pub(super) mod status;
pub(super) mod stop;
pub(super) mod summary;
pub(super) mod timeline;
pub(super) mod top;
