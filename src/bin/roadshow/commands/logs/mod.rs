//! `roadshow logs`: output of daemons, workers and jobs, read from the node that has it.

mod tail;

use std::time::Duration;

use roadshow::admin::LogFrom;
use roadshow::model::{ActorInfo, JobId, JobInfo, NodeId, NodeInfo, NodeState, WorkerId, WorkerSummary};
use serde::Serialize;

pub(crate) use tail::{LogSelector, LogSource, Tail};

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::cli::values::significant;
use crate::error::{CliError, CliResult, one_line};
use crate::output::Output;
use crate::output::table::{TextTable, memory, or_nothing, short};

/// Polling interval of a followed log.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Shows the output of daemons, workers and jobs, wherever in the cluster it is stored.
///
/// Without a selection the command lists the available logs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow logs --actor counter --follow --tail 20")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    which: Selection,
    /// Follow the logs until Ctrl-C or the end of the job.
    #[arg(long, short)]
    follow: bool,
    /// Show only the last N lines of each log.
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Print a JSON object for each line; without a selection, a JSON array of the logs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
struct Selection {
    /// Show the log of the worker that an actor runs in.
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Show the log of a worker.
    #[arg(long, value_name = "ID")]
    worker: Option<String>,
    /// Show the logs of a job: those of its driver and its workers.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Show the logs of a node's daemons.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
}

/// Options for reading and printing a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailOptions {
    pub(crate) follow: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) json: bool,
}

impl TailOptions {
    pub(crate) fn from(self) -> LogFrom {
        self.tail.map_or(LogFrom::Offset(0), LogFrom::Tail)
    }
}

pub(crate) async fn run(
    arguments: &LogsArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let Some((selector, sources)) = select(&arguments.which, connector, output).await? else {
        return list(arguments.json, connector, output).await;
    };
    let options = TailOptions { follow: arguments.follow, tail: arguments.tail, json: arguments.json };
    show(selector, sources, options, connector, output).await
}

/// Prints the selected logs of these nodes.
pub(crate) async fn show<D: AdminConnector>(
    selector: LogSelector,
    sources: Vec<LogSource>,
    options: TailOptions,
    connector: &D,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let mut tail = Tail::open(selector, sources, options.from(), connector).await?;
    let mut printer =
        Printer { json: options.json, of_driver: matches!(selector, LogSelector::Driver(_)), shown: None };
    if tail.is_empty() && !options.follow {
        // The file is created with the first byte written, so an existing process may have none.
        output
            .note("there is no log: nothing was written, or the log was removed to make room for newer ones");
        return Ok(());
    }
    loop {
        // The state is asked before the logs are read. If the job has ended by then, this read gets all of it.
        let goes_on = options.follow && keep_following(selector, connector).await?;
        tail.read(|source, file, text, many| printer.print(source, file, text, many, output)).await?;
        if !goes_on {
            return tail.rest(|source, file, text| printer.print(source, file, text, false, output));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        tail.discover().await?;
    }
}

/// Reports if the selected logs may still grow.
async fn keep_following(selector: LogSelector, connector: &impl AdminConnector) -> CliResult<bool> {
    let (LogSelector::Job(job) | LogSelector::Driver(job)) = selector else { return Ok(true) };
    let job = connector.head().await?.row::<JobInfo>(job, job.0).await?;
    Ok(job.is_some_and(|job| job.state.is_open()))
}

/// Prints pieces of logs as they are read.
struct Printer {
    json: bool,
    /// The logs are the two streams of a driver, and go to the two streams of this command.
    of_driver: bool,
    /// Log of the last piece printed.
    shown: Option<(NodeId, String)>,
}

/// Line of a log in JSON.
#[derive(Serialize)]
struct LogLine<'a> {
    node_id: NodeId,
    file: &'a str,
    line: &'a str,
}

impl Printer {
    fn print(
        &mut self,
        source: LogSource,
        file: &str,
        text: &str,
        many: bool,
        output: &mut Output<'_>,
    ) -> CliResult<()> {
        if self.json {
            let mut lines = text.lines();
            return lines
                .try_for_each(|line| output.json_line(&LogLine { node_id: source.node, file, line }));
        }
        if self.of_driver {
            return output.forward(file, text);
        }
        if many
            && self.shown.as_ref().is_none_or(|(node, shown)| (*node, shown.as_str()) != (source.node, file))
        {
            output.print(&format!("==> {} {} <==\n", source.node, one_line(file)))?;
            self.shown = Some((source.node, file.to_owned()));
        }
        output.print_log(text)
    }
}

/// Resolves the selection to logs and nodes; nothing without a selection.
async fn select(
    which: &Selection,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<Option<(LogSelector, Vec<LogSource>)>> {
    let mut head = connector.head().await?;
    let (selector, node) = match which {
        Selection { actor: Some(actor), .. } => {
            let (worker, node) = worker_of_actor(&resolve_at_head(&mut head, actor).await?)?;
            (LogSelector::Worker(worker), Some(node))
        }
        Selection { worker: Some(worker), .. } => {
            let worker: WorkerSummary = resolve_at_head(&mut head, worker).await?;
            (LogSelector::Worker(worker.worker_id), Some(worker.node_id))
        }
        Selection { job: Some(job), .. } => {
            (LogSelector::Job(resolve_at_head::<JobInfo, _>(&mut head, job).await?.job_id), None)
        }
        Selection { node: Some(node), .. } => {
            (LogSelector::Daemons, Some(resolve_at_head::<NodeInfo, _>(&mut head, node).await?.node_id))
        }
        Selection { .. } => return Ok(None),
    };
    // `locations` opens a connection of its own to the head.
    drop(head);
    let sources = locations(node, connector, output).await?;
    Ok(Some((selector, sources)))
}

fn worker_of_actor(actor: &ActorInfo) -> CliResult<(WorkerId, NodeId)> {
    actor.worker_id.zip(actor.node_id).ok_or_else(|| {
        let text = format!("the actor {} is in no worker", actor.actor_id);
        CliError::unknown(text, format!("`roadshow logs --job {}` shows its job's logs", actor.job_id))
    })
}

/// Nodes whose agents can be asked: all that are not dead, or the one; an error if that one is dead.
async fn locations(
    only: Option<NodeId>,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<Vec<LogSource>> {
    let mut sources = Vec::new();
    for node in connector.head().await?.all::<NodeInfo>(Vec::new()).await? {
        let is_meant = only.is_none_or(|only| only == node.node_id);
        match node.state {
            NodeState::Dead if is_meant && only.is_some() => {
                let dir = one_line(&node.session_dir);
                let text = format!("the node {} is dead", node.node_id);
                return Err(CliError::failed(
                    text,
                    format!("its logs may be on {} in {dir}", one_line(&node.hostname)),
                ));
            }
            NodeState::Dead => {}
            _ if is_meant => sources.push(LogSource { node: node.node_id, address: node.address }),
            _ => {}
        }
    }
    if let (None, []) = (only, &sources[..]) {
        output.note("no node is alive");
    }
    Ok(sources)
}

/// Nodes that may have logs of a job.
pub(crate) async fn all_locations(
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<Vec<LogSource>> {
    locations(None, connector, output).await
}

/// Available log in JSON.
#[derive(Serialize)]
struct AvailableLog {
    node_id: NodeId,
    file: String,
    worker_id: Option<WorkerId>,
    job_id: Option<JobId>,
    size: u64,
}

async fn list(json: bool, connector: &impl AdminConnector, output: &mut Output<'_>) -> CliResult<()> {
    let mut found = Vec::new();
    for LogSource { node, address } in locations(None, connector, output).await? {
        let files = connector.agent(address).await?.log_files().await?.into_iter();
        found.extend(files.map(|file| AvailableLog {
            node_id: node,
            file: file.file,
            worker_id: file.worker,
            job_id: file.job,
            size: file.size,
        }));
    }
    if json {
        return output.json(&found);
    }
    let mut table = TextTable::new(&["NODE", "LOG", "JOB", "WORKER", "SIZE"]);
    for AvailableLog { node_id, file, worker_id, job_id, size } in found {
        let size = memory(size as f64);
        let own = |id: Option<String>| or_nothing(id.as_deref().map(significant));
        let (job, worker) = (job_id.map(|id| id.to_string()), worker_id.map(|id| id.to_string()));
        table.push(vec![short(node_id), file, own(job), own(worker), size]);
    }
    output.print(&table.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde_json::Value;

    use super::*;
    use crate::exit;
    use crate::test_cluster;
    use crate::test_cluster::{FakeCluster, head_address, other_address};

    fn cluster() -> FakeCluster {
        let cluster = FakeCluster::new();
        cluster.log(head_address(), "agent.log", (0, 0), "agent one\nagent two\n");
        cluster.log(head_address(), "head.log", (0, 0), "head one\n");
        cluster.log(head_address(), "driver-1.out", (0, 1), "answer\n");
        cluster.log(other_address(), "worker-1.log", (1, 1), "one\ntwo\nthree");
        cluster
    }

    async fn logs(cluster: &FakeCluster, which: Selection, options: TailOptions) -> (CliResult<()>, String) {
        let TailOptions { follow, tail, json } = options;
        let cluster_args = ClusterArgs { address: None, token_file: None };
        let arguments = LogsArgs { which, follow, tail, json, cluster_args };
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        (outcome, out)
    }

    const ALL: TailOptions = TailOptions { follow: false, tail: None, json: false };

    fn some(id: &str) -> Option<String> {
        Some(id.to_owned())
    }

    #[tokio::test]
    async fn log_of_an_actor_is_that_of_its_worker() {
        let which = Selection { actor: some("counter"), ..Selection::default() };
        let (outcome, out) = logs(&cluster(), which, ALL).await;
        outcome.unwrap();
        assert_eq!(out, "one\ntwo\nthree");
        let (outcome, _) =
            logs(&cluster(), Selection { actor: some("2"), ..Selection::default() }, ALL).await;
        assert_eq!(outcome.unwrap_err().code, exit::NO_SUCH_THING);
    }

    #[tokio::test]
    async fn worker_without_output_has_no_log() {
        let (outcome, out) =
            logs(&cluster(), Selection { worker: some("2"), ..Selection::default() }, ALL).await;
        assert_eq!((outcome, out.as_str()), (Ok(()), ""));
    }

    #[tokio::test]
    async fn several_logs_have_headings() {
        let (outcome, out) =
            logs(&cluster(), Selection { node: some("head"), ..Selection::default() }, ALL).await;
        outcome.unwrap();
        let expected = "\
==> a1b2000000000001 agent.log <==
agent one
agent two
==> a1b2000000000001 head.log <==
head one
";
        assert_eq!(out, expected);
    }

    #[tokio::test]
    async fn tail_is_the_last_lines_of_each_log() {
        let options = TailOptions { tail: Some(1), ..ALL };
        let (outcome, out) =
            logs(&cluster(), Selection { worker: some("1"), ..Selection::default() }, options).await;
        outcome.unwrap();
        assert_eq!(out, "three");
    }

    #[tokio::test]
    async fn json_has_an_object_for_each_line_even_an_unfinished_one() {
        let options = TailOptions { json: true, ..ALL };
        let (outcome, out) =
            logs(&cluster(), Selection { job: some("1"), ..Selection::default() }, options).await;
        outcome.unwrap();
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown: Vec<_> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
        assert_eq!(shown, ["answer", "one", "two", "three"]);
        assert_eq!(
            (&lines[1]["node_id"], &lines[1]["file"]),
            (&"c3d4000000000002".into(), &"worker-1.log".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn job_is_followed_to_its_end() {
        let cluster = cluster();
        let mut running = test_cluster::jobs();
        running[0].state = roadshow::model::JobState::Running;
        cluster.state().jobs =
            VecDeque::from([running.clone(), running.clone(), running, test_cluster::jobs()]);
        let options = TailOptions { follow: true, ..ALL };
        let (outcome, out) =
            logs(&cluster, Selection { job: some("1"), ..Selection::default() }, options).await;
        outcome.unwrap();
        assert!(out.contains("answer\n") && out.ends_with("three"), "{out}");
        assert_eq!(out.matches("answer").count(), 1);
    }

    #[tokio::test]
    async fn logs_are_listed_without_a_selection() {
        let (outcome, out) = logs(&cluster(), Selection::default(), ALL).await;
        outcome.unwrap();
        assert_eq!(out.lines().count(), 5);
        assert!(out.contains("c3d40000  worker-1.log    1       1  13 B\n"), "{out}");
    }

    #[tokio::test]
    async fn logs_of_a_dead_node_are_an_error_with_their_directory() {
        let (outcome, _) =
            logs(&cluster(), Selection { node: some("e5f6"), ..Selection::default() }, ALL).await;
        let failure = outcome.unwrap_err();
        assert!(
            failure.to_string().starts_with("the node e5f6000000000003 is dead; its logs may be"),
            "{failure}"
        );
    }
}
