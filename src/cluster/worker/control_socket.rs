//! Worker's end of the control socket to its parent.
//!
//! ```text
//!   main thread          reads commands (stop, handoff, renew) and nothing else; end of file kills the process
//!   "roadshow-report"    writes reports; started with the first one
//!   any thread           appends to `PendingReports` under a lock, and wakes the writer
//! ```
//!
//! Reading has a thread of its own so that no handler delays the end of the worker. Writing has one so that a
//! parent that does not read stops no actor.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tokio::sync::{mpsc, oneshot};

use crate::cluster::io_thread::IoThread;
use crate::cluster::launch::descendants;
use crate::cluster::launch::descendants::WorkerMark;
use crate::cluster::launch::fd_passing;
use crate::cluster::model::cut;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::worker::{
    ActorEvent, CAUSE_BYTES_MAX, EVENTS_PER_REPORT_MAX, HANDOFF, LEASE, RENEW, STOP, WorkerMessage,
};
use crate::cluster::worker::statistics::StatisticsSink;
use crate::host::{ActorEnd, Leases, LifecycleObserver};
use crate::id::HostId;
use crate::spec::{ActorKey, ActorLocation, LeaseGrant};
use crate::transport::Credentials;

/// Stack size of the thread that writes reports.
const STACK_BYTES: usize = 64 << 10;

/// Time that the end of a worker waits for its last reports to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Queues of the connections that were handed to this process, by the host they are for.
pub(crate) type InboundQueues = FxHashMap<HostId, mpsc::Sender<TcpStream>>;

/// Watch on the parent; runs on a thread that does nothing else.
#[derive(Debug)]
pub(crate) struct ControlSocketWatch {
    pub(crate) control_socket: UnixStream,
    pub(crate) ask_to_stop: oneshot::Sender<()>,
    pub(crate) inbound_queues: InboundQueues,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) mark: Option<WorkerMark>,
    /// Keeps SIGHUP from ending the process. The kernel sends it to the worker's process group when the parent ends
    /// while a member is stopped. The worker stops all members to end them, and must live until it has.
    pub(crate) _hangups: tokio::signal::unix::Signal,
    /// I/O thread, which serves the worker's hosts.
    pub(crate) _io: IoThread,
}

impl ControlSocketWatch {
    /// Handles the parent's commands until the process ends. It ends with its parent.
    pub(crate) fn run(self) -> ! {
        let Self { control_socket, ask_to_stop, inbound_queues, credentials, leases, mark, _hangups, _io } =
            self;
        let mut ask_to_stop = Some(ask_to_stop);
        loop {
            let mut byte = [0];
            match fd_passing::receive(&control_socket, &mut byte) {
                Ok((1, None)) if byte[0] == STOP => {
                    // The receiver is gone if the worker is ending for another reason.
                    let _ = ask_to_stop.take().map(|ask| ask.send(()));
                }
                // The descriptor is missing if this process has reached its limit of open files; the message is read
                // nevertheless, to keep the stream in step.
                Ok((1, fd)) if byte[0] == HANDOFF => {
                    if take_connection(&control_socket, fd.map(TcpStream::from), &inbound_queues).is_err() {
                        kill_self(mark.as_ref());
                    }
                }
                Ok((1, None)) if byte[0] == RENEW => {
                    if renew(&control_socket, credentials.as_ref()).is_err() {
                        kill_self(mark.as_ref());
                    }
                }
                Ok((1, None)) if byte[0] == LEASE => match worker::read::<LeaseGrant>(&control_socket) {
                    // Its actors ask for it when they start.
                    Ok(grant) => drop(leases.renew(grant)),
                    Err(_) => kill_self(mark.as_ref()),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => kill_self(mark.as_ref()),
            }
        }
    }
}

/// Reads new credentials and installs them.
fn renew(control_socket: &UnixStream, credentials: Option<&Credentials>) -> io::Result<()> {
    let fresh: Credentials = worker::read(control_socket)?;
    if let Some(Err(error)) = credentials.map(|credentials| credentials.renew(&fresh)) {
        tracing::warn!(%error, "cannot install the new certificate; the worker keeps its present one");
    }
    Ok(())
}

fn take_connection(
    mut control_socket: &UnixStream,
    connection: Option<TcpStream>,
    inbound_queues: &InboundQueues,
) -> io::Result<()> {
    let mut host = [0; 8];
    io::Read::read_exact(&mut control_socket, &mut host)?;
    // A full queue or an unknown host closes the connection, and the dialler retries. Waiting here would delay the
    // worker's end.
    let host = HostId(u64::from_be_bytes(host));
    if let (Some(connection), Some(queue)) = (connection, inbound_queues.get(&host)) {
        let _ = queue.try_send(connection);
    }
    Ok(())
}

/// Kills this process after its descendants, whatever its threads do.
pub(super) fn kill_self(mark: Option<&WorkerMark>) -> ! {
    let (own, none) = (getpid(), Rlimit { current: Some(0), maximum: Some(0) });
    // Other threads still run user code. With a process limit of zero they start no more processes; root is not
    // bound by the limit.
    let _ = setrlimit(Resource::Nproc, none);
    descendants::end_all(std::process::id(), mark);
    // A process may always signal itself; `abort` is for the case that this fails nevertheless.
    let _ = kill_process(own, Signal::KILL);
    std::process::abort()
}

/// Reports to the parent: actor events in their order, many in a message, and statistics.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<(Mutex<PendingReports>, Condvar)>,
    /// Address of the last reported class name. Another actor of the same class then costs no lock.
    last_class: AtomicUsize,
    classes: Mutex<Vec<&'static str>>,
}

/// Most class names reported. The parent names a worker after its class if it has one; two prove that it has not.
const CLASSES_REPORTED_MAX: usize = 2;

/// Reports that wait for the writer.
#[derive(Debug)]
struct PendingReports {
    events: Vec<ActorEvent>,
    /// Messages with statistics, behind the events.
    statistics: Vec<WorkerMessage>,
    classes: Vec<&'static str>,
    /// The writer is writing a batch that it has taken out.
    writing: bool,
    /// Socket for the writer; taken when its thread starts.
    control_socket: Option<UnixStream>,
}

impl PendingReports {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.statistics.is_empty() && self.classes.is_empty()
    }
}

impl Reporter {
    pub(crate) fn new(control_socket: UnixStream) -> Self {
        let pending = PendingReports {
            events: Vec::new(),
            statistics: Vec::new(),
            classes: Vec::new(),
            writing: false,
            control_socket: Some(control_socket),
        };
        Self {
            shared: Arc::new((Mutex::new(pending), Condvar::new())),
            last_class: AtomicUsize::new(0),
            classes: Mutex::default(),
        }
    }

    /// Adds a report and wakes the writer, which the first report starts.
    fn report(&self, add: impl FnOnce(&mut PendingReports)) {
        let (pending, more) = &*self.shared;
        let control_socket = {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut pending);
            pending.control_socket.take()
        };
        if let Some(control_socket) = control_socket {
            let shared = Arc::clone(&self.shared);
            let writer = thread::Builder::new().name("roadshow-report".to_owned());
            if let Err(error) = writer.stack_size(STACK_BYTES).spawn(move || write(&control_socket, &shared))
            {
                tracing::error!(%error, "cannot start the report thread; actor events of this worker are lost");
            }
        }
        more.notify_all();
    }
}

/// Loop of the writer: takes all pending reports at a time and writes them without the lock.
fn write(control_socket: &UnixStream, (pending, more): &(Mutex<PendingReports>, Condvar)) {
    loop {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.writing = false;
        more.notify_all();
        let pending = more.wait_while(pending, |pending| pending.is_empty());
        let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
        let (events, statistics) =
            (std::mem::take(&mut pending.events), std::mem::take(&mut pending.statistics));
        let classes = std::mem::take(&mut pending.classes);
        pending.writing = true;
        drop(pending);
        let classes = classes.into_iter().map(|class| WorkerMessage::Class(class.to_owned()));
        let events =
            events.chunks(EVENTS_PER_REPORT_MAX).map(|events| WorkerMessage::ActorEvents(events.to_vec()));
        for report in classes.chain(events).chain(statistics) {
            if worker::write(control_socket, &report).is_err() {
                // The parent has ended, and the watch ends this process.
                return;
            }
        }
    }
}

impl LifecycleObserver for Reporter {
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation) {
        let event = ActorEvent::Started { actor, class: class.to_owned(), at };
        self.report(|pending| pending.events.push(event));
    }

    fn actor_stopped(&self, actor: ActorKey, end: ActorEnd) {
        let ActorEnd { incarnation, mut end, handled } = end;
        // It has to fit a message.
        cut(&mut end.text, CAUSE_BYTES_MAX);
        let event = ActorEvent::Stopped { actor, incarnation, end, handled };
        self.report(|pending| pending.events.push(event));
    }

    fn named(&self, class: &'static str) {
        if self.last_class.swap(class.as_ptr().addr(), Ordering::Relaxed) == class.as_ptr().addr() {
            return;
        }
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if classes.len() < CLASSES_REPORTED_MAX && !classes.contains(&class) {
            classes.push(class);
            self.report(|pending| pending.classes.push(class));
        }
    }
}

impl StatisticsSink for Reporter {
    fn is_ready(&self) -> bool {
        let pending = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.statistics.is_empty()
    }

    fn report(&self, statistics: Vec<WorkerMessage>) {
        if !statistics.is_empty() {
            self.report(|pending| pending.statistics.extend(statistics));
        }
    }

    fn flush(&self) {
        let (pending, more) = &*self.shared;
        let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |pending: &mut PendingReports| pending.writing || !pending.is_empty();
        // A parent that does not read must not keep this process alive, hence the timeout.
        drop(more.wait_timeout_while(pending, FLUSH_TIMEOUT, busy));
    }
}
