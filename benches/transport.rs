//! Frames read from a link, beside the limit in the same run: plain reads of as many bytes from a link
//! of the same kind.
//!
//! Links are of memory, of TCP, and under TLS as between machines. Those have no loopback address at either
//! end, or they would be plain: on a machine that has no other address they are left out.
//!
//! A task writes all the time, on the thread that reads: what is told is the way of a byte through both,
//! on one core, without waking another.

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
use roadshow::internals::wire::{self, CallHeader, Frame, FrameVisitor, ShortSlice, TellHeader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// What the writer has in hand at least.
const WRITTEN_BYTES: usize = 64 << 10;

/// What is read from, of this kind or that.
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
                let here = here.expect("somebody connects").await;
                let (reader, _) = here.expect("it is a link at once").into_split();
                (writer, reader)
            }
            Self::Tls(address) => open_encrypted(address).await,
        }
    }

    /// What can be measured here.
    fn all() -> Vec<Self> {
        let encrypted = own_address().map(Self::Tls);
        if encrypted.is_none() {
            eprintln!("no links under TLS: this machine has no address but loopback's");
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

    /// A link on which `bytes` come over and over.
    fn pouring(self, runtime: &Runtime, bytes: Bytes) -> Reader {
        let (mut writer, reader) = runtime.block_on(self.open());
        // It ends with its reader.
        runtime.spawn(async move { while writer.write_all(&bytes).await.is_ok() {} });
        reader
    }
}

/// An address of this machine that is not loopback's. Nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation's (RFC 5737): the way there is everybody's way out.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A link between two hosts of a cluster that are on this machine, and do not know it.
async fn open_encrypted(address: IpAddr) -> (LinkWriter, Reader) {
    let (dialer, host) = (fresh_identity(), fresh_identity());
    let door = TcpListener::bind((address, 0)).await.expect("a port is free");
    let at = door.local_addr().expect("it is bound");
    let (pass, passed) = mpsc::channel(1);
    let credentials = credentials([dialer, host]);
    let here = Routed::new(credentials.clone(), at, passed);
    let mut listener = here.listen(at).await.expect("it is the door's address");
    let accept = async {
        let (mut stream, _) = door.accept().await.expect("somebody connects");
        stream.read_exact(&mut [0; PREAMBLE_BYTES]).await.expect("it begins with a preamble");
        pass.send(stream.into_std().expect("it is a socket")).await.expect("the host listens");
        listener.accept().await.expect("somebody comes").await.expect("the certificate is good")
    };
    let there = Routed::dial_only(credentials);
    let (there, here) = tokio::join!(there.connect(at, host), accept);
    let there = there.expect("the certificate is good");
    assert!(there.certificate().is_some(), "the link is plain");
    (there.into_split().1, here.into_split().0)
}

/// One certificate for these hosts, of an authority that nobody else knows.
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

/// Takes frames and counts them.
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
        _body: ShortSlice<'_>,
    ) -> Result<(), ReadError> {
        panic!("tells were written, {call:?} came");
    }

    fn tell(&mut self, _tell: TellHeader, frame_bytes: usize, body: ShortSlice<'_>) -> Result<(), ReadError> {
        self.frames += 1;
        self.bytes += frame_bytes as u64;
        black_box(body);
        Ok(())
    }

    fn reply(&mut self, call: CallId, _frame_bytes: usize, _body: ShortSlice<'_>) -> Result<(), ReadError> {
        panic!("tells were written, a reply to {call} came");
    }

    fn other(&mut self, frame: Frame) -> Result<(), ReadError> {
        match frame {
            Frame::Tell(tell) => {
                self.frames += 1;
                self.bytes += tell.frame_bytes() as u64;
                black_box(tell);
                Ok(())
            }
            frame => panic!("tells were written, {frame:?} came"),
        }
    }
}

/// A tell with so many bytes beside its message.
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
    let runtime = Builder::new_current_thread().enable_io().build().expect("the thread has no runtime");
    let mut group = c.benchmark_group(format!("transport: {name}"));
    let frame = tell(payload_bytes);
    let bytes = frame.len() as u64 * frames;
    group.throughput(if payload_bytes == 0 {
        Throughput::Elements(frames)
    } else {
        Throughput::Bytes(bytes)
    });
    let poured = Bytes::from(frame.repeat(WRITTEN_BYTES.div_ceil(frame.len())));
    for kind in Kind::all() {
        let link = kind.pouring(&runtime, poured.clone());
        let (mut reader, mut counted) = (FrameReader::established(link, FRAME_BYTES_MAX, BytesMut::new()), 0);
        group.bench_function(BenchmarkId::new("frames", kind.name()), |b| {
            b.iter(|| {
                counted = runtime.block_on(take(&mut reader, counted, frames, frame.len()));
            });
        });
        let mut link = kind.pouring(&runtime, poured.clone());
        let (mut buffer, mut ahead) = (vec![0; READ_BYTES], 0);
        group.bench_function(BenchmarkId::new("limit: read", kind.name()), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    while ahead < bytes {
                        let read = link.read(&mut buffer).await.expect("the writer goes on");
                        black_box(&buffer[..read]);
                        ahead += read as u64;
                    }
                    ahead -= bytes;
                });
            });
        });
    }
    group.finish();
}

/// Reads until so many frames have come, and says how many more have; so many came ahead.
async fn take(reader: &mut FrameReader<Reader>, ahead: u64, frames: u64, frame_bytes: usize) -> u64 {
    let mut counted = Counted::default();
    loop {
        reader.drain(&mut counted).expect("what was written is frames");
        if let Some(more) = (ahead + counted.frames).checked_sub(frames) {
            assert_eq!(counted.bytes, counted.frames * frame_bytes as u64);
            return more;
        }
        reader.fill().await.expect("the writer goes on");
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
