//! A worker's end of the socket pair to its parent.
//!
//! One thread does nothing but read it, so that the worker's end waits for no handler; another, started
//! with the first report, writes to it, so that a parent which does not read stops no actor.

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
use crate::cluster::launch::descendants::Mark;
use crate::cluster::launch::fd_passing;
use crate::cluster::model::TaskCount;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::worker::{
    ActorEvent, CAUSE_BYTES_MAX, EVENTS_PER_REPORT_MAX, HANDOFF, RENEW, Report, STOP,
};
use crate::host::LifecycleObserver;
use crate::id::HostId;
use crate::spec::{ActorKey, ActorLocation};
use crate::transport::Credentials;

/// The stack of a thread that only writes to a socket.
const STACK_BYTES: usize = 64 << 10;

/// How long the end of a worker waits for its last reports to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Where connections for the hosts of this process go.
pub(crate) type InboundQueues = FxHashMap<HostId, mpsc::Sender<TcpStream>>;

/// Watches the parent, on a thread that does nothing else.
#[derive(Debug)]
pub(crate) struct ControlSocketWatch {
    pub(crate) lifeline: UnixStream,
    pub(crate) ask_to_stop: oneshot::Sender<()>,
    pub(crate) doors: InboundQueues,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) mark: Option<Mark>,
    /// Keeps a hangup from ending the process. The kernel sends one to the worker's process group when the
    /// parent ends while a process of the group is stopped, as all are that the worker is about to end.
    pub(crate) _hangups: tokio::signal::unix::Signal,
    /// The thread that serves the worker's hosts.
    pub(crate) _io: IoThread,
}

impl ControlSocketWatch {
    /// Watches until the process ends. The parent's end is that of this process.
    pub(crate) fn run(self) -> ! {
        let Self { lifeline, ask_to_stop, doors, credentials, mark, _hangups, _io } = self;
        let mut ask_to_stop = Some(ask_to_stop);
        loop {
            let mut byte = [0];
            match fd_passing::receive(&lifeline, &mut byte) {
                Ok((1, None)) if byte[0] == STOP => {
                    // The worker may be about to end for another reason.
                    let _ = ask_to_stop.take().map(|ask| ask.send(()));
                }
                // Without the connection if this process has too many files open to take it.
                Ok((1, fd)) if byte[0] == HANDOFF => {
                    if take_connection(&lifeline, fd.map(TcpStream::from), &doors).is_err() {
                        kill_self(mark.as_ref());
                    }
                }
                Ok((1, None)) if byte[0] == RENEW => {
                    if renew(&lifeline, credentials.as_ref()).is_err() {
                        kill_self(mark.as_ref());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => kill_self(mark.as_ref()),
            }
        }
    }
}

/// Takes up the certificate that comes.
fn renew(lifeline: &UnixStream, credentials: Option<&Credentials>) -> io::Result<()> {
    let fresh: Credentials = worker::read(lifeline)?;
    if let Some(Err(error)) = credentials.map(|credentials| credentials.renew(&fresh)) {
        tracing::warn!(%error, "the worker keeps the certificate that it has");
    }
    Ok(())
}

fn take_connection(
    mut lifeline: &UnixStream,
    connection: Option<TcpStream>,
    doors: &InboundQueues,
) -> io::Result<()> {
    let mut host = [0; 8];
    io::Read::read_exact(&mut lifeline, &mut host)?;
    // Where nobody takes it, or there is no room, it is closed, and whoever dialled tries again.
    if let (Some(connection), Some(door)) = (connection, doors.get(&HostId(u64::from_be_bytes(host)))) {
        let _ = door.try_send(connection);
    }
    Ok(())
}

/// Ends the process, whatever its threads do and hold, and before it what it has started.
fn kill_self(mark: Option<&Mark>) -> ! {
    let (own, none) = (getpid(), Rlimit { current: Some(0), maximum: Some(0) });
    // The threads go on meanwhile. Where this is allowed for a user, they start no more processes.
    let _ = setrlimit(Resource::Nproc, none);
    descendants::end_all(std::process::id(), mark);
    // Fails for no process that may signal itself.
    let _ = kill_process(own, Signal::KILL);
    std::process::abort()
}

/// Reports the lives of actors to the parent, in their order, many at a time; and how many tasks there were.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<(Mutex<Pending>, Condvar)>,
    /// Where the name of the type lies that was told last: another actor of it costs no lock.
    last_class: AtomicUsize,
    classes: Mutex<Vec<&'static str>>,
}

/// A parent calls a worker by the type of its actors if there is one. More than two need not be told.
const CLASSES_TOLD_MAX: usize = 2;

#[derive(Debug)]
struct Pending {
    events: Vec<ActorEvent>,
    tasks: Vec<TaskCount>,
    classes: Vec<&'static str>,
    /// Whether the thread that writes is at it.
    writing: bool,
    /// Until the thread that writes has been started.
    lifeline: Option<UnixStream>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.tasks.is_empty() && self.classes.is_empty()
    }
}

impl Reporter {
    pub(crate) fn new(lifeline: UnixStream) -> Self {
        let pending = Pending {
            events: Vec::new(),
            tasks: Vec::new(),
            classes: Vec::new(),
            writing: false,
            lifeline: Some(lifeline),
        };
        Self {
            shared: Arc::new((Mutex::new(pending), Condvar::new())),
            last_class: AtomicUsize::new(0),
            classes: Mutex::default(),
        }
    }

    fn report(&self, add: impl FnOnce(&mut Pending)) {
        let (pending, more) = &*self.shared;
        let lifeline = {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut pending);
            pending.lifeline.take()
        };
        if let Some(lifeline) = lifeline {
            let shared = Arc::clone(&self.shared);
            let writer = thread::Builder::new().name("roadshow-report".to_owned());
            if let Err(error) = writer.stack_size(STACK_BYTES).spawn(move || write(&lifeline, &shared)) {
                tracing::error!(%error, "the cluster will not hear of this worker's actors");
            }
        }
        more.notify_all();
    }
}

fn write(lifeline: &UnixStream, (pending, more): &(Mutex<Pending>, Condvar)) {
    loop {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.writing = false;
        more.notify_all();
        let pending = more.wait_while(pending, |pending| pending.is_empty());
        let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
        let (lives, tasks) = (std::mem::take(&mut pending.events), std::mem::take(&mut pending.tasks));
        let classes = std::mem::take(&mut pending.classes);
        pending.writing = true;
        drop(pending);
        let classes = classes.into_iter().map(|class| Report::Class(class.to_owned()));
        let lives = lives.chunks(EVENTS_PER_REPORT_MAX).map(|lives| Report::ActorEvents(lives.to_vec()));
        let tasks = tasks.chunks(EVENTS_PER_REPORT_MAX).map(|tasks| Report::Tasks(tasks.to_vec()));
        for report in classes.chain(lives).chain(tasks) {
            if worker::write(lifeline, &report).is_err() {
                // The parent has gone, and so does this process.
                return;
            }
        }
    }
}

impl LifecycleObserver for Reporter {
    fn actor_started(&self, actor: ActorKey, class: &'static str, at: ActorLocation) {
        let life = ActorEvent::Started { actor, class: class.to_owned(), at };
        self.report(|pending| pending.events.push(life));
    }

    fn actor_stopped(&self, actor: ActorKey, cause: &str) {
        let end = (0..=CAUSE_BYTES_MAX.min(cause.len())).rfind(|at| cause.is_char_boundary(*at));
        let end = end.unwrap_or_default();
        let life = ActorEvent::Stopped { actor, cause: cause[..end].to_owned() };
        self.report(|pending| pending.events.push(life));
    }

    fn named(&self, class: &'static str) {
        if self.last_class.swap(class.as_ptr().addr(), Ordering::Relaxed) == class.as_ptr().addr() {
            return;
        }
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if classes.len() < CLASSES_TOLD_MAX && !classes.contains(&class) {
            classes.push(class);
            self.report(|pending| pending.classes.push(class));
        }
    }

    fn tasks(&self, name: String, [queued, running, finished, failed]: [u64; 4]) {
        let count = TaskCount { name, queued, running, finished, failed };
        self.report(|pending| pending.tasks.push(count));
    }

    fn flush(&self) {
        let (pending, more) = &*self.shared;
        let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |pending: &mut Pending| pending.writing || !pending.is_empty();
        // A parent that does not read has other worries.
        drop(more.wait_timeout_while(pending, FLUSH_TIMEOUT, busy));
    }
}
