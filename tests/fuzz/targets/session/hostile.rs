//! One session whose peer sends whatever it likes, as long as it decodes.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use roadshow::id::{CallId, Target, TypeHash};
use roadshow::session::Written;
use roadshow::wire::{Body, Call, CallFailure, Cancel, Failure, Frame, FrameCodec, Goodbye, Reply};
use roadshow_fuzz::Script;
use tokio_util::codec::Decoder;

use super::side::Side;

/// Runs the script's steps, and ends the link.
pub(crate) fn run(script: &mut Script<'_>) {
    let mut now = Instant::now();
    let mut side = Side::new(script);
    let mut attached = false;
    let mut number = 0;
    while !script.is_over() {
        let was_attached = attached;
        match script.one_of(16) {
            0..=7 => {
                number += 1;
                side.act(now, number, script);
                side.pipe.clear();
            }
            8..=9 if attached => {
                // Something about a call that is, or may be, open.
                let call = CallId(script.one_of(16) as u64);
                let frame = word(call, script.byte());
                attached = side.receive(now, [frame]);
            }
            10..=12 if attached => {
                attached = side.receive(now, frames(script));
            }
            13 => {
                now += Duration::from_micros(200 * u64::from(script.byte()));
                side.pass(now);
            }
            14 if attached => attached = script.byte() >= 64,
            15 if !attached => {
                attached = true;
                side.attach(now, 512 + usize::from(script.short()));
            }
            _ => {}
        }
        if was_attached && !attached {
            side.detach(if number.is_multiple_of(2) { Written::Told } else { Written::Unsure });
        }
        side.check(now);
    }
    side.detach(Written::Told);
    side.check(now);
}

fn word(call: CallId, how: u8) -> Frame {
    match how {
        0..=63 => Frame::Call(Call {
            call,
            target: Target::HOST,
            message: TypeHash(1),
            timeout_ms: 0,
            body: Body::empty(),
        }),
        64..=127 => Frame::Cancel(Cancel { call }),
        128..=191 => Frame::Reply(Reply { call, body: Body::empty() }),
        192..=254 => Frame::Failure(Failure { call, failure: CallFailure::NoReply }),
        255 => Frame::Goodbye(Goodbye { reason: String::new() }),
    }
}

/// What decodes of some bytes of the script, which are given the length that they have.
fn frames(script: &mut Script<'_>) -> Vec<Frame> {
    let length = script.byte();
    let bytes = script.bytes(length.into());
    let mut stream = BytesMut::new();
    stream.put_u32(bytes.len() as u32);
    stream.put_slice(bytes);
    let mut codec = FrameCodec::established(1 << 16);
    std::iter::from_fn(|| codec.decode(&mut stream).ok().flatten()).collect()
}
