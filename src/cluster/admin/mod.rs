//! Admin API of a cluster: requests to a head or an agent, and their replies.

mod client;
mod connect;
mod lists;
mod report;
mod request;
mod status;
mod submission;
mod timeline;

pub use super::executable::ExecutableError;
pub use super::listing::{Filter, GroupCounts, Kind, Page, Query, QueryError, Row, Sort, joined};
pub use super::model::{Alert, AlertKind, PendingActor, RestartCounts};
pub use super::security::token_rpc::TokenRpcClient;
pub use client::{Admin, AdminEndpoint, AdminError, AdminTransport, LogText, SubmittedJob};
pub use connect::check_token;
pub use lists::AdminRow;
pub use report::{JobReport, LogTail, REPORT_SCHEMA, ReportRows};
pub use request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission};
pub use status::{ClusterStatus, ResourceUsage};
pub use submission::Program;
pub use timeline::{ChromeTrace, JobTimeline};

/// Makes log text safe to print on a terminal: every control sequence except colours becomes visible text.
///
/// A colour ends with its line. Of a line that carriage returns overwrite, as progress bars do, the last state
/// remains.
///
/// # Examples
///
/// ```
/// assert_eq!(roadshow::admin::harmless("10 %\r20 %\x1b[2J\n"), "20 %^[[2J\n");
/// ```
pub fn harmless(text: &str) -> String {
    super::output::sanitised(text)
}
