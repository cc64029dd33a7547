//! Frames read from a link. The limit in the same run is plain reads of as many bytes from a link of the
//! same kind.
//!
//! Links are in memory, over TCP, and under TLS as between machines. TLS links need an address other than
//! loopback on both ends, or they would be plain. On a machine without such an address they are left out.
//!
//! A task writes all the time on the reading thread. So the measurement is the cost of a byte on both
//! sides, on one core, without waking another.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use roadshow::Payload;
use roadshow::internals::config::{FRAME_BYTES_MAX, MEMORY_LINK_BYTES_MAX, READ_BYTES};
use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{ActorId, ActorIncarnation, CallId, HostUid, Target, TypeHash};
use roadshow::internals::transport::{
    Credentials, FrameReader, LinkWriter, PREAMBLE_BYTES, ReadError, Routed, Tcp, Transport, host_name,
};
use roadshow::internals::wire::{self, CallHeader, Frame, FrameVisitor, IncomingBody, TellHeader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// Minimum length of one write, in bytes.
const WRITTEN_BYTES: usize = 64 << 10;

/// Reading end of a link of any kind.
type Reader = Box<dyn AsyncRead + Send + Unpin>;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Duplex,
    Tcp,
    Tls(IpAddr),
}

impl Kind {
    async fn open(self) -> (LinkWriter, Reader) {
        match self {
            Self::Duplex => {
                let (writer, reader) = tokio::io::duplex(MEMORY_LINK_BYTES_MAX);
                (Box::new(writer), Box::new(reader))
            }
            Self::Tcp => {
                let loopback = ([127, 0, 0, 1], 0).into();
                let mut listener = Tcp.listen(loopback).await.expect("a port is free");
                let (there, here) =
                    tokio::join!(Tcp.connect(listener.address(), fresh_identity()), listener.accept());
                let (_, writer) = there.expect("the listener is there").into_split();
                let here = here.expect("the other end connects").await;
                let (reader, _) = here.expect("a TCP connection is a link immediately").into_split();
                (writer, reader)
            }
            Self::Tls(address) => open_encrypted(address).await,
        }
    }

    /// Returns the kinds that this machine can measure.
    fn all() -> Vec<Self> {
        let encrypted = own_address().map(Self::Tls);
        if encrypted.is_none() {
            eprintln!("no TLS links: this machine has no address except loopback");
        }
        [Self::Duplex, Self::Tcp].into_iter().chain(encrypted).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Duplex => "Duplex",
            Self::Tcp => "Tcp",
            Self::Tls(_) => "Tls",
        }
    }

    /// Returns a link on which `bytes` arrive repeatedly.
    fn with_writer(self, runtime: &Runtime, bytes: Bytes) -> Reader {
        let (mut writer, reader) = runtime.block_on(self.open());
        // The task ends with the reader of its link.
        runtime.spawn(async move { while writer.write_all(&bytes).await.is_ok() {} });
        reader
    }
}

/// Returns an address of this machine that is not loopback, without sending anything.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): the kernel picks the source address of the default route.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Opens an encrypted link between two hosts of this machine.
async fn open_encrypted(address: IpAddr) -> (LinkWriter, Reader) {
    let (dialer, host) = (fresh_identity(), fresh_identity());
    let acceptor = TcpListener::bind((address, 0)).await.expect("a port is free");
    let at = acceptor.local_addr().expect("it is bound");
    let (handoff, handed_off) = mpsc::channel(1);
    let credentials = credentials([dialer, host]);
    let here = Routed::new(credentials.clone(), at, handed_off);
    let mut listener = here.listen(at).await.expect("it is the acceptor's address");
    let accept = async {
        let (mut stream, _) = acceptor.accept().await.expect("the other end connects");
        // A node's acceptor reads the preamble before it hands the socket over, so the host must not see
        // it.
        stream.read_exact(&mut [0; PREAMBLE_BYTES]).await.expect("the connection starts with a preamble");
        handoff.send(stream.into_std().expect("it is a socket")).await.expect("the host listens");
        listener
            .accept()
            .await
            .expect("the connection was handed over")
            .await
            .expect("the certificate is good")
    };
    let there = Routed::dial_only(credentials);
    let (there, here) = tokio::join!(there.connect(at, host), accept);
    let there = there.expect("the certificate is good");
    assert!(there.certificate().is_some(), "the link is plain");
    (there.into_split().1, here.into_split().0)
}

/// Issues one certificate for these hosts, from a new authority.
fn credentials(hosts: [HostUid; 2]) -> Credentials {
    let key = || KeyPair::generate().expect("there are random numbers");
    let (authority_key, own) = (key(), key());
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).expect("a key can sign");
    let issuer = Issuer::new(authority, authority_key);
    let params = CertificateParams::new(hosts.map(host_name)).expect("they are names");
    let certificate = params.signed_by(&own, &issuer).expect("a key can sign");
    let chain = vec![certificate.der().to_vec(), root.der().to_vec()];
    Credentials::new(chain, own.serialize_der()).expect("they go together")
}

/// Visitor that counts frames.
#[derive(Default)]
struct Counted {
    frames: u64,
    bytes: u64,
}

impl FrameVisitor for Counted {
    type Error = ReadError;

    fn call(
        &mut self,
        call: CallHeader,
        _frame_bytes: usize,
        _body: impl IncomingBody,
    ) -> Result<(), ReadError> {
        panic!("tells were written, {call:?} arrived");
    }

    fn tell(
        &mut self,
        _tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), ReadError> {
        self.frames += 1;
        self.bytes += frame_bytes as u64;
        black_box(body);
        Ok(())
    }

    fn reply(
        &mut self,
        call: CallId,
        _frame_bytes: usize,
        _body: impl IncomingBody,
    ) -> Result<(), ReadError> {
        panic!("tells were written, a reply to {call} arrived");
    }

    fn other(&mut self, frame: Frame) -> Result<(), ReadError> {
        match frame {
            Frame::Tell(tell) => {
                self.frames += 1;
                self.bytes += tell.frame_bytes() as u64;
                black_box(tell);
                Ok(())
            }
            frame => panic!("tells were written, {frame:?} arrived"),
        }
    }
}

/// Encodes a tell with a payload of this many bytes.
fn tell(payload_bytes: usize) -> BytesMut {
    let target = Target { actor: ActorId(3), incarnation: ActorIncarnation(0) };
    let header = TellHeader { target, message: TypeHash::of("bench::Bytes") };
    let mut frame = BytesMut::new();
    let put = match payload_bytes {
        0 => wire::encode(&7_u64, FRAME_BYTES_MAX, |body| header.put(body, &mut frame)),
        _ => wire::encode(&Payload::from(vec![7; payload_bytes]), FRAME_BYTES_MAX, |body| {
            header.put(body, &mut frame)
        }),
    };
    put.expect("it is within the limit");
    frame
}

fn compare(c: &mut Criterion, name: &str, payload_bytes: usize, frames: u64) {
    // Writer and reader share one thread, so no wake-up of another core is measured.
    let runtime = Builder::new_current_thread().enable_io().build().expect("the thread has no runtime");
    let mut group = c.benchmark_group(format!("transport: {name}"));
    let frame = tell(payload_bytes);
    let bytes = frame.len() as u64 * frames;
    group.throughput(if payload_bytes == 0 {
        Throughput::Elements(frames)
    } else {
        Throughput::Bytes(bytes)
    });
    let written = Bytes::from(frame.repeat(WRITTEN_BYTES.div_ceil(frame.len())));
    for kind in Kind::all() {
        let link = kind.with_writer(&runtime, written.clone());
        let (mut reader, mut counted) = (FrameReader::established(link, FRAME_BYTES_MAX, BytesMut::new()), 0);
        group.bench_function(BenchmarkId::new("frames", kind.name()), |b| {
            b.iter(|| {
                counted = runtime.block_on(take(&mut reader, counted, frames, frame.len()));
            });
        });
        let mut link = kind.with_writer(&runtime, written.clone());
        let (mut buffer, mut ahead) = (vec![0; READ_BYTES], 0);
        group.bench_function(BenchmarkId::new("limit: read", kind.name()), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    while ahead < bytes {
                        let read = link.read(&mut buffer).await.expect("the writer never ends");
                        black_box(&buffer[..read]);
                        ahead += read as u64;
                    }
                    // Surplus bytes count for the next iteration, so that every iteration needs the same
                    // number on average.
                    ahead -= bytes;
                });
            });
        });
    }
    group.finish();
}

/// Reads until `frames` frames have arrived; `ahead` of them were read before. Returns the number of
/// surplus frames.
async fn take(reader: &mut FrameReader<Reader>, ahead: u64, frames: u64, frame_bytes: usize) -> u64 {
    let mut counted = Counted::default();
    loop {
        reader.drain(&mut counted).expect("what was written is frames");
        if let Some(more) = (ahead + counted.frames).checked_sub(frames) {
            assert_eq!(counted.bytes, counted.frames * frame_bytes as u64);
            return more;
        }
        reader.fill().await.expect("the writer never ends");
    }
}

fn small(c: &mut Criterion) {
    compare(c, "small frames", 0, 1024);
}

fn middling(c: &mut Criterion) {
    compare(c, "64 KiB frames", 64 << 10, 16);
}

fn large(c: &mut Criterion) {
    compare(c, "1 MiB frames", 1 << 20, 4);
}

criterion_group!(benches, small, middling, large);
criterion_main!(benches);
