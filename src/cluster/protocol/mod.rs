//! What head, agents and drivers ask of each other, as calls to each other's hosts.
//!
//! All of them travel in sessions of proven members. Members ask the control plane as described in
//! [`control`](super::control_service).

mod executable;
mod job;
mod membership;
mod node;
mod output;
pub(super) mod worker;

pub(super) use executable::{
    EXECUTABLE, ExecutableReply, ExecutableRequest, FETCH, FetchCommand, FetchReply, FetchRequest,
};
pub(super) use job::{JOB, JOB_EVENT, JobRequest, JobSpec, Variables, is_secret};
pub(super) use membership::{MEMBERSHIP, MembershipUpdate};
pub(super) use node::{AGENT_COMMAND, AgentCommand, NODE, NodeEvent, NodeReply, NodeRequest};
pub(super) use output::{FLUSH, Flush, OUTPUT, Output, Stream};
