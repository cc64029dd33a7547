//! Messages on their way to an actor, as they came one behind the other.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::{Claim, Inbound, Origin, Responder};
use crate::id::{CallId, Target};
use crate::wire::{Arriving, Encoded, FewBytes};

/// So many messages are handed over at once: the actor may be at the first of them by then, on another
/// thread.
const MESSAGES_MAX: usize = 64;

/// How many short messages a run has room for when it grows from one, and then.
const ROOM: [usize; 2] = [8, MESSAGES_MAX];

/// Messages for one actor that came from one host, one behind the other.
///
/// A message of few bytes waits in a row of seven words each, and becomes an [`Inbound`], twice as large,
/// when it is its turn. So it is written once and read once on its way, by whichever threads.
pub struct Run {
    origin: Arc<dyn Origin>,
    target: Target,
    /// The life of the session that they came over.
    life: u32,
    messages: Messages,
}

enum Messages {
    /// Calls, or else tells; and how many are gone already.
    Short {
        calls: bool,
        row: Vec<Short>,
        gone: usize,
    },
    Long(VecDeque<Inbound>),
}

/// A message of few bytes.
#[derive(Clone, Copy)]
struct Short {
    /// The caller's number for it; of no meaning for a tell.
    call: CallId,
    /// What it takes of its actor's window.
    claim_bytes: u64,
    deadline: Option<Instant>,
    body: FewBytes,
}

impl Run {
    /// A run of no message yet, from there to an actor, over that life of the session.
    pub fn new<B: Arriving>(
        origin: Arc<dyn Origin>,
        target: Target,
        life: u32,
        call: Option<CallId>,
        body: &B,
    ) -> Self {
        let messages = match body.few() {
            Some(_) => Messages::Short { calls: call.is_some(), row: Vec::with_capacity(1), gone: 0 },
            None => Messages::Long(VecDeque::new()),
        };
        Self { origin, target, life, messages }
    }

    /// Adds a message that came the same way.
    ///
    /// # Errors
    ///
    /// Its body, if the run is at its end or of another kind: then the next run begins.
    #[inline(always)]
    pub fn push<B: Arriving>(
        &mut self,
        call: Option<CallId>,
        deadline: Option<Instant>,
        body: B,
        claim_bytes: u64,
    ) -> Result<(), B> {
        match (&mut self.messages, body.few()) {
            (Messages::Short { calls, row, .. }, Some(few))
                if *calls == call.is_some() && row.len() < MESSAGES_MAX =>
            {
                if row.len() == row.capacity() {
                    make_room(row);
                }
                let call = call.unwrap_or(CallId(0));
                row.push(Short { call, claim_bytes, deadline, body: few.into() });
            }
            (Messages::Long(row), None) if row.len() < MESSAGES_MAX => {
                let (origin, claim) = (Arc::clone(&self.origin), claim(self.target, self.life, claim_bytes));
                row.push_back(Inbound::new(origin, call, deadline, body.into(), claim));
            }
            _ => return Err(body),
        }
        Ok(())
    }

    /// Takes a call out again.
    pub fn remove(&mut self, call: CallId) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short { calls, row, gone } => {
                let is_it = |short: &Short| *calls && short.call == call;
                let at = *gone + row[*gone..].iter().rposition(is_it)?;
                let short = row.remove(at);
                Some(self.inbound(true, short))
            }
            Messages::Long(row) => row.remove(row.iter().rposition(|message| message.call() == Some(call))?),
        }
    }

    /// How many messages are left.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &self.messages {
            Messages::Short { row, gone, .. } => row.len() - gone,
            Messages::Long(row) => row.len(),
        }
    }

    /// Whether no message is left.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of so many messages that wait, of which these are the first, are handled in one turn.
    pub(super) fn turn(&self, waiting: usize) -> usize {
        self.origin.turn(waiting)
    }

    /// The body of the next message.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<Encoded<'_>> {
        match &self.messages {
            Messages::Short { row, gone, .. } => {
                row.get(*gone).map(|short| Encoded { message: &short.body, attachments: &[] })
            }
            Messages::Long(row) => row.front().map(|message| message.body.as_encoded()),
        }
    }

    /// Takes the next message, whose body is of no use any more: until when its caller waits, and the duty
    /// to answer.
    #[inline(always)]
    pub(super) fn pop<R>(&mut self) -> Option<(Option<Instant>, Responder<R>)> {
        match &mut self.messages {
            Messages::Short { calls, row, gone } => {
                let Short { call, claim_bytes, deadline, .. } = *row.get(*gone)?;
                *gone += 1;
                let call = calls.then_some(call);
                Some((deadline, Responder::remote(Arc::clone(&self.origin), call, self.claim(claim_bytes))))
            }
            Messages::Long(row) => {
                let (_, deadline, responder) = row.pop_front()?.into_parts();
                Some((deadline, responder))
            }
        }
    }

    #[inline]
    fn inbound(&self, is_call: bool, short: Short) -> Inbound {
        let Short { call, claim_bytes, deadline, body } = short;
        let (origin, claim) = (Arc::clone(&self.origin), self.claim(claim_bytes));
        Inbound::new(origin, is_call.then_some(call), deadline, body.into(), claim)
    }

    #[inline]
    fn claim(&self, bytes: u64) -> Option<Claim> {
        claim(self.target, self.life, bytes)
    }
}

#[inline]
fn claim(target: Target, life: u32, bytes: u64) -> Option<Claim> {
    NonZeroU64::new(bytes).map(|bytes| Claim::new(target, life, bytes))
}

#[inline(never)]
fn make_room(row: &mut Vec<Short>) {
    let room = ROOM.into_iter().find(|room| *room > row.len()).unwrap_or(MESSAGES_MAX);
    row.reserve_exact(room - row.len());
}

impl Iterator for Run {
    type Item = Inbound;

    #[inline]
    fn next(&mut self) -> Option<Inbound> {
        match &mut self.messages {
            Messages::Short { calls, row, gone } => {
                let (is_call, short) = (*calls, *row.get(*gone)?);
                *gone += 1;
                Some(self.inbound(is_call, short))
            }
            Messages::Long(row) => row.pop_front(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("target", &self.target)
            .field("messages", &self.len())
            .finish_non_exhaustive()
    }
}

/// A message by itself.
impl From<Inbound> for Run {
    fn from(inbound: Inbound) -> Self {
        let (target, life) =
            inbound.claim().map_or((Target::HOST, 0), |claim| (claim.target(), claim.life()));
        let (origin, messages) = (Arc::clone(inbound.origin()), Messages::Long([inbound].into()));
        Self { origin, target, life, messages }
    }
}
