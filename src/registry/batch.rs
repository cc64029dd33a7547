//! Messages on their way to an actor, as they came one behind the other.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::{CreditCharge, Inbound, ReplyPath, Responder};
use crate::id::CallId;
use crate::wire::{Encoded, IncomingBody, ShortBytes};

/// So many messages are handed over at once: the actor may be at the first of them by then, on another
/// thread.
const MESSAGES_MAX: usize = 64;

/// For how many short messages a run has room, one step after the other. They are so small that a message
/// waits in no more memory, about, than its sender is charged for.
const CAPACITY_STEPS: [usize; 4] = [1, 4, 16, MESSAGES_MAX];

/// Messages for one actor that came from one host, one behind the other.
///
/// Messages of few bytes wait in a row of seven words each: they are written once and read once on their
/// way, by whichever threads. Where there are others among them all wait as they are ([`Inbound`]).
pub struct MessageBatch {
    origin: Arc<dyn ReplyPath>,
    messages: Messages,
}

enum Messages {
    Short(ShortMessages),
    Mixed(VecDeque<Inbound>),
}

/// Calls of few bytes, or else tells.
struct ShortMessages {
    calls: bool,
    /// The claim of the first; all are to the same window.
    claim: Option<CreditCharge>,
    messages: Vec<ShortMessage>,
    /// How many are gone already.
    consumed: usize,
}

/// A message of few bytes.
#[derive(Clone, Copy)]
struct ShortMessage {
    /// The caller's number for it; of no meaning for a tell.
    call: CallId,
    /// What it takes of its actor's window.
    charge_bytes: u64,
    deadline: Option<Instant>,
    body: ShortBytes,
}

const _: () = assert!(size_of::<ShortMessage>() == 7 * size_of::<u64>(), "a short message is seven words");

impl MessageBatch {
    /// Begins with this message; `mixed` if there were others of another kind just before it.
    #[inline(never)]
    pub fn new(
        origin: Arc<dyn ReplyPath>,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: impl IncomingBody,
        claim: Option<CreditCharge>,
        mixed: bool,
    ) -> Self {
        match body.as_short() {
            Some(few) if !mixed => {
                let mut row = Vec::with_capacity(CAPACITY_STEPS[0]);
                row.push(ShortMessage::new(call, deadline, few.into(), claim));
                let short = ShortMessages { calls: call.is_some(), claim, messages: row, consumed: 0 };
                Self { origin, messages: Messages::Short(short) }
            }
            _ => Inbound::new(origin, call, deadline, body.into(), claim).into(),
        }
    }

    /// Adds a message to the same actor from the same host, in the same life of the session.
    ///
    /// # Errors
    ///
    /// Its body, if the run [is full](Self::is_full) or the message of another kind: then the next run begins.
    #[inline(always)]
    pub fn push<B: IncomingBody>(
        &mut self,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: B,
        claim: Option<CreditCharge>,
    ) -> Result<(), B> {
        match &mut self.messages {
            Messages::Short(short) => {
                let Some(few) = body.as_short() else { return Err(body) };
                let alike = short.calls == call.is_some() && short.claim.is_some() == claim.is_some();
                if !alike || short.messages.len() >= MESSAGES_MAX {
                    return Err(body);
                }
                if short.messages.len() == short.messages.capacity() {
                    grow(&mut short.messages);
                }
                short.messages.push(ShortMessage::new(call, deadline, few.into(), claim));
            }
            Messages::Mixed(row) => {
                if row.len() >= MESSAGES_MAX {
                    return Err(body);
                }
                row.push_back(Inbound::new(Arc::clone(&self.origin), call, deadline, body.into(), claim));
            }
        }
        Ok(())
    }

    /// Whether no further message is taken, of whatever kind.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= MESSAGES_MAX
    }

    /// Takes a call out again.
    pub fn remove(&mut self, call: CallId) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short(short) => {
                let is_it = |waiting: &ShortMessage| waiting.call == call;
                let at = short
                    .messages
                    .iter()
                    .rposition(is_it)
                    .filter(|at| short.calls && *at >= short.consumed)?;
                let removed = short.messages.remove(at);
                Some(short.inbound(&self.origin, removed))
            }
            Messages::Mixed(row) => row.remove(row.iter().rposition(|message| message.call() == Some(call))?),
        }
    }

    /// How many messages are left.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &self.messages {
            Messages::Short(short) => short.messages.len() - short.consumed,
            Messages::Mixed(row) => row.len(),
        }
    }

    /// Whether no message is left.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of so many messages that wait, of which these are the first, are handled in one turn.
    pub(super) fn batch_size(&self, waiting: usize) -> usize {
        self.origin.batch_size(waiting)
    }

    /// The body of the next message.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<Encoded<'_>> {
        match &self.messages {
            Messages::Short(ShortMessages { messages: row, consumed: gone, .. }) => {
                row.get(*gone).map(|short| Encoded { message: &short.body, attachments: &[] })
            }
            Messages::Mixed(row) => row.front().map(|message| message.body.as_encoded()),
        }
    }

    /// Takes the next message, whose body is of no use any more: until when its caller waits, and the duty
    /// to answer.
    #[inline(always)]
    pub(super) fn pop<R>(&mut self) -> Option<(Option<Instant>, Responder<R>)> {
        match &mut self.messages {
            Messages::Short(short) => {
                let ShortMessage { call, charge_bytes, deadline, .. } =
                    *short.messages.get(short.consumed)?;
                short.consumed += 1;
                let (call, claim) = (short.calls.then_some(call), short.claim(charge_bytes));
                Some((deadline, Responder::remote(Arc::clone(&self.origin), call, claim)))
            }
            Messages::Mixed(row) => {
                let (_, deadline, responder) = row.pop_front()?.into_parts();
                Some((deadline, responder))
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
        claim: Option<CreditCharge>,
    ) -> Self {
        let charge_bytes = claim.map_or(0, |claim| claim.bytes().get());
        Self { call: call.unwrap_or(CallId(0)), charge_bytes, deadline, body }
    }
}

impl ShortMessages {
    #[inline(always)]
    fn claim(&self, bytes: u64) -> Option<CreditCharge> {
        Some(self.claim?.with_bytes(NonZeroU64::new(bytes)?))
    }

    fn inbound(&self, origin: &Arc<dyn ReplyPath>, short: ShortMessage) -> Inbound {
        let ShortMessage { call, charge_bytes, deadline, body } = short;
        let (call, claim) = (self.calls.then_some(call), self.claim(charge_bytes));
        Inbound::new(Arc::clone(origin), call, deadline, body.into(), claim)
    }
}

#[inline(never)]
fn grow(row: &mut Vec<ShortMessage>) {
    let room = CAPACITY_STEPS.into_iter().find(|room| *room > row.len()).unwrap_or(MESSAGES_MAX);
    row.reserve_exact(room - row.len());
}

/// The messages as they are, for whoever refuses them or is no actor.
impl Iterator for MessageBatch {
    type Item = Inbound;

    fn next(&mut self) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short(short) => {
                let next = *short.messages.get(short.consumed)?;
                short.consumed += 1;
                Some(short.inbound(&self.origin, next))
            }
            Messages::Mixed(row) => row.pop_front(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

/// A message by itself.
impl From<Inbound> for MessageBatch {
    fn from(inbound: Inbound) -> Self {
        let origin = Arc::clone(inbound.origin());
        Self { origin, messages: Messages::Mixed([inbound].into()) }
    }
}

impl fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("messages", &self.len()).finish_non_exhaustive()
    }
}
