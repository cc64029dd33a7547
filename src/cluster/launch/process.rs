//! A worker process as its parent sees it: started, watched, ended.

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
use crate::cluster::error::ClusterError;
use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::launch::control_socket::{ControlSocket, Reports};
use crate::cluster::launch::descendants::{MARK_VARIABLE, Mark};
use crate::cluster::launch::user_ids::UserIds;
use crate::cluster::launch::{contract, descendants};
use crate::cluster::protocol::worker::{Report, WorkerInit};
use crate::cluster::protocol::{Variables, worker};
use crate::config;
use crate::observe::log;

/// The stack of a thread that waits for a process, and ends what that has started.
const WATCH_STACK_BYTES: usize = 128 << 10;

/// What a worker process is started from.
#[derive(Debug)]
pub(crate) struct WorkerCommand {
    /// The executable.
    pub(crate) program: PathBuf,
    /// Arguments by which the program runs as a worker.
    pub(crate) arguments: Vec<String>,
    /// Whether it has the environment of this process.
    pub(crate) inherits: bool,
    /// Environment variables added to those.
    pub(crate) environment: Variables,
    /// Where it runs; where this process does if none is given.
    pub(crate) directory: Option<PathBuf>,
    /// The user that it runs as; this process's own if none is given.
    pub(crate) user: Option<UserIds>,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl WorkerCommand {
    /// This very executable, with a standard error.
    ///
    /// `/proc/self/exe` is the running executable even when its file was replaced by a new build. Its
    /// standard output comes with its bootstrap: what a test harness prints before that belongs to nobody.
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

/// A worker process. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pid: u32,
    /// The process itself, whoever may have its number later.
    handle: Arc<OwnedFd>,
    child: Arc<Mutex<Child>>,
    lifeline: Arc<ControlSocket>,
    mark: Mark,
}

impl WorkerProcess {
    /// Starts a worker. To be called within a runtime.
    pub(crate) fn start(launch: WorkerCommand) -> Result<Self, ClusterError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let lifeline = Arc::new(ControlSocket::new(UnixStream::from_std(ours)?));
        let mut command = Command::new(&launch.program);
        command.arg0("roadshow-worker").args(launch.arguments);
        if !launch.inherits {
            command.env_clear();
        }
        let mark = Mark::new()?;
        command.envs(launch.environment).env(MARK_VARIABLE, mark.value());
        if let Some(directory) = launch.directory {
            command.current_dir(directory);
        }
        command.env(WORKER_VARIABLE, contract::spawn_token(&theirs)?);
        command.stdin(OwnedFd::from(theirs)).stdout(launch.stdout).stderr(launch.stderr);
        // Ctrl-C at a terminal is for the driver; the workers follow it over their lifelines.
        command.process_group(0);
        let start = || match launch.user {
            None => spawn(&mut command),
            Some(user) => user.start(|| spawn(user.set(&mut command))),
        };
        let mut child = children::start(start, |child| Some(child.id()))?;
        let pid = child.id();
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from);
        let handle = Arc::new(kept_or_reaped(&mut child, handle)?);
        Ok(Self { pid, handle, child: Arc::new(Mutex::new(child)), lifeline, mark })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn lifeline(&self) -> &Arc<ControlSocket> {
        &self.lifeline
    }

    /// Tells the worker what to be, and waits until it is. With `stdout` it has another standard output.
    pub(crate) async fn initialise(
        &self,
        bootstrap: &WorkerInit,
        stdout: Option<OwnedFd>,
    ) -> Result<Report, ClusterError> {
        let limit = config::WORKER_START_TIMEOUT;
        let mut diverted = false;
        match tokio::time::timeout(limit, self.exchange_init(bootstrap, stdout, &mut diverted)).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => {
                let cause = self.post_mortem(&error, diverted).await;
                Err(ClusterError::Worker { pid: self.pid, cause })
            }
            Err(_) => Err(ClusterError::WorkerStartTimeout { pid: self.pid, limit }),
        }
    }

    async fn exchange_init(
        &self,
        bootstrap: &WorkerInit,
        stdout: Option<OwnedFd>,
        diverted: &mut bool,
    ) -> io::Result<Report> {
        let stdout_fd = stdout.as_ref().map(AsFd::as_fd);
        self.lifeline.write(&worker::encode(bootstrap)?, stdout_fd).await?;
        // The worker alone holds it now, and its end is seen.
        drop(stdout);
        let first = self.lifeline.report().await?;
        *diverted = matches!(first, Report::Diverted);
        if *diverted { self.lifeline.report().await } else { Ok(first) }
    }

    /// Hands on what the worker reports, until it ends.
    pub(crate) fn on_report(&self, mut take: impl FnMut(Report) + Send + 'static) -> Reports {
        let lifeline = Arc::clone(&self.lifeline);
        Reports::new(tokio::spawn(async move {
            let mut why_it_ends = None;
            while let Ok(report) = lifeline.report().await {
                match report {
                    Report::Failed { why } => why_it_ends = Some(why),
                    report => take(report),
                }
            }
            why_it_ends
        }))
    }

    /// Why there is no report. A worker that was diverted reports why it cannot start.
    async fn post_mortem(&self, error: &io::Error, diverted: bool) -> String {
        let mut ended = lock(&self.child).try_wait();
        for _ in 0..POST_MORTEM_LOOKS {
            // The socket closes a moment before the process can be waited for.
            if !matches!(ended, Ok(None)) {
                break;
            }
            tokio::time::sleep(POST_MORTEM_PAUSE).await;
            ended = lock(&self.child).try_wait();
        }
        match ended {
            Ok(Some(status)) if diverted && status.code().is_some() => {
                format!("{} before it was ready: a worker_setup! may have ended it", describe(status))
            }
            Ok(Some(status)) if status.code().is_some() => format!(
                "{} before it reached roadshow::run_if_worker(), which runs a worker: call it first in main, or \
                 put #[roadshow::main] on main",
                describe(status)
            ),
            Ok(Some(status)) => describe(status),
            _ => error.to_string(),
        }
    }

    /// Tells how the process ended, once it has; until then `pause` hears of each time that it is
    /// stopped, and that it goes on.
    ///
    /// A thread waits for it: it costs a few kilobytes, and works whatever runs on other threads.
    pub(crate) fn on_exit(
        &self,
        pause: impl Fn(bool) + Send + 'static,
    ) -> io::Result<oneshot::Receiver<String>> {
        let handle = Arc::clone(&self.handle);
        let child = Arc::clone(&self.child);
        let (pid, mark) = (self.pid, self.mark.clone());
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("roadshow-wait".to_owned()).stack_size(WATCH_STACK_BYTES).spawn(
            move || {
                wait_for_end(handle.as_fd(), pause);
                // Before it is reaped: its number, and that of its process group, are still its own.
                descendants::end_all(pid, Some(&mark));
                let cause = lock(&child).wait().map_or_else(|error| error.to_string(), describe);
                children::ended(pid);
                // Nobody asks any more when the cluster was dropped.
                let _ = tell.send(cause);
            },
        )?;
        Ok(ended)
    }

    /// Asks the worker to end. Whether it did is for [`WorkerProcess::watch`] to tell.
    pub(crate) async fn ask_to_stop(&self) {
        // A worker that has ended already cannot be told.
        let _ = self.lifeline.write(&[worker::STOP], None).await;
    }

    /// Ends the process and what it has started, whatever they do. Blocks until what it has started has ended.
    pub(crate) fn kill(&self) {
        // Of one that has ended, the thread that waits for it ends what is left.
        if let Phase::Runs = self.phase() {
            // While its parents live a process is found whatever its environment is.
            descendants::end_all(self.pid, Some(&self.mark));
            // It fails only for a process that has ended.
            let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
        }
    }

    fn phase(&self) -> Phase {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.handle.as_fd()), look) {
            Ok(None) => Phase::Runs,
            Ok(Some(_)) => Phase::Ended,
            Err(_) => Phase::Reaped,
        }
    }
}

enum Phase {
    Runs,
    Ended,
    Reaped,
}

impl WorkerProcess {
    /// Has a thread wait for the end of the process, however long that takes.
    fn reap_later(&self) {
        log::warn!(pid = self.pid, "a worker was killed and does not end; it waits in the kernel");
        let (child, pid) = (Arc::clone(&self.child), self.pid);
        let reaping = thread::Builder::new().name("roadshow-reap".to_owned()).spawn(move || {
            // It fails only for a process that was waited for.
            let _ = lock(&child).wait();
            children::ended(pid);
        });
        // Without a thread it stays a zombie until this process ends.
        drop(reaping);
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if !matches!(self.phase(), Phase::Reaped) {
            self.kill();
            let has_ended = ends_within(self.handle.as_fd(), KILLED_ENDS_WITHIN);
            descendants::end_all(self.pid, Some(&self.mark));
            if !has_ended {
                return self.reap_later();
            }
        }
        // It fails only for a process that was waited for.
        let _ = lock(&self.child).wait();
        children::ended(self.pid);
    }
}

/// Time in which a process that was killed ends. One that waits in the kernel, such as for a file server that
/// does not answer, takes longer: an agent has other workers to see to.
const KILLED_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Whether a process ends in time.
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

/// How often the end of a process is looked for that has closed its socket, and how long a pause is.
const POST_MORTEM_LOOKS: u32 = 100;
const POST_MORTEM_PAUSE: Duration = Duration::from_millis(1);

/// How often a file that is busy is tried again.
const ETXTBSY_RETRIES: u32 = 10_000;

/// Starts a process. A file that was just written may still be open in a process that was forked meanwhile
/// and has yet to become another program: for so long it cannot be run.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..ETXTBSY_RETRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
            started => return started,
        }
    }
    command.spawn()
}

/// Kills and reaps a child whose start goes no further.
fn kept_or_reaped<T>(child: &mut Child, held: io::Result<T>) -> io::Result<T> {
    held.inspect_err(|_| {
        // Both fail only for a process that was waited for.
        let _ = child.kill();
        let _ = child.wait();
        children::ended(child.id());
    })
}

/// Waits for the end of a process, without reaping it: its number stays its own until `child` knows.
fn wait_for_end(process: BorrowedFd<'_>, pause: impl Fn(bool)) {
    let changes = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
    loop {
        let any = changes | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(process), any) {
            Err(Errno::INTR) => continue,
            Ok(Some(status)) if status.stopped() || status.continued() => {}
            _ => return,
        }
        // Takes note of the change, which may be a later one by now, so that the next is waited for.
        if let Ok(Some(status)) = waitid(WaitId::PidFd(process), changes | WaitIdOptions::NOHANG) {
            pause(status.stopped());
        }
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the process exited with code {code}"),
        (None, Some(9)) => {
            "the process was killed by signal 9 (SIGKILL), by a user or for want of memory".to_owned()
        }
        (None, Some(signal)) => format!("the process was killed by signal {signal}"),
        (None, None) => "the process ended".to_owned(),
    }
}

/// Keeps a file descriptor under another number, out of reach of what uses standard input.
pub(crate) fn dup_above_stdio(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_whose_start_goes_no_further_is_reaped() {
        let mut command = Command::new("sleep");
        let mut child = children::start(|| command.arg("1000").spawn(), |child| Some(child.id())).unwrap();
        let number = Pid::from_child(&child);
        kept_or_reaped(&mut child, Ok(())).unwrap();
        rustix::process::test_kill_process(number).unwrap();
        kept_or_reaped::<()>(&mut child, Err(io::ErrorKind::OutOfMemory.into())).unwrap_err();
        assert_eq!(rustix::process::test_kill_process(number), Err(Errno::SRCH));
    }

    #[tokio::test]
    async fn a_worker_that_was_killed_and_does_not_end_is_not_waited_for_and_is_reaped_when_it_ends() {
        let launch = WorkerCommand {
            user: None,
            program: PathBuf::from("sleep"),
            arguments: vec!["1000".to_owned()],
            inherits: true,
            environment: Vec::new(),
            directory: None,
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        let process = WorkerProcess::start(launch).unwrap();
        // It stands for one that waits in the kernel: it does not end in time.
        assert!(!ends_within(process.handle.as_fd(), Duration::from_millis(1)));
        process.reap_later();
        assert!(matches!(process.phase(), Phase::Runs));
        // It gets out of there, and the signal that waits ends it.
        pidfd_send_signal(&*process.handle, Signal::KILL).unwrap();
        assert!(ends_within(process.handle.as_fd(), KILLED_ENDS_WITHIN));
        let until = Instant::now() + KILLED_ENDS_WITHIN;
        while !matches!(process.phase(), Phase::Reaped) {
            assert!(Instant::now() < until, "no thread has reaped it");
            thread::yield_now();
        }
        // Nothing is left to do, and nothing is done to another process that may have its number.
        let begun = Instant::now();
        drop(process);
        assert!(begun.elapsed() < KILLED_ENDS_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_follows_a_message_that_was_left_half_written() {
        let (ours, _theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let lifeline = ControlSocket::new(UnixStream::from_std(ours).unwrap());
        let long = vec![0; 1 << 20];
        let limit = config::HANDOFF_TIMEOUT;
        assert!(tokio::time::timeout(limit, lifeline.write(&long, None)).await.is_err());
        let next = tokio::time::timeout(limit, lifeline.write(&[worker::STOP], None)).await.unwrap();
        assert_eq!(next.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
