//! Waits for a submitted job, and prints the output of its driver.

use std::time::Duration;

use roadshow::admin::{Admin, LogFrom, SubmittedJob};
use roadshow::model::{JobId, JobInfo, JobState};
use tokio::time::Instant;

use crate::cli::cluster_args::AdminConnector;
use crate::cli::values::significant;
use crate::commands::logs::{LogSelector, LogSource, POLL_INTERVAL, Tail};
use crate::error::{CliError, CliResult};
use crate::exit;
use crate::output::Output;

/// Maximum time without contact to the head. A restarted head still knows the job.
const HEAD_UNREACHABLE_MAX: Duration = Duration::from_secs(30);

/// Prints the driver's output until the job has ended, and returns the driver's exit code in the result.
pub(super) async fn wait_for_job<D: AdminConnector>(
    submitted: SubmittedJob,
    json: bool,
    connector: &D,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let SubmittedJob { job, node, address } = submitted;
    let sources = vec![LogSource { node, address }];
    let mut tail = Tail::open(LogSelector::Driver(job), sources, LogFrom::Offset(0), connector).await?;
    let mut head = JobWatch { connector, client: None, last_contact: Instant::now() };
    loop {
        // The state is asked before the logs are read. If the job has ended by then, this read gets all of its output.
        let ended = head.job(job).await?.filter(|job| !job.state.is_open());
        tail.discover().await?;
        tail.read(|_, file, text, _| write(file, text, json, output)).await?;
        if let Some(ended) = ended {
            tail.rest(|_, file, text| write(file, text, json, output))?;
            return end(&ended, json, output);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Prints driver output; with `--json` to standard error, since standard output is one JSON object.
fn write(file: &str, text: &str, json: bool, output: &mut Output<'_>) -> CliResult<()> {
    match json {
        true => output.print_log_aside(text),
        false => output.forward(file, text),
    }
}

fn end(job: &JobInfo, json: bool, output: &mut Output<'_>) -> CliResult<()> {
    if json {
        output.json(job)?;
    }
    let id = job.job_id.to_string();
    let id = significant(&id);
    let why = job.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    let next = format!("`roadshow logs --job {id}` shows what it wrote");
    match job.state {
        JobState::Succeeded => {
            output.note(&format!("Job {id} succeeded."));
            Ok(())
        }
        JobState::Stopped => Err(CliError::failed(format!("job {id} was stopped{why}"), next)),
        _ => Err(CliError::new(code(job.exit_code), format!("job {id} failed{why}"), next)),
    }
}

/// Exit code for a failed job: the driver's own, but never 0 and never above 255.
fn code(exit_code: Option<i32>) -> u8 {
    exit_code
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != exit::OK)
        .unwrap_or(exit::FAILED)
}

/// Connection to the head that survives a restart of the head.
struct JobWatch<'a, D: AdminConnector> {
    connector: &'a D,
    client: Option<Admin<D::Exchange>>,
    last_contact: Instant,
}

impl<D: AdminConnector> JobWatch<'_, D> {
    /// State of the job; nothing while the head is unreachable.
    async fn job(&mut self, job: JobId) -> CliResult<Option<JobInfo>> {
        match self.ask(job).await {
            Err(failure)
                if failure.code == exit::UNREACHABLE
                    && self.last_contact.elapsed() < HEAD_UNREACHABLE_MAX =>
            {
                // The next call reconnects.
                self.client = None;
                Ok(None)
            }
            Err(failure) => Err(failure),
            Ok(found) => {
                self.last_contact = Instant::now();
                Ok(Some(found))
            }
        }
    }

    async fn ask(&mut self, job: JobId) -> CliResult<JobInfo> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(self.connector.head().await?),
        };
        client.row::<JobInfo>(job, job.0).await?.ok_or_else(|| {
            CliError::unknown(
                format!("the head no longer knows job {job}"),
                "`roadshow job list` shows the jobs it knows",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_job_has_its_driver_s_exit_code_if_that_is_one_to_255() {
        assert_eq!([Some(7), Some(255), Some(0), Some(256), Some(-1), None].map(code), [7, 255, 1, 1, 1, 1]);
    }
}
