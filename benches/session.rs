//! Calls and tells between two sessions joined in memory, without I/O and without a value encoded or
//! decoded, beside their limit in the same run: the same bytes as frames with a length and no more.
//!
//! Both make a batch of frames, copy it once, as a socket would, and cut it into frames again.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roadshow::internals::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use roadshow::internals::session::{Event, Retryable, Session, SessionError, SessionLimits, WriteBatch};
use roadshow::internals::wire::{
    CallHeader, Encoded, Frame, FrameCodec, FrameVisitor, REPLY_HEADER_BYTES, Resume, SessionParameters,
    ShortSlice, TellHeader,
};

/// Messages that are made before the first is taken.
const BATCH: u64 = 1024;

const TARGET: Target = Target { actor: ActorId(3), incarnation: ActorIncarnation(0) };

const BODY: Encoded<'static> = Encoded { message: &[7; 12], attachments: &[] };

/// What the bytes of a length take.
const LENGTH_BYTES: usize = 4;

/// A session, and what its peer has written.
struct Side {
    session: Session<u64>,
    codec: FrameCodec,
    batch: WriteBatch,
    stream: BytesMut,
    events: Vec<Event<u64>>,
    replied: u64,
}

impl Side {
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

    /// Writes what waits, and has the other side read it.
    fn write_to(&mut self, other: &mut Self, now: Instant) {
        self.session.take_outgoing(&mut self.batch);
        let written = self.batch.remaining();
        other.stream.put(&mut self.batch);
        self.session.on_written(written);
        let Self { session, codec, stream, events, replied, .. } = other;
        let mut incoming = Incoming { session, events, replied, now };
        codec.drain(stream, &mut incoming).expect("the peer keeps to the protocol");
        session.schedule_ack(now);
        assert!(stream.is_empty() && !self.session.has_outgoing(), "all is written, in whole frames");
    }

    /// Handles what has come, and says how many messages it was.
    fn handle(&mut self) -> u64 {
        let mut handled = 0;
        for event in self.events.drain(..) {
            match event {
                Event::Call { call, body, charge: claim, .. } => {
                    self.session.release_credit(claim);
                    assert!(self.session.reply(call, black_box(&body).as_encoded()), "the call is open");
                }
                Event::Tell { body, charge: claim, .. } => {
                    black_box(body);
                    self.session.release_credit(claim);
                }
                other => panic!("messages were sent, {other:?} came"),
            }
            handled += 1;
        }
        handled
    }
}

/// Takes frames as they are read.
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
        body: ShortSlice<'_>,
    ) -> Result<(), SessionError> {
        self.session.receive_call(self.now, call, frame_bytes, body, self.events)
    }

    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: ShortSlice<'_>,
    ) -> Result<(), SessionError> {
        self.session.receive_tell(tell, frame_bytes, body, self.events)
    }

    fn reply(&mut self, call: CallId, frame_bytes: usize, body: ShortSlice<'_>) -> Result<(), SessionError> {
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

/// The limit: frames that are a length and its bytes.
struct Plain {
    made: BytesMut,
    stream: BytesMut,
}

impl Plain {
    fn new() -> Self {
        Self { made: BytesMut::new(), stream: BytesMut::new() }
    }

    fn carry(&mut self, frame: &[u8]) {
        for _ in 0..BATCH {
            self.made.put_u32(frame.len() as u32);
            self.made.extend_from_slice(black_box(frame));
        }
        self.stream.put(&self.made[..]);
        self.made.clear();
        let (mut rest, mut came) = (&self.stream[..], 0);
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            black_box(frame);
            (rest, came) = (behind, came + 1);
        }
        assert_eq!(came, BATCH);
        self.stream.clear();
    }
}

/// As many bytes as a frame has behind its length.
fn behind_length(frame_bytes: usize) -> Vec<u8> {
    vec![7; frame_bytes - LENGTH_BYTES]
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("session: calls and their replies");
    group.throughput(Throughput::Elements(BATCH));
    let message = TypeHash::of("bench::Small");
    let (mut caller, mut callee) = (Side::attached(), Side::attached());
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
    let call = behind_length(header.frame_bytes(BODY));
    let reply = behind_length(REPLY_HEADER_BYTES + BODY.len());
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
    let (mut sender, mut receiver) = (Side::attached(), Side::attached());
    group.bench_function("sessions", |b| {
        b.iter(|| {
            let now = Instant::now();
            sender.tell(message);
            sender.write_to(&mut receiver, now);
            assert_eq!(receiver.handle(), BATCH, "every tell comes");
            // Credit, and the word of what has come.
            receiver.write_to(&mut sender, now);
        });
    });
    let tell = behind_length(TellHeader::frame_bytes(BODY));
    let mut plain = Plain::new();
    group.bench_function("limit: frames with a length", |b| b.iter(|| plain.carry(&tell)));
    group.finish();
}

criterion_group!(benches, calls, tells);
criterion_main!(benches);
