//! Links come and go under a session.

use std::cmp::Ordering;

use super::{CallStage, Content, PeerHalf, Session};
use crate::config::{ACK_BYTES, InjectedBug};
use crate::session::calls::{Calls, OpenCall};
use crate::session::dedup::DedupCache;
use crate::session::send_buffer::SendBuffer;
use crate::session::{CallError, DisconnectReason, Event, SessionError};
use crate::wire::{Encoded, Resume, Schemas, SessionParameters};

/// What is known, when a link ends, about the bytes that its writer had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCertainty {
    /// The writer itself says that the link ended, and has told all that the kernel has.
    Exact,
    /// The writer may be about to tell of more: everything that it took may have been written.
    AtMost,
}

impl<T> Session<T> {
    /// Where this side is, for the handshake of the next link.
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume {
            generation: self.generation,
            epoch: self.epoch,
            peer_generation: self.peer.map_or(0, |peer| peer.generation),
            received: self.inbound.received,
        }
    }

    /// How many frames of this half the peer says that it has: one that counts those of an earlier half has
    /// none of this.
    fn received_of_this(&self, resume: Resume) -> u64 {
        if resume.peer_generation == self.generation { resume.received } else { 0 }
    }

    /// Whether the peer has forgotten this side since it was heard last, by what it says now.
    #[must_use]
    pub fn is_forgotten_by(&self, resume: Resume) -> bool {
        self.peer.is_some_and(|peer| peer.generation < resume.generation)
    }

    /// Whether the peer was further than that when it was heard last: what says so was under way for
    /// long, and no link is to be made of it.
    #[must_use]
    pub fn is_stale(&self, resume: Resume) -> bool {
        let Some(known) = self.peer else { return false };
        match half_of(resume).cmp(&known) {
            Ordering::Less => true,
            Ordering::Equal => self.send_buffer.has_acknowledged_more_than(self.received_of_this(resume)),
            Ordering::Greater => false,
        }
    }

    /// Notes that a link is there, to a peer that accepts `terms` and is where `resume` says.
    ///
    /// What the peer has not received is written again. If the peer has dropped its half of the
    /// session, so does this side: the calls that were under way end, and what is parked goes on. If the peer
    /// has forgotten this side, what this side remembers of calls that may be repeated goes, too. `schemas` is
    /// the table of this side's types, where the peer's differs.
    ///
    /// # Errors
    ///
    /// When the peer cannot be where it says. The session is reset then; close the link.
    pub fn attach(
        &mut self,
        terms: &SessionParameters,
        resume: Resume,
        schemas: Option<Encoded<'_>>,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), SessionError> {
        let half = half_of(resume);
        match self.peer.replace(half) {
            Some(known) if known.generation != half.generation => self.peer_has_forgotten(events),
            Some(known) if known.resets != half.resets => {
                self.drop_sent(&DisconnectReason::Reset, false, events);
            }
            // Nothing was ever on its way to a peer that was not heard of.
            Some(_) | None => {}
        }
        let received = self.received_of_this(resume);
        if !self.send_buffer.on_attach(received) {
            self.epoch += 1;
            let loss = DisconnectReason::Protocol(SessionError::Ack { received }.to_string());
            self.drop_sent(&loss, false, events);
            return Err(SessionError::Ack { received });
        }
        self.attached = true;
        // The handshake has told the peer.
        self.ack_sent();
        let theirs = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        self.inbound.ack_bytes = ACK_BYTES.min(theirs(terms.outgoing_bytes_max) / 4);
        self.frame_bytes_max = self.limits.frame_bytes_max.min(theirs(terms.frame_bytes_max));
        self.flows.set_window(terms.window_bytes);
        let limit = self.frame_bytes_max;
        if limit < self.limits.frame_bytes_max {
            self.drop_queued(limit, events, |bytes| {
                let text = format!("it accepts frames of {limit} bytes at most, and the call takes {bytes}");
                DisconnectReason::Unreachable(text)
            });
        }
        if let Some(body) = schemas
            && !self.schemas_sent
        {
            self.schemas_sent = true;
            self.put_schemas(body);
        }
        self.send_watermark();
        self.release_deferred_credit();
        self.flows.make_all_ready();
        self.send_queued();
        self.waiters.touch_all();
        self.say_goodbye_if_idle();
        Ok(())
    }

    /// In one piece, whatever it takes: it is to be there before the messages that it is about. A
    /// table that is over the peer's limit is left out, and messages are decoded as they come.
    fn put_schemas(&mut self, body: Encoded<'_>) {
        if Schemas::frame_bytes(body) <= self.frame_bytes_max {
            self.send_buffer.push(|out| Schemas::put(body, out));
        }
    }

    /// Gives up what is parked: the peer cannot be reached, and none of it was ever on the way.
    ///
    /// To be called without a link. What was on the way stays, and so does the peer's half.
    pub fn fail_queued(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.drop_queued(0, events, |_| loss.clone());
    }

    fn drop_queued(
        &mut self,
        longer_than: usize,
        events: &mut Vec<Event<T>>,
        loss: impl Fn(usize) -> DisconnectReason,
    ) {
        let mut tells = 0;
        for parked in self.flows.remove_oversized(longer_than) {
            match parked.content {
                Content::Call(call) => {
                    let failure = CallError::NotDelivered(loss(parked.frame_bytes));
                    let open = self.calls.remove(call);
                    events.extend(open.map(|open| Event::Failed { call_slot: open.ticket, failure }));
                }
                Content::Tell => tells += 1,
                Content::Other => {}
            }
        }
        events.extend((tells > 0).then_some(Event::DeadLetters { count: tells }));
        self.waiters.touch_all();
    }

    /// Notes that the link is gone. Everything stays, for the next one.
    ///
    /// The writer's [`WriteBatch`](crate::session::WriteBatch) is of no use afterwards.
    pub fn detach(&mut self, known: WriteCertainty) {
        self.attached = false;
        self.waiters.touch_all();
        self.unsequenced.clear();
        self.unsequenced_handed_out = 0;
        self.send_buffer.on_detach(known == WriteCertainty::AtMost);
        self.inbound.ack_due = None;
        self.inbound.ack_now = false;
        self.inbound.ack_piggyback = false;
    }

    /// Drops everything, on evidence that the peer will not go on: every open call ends. To be
    /// called without a link.
    ///
    /// Should the peer be heard of again, it learns of it and drops its half, too.
    pub fn reset(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.epoch += 1;
        self.drop_all(loss, events);
    }

    /// Forgets the peer: everything is dropped, and nothing of it remembered. To be called without a link.
    ///
    /// Should the peer be heard of again, it learns of it by the generation, which is to be higher than that
    /// of any half before, and forgets this side as well. Neither makes a call again then that the other may
    /// have had.
    pub fn forget_peer(&mut self, generation: u32, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.drop_all(loss, events);
        self.calls = Calls::of_generation(generation);
        self.send_buffer = SendBuffer::default();
        self.frame_bytes_max = self.limits.frame_bytes_max;
        self.generation = generation;
        self.epoch = 0;
        self.peer = None;
        self.forget_inbound();
    }

    /// Drops everything, for good: as [`reset`](Self::reset), and nothing is remembered. To be called without
    /// a link, of which there will be no further one but behind [`forget_peer`](Self::forget_peer).
    pub fn close(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.reset(loss, events);
        self.calls.void_repeats();
        self.inbound.dedup = DedupCache::default();
    }

    /// The peer has forgotten this side: what it has had of it, and which of its calls were made again.
    fn peer_has_forgotten(&mut self, events: &mut Vec<Event<T>>) {
        self.drop_sent(&DisconnectReason::Forgotten, true, events);
        self.calls.void_repeats();
        self.forget_inbound();
    }

    /// Nothing that came before says anything about what comes from now on.
    fn forget_inbound(&mut self) {
        self.watermark_sent = self.calls.base();
        self.watermark_due = false;
        self.inbound.dedup = DedupCache::default();
        self.inbound.received = 0;
        self.ack_sent();
    }

    fn drop_all(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        let open = self.calls.take_all();
        self.end_calls(open, loss, events);
        let tells = self.flows.queued_tells();
        self.flows.clear();
        self.drop_halves(tells, events);
    }

    /// Drops what was on its way, in both directions. What is parked was not, and waits for the next link;
    /// unless, if `repeatable` says so, it is a call that may be made again.
    fn drop_sent(&mut self, loss: &DisconnectReason, repeatable: bool, events: &mut Vec<Event<T>>) {
        let open = self.calls.take_sent(repeatable);
        for open in &open {
            if let CallStage::Queued(number) = open.place {
                self.flows.remove_queued(number);
            }
        }
        self.end_calls(open, loss, events);
        self.flows.restart();
        self.drop_halves(0, events);
    }

    fn end_calls(&self, open: Vec<OpenCall<T>>, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        events.extend(open.into_iter().map(|open| {
            let failure = self.error_on_loss(open.place, loss);
            Event::Failed { call_slot: open.ticket, failure }
        }));
    }

    /// Drops what is not parked, of both directions; so many one-way messages were lost already.
    fn drop_halves(&mut self, tells: u64, events: &mut Vec<Event<T>>) {
        let kept = self.closing.is_none() && self.limits.injected_bug == Some(InjectedBug::ResendAfterClose);
        let count = tells + self.chunked.tells() + if kept { 0 } else { self.send_buffer.clear() };
        events.extend((count > 0).then_some(Event::DeadLetters { count }));
        self.chunked.clear();
        self.dismiss_waiters();
        self.inbound.calls.clear();
        self.inbound.flows.clear();
        self.inbound.assembly.clear();
        self.inbound.schemas_received = false;
        self.inbound.epoch = self.inbound.epoch.wrapping_add(1);
        self.peer_closing = false;
        self.schemas_sent = false;
        // Whatever told the peer of it may be among what is dropped.
        self.watermark_due |= self.watermark_sent > self.calls.base();
        if let Some(leaving) = &mut self.closing {
            leaving.goodbye_sent = false;
        }
    }
}

fn half_of(resume: Resume) -> PeerHalf {
    PeerHalf { generation: resume.generation, resets: resume.epoch }
}
