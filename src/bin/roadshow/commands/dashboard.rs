//! `roadshow dashboard`: a link that logs a browser in to the head's dashboard.

use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::CliResult;
use crate::output::CliOutput;

/// Prints a link that logs one browser in to the head's dashboard.
///
/// The link is valid once, for ten minutes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow dashboard")]
pub(crate) struct DashboardArgs {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &DashboardArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let link = connector.head().await?.dashboard_link().await?;
    match arguments.json {
        true => output.json(&json!({ "dashboard": link })),
        false => output.print(&format!("{link}\n")),
    }
}

#[cfg(test)]
mod tests {
    use roadshow::admin::{AdminReply, AdminRequest};

    use super::*;
    use crate::test_cluster::FakeCluster;

    #[tokio::test]
    async fn link_of_the_head_is_printed() {
        let cluster = FakeCluster::new();
        let link = "http://127.0.0.1:8265/login?ticket=1".to_owned();
        cluster.state().done = AdminReply::DashboardLink { link: link.clone() };
        let arguments =
            DashboardArgs { json: false, cluster_args: ClusterArgs { address: None, token_file: None } };
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        assert_eq!(out, format!("{link}\n"));
        assert_eq!(cluster.requests(), [AdminRequest::DashboardLink]);
    }
}
