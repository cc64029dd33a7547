//! `roadshow status`: overview of the cluster on one page.

use std::fmt::Write as _;

use roadshow::admin::{ClusterStatus, PendingActor, RestartCounts};
use roadshow::model::{NodeInfo, NodeState, Quantity};

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::{CliResult, one_line};
use crate::output::CliOutput;
use crate::output::rows::{TableRow, last_part, quantity, shown, word};
use crate::output::table::duration;

/// Shows an overview of the cluster: alerts, nodes, resources in use, jobs, pending actors, and the last events.
///
/// The head answers with its current state: a node that has just joined is included.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow status -v")]
pub(crate) struct StatusArgs {
    /// Also show each node's resources, labels and session directory.
    #[arg(long, short)]
    verbose: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

/// Overview of the cluster, and its text.
struct Status(ClusterStatus);

pub(crate) async fn run(
    arguments: &StatusArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    let status = Status(ClusterStatus::read(&mut head, Some(connector.head_address())).await?);
    match arguments.json {
        true => output.json(&status.0),
        false => output.print(&status.page(arguments.verbose)),
    }
}

impl Status {
    fn page(&self, verbose: bool) -> String {
        let address = self.0.address.map_or_else(String::new, |address| address.to_string());
        let mut page = format!("Cluster at {address}\n");
        // Writing to a string cannot fail.
        let _ = self.write_alerts(&mut page);
        let _ = self.write_nodes(&mut page, verbose);
        let _ = self.write_work(&mut page);
        let _ = self.write_events(&mut page);
        page
    }

    fn write_alerts(&self, page: &mut String) -> std::fmt::Result {
        if !self.0.alerts.is_empty() {
            writeln!(page, "\nAlerts")?;
        }
        self.0.alerts.iter().try_for_each(|alert| writeln!(page, "  {}", one_line(&alert.text)))
    }

    fn write_nodes(&self, page: &mut String, verbose: bool) -> std::fmt::Result {
        writeln!(page, "\nNodes")?;
        for (title, state) in [
            ("Alive", NodeState::Alive),
            ("Draining", NodeState::Draining),
            ("Unreachable", NodeState::Unreachable),
            ("Rejoining the restarted head", NodeState::Rejoining),
            ("Dead", NodeState::Dead),
        ] {
            let nodes: Vec<_> = self.0.nodes.iter().filter(|node| node.state == state).collect();
            // Nodes are rarely in these states, and never for long.
            if matches!(state, NodeState::Unreachable | NodeState::Rejoining) && nodes.is_empty() {
                continue;
            }
            writeln!(page, "  {title}: {}", nodes.len())?;
            for node in nodes {
                let head = if node.is_head { ", head" } else { "" };
                let cause =
                    node.cause.as_ref().map_or_else(String::new, |cause| format!(": {}", one_line(cause)));
                writeln!(
                    page,
                    "    {}  {}  {}{head}{cause}",
                    node.id(),
                    node.address,
                    one_line(&node.hostname)
                )?;
                if verbose && node.state != NodeState::Dead {
                    write_details(page, node)?;
                }
            }
        }
        Ok(())
    }

    fn write_work(&self, page: &mut String) -> std::fmt::Result {
        writeln!(page, "\nResources (used/total)")?;
        for (resource, usage) in &self.0.resources {
            writeln!(page, "  {}  {resource}", shown(resource, usage.used, usage.total))?;
        }
        writeln!(page, "\nJobs")?;
        match self.0.jobs.is_empty() {
            true => writeln!(page, "  none")?,
            false => self.0.jobs.iter().try_for_each(|(state, count)| writeln!(page, "  {count} {state}"))?,
        }
        let RestartCounts { total, last_hour } = self.0.restarts;
        if total > 0 {
            writeln!(page, "\nRestarts of actors")?;
            writeln!(page, "  {last_hour} in the last hour, {total} since the head was started")?;
        }
        writeln!(page, "\nPending actors")?;
        if self.0.waiting.is_empty() {
            writeln!(page, "  none")?;
        }
        for PendingActor { actor_id, class, job_id, reason } in &self.0.waiting {
            let class = one_line(last_part(class));
            writeln!(page, "  {class} {actor_id} of job {job_id}: {}", one_line(reason))?;
        }
        // The head sends only the oldest pending actors.
        let more = self.0.waiting_count.saturating_sub(self.0.waiting.len());
        if more > 0 {
            let filter = "--filter state!=ALIVE --filter state!=DEAD";
            writeln!(page, "  and {more} more; `roadshow list actors {filter}` shows them")?;
        }
        Ok(())
    }

    fn write_events(&self, page: &mut String) -> std::fmt::Result {
        if !self.0.events.is_empty() {
            writeln!(page, "\nLast events")?;
        }
        self.0.events.iter().try_for_each(|event| {
            let age = duration(self.0.time_ms.saturating_sub(event.time_ms));
            writeln!(page, "  {age} ago  {}  {}", word(&event.kind), one_line(&event.text))
        })
    }
}

fn write_details(page: &mut String, node: &NodeInfo) -> std::fmt::Result {
    for (resource, total) in &node.resources.0 {
        let used = Quantity(total.0.saturating_sub(quantity(&node.available, resource).0));
        writeln!(page, "      {}  {resource}", shown(resource, used, *total))?;
    }
    let labels: Vec<_> = node.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
    if !labels.is_empty() {
        writeln!(page, "      labels {}", labels.join(", "))?;
    }
    writeln!(page, "      {} workers, {} actors, agent pid {}", node.workers, node.actors, node.pid)?;
    writeln!(page, "      files in {}", one_line(&node.session_dir))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::test_cluster::FakeCluster;

    async fn shown_status(verbose: bool, json: bool) -> String {
        let arguments =
            StatusArgs { verbose, json, cluster_args: ClusterArgs { address: None, token_file: None } };
        let cluster = FakeCluster::new();
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        out
    }

    #[tokio::test]
    async fn page_has_alerts_nodes_resources_jobs_and_pending_actors() {
        let expected = "\
Cluster at 10.0.0.5:6379

Alerts
  job 00000002: its workers crash

Nodes
  Alive: 1
    a1b2000000000001  10.0.0.5:6379  head, head
  Draining: 1
    c3d4000000000002  10.0.0.6:40001  other
  Dead: 1
    e5f6000000000003  10.0.0.7:40001  other: it was not heard of for 10 s

Resources (used/total)
  0.5/6  cpu
  1/1  gpu
  0 B/8.0 GiB  memory

Jobs
  1 FAILED
  1 SUCCEEDED

Restarts of actors
  2 in the last hour, 5 since the head was started

Pending actors
  Big 0000000000000003 of job 00000001: it needs gpu 1, of which no node has any left
  and 7 more; `roadshow list actors --filter state!=ALIVE --filter state!=DEAD` shows them

Last events
  1m00s ago  WORKER_DIED  it was killed by signal 9; 1 actor ended with it
  1m01s ago  NODE_JOINED  it joined: head at 10.0.0.5:6379
";
        assert_eq!(shown_status(false, false).await, expected);
        let verbose = shown_status(true, false).await;
        assert!(
            verbose.contains("      0.5/4  cpu\n") && verbose.contains("      labels zone=a\n"),
            "{verbose}"
        );
    }

    #[tokio::test]
    async fn json_is_one_object() {
        let status: Value = serde_json::from_str(&shown_status(false, true).await).unwrap();
        assert_eq!(status["address"], "10.0.0.5:6379");
        assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(status["resources"]["cpu"]["used"], 0.5);
        assert_eq!(status["jobs"]["FAILED"], 1);
        assert_eq!(status["waiting"][0]["class"], "app::Big");
        assert_eq!(status["waiting_count"], 8);
        assert_eq!((&status["restarts"]["total"], &status["restarts"]["last_hour"]), (&5.into(), &2.into()));
        assert_eq!(status["alerts"][0]["kind"], "WORKER_STARTS");
        assert_eq!((&status["snapshot"], &status["time_ms"]), (&17.into(), &62_000.into()));
        assert_eq!(status["events"][0]["kind"], "WORKER_DIED");
    }
}
