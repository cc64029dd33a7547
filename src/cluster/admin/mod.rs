//! The cluster as its operators reach it: requests to a head or an agent, and their replies.

mod client;
mod connect;
mod program;
mod request;

pub use super::desk::DeskClient;
pub use super::executable::ExecutableError;
pub use super::model::{Trouble, TroubleWith, Waiting};
pub use client::{Admin, AdminError, Desk, Exchange, LogText, Submitted};
pub use connect::check_token;
pub use program::Program;
pub use request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission};
