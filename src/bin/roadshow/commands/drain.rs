//! `roadshow drain`: takes a node out of the cluster in order.

use roadshow::model::NodeInfo;
use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::find_at;
use crate::error::{CliError, CliResult};
use crate::output::Output;

/// Takes a node out of the cluster in order: it gets no new work, and ends when its jobs have.
///
/// The head's node cannot be drained: stop the cluster instead.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow drain a1b2c3d4")]
pub(crate) struct Arguments {
    /// The node's id, or what it is called if no other is called so.
    #[arg(value_name = "NODE")]
    node: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) reach: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &Arguments,
    desks: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let mut head = desks.head().await?;
    let node: NodeInfo = find_at(&mut head, &arguments.node).await?;
    if node.is_head {
        return Err(CliError::failed(
            format!("the node {} is the head's, and through its port the cluster is reached", node.node_id),
            "`roadshow stop` on its machine ends the cluster",
        ));
    }
    head.drain(node.node_id).await?;
    match arguments.json {
        true => output.json(&json!({ "draining": node.node_id })),
        false => output.print(&format!(
            "The node {} ({}) gets no new work and ends when its jobs have; `roadshow list nodes` shows it. \
             What it leaves on its machine is then removed by `roadshow stop` there.\n",
            node.node_id, node.address
        )),
    }
}

#[cfg(test)]
mod tests {
    use roadshow::admin::AdminRequest;

    use super::*;
    use crate::test_cluster::{Cluster, OTHER};

    #[tokio::test]
    async fn a_node_is_drained_by_its_name() {
        let reach = ClusterArgs { address: None, token_file: None };
        let arguments = Arguments { node: "other".to_owned(), json: true, reach };
        let cluster = Cluster::new();
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
        outcome.unwrap();
        assert_eq!(out, "{\n  \"draining\": \"c3d4000000000002\"\n}\n");
        assert_eq!(cluster.asked()[1], AdminRequest::Drain { node: OTHER });
    }
}
