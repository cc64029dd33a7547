//! Tests of sessions against a scripted peer, and of two sessions joined back to back.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::*;
use crate::config::{ACK_BYTES, ACK_DELAY, ACK_PIGGYBACK_INTERVAL};
use crate::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use crate::wire::{
    Ack, Body, CALL_HEADER_BYTES, Call, CallFailure, Cancel, Chunk, Credit, Encoded, Failure, Frame,
    FrameCodec, Goodbye, Reply, Resume, SessionParameters, TELL_HEADER_BYTES, Tell, Watermark, Welcome,
};

mod capacity;
mod chunks;
mod credit;
mod forgotten;
mod graceful_close;
mod interleaved;
mod link_loss;
mod resume;
mod retries;
mod scripted;

const TARGET: Target = Target { actor: ActorId(9), incarnation: ActorIncarnation(1) };
const MESSAGE: TypeHash = TypeHash(11);
const FRAME_BYTES_MAX: usize = 2000;
/// Capacity for the queue of one actor, and for some small messages.
const OUTGOING_BYTES_MAX: usize = 500 + crate::config::QUEUE_OVERHEAD_BYTES;
const LIMITS: SessionLimits = SessionLimits {
    outgoing_bytes_max: OUTGOING_BYTES_MAX,
    frame_bytes_max: FRAME_BYTES_MAX,
    window_bytes: WINDOW_BYTES,
    send_queue_bytes_max: OUTGOING_BYTES_MAX,
    chunk_bytes: CHUNK_BYTES,
    calls_open_max: 100,
    injected_bug: None,
};

/// Short, so that small messages need several chunks.
const CHUNK_BYTES: usize = 64 << 10;

/// Window of both sides, with capacity for all messages of most tests.
const WINDOW_BYTES: usize = 100_000;

/// Session parameters of the scripted peer.
const TERMS: SessionParameters = SessionParameters {
    frame_bytes_max: FRAME_BYTES_MAX as u64,
    outgoing_bytes_max: 1 << 20,
    window_bytes: WINDOW_BYTES as u64,
    schema: 0,
};

/// A session, its driver's batch and clock, and a peer that reads all written bytes.
struct Scripted {
    now: Instant,
    session: Session<&'static str>,
    batch: WriteBatch,
    stream: BytesMut,
    terms: SessionParameters,
    /// Sequenced frames that the peer has read.
    read: u64,
}

impl Scripted {
    fn detached() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: SessionLimits) -> Self {
        Self {
            now: Instant::now(),
            session: Session::new(limits),
            batch: WriteBatch::default(),
            stream: BytesMut::new(),
            terms: SessionParameters { frame_bytes_max: limits.frame_bytes_max as u64, ..TERMS },
            read: 0,
        }
    }

    fn attached() -> Self {
        let mut scripted = Self::detached();
        scripted.attach();
        scripted
    }

    /// Attaches a link to a peer that has received everything it has read.
    fn attach(&mut self) -> Vec<Event<&'static str>> {
        self.attach_to(Resume { epoch: 0, received: self.read, ..Resume::default() })
    }

    fn attach_to(&mut self, resume: Resume) -> Vec<Event<&'static str>> {
        let mut events = Vec::new();
        self.session.attach(&self.terms, resume, None, &mut events).unwrap();
        events
    }

    fn call(&mut self, call_slot: &'static str) -> CallId {
        self.call_until(call_slot, None)
    }

    fn call_until(&mut self, call_slot: &'static str, timeout: Option<Duration>) -> CallId {
        let deadline = timeout.map(|timeout| self.now + timeout);
        let body = encoded(call_slot.as_bytes());
        self.session.call(self.now, TARGET, MESSAGE, deadline, Retryable::Never, body, call_slot).unwrap()
    }

    fn call_with(
        &mut self,
        call_slot: &'static str,
        body: &[u8],
    ) -> Result<CallId, (Rejected, &'static str)> {
        self.session.call(self.now, TARGET, MESSAGE, None, Retryable::Never, encoded(body), call_slot)
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<(), Rejected> {
        self.session.tell(TARGET, MESSAGE, encoded(bytes))
    }

    /// Writes up to `count` bytes.
    fn write(&mut self, count: usize) {
        if !self.batch.has_remaining() {
            self.session.take_outgoing(&mut self.batch);
        }
        let count = count.min(self.batch.remaining());
        self.stream.extend_from_slice(&self.batch.copy_to_bytes(count));
        self.session.on_written(count);
    }

    /// Writes everything, and returns the frames that the peer has read by then, acknowledgements aside.
    fn written(&mut self) -> Vec<Frame> {
        let mut frames = self.all_written();
        frames.retain(Frame::is_sequenced);
        frames
    }

    fn all_written(&mut self) -> Vec<Frame> {
        while self.batch.has_remaining() || self.session.has_outgoing() {
            self.write(usize::MAX);
        }
        // A codec of its own, with a generous limit: limits are the session's to respect.
        let mut codec = FrameCodec::established(1 << 20);
        let frames: Vec<_> = std::iter::from_fn(|| codec.decode(&mut self.stream).unwrap()).collect();
        self.read += frames.iter().filter(|frame| frame.is_sequenced()).count() as u64;
        frames
    }

    /// Acknowledges all frames that the peer has read.
    fn acknowledge(&mut self) {
        let received = self.read;
        assert_eq!(self.receive(Frame::Ack(Ack { received })), []);
    }

    fn receive(&mut self, frame: Frame) -> Vec<Event<&'static str>> {
        let mut events = Vec::new();
        self.session.receive(self.now, frame, &mut events).unwrap();
        events
    }

    fn receive_wrong(&mut self, frame: Frame) -> SessionError {
        let mut events = Vec::new();
        let err = self.session.receive(self.now, frame, &mut events).unwrap_err();
        assert_eq!(events, []);
        err
    }

    fn pass(&mut self, time: Duration) -> Vec<Event<&'static str>> {
        self.now += time;
        let mut events = Vec::new();
        self.session.on_timeout(self.now, &mut events);
        events
    }

    /// Breaks the link.
    fn detach(&mut self) {
        // `Exact`, since `write` reports each byte immediately.
        self.session.detach(WriteCertainty::Exact);
        self.batch.clear();
        self.stream.clear();
    }

    /// Breaks the link, and epoch the session as if the peer were down.
    fn reset(&mut self) -> Vec<Event<&'static str>> {
        self.detach();
        let mut events = Vec::new();
        self.session.reset(&DisconnectReason::Closed, &mut events);
        events
    }
}

fn encoded(message: &[u8]) -> Encoded<'_> {
    Encoded::of(message)
}

fn body(message: &'static str) -> Body {
    Body { message: message.as_bytes().into(), ..Body::empty() }
}

fn call_frame(call: u64, timeout_ms: u32) -> Frame {
    Frame::Call(Call {
        call: CallId(call),
        target: TARGET,
        message: MESSAGE,
        timeout_ms,
        low_watermark: None,
        body: body("call"),
    })
}

fn reply_frame(call: CallId) -> Frame {
    Frame::Reply(Reply { call, body: body("reply") })
}

fn failure_frame(call: u64, failure: CallFailure) -> Frame {
    Frame::Failure(Failure { call: CallId(call), failure })
}

fn tell_frame(message: &'static str) -> Frame {
    Frame::Tell(Tell { target: TARGET, message: MESSAGE, body: body(message) })
}

fn goodbye_frame(reason: &str) -> Frame {
    Frame::Goodbye(Goodbye { reason: reason.to_owned() })
}

/// Window bytes that a frame of `frame_bytes` bytes occupies.
fn charge(frame_bytes: usize) -> CreditCharge {
    CreditCharge { target: TARGET, bytes: flow_control::cost(frame_bytes, WINDOW_BYTES as u64), epoch: 0 }
}

fn failed(call_slot: &'static str, failure: CallError) -> Event<&'static str> {
    Event::Failed { call_slot, failure }
}
