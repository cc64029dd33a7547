//! Queue of remote messages for one actor, beside actix's own mailbox.
//!
//! actix allocates an envelope and a queue node for each message, and wakes the actor. Here the messages
//! of one read are queued together, still encoded, and a single envelope makes the actor drain them:
//!
//! ```text
//!   link task ──push──▶ MailboxQueue: [ Messages | Control | Messages ]
//!        │                                 ▲ drain        │
//!        └──ControlMessage::Drain──▶ actix mailbox ──▶ actor's thread
//! ```
//! Only a message in actix's mailbox gets access to the actor and its context, so a drain needs that
//! control message. Each message is then decoded and handled as if it had arrived alone. If a handler
//! makes the actor wait or stop, the rest stays queued for another drain, which runs when actix processes
//! messages again.
//!
//! Invariant: a non-empty queue has one [`DrainRequest`], which is in actix's mailbox or running. A
//! request that is dropped because the actor has stopped rejects the queue, so no caller hangs.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use actix::fut::wrap_future;
use actix::{Actor, Addr, AsyncContext};
use tokio::time::Instant;

use super::handler_stats::{DrainTally, HandlerStats};
use super::lease::Lease;
use super::mailbox_counts::{ActorCounts, HandledCount, WaitingCount};
use super::{ControlMessage, MessageBatch, RemoteActor, Responder};
use crate::config::{BATCH_MESSAGES_MAX, BATCH_TIME_MAX, InjectedBug};
use crate::id::{ActorIncarnation, TypeHash};
use crate::lock::{Locked, Mutex};
use crate::spec::{ActorKey, End};
use crate::wire::CallFailure;

/// Number of messages handled between two checks of the drain budget's clock.
///
/// The first checks come after 1, 2, 4 and 8 messages.
const MESSAGES_PER_CLOCK_READ: usize = 16;

/// Maximum capacity of an empty queue; a larger one is freed.
const KEPT_MAX: usize = 64;

/// Function that takes the next message of a batch, decodes it and passes it to its handler.
pub(super) type Handle<A> = fn(&mut A, &mut <A as Actor>::Context, &mut MessageBatch, &dyn DecodeScope);

/// Handler of one message type, with its statistics.
pub(super) struct MessageHandler<A: Actor> {
    pub(super) handle: Handle<A>,
    pub(super) stats: &'static HandlerStats,
}

/// Host of an actor, as far as the actor's mailbox depends on it.
pub trait HostContext: Send + Sync {
    /// Runs `work`, which drains the actor's queue and may decode in the given scope.
    fn with_host(&self, work: &mut dyn FnMut(&dyn DecodeScope));
    /// Notes that the counts of an actor have changed since they were last read.
    fn counts_changed(&self, _actor: Weak<dyn ErasedMailbox>) {}
    #[doc(hidden)]
    fn injected_bug(&self) -> Option<InjectedBug> {
        None
    }
}

/// Scope in which messages are decoded; addresses in them bind to its host.
pub trait DecodeScope {
    /// Runs `work` in the scope.
    fn within(&self, work: &mut dyn FnMut());
}

/// Mailbox of a remote actor, independent of the actor's type.
pub trait ErasedMailbox: Any + Send + Sync {
    /// Hash of the actor type's name.
    fn kind(&self) -> TypeHash;
    /// Name of the actor's type.
    fn name(&self) -> &'static str;
    /// Incarnation of the actor.
    fn incarnation(&self) -> ActorIncarnation;
    /// True while the actor accepts messages.
    fn is_connected(&self) -> bool;
    /// Counts of the actor's messages; `None` if the cluster does not track the actor.
    fn take_counts(&self) -> Option<ActorCounts>;
    /// Queues a control message behind the remote messages received so far.
    fn control(&self, control: ControlMessage);
    /// Stops the actor behind the messages that its own host has sent it; `end` is what watchers get.
    fn stop(&self, responder: Responder<()>, end: Box<End>);
    /// True if the host runs the actor, and so learns of its end; false if it was only registered.
    fn is_run_by_host(&self) -> bool;
}

/// Mailbox of an actor of type `A`.
pub struct Mailbox<A: RemoteActor> {
    /// Reference to itself, for its drain requests.
    me: Weak<Self>,
    addr: Addr<A>,
    incarnation: ActorIncarnation,
    host_context: Arc<dyn HostContext>,
    waiting: WaitingCount,
    handled: HandledCount,
    /// Lease of an exclusive actor.
    lease: Option<Arc<Lease>>,
    queue: Mutex<MailboxQueue<A>>,
}

struct MailboxQueue<A: RemoteActor> {
    waiting: VecDeque<MailboxEntry<A>>,
    /// A [`DrainRequest`] exists.
    drain_scheduled: bool,
}

impl<A: RemoteActor> MailboxQueue<A> {
    /// Moves the entries into `to`, which is empty; returns false if there are none.
    ///
    /// The two deques change places, so that both keep their capacity.
    fn take(&mut self, to: &mut VecDeque<MailboxEntry<A>>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.waiting, to);
        true
    }

    /// Puts unhandled entries back, ahead of the entries that arrived meanwhile.
    fn put_back(&mut self, from: &mut VecDeque<MailboxEntry<A>>) {
        from.append(&mut self.waiting);
        std::mem::swap(&mut self.waiting, from);
    }
}

enum MailboxEntry<A: RemoteActor> {
    /// At least one message, and the handler of the next one.
    Messages(MessageHandler<A>, MessageBatch),
    Control(ControlMessage),
}

impl<A: RemoteActor> Mailbox<A> {
    /// Creates a mailbox of the actor behind `addr`; `key` is its id in the cluster, if that tracks it.
    pub(crate) fn new(
        addr: Addr<A>,
        incarnation: ActorIncarnation,
        is_run_by_host: bool,
        host_context: Arc<dyn HostContext>,
        key: Option<ActorKey>,
        lease: Option<Arc<Lease>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            addr,
            incarnation,
            host_context,
            waiting: WaitingCount::default(),
            handled: HandledCount::new(key, is_run_by_host),
            lease,
            queue: Mutex::new(MailboxQueue { waiting: VecDeque::new(), drain_scheduled: false }),
        })
    }

    /// actix's own address of the actor.
    pub(super) fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    /// Queues messages.
    pub(super) fn deliver(&self, handler: MessageHandler<A>, messages: MessageBatch) {
        // Counted before a drain can take them.
        handler.stats.queued(messages.len());
        self.note(self.waiting.add(messages.len()));
        self.push(MailboxEntry::Messages(handler, messages));
    }

    /// Counts a message of the same host, which is in actix's mailbox.
    ///
    /// The sender counts it. It has just cloned its reference to the mailbox, whose count is shared as well.
    pub(super) fn count_local(&self) {
        self.handled.add(1);
        self.note(self.waiting.touch());
    }

    /// Notes the first change of the counts since they were read.
    fn note(&self, is_first_change: bool) {
        // An actor that the cluster does not track has no row.
        if is_first_change && self.handled.is_tracked() {
            self.host_context.counts_changed(Weak::clone(&self.me) as _);
        }
    }

    fn push(&self, item: MailboxEntry<A>) {
        let mut queue = self.lock();
        queue.waiting.push_back(item);
        if !std::mem::replace(&mut queue.drain_scheduled, true) {
            // Unlocked first: a closed actix mailbox drops the request, which locks the queue to
            // reject it.
            drop(queue);
            self.schedule_drain();
        }
    }

    /// Sends a drain request. A closed mailbox drops it, which rejects the queue.
    fn schedule_drain(&self) {
        // The caller holds a strong reference, so this succeeds.
        if let Some(me) = self.me.upgrade() {
            // Ignores the limit of actix's mailbox: there is at most one such request for each actor.
            self.addr.do_send(ControlMessage::Drain(DrainRequest(Some(me))));
        }
    }

    /// Handles the queued messages while the actor accepts them.
    fn drain(&self, actor: &mut A, ctx: &mut A::Context) {
        self.host_context.with_host(&mut |scope| self.drain_queue(actor, ctx, scope));
    }

    fn drain_queue(&self, actor: &mut A, ctx: &mut A::Context, scope: &dyn DecodeScope) {
        let mut batch = DrainGuard { mailbox: self, items: VecDeque::new(), tally: DrainTally::default() };
        let mut budget = None;
        loop {
            {
                let mut queue = self.lock();
                if !queue.take(&mut batch.items) {
                    // Cleared under the lock: a message that is pushed later schedules the next drain.
                    queue.drain_scheduled = false;
                    if batch.items.capacity() <= KEPT_MAX {
                        queue.waiting = std::mem::take(&mut batch.items);
                    }
                    return;
                }
            }
            let budget = budget.get_or_insert_with(|| BatchBudget::for_queue(&batch.items));
            while !ctx.waiting() {
                if self.lease.as_ref().is_some_and(|lease| lease.is_over() && lease.expire()) {
                    // Nothing more of the actor runs. Its host ends it after this poll, which rejects the queue.
                    ctx.wait(wrap_future(std::future::pending()));
                    break;
                }
                match batch.items.front_mut() {
                    Some(MailboxEntry::Messages(handler, messages)) => {
                        if batch.tally.is_of_another(handler.stats) {
                            self.publish(&mut batch.tally);
                        }
                        let sampled = batch.tally.begin(handler.stats);
                        (handler.handle)(actor, ctx, messages, scope);
                        if messages.is_empty() {
                            batch.items.pop_front();
                        }
                        if batch.tally.end(sampled) {
                            self.publish(&mut batch.tally);
                        }
                    }
                    Some(MailboxEntry::Control(_)) => {
                        if let Some(MailboxEntry::Control(control)) = batch.items.pop_front() {
                            control.apply(actor, ctx);
                        }
                    }
                    None => break,
                }
                if budget.is_exhausted() && !batch.items.is_empty() && !ctx.waiting() {
                    // Makes actix return to the executor, so that the link writes the replies so far
                    // and other actors of this thread run.
                    ctx.wait(wrap_future(tokio::task::yield_now()));
                }
            }
            self.publish(&mut batch.tally);
            if !batch.items.is_empty() {
                self.lock().put_back(&mut batch.items);
                return self.schedule_drain();
            }
        }
    }

    /// Adds a tally to the counts.
    fn publish(&self, tally: &mut DrainTally) {
        let handled = tally.publish();
        if handled > 0 {
            self.handled.add(handled);
            self.note(self.waiting.subtract(handled));
        }
    }

    /// Rejects all queued messages, since no drain will follow.
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

    fn lock(&self) -> Locked<'_, MailboxQueue<A>> {
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

    fn take_counts(&self) -> Option<ActorCounts> {
        self.handled.take(&self.waiting)
    }

    fn control(&self, control: ControlMessage) {
        if self.host_context.injected_bug() == Some(InjectedBug::OvertakingStop) {
            self.lock().waiting.push_front(MailboxEntry::Control(control));
            return self.schedule_drain();
        }
        self.push(MailboxEntry::Control(control));
    }

    fn stop(&self, responder: Responder<()>, end: Box<End>) {
        // Messages of this host are in actix's own mailbox, where a drain request may be ahead of them.
        self.addr.do_send(ControlMessage::Stop(responder, end));
    }

    fn is_run_by_host(&self) -> bool {
        self.handled.is_run_by_host()
    }
}

impl<A: RemoteActor> fmt::Debug for Mailbox<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("actor", &A::NAME).finish_non_exhaustive()
    }
}

impl<A: RemoteActor> MailboxEntry<A> {
    fn len(&self) -> usize {
        match self {
            Self::Messages(_, messages) => messages.len(),
            Self::Control(_) => 1,
        }
    }

    fn reject_all(self) {
        match self {
            Self::Messages(handler, messages) => {
                handler.stats.rejected(messages.len());
                messages.for_each(|inbound| inbound.fail(&CallFailure::ActorStopped));
            }
            // Its responder reports the stop when it is dropped.
            Self::Control(_) => {}
        }
    }
}

/// Budget of one drain, in messages and time.
struct BatchBudget {
    /// Maximum number of messages.
    most: usize,
    handled: usize,
    /// Start of the drain; unset for a single message, which spares it the clock.
    started_at: Option<Instant>,
}

impl BatchBudget {
    /// Budget for a non-empty queue. The peer of its first messages decides, since batches of several
    /// peers are rare.
    fn for_queue<A: RemoteActor>(items: &VecDeque<MailboxEntry<A>>) -> Self {
        let waiting = items.iter().map(MailboxEntry::len).sum();
        // The budget depends on the peer: replies to a peer on the same core may wait longer.
        let most = match items.front() {
            Some(MailboxEntry::Messages(_, messages)) => messages.batch_size(waiting),
            Some(MailboxEntry::Control(_)) | None => BATCH_MESSAGES_MAX,
        };
        Self { most, handled: 0, started_at: (waiting > 1).then(Instant::now) }
    }

    /// Counts a handled message; returns true if the drain must end.
    #[inline]
    fn is_exhausted(&mut self) -> bool {
        self.handled += 1;
        let check_clock = self.handled.is_multiple_of(MESSAGES_PER_CLOCK_READ)
            || self.handled < MESSAGES_PER_CLOCK_READ && self.handled.is_power_of_two();
        if check_clock && (self.started_at.is_some() || self.handled > 1) {
            let now = Instant::now();
            if now.duration_since(*self.started_at.get_or_insert(now)) >= BATCH_TIME_MAX {
                // Exhausts the budget for the rest of this drain.
                self.most = 0;
            }
        }
        self.handled >= self.most
    }
}

/// Entries that are being handled. A handler's panic leaves the rest here, and the drop rejects it.
struct DrainGuard<'a, A: RemoteActor> {
    mailbox: &'a Mailbox<A>,
    items: VecDeque<MailboxEntry<A>>,
    tally: DrainTally,
}

impl<A: RemoteActor> Drop for DrainGuard<'_, A> {
    fn drop(&mut self) {
        // Without a panic all entries were handled or put back.
        if !std::thread::panicking() {
            return;
        }
        self.mailbox.publish(&mut self.tally);
        for item in self.items.drain(..) {
            item.reject_all();
        }
        self.mailbox.reject_all();
    }
}

/// Request to drain the queue of remote messages. Dropping it unhandled rejects the queue.
pub struct DrainRequest(Option<Arc<dyn AnyMailbox>>);

/// [`Mailbox`] of any actor type, for a request that travels in an untyped control message.
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
        // Emptied, so that the drop does not reject the queue.
        let Some(mailbox) = self.0.take() else { return };
        // The mailbox sent the request to its own actor, so the types match.
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
        f.write_str("DrainRequest")
    }
}
