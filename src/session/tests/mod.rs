//! Sessions against a scripted peer, and two of them joined back to back.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::*;
use crate::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use crate::wire::{
    Body, CALL_HEADER_BYTES, Call, CallFailure, Cancel, Encoded, Failure, Frame, FrameCodec, Goodbye, Hello,
    Reply, Tell,
};

mod interleaved;
mod leaving;
mod link_loss;
mod scripted;

const TARGET: Target = Target { actor: ActorId(9), incarnation: ActorIncarnation(1) };
const MESSAGE: TypeHash = TypeHash(11);
const FRAME_BYTES_MAX: usize = 1000;
const OUTGOING_BYTES_MAX: usize = 500;

/// A session, its driver's batch and clock, and a peer that reads whatever is written.
struct Scripted {
    now: Instant,
    session: Session<&'static str>,
    batch: Batch,
    stream: BytesMut,
}

impl Scripted {
    fn detached() -> Self {
        let limits =
            SessionLimits { outgoing_bytes_max: OUTGOING_BYTES_MAX, frame_bytes_max: FRAME_BYTES_MAX };
        let session = Session::new(limits);
        Self { now: Instant::now(), session, batch: Batch::default(), stream: BytesMut::new() }
    }

    fn attached() -> Self {
        let mut scripted = Self::detached();
        scripted.session.attach(scripted.now, FRAME_BYTES_MAX);
        scripted
    }

    fn call(&mut self, ticket: &'static str) -> CallId {
        self.call_until(ticket, None)
    }

    fn call_until(&mut self, ticket: &'static str, timeout: Option<Duration>) -> CallId {
        let deadline = timeout.map(|timeout| self.now + timeout);
        let body = encoded(ticket.as_bytes());
        self.session.call(self.now, TARGET, MESSAGE, deadline, body, ticket).unwrap()
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
        self.session.wrote(count);
    }

    /// Writes everything, and returns the frames that the peer has read by then.
    fn written(&mut self) -> Vec<Frame> {
        while self.batch.has_remaining() || self.session.has_outgoing() {
            self.write(usize::MAX);
        }
        let mut codec = FrameCodec::established(FRAME_BYTES_MAX);
        std::iter::from_fn(|| codec.decode(&mut self.stream).unwrap()).collect()
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

    fn detach(&mut self) -> Vec<Event<&'static str>> {
        let mut events = Vec::new();
        self.session.detach(LinkLoss::Closed, Written::Told, &mut events);
        self.batch.clear();
        events
    }
}

fn encoded(message: &[u8]) -> Encoded<'_> {
    Encoded { message, attachments: &[] }
}

fn body(message: &'static str) -> Body {
    Body { message: Bytes::from_static(message.as_bytes()), attachments: Vec::new() }
}

fn call_frame(call: u64, timeout_ms: u32) -> Frame {
    Frame::Call(Call { call: CallId(call), target: TARGET, message: MESSAGE, timeout_ms, body: body("call") })
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

fn hello_frame() -> Frame {
    let nobody = crate::id::Identity { host: crate::id::HostId(0), incarnation: crate::id::Incarnation(0) };
    let link = crate::id::LinkId::NONE;
    let nonce = [0; 32];
    Frame::Hello(Hello {
        version: 1,
        from: nobody,
        to: nobody,
        link,
        replaces: link,
        frame_bytes_max: 0,
        nonce,
    })
}

fn failed(ticket: &'static str, failure: Failed) -> Event<&'static str> {
    Event::Failed { ticket, failure }
}
