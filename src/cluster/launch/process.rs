//! Worker process, as its parent starts, watches and ends it.
//!
//! ```text
//!            start()                  initialise()                               wait thread
//!   spawned --------> [ Diverted ] --------------> ready --- exits or is killed ---> ended ---> reaped
//!      |                  worker entry reached       ^  |                         descendants
//!      |                                             |  v SIGSTOP / SIGCONT       are ended
//!      '-- exits: post_mortem() says why           stopped                        in between
//! ```
//!
//! A pidfd holds the process from its start to its reaping. Signals go through it, so they cannot reach another
//! process that was given the same pid.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::children;
use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::launch::control_socket::{ControlSocket, Reports};
use crate::cluster::launch::descendants::{MARK_VARIABLE, WorkerMark};
use crate::cluster::launch::user_ids::UserIds;
use crate::cluster::launch::{contract, descendants};
use crate::cluster::protocol::worker::{WorkerInit, WorkerMessage};
use crate::cluster::protocol::{Variables, worker};
use crate::config;
use crate::observe::log;
use crate::spec::{End, EndReason};

/// Stack size of the thread that waits for a process and ends its descendants.
const WATCH_STACK_BYTES: usize = 128 << 10;

/// Command line and environment of a worker process.
#[derive(Debug)]
pub(crate) struct WorkerCommand {
    /// Path of the executable.
    pub(crate) program: PathBuf,
    /// Arguments with which the program runs as a worker.
    pub(crate) arguments: Vec<String>,
    /// The worker inherits the environment of this process.
    pub(crate) inherits: bool,
    /// Variables added to the environment.
    pub(crate) environment: Variables,
    /// Working directory; that of this process if `None`.
    pub(crate) directory: Option<PathBuf>,
    /// User that the worker runs as; that of this process if `None`.
    pub(crate) user: Option<UserIds>,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl WorkerCommand {
    /// Command that runs this process's own executable.
    ///
    /// `/proc/self/exe` stays the running executable when its file is replaced by a new build. Standard output is
    /// set later, with the worker's initialisation: a test harness prints lines before that which belong to no
    /// worker.
    pub(crate) fn this_executable(environment: Variables, stderr: Stdio) -> Result<Self, ClusterError> {
        Ok(Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: contract::arguments()?,
            inherits: true,
            environment,
            directory: None,
            user: None,
            stdout: Stdio::null(),
            stderr,
        })
    }
}

/// Worker process. Dropping it kills the process and reaps it.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pid: u32,
    /// Pidfd: refers to this process even when its pid is reused.
    handle: Arc<OwnedFd>,
    child: Arc<Mutex<Child>>,
    control_socket: Arc<ControlSocket>,
    mark: WorkerMark,
}

impl WorkerProcess {
    /// Starts a worker. Must be called within a tokio runtime.
    pub(crate) fn start(spec: WorkerCommand) -> Result<Self, ClusterError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let control_socket = Arc::new(ControlSocket::new(UnixStream::from_std(ours)?));
        let mut command = Command::new(&spec.program);
        command.arg0("roadshow-worker").args(spec.arguments);
        if !spec.inherits {
            command.env_clear();
        }
        let mark = WorkerMark::new()?;
        command.envs(spec.environment).env(MARK_VARIABLE, mark.value());
        if let Some(directory) = spec.directory {
            command.current_dir(directory);
        }
        // Set last: a variable of the caller's must not replace the token by which the worker recognises itself.
        command.env(WORKER_VARIABLE, contract::spawn_token(&theirs)?);
        command.stdin(OwnedFd::from(theirs)).stdout(spec.stdout).stderr(spec.stderr);
        // A process group of its own: Ctrl-C at a terminal is for the driver, and the worker ends with its
        // control socket.
        command.process_group(0);
        let start = || match spec.user {
            None => spawn(&mut command),
            Some(user) => user.start(|| spawn(user.set(&mut command))),
        };
        let mut child = children::start(start, |child| Some(child.id()))?;
        // `child` must not leak on an error: its drop would neither kill nor reap the process.
        let pid = child.id();
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from);
        let handle = Arc::new(or_reap(&mut child, handle)?);
        Ok(Self { pid, handle, child: Arc::new(Mutex::new(child)), control_socket, mark })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn control_socket(&self) -> &Arc<ControlSocket> {
        &self.control_socket
    }

    /// Initialises the worker and waits until it is ready. `stdout`, if given, becomes its standard output.
    pub(crate) async fn initialise(
        &self,
        init: &WorkerInit,
        stdout: Option<OwnedFd>,
    ) -> Result<WorkerMessage, ClusterError> {
        let limit = config::WORKER_START_TIMEOUT;
        let mut entry_reached = false;
        match tokio::time::timeout(limit, self.exchange_init(init, stdout, &mut entry_reached)).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => {
                let cause = self.post_mortem(&error, entry_reached).await;
                Err(ClusterError::Worker { pid: self.pid, cause })
            }
            Err(_) => Err(ClusterError::WorkerStartTimeout { pid: self.pid, limit }),
        }
    }

    async fn exchange_init(
        &self,
        init: &WorkerInit,
        stdout: Option<OwnedFd>,
        entry_reached: &mut bool,
    ) -> io::Result<WorkerMessage> {
        let stdout_fd = stdout.as_ref().map(AsFd::as_fd);
        self.control_socket.write(&worker::encode(init)?, stdout_fd).await?;
        // The worker holds the only write end now, so the reader of its output sees the end of file.
        drop(stdout);
        let first = self.control_socket.report().await?;
        *entry_reached = matches!(first, WorkerMessage::Diverted);
        if *entry_reached { self.control_socket.report().await } else { Ok(first) }
    }

    /// Passes the worker's reports to `take` until the control socket closes; a final failure becomes the result.
    pub(crate) fn on_report(&self, mut take: impl FnMut(WorkerMessage) + Send + 'static) -> Reports {
        let control_socket = Arc::clone(&self.control_socket);
        Reports::new(background::spawn(async move {
            let mut failure = None;
            while let Ok(report) = control_socket.report().await {
                match report {
                    WorkerMessage::Failed { why } => failure = Some(why),
                    report => take(report),
                }
            }
            failure
        }))
    }

    /// Cause for which a worker sent no report. After its entry point a worker reports start failures itself.
    async fn post_mortem(&self, error: &io::Error, entry_reached: bool) -> String {
        let mut ended = lock(&self.child).try_wait();
        for _ in 0..POST_MORTEM_CHECKS {
            // The kernel closes the socket of an exiting process a moment before `wait` can see its end.
            if !matches!(ended, Ok(None)) {
                break;
            }
            tokio::time::sleep(POST_MORTEM_PAUSE).await;
            ended = lock(&self.child).try_wait();
        }
        match ended {
            Ok(Some(status)) if entry_reached && status.code().is_some() => {
                format!("{} before it was ready: a worker_setup! may have ended it", end_of(status))
            }
            Ok(Some(status)) if status.code().is_some() => format!(
                "{} before it reached roadshow::run_if_worker(), which runs a worker: call it first in main, or \
                 put #[roadshow::main] on main",
                end_of(status)
            ),
            Ok(Some(status)) => end_of(status).text,
            _ => error.to_string(),
        }
    }

    /// Resolves to the cause of the process's end. Until then `on_pause` is called each time the process is stopped
    /// (true) or continued (false).
    ///
    /// A thread waits for the process: it costs a few kilobytes, and works whatever user code blocks other threads.
    pub(crate) fn on_exit(
        &self,
        on_pause: impl Fn(bool) + Send + 'static,
    ) -> io::Result<oneshot::Receiver<End>> {
        let handle = Arc::clone(&self.handle);
        let child = Arc::clone(&self.child);
        let (pid, mark) = (self.pid, self.mark.clone());
        let (report_end, ended) = oneshot::channel();
        thread::Builder::new().name("roadshow-wait".to_owned()).stack_size(WATCH_STACK_BYTES).spawn(
            move || {
                wait_for_end(handle.as_fd(), on_pause);
                // Before the reaping: until then neither the pid nor the process group can be reused.
                descendants::end_all(pid, Some(&mark));
                let unknown = |error: io::Error| End::new(EndReason::Unknown, error.to_string());
                let end = lock(&child).wait().map_or_else(unknown, end_of);
                children::ended(pid);
                // The receiver is gone if the cluster was dropped.
                let _ = report_end.send(end);
            },
        )?;
        Ok(ended)
    }

    /// Asks the worker to end gracefully; the receiver of [`WorkerProcess::on_exit`] resolves once it has.
    pub(crate) async fn ask_to_stop(&self) {
        // The write fails if the worker has ended already.
        let _ = self.control_socket.write(&[worker::STOP], None).await;
    }

    /// Kills the process and its descendants. Blocks until the descendants have ended.
    pub(crate) fn kill(&self) {
        // If it has ended, the wait thread ends its descendants.
        if let ProcessPhase::Runs = self.phase() {
            // Before the process itself: while it lives, descendants without the mark are found by their parent.
            descendants::end_all(self.pid, Some(&self.mark));
            // It fails only if the process has ended.
            let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
        }
    }

    fn phase(&self) -> ProcessPhase {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.handle.as_fd()), options) {
            Ok(None) => ProcessPhase::Runs,
            Ok(Some(_)) => ProcessPhase::Ended,
            Err(_) => ProcessPhase::Reaped,
        }
    }
}

/// Progress of a process towards its end, as the kernel reports it.
enum ProcessPhase {
    Runs,
    Ended,
    Reaped,
}

impl WorkerProcess {
    /// Reaps the process on a thread of its own, however long it takes to end.
    fn reap_later(&self) {
        log::warn!(
            pid = self.pid,
            "a killed worker does not end: it is blocked in the kernel; check its file systems"
        );
        let (child, pid) = (Arc::clone(&self.child), self.pid);
        let reaping = thread::Builder::new().name("roadshow-reap".to_owned()).spawn(move || {
            // It fails only if the process was reaped already.
            let _ = lock(&child).wait();
            children::ended(pid);
        });
        // If the thread cannot start, the process stays a zombie until this process ends.
        drop(reaping);
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if !matches!(self.phase(), ProcessPhase::Reaped) {
            self.kill();
            let has_ended = ends_within(self.handle.as_fd(), KILLED_ENDS_WITHIN);
            descendants::end_all(self.pid, Some(&self.mark));
            if !has_ended {
                return self.reap_later();
            }
        }
        // It fails only if the process was reaped already.
        let _ = lock(&self.child).wait();
        children::ended(self.pid);
    }
}

/// Time in which a killed process normally ends. A process that is blocked in the kernel, for example on a file
/// server that does not answer, takes longer. An agent must not wait for it, since it has other workers.
const KILLED_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Waits for the end of a process; returns false after `limit`.
fn ends_within(process: BorrowedFd<'_>, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return false };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Number of checks for the end of a process whose socket has closed, and the pause between them.
const POST_MORTEM_CHECKS: u32 = 100;
const POST_MORTEM_PAUSE: Duration = Duration::from_millis(1);

/// Number of retries while the executable is busy.
const ETXTBSY_RETRIES: u32 = 10_000;

/// Starts a process, and retries while its file is busy (`ETXTBSY`).
///
/// A file that this process has just written may still be open for writing in a child that another thread has
/// forked and that has not called `exec` yet. Linux refuses to execute the file until then.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..ETXTBSY_RETRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
            started => return started,
        }
    }
    command.spawn()
}

/// Kills and reaps a child whose start failed.
fn or_reap<T>(child: &mut Child, result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|_| {
        // Both fail only if the process was reaped already.
        let _ = child.kill();
        let _ = child.wait();
        children::ended(child.id());
    })
}

/// Waits for the end of a process without reaping it: its pid stays reserved until `Child::wait`.
fn wait_for_end(process: BorrowedFd<'_>, on_pause: impl Fn(bool)) {
    let changes = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
    loop {
        let any = changes | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(process), any) {
            Err(Errno::INTR) => continue,
            Ok(Some(status)) if status.stopped() || status.continued() => {}
            _ => return,
        }
        // `NOWAIT` leaves the change pending. It is consumed here, so that the next wait blocks; by now it may be a
        // later change, whose state is the one that counts.
        if let Ok(Some(status)) = waitid(WaitId::PidFd(process), changes | WaitIdOptions::NOHANG) {
            on_pause(status.stopped());
        }
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Number of the signal that only others send.
pub(crate) const SIGKILL: i32 = 9;

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::new(EndReason::Exited(code), format!("the process exited with code {code}")),
        (None, Some(SIGKILL)) => End::new(
            EndReason::Signalled(SIGKILL),
            "the process was killed by signal 9 (SIGKILL), by a user or for want of memory",
        ),
        (None, Some(signal)) => {
            End::new(EndReason::Signalled(signal), format!("the process was killed by signal {signal}"))
        }
        (None, None) => End::new(EndReason::Unknown, "the process ended"),
    }
}

/// Duplicates a file descriptor to a number above standard input, output and error.
pub(crate) fn dup_above_stdio(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_whose_start_fails_is_reaped() {
        let mut command = Command::new("sleep");
        let mut child = children::start(|| command.arg("1000").spawn(), |child| Some(child.id())).unwrap();
        let number = Pid::from_child(&child);
        or_reap(&mut child, Ok(())).unwrap();
        rustix::process::test_kill_process(number).unwrap();
        or_reap::<()>(&mut child, Err(io::ErrorKind::OutOfMemory.into())).unwrap_err();
        assert_eq!(rustix::process::test_kill_process(number), Err(Errno::SRCH));
    }

    #[tokio::test]
    async fn a_killed_worker_that_does_not_end_is_reaped_in_the_background() {
        let spec = WorkerCommand {
            user: None,
            program: PathBuf::from("sleep"),
            arguments: vec!["1000".to_owned()],
            inherits: true,
            environment: Vec::new(),
            directory: None,
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        let process = WorkerProcess::start(spec).unwrap();
        // Stands for a process that is blocked in the kernel.
        assert!(!ends_within(process.handle.as_fd(), Duration::from_millis(1)));
        process.reap_later();
        assert!(matches!(process.phase(), ProcessPhase::Runs));
        // It gets unblocked, and the pending signal ends it.
        pidfd_send_signal(&*process.handle, Signal::KILL).unwrap();
        assert!(ends_within(process.handle.as_fd(), KILLED_ENDS_WITHIN));
        let until = Instant::now() + KILLED_ENDS_WITHIN;
        while !matches!(process.phase(), ProcessPhase::Reaped) {
            assert!(Instant::now() < until, "no thread has reaped it");
            thread::yield_now();
        }
        // The drop finds the process reaped, and touches no other process with its pid.
        let begun = Instant::now();
        drop(process);
        assert!(begun.elapsed() < KILLED_ENDS_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_follows_a_half_written_one() {
        let (ours, _theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let control_socket = ControlSocket::new(UnixStream::from_std(ours).unwrap());
        let long = vec![0; 1 << 20];
        let limit = config::HANDOFF_TIMEOUT;
        assert!(tokio::time::timeout(limit, control_socket.write(&long, None)).await.is_err());
        let next = tokio::time::timeout(limit, control_socket.write(&[worker::STOP], None)).await.unwrap();
        assert_eq!(next.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
