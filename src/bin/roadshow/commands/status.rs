//! `roadshow status`: overview of the cluster on one page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use roadshow::admin::{Alert, PendingActor, Query};
use roadshow::model::{EventInfo, JobInfo, NodeInfo, NodeState, Quantity};
use serde::Serialize;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::{CliResult, one_line};
use crate::output::CliOutput;
use crate::output::rows::{TableRow, last_part, quantity, shown, word};
use crate::output::table::duration;

/// Number of events on the page.
const EVENTS: usize = 3;

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

/// State of the cluster in JSON.
#[derive(Debug, Serialize)]
struct Status {
    address: SocketAddr,
    /// Version of the head's state: it grows whenever rows may have changed, but for statistics.
    snapshot: u64,
    /// Time by the head's clock, in milliseconds since 1970.
    time_ms: u64,
    nodes: Vec<NodeInfo>,
    /// Resources of the nodes that are not dead.
    resources: BTreeMap<String, ResourceUsage>,
    /// Number of jobs by state.
    jobs: BTreeMap<String, usize>,
    /// Pending actors that have waited longest.
    waiting: Vec<PendingActor>,
    /// Number of all pending actors.
    waiting_count: usize,
    alerts: Vec<Alert>,
    /// Latest events, newest first.
    events: Vec<EventInfo>,
}

/// Used and total amount of a resource.
#[derive(Debug, Default, Serialize)]
struct ResourceUsage {
    used: Quantity,
    total: Quantity,
}

pub(crate) async fn run(
    arguments: &StatusArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    // First: the rows are at least as new as the number says.
    let (snapshot, time_ms) = head.snapshot().await?;
    let (nodes, jobs) = (head.all::<NodeInfo>(Vec::new()).await?, head.all::<JobInfo>(Vec::new()).await?);
    let ((waiting, waiting_count), alerts) = (head.waiting().await?, head.alerts().await?);
    let events = head.page(Query { limit: EVENTS, ..Query::filtered(Vec::new()) }).await?.rows;
    let status = Status {
        address: connector.head_address(),
        snapshot,
        time_ms,
        resources: usage(&nodes),
        jobs: states(&jobs),
        nodes,
        waiting,
        waiting_count,
        alerts,
        events,
    };
    match arguments.json {
        true => output.json(&status),
        false => output.print(&status.page(arguments.verbose)),
    }
}

fn usage(nodes: &[NodeInfo]) -> BTreeMap<String, ResourceUsage> {
    let mut sum: BTreeMap<String, ResourceUsage> = BTreeMap::new();
    // Actors of a rejoining node keep their resources, so the node counts.
    for node in nodes.iter().filter(|node| node.state != NodeState::Dead) {
        for (resource, total) in &node.resources.0 {
            let usage = sum.entry(resource.clone()).or_default();
            usage.total.0 += total.0;
            usage.used.0 += total.0.saturating_sub(quantity(&node.available, resource).0);
        }
    }
    sum
}

fn states(jobs: &[JobInfo]) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for job in jobs {
        *states.entry(word(&job.state)).or_default() += 1;
    }
    states
}

impl Status {
    fn page(&self, verbose: bool) -> String {
        let mut page = format!("Cluster at {}\n", self.address);
        // Writing to a string cannot fail.
        let _ = self.write_alerts(&mut page);
        let _ = self.write_nodes(&mut page, verbose);
        let _ = self.write_work(&mut page);
        let _ = self.write_events(&mut page);
        page
    }

    fn write_alerts(&self, page: &mut String) -> std::fmt::Result {
        if !self.alerts.is_empty() {
            writeln!(page, "\nAlerts")?;
        }
        self.alerts.iter().try_for_each(|alert| writeln!(page, "  {}", one_line(&alert.text)))
    }

    fn write_nodes(&self, page: &mut String, verbose: bool) -> std::fmt::Result {
        writeln!(page, "\nNodes")?;
        for (title, state) in [
            ("Alive", NodeState::Alive),
            ("Draining", NodeState::Draining),
            ("Rejoining the restarted head", NodeState::Rejoining),
            ("Dead", NodeState::Dead),
        ] {
            let nodes: Vec<_> = self.nodes.iter().filter(|node| node.state == state).collect();
            // Only after a restart of the head can a node be in this state.
            if state == NodeState::Rejoining && nodes.is_empty() {
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
        for (resource, usage) in &self.resources {
            writeln!(page, "  {}  {resource}", shown(resource, usage.used, usage.total))?;
        }
        writeln!(page, "\nJobs")?;
        match self.jobs.is_empty() {
            true => writeln!(page, "  none")?,
            false => self.jobs.iter().try_for_each(|(state, count)| writeln!(page, "  {count} {state}"))?,
        }
        writeln!(page, "\nPending actors")?;
        if self.waiting.is_empty() {
            writeln!(page, "  none")?;
        }
        for PendingActor { actor_id, class, job_id, reason } in &self.waiting {
            let class = one_line(last_part(class));
            writeln!(page, "  {class} {actor_id} of job {job_id}: {}", one_line(reason))?;
        }
        // The head sends only the oldest pending actors.
        let more = self.waiting_count.saturating_sub(self.waiting.len());
        if more > 0 {
            let filter = "--filter state=PENDING_CREATION";
            writeln!(page, "  and {more} more; `roadshow list actors {filter}` shows them")?;
        }
        Ok(())
    }
}

impl Status {
    fn write_events(&self, page: &mut String) -> std::fmt::Result {
        if !self.events.is_empty() {
            writeln!(page, "\nLast events")?;
        }
        self.events.iter().try_for_each(|event| {
            let age = duration(self.time_ms.saturating_sub(event.time_ms));
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

Pending actors
  Big 0000000000000003 of job 00000001: it needs gpu 1, of which no node has any left
  and 7 more; `roadshow list actors --filter state=PENDING_CREATION` shows them

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
        assert_eq!(status["alerts"][0]["kind"], "WORKER_STARTS");
        assert_eq!((&status["snapshot"], &status["time_ms"]), (&17.into(), &62_000.into()));
        assert_eq!(status["events"][0]["kind"], "WORKER_DIED");
    }
}
