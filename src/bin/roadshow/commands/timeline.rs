//! `roadshow timeline`: trace of a job for Perfetto.

use std::path::PathBuf;

use roadshow::admin::{Admin, AdminTransport, JobTimeline, Query, Sort};
use roadshow::model::JobInfo;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::file::{refuse_terminal, write_private};

/// Writes a timeline of a job: a JSON trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.
///
/// It has the lives of the job and its workers, the job's events, and tasks and handled messages on the threads of the
/// workers. Slow ones are preferred, and quick ones are sampled.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow timeline 1 > job.json")]
pub(crate) struct TimelineArgs {
    /// Id of the job; default: the job that started last.
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// Write to this file instead of the standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &TimelineArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    if arguments.output.is_none() {
        let job = arguments.job.as_ref().map_or_else(String::new, |job| format!(" {job}"));
        let command = format!("roadshow timeline{job} > job.json");
        refuse_terminal(output, "the timeline is a file for a viewer", &command)?;
    }
    let mut head = connector.head().await?;
    let job: JobInfo = match &arguments.job {
        Some(job) => resolve_at_head(&mut head, job).await?,
        None => latest(&mut head).await?,
    };
    let timeline = JobTimeline::gather(&mut head, job.job_id).await?;
    let trace = timeline.trace();
    match (trace.spans(), trace.left_out()) {
        (0, _) => output.note(&format!(
            "job {} has no tasks and messages in its timeline: workers report them each second, and the head keeps \
             those of the latest jobs until it ends",
            job.job_id
        )),
        (_, 0) => {}
        (spans, left_out) => output.note(&format!(
            "{spans} tasks and messages are in the timeline, of {} that were timed",
            left_out.saturating_add(spans as u64)
        )),
    }
    match &arguments.output {
        None => output.json_line(&trace),
        Some(file) => {
            let json = serde_json::to_string(&trace).map_err(|error| CliError::failed(error, ""))?;
            write_private(file, &json)
        }
    }
}

/// Job that started last.
async fn latest(head: &mut Admin<impl AdminTransport>) -> CliResult<JobInfo> {
    let sort = Some(Sort { key: "job_id".to_owned(), is_descending: true });
    let page = head.page::<JobInfo>(Query { limit: 1, sort, ..Query::default() }).await?;
    page.rows.into_iter().next().ok_or_else(|| {
        CliError::unknown("the cluster has had no job", "run a program with ROADSHOW_ADDRESS set")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::exit;
    use crate::test_cluster::FakeCluster;

    fn arguments(job: Option<&str>) -> TimelineArgs {
        TimelineArgs {
            job: job.map(str::to_owned),
            output: None,
            cluster_args: ClusterArgs { address: None, token_file: None },
        }
    }

    async fn timeline(cluster: &FakeCluster, job: Option<&str>) -> (CliResult<()>, String, String) {
        let arguments = arguments(job);
        cluster.run(async |connector, output| run(&arguments, connector, output).await).await
    }

    fn events<'a>(trace: &'a Value, phase: &str) -> Vec<&'a Value> {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        events.filter(|event| event["ph"] == phase).collect()
    }

    #[tokio::test]
    async fn trace_has_spans_lives_events_and_the_names_of_processes_and_threads() {
        let (outcome, out, err) = timeline(&FakeCluster::new(), Some("1")).await;
        outcome.unwrap();
        assert_eq!(err, "2 tasks and messages are in the timeline, of 9 that were timed\n");
        let trace: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(trace["displayTimeUnit"], "ms");
        assert_eq!((&trace["otherData"]["spans"], &trace["otherData"]["left_out"]), (&json!(2), &json!(7)));

        let complete = events(&trace, "X");
        let names: Vec<_> = complete.iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["job", "worker", "square", "Counter: Add"]);
        let (task, message) = (complete[2], complete[3]);
        assert_eq!(
            *task,
            json!({"name": "square", "cat": "task", "ph": "X", "ts": 2_000_000, "dur": 500_000, "pid": 2, "tid": 202,
                "args": {"function": "app::square", "job_id": "00000001"}})
        );
        assert_eq!((&message["cat"], &message["args"]["message"]), (&json!("message"), &json!("app::Add")));
        assert_eq!((&complete[1]["ts"], &complete[1]["dur"]), (&json!(1_000_000), &json!(61_000_000)));

        // Each process and thread that an event names has a name.
        let named = |kind: &str, key: &str| -> Vec<Value> {
            let all = events(&trace, "M").into_iter();
            all.filter(|event| event["name"] == kind).map(|event| event[key].clone()).collect()
        };
        let (processes, threads) = (named("process_name", "pid"), named("thread_name", "tid"));
        for event in complete.iter().chain(&events(&trace, "i")) {
            assert!(processes.contains(&event["pid"]) && threads.contains(&event["tid"]), "{event}");
        }
        let worker = events(&trace, "M").into_iter().find(|event| event["pid"] == 2).unwrap();
        assert_eq!(worker["args"]["name"], "worker 0000000000000001 on node c3d4000000000002 (other)");
        // The worker of the event is not listed any more, so the event is the job's.
        let [died] = events(&trace, "i")[..] else { panic!("one event of the job") };
        assert_eq!(
            (&died["name"], &died["s"], &died["pid"]),
            (&json!("WORKER_DIED"), &json!("g"), &json!(1))
        );
    }

    #[tokio::test]
    async fn job_that_started_last_is_the_default() {
        let (outcome, out, err) = timeline(&FakeCluster::new(), None).await;
        outcome.unwrap();
        let trace: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(trace["otherData"]["job_id"], "00000002");
        assert!(err.starts_with("job 00000002 has no tasks and messages in its timeline"), "{err}");
        let (outcome, ..) = timeline(&FakeCluster::new(), Some("7")).await;
        assert_eq!(outcome.unwrap_err().code, exit::NO_SUCH_THING);
        let cluster = FakeCluster::new();
        cluster.state().jobs[0].clear();
        assert_eq!(timeline(&cluster, None).await.0.unwrap_err().code, exit::NO_SUCH_THING);
    }

    #[tokio::test]
    async fn terminal_and_lost_head_are_errors() {
        let (cluster, arguments) = (FakeCluster::new(), arguments(None));
        let command = async |connector: &FakeCluster, output: &mut CliOutput<'_>| {
            output.are_terminals[0] = true;
            run(&arguments, connector, output).await
        };
        let (outcome, out, _) = cluster.run(command).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.code, out.as_str()), (exit::USAGE, ""));
        assert!(error.to_string().ends_with("roadshow timeline > job.json"), "{error}");
        cluster.state().is_lost = true;
        assert_eq!(timeline(&cluster, Some("1")).await.0.unwrap_err().code, exit::UNREACHABLE);
    }
}
