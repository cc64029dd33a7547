//! Messages between the head, agents, drivers and workers.
//!
//! All but those of [`worker`] are calls between hosts, in sessions of authenticated members. Requests to the
//! control plane are in [`control_service`](super::control_service).

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
pub(super) use output::{FLUSH, Flush, OUTPUT, OutputLines, Stream};
