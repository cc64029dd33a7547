//! A worker process as its driver sees it: started, watched, ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::ClusterError;
use super::bootstrap::{self, Bootstrap, Report};
use super::worker::{self, WORKER_VARIABLE};
use crate::config;

/// The stack of a thread that only waits for a process.
const WATCH_STACK_BYTES: usize = 64 << 10;

/// A worker process. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pid: u32,
    /// The process itself, whoever may have its number later.
    handle: Arc<OwnedFd>,
    child: Arc<Mutex<Child>>,
    /// The worker ends when this closes.
    lifeline: UnixStream,
}

impl WorkerProcess {
    /// Starts a process of this very executable as a worker. To be called within a runtime.
    ///
    /// `/proc/self/exe` is the running executable even when its file was replaced by a new build.
    pub(super) fn start() -> Result<Self, ClusterError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("roadshow-worker").args(worker::arguments()?);
        command.env(WORKER_VARIABLE, worker::introduction(&theirs)?);
        // The worker points its standard output at its standard error once it is diverted: what a
        // test harness prints before that belongs to nobody.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        // Ctrl-C at a terminal is for the driver; the workers follow it over their lifelines.
        command.process_group(0);
        let child = command.spawn()?;
        let pid = child.id();
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from)?;
        let handle = Arc::new(handle);
        Ok(Self { pid, handle, child: Arc::new(Mutex::new(child)), lifeline: UnixStream::from_std(ours)? })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells the worker what to be, and waits until it is.
    pub(super) async fn boot(&mut self, bootstrap: &Bootstrap) -> Result<Report, ClusterError> {
        let limit = config::WORKER_START_TIMEOUT;
        match tokio::time::timeout(limit, self.converse(bootstrap)).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(ClusterError::Worker { pid: self.pid, cause: self.post_mortem(&error) }),
            Err(_) => Err(ClusterError::WorkerSilent { pid: self.pid, limit }),
        }
    }

    async fn converse(&mut self, bootstrap: &Bootstrap) -> io::Result<Report> {
        self.lifeline.write_all(&bootstrap::encode(bootstrap)?).await?;
        let mut length = [0; 4];
        self.lifeline.read_exact(&mut length).await?;
        let mut body = vec![0; bootstrap::checked(length)?];
        self.lifeline.read_exact(&mut body).await?;
        bootstrap::decode(&body)
    }

    fn post_mortem(&self, error: &io::Error) -> String {
        match lock(&self.child).try_wait() {
            Ok(Some(status)) => describe(status),
            _ => error.to_string(),
        }
    }

    /// Tells how the process ended, once it has; until then `pause` hears of each time that it is
    /// stopped, and that it goes on.
    ///
    /// A thread waits for it: it costs a few kilobytes, and works whatever runs on other threads.
    pub(super) fn watch(
        &self,
        pause: impl Fn(bool) + Send + 'static,
    ) -> io::Result<oneshot::Receiver<String>> {
        let handle = Arc::clone(&self.handle);
        let child = Arc::clone(&self.child);
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("roadshow-wait".to_owned()).stack_size(WATCH_STACK_BYTES).spawn(
            move || {
                wait_for_end(handle.as_fd(), pause);
                let cause = lock(&child).wait().map_or_else(|error| error.to_string(), describe);
                // Nobody asks any more when the cluster was dropped.
                let _ = tell.send(cause);
            },
        )?;
        Ok(ended)
    }

    /// Asks the worker to end. Whether it did is for [`WorkerProcess::watch`] to tell.
    pub(super) async fn ask_to_stop(&mut self) {
        // A worker that has ended already cannot be told.
        let _ = self.lifeline.write_all(&[bootstrap::STOP]).await;
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
        let _ = lock(&self.child).wait();
    }
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
pub(super) fn set_aside(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}
