//! Reports of ended jobs, as files in the state directory.
//!
//! ```text
//!  job ends ──▶ queue ──▶ after REPORT_DELAY: read rows and logs ──▶ reports/job-ID.html, the oldest removed
//! ```
//! A report is what remains of a job when the cluster is gone, so it is written without being asked for. It is read by
//! admin requests, as the command reads it, on a thread for blocking work: leases and placements do not wait for it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::Head;
use crate::cluster::admin::{
    Admin, AdminEndpoint, AdminError, AdminReply, AdminRequest, AdminTransport, JobReport, TokenRpcClient,
};
use crate::cluster::model::JobId;
use crate::config::{REPORT_FILES_BYTES_MAX, REPORT_FILES_MAX, REPORTS_QUEUED_MAX};

/// Name of the directory below the state directory.
const DIRECTORY: &str = "reports";

/// Time between the end of a job and its report, in which its processes end and their last lines arrive.
const REPORT_DELAY: Duration = Duration::from_secs(1);

/// Time limit for reading the report of one job: an agent may be unreachable.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Queue of the jobs that have ended.
#[derive(Debug, Default)]
pub(super) struct JobReports(OnceLock<mpsc::Sender<JobId>>);

impl JobReports {
    /// Opens the queue, whose other end is for [`run`]. Earlier requests have no effect.
    pub(super) fn open(&self) -> mpsc::Receiver<JobId> {
        let (sender, receiver) = mpsc::channel(REPORTS_QUEUED_MAX);
        // Called once, so the cell is empty.
        let _ = self.0.set(sender);
        receiver
    }

    /// Requests the report of a job that has ended, unless too many wait for theirs.
    pub(super) fn request(&self, job: JobId) {
        if self.0.get().is_some_and(|queue| queue.try_send(job).is_err()) {
            tracing::warn!(%job, "the job has no report: too many jobs have ended at once");
        }
    }
}

/// Writes the reports of ended jobs, one after the other.
pub(super) async fn run(head: Weak<Head>, mut ended: mpsc::Receiver<JobId>, state_dir: PathBuf) {
    while let Some(job) = ended.recv().await {
        tokio::time::sleep(REPORT_DELAY).await;
        let directory = state_dir.join(DIRECTORY);
        let Some((token, started)) = head.upgrade().and_then(|head| {
            let started = head.control.read(|state| state.ended_job_start(job))?;
            Some((head.authority.token().to_string(), started))
        }) else {
            continue;
        };
        // A restarted head releases jobs of its predecessor again, of which it knows less. An older file is of another
        // job: a head with a new database counts jobs from 1.
        if is_newer(&directory.join(file_name(job)), started.0) {
            continue;
        }
        let head = Weak::clone(&head);
        let written = tokio::task::spawn_blocking(move || report(&head, job, &token, &directory)).await;
        if let Ok(Err(why)) = written {
            tracing::warn!(%job, why, "the job has no report in the state directory");
        }
    }
}

/// Returns true for a file that was written after a time.
fn is_newer(file: &Path, time_ms: u64) -> bool {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified >= SystemTime::UNIX_EPOCH + Duration::from_millis(time_ms))
}

fn file_name(job: JobId) -> String {
    format!("job-{job}.html")
}

/// Reads the report of a job, and writes it.
fn report(head: &Weak<Head>, job: JobId, token: &str, directory: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let agent = async |address| Admin::<TokenRpcClient>::connect(AdminEndpoint::Agent, address, token).await;
    let report = runtime.block_on(async {
        let mut head = Admin::new(HeadTransport(Weak::clone(head)));
        let gathered = JobReport::gather(&mut head, None, agent, job, now_ms);
        tokio::time::timeout(REPORT_TIMEOUT, gathered).await
    });
    let report =
        report.map_err(|_| format!("the nodes did not answer within {} s", REPORT_TIMEOUT.as_secs()))?;
    let html = report.map_err(|error| error.to_string())?.to_html();
    // Before and after: on a full disk the oldest make room for others.
    for step in [remove_oldest(directory), write(directory, &file_name(job), &html), remove_oldest(directory)]
    {
        step.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Admin requests to the head of this process.
struct HeadTransport(Weak<Head>);

impl AdminTransport for HeadTransport {
    async fn exchange(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let lost = |why: &dyn std::fmt::Display| AdminError::Lost { why: why.to_string() };
        let head = self.0.upgrade().ok_or_else(|| lost(&"the head is ending"))?;
        // On the head's thread, where a list yields to heartbeats after each slice. Here it would take the lock again
        // before a waiting heartbeat gets it.
        let io = head.host.io().clone();
        io.spawn(async move { head.reply(request).await }).await.map_err(|error| lost(&error))
    }
}

/// Writes a file that only the head's user can read: logs may have secrets.
fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Renamed when it is complete, so that a reader never sees half a report.
    let partial = directory.join(format!("{name}.partial"));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&partial, directory.join(name)));
    if written.is_err() {
        // The disk is full, and the rest of a report would keep it so.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Removes the oldest reports beyond the limits.
fn remove_oldest(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // What an operator has put there stays.
        let is_report = entry.file_name().to_str().is_some_and(|name| name.starts_with("job-"));
        if !is_report || !metadata.is_file() {
            continue;
        }
        files.push((metadata.modified()?, entry.path(), metadata.len()));
    }
    files.sort();
    let (mut count, mut bytes) = (files.len(), files.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
    // The newest stays, however large it is.
    for (_, path, size) in files.iter().rev().skip(1).rev() {
        if count <= REPORT_FILES_MAX && bytes <= REPORT_FILES_BYTES_MAX {
            break;
        }
        fs::remove_file(path)?;
        count -= 1;
        bytes -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn report_is_private_and_replaces_an_earlier_one() {
        let scratch = TestDir::new();
        let directory = scratch.join(DIRECTORY);
        for text in ["first", "second"] {
            write(&directory, "job-1.html", text).unwrap();
        }
        let file = directory.join("job-1.html");
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing partial stays");
    }

    #[test]
    fn oldest_reports_leave_when_there_are_too_many() {
        let scratch = TestDir::new();
        let directory = scratch.join(DIRECTORY);
        for job in 0..REPORT_FILES_MAX + 5 {
            write(&directory, &format!("job-{job}.html"), "text").unwrap();
            let age = Duration::from_secs(1000 - job as u64);
            let file =
                fs::File::options().write(true).open(directory.join(format!("job-{job}.html"))).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        remove_oldest(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), REPORT_FILES_MAX);
        assert!(!directory.join("job-4.html").exists() && directory.join("job-5.html").exists());
    }
}
