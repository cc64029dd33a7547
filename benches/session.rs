//! Calls and tells between two sessions joined in memory, without I/O and without encoding values. The
//! limit in the same run is the same bytes as plain frames with a length.
//!
//! Both write a batch of frames, copy it once, as a socket would, and split it into frames again.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roadshow::internals::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use roadshow::internals::session::{Event, Retryable, Session, SessionError, SessionLimits, WriteBatch};
use roadshow::internals::wire::{
    CallHeader, Encoded, Frame, FrameCodec, FrameVisitor, IncomingBody, REPLY_HEADER_BYTES, Resume,
    SessionParameters, TellHeader,
};

/// Number of messages written before the first is read.
const BATCH: u64 = 1024;

const TARGET: Target = Target { actor: ActorId(3), incarnation: ActorIncarnation(0) };

const BODY: Encoded<'static> = Encoded::of(&[7; 12]);

/// Size of a frame's length, in bytes.
const LENGTH_BYTES: usize = 4;

/// Session, and the bytes that its peer has written.
struct Endpoint {
    session: Session<u64>,
    codec: FrameCodec,
    batch: WriteBatch,
    stream: BytesMut,
    events: Vec<Event<u64>>,
    replied: u64,
}

impl Endpoint {
    fn attached() -> Self {
        let limits = SessionLimits::default();
        let terms = SessionParameters {
            frame_bytes_max: limits.frame_bytes_max as u64,
            outgoing_bytes_max: limits.outgoing_bytes_max as u64,
            window_bytes: limits.window_bytes as u64,
            schema: 0,
        };
        let (mut session, mut events) = (Session::new(limits), Vec::new());
        session.attach(&terms, Resume::default(), None, &mut events).expect("both sides are new");
        let codec = FrameCodec::established(limits.frame_bytes_max);
        Self { session, codec, batch: WriteBatch::default(), stream: BytesMut::new(), events, replied: 0 }
    }

    fn call(&mut self, now: Instant, message: TypeHash) {
        for ticket in 0..BATCH {
            let called = self.session.call(now, TARGET, message, None, Retryable::Never, BODY, ticket);
            called.expect("a batch is within all limits");
        }
    }

    fn tell(&mut self, message: TypeHash) {
        for _ in 0..BATCH {
            self.session.tell(TARGET, message, BODY).expect("a batch is within all limits");
        }
    }

    /// Writes the queued frames, and lets the other side read them.
    fn write_to(&mut self, other: &mut Self, now: Instant) {
        self.session.take_outgoing(&mut self.batch);
        let written = self.batch.remaining();
        // The one copy that a socket would make; the limit makes it, too.
        other.stream.put(&mut self.batch);
        self.session.on_written(written);
        let Self { session, codec, stream, events, replied, .. } = other;
        let mut incoming = Incoming { session, events, replied, now };
        codec.drain(stream, &mut incoming).expect("the peer keeps to the protocol");
        // A link does the same after each read. Without acks the sender's buffer would grow until it is
        // full.
        session.schedule_ack(now);
        assert!(stream.is_empty() && !self.session.has_outgoing(), "every frame is written and complete");
    }

    /// Handles the received messages, and returns their number.
    fn handle(&mut self) -> u64 {
        let mut handled = 0;
        for event in self.events.drain(..) {
            match event {
                Event::Call { call, body, charge, .. } => {
                    self.session.release_credit(charge);
                    assert!(self.session.reply(call, black_box(&body).as_encoded()), "the call is open");
                }
                Event::Tell { body, charge, .. } => {
                    black_box(body);
                    self.session.release_credit(charge);
                }
                other => panic!("messages were sent, {other:?} arrived"),
            }
            handled += 1;
        }
        handled
    }
}

/// Visitor that passes frames to a session as they are read.
struct Incoming<'a> {
    session: &'a mut Session<u64>,
    events: &'a mut Vec<Event<u64>>,
    replied: &'a mut u64,
    now: Instant,
}

impl FrameVisitor for Incoming<'_> {
    type Error = SessionError;

    fn call(
        &mut self,
        call: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), SessionError> {
        self.session.receive_call(self.now, call, frame_bytes, body, self.events)
    }

    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), SessionError> {
        self.session.receive_tell(tell, frame_bytes, body, self.events)
    }

    fn reply(
        &mut self,
        call: CallId,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), SessionError> {
        black_box(body);
        let ticket = self.session.receive_reply(call, frame_bytes)?;
        assert_eq!(ticket, Some(*self.replied), "calls are answered in order here");
        *self.replied += 1;
        Ok(())
    }

    fn other(&mut self, frame: Frame) -> Result<(), SessionError> {
        self.session.receive(self.now, frame, self.events)
    }
}

/// Limit: frames that consist of a length and bytes.
struct Plain {
    written: BytesMut,
    stream: BytesMut,
}

impl Plain {
    fn new() -> Self {
        Self { written: BytesMut::new(), stream: BytesMut::new() }
    }

    fn carry(&mut self, frame: &[u8]) {
        for _ in 0..BATCH {
            self.written.put_u32(frame.len() as u32);
            self.written.extend_from_slice(black_box(frame));
        }
        self.stream.put(&self.written[..]);
        self.written.clear();
        let (mut rest, mut received) = (&self.stream[..], 0);
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            black_box(frame);
            (rest, received) = (after, received + 1);
        }
        assert_eq!(received, BATCH);
        self.stream.clear();
    }
}

/// Returns as many bytes as a frame has after its length.
fn after_length(frame_bytes: usize) -> Vec<u8> {
    vec![7; frame_bytes - LENGTH_BYTES]
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("session: calls and their replies");
    group.throughput(Throughput::Elements(BATCH));
    let message = TypeHash::of("bench::Small");
    let (mut caller, mut callee) = (Endpoint::attached(), Endpoint::attached());
    group.bench_function("sessions", |b| {
        b.iter(|| {
            let now = Instant::now();
            caller.call(now, message);
            caller.write_to(&mut callee, now);
            assert_eq!(callee.handle(), BATCH);
            callee.write_to(&mut caller, now);
            assert_eq!(std::mem::take(&mut caller.replied), BATCH, "every call has its reply");
        });
    });
    assert_eq!((caller.session.open_calls(), callee.session.inbound_calls()), (0, 0));
    let header = CallHeader { call: CallId(0), target: TARGET, message, timeout_ms: 0, low_watermark: None };
    let call = after_length(header.frame_bytes(BODY));
    let reply = after_length(REPLY_HEADER_BYTES + BODY.len());
    let (mut there, mut back) = (Plain::new(), Plain::new());
    group.bench_function("limit: frames with a length", |b| {
        b.iter(|| {
            there.carry(&call);
            back.carry(&reply);
        });
    });
    group.finish();
}

fn tells(c: &mut Criterion) {
    let mut group = c.benchmark_group("session: tells");
    group.throughput(Throughput::Elements(BATCH));
    let message = TypeHash::of("bench::Small");
    let (mut sender, mut receiver) = (Endpoint::attached(), Endpoint::attached());
    group.bench_function("sessions", |b| {
        b.iter(|| {
            let now = Instant::now();
            sender.tell(message);
            sender.write_to(&mut receiver, now);
            assert_eq!(receiver.handle(), BATCH, "every tell arrives");
            // Returns the credit and the ACK.
            receiver.write_to(&mut sender, now);
        });
    });
    let tell = after_length(TellHeader::frame_bytes(BODY));
    let mut plain = Plain::new();
    group.bench_function("limit: frames with a length", |b| b.iter(|| plain.carry(&tell)));
    group.finish();
}

criterion_group!(benches, calls, tells);
criterion_main!(benches);
