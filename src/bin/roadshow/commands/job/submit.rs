//! `roadshow job submit`: uploads a program and runs it on the cluster.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use roadshow::admin::{Filter, Program, Submission, SubmittedJob};
use roadshow::model::{NodeInfo, NodeState};
use serde_json::json;

use super::wait;
use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::values::{significant, variables};
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::progress::UploadBar;

/// Uploads a program to the head's node and runs it there, as a driver that uses all nodes.
///
/// Only the executable file is uploaded; the cluster needs no copy of it before. The command prints the driver's output
/// and ends with the driver's exit code. Ctrl-C ends the command, but not the job.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  roadshow job submit --env BOOK=alice.txt -- ./target/release/count --top 10"
)]
pub(crate) struct SubmitArgs {
    /// Print the job's id and return, without waiting for the job.
    #[arg(long)]
    no_wait: bool,
    /// Environment variable of the driver; may be repeated. `NAME` alone takes the value from this command's
    /// environment, which keeps it out of the process list.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variables())]
    env: Vec<(OsString, OsString)>,
    /// Print one JSON object; the driver's output goes to standard error.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster_args: ClusterArgs,
    /// Program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl SubmitArgs {
    pub(super) const fn cluster_args(&self) -> &ClusterArgs {
        &self.cluster_args
    }
}

pub(super) async fn run(
    arguments: &SubmitArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let (name, args) = arguments.program.split_first().expect("clap asks for a program");
    let program = Program::open(&locate(name, std::env::var_os("PATH").as_deref())?)?;
    let submission = program.submission(name.clone(), args.to_vec(), arguments.env.clone());
    // The upload comes first: the head fails a job whose driver does not start within seconds.
    let bar = UploadBar::new(submission.size, output.are_terminals[1]);
    send(&submission, &program, &bar, connector).await?;
    drop(bar);
    // From here on a job exists, which must not be left pending.
    let submitted = connector.head().await?.submit(submission.clone()).await?;
    if let Err(failure) = begin(submitted, submission, connector).await {
        // Stop the job, or it stays pending until the head times it out. The first failure is the one to report.
        if let Ok(mut head) = connector.head().await {
            let _ = head.stop_job(submitted.job).await;
        }
        return Err(failure);
    }
    let job = submitted.job;
    if arguments.no_wait {
        return match arguments.json {
            true => output.json(&json!({ "job_id": job, "node_id": submitted.node })),
            false => output.print(&format!("{job}\n")),
        };
    }
    let id = job.to_string();
    let id = significant(&id);
    // To standard error: standard output belongs to the driver.
    output.note(&format!(
        "Job {id} runs on node {}; `roadshow job status|logs|stop {id}` from elsewhere.",
        submitted.node
    ));
    wait::wait_for_job(submitted, arguments.json, connector, output).await
}

/// Uploads the executable to the agent of the head's node. Without that agent, `submit` will fail.
async fn send(
    submission: &Submission,
    program: &Program,
    bar: &UploadBar,
    connector: &impl AdminConnector,
) -> CliResult<()> {
    let own = Filter { key: "is_head".to_owned(), value: "true".to_owned(), is_equal: true };
    let nodes: Vec<NodeInfo> = connector.head().await?.all(vec![own]).await?;
    let Some(node) = nodes
        .iter()
        // A head that was just restarted waits for its own node to rejoin.
        .find(|node| node.is_head && matches!(node.state, NodeState::Alive | NodeState::Rejoining))
    else {
        return Ok(());
    };
    Ok(connector.agent(node.address).await?.store(submission, program, |have| bar.received(have)).await?)
}

/// Asks the agent to start the driver.
async fn begin(
    submitted: SubmittedJob,
    submission: Submission,
    connector: &impl AdminConnector,
) -> CliResult<()> {
    Ok(connector.agent(submitted.address).await?.begin(submitted.job, submission).await?)
}

/// Finds a program: a path is taken as given, a name is searched in the directories of `PATH`.
fn locate(name: &OsStr, path: Option<&OsStr>) -> CliResult<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let directories = path.map(std::env::split_paths).into_iter().flatten();
    directories.map(|directory| directory.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        // A frequent mistake: shells do not search the working directory either.
        let here = if Path::new(name).is_file() {
            format!("give ./{} for the file in this directory", name.display())
        } else {
            "give its path".to_owned()
        };
        CliError::unknown(format!("there is no program {name:?} in PATH"), here)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use roadshow::admin::{AdminEndpoint, AdminReply, AdminRequest};
    use roadshow::model::{JobId, JobInfo, JobState};
    use serde_json::Value;

    use super::*;
    use crate::exit;
    use crate::test_cluster;
    use crate::test_cluster::{FakeCluster, head_address};

    fn arguments(no_wait: bool, json: bool) -> SubmitArgs {
        SubmitArgs {
            no_wait,
            env: vec![("A".into(), "b".into())],
            json,
            cluster_args: ClusterArgs { address: None, token_file: None },
            program: ["/proc/self/exe", "--top", "10"].map(OsString::from).to_vec(),
        }
    }

    fn job(state: JobState, exit_code: Option<i32>, message: Option<&str>) -> Vec<JobInfo> {
        let mut job = test_cluster::jobs().remove(0);
        (job.job_id, job.state, job.exit_code) = (JobId(3), state, exit_code);
        job.message = message.map(str::to_owned);
        vec![job]
    }

    async fn submit(cluster: &FakeCluster, arguments: SubmitArgs) -> (CliResult<()>, String, String) {
        cluster.run(async |connector, output| run(&arguments, connector, output).await).await
    }

    #[tokio::test]
    async fn head_registers_the_job_and_agent_gets_the_program() {
        let cluster = FakeCluster::new();
        let (outcome, out, _) = submit(&cluster, arguments(true, false)).await;
        outcome.unwrap();
        assert_eq!(out, "00000003\n");
        let state = cluster.state();
        let size = std::fs::metadata("/proc/self/exe").unwrap().len();
        assert_eq!(state.stored, size);
        let endpoints: Vec<_> = state.recorded.iter().map(|(endpoint, at, _)| (*endpoint, *at)).collect();
        assert_eq!(
            (endpoints[0], endpoints[1]),
            ((AdminEndpoint::Head, head_address()), (AdminEndpoint::Agent, head_address()))
        );
        let Some((_, _, AdminRequest::StartDriver { job, submission })) = state.recorded.last() else {
            panic!("the driver was not started")
        };
        assert_eq!(
            (*job, submission.size, &submission.args[..]),
            (JobId(3), size, &["--top", "10"].map(OsString::from)[..])
        );
        assert_eq!(submission.env, [("A".into(), "b".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn output_of_the_driver_is_printed_and_its_exit_code_returned() {
        let cluster = FakeCluster::new();
        cluster.log(head_address(), "driver-3.out", (0, 3), "answer\n");
        cluster.log(head_address(), "driver-3.err", (0, 3), "trouble\n");
        let failed = job(JobState::Failed, Some(7), Some("the process exited with code 7"));
        cluster.state().jobs =
            VecDeque::from([job(JobState::Pending, None, None), job(JobState::Running, None, None), failed]);
        let (outcome, out, err) = submit(&cluster, arguments(false, false)).await;
        let failure = outcome.unwrap_err();
        assert_eq!((failure.code, out.as_str()), (7, "answer\n"));
        assert!(
            failure.to_string().starts_with("job 3 failed: the process exited with code 7;"),
            "{failure}"
        );
        assert!(err.starts_with("Job 3 runs on node") && err.contains("trouble\n"), "{err}");
    }

    #[tokio::test(start_paused = true)]
    async fn json_of_a_successful_job_is_one_object() {
        let cluster = FakeCluster::new();
        cluster.log(head_address(), "driver-3.out", (0, 3), "answer\n");
        cluster.state().jobs = VecDeque::from([job(JobState::Succeeded, Some(0), None)]);
        let (outcome, out, err) = submit(&cluster, arguments(false, true)).await;
        outcome.unwrap();
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&json["job_id"], &json["state"]), (&"00000003".into(), &"SUCCEEDED".into()));
        assert!(err.contains("answer\n"), "{err}");
    }

    #[tokio::test]
    async fn job_whose_driver_does_not_start_is_stopped() {
        let cluster = FakeCluster::new();
        cluster.state().done = AdminReply::Failed { text: "no room; clear some".to_owned(), unknown: false };
        let (outcome, out, _) = submit(&cluster, arguments(false, false)).await;
        assert_eq!((outcome.unwrap_err().to_string().as_str(), out.as_str()), ("no room; clear some", ""));
        assert_eq!(cluster.requests().last(), Some(&AdminRequest::StopJob { job: JobId(3) }));
    }

    #[test]
    fn program_name_is_searched_in_path() {
        let path = OsStr::new("/nowhere:/proc/self");
        assert_eq!(locate("status".as_ref(), Some(path)), Ok(PathBuf::from("/proc/self/status")));
        assert_eq!(locate("./status".as_ref(), None), Ok(PathBuf::from("./status")));
        assert_eq!(locate("nothing".as_ref(), Some(path)).unwrap_err().code, exit::NO_SUCH_THING);
    }
}
