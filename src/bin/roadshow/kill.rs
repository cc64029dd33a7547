//! `roadshow kill`: ends an actor.

use serde_json::json;

use crate::failure::Outcome;
use crate::find::find;
use crate::output::Output;
use crate::reach::{Desks, Reach};

/// Ends an actor: its messages fail from now on, and what it held is free.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow kill counter")]
pub(crate) struct Arguments {
    /// The actor's id, or its name.
    #[arg(value_name = "ACTOR")]
    actor: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

pub(crate) async fn run(arguments: &Arguments, desks: &impl Desks, output: &mut Output<'_>) -> Outcome<()> {
    let mut head = desks.head().await?;
    let actors = head.actors().await?;
    let actor = find(&actors, &arguments.actor)?;
    head.kill(actor.actor_id).await?;
    match arguments.json {
        true => output.json(&json!({ "killed": actor.actor_id })),
        false => output.print(&format!("Killed the actor {} ({}).\n", actor.actor_id, actor.class)),
    }
}

#[cfg(test)]
mod tests {
    use roadshow::admin::{AdminReply, AdminRequest};
    use roadshow::model::ActorKey;

    use super::*;
    use crate::exit;
    use crate::given::Cluster;

    async fn kill(cluster: &Cluster, actor: &str, json: bool) -> (Outcome<()>, String) {
        let reach = Reach { address: None, token_file: None };
        let arguments = Arguments { actor: actor.to_owned(), json, reach };
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
        (outcome, out)
    }

    #[tokio::test]
    async fn a_name_is_enough_to_kill() {
        let cluster = Cluster::new();
        let (outcome, out) = kill(&cluster, "counter", false).await;
        outcome.unwrap();
        assert_eq!(out, "Killed the actor 0000000000000001 (app::Counter).\n");
        assert_eq!(cluster.asked()[1], AdminRequest::Kill { actor: ActorKey(1) });
        let (outcome, out) = kill(&cluster, "1", true).await;
        outcome.unwrap();
        assert_eq!(out, "{\n  \"killed\": \"0000000000000001\"\n}\n");
    }

    #[tokio::test]
    async fn the_head_s_refusal_is_the_command_s() {
        let cluster = Cluster::new();
        cluster.state().done = AdminReply::Failed { text: "it is dead already".to_owned(), unknown: false };
        let (outcome, out) = kill(&cluster, "2", false).await;
        assert_eq!((outcome.unwrap_err().code, out.as_str()), (exit::FAILED, ""));
    }
}
