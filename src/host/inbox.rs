//! What has come over a link and is not handed over yet.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::peer::{Answers, Peer, Ticket};
use crate::id::{CallId, Target, TypeHash};
use crate::registry::{Claim, Inbound, Run};
use crate::session::{self, Event, Events};
use crate::wire::Body;

/// So many messages for one actor are handed over at once: it may be at the first of them by then, on
/// another thread.
const RUN_MESSAGES: usize = 64;

/// Messages and other events in their order. Callers have their answers already, and are to be woken.
#[derive(Default)]
pub(super) struct Inbox {
    messages: Vec<Inbound>,
    order: Vec<Came>,
    pub(super) wake: Vec<Waker>,
}

/// What came next.
enum Came {
    /// So many messages to one actor and of one type.
    Run((Target, TypeHash), usize),
    Event(Event<Ticket>),
}

/// Who takes it.
pub(super) trait Handover {
    /// Takes all of the messages of a run.
    fn run(&mut self, to: (Target, TypeHash), run: Run<'_, '_>);
    /// Takes another event.
    fn event(&mut self, event: Event<Ticket>);
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Hands over all that has come.
    pub(super) fn hand_over(&mut self, to: &mut impl Handover) {
        let mut messages = self.messages.drain(..);
        for came in self.order.drain(..) {
            match came {
                Came::Run(_, 0) => {}
                Came::Run(address, count) => to.run(address, messages.by_ref().take(count)),
                Came::Event(event) => to.event(event),
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, to: (Target, TypeHash), message: Inbound) {
        match self.order.last_mut() {
            Some(Came::Run(address, count)) if *address == to && *count < RUN_MESSAGES => *count += 1,
            _ => self.order.push(Came::Run(to, 1)),
        }
        self.messages.push(message);
    }

    /// Takes a call out again.
    fn remove(&mut self, call: CallId) -> Option<Inbound> {
        let at = self.messages.iter().rposition(|message| message.call() == Some(call))?;
        let mut behind = 0;
        let run = self.order.iter_mut().find_map(|came| match came {
            Came::Run(_, count) => {
                behind += *count;
                (at < behind).then_some(count)
            }
            Came::Event(_) => None,
        })?;
        *run -= 1;
        Some(self.messages.remove(at))
    }
}

/// The events of a peer's session on their way to the inbox, and to callers.
pub(super) struct Arriving<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) answers: &'a mut Answers,
    pub(super) inbox: &'a mut Inbox,
}

impl Events<Ticket> for Arriving<'_> {
    #[inline(always)]
    fn call(
        &mut self,
        call: CallId,
        to: (Target, TypeHash),
        deadline: Option<Instant>,
        body: Body,
        claim: session::Claim,
    ) {
        let origin = Arc::clone(self.peer) as _;
        self.inbox.add(to, Inbound::new(origin, Some(call), deadline, body, claimed(claim)));
    }

    #[inline(always)]
    fn tell(&mut self, to: (Target, TypeHash), body: Body, claim: session::Claim) {
        let origin = Arc::clone(self.peer) as _;
        self.inbox.add(to, Inbound::new(origin, None, None, body, claimed(claim)));
    }

    /// An outcome goes to its caller at once, while the lock is held in any case.
    fn push(&mut self, event: Event<Ticket>) {
        if let Some(event) = self.answers.take_event(event, &mut self.inbox.wake) {
            self.inbox.order.push(Came::Event(event));
        }
    }

    fn withdraw(&mut self, call: CallId) -> Option<session::Claim> {
        let Claim { actor, incarnation, life, bytes } = self.inbox.remove(call)?.into_claim()?;
        Some(session::Claim { target: Target { actor, incarnation }, bytes: bytes.get(), life })
    }
}

/// What a message takes, as its actor's host gives it back.
#[inline(always)]
fn claimed(claim: session::Claim) -> Option<Claim> {
    let session::Claim { target: Target { actor, incarnation }, bytes, life } = claim;
    NonZeroU64::new(bytes).map(|bytes| Claim { actor, incarnation, life, bytes })
}
