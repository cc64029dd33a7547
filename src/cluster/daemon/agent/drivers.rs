//! Drivers of submitted jobs that run on this node.
//!
//! ```text
//!            reserve             exit, or killed after a stop
//!  (absent) ─────────▶ Running ─────────────────────────────▶ (absent)
//!     │ stop
//!     └──────────────▶ Cancelled: a later start is refused
//! ```

use std::collections::hash_map::Entry;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accounts::Account;
use super::driver_enrolment;
use super::driver_enrolment::EnrolmentSocket;
use super::services::runs_here;
use super::workers::kept_environment;
use super::{Agent, output};
use crate::cluster::admin::Submission;
use crate::cluster::executable::{Digest, check_runs_here};
use crate::cluster::launch::children;
use crate::cluster::launch::descendants;
use crate::cluster::launch::descendants::{MARK_VARIABLE, WorkerMark};
use crate::cluster::model::{JobId, JobState};
use crate::cluster::output::{Capture, LogName};
use crate::cluster::protocol::NodeEvent;
use crate::cluster::security::enrol::ENROLMENT_VARIABLE;
use crate::config::DRIVER_STOP_TIMEOUT;
use crate::transport::explained;

/// Drivers that run, or were cancelled before their start, by job.
#[derive(Debug, Default)]
pub(super) struct Drivers(Mutex<FxHashMap<JobId, Driver>>);

#[derive(Debug)]
enum Driver {
    /// The job was stopped before its driver was started. The stop may overtake the start: they come from the head and
    /// from the command.
    Cancelled,
    Running(CancellationToken),
}

impl Drivers {
    /// Asks a driver to end. It is killed after a timeout.
    pub(super) fn stop(&self, job: JobId) {
        match self.lock().entry(job).or_insert(Driver::Cancelled) {
            Driver::Running(stop) => stop.cancel(),
            Driver::Cancelled => {}
        }
    }

    /// Returns true if a job's driver runs.
    pub(super) fn runs(&self, job: JobId) -> bool {
        matches!(self.lock().get(&job), Some(Driver::Running(_)))
    }

    /// Jobs whose drivers run.
    pub(super) fn running(&self) -> Vec<JobId> {
        let all = self.lock();
        all.iter().filter(|(_, driver)| matches!(driver, Driver::Running(_))).map(|(job, _)| *job).collect()
    }

    /// Asks all drivers to end.
    pub(super) fn stop_all(&self) {
        for driver in self.lock().values() {
            if let Driver::Running(stop) = driver {
                stop.cancel();
            }
        }
    }

    /// Registers a driver before its start, and returns the token that stops it.
    fn reserve(&self, job: JobId) -> Result<CancellationToken, String> {
        match self.lock().entry(job) {
            Entry::Vacant(vacant) => {
                let stop = CancellationToken::new();
                vacant.insert(Driver::Running(stop.clone()));
                Ok(stop)
            }
            Entry::Occupied(occupied) => Err(match occupied.get() {
                Driver::Cancelled => format!("job {job} was stopped before its driver was started"),
                Driver::Running(_) => format!("the driver of job {job} runs already"),
            }),
        }
    }

    /// Removes a driver that has ended or was not started.
    fn end(&self, job: JobId) {
        self.lock().remove(&job);
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<JobId, Driver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Starts the driver of a submitted job, whose executable is stored here. Call it on a thread that may block,
    /// within the agent's runtime.
    pub(super) fn launch_driver(self: &Arc<Self>, job: JobId, submission: &Submission) -> Result<(), String> {
        let stop = self.drivers.reserve(job)?;
        let started = self.start_driver(job, submission, stop);
        started.inspect_err(|why| {
            self.drivers.end(job);
            // Reported like the end of a driver: the job fails now, and not at the end of its lease.
            let message = format!("cannot start the driver: {why}");
            self.record(NodeEvent::DriverExited { job, state: JobState::Failed, exit_code: None, message });
        })
    }

    fn start_driver(
        self: &Arc<Self>,
        job: JobId,
        submission: &Submission,
        stop: CancellationToken,
    ) -> Result<(), String> {
        runs_here(&submission.platform)?;
        let pinned = self.executables.pin(Digest(submission.digest)).map_err(|error| error.to_string())?;
        check_runs_here(&pinned.path()).map_err(|error| error.to_string())?;
        let account = self.accounts.of(job).map_err(|error| error.to_string())?;
        let directory = self.jobs.directory(job, account.as_deref()).map_err(|error| error.to_string())?;
        let ((out, stdout), (err, stderr)) =
            (output::pipe(account.as_deref())?, output::pipe(account.as_deref())?);
        // Found later by its mark, since a driver's children can leave its group and its session.
        let mark = WorkerMark::new().map_err(|error| error.to_string())?;
        let socket = account.as_deref().map(EnrolmentSocket::listen).transpose()?;
        let mut command = self.command(&pinned.path(), account.as_deref(), &directory)?;
        command
            .arg0(&submission.program)
            .args(&submission.args)
            .envs(submission.env.iter().filter(|(name, _)| !Submission::owns_variable(name)).cloned())
            .env("ROADSHOW_ADDRESS", self.head_at().to_string())
            // The pid tells the driver from programs that it starts: they inherit the variable, and have another
            // parent.
            .env("ROADSHOW_JOB", format!("{job}:{}", std::process::id()))
            .env(MARK_VARIABLE, mark.value())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            // A group of its own, so that signals reach the driver's children, and not the agent.
            .process_group(0)
            .kill_on_drop(true);
        let child = children::start(|| spawn(&mut command, account.as_deref()), Child::id);
        let child = child.map_err(|error| {
            format!("cannot start {}: {}", submission.program.display(), explained(error))
        })?;
        // No receiver: the driver's output goes only to its log.
        let (lines, _) = mpsc::channel(1);
        let name = LogName::Driver { job, pid: child.id().unwrap_or_default() };
        let capture = Capture::start(Some((self.jobs.logs(), name)), out, err, lines);
        let capture = match capture {
            Ok(capture) => capture,
            Err(error) => {
                tokio::spawn(discard(child, mark));
                return Err(format!("cannot create the driver's log: {error}"));
            }
        };
        self.record(NodeEvent::DriverStarted { job });
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let pid = child.id();
            let event = tokio::select! {
                event = supervise(job, child, mark, &stop) => event,
                never = driver_enrolment::serve(&agent, job, pid, socket) => match never {},
            };
            // The log is complete before the end is reported, since readers stop at the end of the job.
            capture.finish().await;
            drop((pinned, account));
            agent.drivers.end(job);
            agent.orphans.worker_ended(&agent, job);
            agent.record(event);
        });
        Ok(())
    }

    /// Builds the command with the environment that a driver gets from its agent. A driver with an account has no
    /// token: it enrols through the agent.
    fn command(
        &self,
        executable: &Path,
        account: Option<&Account>,
        directory: &Path,
    ) -> Result<Command, String> {
        let Some(account) = account else {
            let mut command = Command::new(executable);
            // Safe in the environment: only this user and root can read that of another process.
            command.env("ROADSHOW_TOKEN", self.token.to_string());
            return Ok(command);
        };
        let program = account.link(executable);
        let program =
            program.map_err(|error| format!("cannot give the program to the job's user: {error}"))?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(kept_environment(Some(account), directory))
            .env(ENROLMENT_VARIABLE, account.socket());
        account.user().set(command.as_std_mut());
        Ok(command)
    }
}

fn spawn(command: &mut Command, account: Option<&Account>) -> io::Result<Child> {
    let Some(account) = account else { return command.spawn() };
    let runtime = Handle::current();
    account.user().start(|| {
        let _runtime = runtime.enter();
        command.spawn()
    })
}

/// Kills and reaps a driver whose start has failed, and ends the processes that it has started.
async fn discard(mut child: Child, mark: WorkerMark) {
    let pid = child.id();
    // Fails only if the child was waited for already.
    let _ = child.kill().await;
    drop(tokio::task::spawn_blocking(move || descendants::end_marked(&mark)).await);
    pid.into_iter().for_each(children::ended);
}

/// Waits for the end of a driver, and stops it on request.
async fn supervise(job: JobId, mut child: Child, mark: WorkerMark, stop: &CancellationToken) -> NodeEvent {
    let pid = child.id();
    let group = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let signal = |signal| {
        if let Some(group) = group {
            // Fails only if the group has ended.
            let _ = kill_process_group(group, signal);
        }
    };
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = stop.cancelled() => None,
    };
    let status = match ended {
        Some(ended) => ended,
        None => {
            signal(Signal::TERM);
            match timeout(DRIVER_STOP_TIMEOUT, child.wait()).await {
                Ok(ended) => ended,
                Err(_) => {
                    signal(Signal::KILL);
                    child.wait().await
                }
            }
        }
    };
    // Processes that the driver has left behind end, too. They are found by the mark in their environment: the pid
    // may belong to another process by now.
    signal(Signal::KILL);
    drop(tokio::task::spawn_blocking(move || descendants::end_marked(&mark)).await);
    pid.into_iter().for_each(children::ended);
    match status {
        Ok(status) => driver_ended(job, status, stop.is_cancelled()),
        Err(error) => {
            let message = format!("cannot observe the end of the driver: {error}");
            NodeEvent::DriverExited { job, state: JobState::Failed, exit_code: None, message }
        }
    }
}

/// Offset of a signal number in an exit code, as POSIX shells report the end by a signal.
const SIGNAL_EXIT_BASE: i32 = 128;

fn driver_ended(job: JobId, status: ExitStatus, stopped: bool) -> NodeEvent {
    let (state, message) = match (status.code(), status.signal()) {
        _ if stopped => (JobState::Stopped, "it was stopped".to_owned()),
        (Some(0), _) => (JobState::Succeeded, "the driver exited with code 0".to_owned()),
        (Some(code), _) => (JobState::Failed, format!("the driver exited with code {code}")),
        (None, Some(signal)) => (JobState::Failed, format!("the driver was killed by signal {signal}")),
        (None, None) => (JobState::Failed, "the driver ended".to_owned()),
    };
    let exit_code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_EXIT_BASE + signal));
    NodeEvent::DriverExited { job, state, exit_code, message }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::process::{kill_process, test_kill_process};
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    /// Returns true if a process runs. A zombie does not.
    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    #[tokio::test]
    async fn discarded_driver_is_reaped_and_its_children_end() {
        let mark = WorkerMark::new().unwrap();
        let mut command = Command::new("sh");
        // The daemon has another session, so only its mark identifies it.
        let script = "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000";
        command.args(["-c", script]).env(MARK_VARIABLE, mark.value()).stdout(Stdio::piped());
        let mut child =
            children::start(|| command.kill_on_drop(true).process_group(0).spawn(), Child::id).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let (driver, daemon) = (child.id().unwrap(), line.trim().parse().unwrap());
        assert!(is_alive(driver) && is_alive(daemon));
        discard(child, mark).await;
        let number = |pid: u32| Pid::from_raw(pid.try_into().unwrap()).unwrap();
        let is_left = is_alive(daemon);
        if is_left {
            kill_process(number(daemon), Signal::KILL).unwrap();
        }
        assert!(!is_left, "the daemon still runs");
        assert_eq!(test_kill_process(number(driver)), Err(Errno::SRCH), "the driver was not reaped");
    }
}
