//! Entry point of a worker process: this executable, started by a driver or an agent.
//!
//! [`run_if_worker`] takes such a process over before any of the user's code runs.
//!
//! | thread | runs |
//! |---|---|
//! | caller of [`run_if_worker`] | the watch on the control socket, and nothing else |
//! | `roadshow-io` | the hosts' connections, deadlines and heartbeats |
//! | `roadshow-actors` | actors |
//! | `roadshow-tasks` | tasks |
//! | `roadshow-report` | writes reports to the parent, once there are any |
//!
//! The calling thread may be inside a runtime of the program, so it runs no code of the worker.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::control_socket::{ControlSocketWatch, InboundQueues, Reporter, kill_self};
use super::hosts::{self, Ended, Executors, HostEndpoint, Observers, WorkerEndpoints};
use super::setup;
use super::user_thread::{UserThread, first_end};
use crate::background;
use crate::cluster::error::ClusterError;
use crate::cluster::io_thread::IoThread;
use crate::cluster::launch::contract::{ProcessRole, WORKER_ENTRY_REACHED, started_as};
use crate::cluster::launch::descendants;
use crate::cluster::launch::descendants::WorkerMark;
use crate::cluster::launch::fd_passing;
use crate::cluster::launch::process::dup_above_stdio;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::worker::{WorkerInit, WorkerMessage};
use crate::cluster::worker::LOOPBACK;
use crate::config::{HANDOFF_QUEUE_MAX, TRACE_FLUSH_TIMEOUT};
use crate::host::{Leases, machine_time};
use crate::id::HostUid;
use crate::observe::{Chain, log, trace};
use crate::transport::{Routed, Tcp};

/// Enters the worker loop, and never returns, if this process was started as a worker. Otherwise does nothing.
///
/// `#[roadshow::main]` calls it before anything else. A `main` written by hand calls it first, also inside of
/// `#[actix::main]` or `#[tokio::main]`: a worker has runtimes of its own.
///
/// # Examples
///
/// ```no_run
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), roadshow::Error> {
///     roadshow::run_if_worker();
///     let cluster = roadshow::Cluster::local(2).await?;
///     Ok(cluster.shutdown().await?)
/// }
/// ```
pub fn run_if_worker() {
    WORKER_ENTRY_REACHED.store(true, Ordering::Relaxed);
    match started_as() {
        ProcessRole::Driver => {}
        ProcessRole::Worker => std::process::exit(run()),
        // The parent ended before this process began to run.
        ProcessRole::Orphan => std::process::exit(1),
    }
}

/// Runs the worker; returns an exit code if it cannot start. Otherwise another thread ends the process.
fn run() -> i32 {
    let mark = WorkerMark::of_this_process();
    let (control_socket, error) = match take_control_socket() {
        Err(error) => (None, ClusterError::from(error)),
        Ok(control_socket) => match serve(&control_socket, mark.clone()) {
            Ok(watch) => watch.run(),
            Err(error) => (Some(control_socket), error),
        },
    };
    end(control_socket.as_ref(), mark.as_ref(), Err(error))
}

/// Reports the cause of the worker's end, unless the parent requested it, and ends its descendants; returns the exit
/// code.
fn end(
    control_socket: Option<&UnixStream>,
    mark: Option<&WorkerMark>,
    ended: Result<Ended, ClusterError>,
) -> i32 {
    let is_asked = matches!(ended, Ok(Ended::Asked));
    let why = match ended {
        Ok(Ended::Asked) => None,
        Ok(Ended::Because(cause)) => Some(cause),
        Err(error) => Some(Chain(&error).to_string()),
    };
    let code = i32::from(why.is_some());
    if let Some(why) = why {
        log::error!(why, "a worker ends");
        // The write fails if the parent has ended.
        control_socket.map(|control_socket| worker::write(control_socket, &WorkerMessage::Failed { why }));
    }
    // The descendants are found only while this process lives. A worker without children may skip the scan: the
    // parent, which requested the end, scans once for all workers that end at the same time.
    if !is_asked || descendants::has_children() {
        descendants::end_all(std::process::id(), mark);
    }
    // Last: a collector may be slow, and this process's parent waits for a bounded time.
    trace::flush_within(TRACE_FLUSH_TIMEOUT);
    code
}

/// Moves the control socket to a descriptor that user code does not touch, and replaces standard input by an empty
/// one.
fn take_control_socket() -> io::Result<UnixStream> {
    let control_socket = UnixStream::from(dup_above_stdio(io::stdin())?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    // Shown by `ps` and `top`; otherwise the name would be "exe", that of the link.
    let _ = std::fs::write("/proc/self/comm", "roadshow-worker");
    Ok(control_socket)
}

/// Receives the worker's initialisation, and the standard output that may come with it.
fn receive_init(control_socket: &UnixStream) -> Result<WorkerInit, ClusterError> {
    let mut first = [0];
    let (count, stdout) = loop {
        match fd_passing::receive(control_socket, &mut first) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    let init: WorkerInit = worker::read(first[..count].chain(control_socket))?;
    match stdout {
        Some(stdout) => rustix::stdio::dup2_stdout(stdout).map_err(io::Error::from)?,
        // In a local cluster, a worker whose descriptor was lost prints everything to standard error.
        None if init.node.is_none() => {
            rustix::stdio::dup2_stdout(io::stderr()).map_err(io::Error::from)?;
        }
        None => {}
    }
    Ok(init)
}

/// Starts the worker's threads; returns the watch on the control socket, which the calling thread has to run.
fn serve(control_socket: &UnixStream, mark: Option<WorkerMark>) -> Result<ControlSocketWatch, ClusterError> {
    // The order matters. The first report tells a program without a worker entry point from a worker that fails
    // later. Set-up functions run before the threads that they prepare exist.
    worker::write(control_socket, &WorkerMessage::Diverted)?;
    let init = receive_init(control_socket)?;
    setup::run_all(init.stack_bytes)?;
    log::init_labelled();
    let (ask_to_stop, stopped) = oneshot::channel();
    let io = IoThread::start(init.stack_bytes)?;
    // Installed before the watch can stop the process group; see `ControlSocketWatch::_hangups`.
    let hangups = {
        let _runtime = io.handle().enter();
        signal(SignalKind::hangup())?
    };
    let (endpoints, inbound_queues) = endpoints(&init, io.handle());
    let credentials = init.node.as_ref().map(|node| node.credentials.clone());
    let reporter = Arc::new(Reporter::new(control_socket.try_clone()?));
    // User code gets threads of its own, since the calling thread may be inside a runtime of the program.
    let (alive, _) = sync_channel(1);
    let stack_bytes = init.stack_bytes;
    let (actors, actors_end) = UserThread::start("roadshow-actors", stack_bytes, None, alive.clone())?;
    let (tasks, tasks_end) = UserThread::start("roadshow-tasks", stack_bytes, Some(&actors), alive)?;
    let leases = leases(io.handle(), mark.clone());
    let executors =
        Executors { actors: actors.executor(), tasks: tasks.executor(), leases: Arc::clone(&leases) };
    let thread_end = first_end(actors_end, tasks_end);
    let (ready_socket, end_socket) = (control_socket.try_clone()?, control_socket.try_clone()?);
    let report = move |ready| worker::write(&ready_socket, &ready);
    let (watched, end_mark) = (control_socket.try_clone()?, mark.clone());
    background::spawn_on(io.handle(), async move {
        let _guard = AbortOnPanic;
        let statistics = init.node.is_some().then(|| Arc::clone(&reporter) as _);
        let observers = Observers { lifecycle: reporter, statistics };
        let served = hosts::serve(init, endpoints, executors, observers, report, stopped, thread_end).await;
        // No host is left on this thread, so it may block.
        if let Ok(Ended::Asked) = served {
            // Actors get to the end of a running handler. A task may compute for hours: it ends with the process.
            actors.end();
        }
        drop(tasks);
        std::process::exit(end(Some(&end_socket), end_mark.as_ref(), served));
    });
    Ok(ControlSocketWatch {
        control_socket: watched,
        ask_to_stop,
        inbound_queues,
        credentials,
        leases,
        mark,
        _hangups: hangups,
        _io: io,
    })
}

/// Leases of this process. It is killed if the code of an exclusive actor overruns them.
fn leases(io: &Handle, mark: Option<WorkerMark>) -> Arc<Leases> {
    let overrun = move || {
        log::error!("code of an exclusive actor still runs after the end of its lease: the worker is killed");
        kill_self(mark.as_ref());
    };
    Arc::new(Leases::new(machine_time, io.clone(), Arc::new(overrun)))
}

/// Aborts the process if the task that serves its hosts panics. Otherwise the process would live on without them.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Endpoints of the hosts: a port each in a local cluster, or connections that the node's acceptor hands over.
fn endpoints(init: &WorkerInit, io: &Handle) -> (WorkerEndpoints, InboundQueues) {
    let mut inbound_queues = InboundQueues::default();
    let mut endpoint = |identity: HostUid| match &init.node {
        None => HostEndpoint { transport: Arc::new(Tcp), listen: LOOPBACK, io: io.clone() },
        Some(node) => {
            let (queue, connections) = mpsc::channel(HANDOFF_QUEUE_MAX);
            inbound_queues.insert(identity.host, queue);
            let transport = Routed::new(node.credentials.clone(), node.address, connections);
            HostEndpoint { transport: Arc::new(transport), listen: node.address, io: io.clone() }
        }
    };
    let head = init.node.as_ref().map(|node| node.head);
    (WorkerEndpoints { head, actors: endpoint(init.actors), tasks: endpoint(init.tasks) }, inbound_queues)
}
