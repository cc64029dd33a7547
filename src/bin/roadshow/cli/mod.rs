//! Command-line arguments that several commands share, checked before any work.

pub(super) mod clap_error;
pub(super) mod cluster_args;
pub(super) mod resolve_id;
pub(super) mod token;
pub(super) mod values;
