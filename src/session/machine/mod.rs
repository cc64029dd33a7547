//! Session of two authenticated hosts: the calls and tells in both directions and their outcomes.

mod capacity;
mod close;
mod link;
mod receive;
mod replies;
mod send;
mod timers;

use std::time::Instant;

use bytes::BytesMut;
use rustc_hash::FxHashSet;

use self::capacity::{LineHead, Requester};
use self::close::Closing;
pub use self::link::WriteCertainty;
use super::call_table::CallTable;
use super::calls::{CallStage, Calls, MessageKind};
use super::chunking::{ChunkedSends, Reassembler};
use super::dedup::DedupCache;
use super::flow_control::{ReceiveFlows, SendFlows};
use super::queued_frame::QueuedFrame;
use super::send_buffer::SendBuffer;
use super::send_queue::FrameOut;
use super::waiters::{WaiterId, Waiters};
use super::{CallError, DisconnectReason, Rejected};
use crate::config::{self, InjectedBug};
use crate::id::{CallId, Target, TypeHash};
use crate::wire::{CallHeader, Cancel, FrameSink, MessageBody, TellHeader, Watermark};

/// Limits of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Unacknowledged bytes, and as many queued bytes, above which messages are rejected.
    pub outgoing_bytes_max: usize,
    /// Longest frame in bytes. The peer's own limit applies too, once it is known.
    pub frame_bytes_max: usize,
    /// Bytes of unhandled messages that each local actor accepts from the peer.
    pub window_bytes: usize,
    /// Bytes that may be queued for one actor of the peer.
    pub send_queue_bytes_max: usize,
    /// Longest frame in bytes that is sent in one piece, and the longest chunk of a longer frame.
    pub chunk_bytes: usize,
    /// Calls that may be open.
    pub calls_open_max: usize,
    #[doc(hidden)]
    pub injected_bug: Option<InjectedBug>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            outgoing_bytes_max: config::OUTGOING_BYTES_MAX,
            frame_bytes_max: config::FRAME_BYTES_MAX,
            window_bytes: config::WINDOW_BYTES,
            send_queue_bytes_max: config::SEND_QUEUE_BYTES_MAX,
            chunk_bytes: config::CHUNK_BYTES,
            calls_open_max: config::CALLS_OPEN_MAX,
            injected_bug: None,
        }
    }
}

/// State that this host and one peer share: open calls, queued messages, unacknowledged frames.
///
/// ```text
///            attach                 goodbye sent or received
/// detached <--------> attached -----------------------------> closing
///    |       detach      |                                       |
///    |                   |                                       |
///    +--- reset: every open call fails, both halves are cleared -+
/// ```
///
/// A session outlives its links: the next link delivers what the previous one did not. Messages may
/// be submitted while there is no link. `T` is the caller's slot of an open call; the session
/// returns it with the call's only outcome.
#[derive(Debug)]
pub struct Session<T> {
    limits: SessionLimits,
    /// Smaller of both sides' frame limits; this side's limit until the first link is attached.
    frame_bytes_max: usize,
    attached: bool,
    calls: Calls<T>,
    flows: SendFlows,
    chunked: ChunkedSends,
    send_buffer: SendBuffer,
    /// Encoded frames without a sequence number, and how many of their bytes the writer holds
    /// unwritten.
    unsequenced: BytesMut,
    unsequenced_handed_out: usize,
    inbound: ReceiveHalf,
    closing: Option<Closing>,
    peer_closing: bool,
    /// Generation of this half. A host that forgot its peer starts a higher one.
    generation: u32,
    /// Number of times that this side has dropped its half of the session.
    epoch: u32,
    /// The peer's half, known after the first handshake.
    peer: Option<PeerHalf>,
    /// Set once this side's schemas are queued for the peer.
    schemas_sent: bool,
    /// Set when the low watermark has risen but no link was there to send it.
    watermark_due: bool,
    /// Low watermark that the peer was sent last.
    watermark_sent: CallId,
    waiters: Waiters,
    /// Bytes that may be in flight including a new message: 0 while a waiter is in line for the
    /// link.
    capacity_bytes: usize,
    /// Relation of the next message to the waiters.
    requester: Requester,
    /// Head of the waiters for the link, and head of the queued messages.
    first_waiter: LineHead<WaiterId>,
    first_queued: LineHead<u64>,
}

/// Half of a session as its owner describes it in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PeerHalf {
    generation: u32,
    epoch: u32,
}

/// Receiving half of a session.
#[derive(Debug)]
struct ReceiveHalf {
    /// Calls of the peer without an outcome.
    calls: CallTable<()>,
    /// Calls that the peer has cancelled but whose handler still runs.
    cancelled: FxHashSet<CallId>,
    flows: ReceiveFlows,
    assembly: Reassembler,
    dedup: DedupCache,
    /// Incremented when the half is cleared. Charges of an older epoch return no credit.
    epoch: u32,
    /// Set once the peer's schemas have arrived in this epoch.
    schemas_received: bool,
    // Delayed ACK, as in TCP (RFC 1122, section 4.2.3.2) and QUIC (RFC 9000, section 13.2):
    //
    //   received == acked    no ACK is owed
    //   ack_due              an ACK is owed, and is written by then at the latest
    //   ack_piggyback        the next write carries an ACK anyway
    //   ack_now              an ACK is written even if nothing else is
    //
    // An ACK in every batch would cost each single call one more frame and one more buffer in both
    // directions. So one travels along only after `ack_bytes / 4`, or from `piggyback_after` on.
    /// Sequenced frames received, on all links.
    received: u64,
    /// Sequenced frames covered by the last ACK that was sent.
    acked: u64,
    /// Bytes of the sequenced frames that are not acknowledged yet, approximately.
    unacked_bytes: usize,
    /// Unacknowledged bytes that force an ACK without waiting for `ack_due`.
    ack_bytes: usize,
    /// Deadline of the delayed ACK.
    ack_due: Option<Instant>,
    /// Set when an ACK must be sent even if nothing else is written.
    ack_now: bool,
    /// Set when the next write carries an ACK.
    ack_piggyback: bool,
    /// Earliest time at which another small batch is worth a piggybacked ACK.
    piggyback_after: Option<Instant>,
    /// Arrival of the last sequenced frame.
    last_received_at: Option<Instant>,
}

/// Retry state of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryable {
    /// The call is sent once.
    Never,
    /// The first attempt of a call that may be retried until [`end_retries`](Session::end_retries).
    First,
    /// A further attempt under the same id, or [`Rejected::Forgotten`]. If the previous attempt is
    /// still open, or its retries have ended, the call is sent as a new one.
    Again(CallId),
}

/// Decision of the admission check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    SendNow,
    Queue,
}

/// Rise of the low watermark that is worth a frame while other calls may still be retried.
const WATERMARK_STEP: u64 = 64;

/// Submitting calls and tells.
impl<T> Session<T> {
    /// Creates a session without a link.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self::of_generation(limits, 0)
    }

    /// Creates a session without a link, for a host that may have forgotten an earlier one with
    /// this peer. `generation` must be higher than that of the forgotten session.
    #[must_use]
    pub fn of_generation(limits: SessionLimits, generation: u32) -> Self {
        let calls = Calls::of_generation(generation);
        let watermark_sent = calls.base();
        Self {
            limits,
            frame_bytes_max: limits.frame_bytes_max,
            attached: false,
            calls,
            flows: SendFlows::default(),
            chunked: ChunkedSends::default(),
            send_buffer: SendBuffer::default(),
            unsequenced: BytesMut::new(),
            unsequenced_handed_out: 0,
            inbound: ReceiveHalf::new(limits.window_bytes as u64),
            closing: None,
            peer_closing: false,
            generation,
            epoch: 0,
            peer: None,
            schemas_sent: false,
            watermark_due: false,
            watermark_sent,
            waiters: Waiters::default(),
            capacity_bytes: limits.outgoing_bytes_max,
            requester: Requester::Newcomer,
            first_waiter: None,
            first_queued: None,
        }
    }

    /// Queues a call. The outcome arrives as [`Event::Replied`](super::Event::Replied) or
    /// [`Event::Failed`](super::Event::Failed) with its slot.
    ///
    /// # Errors
    ///
    /// When the budgets have no capacity, when the frame is too large, when either side is closing,
    /// or when a retried call is forgotten by either side. The slot is returned.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a call")]
    #[inline(always)]
    pub fn call<'a>(
        &mut self,
        now: Instant,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        retry: Retryable,
        body: impl Into<MessageBody<'a>>,
        call_slot: T,
    ) -> Result<CallId, (Rejected, T)> {
        let body = body.into();
        let timeout_ms = deadline.map_or(0, |deadline| remaining_ms(now, deadline));
        let mut header = CallHeader { call: CallId(0), target, message, timeout_ms, low_watermark: None };
        let once = matches!(retry, Retryable::Never);
        // One side has lost its record of the first attempt, so the receiver could not recognize
        // the duplicate. Sending it could run the handler twice.
        if let Retryable::Again(call) = retry
            && self.calls.is_void(call)
        {
            return Err((Rejected::Forgotten, call_slot));
        }
        // The flag adds eight bytes, so it is set before the frame is measured. The value comes
        // later: the watermark must include this call, whose id is not assigned before it is
        // admitted.
        if !once {
            header.low_watermark = Some(self.calls.low_watermark());
        }
        let frame_bytes = header.frame_bytes(body);
        let way = match self.admit(target, frame_bytes, true) {
            Ok(way) => way,
            Err(rejected) => return Err((rejected, call_slot)),
        };
        if once {
            header.call = self.calls.next_id();
        } else {
            header.call = self.retry_call_id(retry);
            header.low_watermark = Some(self.calls.low_watermark());
        }
        let stage = self.submit(way, MessageKind::Call(header.call), target, frame_bytes, (header, body));
        self.calls.insert(header.call, stage, deadline, call_slot);
        Ok(header.call)
    }

    /// Returns the id under which a retryable call is sent.
    #[cold]
    fn retry_call_id(&mut self, retry: Retryable) -> CallId {
        let call = match retry {
            Retryable::Again(call) if self.calls.is_retryable(call) => call,
            // An open attempt is still answered under its id. A second call under the same id would
            // be a violation.
            _ => self.calls.next_id(),
        };
        self.calls.mark_retryable(call);
        call
    }

    /// Queues a message that has no reply.
    ///
    /// # Errors
    ///
    /// When the budgets have no capacity, when the frame is too large, or when either side is
    /// closing.
    pub fn tell<'a>(
        &mut self,
        target: Target,
        message: TypeHash,
        body: impl Into<MessageBody<'a>>,
    ) -> Result<(), Rejected> {
        let body = body.into();
        let frame_bytes = TellHeader::frame_bytes(body);
        let way = self.admit(target, frame_bytes, false)?;
        self.submit(way, MessageKind::Tell, target, frame_bytes, (TellHeader { target, message }, body));
        Ok(())
    }

    /// Writes an admitted message to the send buffer, or queues it.
    #[inline(always)]
    fn submit(
        &mut self,
        way: Admission,
        content: MessageKind,
        target: Target,
        frame_bytes: usize,
        message: impl Message,
    ) -> CallStage {
        if way == Admission::Queue || frame_bytes > self.limits.chunk_bytes {
            return self.enqueue_frame(way, content, target, frame_bytes, message);
        }
        let end = self.send_buffer.push(|out| message.put(out));
        // No caller is notified of a lost tell. Tells that never reached the kernel are counted as
        // dead letters instead.
        if content == MessageKind::Tell {
            self.send_buffer.count_tell(end);
        }
        CallStage::Sent(end)
    }

    /// Queues a message that has to wait, or that is sent in chunks.
    ///
    /// Not inlined: the common path then writes its frame to the send buffer from registers.
    #[inline(never)]
    fn enqueue_frame(
        &mut self,
        way: Admission,
        content: MessageKind,
        target: Target,
        frame_bytes: usize,
        message: impl Message,
    ) -> CallStage {
        if way == Admission::Queue {
            let put = |mut out: FrameOut<'_>| message.put(&mut out);
            return CallStage::Queued(self.flows.enqueue(target, content, frame_bytes, put));
        }
        // The body is borrowed from the caller, so the whole frame is encoded now, although its
        // chunks are sent later.
        self.chunked.push(content, Some(target), QueuedFrame::of(|out| message.put(out)));
        CallStage::Chunking
    }

    /// Cancels a call and returns its slot: no outcome is reported for it.
    ///
    /// If the whole call is in the send buffer, a Cancel frame follows it, so that the handler does
    /// not start, or is dropped. Any other call is withdrawn: the peer never handles it.
    pub fn cancel(&mut self, call: CallId) -> Option<T> {
        let open = self.calls.remove(call)?;
        self.cancel_at_peer(call, open.stage);
        self.send_goodbye_if_idle();
        Some(open.call_slot)
    }

    /// Withdraws a call locally, or cancels it at the peer. Returns whether the peer may receive the
    /// whole call, which is so once all of it is in the send buffer, sent or not.
    fn cancel_at_peer(&mut self, call: CallId, stage: CallStage) -> bool {
        match stage {
            CallStage::Queued(number) => {
                if let Some(target) = self.flows.remove_queued(number) {
                    // One message has left the queue, so one waiter that spares the queue may
                    // proceed.
                    self.waiters.ease(target);
                }
                // The cancelled call may have been the head that lacked credit, and a smaller one
                // behind it may have enough.
                self.send_queued();
                false
            }
            // Chunks that are sent cannot be recalled, but without the last one the peer never
            // decodes the call: for the caller it counts as not sent.
            CallStage::Chunking => {
                if let Some(done) = self.chunked.abandon(call) {
                    self.chunked_send_done(done);
                    self.send_queued();
                }
                false
            }
            CallStage::Sent(_) => {
                // Sequenced behind the call itself, so the peer sees both in order, even if the
                // link changes in between.
                self.send_buffer.push(|out| Cancel { call }.put(out));
                true
            }
        }
    }

    /// Ends the retries of a call: its caller has the outcome, or no longer waits for it.
    pub fn end_retries(&mut self, call: CallId) {
        if !self.calls.end_retries(call) {
            return;
        }
        let watermark = self.calls.low_watermark();
        // The peer frees cached replies by the watermark. Every retryable call carries it, so a
        // frame of its own is needed only when no such call follows, or after a larger rise.
        if self.calls.has_no_retryable() || watermark.0 - self.watermark_sent.0 >= WATERMARK_STEP {
            self.watermark_due = true;
            self.send_watermark();
        }
    }

    fn send_watermark(&mut self) {
        if self.watermark_due && self.attached && !self.is_closing() {
            self.watermark_due = false;
            self.watermark_sent = self.calls.low_watermark();
            let watermark = Watermark { call: self.watermark_sent };
            self.send_buffer.push(|out| watermark.put(out));
        }
    }

    /// Returns whether a goodbye was sent or received.
    fn is_closing(&self) -> bool {
        self.peer_closing || self.closing.as_ref().is_some_and(|closing| closing.goodbye_sent)
    }

    /// Error of an open call when the session is cleared.
    fn error_on_loss(&self, stage: CallStage, loss: &DisconnectReason) -> CallError {
        match stage {
            CallStage::Sent(end) if self.send_buffer.was_written(end) => {
                CallError::OutcomeUnknown(loss.clone())
            }
            CallStage::Sent(_) | CallStage::Chunking | CallStage::Queued(_) => {
                // The call fails as not delivered only if no kernel had the whole frame: the peer
                // cannot decode a part of one.
                CallError::NotDelivered(loss.clone())
            }
        }
    }
}

/// Encoder of one message frame, for the send buffer or for a queue.
trait Message {
    /// Writes the frame and returns its length in bytes.
    fn put(&self, out: &mut impl FrameSink) -> usize;
}

impl Message for (CallHeader, MessageBody<'_>) {
    fn put(&self, out: &mut impl FrameSink) -> usize {
        self.0.put(self.1, out)
    }
}

impl Message for (TellHeader, MessageBody<'_>) {
    fn put(&self, out: &mut impl FrameSink) -> usize {
        self.0.put(self.1, out)
    }
}

impl ReceiveHalf {
    fn new(window: u64) -> Self {
        Self {
            calls: CallTable::default(),
            cancelled: FxHashSet::default(),
            flows: ReceiveFlows::new(window),
            assembly: Reassembler::default(),
            dedup: DedupCache::default(),
            epoch: 0,
            schemas_received: false,
            received: 0,
            acked: 0,
            unacked_bytes: 0,
            ack_bytes: config::ACK_BYTES,
            ack_due: None,
            ack_now: false,
            ack_piggyback: false,
            piggyback_after: None,
            last_received_at: None,
        }
    }
}

/// Returns the milliseconds until `deadline`, rounded up, and at least 1: on the wire 0 is no
/// deadline.
fn remaining_ms(now: Instant, deadline: Instant) -> u32 {
    let remaining = deadline.saturating_duration_since(now);
    // In two parts, as the nanoseconds of all of it are a division of 128 bits.
    let below_second = u64::from(remaining.subsec_nanos().div_ceil(1_000_000));
    let remaining_ms = remaining.as_secs().saturating_mul(1000).saturating_add(below_second);
    u32::try_from(remaining_ms).unwrap_or(u32::MAX).max(1)
}
