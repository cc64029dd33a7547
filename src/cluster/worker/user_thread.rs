//! Thread of a worker that runs user code: its actors, or its tasks.
//!
//! Each thread has its own actix system, because the thread of an arbiter cannot be given a stack size. Both threads
//! share one `System::current()`, and with it the services of actix's registry. The library does not spawn through
//! the arbiter, so `Arbiter::current().stop()` in user code stops nothing of the library. `System::current().stop()`
//! ends the thread, and the worker with it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use actix_rt::{System, SystemRunner};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::host::Executor;
use crate::registry::panics;

/// Cause of a worker's end after user code has stopped its actix system.
const SYSTEM_STOPPED: &str = "its actix system was stopped: an actor or a task called System::current().stop(), which \
                              ends the whole worker; an actor ends alone by ctx.stop()";

/// Thread with its executor. Dropping it asks the thread to end; it does so once no handler and no task computes.
#[derive(Debug)]
pub(crate) struct UserThread {
    executor: Executor,
    /// `System::current()` of the thread: that of the worker's first thread.
    current: System,
    /// System that the thread itself runs.
    own: System,
    asked_to_end: Arc<AtomicBool>,
    over: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Resolves to the cause when the thread ends unasked.
#[derive(Debug)]
pub(crate) struct ThreadEnd(oneshot::Receiver<String>);

impl ThreadEnd {
    pub(crate) async fn cause(self) -> String {
        self.0.await.unwrap_or_else(|_| "one of its threads ended".to_owned())
    }
}

/// Cause of the first of two ends.
pub(crate) async fn first_end(one: ThreadEnd, other: ThreadEnd) -> String {
    tokio::select! {
        cause = one.cause() => cause,
        cause = other.cause() => cause,
    }
}

impl UserThread {
    /// Starts the thread. It drops `alive` just before it ends.
    ///
    /// # Errors
    ///
    /// The error of the operating system, with the requested stack size.
    pub(crate) fn start(
        name: &str,
        stack_bytes: usize,
        services_of: Option<&Self>,
        alive: SyncSender<()>,
    ) -> io::Result<(Self, ThreadEnd)> {
        let (hand_out, started) = sync_channel(1);
        let (report_end, ended) = oneshot::channel();
        let (report_over, over) = oneshot::channel();
        let asked_to_end = Arc::<AtomicBool>::default();
        let (asked, current) = (Arc::clone(&asked_to_end), services_of.map(|other| other.current.clone()));
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(move || {
            let ran = panics::catch(|| run_worker(current, &hand_out));
            if !asked.load(Ordering::Acquire) {
                // The receiver is gone if the worker is ending for another reason.
                let _ = report_end.send(match ran {
                    Ok(()) => SYSTEM_STOPPED.to_owned(),
                    Err(panic) => format!("one of its threads panicked: {panic}"),
                });
            }
            // The receiver is gone if the process ends without waiting for its threads.
            let _ = report_over.send(());
            drop(alive);
        });
        let thread = thread.map_err(|error| {
            let text = format!("a thread with a stack of {stack_bytes} bytes: {error}; lower the stack size");
            io::Error::new(error.kind(), text)
        })?;
        let (executor, own, current) = started.recv().map_err(io::Error::other)??;
        Ok((Self { executor, current, own, asked_to_end, over, thread: Some(thread) }, ThreadEnd(ended)))
    }

    pub(crate) fn executor(&self) -> Executor {
        self.executor.clone()
    }

    /// Asks the thread to end after the running handler or task.
    pub(crate) fn ask_to_end(&self) {
        self.asked_to_end.store(true, Ordering::Release);
        self.own.stop();
    }

    /// Ends the thread, and blocks until it has finished its running handler or task.
    pub(crate) fn end(mut self) {
        self.ask_to_end();
        if let Some(thread) = self.thread.take() {
            // Panics were caught on the thread.
            let _ = thread.join();
        }
    }

    /// Ends the thread, and waits until it has finished its running handler or task.
    pub(crate) async fn ends(mut self) {
        self.ask_to_end();
        // It fails if the thread has ended already.
        let _ = (&mut self.over).await;
    }

    /// Handle of the thread, to be joined elsewhere.
    pub(crate) fn take_handle(&mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }
}

impl Drop for UserThread {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

/// Parts of a thread that runs: executor, own system, and `System::current()`.
type StartedThread = io::Result<(Executor, System, System)>;

/// Runs the thread's system until it is stopped.
fn run_worker(current: Option<System>, hand_out: &SyncSender<StartedThread>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(hand_out.send(Err(error))),
    };
    let runner = System::with_tokio_rt(|| runtime);
    let own = System::current();
    let current = current.unwrap_or_else(|| own.clone());
    // Set before user code runs: actix looks its registry of services up through the current system.
    System::set_current(current.clone());
    let (executor, spawning) = Executor::local();
    run(runner, spawning.run(), || drop(hand_out.send(Ok((executor, own, current)))));
}

fn run(runner: SystemRunner, spawning: impl Future<Output = ()> + 'static, ready: impl FnOnce()) {
    drop(runner.runtime().spawn(spawning));
    ready();
    // It fails if the system's controller has ended; the thread ends then as well.
    let _ = runner.run_with_code();
}
