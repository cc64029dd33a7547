//! Encoding and decoding of frames and bodies, compared with a copy of the same bytes.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roadshow::Payload;
use roadshow::internals::id::{ActorId, ActorIncarnation, CallId, Target, TypeHash};
use roadshow::internals::wire::{self, Body, CallHeader, Frame, FrameCodec};
use serde::{Deserialize, Serialize};
use tokio_util::codec::Decoder;

const LIMIT: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Small {
    account: u64,
    amount: i64,
}

fn header() -> CallHeader {
    CallHeader {
        call: CallId(7),
        target: Target { actor: ActorId(3), incarnation: ActorIncarnation(0) },
        message: TypeHash::of("bench::Small"),
        timeout_ms: 0,
        low_watermark: None,
    }
}

fn encode<T: Serialize>(value: &T, stream: &mut BytesMut) {
    let header = header();
    wire::encode(value, LIMIT, |body| header.put(body, stream)).expect("it fits");
}

fn decode(stream: &mut BytesMut) -> Body {
    match FrameCodec::established(LIMIT).decode(stream) {
        Ok(Some(Frame::Call(call))) => call.body,
        other => panic!("a call was encoded, {other:?} was decoded"),
    }
}

fn small_call(c: &mut Criterion) {
    let mut group = c.benchmark_group("small call");
    group.throughput(Throughput::Elements(1));
    let value = Small { account: 42, amount: -1 };
    let mut stream = BytesMut::with_capacity(1 << 16);
    group.bench_function("encode", |b| {
        b.iter(|| {
            stream.clear();
            // The buffer is reused, as by a link: an allocation would cost more than a small call.
            encode(black_box(&value), &mut stream);
        });
    });
    let frame = Bytes::copy_from_slice(&stream);
    group.bench_function("decode", |b| {
        b.iter(|| {
            stream.clear();
            stream.extend_from_slice(&frame);
            wire::decode::<Small>(&decode(&mut stream)).expect("it was encoded")
        });
    });
    group.bench_function("limit: copy the frame", |b| {
        b.iter(|| {
            stream.clear();
            stream.extend_from_slice(black_box(&frame));
        });
    });
    group.finish();
}

/// Encodes a mebibyte as `Payload`, which is not copied, and as `Vec<u8>`, which serde handles byte by
/// byte.
fn mebibyte(c: &mut Criterion) {
    let mut group = c.benchmark_group("mebibyte");
    let bytes = vec![7_u8; 1 << 20];
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let payload = Payload::from(bytes.clone());
    group.bench_function(BenchmarkId::new("encode", "payload"), |b| {
        b.iter(|| wire::encode(black_box(&payload), LIMIT, |body| body.len()).expect("it fits"));
    });
    group.bench_function(BenchmarkId::new("encode", "vec"), |b| {
        b.iter(|| wire::encode(black_box(&bytes), LIMIT, |body| body.len()).expect("it fits"));
    });
    let body_of = |value: &dyn Fn(&mut BytesMut)| {
        let mut stream = BytesMut::new();
        value(&mut stream);
        decode(&mut stream)
    };
    let body = body_of(&|stream| encode(&payload, stream));
    group.bench_function(BenchmarkId::new("decode", "payload"), |b| {
        b.iter(|| wire::decode::<Payload>(black_box(&body)).expect("it was encoded"));
    });
    let body = body_of(&|stream| encode(&bytes, stream));
    group.bench_function(BenchmarkId::new("decode", "vec"), |b| {
        b.iter(|| wire::decode::<Vec<u8>>(black_box(&body)).expect("it was encoded"));
    });
    group.bench_function("limit: copy", |b| b.iter(|| black_box(&bytes).clone()));
    group.finish();
}

criterion_group!(benches, small_call, mebibyte);
criterion_main!(benches);
