//! The other side of a driver, or of an agent: this executable, started as a worker.
//!
//! [`run_if_worker`] takes such a process over before any of the user's code runs. The worker's threads:
//! one runs actors and serves their host's links, one runs tasks, one does the I/O that must
//! not wait for either. The thread that called [`run_if_worker`] does nothing but watch the lifeline to the
//! parent: it may be within a runtime of the program's, so it runs no code of a worker's.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::control_socket::{ControlSocketWatch, InboundQueues, Reporter};
use super::hosts::{self, Ended, Executors, HostEndpoint, WorkerEndpoints};
use super::setup;
use super::user_thread::{UserThread, first_end};
use crate::cluster::error::ClusterError;
use crate::cluster::io_thread::IoThread;
use crate::cluster::launch::contract::{ProcessRole, WORKER_ENTRY_REACHED, started_as};
use crate::cluster::launch::descendants;
use crate::cluster::launch::descendants::Mark;
use crate::cluster::launch::fd_passing;
use crate::cluster::launch::process::dup_above_stdio;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::worker::{Report, WorkerInit};
use crate::cluster::worker::LOOPBACK;
use crate::config::HANDOFF_QUEUE_MAX;
use crate::id::HostUid;
use crate::observe::{Chain, log};
use crate::transport::{Routed, Tcp};

/// Takes the process over if it was started as a worker, and does not return then.
///
/// `#[roadshow::main]` calls it before anything else. A `main` written by hand calls it first, which may be
/// within `#[actix::main]` or `#[tokio::main]`: a worker has runtimes of its own.
pub fn run_if_worker() {
    WORKER_ENTRY_REACHED.store(true, Ordering::Relaxed);
    match started_as() {
        ProcessRole::Driver => {}
        ProcessRole::Worker => std::process::exit(run()),
        // The driver was gone before this process began to run.
        ProcessRole::Orphan => std::process::exit(1),
    }
}

/// Runs the worker; gives its exit code if it cannot start. Else the process ends elsewhere.
fn run() -> i32 {
    let mark = Mark::of_this_process();
    let (lifeline, error) = match take_control_socket() {
        Err(error) => (None, ClusterError::from(error)),
        Ok(lifeline) => match serve(&lifeline, mark.clone()) {
            Ok(watch) => watch.run(),
            Err(error) => (Some(lifeline), error),
        },
    };
    end(lifeline.as_ref(), mark.as_ref(), Err(error))
}

/// Reports why the worker ends, if its parent does not know, and ends what it has started; gives the exit code.
fn end(lifeline: Option<&UnixStream>, mark: Option<&Mark>, ended: Result<Ended, ClusterError>) -> i32 {
    let is_asked = matches!(ended, Ok(Ended::Asked));
    let why = match ended {
        Ok(Ended::Asked) => None,
        Ok(Ended::Because(cause)) => Some(cause),
        Err(error) => Some(Chain(&error).to_string()),
    };
    let code = i32::from(why.is_some());
    if let Some(why) = why {
        log::error!(why, "a worker ends");
        // A parent that has gone meanwhile needs no report.
        lifeline.map(|lifeline| worker::write(lifeline, &Report::Failed { why }));
    }
    // While this process lives all that it has started is found. Where it has no child, the parent that has asked
    // it to end finds as much, in one look for all workers that end at the same time.
    if !is_asked || descendants::has_children() {
        descendants::end_all(std::process::id(), mark);
    }
    code
}

/// Moves the socket to the parent out of the user's reach, and gives the user's code an empty standard
/// input.
fn take_control_socket() -> io::Result<UnixStream> {
    let lifeline = UnixStream::from(dup_above_stdio(io::stdin())?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    // For those who look at the process table; without it the name is that of the link, "exe".
    let _ = std::fs::write("/proc/self/comm", "roadshow-worker");
    Ok(lifeline)
}

/// Reads what this process is to be, and takes up the standard output that comes along, if one does.
fn be_told(lifeline: &UnixStream) -> Result<WorkerInit, ClusterError> {
    let mut first = [0];
    let (count, stdout) = loop {
        match fd_passing::receive(lifeline, &mut first) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    let bootstrap: WorkerInit = worker::read(first[..count].chain(lifeline))?;
    match stdout {
        Some(stdout) => rustix::stdio::dup2_stdout(stdout).map_err(io::Error::from)?,
        // A local cluster's worker that could not take it prints all to its standard error.
        None if bootstrap.node.is_none() => {
            rustix::stdio::dup2_stdout(io::stderr()).map_err(io::Error::from)?;
        }
        None => {}
    }
    Ok(bootstrap)
}

/// Starts the worker's threads. What is left is to watch the lifeline.
fn serve(lifeline: &UnixStream, mark: Option<Mark>) -> Result<ControlSocketWatch, ClusterError> {
    worker::write(lifeline, &Report::Diverted)?;
    let bootstrap = be_told(lifeline)?;
    setup::run_all(bootstrap.stack_bytes)?;
    log::init_labelled();
    let (ask_to_stop, stopped) = oneshot::channel();
    let io = IoThread::start(bootstrap.stack_bytes)?;
    let hangups = {
        let _runtime = io.handle().enter();
        signal(SignalKind::hangup())?
    };
    let (sites, doors) = sites(&bootstrap, io.handle());
    let credentials = bootstrap.node.as_ref().map(|node| node.credentials.clone());
    let reporter = Arc::new(Reporter::new(lifeline.try_clone()?));
    // Threads of its own: this one may be within a runtime of the program's.
    let (living, _) = sync_channel(1);
    let stack_bytes = bootstrap.stack_bytes;
    let (actors, actors_end) = UserThread::start("roadshow-actors", stack_bytes, None, living.clone())?;
    let (tasks, tasks_end) = UserThread::start("roadshow-tasks", stack_bytes, Some(&actors), living)?;
    let executors = Executors { actors: actors.executor(), tasks: tasks.executor() };
    let over = first_end(actors_end, tasks_end);
    let (to_parent, ending) = (lifeline.try_clone()?, lifeline.try_clone()?);
    let report = move |ready| worker::write(&to_parent, &ready);
    let (watched, own) = (lifeline.try_clone()?, mark.clone());
    io.handle().spawn(async move {
        let _never = Unwinding;
        let served = hosts::serve(bootstrap, sites, executors, reporter, report, stopped, over).await;
        // Nothing is served on this thread any more: it may wait.
        if let Ok(Ended::Asked) = served {
            // A task that computes does not keep the process.
            actors.end();
        }
        drop(tasks);
        std::process::exit(end(Some(&ending), own.as_ref(), served));
    });
    Ok(ControlSocketWatch {
        lifeline: watched,
        ask_to_stop,
        doors,
        credentials,
        mark,
        _hangups: hangups,
        _io: io,
    })
}

/// Ends the process when the thread that serves its hosts panics: nobody else would.
struct Unwinding;

impl Drop for Unwinding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Where the hosts of this process are to be had: on ports of their own, or behind the door of the node.
fn sites(bootstrap: &WorkerInit, io: &Handle) -> (WorkerEndpoints, InboundQueues) {
    let mut doors = InboundQueues::default();
    let mut site = |identity: HostUid| match &bootstrap.node {
        None => HostEndpoint { transport: Arc::new(Tcp), listen: LOOPBACK, io: io.clone() },
        Some(node) => {
            let (door, arrivals) = mpsc::channel(HANDOFF_QUEUE_MAX);
            doors.insert(identity.host, door);
            let transport = Routed::new(node.credentials.clone(), node.address, arrivals);
            HostEndpoint { transport: Arc::new(transport), listen: node.address, io: io.clone() }
        }
    };
    (WorkerEndpoints { actors: site(bootstrap.actors), tasks: site(bootstrap.tasks) }, doors)
}
