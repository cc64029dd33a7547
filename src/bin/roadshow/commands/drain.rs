//! `roadshow drain`: removes a node from the cluster gracefully.

use roadshow::model::NodeInfo;
use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::error::{CliError, CliResult};
use crate::output::Output;

/// Removes a node from the cluster gracefully: it gets no new work, and ends when its jobs have ended.
///
/// The node of the head cannot be drained; use `roadshow stop` there to end the cluster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow drain a1b2c3d4")]
pub(crate) struct DrainArgs {
    /// Id of the node, or its name if no other node has that name.
    #[arg(value_name = "NODE")]
    node: String,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &DrainArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    let node: NodeInfo = resolve_at_head(&mut head, &arguments.node).await?;
    if node.is_head {
        return Err(CliError::failed(
            format!("the node {} is the head's, and the cluster needs it", node.node_id),
            "to end the cluster, run `roadshow stop` on its machine",
        ));
    }
    head.drain(node.node_id).await?;
    match arguments.json {
        true => output.json(&json!({ "draining": node.node_id })),
        false => output.print(&format!(
            "The node {} ({}) is draining: it gets no new work, and ends when its jobs have ended. \
             `roadshow list nodes` shows its state; then run `roadshow stop` on its machine.\n",
            node.node_id, node.address
        )),
    }
}

#[cfg(test)]
mod tests {
    use roadshow::admin::AdminRequest;

    use super::*;
    use crate::test_cluster::{FakeCluster, OTHER};

    #[tokio::test]
    async fn node_is_drained_by_its_name() {
        let cluster_args = ClusterArgs { address: None, token_file: None };
        let arguments = DrainArgs { node: "other".to_owned(), json: true, cluster_args };
        let cluster = FakeCluster::new();
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        assert_eq!(out, "{\n  \"draining\": \"c3d4000000000002\"\n}\n");
        assert_eq!(cluster.requests()[1], AdminRequest::Drain { node: OTHER });
    }
}
