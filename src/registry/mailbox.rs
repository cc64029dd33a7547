//! What has come for an actor from other hosts, in its order, beside actix's own mailbox.
//!
//! actix allocates an envelope and a place in a queue for each message, and wakes the actor. Here the
//! messages of a read wait together, still encoded, and one envelope calls the actor to all of them.
//! In its turn each is decoded and handled as if it had come alone: behind a handler that makes the
//! actor wait or stop, the rest waits for another turn, which comes when actix takes messages again.
//!
//! Invariant: where a message waits there is a [`Turn`], in the actor's mailbox or under way. One that
//! the actor cannot take any more, since it has ended, refuses what waits: nothing hangs.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use actix::fut::wrap_future;
use actix::{Actor, Addr, AsyncContext};
use tokio::time::Instant;

use super::{ControlMessage, MessageBatch, RemoteActor, Responder};
use crate::config::{BATCH_MESSAGES_MAX, BATCH_TIME_MAX, InjectedBug};
use crate::id::{ActorIncarnation, TypeHash};
use crate::lock::{Locked, Mutex};
use crate::wire::CallFailure;

/// After every so many messages of a turn it is looked at the clock, and a few times before the first.
const MESSAGES_PER_CLOCK_READ: usize = 16;

/// Capacity that a queue keeps when nothing waits in it.
const KEPT_MAX: usize = 64;

/// What takes the next message of a run, decodes it in its surroundings, and hands it to its handler.
pub(super) type Handle<A> = fn(&mut A, &mut <A as Actor>::Context, &mut MessageBatch, &dyn DecodeScope);

/// What an actor lives in.
pub trait HostContext: Send + Sync {
    /// Runs `work`, a turn of the actor, which may decode there.
    fn with_host(&self, work: &mut dyn FnMut(&dyn DecodeScope));
    #[doc(hidden)]
    fn planted(&self) -> Option<InjectedBug> {
        None
    }
}

/// Where messages are decoded: the addresses in them bind to it.
pub trait DecodeScope {
    /// Runs `work` there.
    fn within(&self, work: &mut dyn FnMut());
}

/// An actor that can be reached from afar, whatever its type.
pub trait ErasedMailbox: Any + Send + Sync {
    /// The hash of its type's name.
    fn kind(&self) -> TypeHash;
    /// Its type's name.
    fn name(&self) -> &'static str;
    /// Which life of the actor it is.
    fn incarnation(&self) -> ActorIncarnation;
    /// Whether it still takes messages.
    fn is_connected(&self) -> bool;
    /// Has it do something behind the messages that have come from other hosts.
    fn control(&self, control: ControlMessage);
    /// Stops it behind the messages that were sent to it on its own host.
    fn stop(&self, responder: Responder<()>);
}

/// The way to an actor of type `A`.
pub struct Mailbox<A: RemoteActor> {
    /// Itself, for the turns that it asks for.
    me: Weak<Self>,
    addr: Addr<A>,
    incarnation: ActorIncarnation,
    surroundings: Arc<dyn HostContext>,
    queue: Mutex<Queue<A>>,
}

struct Queue<A: RemoteActor> {
    waiting: VecDeque<Item<A>>,
    /// Whether there is a [`Turn`].
    drain_scheduled: bool,
}

enum Item<A: RemoteActor> {
    /// Messages, at least one, and what hands them to their handler.
    Run(Handle<A>, MessageBatch),
    Control(ControlMessage),
}

impl<A: RemoteActor> Mailbox<A> {
    /// A mailbox of the actor behind `addr`.
    pub fn new(
        addr: Addr<A>,
        incarnation: ActorIncarnation,
        surroundings: Arc<dyn HostContext>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            addr,
            incarnation,
            surroundings,
            queue: Mutex::new(Queue { waiting: VecDeque::new(), drain_scheduled: false }),
        })
    }

    /// actix's own way to the actor.
    pub(super) fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    /// Takes messages in.
    pub(super) fn deliver(&self, handle: Handle<A>, run: MessageBatch) {
        self.push(Item::Run(handle, run));
    }

    fn push(&self, item: Item<A>) {
        let mut queue = self.lock();
        queue.waiting.push_back(item);
        if !std::mem::replace(&mut queue.drain_scheduled, true) {
            drop(queue);
            self.schedule_drain();
        }
    }

    /// Asks for a turn. In a mailbox that has closed it is dropped, and refuses what waits.
    fn schedule_drain(&self) {
        // Whoever calls this holds it.
        if let Some(me) = self.me.upgrade() {
            self.addr.do_send(ControlMessage::Drain(DrainRequest(Some(me))));
        }
    }

    /// Hands the actor everything that has come, as long as it takes messages.
    fn drain(&self, actor: &mut A, ctx: &mut A::Context) {
        self.surroundings.with_host(&mut |decoding| self.drain_queue(actor, ctx, decoding));
    }

    fn drain_queue(&self, actor: &mut A, ctx: &mut A::Context, decoding: &dyn DecodeScope) {
        let mut batch = Batch { mailbox: self, items: VecDeque::new() };
        let mut length = None;
        loop {
            {
                let mut queue = self.lock();
                if queue.waiting.is_empty() {
                    queue.drain_scheduled = false;
                    if batch.items.capacity() <= KEPT_MAX {
                        queue.waiting = std::mem::take(&mut batch.items);
                    }
                    return;
                }
                std::mem::swap(&mut queue.waiting, &mut batch.items);
            }
            let length = length.get_or_insert_with(|| BatchBudget::for_queue(&batch.items));
            while !ctx.waiting() {
                match batch.items.front_mut() {
                    Some(Item::Run(handle, run)) => {
                        handle(actor, ctx, run, decoding);
                        if run.is_empty() {
                            batch.items.pop_front();
                        }
                    }
                    Some(Item::Control(_)) => {
                        if let Some(Item::Control(control)) = batch.items.pop_front() {
                            control.apply(actor, ctx);
                        }
                    }
                    None => break,
                }
                if length.is_exhausted() && !batch.items.is_empty() && !ctx.waiting() {
                    // Others of this thread have their turn: the link writes the answers so far.
                    ctx.wait(wrap_future(tokio::task::yield_now()));
                }
            }
            if !batch.items.is_empty() {
                let mut queue = self.lock();
                batch.items.append(&mut queue.waiting);
                std::mem::swap(&mut queue.waiting, &mut batch.items);
                drop(queue);
                return self.schedule_drain();
            }
        }
    }

    /// Refuses what waits: there will be no turn.
    fn reject_all(&self) {
        let waiting = {
            let mut queue = self.lock();
            queue.drain_scheduled = false;
            std::mem::take(&mut queue.waiting)
        };
        for item in waiting {
            item.reject_all();
        }
    }

    fn lock(&self) -> Locked<'_, Queue<A>> {
        self.queue.lock()
    }
}

impl<A: RemoteActor> ErasedMailbox for Mailbox<A> {
    fn kind(&self) -> TypeHash {
        A::HASH
    }

    fn name(&self) -> &'static str {
        A::NAME
    }

    fn incarnation(&self) -> ActorIncarnation {
        self.incarnation
    }

    fn is_connected(&self) -> bool {
        self.addr.connected()
    }

    fn control(&self, control: ControlMessage) {
        if self.surroundings.planted() == Some(InjectedBug::OvertakingStop) {
            self.lock().waiting.push_front(Item::Control(control));
            return self.schedule_drain();
        }
        self.push(Item::Control(control));
    }

    fn stop(&self, responder: Responder<()>) {
        // Messages of this host are in actix's own mailbox: a turn may be ahead of them.
        self.addr.do_send(ControlMessage::Stop(responder));
    }
}

impl<A: RemoteActor> fmt::Debug for Mailbox<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("actor", &A::NAME).finish_non_exhaustive()
    }
}

impl<A: RemoteActor> Item<A> {
    fn len(&self) -> usize {
        match self {
            Self::Run(_, run) => run.len(),
            Self::Control(_) => 1,
        }
    }

    fn reject_all(self) {
        match self {
            Self::Run(_, run) => run.for_each(|inbound| inbound.fail(&CallFailure::ActorStopped)),
            // Dropped, it says so itself.
            Self::Control(_) => {}
        }
    }
}

/// How long a turn is.
struct BatchBudget {
    /// So many messages at most.
    most: usize,
    handled: usize,
    /// None as long as it is one message, which is no turn that has to end.
    began: Option<Instant>,
}

impl BatchBudget {
    /// Messages of several peers have as many as the first of them has.
    fn for_queue<A: RemoteActor>(items: &VecDeque<Item<A>>) -> Self {
        let waiting = items.iter().map(Item::len).sum();
        let most = match items.front() {
            Some(Item::Run(_, run)) => run.batch_size(waiting),
            Some(Item::Control(_)) | None => BATCH_MESSAGES_MAX,
        };
        Self { most, handled: 0, began: (waiting > 1).then(Instant::now) }
    }

    /// Counts a message that was handled; says whether it is to be the last.
    #[inline]
    fn is_exhausted(&mut self) -> bool {
        self.handled += 1;
        let looks = self.handled.is_multiple_of(MESSAGES_PER_CLOCK_READ)
            || self.handled < MESSAGES_PER_CLOCK_READ && self.handled.is_power_of_two();
        if looks && (self.began.is_some() || self.handled > 1) {
            let now = Instant::now();
            if now.duration_since(*self.began.get_or_insert(now)) >= BATCH_TIME_MAX {
                self.most = 0;
            }
        }
        self.handled >= self.most
    }
}

/// What an actor is at. A panic of its handler leaves the rest here, to be refused.
struct Batch<'a, A: RemoteActor> {
    mailbox: &'a Mailbox<A>,
    items: VecDeque<Item<A>>,
}

impl<A: RemoteActor> Drop for Batch<'_, A> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for item in self.items.drain(..) {
            item.reject_all();
        }
        self.mailbox.reject_all();
    }
}

/// An actor's turn at its messages from afar.
pub struct DrainRequest(Option<Arc<dyn AnyMailbox>>);

/// A [`Mailbox`], whatever its actor's type.
trait AnyMailbox: Any + Send + Sync {
    fn reject_all(&self);
}

impl<A: RemoteActor> AnyMailbox for Mailbox<A> {
    fn reject_all(&self) {
        Self::reject_all(self);
    }
}

impl DrainRequest {
    pub(super) fn take<A: RemoteActor>(mut self, actor: &mut A, ctx: &mut A::Context) {
        let Some(mailbox) = self.0.take() else { return };
        // It asked its own actor for the turn, so it is of that type.
        match (Arc::clone(&mailbox) as Arc<dyn Any + Send + Sync>).downcast::<Mailbox<A>>() {
            Ok(mailbox) => mailbox.drain(actor, ctx),
            Err(_) => mailbox.reject_all(),
        }
    }
}

impl Drop for DrainRequest {
    fn drop(&mut self) {
        if let Some(mailbox) = self.0.take() {
            mailbox.reject_all();
        }
    }
}

impl fmt::Debug for DrainRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}
