//! A session whose peer sends any frame that decodes, with arbitrary parameters and an arbitrary
//! position.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use roadshow::internals::config::MESSAGE_OVERHEAD_BYTES;
use roadshow::internals::id::{ActorId, ActorIncarnation, CallId, Target};
use roadshow::internals::session::{DisconnectReason, WriteCertainty};
use roadshow::internals::wire::{
    Ack, Body, Call, CallFailure, Cancel, Chunk, Credit, Failure, Frame, FrameCodec, Goodbye, Heartbeat,
    Reply, Resume, Schemas, SessionParameters, Tell, Watermark,
};
use roadshow_fuzz::Script;
use tokio_util::codec::Decoder;

use super::endpoint::Endpoint;
use super::message::{MESSAGE, Number, TARGETS};

/// Memory that one step may use, in bytes: capacity for small frames, and the records of this target.
const STEP_BYTES: usize = 1024;

/// Memory that a session has from the start, in bytes: tables, and a first buffer for small frames.
const BASE_BYTES: usize = 256 << 10;

/// Maximum copies of a message's bytes: on both sides of this target, and while buffers grow.
const TIMES_HELD: usize = 16;

/// Maximum memory for each byte of a frame: the shortest frames make entries in tables.
const FRAME_TIMES_HELD: usize = 64;

/// Runs the script's steps, ends the session, and returns the bytes that the session may have held.
pub(crate) fn run(script: &mut Script<'_>) -> usize {
    let now = Instant::now();
    let side = Endpoint::new(script, false);
    let mut world =
        World { now, side, peer: Peer::default(), last: 0, steps: 0, received_bytes: 0, queued_bytes: 0 };
    world.attach(script);
    while !script.is_over() {
        world.step(script);
        world.side.check();
    }
    // The end releases everything, which the check afterwards proves.
    world.disconnect(WriteCertainty::Exact);
    world.side.reset(&DisconnectReason::Closed);
    world.side.check();
    BASE_BYTES
        + STEP_BYTES * world.steps
        + TIMES_HELD * (world.side.message_bytes + world.queued_bytes)
        + FRAME_TIMES_HELD * world.received_bytes
}

struct World {
    now: Instant,
    side: Endpoint,
    peer: Peer,
    last: Number,
    steps: usize,
    /// Total length of the frames received, in bytes.
    received_bytes: usize,
    /// Maximum of the bytes waiting to be written or acknowledged.
    queued_bytes: usize,
}

/// State of a peer that kept the protocol, as the base for small violations.
#[derive(Default)]
struct Peer {
    terms: Option<SessionParameters>,
    epoch: u32,
    /// Number of sequenced frames read.
    read: u64,
    /// Credit used by the messages read, by their target, in bytes.
    charged: BTreeMap<Target, u64>,
    /// Rest of a frame that is sent in chunks.
    unsent: Bytes,
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        self.steps += 1;
        match script.one_of(16) {
            0..=6 => {
                self.last += 1;
                self.side.act(self.now, self.last, script);
                self.peer.read(&mut self.side);
            }
            // Arbitrary bytes rarely pass the first check, so most frames are nearly valid.
            7..=10 => {
                let count = 1 + script.one_of(4);
                let frames = (0..count).map(|_| self.peer.plausible_frame(script)).collect();
                self.receive(frames);
            }
            11..=12 => self.receive(frames(script)),
            13 => {
                self.now += Duration::from_micros(200 * u64::from(script.byte()));
                self.side.advance(self.now);
            }
            14 => match script.byte() {
                0..48 => self.disconnect(WriteCertainty::Exact),
                48..96 => self.disconnect(WriteCertainty::AtMost),
                96..112 => {
                    self.disconnect(WriteCertainty::AtMost);
                    self.side.reset(&DisconnectReason::Closed);
                }
                112..128 => self.side.fail_queued(),
                _ => {}
            },
            _ => self.attach(script),
        }
        let waits = self.side.session.outgoing_bytes() + self.side.session.send_queue_bytes();
        // Bytes that wait are memory that the peer has caused.
        self.queued_bytes = self.queued_bytes.max(waits);
    }

    fn receive(&mut self, frames: Vec<Frame>) {
        if !self.side.attached {
            return;
        }
        for frame in &frames {
            self.received_bytes += frame.put(&mut BytesMut::new());
        }
        if let Err(err) = self.side.receive(self.now, frames) {
            self.disconnect(WriteCertainty::Exact);
            // A host ends the session in the same way after a protocol error.
            self.side.reset(&DisconnectReason::Protocol(err.to_string()));
        }
    }

    fn attach(&mut self, script: &mut Script<'_>) {
        if self.side.attached {
            return;
        }
        let terms = self.peer.terms(script);
        let resume = self.peer.resume(script);
        let is_stale = self.side.session.is_stale(resume);
        if is_stale && script.byte() < 128 {
            // A listener rejects a stale position, but a dialler has to take what the welcome says.
            return;
        }
        if self.side.attach(&terms, resume).is_ok() {
            self.peer.attached(terms, resume);
        }
    }

    fn disconnect(&mut self, known: WriteCertainty) {
        if self.side.attached {
            self.side.detach(known);
        }
    }
}

impl Peer {
    /// Returns mostly the same parameters, sometimes arbitrary ones.
    fn terms(&self, script: &mut Script<'_>) -> SessionParameters {
        // A real peer keeps its parameters, so most links repeat them.
        if let (Some(terms), 0..192) = (self.terms, script.byte()) {
            return terms;
        }
        let limit = |script: &mut Script<'_>| match script.byte() {
            255 => u64::MAX,
            short => u64::from(short) << (script.byte() % 20),
        };
        SessionParameters {
            frame_bytes_max: limit(script),
            outgoing_bytes_max: limit(script),
            window_bytes: limit(script),
            schema: 0,
        }
    }

    /// Returns the true position, one near it, or an arbitrary one.
    fn resume(&self, script: &mut Script<'_>) -> Resume {
        let (how, by) = (script.byte(), u64::from(script.byte()));
        let Self { epoch, read, .. } = *self;
        match how {
            0..96 => Resume { epoch, received: read, ..Resume::default() },
            96..128 => Resume { epoch, received: read.saturating_sub(by % 8), ..Resume::default() },
            128..160 => Resume { epoch, received: read.saturating_add(by % 8), ..Resume::default() },
            160..224 => Resume { epoch: epoch.wrapping_add(1), received: by, ..Resume::default() },
            224..240 => Resume { epoch: epoch.wrapping_sub(by as u32), received: read, ..Resume::default() },
            _ => {
                Resume { epoch: u32::MAX - (by as u32 % 2), received: u64::MAX - by / 2, ..Resume::default() }
            }
        }
    }

    fn attached(&mut self, terms: SessionParameters, resume: Resume) {
        if resume.epoch != self.epoch {
            // A new epoch starts with full windows.
            self.charged.clear();
        }
        self.terms = Some(terms);
        self.epoch = resume.epoch;
        self.read = resume.received;
        self.unsent = Bytes::new();
    }

    /// Reads all that has been written, which must be valid.
    fn read(&mut self, side: &mut Endpoint) {
        let mut codec = FrameCodec::established(usize::MAX);
        let window = self.terms.map_or(0, |terms| terms.window_bytes);
        while let Some(frame) = codec.decode(&mut side.pipe).expect("what a session writes is valid") {
            self.read = self.read.wrapping_add(frame.is_sequenced().into());
            let (target, frame_bytes) = match &frame {
                Frame::Call(call) => (call.target, call.frame_bytes()),
                Frame::Tell(tell) => (tell.target, tell.frame_bytes()),
                _ => continue,
            };
            let cost = ((frame_bytes + MESSAGE_OVERHEAD_BYTES) as u64).min(window / 2);
            *self.charged.entry(target).or_default() += cost;
        }
    }

    /// Returns a frame that is probably valid.
    fn plausible_frame(&mut self, script: &mut Script<'_>) -> Frame {
        let (kind, which, how) = (script.byte(), script.byte(), script.byte());
        let call = CallId(u64::from(which % 16));
        let target = match which / 16 {
            0 => Target { actor: ActorId(how.into()), incarnation: ActorIncarnation(0) },
            which => TARGETS[usize::from(which) % TARGETS.len()],
        };
        let body = || Body { message: [0, 0, 0, how][..].into(), ..Body::empty() };
        match kind % 16 {
            0 | 1 => {
                let low_watermark = (how > 64).then_some(CallId(u64::from(how % 16)));
                Frame::Call(Call {
                    call,
                    target,
                    message: MESSAGE,
                    timeout_ms: 0,
                    low_watermark,
                    body: body(),
                })
            }
            2 => Frame::Tell(Tell { target, message: MESSAGE, body: body() }),
            3 => Frame::Cancel(Cancel { call }),
            4 => Frame::Reply(Reply { call, body: body() }),
            5 if how < 128 => Frame::Failure(Failure { call, failure: CallFailure::NoReply }),
            5 => Frame::Failure(Failure { call, failure: CallFailure::ActorStopped }),
            6 | 7 => {
                let less = if how < 128 { 0 } else { u64::from(how % 8) };
                Frame::Ack(Ack { received: self.read.wrapping_sub(less) })
            }
            8 | 9 => {
                let charged = self.charged.entry(target).or_default();
                let bytes = if how < 192 { *charged >> (how % 4) } else { u64::from(how) };
                *charged = charged.saturating_sub(bytes);
                Frame::Credit(Credit { target, bytes })
            }
            10..=12 => Frame::Chunk(self.chunk(script)),
            13 => Frame::Watermark(Watermark { call }),
            14 if how < 250 => Frame::Schemas(Schemas { body: body() }),
            14 => Frame::Goodbye(Goodbye { reason: String::new() }),
            _ if how > 240 => Frame::Heartbeat(Heartbeat),
            _ => Frame::Ack(Ack { received: u64::from(how) << (which % 64) }),
        }
    }

    /// Returns the next chunk of a frame, or a similar one.
    fn chunk(&mut self, script: &mut Script<'_>) -> Chunk {
        let (message, how, count) = (script.byte(), script.byte(), usize::from(script.byte()));
        let begins = self.unsent.is_empty();
        if begins {
            let mut whole = BytesMut::new();
            let padding = vec![0; usize::from(script.short())];
            let body = Body { message: padding.into(), ..Body::empty() };
            let target = TARGETS[usize::from(message) % TARGETS.len()];
            let call = CallId(u64::from(how % 16));
            let frame = match how % 8 {
                0 => Frame::Cancel(Cancel { call }),
                1 | 2 => Frame::Reply(Reply { call, body }),
                3 => Frame::Schemas(Schemas { body }),
                4 => Frame::Tell(Tell { target, message: MESSAGE, body }),
                _ => Frame::Call(Call {
                    call,
                    target,
                    message: MESSAGE,
                    timeout_ms: 0,
                    low_watermark: Some(call),
                    body,
                }),
            };
            frame.put(&mut whole);
            self.unsent = whole.freeze();
        }
        let whole_bytes = self.unsent.len();
        let bytes = self.unsent.split_to(whole_bytes.min(count << (how % 9)));
        Chunk {
            // Mostly the same number: chunks of different messages would never complete a frame.
            message: if message < 224 { 0 } else { message.into() },
            first: (begins != (how == 255)).then_some(whole_bytes as u32),
            last: self.unsent.is_empty() && how < 240,
            abandoned: (240..250).contains(&how),
            bytes,
        }
    }
}

/// Decodes some bytes of the script, with a correct length in front.
fn frames(script: &mut Script<'_>) -> Vec<Frame> {
    let length = script.byte();
    let bytes = script.bytes(length.into());
    let mut stream = BytesMut::new();
    stream.put_u32(bytes.len() as u32);
    stream.put_slice(bytes);
    let mut codec = FrameCodec::established(1 << 16);
    std::iter::from_fn(|| codec.decode(&mut stream).ok().flatten()).collect()
}
