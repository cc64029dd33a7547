//! `roadshow health-check`: whether a cluster works, for probes.

use roadshow::model::NodeState;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reach::{Desks, Reach};

/// Says by its exit code whether the head answers and its own node lives: 0 if so, 3 if not.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example, as a probe of a container:\n  roadshow health-check --address=127.0.0.1:6379"
)]
pub(crate) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

pub(crate) async fn run(arguments: &Arguments, desks: &impl Desks, output: &mut Output<'_>) -> Outcome<()> {
    let nodes = desks.head().await?.nodes().await?;
    let living = nodes.iter().filter(|node| node.state != NodeState::Dead);
    let (nodes, heads) =
        living.fold((0, 0), |(nodes, heads), node| (nodes + 1, heads + usize::from(node.is_head)));
    if heads == 0 {
        return Err(Failure::unreachable(
            "the head answers, but its own node does not live",
            "look at `roadshow list nodes` and at the agent's log on the head's machine",
        ));
    }
    match arguments.json {
        true => output.json(&json!({ "healthy": true, "address": desks.head_address(), "nodes": nodes })),
        false => output
            .print(&format!("The cluster at {} works; its living nodes: {nodes}.\n", desks.head_address())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::Cluster;

    #[tokio::test]
    async fn a_cluster_that_works_says_so() {
        let arguments = Arguments { json: true, reach: Reach { address: None, token_file: None } };
        let cluster = Cluster::new();
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
        outcome.unwrap();
        let health: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(health, json!({"healthy": true, "address": "10.0.0.5:6379", "nodes": 2}));
    }
}
