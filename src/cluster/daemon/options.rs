//! What a daemon is told when it is started, and what it says when it is ready.
//!
//! The command sends the options through a pipe, since arguments and environments can be read by others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::daemon::job_users::JobUsers;
use crate::cluster::model::{Labels, NodeId, Resources};

/// What a head is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadOptions {
    /// Where it keeps what its next life needs: the cluster's CA, the token's secret, the jobs and names.
    pub state_dir: PathBuf,
    /// The session of its node, for its log and its sockets.
    pub session_dir: PathBuf,
    /// The socket on which its node's agent hands it connections: the agent listens, the head connects,
    /// and again whenever the agent was gone.
    pub agent_socket: PathBuf,
}

/// What an agent is to be.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOptions {
    /// Where the node keeps its logs, its sockets and its jobs' files.
    pub session_dir: PathBuf,
    /// Where the node is reached, and where the agent listens.
    pub host: IpAddr,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// Where the head is reached, in the order in which they are tried; none on its own node.
    pub heads: Vec<SocketAddr>,
    /// The socket on which to listen for the head; none on other nodes.
    pub head_socket: Option<PathBuf>,
    /// What proves that the node belongs to the cluster.
    pub token: String,
    /// What the node is called.
    pub node_name: String,
    /// What the node has for work.
    pub resources: Resources,
    /// What the node is labelled with.
    pub labels: Labels,
    /// How many workers it runs for each job.
    pub workers: u32,
    /// The users that workers and submitted drivers run as.
    #[serde(default)]
    pub job_users: JobUsers,
}

impl AgentOptions {
    /// Whether the head runs on this node.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.heads.is_empty()
    }
}

impl fmt::Debug for AgentOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentOptions")
            .field("session_dir", &self.session_dir)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("heads", &self.heads)
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
}

/// A head that is ready for its node's agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadReady {
    /// The cluster's token.
    pub token: String,
}

impl fmt::Debug for HeadReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadReady(..)")
    }
}

/// An agent whose node has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReady {
    /// Where the node is reached.
    pub address: SocketAddr,
    /// The node.
    pub node_id: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_pass_as_json_and_show_no_secret() {
        let options = AgentOptions {
            session_dir: PathBuf::from("session"),
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            heads: Vec::new(),
            head_socket: Some(PathBuf::from("head.sock")),
            token: "rs1_secret".to_owned(),
            node_name: "n".to_owned(),
            resources: Resources::none().with(Resources::CPU, 0.5),
            labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
            workers: 1,
            job_users: JobUsers::Agent,
        };
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<AgentOptions>(&json).unwrap(), options);
        assert!(!format!("{options:?}").contains("secret"));
        assert!(options.is_head());
    }
}
