//! `roadshow report`: report of a job in one HTML file.

use std::path::PathBuf;

use roadshow::admin::{AdminEndpoint, JobReport};
use roadshow::model::JobInfo;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::file::{refuse_terminal, write_private};
use crate::output::time::now_ms;

/// Writes a report of a job: one HTML file that needs neither the cluster nor a network.
///
/// It has the job's times and its end, its timeline, tasks, messages, workers and actors with the causes of their
/// deaths, its events, and the ends of its logs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow report 1 > job.html")]
pub(crate) struct ReportArgs {
    /// Id of the job.
    #[arg(value_name = "JOB")]
    job: String,
    /// Write to this file instead of the standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the data of the report as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &ReportArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    if arguments.output.is_none() && !arguments.json {
        let command = format!("roadshow report {} > job.html", arguments.job);
        refuse_terminal(output, "the report is an HTML file", &command)?;
    }
    let mut head = connector.head().await?;
    let job: JobInfo = resolve_at_head(&mut head, &arguments.job).await?;
    let agent = async |address| connector.open(AdminEndpoint::Agent, address).await;
    let address = Some(connector.head_address());
    let report = JobReport::gather(&mut head, address, agent, job.job_id, now_ms()).await?;
    for missing in &report.missing {
        output.note(&format!("not in the report: {missing}"));
    }
    match (&arguments.output, arguments.json) {
        (None, true) => output.json(&report),
        (None, false) => output.print(&report.to_html()),
        (Some(file), true) => {
            let json = serde_json::to_string_pretty(&report).map_err(|error| CliError::failed(error, ""))?;
            write_private(file, &json)
        }
        (Some(file), false) => write_private(file, &report.to_html()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::exit;
    use crate::test_cluster::{FakeCluster, head_address, other_address};

    fn arguments(job: &str, json: bool) -> ReportArgs {
        ReportArgs {
            job: job.to_owned(),
            output: None,
            json,
            cluster_args: ClusterArgs { address: None, token_file: None },
        }
    }

    async fn report(cluster: &FakeCluster, job: &str, json: bool) -> String {
        let arguments = arguments(job, json);
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        out
    }

    #[tokio::test]
    async fn report_has_the_rows_and_logs_of_its_job_alone() {
        let cluster = FakeCluster::new();
        cluster.log(head_address(), "job-1.out", (0, 1), "counted <42> words\n");
        cluster.log(other_address(), "worker-2.out", (2, 2), "of another job\n");
        let json: Value = serde_json::from_str(&report(&cluster, "1", true).await).unwrap();
        assert_eq!(json["job"]["entrypoint"], "./count book.txt");
        assert_eq!(json["actors"]["rows"].as_array().unwrap().len(), 1);
        assert_eq!(json["tasks"]["rows"].as_array().unwrap().len(), 2);
        assert_eq!(json["logs"].as_array().unwrap().len(), 1);

        let html = report(&cluster, "1", false).await;
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        assert!(html.contains("counted &lt;42&gt; words") && !html.contains("of another job"));
        assert!(html.contains("app::square") && html.contains("<svg"));
        // The task takes half a second of the minute: some columns of the picture.
        assert!(html.contains("<path class=\"k0\" d=\"M") && html.contains("Counter: Add"));
        assert!(html.contains("2 messages and tasks are drawn, of 9 that were timed"));
        assert!(
            !html.contains("http://") && !html.contains("https://") && !html.contains("src="),
            "nothing is loaded"
        );
        let data = html.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: JobReport = serde_json::from_str(data).unwrap();
        assert_eq!(data.logs[0].text, "counted <42> words\n");
    }

    #[tokio::test]
    async fn cause_of_a_death_is_shown_with_its_count() {
        let html = report(&FakeCluster::new(), "2", false).await;
        assert!(html.contains("it was killed") && html.contains("the process exited with code 7"));
    }

    #[tokio::test]
    async fn terminal_gets_an_error_instead_of_markup() {
        let cluster = FakeCluster::new();
        let arguments = arguments("1", false);
        let command = async |connector: &FakeCluster, output: &mut CliOutput<'_>| {
            output.are_terminals[0] = true;
            run(&arguments, connector, output).await
        };
        let (outcome, out, _) = cluster.run(command).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.code, out.as_str()), (exit::USAGE, ""));
        assert!(error.to_string().contains("> job.html"), "{error}");
    }
}
