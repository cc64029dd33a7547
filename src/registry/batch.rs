//! Batch of received messages from one host for one actor, in order.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::{Inbound, PackedCharge, ReplyPath, Responder};
use crate::id::{CallId, TraceContext};
use crate::wire::{Attachments, Body, IncomingBody, ShortBytes};

/// Maximum number of messages in a batch.
///
/// Batches are dispatched while later frames are decoded, so that an actor on another thread starts
/// early.
const MESSAGES_MAX: usize = 64;

/// Capacity steps of a batch.
///
/// They keep the memory of a queued message close to what its sender is charged for.
const CAPACITY_STEPS: [usize; 4] = [1, 4, 16, MESSAGES_MAX];

/// Batch of messages from one host for one actor.
///
/// Messages with short bodies are entries of 56 bytes in one vector:
///
/// ```text
///   1 word    call id
///   1 word    credit charge
///   2 words   deadline
///   3 words   body (ShortBytes, at most 23 bytes)
/// ```
/// They are written once and read once, on whichever thread. A batch with any other message holds all of
/// them as [`Inbound`].
pub struct MessageBatch {
    reply_path: Arc<dyn ReplyPath>,
    messages: Messages,
}

enum Messages {
    Short(ShortMessages),
    Mixed(VecDeque<Inbound>),
}

/// Calls or one-way messages with short bodies, never both.
struct ShortMessages {
    calls: bool,
    /// Credit charge of the first message; all are charged to the same window.
    charge: Option<PackedCharge>,
    messages: Vec<ShortMessage>,
    /// Number of entries that were taken.
    consumed: usize,
}

/// Message with a short body.
#[derive(Clone, Copy)]
struct ShortMessage {
    /// The caller's id of the call; meaningless for a one-way message.
    call: CallId,
    /// Bytes charged to the actor's window; 0 without a charge.
    charge_bytes: u64,
    deadline: Option<Instant>,
    body: ShortBytes,
}

const _: () = assert!(size_of::<ShortMessage>() == 7 * size_of::<u64>(), "a short message is seven words");

/// Message without its body.
pub(super) struct Envelope<R> {
    pub(super) deadline: Option<Instant>,
    pub(super) responder: Responder<R>,
    pub(super) trace: Option<Box<TraceContext>>,
}

impl MessageBatch {
    /// Creates a batch of one message; `mixed` if the previous batch of the read was mixed.
    #[inline(never)]
    pub fn new(
        reply_path: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: impl IncomingBody,
        charge: Option<PackedCharge>,
        mixed: bool,
    ) -> Self {
        match body.as_short() {
            // Short messages are stored in place only if no other kind interrupts them.
            Some(short_body) if !mixed => {
                // Under low load a batch has a single message.
                let mut messages = Vec::with_capacity(CAPACITY_STEPS[0]);
                messages.push(ShortMessage::new(call, deadline, short_body.into(), charge));
                let short = ShortMessages { calls: call.is_some(), charge, messages, consumed: 0 };
                Self { reply_path, messages: Messages::Short(short) }
            }
            // Long bodies have their own buffers, so packing them gains nothing.
            _ => Inbound::new(reply_path, call, deadline, body.into(), charge).into(),
        }
    }

    /// Adds a message for the same actor, from the same host in the same session epoch.
    ///
    /// # Errors
    ///
    /// The body, if the batch [is full](Self::is_full) or the message of another kind. The caller then
    /// starts the next batch.
    #[inline(always)]
    pub fn push<B: IncomingBody>(
        &mut self,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: B,
        charge: Option<PackedCharge>,
    ) -> Result<(), B> {
        match &mut self.messages {
            Messages::Short(short) => {
                // The caller starts a mixed batch with this body.
                let Some(short_body) = body.as_short() else { return Err(body) };
                // Flags and window are stored once for the batch, so all of its messages must agree in
                // them.
                let alike = short.calls == call.is_some() && short.charge.is_some() == charge.is_some();
                if !alike || short.messages.len() >= MESSAGES_MAX {
                    return Err(body);
                }
                if short.messages.len() == short.messages.capacity() {
                    grow(&mut short.messages);
                }
                short.messages.push(ShortMessage::new(call, deadline, short_body.into(), charge));
            }
            Messages::Mixed(messages) => {
                if messages.len() >= MESSAGES_MAX {
                    return Err(body);
                }
                if messages.len() == messages.capacity() {
                    messages.reserve_exact(capacity_after(messages.len()) - messages.len());
                }
                messages.push_back(Inbound::new(
                    Arc::clone(&self.reply_path),
                    call,
                    deadline,
                    body.into(),
                    charge,
                ));
            }
        }
        Ok(())
    }

    /// True if no further message fits, of any kind.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= MESSAGES_MAX
    }

    /// Removes a cancelled call.
    pub fn remove(&mut self, call: CallId) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short(short) => {
                let is_it = |entry: &ShortMessage| entry.call == call;
                let at = short
                    .messages
                    .iter()
                    .rposition(is_it)
                    // One-way messages have id 0, which must not match a call.
                    .filter(|at| short.calls && *at >= short.consumed)?;
                let removed = short.messages.remove(at);
                Some(short.inbound(&self.reply_path, removed))
            }
            Messages::Mixed(messages) => {
                messages.remove(messages.iter().rposition(|message| message.call() == Some(call))?)
            }
        }
    }

    /// Number of remaining messages.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &self.messages {
            Messages::Short(short) => short.messages.len() - short.consumed,
            Messages::Mixed(messages) => messages.len(),
        }
    }

    /// True if no message remains.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of `waiting` messages, including these, that one drain handles.
    pub(super) fn batch_size(&self, waiting: usize) -> usize {
        self.reply_path.batch_size(waiting)
    }

    /// MessagePack part of the next message, and its attachments, if it may have some.
    #[inline(always)]
    pub(super) fn front_mut(&mut self) -> Option<(&[u8], Option<&mut Attachments>)> {
        match &mut self.messages {
            Messages::Short(ShortMessages { messages, consumed, .. }) => {
                messages.get(*consumed).map(|short| (&*short.body, None))
            }
            Messages::Mixed(messages) => messages.front_mut().map(|next| {
                let Body { message, attachments, .. } = &mut next.body;
                (&**message, Some(attachments))
            }),
        }
    }

    /// Takes the next message after its body was decoded.
    #[inline(always)]
    pub(super) fn pop<R>(&mut self) -> Option<Envelope<R>> {
        match &mut self.messages {
            Messages::Short(short) => {
                let ShortMessage { call, charge_bytes, deadline, .. } =
                    *short.messages.get(short.consumed)?;
                short.consumed += 1;
                let (call, charge) = (short.calls.then_some(call), short.charge(charge_bytes));
                let responder = Responder::remote(Arc::clone(&self.reply_path), call, charge);
                Some(Envelope { deadline, responder, trace: None })
            }
            Messages::Mixed(messages) => {
                let (body, deadline, responder) = messages.pop_front()?.into_parts();
                Some(Envelope { deadline, responder, trace: body.trace })
            }
        }
    }
}

impl ShortMessage {
    #[inline(always)]
    fn new(
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: ShortBytes,
        charge: Option<PackedCharge>,
    ) -> Self {
        let charge_bytes = charge.map_or(0, |charge| charge.bytes().get());
        Self { call: call.unwrap_or(CallId(0)), charge_bytes, deadline, body }
    }
}

impl ShortMessages {
    #[inline(always)]
    fn charge(&self, bytes: u64) -> Option<PackedCharge> {
        Some(self.charge?.with_bytes(NonZeroU64::new(bytes)?))
    }

    fn inbound(&self, reply_path: &Arc<dyn ReplyPath>, short: ShortMessage) -> Inbound {
        let ShortMessage { call, charge_bytes, deadline, body } = short;
        let (call, charge) = (self.calls.then_some(call), self.charge(charge_bytes));
        Inbound::new(Arc::clone(reply_path), call, deadline, body.into(), charge)
    }
}

#[inline(never)]
fn grow(messages: &mut Vec<ShortMessage>) {
    messages.reserve_exact(capacity_after(messages.len()) - messages.len());
}

/// Next capacity of a batch that is full with `length` messages.
fn capacity_after(length: usize) -> usize {
    CAPACITY_STEPS.into_iter().find(|step| *step > length).unwrap_or(MESSAGES_MAX)
}

/// Messages as full values, for a rejection or a host service.
impl Iterator for MessageBatch {
    type Item = Inbound;

    fn next(&mut self) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short(short) => {
                let next = *short.messages.get(short.consumed)?;
                short.consumed += 1;
                Some(short.inbound(&self.reply_path, next))
            }
            Messages::Mixed(messages) => messages.pop_front(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

/// Batch of a single message.
impl From<Inbound> for MessageBatch {
    fn from(inbound: Inbound) -> Self {
        let reply_path = Arc::clone(inbound.reply_path());
        Self { reply_path, messages: Messages::Mixed([inbound].into()) }
    }
}

impl fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBatch").field("messages", &self.len()).finish_non_exhaustive()
    }
}
