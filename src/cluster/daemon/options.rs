//! Start options of a daemon, and the message that it sends when it is ready.
//!
//! The command sends the options through a pipe, since the options contain the token. Other users can read the
//! arguments of a process, and its children inherit its environment.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::daemon::job_users::JobUsers;
use crate::cluster::model::{Labels, NodeId, Resources};
use crate::config::{
    LEASE_RENEW_INTERVAL, NODE_LEASE, NODE_LEASE_MAX, NODE_UNREACHABLE_AFTER, NODE_UNREACHABLE_AFTER_MIN,
};

/// Start options of a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadOptions {
    /// Directory of the state that survives a restart: the cluster's CA, the token's secret, the jobs and names.
    pub state_dir: PathBuf,
    /// Session directory of its node, with its log and its sockets.
    pub session_dir: PathBuf,
    /// Socket on which the agent of its node hands it connections. The agent listens; the head connects, and
    /// connects again whenever the agent was gone.
    pub agent_socket: PathBuf,
    /// Dashboard to serve; `None` serves none.
    #[serde(default)]
    pub dashboard: Option<DashboardOptions>,
    /// Limits of the silence of nodes and drivers.
    #[serde(default)]
    pub leases: LeaseOptions,
}

/// Times since the last heartbeat after which a head takes a node for unreachable, and a node or a driver for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOptions {
    unreachable_after: Duration,
    dead_after: Duration,
}

/// Error of lease times that contradict each other or the interval of heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeaseOptionsError {
    /// A node would be unreachable after a few late heartbeats.
    #[error(
        "a node cannot be unreachable after {} s: at least {} s are needed, since it sends a heartbeat every {} s",
        .0.as_secs_f64(), NODE_UNREACHABLE_AFTER_MIN.as_secs_f64(), LEASE_RENEW_INTERVAL.as_secs_f64()
    )]
    UnreachableTooEarly(Duration),
    /// A node would be dead before it is unreachable.
    #[error("a node that is unreachable after {} s cannot be dead after {} s", .unreachable_after.as_secs_f64(), .dead_after.as_secs_f64())]
    DeadBeforeUnreachable {
        /// Time after which a node is unreachable.
        unreachable_after: Duration,
        /// Time after which it is dead.
        dead_after: Duration,
    },
    /// Sessions of a silent member are dropped before it is dead.
    #[error("a node cannot be dead only after {} s: at most {} s are possible", .0.as_secs_f64(), NODE_LEASE_MAX.as_secs_f64())]
    DeadTooLate(Duration),
}

impl LeaseOptions {
    /// Checks both times.
    ///
    /// # Errors
    ///
    /// [`LeaseOptionsError`] if they are out of range, or in the wrong order.
    pub fn new(unreachable_after: Duration, dead_after: Duration) -> Result<Self, LeaseOptionsError> {
        if unreachable_after < NODE_UNREACHABLE_AFTER_MIN {
            return Err(LeaseOptionsError::UnreachableTooEarly(unreachable_after));
        }
        if unreachable_after >= dead_after {
            return Err(LeaseOptionsError::DeadBeforeUnreachable { unreachable_after, dead_after });
        }
        if dead_after > NODE_LEASE_MAX {
            return Err(LeaseOptionsError::DeadTooLate(dead_after));
        }
        Ok(Self { unreachable_after, dead_after })
    }

    /// Time after which a node is unreachable.
    #[must_use]
    pub fn unreachable_after(&self) -> Duration {
        self.unreachable_after
    }

    /// Time after which a node or a driver is dead.
    #[must_use]
    pub fn dead_after(&self) -> Duration {
        self.dead_after
    }
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { unreachable_after: NODE_UNREACHABLE_AFTER, dead_after: NODE_LEASE }
    }
}

/// Options of the dashboard that a head serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DashboardOptions {
    /// IP address to listen at. Any but a loopback address is served over TLS.
    pub host: IpAddr,
    /// TCP port to listen at; 0 selects any free port.
    pub port: u16,
    /// True if a dashboard that cannot be served is an error; otherwise the head starts without it.
    pub is_required: bool,
    /// Host name or IP address in the links to the dashboard.
    pub link_host: String,
    /// Further host names by which browsers reach the dashboard.
    pub names: Vec<String>,
}

/// Dashboard of a head that is ready.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DashboardStatus {
    /// The head was started without a dashboard.
    #[default]
    Off,
    /// The head serves its dashboard.
    Serving {
        /// Link that logs one browser in.
        link: String,
    },
    /// The dashboard was not required, and cannot be served.
    Unavailable {
        /// Reason, and the next step.
        why: String,
    },
}

/// Start options of an agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOptions {
    /// Directory of the node's logs and sockets, and of its jobs' files.
    pub session_dir: PathBuf,
    /// IP address of the node, on which the agent listens and which it advertises.
    pub host: IpAddr,
    /// TCP port; 0 selects any free port.
    pub port: u16,
    /// Addresses of the head in the order of the attempts; empty on the head's own node.
    pub heads: Vec<SocketAddr>,
    /// Socket on which to listen for the head; `None` on other nodes.
    pub head_socket: Option<PathBuf>,
    /// Token that admits the node to the cluster.
    pub token: String,
    /// Display name of the node.
    pub node_name: String,
    /// Resources that the node offers.
    pub resources: Resources,
    /// Labels of the node.
    pub labels: Labels,
    /// Number of workers that the node runs for each job.
    pub workers: u32,
    /// Users that workers and submitted drivers run as.
    #[serde(default)]
    pub job_users: JobUsers,
}

impl AgentOptions {
    /// Returns true if the head runs on this node.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.heads.is_empty()
    }
}

impl fmt::Debug for AgentOptions {
    /// Leaves out the token, since options may end up in a log.
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

/// Ready message of a head: the agent of its node may start.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadReady {
    /// Token of the cluster.
    pub token: String,
    /// Dashboard of the head.
    #[serde(default)]
    pub dashboard: DashboardStatus,
}

impl fmt::Debug for DashboardStatus {
    /// Leaves out the link, which logs in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::Serving { .. } => f.write_str("Serving { .. }"),
            Self::Unavailable { why } => f.debug_struct("Unavailable").field("why", why).finish(),
        }
    }
}

impl fmt::Debug for HeadReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadReady(..)")
    }
}

/// Ready message of an agent: its node has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReady {
    /// Address of the node.
    pub address: SocketAddr,
    /// Id of the node.
    pub node_id: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_times_are_several_heartbeats_and_in_order() {
        let seconds = Duration::from_secs_f64;
        let check = |unreachable, dead| LeaseOptions::new(seconds(unreachable), seconds(dead));
        assert_eq!(check(3.0, 10.0), Ok(LeaseOptions::default()));
        assert!(check(2.0, 2.5).is_ok() && check(49.0, 50.0).is_ok());
        for (unreachable, dead, why) in [
            (
                1.9,
                10.0,
                "unreachable after 1.9 s: at least 2 s are needed, since it sends a heartbeat every 0.5 s",
            ),
            (3.0, 3.0, "unreachable after 3 s cannot be dead after 3 s"),
            (3.0, 50.5, "dead only after 50.5 s: at most 50 s"),
        ] {
            let error = check(unreachable, dead).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

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
