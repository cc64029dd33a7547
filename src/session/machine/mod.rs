//! The session of two hosts that have proved themselves: calls, tells and their ends.

mod close;
mod link;
mod receive;
mod replies;
mod room;
mod send;
mod timers;

use std::time::Instant;

use bytes::BytesMut;
use rustc_hash::FxHashSet;

use self::close::Closing;
pub use self::link::WriteCertainty;
use self::room::{Asks, Mark};
use super::call_table::CallTable;
use super::calls::{CallStage, Calls, Content};
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
use crate::wire::{CallHeader, Cancel, Encoded, FrameSink, TellHeader, Watermark};

/// What a session may hold and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many bytes may be unacknowledged before messages are rejected, and as many parked.
    pub outgoing_bytes_max: usize,
    /// The longest frame, in bytes; that of the peer holds too, once it is known.
    pub frame_bytes_max: usize,
    /// How many bytes of unhandled messages each actor here takes from the peer.
    pub window_bytes: usize,
    /// How many bytes may be parked for one actor of the peer.
    pub parked_bytes_max: usize,
    /// The longest frame in one piece; of longer ones each chunk is as long at most.
    pub chunk_bytes: usize,
    /// How many calls may be open.
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
            parked_bytes_max: config::SEND_QUEUE_BYTES_MAX,
            chunk_bytes: config::CHUNK_BYTES,
            calls_open_max: config::CALLS_OPEN_MAX,
            injected_bug: None,
        }
    }
}

/// What this host and one peer have open with each other.
///
/// ```text
///            attach                 goodbye said or heard
/// detached <--------> attached ----------------------------> closing
///    |       detach      |                                      |
///    |                   |                                      |
///    +------- reset: every open call ends, all is dropped ------+
/// ```
///
/// Links come and go: what one of them did not bring, the next one does. Messages may be given to
/// it while there is none. `T` is the ticket of an open call, which comes back with the call's one
/// end.
#[derive(Debug)]
pub struct Session<T> {
    limits: SessionLimits,
    /// The limit of both sides, or that of this side until the first link tells the peer's.
    frame_bytes_max: usize,
    attached: bool,
    calls: Calls<T>,
    flows: SendFlows,
    chunked: ChunkedSends,
    send_buffer: SendBuffer,
    /// Frames without a number, and how many bytes of them the writer has taken and not written.
    unsequenced: BytesMut,
    unsequenced_handed_out: usize,
    inbound: Inbound,
    closing: Option<Closing>,
    peer_closing: bool,
    /// Generation of this half: higher for one that the host begins after it forgot the peer.
    generation: u32,
    /// How often this side has dropped everything.
    epoch: u32,
    /// The peer's half, once a link has told.
    peer: Option<PeerHalf>,
    /// Whether the peer has been told, or is being told, of the types here.
    schemas_sent: bool,
    /// Whether the floor has risen and the peer is to be told on the next link.
    watermark_due: bool,
    /// The floor that the peer was told last.
    watermark_sent: CallId,
    waiters: Waiters,
    /// How much may be on the way behind a message that goes out now; less while anybody waits.
    room_bytes: usize,
    /// What the next message is to those that wait for room.
    asks: Asks,
    /// The first that waits for the link, of those who are not queued and of those who are.
    first_waiter: Mark<WaiterId>,
    first_parked: Mark<u64>,
}

/// Which half of a session the peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PeerHalf {
    generation: u32,
    resets: u32,
}

/// What came from the peer.
#[derive(Debug)]
struct Inbound {
    /// Calls that are owed an end.
    calls: CallTable<()>,
    /// Calls that the peer has cancelled, and whose handler has not been done with yet.
    cancelled: FxHashSet<CallId>,
    flows: ReceiveFlows,
    assembly: Reassembler,
    dedup: DedupCache,
    /// Messages of an earlier life are not given back.
    epoch: u32,
    /// Whether the peer has told of its types in this life.
    schemas_received: bool,
    /// How many numbered frames have come.
    received: u64,
    /// How many of them the peer was told of.
    acked: u64,
    /// The bytes, about, of those that it was not told of.
    unacked_bytes: usize,
    /// After so many of them it is to be told.
    ack_bytes: usize,
    /// When the peer is to be told.
    ack_due: Option<Instant>,
    /// Whether it is due.
    ack_now: bool,
    /// Whether the peer is to be told with what goes out next.
    ack_piggyback: bool,
    /// For frames that come before that time it is not worth one of its own.
    piggyback_after: Option<Instant>,
    /// When the last numbered frame came.
    last_received_at: Option<Instant>,
}

/// Whether a call may be made more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryable {
    /// It is made once.
    Never,
    /// It is made for the first time, and may be made again until
    /// [`end_retries`](Session::end_retries).
    First,
    /// It is made again under its number, or rejected as [`Rejected::Forgotten`]. One that is open, or whose
    /// repeats have ended, is made for the first time.
    Again(CallId),
}

/// Whether a message goes out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    SendNow,
    Queue,
}

/// A floor that has risen by less is not worth a frame while calls may still be repeated.
const WATERMARK_STEP: u64 = 64;

/// Making calls and tells.
impl<T> Session<T> {
    /// A session without a link.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self::of_generation(limits, 0)
    }

    /// A session without a link, of a host that may have had one with this peer and forgotten it: then it
    /// had a lower generation.
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
            inbound: Inbound::new(limits.window_bytes as u64),
            closing: None,
            peer_closing: false,
            generation,
            epoch: 0,
            peer: None,
            schemas_sent: false,
            watermark_due: false,
            watermark_sent,
            waiters: Waiters::default(),
            room_bytes: limits.outgoing_bytes_max,
            asks: Asks::Newcomer,
            first_waiter: None,
            first_parked: None,
        }
    }

    /// Queues a call. Its end comes as [`Event::Replied`](super::Event::Replied) or
    /// [`Event::Failed`](super::Event::Failed) with the ticket.
    ///
    /// # Errors
    ///
    /// When there is no room now, when the frame is too large, when either side leaves, or when the call is
    /// to be made again and a side has forgotten it. The ticket comes back.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a call")]
    #[inline(always)]
    pub fn call(
        &mut self,
        now: Instant,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        repeat: Retryable,
        body: Encoded<'_>,
        ticket: T,
    ) -> Result<CallId, (Rejected, T)> {
        let timeout_ms = deadline.map_or(0, |deadline| remaining_ms(now, deadline));
        let mut header = CallHeader { call: CallId(0), target, message, timeout_ms, low_watermark: None };
        let once = matches!(repeat, Retryable::Never);
        if let Retryable::Again(call) = repeat
            && self.calls.is_void(call)
        {
            return Err((Rejected::Forgotten, ticket));
        }
        if !once {
            header.low_watermark = Some(self.calls.low_watermark());
        }
        let frame_bytes = header.frame_bytes(body);
        let way = match self.admit(target, frame_bytes, true) {
            Ok(way) => way,
            Err(rejected) => return Err((rejected, ticket)),
        };
        if once {
            header.call = self.calls.next_id();
        } else {
            header.call = self.retry_call_id(repeat);
            header.low_watermark = Some(self.calls.low_watermark());
        }
        let place = self.submit(way, Content::Call(header.call), target, frame_bytes, (header, body));
        self.calls.insert(header.call, place, deadline, ticket);
        Ok(header.call)
    }

    /// The number of a call that may be made again.
    #[cold]
    fn retry_call_id(&mut self, repeat: Retryable) -> CallId {
        let call = match repeat {
            Retryable::Again(call) if self.calls.is_retryable(call) => call,
            _ => self.calls.next_id(),
        };
        self.calls.mark_retryable(call);
        call
    }

    /// Queues a message that has no reply.
    ///
    /// # Errors
    ///
    /// When there is no room now, when the frame is too large, or when either side leaves.
    pub fn tell(&mut self, target: Target, message: TypeHash, body: Encoded<'_>) -> Result<(), Rejected> {
        let frame_bytes = TellHeader::frame_bytes(body);
        let way = self.admit(target, frame_bytes, false)?;
        self.submit(way, Content::Tell, target, frame_bytes, (TellHeader { target, message }, body));
        Ok(())
    }

    /// Puts a message on its way, or parks it.
    #[inline(always)]
    fn submit(
        &mut self,
        way: Admission,
        content: Content,
        target: Target,
        frame_bytes: usize,
        message: impl Message,
    ) -> CallStage {
        if way == Admission::Queue || frame_bytes > self.limits.chunk_bytes {
            return self.enqueue_frame(way, content, target, frame_bytes, message);
        }
        let end = self.send_buffer.push(|out| message.put(out));
        if content == Content::Tell {
            self.send_buffer.count_tell(end);
        }
        CallStage::Sent(end)
    }

    /// Puts a message aside that cannot go out at once, or not in one piece.
    ///
    /// In a function of its own, so that others are written to the log from registers.
    #[inline(never)]
    fn enqueue_frame(
        &mut self,
        way: Admission,
        content: Content,
        target: Target,
        frame_bytes: usize,
        message: impl Message,
    ) -> CallStage {
        if way == Admission::Queue {
            let put = |mut out: FrameOut<'_>| message.put(&mut out);
            return CallStage::Queued(self.flows.enqueue(target, content, frame_bytes, put));
        }
        self.chunked.push(content, Some(target), QueuedFrame::of(|out| message.put(out)));
        CallStage::Chunking
    }

    /// Gives a call's ticket back: nobody waits for it any more, and its end is not told.
    ///
    /// If any of it may have gone out the peer is told, so that the call does not begin, or go on,
    /// there.
    pub fn cancel(&mut self, call: CallId) -> Option<T> {
        let open = self.calls.remove(call)?;
        self.cancel_at_peer(call, open.place);
        self.say_goodbye_if_idle();
        Some(open.ticket)
    }

    /// Sees to it that a call does not begin at the peer, or go on. Says whether the peer may have
    /// seen it.
    fn cancel_at_peer(&mut self, call: CallId, place: CallStage) -> bool {
        match place {
            CallStage::Queued(number) => {
                if let Some(target) = self.flows.remove_queued(number) {
                    self.waiters.ease(target);
                }
                self.send_queued();
                false
            }
            CallStage::Chunking => {
                if let Some(left) = self.chunked.abandon(call) {
                    self.chunked_send_done(left);
                    self.send_queued();
                }
                false
            }
            CallStage::Sent(_) => {
                self.send_buffer.push(|out| Cancel { call }.put(out));
                true
            }
        }
    }

    /// The call will not be made again: its caller has its end, or waits no longer.
    pub fn end_retries(&mut self, call: CallId) {
        if !self.calls.end_retries(call) {
            return;
        }
        let floor = self.calls.low_watermark();
        if self.calls.has_no_retryable() || floor.0 - self.watermark_sent.0 >= WATERMARK_STEP {
            self.watermark_due = true;
            self.send_watermark();
        }
    }

    fn send_watermark(&mut self) {
        if self.watermark_due && self.attached && !self.is_closing() {
            self.watermark_due = false;
            self.watermark_sent = self.calls.low_watermark();
            let floor = Watermark { call: self.watermark_sent };
            self.send_buffer.push(|out| floor.put(out));
        }
    }

    /// Whether one of the sides has said that it leaves.
    fn is_closing(&self) -> bool {
        self.peer_closing || self.closing.as_ref().is_some_and(|leaving| leaving.goodbye_sent)
    }

    /// How an open call ends when everything is dropped.
    fn error_on_loss(&self, place: CallStage, loss: &DisconnectReason) -> CallError {
        match place {
            CallStage::Sent(end) if self.send_buffer.was_written(end) => {
                CallError::OutcomeUnknown(loss.clone())
            }
            CallStage::Sent(_) | CallStage::Chunking | CallStage::Queued(_) => {
                CallError::NotDelivered(loss.clone())
            }
        }
    }
}

/// A message to an actor as a frame: to be written into the log, or apart.
trait Message {
    /// Writes the frame and returns its length in bytes.
    fn put(&self, out: &mut impl FrameSink) -> usize;
}

impl Message for (CallHeader, Encoded<'_>) {
    fn put(&self, out: &mut impl FrameSink) -> usize {
        self.0.put(self.1, out)
    }
}

impl Message for (TellHeader, Encoded<'_>) {
    fn put(&self, out: &mut impl FrameSink) -> usize {
        self.0.put(self.1, out)
    }
}

impl Inbound {
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

/// The milliseconds until `deadline`, rounded up; at least one, since none means no deadline.
fn remaining_ms(now: Instant, deadline: Instant) -> u32 {
    let remaining = deadline.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
    u32::try_from(remaining).unwrap_or(u32::MAX).max(1)
}
