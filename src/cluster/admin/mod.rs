//! The cluster as its operators reach it: requests to a head or an agent, and their replies.

mod request;

pub use request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission, Waiting};
