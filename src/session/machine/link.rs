//! Attaching and detaching of links, and the ends of a session.

use std::cmp::Ordering;

use super::{CallStage, MessageKind, PeerHalf, Session};
use crate::config::{ACK_BYTES, InjectedBug};
use crate::session::calls::{CallEntry, Calls};
use crate::session::dedup::DedupCache;
use crate::session::{CallError, DisconnectReason, Event, SessionError};
use crate::wire::{Encoded, Resume, Schemas, SessionParameters};

/// Accuracy of the written byte count when a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCertainty {
    /// The writer itself reports the end, and has reported every byte that the kernel accepted.
    Exact,
    /// The writer may still have to report bytes: everything that it took counts as written.
    AtMost,
}

impl<T> Session<T> {
    /// Position of this side, for the handshake of the next link.
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume {
            generation: self.generation,
            epoch: self.epoch,
            peer_generation: self.peer.map_or(0, |peer| peer.generation),
            received: self.inbound.received,
        }
    }

    /// Number of frames of this half that the peer has received. A peer that counts frames of an
    /// older half has received none of this one.
    fn received_of_this(&self, resume: Resume) -> u64 {
        if resume.peer_generation == self.generation { resume.received } else { 0 }
    }

    /// Returns whether the peer has forgotten this side since the last link, judging by its
    /// position.
    #[must_use]
    pub fn is_forgotten_by(&self, resume: Resume) -> bool {
        self.peer.is_some_and(|peer| peer.generation < resume.generation)
    }

    /// Returns whether `resume` is older than the peer's known position. Such a handshake was
    /// delayed in the network, and must not establish a link.
    #[must_use]
    pub fn is_stale(&self, resume: Resume) -> bool {
        let Some(known) = self.peer else { return false };
        match half_of(resume).cmp(&known) {
            Ordering::Less => true,
            Ordering::Equal => self.send_buffer.has_acknowledged_more_than(self.received_of_this(resume)),
            Ordering::Greater => false,
        }
    }

    /// Attaches a link to a peer that accepts `terms` and is at position `resume`.
    ///
    /// Frames that the peer has not received are sent again. If the peer has reset its half, this
    /// side does the same: calls in flight fail, and queued messages are sent. If the peer has
    /// forgotten this side, this side also drops its record of retryable calls. `schemas` is this
    /// side's type table, where the peer's digest differs.
    ///
    /// # Errors
    ///
    /// When the peer's position is impossible. The session is then reset; close the link.
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
            Some(known) if known.epoch != half.epoch => {
                self.drop_sent(&DisconnectReason::Reset, false, events);
            }
            // The known half resumes, and to an unknown peer no frame was in flight.
            Some(_) | None => {}
        }
        let received = self.received_of_this(resume);
        // The peer claims frames that no link was ever handed. One of the two records is wrong, so
        // nothing in flight can be trusted.
        if !self.send_buffer.on_attach(received) {
            self.epoch += 1;
            let loss = DisconnectReason::Protocol(SessionError::Ack { received }.to_string());
            self.drop_sent(&loss, false, events);
            return Err(SessionError::Ack { received });
        }
        self.attached = true;
        // The handshake carried the received count, which is an ACK.
        self.ack_sent();
        let theirs = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        // A quarter of what the peer retains: its budget is freed before it has to reject messages.
        self.inbound.ack_bytes = ACK_BYTES.min(theirs(terms.outgoing_bytes_max) / 4);
        self.frame_bytes_max = self.limits.frame_bytes_max.min(theirs(terms.frame_bytes_max));
        self.flows.set_window(terms.window_bytes);
        let limit = self.frame_bytes_max;
        // Messages queued before the first link were checked against the local limit only.
        if limit < self.limits.frame_bytes_max {
            self.drop_queued(limit, events, |bytes| {
                let text = format!("it accepts frames of at most {limit} bytes and the call takes {bytes}");
                DisconnectReason::Unreachable(text)
            });
        }
        // On the wire the type table must precede the queued messages that it describes.
        if let Some(body) = schemas
            && !self.schemas_sent
        {
            self.schemas_sent = true;
            self.put_schemas(body);
        }
        self.send_watermark();
        self.release_deferred_credit();
        // Messages that were queued without a link are in no ready list yet.
        self.flows.make_all_ready();
        self.send_queued();
        self.waiters.touch_all();
        self.send_goodbye_if_idle();
        Ok(())
    }

    /// Sends the type table in one piece, whatever its length, so that it arrives before the
    /// messages that it describes. A table over the peer's frame limit is omitted: messages are
    /// then decoded without it.
    fn put_schemas(&mut self, body: Encoded<'_>) {
        if Schemas::frame_bytes(body) <= self.frame_bytes_max {
            self.send_buffer.push(|out| Schemas::put(body, out));
        }
    }

    /// Fails the queued messages: the peer is unreachable, and none of them was in flight.
    ///
    /// Call it without a link. Frames in flight and the peer's half are kept.
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
        for queued in self.flows.remove_oversized(longer_than) {
            match queued.content {
                MessageKind::Call(call) => {
                    let failure = CallError::NotDelivered(loss(queued.frame_bytes));
                    let open = self.calls.remove(call);
                    events.extend(open.map(|open| Event::Failed { call_slot: open.call_slot, failure }));
                }
                MessageKind::Tell => tells += 1,
                MessageKind::Other => {}
            }
        }
        events.extend((tells > 0).then_some(Event::DeadLetters { count: tells }));
        self.waiters.touch_all();
    }

    /// Detaches the link. All state is kept for the next one.
    ///
    /// The writer's [`WriteBatch`](crate::session::WriteBatch) must be discarded.
    pub fn detach(&mut self, known: WriteCertainty) {
        self.attached = false;
        self.waiters.touch_all();
        // ACKs are not resent: the handshake of the next link states the received count, which
        // covers them.
        self.unsequenced.clear();
        self.unsequenced_handed_out = 0;
        // Whatever the writer took may reach the peer, so it must count as written: a call may fail
        // as not delivered only if it cannot have arrived.
        self.send_buffer.on_detach(known == WriteCertainty::AtMost);
        self.inbound.ack_due = None;
        self.inbound.ack_now = false;
        self.inbound.ack_piggyback = false;
    }

    /// Drops the whole session, on evidence that the peer will not resume it: every open call
    /// fails. Call it without a link.
    ///
    /// If the peer connects again, it sees the new epoch and drops its half, too.
    pub fn reset(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.epoch += 1;
        self.drop_all(loss, events);
    }

    /// Forgets the peer: clears everything, including the record of its half. Call it without a
    /// link.
    ///
    /// `generation` must be higher than that of any earlier half. If the peer connects again, it
    /// sees the new generation and forgets this side as well. After that neither side retries a
    /// call that the other may have received.
    pub fn forget_peer(&mut self, generation: u32, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.drop_all(loss, events);
        // A new range of ids: a late reply to a call of the forgotten half must not end a new call.
        self.calls = Calls::of_generation(generation);
        self.send_buffer = self.send_buffer.of_next_peer();
        self.frame_bytes_max = self.limits.frame_bytes_max;
        self.generation = generation;
        self.epoch = 0;
        self.peer = None;
        self.forget_inbound();
    }

    /// Ends the session for good: as [`reset`](Self::reset), but nothing is remembered. Call it
    /// without a link. Another link may follow only after [`forget_peer`](Self::forget_peer).
    pub fn close(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        self.reset(loss, events);
        self.calls.void_retries();
        self.inbound.dedup = DedupCache::default();
    }

    /// Handles a peer that has forgotten this side: it no longer knows which calls it has executed.
    fn peer_has_forgotten(&mut self, events: &mut Vec<Event<T>>) {
        // Before `void_retries`, which clears the set by which queued retries are found.
        self.drop_sent(&DisconnectReason::Forgotten, true, events);
        self.calls.void_retries();
        self.forget_inbound();
    }

    /// Clears everything known about the peer's earlier frames: none of it applies to its new half.
    fn forget_inbound(&mut self) {
        self.watermark_sent = self.calls.base();
        self.watermark_due = false;
        self.inbound.dedup = DedupCache::default();
        self.inbound.received = 0;
        self.ack_sent();
    }

    fn drop_all(&mut self, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        let open = self.calls.take_all();
        // Before `drop_halves` clears the send buffer, whose offsets decide which calls were
        // written.
        self.end_calls(open, loss, events);
        let tells = self.flows.queued_tells();
        self.flows.clear();
        self.drop_halves(tells, events);
    }

    /// Drops the frames in flight, in both directions. Queued messages wait for the next link,
    /// except retryable calls if `retryable` is set.
    fn drop_sent(&mut self, loss: &DisconnectReason, retryable: bool, events: &mut Vec<Event<T>>) {
        // A peer that has forgotten this side has lost its dedup cache: a retryable call that is
        // queued may be a second attempt of one that it has executed, so the retry must not be
        // sent.
        let open = self.calls.take_sent(retryable);
        for open in &open {
            if let CallStage::Queued(number) = open.stage {
                self.flows.remove_queued(number);
            }
        }
        self.end_calls(open, loss, events);
        self.flows.restart();
        self.drop_halves(0, events);
    }

    fn end_calls(&self, open: Vec<CallEntry<T>>, loss: &DisconnectReason, events: &mut Vec<Event<T>>) {
        events.extend(open.into_iter().map(|open| {
            let failure = self.error_on_loss(open.stage, loss);
            Event::Failed { call_slot: open.call_slot, failure }
        }));
    }

    /// Clears what was sent and what was received; the queues stay. `tells` one-way messages were
    /// lost before.
    fn drop_halves(&mut self, tells: u64, events: &mut Vec<Event<T>>) {
        let kept = self.closing.is_none() && self.limits.injected_bug == Some(InjectedBug::ResendAfterClose);
        let count = tells + self.chunked.tells() + if kept { 0 } else { self.send_buffer.clear() };
        events.extend((count > 0).then_some(Event::DeadLetters { count }));
        self.chunked.clear();
        self.wake_all_waiters();
        self.inbound.calls.clear();
        self.inbound.flows.clear();
        self.inbound.assembly.clear();
        self.inbound.schemas_received = false;
        // Handlers still hold charges of the dropped messages. Their credit must not be returned to
        // the peer's new half, which never charged them.
        self.inbound.epoch = self.inbound.epoch.wrapping_add(1);
        // The goodbye belonged to the dropped half. A peer that is still closing sends another one.
        self.peer_closing = false;
        self.schemas_sent = false;
        // The Watermark frame that carried it may be among the dropped ones.
        self.watermark_due |= self.watermark_sent > self.calls.base();
        if let Some(closing) = &mut self.closing {
            closing.goodbye_sent = false;
        }
    }
}

fn half_of(resume: Resume) -> PeerHalf {
    PeerHalf { generation: resume.generation, epoch: resume.epoch }
}
