//! Clients that the token RPC server accepts, and clients that it rejects.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::cluster::daemon::test_ca::{TestCa, claims};
use crate::cluster::security::enrol::{Rejoined, Renewal};
use crate::cluster::security::token_rpc::message::{
    AuthRefusal, AuthReply, AuthRequest, CLIENT, SERVER, TokenReply, TokenRequest, VERSION, binding,
};
use crate::cluster::security::token_rpc::{Endpoint, TokenRpcClient, TokenRpcError};
use crate::cluster::security::{Claims, Token};
use crate::cluster::security::{enrol, token_rpc};
use crate::config::{
    CERTIFICATE_VALID, HANDSHAKES_OPEN_MAX, TOKEN_RPC_CONNECTIONS_MAX, TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX,
};
use crate::host::fresh_identity;
use crate::id::{HostId, HostUid, Incarnation};
use crate::transport::{PREAMBLE_BYTES, Role, Route};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD: HostUid = HostUid { host: HostId::HEAD, incarnation: Incarnation(5) };

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("it ends in time")
}

/// Service that echoes requests, and enrols as a head does.
struct Echo(Arc<TestCa>);

impl TokenService for Echo {
    type Request = String;
    type Reply = String;

    async fn reply(&self, request: String) -> String {
        match request.as_str() {
            "much" => "x".repeat(TOKEN_RPC_REPLY_BYTES_MAX),
            _ => request,
        }
    }

    async fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        presented: Option<&Certificate>,
    ) -> Result<Enrolled, String> {
        let chain = self.0.authority.issue(&csr, &claims).map_err(|error| error.to_string())?;
        let is_known =
            presented.is_some_and(|presented| presented.role_of(claims.hosts[0]) == Some(claims.role));
        let cluster = if is_known { "test, again" } else { "test" };
        Ok(Enrolled { chain, head: HEAD, cluster: cluster.to_owned() })
    }

    async fn readmit(&self, _claims: Claims, _presented: &Certificate) -> Result<Returned, String> {
        Ok(Returned { head: HEAD, cluster: "test, back".to_owned() })
    }
}

/// Service of an agent, which does not enrol.
struct NoHead;

impl TokenService for NoHead {
    type Request = ();
    type Reply = ();

    async fn reply(&self, (): ()) {}
}

/// Token RPC server of a head, behind an acceptor.
struct TestServer {
    ca: Arc<TestCa>,
    address: SocketAddr,
}

impl TestServer {
    async fn open() -> Self {
        let ca = Arc::new(TestCa::new());
        let credentials = ca.credentials(Role::Head, HEAD);
        Self::with(Arc::clone(&ca), &credentials, Echo(ca)).await
    }

    async fn with(ca: Arc<TestCa>, credentials: &Credentials, service: impl TokenService) -> Self {
        let rpc = TokenRpcServer::new(credentials, ca.authority.token().clone(), service);
        assert_eq!(format!("{rpc:?}"), "TokenRpcServer(..)");
        Self { ca, address: behind_an_acceptor(|incoming| rpc.run(incoming)).await }
    }

    fn token(&self) -> &Token {
        self.ca.authority.token()
    }

    async fn connect(&self) -> Result<TokenRpcClient, TokenRpcError> {
        self.connect_with(self.token()).await
    }

    async fn connect_with(&self, token: &Token) -> Result<TokenRpcClient, TokenRpcError> {
        in_time(TokenRpcClient::connect_as(None, self.address, Endpoint::Head, token)).await
    }

    async fn assert_still_serves(&self) {
        let mut client = self.connect().await.unwrap();
        let received: String = in_time(client.ask(&"hello")).await.unwrap();
        assert_eq!(received, "hello");
    }

    /// Token of the same authority with another secret, as after the token file was replaced.
    fn other_secret(&self) -> Token {
        Token::new(*self.token().authority())
    }
}

async fn behind_an_acceptor<F: Future<Output = ()> + Send + 'static>(
    run: impl FnOnce(mpsc::Receiver<net::TcpStream>) -> F,
) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, incoming) = mpsc::channel(16);
    tokio::spawn(run(incoming));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let connections = connections.clone();
            tokio::spawn(async move {
                let mut preamble = [0; PREAMBLE_BYTES];
                if stream.read_exact(&mut preamble).await.is_ok() {
                    assert_eq!(Route::read(preamble), Ok(Route::HeadTokenRpc));
                    connections.send(stream.into_std().unwrap()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn client_with_the_token_sends_many_requests() {
    let server = TestServer::open().await;
    let mut client = server.connect().await.unwrap();
    for request in ["one", "two", &"long ".repeat(300_000)] {
        let reply: String = in_time(client.ask(&request)).await.unwrap();
        assert!(reply == request);
    }
    assert!(format!("{client:?}").starts_with("TokenRpcClient { at: Ok(127.0.0.1:"));
}

#[tokio::test]
async fn client_with_the_token_is_enrolled_with_its_claims() {
    let server = TestServer::open().await;
    let me = fresh_identity();
    let mut client = server.connect().await.unwrap();
    let enrolment = in_time(client.enrol(&claims(Role::Driver, me))).await.unwrap();
    assert_eq!((enrolment.head, enrolment.cluster.as_str()), (HEAD, "test"));
    assert_eq!(enrolment.credentials.authority(), server.ca.authority.certificate());
    assert!(format!("{enrolment:?}").contains("credentials: Credentials(..)"));
    // An enrolment does not end the connection.
    assert_eq!(in_time(client.ask::<_, String>(&"and")).await.unwrap(), "and");
}

#[tokio::test]
async fn returning_client_is_identified_by_its_certificate() {
    let server = TestServer::open().await;
    let (me, token) = (fresh_identity(), server.token());
    let valid = server.ca.credentials(Role::Driver, me);
    // An expired certificate still proves the identity of its holder.
    let expired = server.ca.expired(Role::Driver, me);
    let other = server.ca.credentials(Role::Driver, fresh_identity());
    for (presented, expected) in [(valid, "test, again"), (expired, "test, again"), (other, "test")] {
        let again = TokenRpcClient::connect_as(Some(&presented), server.address, Endpoint::Head, token);
        let enrolled = in_time(again).await.unwrap().enrol(&claims(Role::Driver, me)).await.unwrap();
        assert_eq!(enrolled.cluster, expected);
    }
    let imitated = server.ca.imitated(Role::Driver, me);
    let claims = claims(Role::Driver, me);
    let (at, heads) = (server.address, [server.address]);
    for renewal in [Renewal::Due, Renewal::IfStale] {
        let back = enrol::rejoin(&heads, at, token, &claims, &imitated, renewal);
        in_time(back).await.unwrap_err();
    }
}

#[tokio::test]
async fn member_with_a_fresh_certificate_rejoins_without_a_signature() {
    let server = TestServer::open().await;
    let (me, token, at) = (fresh_identity(), server.token(), server.address);
    let heads = [at];
    let (half, minute) = (CERTIFICATE_VALID / 2, Duration::from_secs(60));
    let ca = &server.ca;
    let cases = [
        (ca.credentials(Role::Agent, me), Renewal::IfStale, 0),
        (ca.ending_in(half + minute, Role::Agent, me), Renewal::IfStale, 0),
        (ca.ending_in(half - minute, Role::Agent, me), Renewal::IfStale, 1),
        (ca.expired(Role::Agent, me), Renewal::IfStale, 1),
        (ca.credentials(Role::Agent, me), Renewal::Due, 1),
        // A certificate of another process is answered with a request for a new one.
        (ca.credentials(Role::Agent, fresh_identity()), Renewal::IfStale, 1),
        (ca.credentials(Role::Driver, me), Renewal::IfStale, 1),
    ];
    for (at_hand, renewal, signatures) in cases {
        let (before, claims) = (ca.authority.issued(), claims(Role::Agent, me));
        let back = enrol::rejoin(&heads, at, token, &claims, &at_hand, renewal);
        let Rejoined { head, renewed, .. } = in_time(back).await.unwrap();
        let signed = ca.authority.issued() - before;
        assert_eq!((head, renewed, signed), (HEAD, signatures > 0, signatures), "{renewal:?}");
        assert!(at_hand.is_fresh());
    }
}

#[tokio::test]
async fn rejoin_needs_a_valid_certificate_for_every_claim() {
    let server = TestServer::open().await;
    let (me, other) = (fresh_identity(), fresh_identity());
    let ca = &server.ca;
    let rejoin = async |presented: Option<&Credentials>, claims: Claims| {
        let client = TokenRpcClient::connect_as(presented, server.address, Endpoint::Head, server.token());
        in_time(in_time(client).await.unwrap().rejoin(&claims)).await
    };
    let valid = ca.credentials(Role::Driver, me);
    let back = rejoin(Some(&valid), claims(Role::Driver, me)).await.unwrap().unwrap();
    assert_eq!((back.head, back.cluster.as_str()), (HEAD, "test, back"));
    let later = HostUid { incarnation: Incarnation(me.incarnation.0 + 1), ..me };
    let both = Claims { hosts: vec![me, other], ..claims(Role::Driver, me) };
    for (presented, claims) in [
        (None, claims(Role::Driver, me)),
        (Some(ca.expired(Role::Driver, me)), claims(Role::Driver, me)),
        (Some(valid.clone()), claims(Role::Driver, other)),
        (Some(valid.clone()), claims(Role::Driver, later)),
        (Some(valid.clone()), claims(Role::Agent, me)),
        (Some(valid.clone()), both),
    ] {
        assert_eq!(rejoin(presented.as_ref(), claims.clone()).await.unwrap(), None, "{claims:?}");
    }
    let refused = rejoin(Some(&valid), claims(Role::Head, me)).await.unwrap_err();
    assert!(matches!(refused, TokenRpcError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn rejoin_tries_all_addresses_of_the_head_and_returns_the_one_that_answered() {
    let server = TestServer::open().await;
    let me = fresh_identity();
    let presented = server.ca.credentials(Role::Driver, me);
    // Nothing listens on the port of a dropped listener.
    let gone = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (heads, claims) = ([gone, server.address], claims(Role::Driver, me));
    for renewal in [Renewal::Due, Renewal::IfStale] {
        let back = enrol::rejoin(&heads, gone, server.token(), &claims, &presented, renewal);
        assert_eq!(in_time(back).await.unwrap().head_at, server.address);
    }
}

#[tokio::test]
async fn token_alone_does_not_enrol_heads_or_workers() {
    let server = TestServer::open().await;
    let me = fresh_identity();
    let mut client = server.connect().await.unwrap();
    for (role, host) in [(Role::Head, me), (Role::Worker, me), (Role::Driver, HEAD), (Role::Agent, HEAD)] {
        let error = in_time(client.enrol(&claims(role, host))).await.unwrap_err();
        assert!(matches!(error, TokenRpcError::Refused { .. }), "{error}");
    }
    in_time(client.enrol(&claims(Role::Agent, me))).await.unwrap();
}

#[tokio::test]
async fn agent_refuses_to_enrol() {
    let ca = Arc::new(TestCa::new());
    let credentials = ca.credentials(Role::Head, HEAD);
    let server = TestServer::with(ca, &credentials, NoHead).await;
    let mut client = server.connect().await.unwrap();
    let me = fresh_identity();
    let error = in_time(client.enrol(&claims(Role::Driver, me))).await.unwrap_err();
    assert!(error.to_string().contains("only a head enrols"), "{error}");
    let own = server.ca.credentials(Role::Driver, me);
    let client = TokenRpcClient::connect_as(Some(&own), server.address, Endpoint::Head, server.token());
    let error = in_time(client).await.unwrap().rejoin(&claims(Role::Driver, me)).await.unwrap_err();
    assert!(error.to_string().contains("only a head enrols"), "{error}");
}

#[tokio::test]
async fn wrong_secret_is_refused_with_its_reason() {
    let server = TestServer::open().await;
    let error = server.connect_with(&server.other_secret()).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::WrongSecret), "{error}");
    assert!(error.to_string().starts_with("the token's secret is not this cluster's"), "{error}");
    server.assert_still_serves().await;
}

#[tokio::test]
async fn token_of_another_cluster_is_refused_with_its_reason() {
    let (server, other) = (TestServer::open().await, TestCa::new());
    let error = server.connect_with(other.authority.token()).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::OtherCluster { .. }), "{error}");
    let text = format!("the head at {} belongs to another cluster than the token", server.address);
    assert!(error.to_string().starts_with(&text), "{error}");
    server.assert_still_serves().await;
}

#[tokio::test]
async fn client_rejects_a_server_with_an_expired_certificate() {
    let ca = Arc::new(TestCa::new());
    let expired = ca.expired(Role::Head, HEAD);
    let server = TestServer::with(Arc::clone(&ca), &expired, Echo(ca)).await;
    let error = server.connect().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("has expired"), "{error}");
}

#[tokio::test]
async fn client_rejects_a_server_with_a_self_signed_certificate() {
    // The impostor has the authority's certificate, the right names, and even the token.
    let ca = Arc::new(TestCa::new());
    let imitated = ca.imitated(Role::Head, HEAD);
    let server = TestServer::with(Arc::clone(&ca), &imitated, Echo(ca)).await;
    let error = server.connect().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("not from this cluster's authority"), "{error}");
}

#[tokio::test]
async fn client_rejects_a_server_that_is_not_the_head() {
    for role in [Role::Agent, Role::Worker, Role::Driver] {
        let ca = Arc::new(TestCa::new());
        let credentials = ca.credentials(role, fresh_identity());
        let server = TestServer::with(Arc::clone(&ca), &credentials, Echo(ca)).await;
        let error = server.connect().await.unwrap_err();
        assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{role}: {error}");
    }
}

#[tokio::test]
async fn client_rejects_a_server_that_does_not_know_the_secret() {
    let ca = Arc::new(TestCa::new());
    let credentials = ca.credentials(Role::Head, HEAD);
    let acceptor = TlsAcceptor::from(credentials.token_rpc_server_config());
    let address = behind_an_acceptor(|mut incoming| async move {
        let stream = TcpStream::from_std(incoming.recv().await.unwrap()).unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let request: AuthRequest = frames::read(&mut stream, 1 << 12).await.unwrap().unwrap();
        // A reflection of the client's own proof.
        frames::write(&mut stream, &AuthReply::Welcome { proof: request.proof }, 1 << 12).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let token = ca.authority.token();
    let error = in_time(TokenRpcClient::connect_as(None, address, Endpoint::Head, token)).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("does not know the token's secret"), "{error}");
}

#[tokio::test]
async fn closed_connection_and_refused_connection_are_different_errors() {
    let ca = TestCa::new();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = TokenRpcClient::connect_as(None, address, Endpoint::Agent, ca.authority.token());
    let closing = async { drop(listener.accept().await) };
    let (error, ()) = in_time(futures_util::future::join(connect, closing)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, TokenRpcError::ConnectionClosed { role: Role::Agent, .. }), "{error}");
    drop(listener);
    let connect = TokenRpcClient::connect_as(None, address, Endpoint::Agent, ca.authority.token());
    let error = in_time(connect).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::Connect { .. }), "{error}");
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects up to the end of the TLS handshake.
async fn connect_tls(server: &TestServer) -> Stream {
    let config: ClientConfig = token_rpc::client::config(*server.token().authority(), None).unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
    let name = ServerName::try_from("head.roadshow").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn authenticate(stream: &mut Stream, proof: &[u8]) -> Option<AuthReply> {
    let request = AuthRequest { version: VERSION, proof: proof.to_vec() };
    frames::write(stream, &request, 1 << 12).await.unwrap();
    in_time(frames::read(stream, 1 << 12)).await.ok().flatten()
}

#[tokio::test]
async fn proof_fits_no_other_connection() {
    let server = TestServer::open().await;
    let (mut one, mut other) = (connect_tls(&server).await, connect_tls(&server).await);
    let proof = server.token().prove(CLIENT, &binding(one.get_ref().1).unwrap());
    assert!(matches!(authenticate(&mut other, &proof).await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    assert!(matches!(authenticate(&mut one, &proof).await, Some(AuthReply::Welcome { .. })));
    // The server's own proof does not authenticate a client.
    let mut third = connect_tls(&server).await;
    let proof = server.token().prove(SERVER, &binding(third.get_ref().1).unwrap());
    assert!(matches!(authenticate(&mut third, &proof).await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    server.assert_still_serves().await;
}

#[tokio::test]
async fn request_without_a_proof_is_rejected() {
    let server = TestServer::open().await;
    let mut stream = connect_tls(&server).await;
    frames::write(&mut stream, &TokenRequest::Service("hello"), 1 << 12).await.unwrap();
    let recorded: Option<TokenReply<String>> =
        in_time(frames::read(&mut stream, 1 << 12)).await.ok().flatten();
    assert!(recorded.is_none());
    let mut stream = connect_tls(&server).await;
    assert!(matches!(authenticate(&mut stream, b"").await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    // A frame that is longer than a proof is not read.
    let mut stream = connect_tls(&server).await;
    let long = vec![0; TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX];
    frames::write(&mut stream, &long, 1 << 20).await.unwrap();
    assert!(!matches!(in_time(stream.read(&mut [0])).await, Ok(1..)));
    server.assert_still_serves().await;
}

#[tokio::test]
async fn silent_client_is_disconnected_after_the_timeout() {
    let server = TestServer::open().await;
    let mut stream = connect_tls(&server).await;
    tokio::time::pause();
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
    assert!(!matches!(raw.read(&mut [0]).await, Ok(1..)));
}

#[tokio::test]
async fn other_protocol_version_is_refused_with_the_servers_version() {
    let server = TestServer::open().await;
    let mut stream = connect_tls(&server).await;
    let request = AuthRequest { version: VERSION + 1, proof: vec![0; 32] };
    frames::write(&mut stream, &request, 1 << 12).await.unwrap();
    let reply = in_time(frames::read(&mut stream, 1 << 12)).await.unwrap();
    assert!(matches!(reply, Some(AuthReply::Refused(AuthRefusal::Version { ours: VERSION }))));
}

#[tokio::test]
async fn garbage_closes_the_connection() {
    let server = TestServer::open().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096]] {
        let mut raw = TcpStream::connect(server.address).await.unwrap();
        raw.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
        raw.write_all(garbage).await.unwrap();
        let mut received = Vec::new();
        // A reset also counts as the end.
        let _ = in_time(raw.read_to_end(&mut received)).await;
        assert!(received.len() < 64, "{received:?}");
    }
    server.assert_still_serves().await;
}

#[tokio::test]
async fn recorded_bytes_cannot_be_replayed() {
    let server = TestServer::open().await;
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (proxy, recording) = (listener.local_addr().unwrap(), Arc::clone(&recorded));
    let to = server.address;
    tokio::spawn(async move {
        let (mut near, mut back) = listener.accept().await.unwrap().0.into_split();
        let (mut far, mut forth) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut far, &mut back).await });
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = near.read(&mut bytes).await {
            recording.lock().unwrap().extend_from_slice(&bytes[..read]);
            forth.write_all(&bytes[..read]).await.unwrap();
        }
    });
    let mut client =
        in_time(TokenRpcClient::connect_as(None, proxy, Endpoint::Head, server.token())).await.unwrap();
    in_time(client.ask::<_, String>(&"a known word")).await.unwrap();
    let recorded = recorded.lock().unwrap().clone();
    assert!(!recorded.windows(12).any(|window| window == b"a known word"));
    let mut replay = TcpStream::connect(server.address).await.unwrap();
    replay.write_all(&recorded).await.unwrap();
    replay.shutdown().await.unwrap();
    let mut received = Vec::new();
    let _ = in_time(replay.read_to_end(&mut received)).await;
    assert!(!received.windows(12).any(|window| window == b"a known word"));
    server.assert_still_serves().await;
}

#[tokio::test]
async fn flood_of_silent_connections_does_not_block_clients() {
    let server = TestServer::open().await;
    let mut idle = Vec::new();
    for _ in 0..HANDSHAKES_OPEN_MAX + 50 {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        connection.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
        idle.push(connection);
    }
    server.assert_still_serves().await;
    drop(idle);
}

#[tokio::test]
async fn client_above_the_connection_limit_is_refused_as_busy() {
    let server = TestServer::open().await;
    let mut served = Vec::new();
    for _ in 0..TOKEN_RPC_CONNECTIONS_MAX {
        served.push(server.connect().await.unwrap());
    }
    let error = server.connect().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::Busy), "{error}");
    drop(served.pop());
    while server.connect().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn undecodable_request_or_oversized_reply_fails_only_that_request() {
    let server = TestServer::open().await;
    let mut client = server.connect().await.unwrap();
    let error = in_time(client.ask::<_, String>(&7)).await.unwrap_err();
    assert!(error.to_string().contains("does not know that request"), "{error}");
    let error = in_time(client.ask::<_, String>(&"much")).await.unwrap_err();
    assert!(error.to_string().contains("ask for less"), "{error}");
    assert_eq!(in_time(client.ask::<_, String>(&"hello")).await.unwrap(), "hello");
}

#[tokio::test]
async fn idle_client_is_disconnected() {
    let server = TestServer::open().await;
    let mut client = server.connect().await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(2 * TOKEN_RPC_IDLE_TIMEOUT).await;
    assert!(client.ask::<_, String>(&"hello").await.is_err());
}
