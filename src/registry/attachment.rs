//! End of an actor, seen from within its context.
//!
//! actix reports no end of an actor. It drops the actor's context then, with all futures in it. An
//! [`Attachment`] is such a future, which a [`ControlMessage`](super::ControlMessage) brings there.
//!
//! The stop by which an actor ends is noted for the task that runs the actor: an actor is one task of tokio,
//! and ids of tasks are not reused. A thread keeps the last note only, since actix ends the actor in the same
//! poll, unless it refuses the stop.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::fut::ActorFuture;
use actix::{Actor, Context};
use tokio::sync::oneshot;
use tokio::task;

use super::panics;
use crate::spec::{End, EndReason};

thread_local! {
    /// Last stop on this thread, and the task that ran the actor.
    static LAST_STOP: RefCell<Option<(task::Id, Box<End>)>> = const { RefCell::new(None) };
}

/// Notes a requested stop of the actor that the current task runs.
pub(crate) fn note_stop(end: Box<End>) {
    if let Some(task) = task::try_id() {
        LAST_STOP.set(Some((task, end)));
    }
}

/// Requested stop of the actor that the current task runs; `None` if it ended by itself.
///
/// The note stays: an actor may have several attachments.
pub(crate) fn requested_stop() -> Option<Box<End>> {
    let task = task::try_id()?;
    // An actor may be dropped at the end of its thread, when the thread's variables are gone.
    let noted = LAST_STOP.try_with(|last| {
        let last = last.borrow();
        last.as_ref().filter(|(stopped, _)| *stopped == task).map(|(_, end)| end.clone())
    });
    noted.ok().flatten()
}

/// Function that is called once with the end of the actor, or with `None` if the actor had ended unseen before.
type OnEnd = Box<dyn FnOnce(Option<End>) + Send>;

/// Future in an actor's context that reports the actor's end when it is dropped.
///
/// It ends early when it is released, and does not keep the actor alive.
pub struct Attachment {
    on_end: Option<OnEnd>,
    released: oneshot::Receiver<()>,
    is_attached: bool,
}

impl Attachment {
    /// Creates an attachment, and its release: dropping that ends it.
    pub(crate) fn new(on_end: impl FnOnce(Option<End>) + Send + 'static) -> (Self, oneshot::Sender<()>) {
        let (release, released) = oneshot::channel();
        (Self { on_end: Some(Box::new(on_end)), released, is_attached: false }, release)
    }

    /// Marks that the actor has it.
    pub(super) fn attached(mut self) -> Self {
        self.is_attached = true;
        self
    }
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Attachment {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        _: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        // actix keeps an actor alive for the sake of its futures. It polls all of them when the last address
        // is dropped.
        match Pin::new(&mut self.released).poll(task).is_ready() || !ctx.connected() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(on_end) = self.on_end.take() else { return };
        // One that is still in the mailbox is dropped with it, by the same panic or stop.
        let end = match panics::current() {
            Some(text) => Some(panicked(&text)),
            None => requested_stop().map(|end| *end).or_else(|| self.is_attached.then(stopped)),
        };
        on_end(end);
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("is_attached", &self.is_attached).finish_non_exhaustive()
    }
}

/// End of an actor that panicked.
pub(crate) fn panicked(text: &str) -> End {
    End::new(EndReason::Panicked, format!("it panicked: {text}"))
}

/// End of an actor that stopped by itself.
pub(crate) fn stopped() -> End {
    End::new(EndReason::Stopped, "it stopped")
}
