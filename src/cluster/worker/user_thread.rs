//! A thread of a worker that runs user code: its actors, or its tasks.
//!
//! The thread has an actix system of its own, since an arbiter's thread cannot be given a stack size. Both
//! threads of a worker share one `System::current()`, and with it the services of actix's registry. The
//! library spawns past the arbiter: `Arbiter::current().stop()` in user code stops nothing of the library's.
//! `System::current().stop()` ends the thread, and the worker with it.

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

/// The cause of a worker's end when user code has stopped its actix system.
const SYSTEM_STOPPED: &str = "its actix system was stopped: an actor or a task called System::current().stop(), which \
                              ends the whole worker; an actor ends alone by ctx.stop()";

/// The thread. Dropping it ends it as soon as no handler and no task computes.
#[derive(Debug)]
pub(crate) struct UserThread {
    executor: Executor,
    /// `System::current()` of the thread.
    current: System,
    /// Function that the thread runs.
    own: System,
    asked_to_end: Arc<AtomicBool>,
    over: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Resolves with the cause when the thread ends without having been asked to.
#[derive(Debug)]
pub(crate) struct ThreadEnd(oneshot::Receiver<String>);

impl ThreadEnd {
    pub(crate) async fn cause(self) -> String {
        self.0.await.unwrap_or_else(|_| "one of its threads ended".to_owned())
    }
}

/// The cause of the first of two ends.
pub(crate) async fn first_end(one: ThreadEnd, other: ThreadEnd) -> String {
    tokio::select! {
        cause = one.cause() => cause,
        cause = other.cause() => cause,
    }
}

impl UserThread {
    /// Starts the thread. It holds `alive` until it is about to be over.
    ///
    /// # Errors
    ///
    /// The operating system's, with the stack size that was asked for.
    pub(crate) fn start(
        name: &str,
        stack_bytes: usize,
        services_of: Option<&Self>,
        alive: SyncSender<()>,
    ) -> io::Result<(Self, ThreadEnd)> {
        let (hand_out, started) = sync_channel(1);
        let (report_end, ended) = oneshot::channel();
        let (tell_over, over) = oneshot::channel();
        let asked_to_end = Arc::<AtomicBool>::default();
        let (asked, current) = (Arc::clone(&asked_to_end), services_of.map(|other| other.current.clone()));
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(move || {
            let ran = panics::catch(|| run_worker(current, &hand_out));
            if !asked.load(Ordering::Acquire) {
                // The worker may be ending for another reason.
                let _ = report_end.send(match ran {
                    Ok(()) => SYSTEM_STOPPED.to_owned(),
                    Err(panic) => format!("one of its threads panicked: {panic}"),
                });
            }
            // Nobody waits for a thread of a process that ends.
            let _ = tell_over.send(());
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

    /// Asks the thread to end.
    pub(crate) fn ask_to_end(&self) {
        self.asked_to_end.store(true, Ordering::Release);
        self.own.stop();
    }

    /// Ends the thread, and blocks until nothing computes on it any more.
    pub(crate) fn end(mut self) {
        self.ask_to_end();
        if let Some(thread) = self.thread.take() {
            // Its panics are caught on it.
            let _ = thread.join();
        }
    }

    /// Ends the thread, and waits until nothing computes on it any more.
    pub(crate) async fn ends(mut self) {
        self.ask_to_end();
        // It fails for a thread that has ended.
        let _ = (&mut self.over).await;
    }

    /// The thread, to be joined by another.
    pub(crate) fn take_handle(&mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }
}

impl Drop for UserThread {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

type Started = io::Result<(Executor, System, System)>;

/// Runs the thread's system until it is stopped.
fn run_worker(current: Option<System>, hand_out: &SyncSender<Started>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(hand_out.send(Err(error))),
    };
    let runner = System::with_tokio_rt(|| runtime);
    let own = System::current();
    let current = current.unwrap_or_else(|| own.clone());
    System::set_current(current.clone());
    let (executor, spawning) = Executor::local();
    run(runner, spawning.run(), || drop(hand_out.send(Ok((executor, own, current)))));
}

fn run(runner: SystemRunner, spawning: impl Future<Output = ()> + 'static, ready: impl FnOnce()) {
    drop(runner.runtime().spawn(spawning));
    ready();
    // It fails where its controller has ended, which is an end, too.
    let _ = runner.run_with_code();
}
