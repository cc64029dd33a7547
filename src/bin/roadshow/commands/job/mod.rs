//! `roadshow job`: programs that run on the cluster.

mod submit;
mod wait;

use std::num::NonZero;

use clap::Subcommand;
use roadshow::model::{JobInfo, JobState};
use serde_json::json;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::find_at;
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
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Submit(submit::Arguments),
    /// Shows the state of a job.
    #[command(after_long_help = "Example:\n  roadshow job status 3")]
    Status(OneJob),
    /// Shows the output of a job's driver; `roadshow logs --job` also shows the logs of its workers.
    #[command(after_long_help = "Example:\n  roadshow job logs 3 --follow")]
    Logs(Logs),
    /// Stops a job: its driver, its workers and its actors, except detached ones.
    #[command(after_long_help = "Example:\n  roadshow job stop 3")]
    Stop(OneJob),
    /// Lists the jobs, as `roadshow list jobs` does.
    #[command(after_long_help = "Example:\n  roadshow job list")]
    List(List),
}

#[derive(Debug, clap::Args)]
struct OneJob {
    /// Id of the job; its leading zeros may be omitted.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ClusterArgs,
}

#[derive(Debug, clap::Args)]
struct Logs {
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
    reach: ClusterArgs,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Maximum number of rows, as for `roadshow list jobs`.
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ClusterArgs,
}

impl Arguments {
    pub(crate) const fn reach(&self) -> &ClusterArgs {
        match &self.command {
            Command::Submit(arguments) => arguments.reach(),
            Command::Status(arguments) | Command::Stop(arguments) => &arguments.reach,
            Command::Logs(arguments) => &arguments.reach,
            Command::List(arguments) => &arguments.reach,
        }
    }
}

pub(crate) async fn run(
    arguments: &Arguments,
    desks: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    match &arguments.command {
        Command::Submit(arguments) => submit::run(arguments, desks, output).await,
        Command::Status(arguments) => status(arguments, desks, output).await,
        Command::Logs(arguments) => driver_logs(arguments, desks, output).await,
        Command::Stop(arguments) => stop(arguments, desks, output).await,
        Command::List(List { limit, json, reach }) => {
            list::run(&list::Arguments::of_jobs(reach.clone(), *limit, *json), desks, output).await
        }
    }
}

async fn status(arguments: &OneJob, desks: &impl AdminConnector, output: &mut Output<'_>) -> CliResult<()> {
    let job: JobInfo = find_at(&mut desks.head().await?, &arguments.id).await?;
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
    arguments: &Logs,
    desks: &impl AdminConnector,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let job = find_at::<JobInfo, _>(&mut desks.head().await?, &arguments.id).await?.job_id;
    let sources = logs::all_locations(desks, output).await?;
    let options = TailOptions { follow: arguments.follow, tail: arguments.tail, json: arguments.json };
    logs::show(LogSelector::Driver(job), sources, options, desks, output).await
}

async fn stop(arguments: &OneJob, desks: &impl AdminConnector, output: &mut Output<'_>) -> CliResult<()> {
    let mut head = desks.head().await?;
    let JobInfo { job_id, state, .. } = find_at(&mut head, &arguments.id).await?;
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
    use crate::test_cluster::Cluster;

    fn one(id: &str, json: bool) -> OneJob {
        OneJob { id: id.to_owned(), json, reach: ClusterArgs { address: None, token_file: None } }
    }

    async fn done(cluster: &Cluster, command: Command) -> String {
        let arguments = Arguments { command };
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
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
        assert_eq!(done(&Cluster::new(), Command::Status(one("2", false))).await, expected);
        let json: Value =
            serde_json::from_str(&done(&Cluster::new(), Command::Status(one("2", true))).await).unwrap();
        assert_eq!((&json["state"], &json["exit_code"]), (&"FAILED".into(), &7.into()));
    }

    #[tokio::test]
    async fn job_that_has_ended_is_not_stopped_again() {
        let cluster = Cluster::new();
        let out = done(&cluster, Command::Stop(one("1", false))).await;
        assert_eq!(out, "The job 00000001 has already ended: SUCCEEDED.\n");
        assert!(matches!(cluster.asked()[..], [AdminRequest::List { .. }]), "{:?}", cluster.asked());
    }

    #[tokio::test]
    async fn running_job_is_stopped() {
        let cluster = Cluster::new();
        let mut running = test_cluster::jobs();
        running[0].state = JobState::Running;
        cluster.state().jobs = VecDeque::from([running]);
        let out = done(&cluster, Command::Stop(one("1", true))).await;
        assert_eq!(out, "{\n  \"job_id\": \"00000001\",\n  \"state\": \"STOPPED\"\n}\n");
        assert_eq!(cluster.asked()[1], AdminRequest::StopJob { job: JobId(1) });
    }

    #[tokio::test]
    async fn logs_of_a_job_are_those_of_its_driver() {
        let cluster = Cluster::new();
        cluster.log(test_cluster::head_address(), "driver-1.out", (0, 1), "answer\n");
        cluster.log(test_cluster::head_address(), "driver-1.err", (0, 1), "trouble\n");
        cluster.log(test_cluster::head_address(), "worker-2.log", (2, 1), "no\n");
        let reach = ClusterArgs { address: None, token_file: None };
        let logs = Logs { id: "1".to_owned(), follow: false, tail: None, json: false, reach };
        assert_eq!(done(&cluster, Command::Logs(logs)).await, "answer\n");
    }
}
