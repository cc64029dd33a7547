//! Links of a real cluster, over local sockets.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod hosts;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::cluster::daemon::test_ca::TestCa;
use crate::host::fresh_identity;
use crate::transport::credentials::HOST_ALPN;
use crate::transport::{PREAMBLE_BYTES, Role, TOKEN_RPC_ALPN, Tcp};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it ends in time")
}

/// An acceptor with one host, as between machines.
struct Node {
    identity: HostUid,
    address: SocketAddr,
    routed: Routed,
}

impl Node {
    async fn of(identity: HostUid, credentials: Credentials) -> Self {
        let acceptor = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = acceptor.local_addr().unwrap();
        let (to_host, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = acceptor.accept().await {
                let to_host = to_host.clone();
                tokio::spawn(async move {
                    let mut preamble = [0; PREAMBLE_BYTES];
                    if stream.read_exact(&mut preamble).await.is_ok() {
                        assert_eq!(Route::read(preamble), Ok(Route::Host(identity.host)));
                        to_host.send(stream.into_std().unwrap()).await.unwrap();
                    }
                });
            }
        });
        let routed = Routed::new(credentials, address, incoming).between_machines();
        Self { identity, address, routed }
    }

    async fn listen(&self) -> Box<dyn Listener> {
        self.routed.listen(self.address).await.unwrap()
    }
}

fn dialer(credentials: Credentials) -> Routed {
    Routed::dial_only(credentials).between_machines()
}

type Ends = (Box<dyn Link>, Box<dyn Link>);

async fn link(from: &Routed, to: &Node, listener: &mut dyn Listener) -> Ends {
    let near = from.connect(to.address, to.identity);
    let far = async { listener.accept().await?.await };
    let (near, far) = in_time(join(near, far)).await;
    (near.unwrap(), far.unwrap())
}

/// Errors of both sides of a link that fails.
async fn refused(from: &Routed, to: &Node) -> (io::Error, io::Error) {
    let mut listener = to.listen().await;
    let near = async {
        match from.connect(to.address, to.identity).await {
            // The dialler has finished before the other side verifies its certificate.
            Ok(mut link) => link.read_u8().await.unwrap_err(),
            Err(error) => error,
        }
    };
    let far = async {
        match listener.accept().await.unwrap().await {
            Ok(mut link) => link.read_u8().await.unwrap_err(),
            Err(error) => error,
        }
    };
    in_time(join(near, far)).await
}

#[track_caller]
fn check(error: &io::Error, expected: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains(expected), "{error}");
}

async fn echo(one: &mut dyn Link, other: &mut dyn Link, bytes: &[u8]) {
    let write = async {
        one.write_all(bytes).await.unwrap();
        one.flush().await.unwrap();
    };
    let mut read = vec![0; bytes.len()];
    in_time(join(write, async { other.read_exact(&mut read).await.unwrap() })).await;
    assert!(read == bytes);
}

#[test]
fn link_is_plain_between_loopback_addresses_only() {
    let plain = |here: &str, there: &str| {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 7);
        assert_eq!(is_plain(address(here), address(there)), is_plain(address(there), address(here)));
        is_plain(address(here), address(there))
    };
    assert!(plain("127.0.0.1", "127.0.0.1"));
    assert!(plain("127.0.0.1", "127.8.9.10"));
    assert!(plain("::1", "::1"));
    assert!(plain("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
    assert!(plain("::ffff:127.0.0.1", "127.0.0.1"));
    for public in ["10.0.0.1", "192.168.1.1", "0.0.0.0", "::", "fe80::1", "2001:db8::1", "::ffff:10.0.0.1"] {
        assert!(!plain(public, public));
        assert!(!plain("127.0.0.1", public));
        assert!(!plain("::1", public));
    }
}

#[tokio::test]
async fn link_on_loopback_is_plain_and_has_no_certificate() {
    let (ca, me) = (TestCa::new(), fresh_identity());
    let node = Node::of(me, ca.credentials(Role::Worker, me)).await;
    let node = Node { routed: Routed { is_plain, ..node.routed }, ..node };
    let dialer = Routed::dial_only(ca.credentials(Role::Driver, fresh_identity()));
    let (near, far) = link(&dialer, &node, &mut *node.listen().await).await;
    assert!(near.certificate().is_none() && far.certificate().is_none());
    assert!(!dialer.refusal_means_host_down(LOOPBACK) && Tcp.refusal_means_host_down(LOOPBACK));
}

#[tokio::test]
async fn tls_link_carries_bytes_and_has_both_certificates() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let dialer = dialer(ca.credentials(Role::Driver, me));
    let (mut near, mut far) = link(&dialer, &node, &mut *node.listen().await).await;
    assert_eq!(near.certificate().unwrap().role_of(you), Some(Role::Worker));
    assert_eq!(far.certificate().unwrap().role_of(me), Some(Role::Driver));
    assert_eq!(far.certificate().unwrap().role_of(you), None);
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    echo(&mut *near, &mut *far, &bytes).await;
    echo(&mut *far, &mut *near, &bytes).await;
    // As over plain TCP, closing the link ends the stream.
    drop(near);
    assert_eq!(in_time(far.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn both_directions_of_a_split_link_work_concurrently() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, far) = link(&dialer(ca.credentials(Role::Driver, me)), &node, &mut *node.listen().await).await;
    let ends = [near, far].map(|link| {
        let (mut reader, mut writer) = link.into_split();
        let write = async move {
            // More than the socket buffers hold.
            for _ in 0..64 {
                writer.write_all(&[7; 1 << 17]).await.unwrap();
            }
            writer.flush().await.unwrap();
            writer
        };
        let read = async move {
            let mut bytes = vec![0; 64 << 17];
            reader.read_exact(&mut bytes).await.unwrap();
        };
        join(write, read)
    });
    in_time(futures_util::future::join_all(ends)).await;
}

#[tokio::test]
async fn link_continues_on_another_reactor() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (mut near, mut far) =
        link(&dialer(ca.credentials(Role::Driver, me)), &node, &mut *node.listen().await).await;
    echo(&mut *near, &mut *far, b"before").await;
    // Some bytes are decrypted but not read yet.
    near.write_all(b"12345").await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'1');
    let far = far.detach().unwrap();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut far = far.attach().unwrap();
            let mut rest = [0; 4];
            far.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"2345");
            assert_eq!(far.certificate().unwrap().role_of(me), Some(Role::Driver));
            let (mut reader, mut writer) = far.into_split();
            writer.write_all(&rest).await.unwrap();
            writer.flush().await.unwrap();
            assert_eq!(reader.read(&mut rest).await.unwrap(), 0);
        });
    });
    let mut rest = [0; 4];
    in_time(near.read_exact(&mut rest)).await.unwrap();
    assert_eq!(&rest, b"2345");
    drop(near);
    tokio::task::spawn_blocking(move || other.join().unwrap()).await.unwrap();
}

/// Proxies connections, and records the bytes of the dialler.
async fn recording_proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (address, recorded) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let hearing = Arc::clone(&recorded);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let hearing = Arc::clone(&hearing);
            tokio::spawn(async move {
                let (mut near, mut back) = near.into_split();
                let (mut far, mut forth) = TcpStream::connect(to).await.unwrap().into_split();
                let forth = async move {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = near.read(&mut bytes).await {
                        hearing.lock().unwrap().extend_from_slice(&bytes[..read]);
                        if forth.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                let _ = join(forth, tokio::io::copy(&mut far, &mut back)).await;
            });
        }
    });
    (address, recorded)
}

#[tokio::test]
async fn a_man_in_the_middle_can_neither_read_nor_replay() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let mut listener = node.listen().await;
    let acceptor = node.address;
    let (address, recorded) = recording_proxy(acceptor).await;
    let on_the_way = Node { address, ..node };
    let dialer = dialer(ca.credentials(Role::Driver, me));
    let (mut near, mut far) = link(&dialer, &on_the_way, &mut *listener).await;
    echo(&mut *near, &mut *far, &b"a known word ".repeat(100)).await;
    drop(near);
    let recorded = recorded.lock().unwrap().clone();
    assert!(recorded.starts_with(&Route::Host(you.host).preamble()));
    for word in [&b"a known word"[..], b"driver.roadshow"] {
        assert!(!recorded.windows(word.len()).any(|window| window == word));
    }

    let mut replay = TcpStream::connect(acceptor).await.unwrap();
    replay.write_all(&recorded).await.unwrap();
    let replayed = in_time(listener.accept()).await.unwrap();
    let ended = tokio::spawn(async move {
        let mut said = Vec::new();
        // A reset is accepted as well.
        let _ = replay.read_to_end(&mut said).await;
    });
    assert_eq!(in_time(replayed.into_future()).await.err().unwrap().kind(), ErrorKind::InvalidData);
    in_time(ended).await.unwrap();
}

#[tokio::test]
async fn listener_with_another_identity_is_rejected() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let other = HostUid { incarnation: crate::id::Incarnation(you.incarnation.0 + 1), ..you };
    let node = Node::of(you, ca.credentials(Role::Worker, other)).await;
    let (near, far) = refused(&dialer(ca.credentials(Role::Driver, me)), &node).await;
    check(&near, "the peer's certificate is that of another host");
    check(&far, "this process's certificate is not from its cluster's authority");
}

#[tokio::test]
async fn expired_certificate_is_rejected_on_either_side() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let good = dialer(ca.credentials(Role::Driver, me));
    let (near, far) = refused(&good, &Node::of(you, ca.expired(Role::Worker, you)).await).await;
    check(&near, "the peer's certificate has expired");
    check(&far, "this process's certificate has expired");
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, far) = refused(&dialer(ca.expired(Role::Driver, me)), &node).await;
    check(&near, "this process's certificate has expired");
    check(&far, "the peer's certificate has expired");
}

#[tokio::test]
async fn certificate_of_another_cluster_is_rejected_on_either_side() {
    let (ca, other, me, you) = (TestCa::new(), TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, other.credentials(Role::Worker, you)).await;
    let (near, far) = refused(&dialer(ca.credentials(Role::Driver, me)), &node).await;
    check(&near, "not from this cluster's authority");
    check(&far, "this process's certificate is not from its cluster's authority");
    // A dialler that does not verify certificates.
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, far) = dial_unverified(other.credentials(Role::Driver, me), &node, HOST_ALPN).await;
    check(&near, "this process's certificate is not from its cluster's authority");
    check(&far, "not from this cluster's authority");
}

#[tokio::test]
async fn self_signed_certificate_with_the_right_names_is_rejected_on_either_side() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.imitated(Role::Worker, you)).await;
    let (near, far) = refused(&dialer(ca.credentials(Role::Driver, me)), &node).await;
    check(&near, "not from this cluster's authority");
    check(&far, "this process's certificate is not from its cluster's authority");
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, far) = dial_unverified(ca.imitated(Role::Driver, me), &node, HOST_ALPN).await;
    check(&near, "this process's certificate is not from its cluster's authority");
    check(&far, "not from this cluster's authority");
}

#[tokio::test]
async fn peer_without_a_certificate_is_rejected() {
    let (ca, you) = (TestCa::new(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, far) = dial_unverified(None, &node, HOST_ALPN).await;
    check(&near, "the peer requires a certificate");
    check(&far, "the peer has presented no certificate");
}

#[tokio::test]
async fn peer_with_another_protocol_is_rejected() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let (near, _) = dial_unverified(ca.credentials(Role::Driver, me), &node, TOKEN_RPC_ALPN).await;
    check(&near, "the peer serves another protocol there");
}

#[tokio::test]
async fn peer_without_tls_is_rejected() {
    let (ca, you) = (TestCa::new(), fresh_identity());
    let node = Node::of(you, ca.credentials(Role::Worker, you)).await;
    let mut listener = node.listen().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"RDSH"] {
        let mut stranger = TcpStream::connect(node.address).await.unwrap();
        stranger.write_all(&Route::Host(you.host).preamble()).await.unwrap();
        stranger.write_all(garbage).await.unwrap();
        stranger.shutdown().await.unwrap();
        let arrival = in_time(listener.accept()).await.unwrap();
        let read = async {
            let mut said = Vec::new();
            let _ = stranger.read_to_end(&mut said).await;
        };
        let (refused, ()) = in_time(join(arrival.into_future(), read)).await;
        refused.unwrap_err();
    }
}

#[tokio::test]
async fn new_links_use_renewed_certificates_and_old_links_continue() {
    let (ca, me, you) = (TestCa::new(), fresh_identity(), fresh_identity());
    let (mine, yours) = (ca.expired(Role::Driver, me), ca.credentials(Role::Worker, you));
    let node = Node::of(you, yours.clone()).await;
    let mut listener = node.listen().await;
    let dialer = dialer(mine.clone());
    // Renewed before its use: the transport shares the credentials.
    ca.renew(&mine, Role::Driver, me);
    let (mut near, mut far) = link(&dialer, &node, &mut *listener).await;
    ca.renew(&mine, Role::Driver, me);
    ca.renew(&yours, Role::Worker, you);
    echo(&mut *near, &mut *far, b"goes on").await;
    let (later_near, later_far) = link(&dialer, &node, &mut *listener).await;
    assert!(near.certificate() != later_near.certificate());
    assert!(far.certificate() != later_far.certificate());
    assert_eq!(later_near.certificate().unwrap().role_of(you), Some(Role::Worker));
    assert_eq!(later_far.certificate().unwrap().role_of(me), Some(Role::Driver));
    echo(&mut *far, &mut *near, b"and on").await;
}

#[tokio::test]
async fn host_listens_at_its_own_acceptor_once() {
    let (ca, me) = (TestCa::new(), fresh_identity());
    let node = Node::of(me, ca.credentials(Role::Worker, me)).await;
    let elsewhere = node.routed.listen(LOOPBACK).await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable);
    let _listener = node.listen().await;
    assert_eq!(node.routed.listen(node.address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    let dialing = Routed::dial_only(ca.credentials(Role::Driver, me));
    assert_eq!(dialing.listen(LOOPBACK).await.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
}

/// Dials without verifying, and presents the given credentials. Returns the errors of both sides.
async fn dial_unverified(
    certificate: impl Into<Option<Credentials>>,
    to: &Node,
    protocol: &[u8],
) -> (io::Error, io::Error) {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match certificate.into() {
        None => config.with_no_client_auth(),
        Some(credentials) => {
            let resolver = Arc::clone(&credentials.host_client().client_auth_cert_resolver);
            config.with_client_cert_resolver(resolver)
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let mut listener = to.listen().await;
    let near = async {
        let mut stream = TcpStream::connect(to.address).await.unwrap();
        stream.write_all(&Route::Host(to.identity.host).preamble()).await.unwrap();
        let name = ServerName::try_from("anybody").unwrap();
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        tls::explain(match connected {
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
            Err(error) => error,
        })
    };
    let far = async { listener.accept().await.unwrap().await.unwrap_err() };
    in_time(join(near, far)).await
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
