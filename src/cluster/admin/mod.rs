//! The cluster as its operators reach it: requests to a head or an agent, and their replies.

mod client;
mod connect;
mod lists;
mod request;
mod submission;

pub use super::executable::ExecutableError;
pub use super::listing::{Counts, Filter, Kind, Page, Query, QueryError, Row, joined};
pub use super::model::{Alert, AlertKind, PendingActor};
pub use super::security::token_rpc::TokenRpcClient;
pub use client::{Admin, AdminEndpoint, AdminError, AdminTransport, LogText, SubmittedJob};
pub use connect::check_token;
pub use lists::AdminRow;
pub use request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission};
pub use submission::Program;

/// Text of a log for a terminal, which obeys nothing in it but colours.
///
/// Colours end with their line. Of a line that carriage returns have written anew, as those of progress bars
/// are, the last state is left.
///
/// # Examples
///
/// ```
/// assert_eq!(roadshow::admin::harmless("10 %\r20 %\x1b[2J\n"), "20 %^[[2J\n");
/// ```
pub fn harmless(text: &str) -> String {
    super::output::sanitised(text)
}
