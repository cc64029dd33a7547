//! Waiting for a submitted job: what its driver writes, and how it ends.

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

/// How long the head may be away. One that is started anew goes on with the job.
const HEAD_UNREACHABLE_MAX: Duration = Duration::from_secs(30);

/// Writes what the driver writes, until the job is over; its exit code is the outcome's.
pub(super) async fn wait_for_job<D: AdminConnector>(
    submitted: SubmittedJob,
    json: bool,
    desks: &D,
    output: &mut Output<'_>,
) -> CliResult<()> {
    let SubmittedJob { job, node, address } = submitted;
    let places = vec![LogSource { node, address }];
    let mut tail = Tail::open(LogSelector::Driver(job), places, LogFrom::Offset(0), desks).await?;
    let mut head = Head { desks, desk: None, last_contact: Instant::now() };
    loop {
        // Asked before the logs are read: what is read then has all that the driver wrote.
        let over = head.job(job).await?.filter(|job| !job.state.is_open());
        tail.discover().await?;
        tail.read(|_, file, text, _| write(file, text, json, output)).await?;
        if let Some(over) = over {
            tail.rest(|_, file, text| write(file, text, json, output))?;
            return end(&over, json, output);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// With JSON to come, all that the driver writes is beside the point.
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

/// A failure's code is never that of success.
fn code(exit_code: Option<i32>) -> u8 {
    exit_code
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != exit::OK)
        .unwrap_or(exit::FAILED)
}

/// The head, which may be away for a while.
struct Head<'a, D: AdminConnector> {
    desks: &'a D,
    desk: Option<Admin<D::Exchange>>,
    last_contact: Instant,
}

impl<D: AdminConnector> Head<'_, D> {
    /// What it says of the job; none while it is away.
    async fn job(&mut self, job: JobId) -> CliResult<Option<JobInfo>> {
        match self.ask(job).await {
            Err(failure)
                if failure.code == exit::UNREACHABLE
                    && self.last_contact.elapsed() < HEAD_UNREACHABLE_MAX =>
            {
                self.desk = None;
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
        let desk = match &mut self.desk {
            Some(desk) => desk,
            none => none.insert(self.desks.head().await?),
        };
        desk.row::<JobInfo>(job, job.0).await?.ok_or_else(|| {
            CliError::unknown(
                format!("the head does not know job {job} any more"),
                "`roadshow job list` shows its jobs",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_failure_is_the_job_s_own_if_it_can_be() {
        assert_eq!([Some(7), Some(255), Some(0), Some(256), Some(-1), None].map(code), [7, 255, 1, 1, 1, 1]);
    }
}
