//! `roadshow health-check`: health of a cluster as an exit code, for probes.

use roadshow::admin::AlertKind;
use roadshow::model::{NodeInfo, NodeState};
use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::{CliError, CliResult};
use crate::output::Output;

/// Reports the health of the cluster by its exit code: 0 if the cluster works, 3 if the head does not answer or its
/// own node does not work, 1 if the head cannot persist its state.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example, as a probe in the container of a node:\n  roadshow health-check\n\n\
    Without --address the command asks the head of your newest session on this machine. A node listens on \
    one address only, which is 127.0.0.1 only with --host 127.0.0.1.")]
pub(crate) struct HealthCheckArgs {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &HealthCheckArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    let (nodes, alerts) = (head.all::<NodeInfo>(Vec::new()).await?, head.alerts().await?);
    let works = |node: &&NodeInfo| matches!(node.state, NodeState::Alive | NodeState::Draining);
    let live = nodes.iter().filter(works).count();
    let failure = if let Some(alert) = alerts.iter().find(|alert| alert.kind == AlertKind::HeadState) {
        let next = "do not stop the head before: changes that it has not persisted would be lost";
        Some(CliError::failed(&alert.text, next))
    } else if !nodes.iter().filter(works).any(|node| node.is_head) {
        Some(CliError::unreachable(
            "the head answers, but its own node does not work",
            "see `roadshow list nodes`, and the agent's log on the head's machine",
        ))
    } else {
        None
    };
    let (address, healthy) = (connector.head_address(), failure.is_none());
    if arguments.json {
        let alerts: Vec<_> = alerts.iter().map(|alert| &alert.text).collect();
        output.json(&json!({ "healthy": healthy, "address": address, "nodes": live, "alerts": alerts }))?;
    } else if healthy {
        output.print(&format!("The cluster at {address} works; live nodes: {live}.\n"))?;
    }
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::test_cluster::{FakeCluster, alert};

    async fn checked(cluster: &FakeCluster) -> (CliResult<()>, String) {
        let arguments =
            HealthCheckArgs { json: true, cluster_args: ClusterArgs { address: None, token_file: None } };
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        (outcome, out)
    }

    #[tokio::test]
    async fn head_that_cannot_persist_its_state_is_not_healthy() {
        let cluster = FakeCluster::new();
        cluster.state().alerts.push(alert("HEAD_STATE", "the disk is full"));
        let (outcome, out) = checked(&cluster).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, exit::FAILED);
        assert!(failure.to_string().starts_with("the disk is full"), "{failure}");
        let health: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&health["healthy"], &health["alerts"][1]), (&false.into(), &"the disk is full".into()));
    }

    #[tokio::test]
    async fn working_cluster_is_healthy() {
        let (outcome, out) = checked(&FakeCluster::new()).await;
        outcome.unwrap();
        let health: serde_json::Value = serde_json::from_str(&out).unwrap();
        let alerts = ["job 00000002: its workers crash"];
        let expected = json!({"healthy": true, "address": "10.0.0.5:6379", "nodes": 2, "alerts": alerts});
        assert_eq!(health, expected);
    }
}
