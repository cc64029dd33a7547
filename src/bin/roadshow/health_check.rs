//! `roadshow health-check`: whether a cluster works, for probes.

use roadshow::admin::TroubleWith;
use roadshow::model::NodeState;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reach::{Desks, Reach};

/// Says by its exit code whether the cluster works: 3 if the head does not answer or its own node does not
/// live, 1 if the head cannot keep its state, else 0.
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
    let mut head = desks.head().await?;
    let (nodes, troubles) = (head.nodes().await?, head.troubles().await?);
    let living = nodes.iter().filter(|node| node.state != NodeState::Dead);
    let (nodes, heads) =
        living.fold((0, 0), |(nodes, heads), node| (nodes + 1, heads + usize::from(node.is_head)));
    if heads == 0 {
        return Err(Failure::unreachable(
            "the head answers, but its own node does not live",
            "look at `roadshow list nodes` and at the agent's log on the head's machine",
        ));
    }
    if let Some(trouble) = troubles.iter().find(|trouble| trouble.with == TroubleWith::HeadState) {
        let next = "until then do not end the head: what it has not kept would be forgotten";
        return Err(Failure::failed(&trouble.text, next));
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
    use crate::exit;
    use crate::given::{Cluster, trouble};

    async fn asked(cluster: &Cluster) -> (Outcome<()>, String) {
        let arguments = Arguments { json: true, reach: Reach { address: None, token_file: None } };
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
        (outcome, out)
    }

    #[tokio::test]
    async fn a_head_that_cannot_keep_its_state_is_not_healthy() {
        let cluster = Cluster::new();
        cluster.state().troubles.push(trouble("HEAD_STATE", "the disk is full"));
        let failure = asked(&cluster).await.0.unwrap_err();
        assert_eq!(failure.code, exit::FAILED);
        assert!(failure.to_string().starts_with("the disk is full"), "{failure}");
    }

    #[tokio::test]
    async fn a_cluster_that_works_says_so() {
        let (outcome, out) = asked(&Cluster::new()).await;
        outcome.unwrap();
        let health: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(health, json!({"healthy": true, "address": "10.0.0.5:6379", "nodes": 2}));
    }
}
