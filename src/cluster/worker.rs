//! The other side of the driver: this executable, started as a worker.
//!
//! [`divert`] takes such a process over before any of the user's code runs. The worker's threads:
//! the first runs actors and serves their host's links, one runs tasks, one does the I/O that must
//! not wait for either, and one does nothing but watch the lifeline to the driver.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use actix_rt::{Arbiter, System};
use rustix::process::{Signal, getpid, getppid, kill_process};
use tokio::sync::oneshot;

use super::ClusterError;
use super::bootstrap::{self, Bootstrap, Report, STOP};
use super::hosts::{self, Site};
use super::io_thread::IoThread;
use super::local::LOOPBACK;
use super::process::set_aside;
use crate::observe;
use crate::transport::Tcp;

/// Says to a process that it was started as a worker, and by which process.
pub(super) const WORKER_VARIABLE: &str = "ROADSHOW_WORKER";

/// Set once this process would have been diverted, had it been a worker.
static DIVERTED: AtomicBool = AtomicBool::new(false);

/// The test that takes over when a test executable is started as a worker.
///
/// Registered by `worker_test!`.
#[derive(Debug)]
pub struct WorkerTest {
    path: &'static str,
}

inventory::collect!(WorkerTest);

impl WorkerTest {
    /// The test at `path`, as `module_path!` gives it.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path }
    }

    /// The path as test harnesses know it: without the crate's name.
    fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }
}

/// Takes the process over if it was started as a worker, and does not return then.
///
/// `#[roadshow::main]` calls it before anything else. A `main` written by hand calls it first.
pub fn divert() {
    DIVERTED.store(true, Ordering::Relaxed);
    match started_as() {
        Started::Driver => {}
        Started::Worker => std::process::exit(run()),
        // The driver was gone before this process began to run.
        Started::Orphan => std::process::exit(1),
    }
}

/// The arguments that make this executable divert when it is started as a worker.
pub(super) fn arguments() -> Result<Vec<String>, ClusterError> {
    if let Started::Worker | Started::Orphan = started_as() {
        // Here we are a worker that nobody diverted: starting workers would never end.
        return Err(ClusterError::NotDiverted);
    }
    if let Some(test) = inventory::iter::<WorkerTest>.into_iter().next() {
        return Ok([test.name(), "--exact", "--nocapture", "--test-threads=1"].map(String::from).into());
    }
    if DIVERTED.load(Ordering::Relaxed) { Ok(Vec::new()) } else { Err(ClusterError::NotDiverted) }
}

enum Started {
    Driver,
    Worker,
    Orphan,
}

/// Says to a process to be started that it is a worker: by whom, and by which socket it will know.
pub(super) fn introduction(lifeline: &UnixStream) -> io::Result<String> {
    Ok(format!("{}:{}", std::process::id(), rustix::fs::fstat(lifeline)?.st_ino))
}

/// A worker has its driver's number in its environment, and as its standard input the very socket
/// that is named there. The variable alone means nothing: programs that a worker starts inherit it.
fn started_as() -> Started {
    let introduction = std::env::var(WORKER_VARIABLE).ok();
    let Some((driver, socket)) = introduction.as_deref().and_then(|text| text.split_once(':')) else {
        return Started::Driver;
    };
    if rustix::fs::fstat(io::stdin()).map(|stat| stat.st_ino.to_string()).as_deref() != Ok(socket) {
        return Started::Driver;
    }
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref() == Some(driver) { Started::Worker } else { Started::Orphan }
}

/// Runs the worker; gives its exit code.
fn run() -> i32 {
    let outcome = take_lifeline().map_err(ClusterError::from).and_then(|lifeline| {
        serve(&lifeline).inspect_err(|error| {
            // A driver that has gone meanwhile needs no report.
            let _ = bootstrap::write(&lifeline, &Report::Failed { why: error.to_string() });
        })
    });
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "a worker cannot run");
            1
        }
    }
}

/// Moves the socket to the driver out of the user's reach, and gives the user's code an empty
/// standard input and the driver's standard error as standard output.
fn take_lifeline() -> io::Result<UnixStream> {
    let lifeline = UnixStream::from(set_aside(io::stdin())?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    // For those who look at the process table; without it the name is that of the link, "exe".
    let _ = std::fs::write("/proc/self/comm", "roadshow-worker");
    Ok(lifeline)
}

fn serve(lifeline: &UnixStream) -> Result<(), ClusterError> {
    let bootstrap: Bootstrap = bootstrap::read(lifeline)?;
    observe::log::init();
    let (ask_to_stop, stopped) = oneshot::channel();
    watch(lifeline.try_clone()?, ask_to_stop)?;
    let io = IoThread::start()?;
    let site = Site { transport: Arc::new(Tcp), listen: LOOPBACK, io: io.handle().clone() };
    let system = System::new();
    let tasks = Arbiter::new();
    let report = |ready| bootstrap::write(lifeline, &ready);
    // A task that computes does not keep the process: `tasks` is not waited for.
    system.block_on(hosts::serve(&bootstrap, &site, tasks.handle(), report, stopped))
}

/// Watches the driver from a thread that does nothing else: the worker's end must not wait for a
/// handler that computes.
fn watch(mut lifeline: UnixStream, ask_to_stop: oneshot::Sender<()>) -> io::Result<()> {
    let mut ask_to_stop = Some(ask_to_stop);
    thread::Builder::new().name("roadshow-life".to_owned()).spawn(move || {
        let mut byte = [0];
        loop {
            match lifeline.read(&mut byte) {
                Ok(1) if byte[0] == STOP => {
                    // The worker may be about to end for another reason.
                    let _ = ask_to_stop.take().map(|ask| ask.send(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => die(),
            }
        }
    })?;
    Ok(())
}

/// Ends the process at once, whatever its threads do and hold.
fn die() -> ! {
    // Fails for no process that may signal itself.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
