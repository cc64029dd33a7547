//! `roadshow job`: programs that run on the cluster.

mod submit;
mod wait;

use std::num::NonZero;

use clap::Subcommand;
use roadshow::model::{JobInfo, JobState};
use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::commands::list;
use crate::commands::logs;
use crate::commands::logs::{LogSelector, TailOptions};
use crate::error::CliResult;
use crate::output::Output;
use crate::output::rows::word;
use crate::output::table::{duration, or_nothing, sheet};
use crate::output::time::now_ms;

/// Submits programs to a cluster, and monitors and stops them.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    Submit(submit::SubmitArgs),
    /// Shows the state of a job.
    #[command(after_long_help = "Example:\n  roadshow job status 3")]
    Status(OneJobArgs),
    /// Shows the output of a job's driver; `roadshow logs --job` also shows the logs of its workers.
    #[command(after_long_help = "Example:\n  roadshow job logs 3 --follow")]
    Logs(JobLogsArgs),
    /// Stops a job: its driver, its workers and its actors, except detached ones.
    #[command(after_long_help = "Example:\n  roadshow job stop 3")]
    Stop(OneJobArgs),
    /// Lists the jobs, as `roadshow list jobs` does.
    #[command(after_long_help = "Example:\n  roadshow job list")]
    List(JobListArgs),
}

#[derive(Debug, clap::Args)]
struct OneJobArgs {
    /// Id of the job; its leading zeros may be omitted.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster_args: ClusterArgs,
}

#[derive(Debug, clap::Args)]
struct JobLogsArgs {
    /// Id of the job; its leading zeros may be omitted.
    #[arg(value_name = "ID")]
    id: String,
    /// Follow the log until Ctrl-C or the end of the job.
    #[arg(long, short)]
    follow: bool,
    /// Show only the last N lines.
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Print a JSON object for each line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster_args: ClusterArgs,
}

#[derive(Debug, clap::Args)]
struct JobListArgs {
    /// Maximum number of rows, as for `roadshow list jobs`.
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster_args: ClusterArgs,
}

impl JobArgs {
    pub(crate) const fn cluster_args(&self) -> &ClusterArgs {
        match &self.command {
            JobCommand::Submit(arguments) => arguments.cluster_args(),
            JobCommand::Status(arguments) | JobCommand::Stop(arguments) => &arguments.cluster_args,
            JobCommand::Logs(arguments) => &arguments.cluster_args,
            JobCommand::List(arguments) => &arguments.cluster_args,
        }
    }
}

pub(crate) async fn run(
    arguments: &JobArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    match &arguments.command {
        JobCommand::Submit(arguments) => submit::run(arguments, connector, output).await,
        JobCommand::Status(arguments) => status(arguments, connector, output).await,
        JobCommand::Logs(arguments) => driver_logs(arguments, connector, output).await,
        JobCommand::Stop(arguments) => stop(arguments, connector, output).await,
        JobCommand::List(JobListArgs { limit, json, cluster_args }) => {
            list::run(&list::ListArgs::of_jobs(cluster_args.clone(), *limit, *json), connector, output).await
        }
    }
}

async fn status(
    arguments: &OneJobArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let job: JobInfo = resolve_at_head(&mut connector.head().await?, &arguments.id).await?;
    if arguments.json {
        return output.json(&job);
    }
    let time = job.ended_ms.unwrap_or_else(now_ms).saturating_sub(job.started_ms);
    output.print(&sheet(&[
        ("job", job.job_id.to_string()),
        ("state", word(&job.state)),
        ("time", duration(time)),
        ("program", job.entrypoint.clone()),
        ("exit code", or_nothing(job.exit_code)),
        ("message", or_nothing(job.message.as_ref())),
    ]))
}

async fn driver_logs(
    arguments: &JobLogsArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let job = resolve_at_head::<JobInfo, _>(&mut connector.head().await?, &arguments.id).await?.job_id;
    let sources = logs::all_locations(connector, output).await?;
    let options = TailOptions { follow: arguments.follow, tail: arguments.tail, json: arguments.json };
    logs::show(LogSelector::Driver(job), sources, options, connector, output).await
}

async fn stop(
    arguments: &OneJobArgs,
    connector: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    let JobInfo { job_id, state, .. } = resolve_at_head(&mut head, &arguments.id).await?;
    if state.is_open() {
        head.stop_job(job_id).await?;
    }
    let state = if state.is_open() { JobState::Stopped } else { state };
    match (arguments.json, state) {
        (true, state) => output.json(&json!({ "job_id": job_id, "state": state })),
        (false, JobState::Stopped) => output.print(&format!("Stopped the job {job_id}.\n")),
        (false, state) => output.print(&format!("The job {job_id} has already ended: {}.\n", word(&state))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use roadshow::admin::AdminRequest;
    use roadshow::model::JobId;
    use serde_json::Value;

    use super::*;
    use crate::test_cluster;
    use crate::test_cluster::FakeCluster;

    fn one(id: &str, json: bool) -> OneJobArgs {
        OneJobArgs { id: id.to_owned(), json, cluster_args: ClusterArgs { address: None, token_file: None } }
    }

    async fn done(cluster: &FakeCluster, command: JobCommand) -> String {
        let arguments = JobArgs { command };
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        out
    }

    #[tokio::test]
    async fn status_shows_how_a_job_ended() {
        let expected = "\
job        00000002
state      FAILED
time       1s
program    ./fails
exit code  7
message    the process exited with code 7
";
        assert_eq!(done(&FakeCluster::new(), JobCommand::Status(one("2", false))).await, expected);
        let json: Value =
            serde_json::from_str(&done(&FakeCluster::new(), JobCommand::Status(one("2", true))).await)
                .unwrap();
        assert_eq!((&json["state"], &json["exit_code"]), (&"FAILED".into(), &7.into()));
    }

    #[tokio::test]
    async fn job_that_has_ended_is_not_stopped_again() {
        let cluster = FakeCluster::new();
        let out = done(&cluster, JobCommand::Stop(one("1", false))).await;
        assert_eq!(out, "The job 00000001 has already ended: SUCCEEDED.\n");
        assert!(matches!(cluster.requests()[..], [AdminRequest::List { .. }]), "{:?}", cluster.requests());
    }

    #[tokio::test]
    async fn running_job_is_stopped() {
        let cluster = FakeCluster::new();
        let mut running = test_cluster::jobs();
        running[0].state = JobState::Running;
        cluster.state().jobs = VecDeque::from([running]);
        let out = done(&cluster, JobCommand::Stop(one("1", true))).await;
        assert_eq!(out, "{\n  \"job_id\": \"00000001\",\n  \"state\": \"STOPPED\"\n}\n");
        assert_eq!(cluster.requests()[1], AdminRequest::StopJob { job: JobId(1) });
    }

    #[tokio::test]
    async fn logs_of_a_job_are_those_of_its_driver() {
        let cluster = FakeCluster::new();
        cluster.log(test_cluster::head_address(), "driver-1.out", (0, 1), "answer\n");
        cluster.log(test_cluster::head_address(), "driver-1.err", (0, 1), "trouble\n");
        cluster.log(test_cluster::head_address(), "worker-2.log", (2, 1), "no\n");
        let cluster_args = ClusterArgs { address: None, token_file: None };
        let logs = JobLogsArgs { id: "1".to_owned(), follow: false, tail: None, json: false, cluster_args };
        assert_eq!(done(&cluster, JobCommand::Logs(logs)).await, "answer\n");
    }
}
