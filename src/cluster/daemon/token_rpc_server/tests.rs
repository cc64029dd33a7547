//! Who is served at a desk, and who is not.

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
const PATIENCE: Duration = Duration::from_secs(30);
const HEAD: HostUid = HostUid { host: HostId::HEAD, incarnation: Incarnation(5) };

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it ends in time")
}

/// Answers with what was asked, and enrols as a head does.
struct Echo(Arc<TestCa>);

impl TokenService for Echo {
    type Request = String;
    type Reply = String;

    async fn answer(&self, request: String) -> String {
        match request.as_str() {
            "much" => "x".repeat(TOKEN_RPC_REPLY_BYTES_MAX),
            _ => request,
        }
    }

    async fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        shown: Option<&Certificate>,
    ) -> Result<Enrolled, String> {
        let chain = self.0.authority.issue(&csr, &claims).map_err(|error| error.to_string())?;
        let is_known = shown.is_some_and(|shown| shown.role_of(claims.hosts[0]) == Some(claims.role));
        let cluster = if is_known { "test, again" } else { "test" };
        Ok(Enrolled { chain, head: HEAD, cluster: cluster.to_owned() })
    }

    async fn take_back(&self, _claims: Claims, _shown: &Certificate) -> Result<Returned, String> {
        Ok(Returned { head: HEAD, cluster: "test, back".to_owned() })
    }
}

/// That of an agent.
struct NoHead;

impl TokenService for NoHead {
    type Request = ();
    type Reply = ();

    async fn answer(&self, (): ()) {}
}

/// A head's desk behind a door.
struct Office {
    realm: Arc<TestCa>,
    address: SocketAddr,
}

impl Office {
    async fn open() -> Self {
        let realm = Arc::new(TestCa::new());
        let credentials = realm.credentials(Role::Head, HEAD);
        Self::with(Arc::clone(&realm), &credentials, Echo(realm)).await
    }

    async fn with(realm: Arc<TestCa>, credentials: &Credentials, service: impl TokenService) -> Self {
        let desk = TokenRpcServer::new(credentials, realm.authority.token().clone(), service);
        assert_eq!(format!("{desk:?}"), "Desk(..)");
        Self { realm, address: behind_a_door(|incoming| desk.run(incoming)).await }
    }

    fn token(&self) -> &Token {
        self.realm.authority.token()
    }

    async fn visit(&self) -> Result<TokenRpcClient, TokenRpcError> {
        self.visit_with(self.token()).await
    }

    async fn visit_with(&self, token: &Token) -> Result<TokenRpcClient, TokenRpcError> {
        in_time(TokenRpcClient::connect_as(None, self.address, Endpoint::Head, token)).await
    }

    async fn is_at_peace(&self) {
        let mut client = self.visit().await.unwrap();
        let said: String = in_time(client.ask(&"hello")).await.unwrap();
        assert_eq!(said, "hello");
    }

    /// A token of this office's authority with another secret, as the head gave out in an earlier time.
    fn other_secret(&self) -> Token {
        Token::new(*self.token().authority())
    }
}

async fn behind_a_door<F: Future<Output = ()> + Send + 'static>(
    run: impl FnOnce(mpsc::Receiver<net::TcpStream>) -> F,
) -> SocketAddr {
    let door = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = door.local_addr().unwrap();
    let (to_desk, incoming) = mpsc::channel(16);
    tokio::spawn(run(incoming));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = door.accept().await {
            let to_desk = to_desk.clone();
            tokio::spawn(async move {
                let mut preamble = [0; PREAMBLE_BYTES];
                if stream.read_exact(&mut preamble).await.is_ok() {
                    assert_eq!(Route::read(preamble), Ok(Route::HeadTokenRpc));
                    to_desk.send(stream.into_std().unwrap()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn visitor_with_the_token_asks_as_often_as_it_likes() {
    let office = Office::open().await;
    let mut client = office.visit().await.unwrap();
    for request in ["one", "two", &"long ".repeat(300_000)] {
        let reply: String = in_time(client.ask(&request)).await.unwrap();
        assert!(reply == request);
    }
    assert!(format!("{client:?}").starts_with("TokenRpcClient { at: Ok(127.0.0.1:"));
}

#[tokio::test]
async fn visitor_with_the_token_is_enrolled_as_what_it_claims() {
    let office = Office::open().await;
    let me = fresh_identity();
    let mut client = office.visit().await.unwrap();
    let enrolment = in_time(client.enrol(&claims(Role::Driver, me))).await.unwrap();
    assert_eq!((enrolment.head, enrolment.cluster.as_str()), (HEAD, "test"));
    assert_eq!(enrolment.credentials.authority(), office.realm.authority.certificate());
    assert!(format!("{enrolment:?}").contains("credentials: Credentials(..)"));
    // The connection is good for more.
    assert_eq!(in_time(client.ask::<_, String>(&"and")).await.unwrap(), "and");
}

#[tokio::test]
async fn visitor_who_has_been_before_is_known_by_its_certificate() {
    let office = Office::open().await;
    let (me, token) = (fresh_identity(), office.token());
    let valid = office.realm.credentials(Role::Driver, me);
    // One that was valid once proves as well who somebody is.
    let expired = office.realm.expired(Role::Driver, me);
    let other = office.realm.credentials(Role::Driver, fresh_identity());
    for (shown, expected) in [(valid, "test, again"), (expired, "test, again"), (other, "test")] {
        let again = TokenRpcClient::connect_as(Some(&shown), office.address, Endpoint::Head, token);
        let enrolled = in_time(again).await.unwrap().enrol(&claims(Role::Driver, me)).await.unwrap();
        assert_eq!(enrolled.cluster, expected);
    }
    let imitated = office.realm.imitated(Role::Driver, me);
    let claims = claims(Role::Driver, me);
    let (at, heads) = (office.address, [office.address]);
    for renewal in [Renewal::Due, Renewal::IfStale] {
        let back = enrol::rejoin(&heads, at, token, &claims, &imitated, renewal);
        in_time(back).await.unwrap_err();
    }
}

#[tokio::test]
async fn member_with_a_fresh_certificate_comes_back_without_a_signature() {
    let office = Office::open().await;
    let (me, token, at) = (fresh_identity(), office.token(), office.address);
    let heads = [at];
    let (half, minute) = (CERTIFICATE_VALID / 2, Duration::from_secs(60));
    let realm = &office.realm;
    let cases = [
        (realm.credentials(Role::Agent, me), Renewal::IfStale, 0),
        (realm.ending_in(half + minute, Role::Agent, me), Renewal::IfStale, 0),
        (realm.ending_in(half - minute, Role::Agent, me), Renewal::IfStale, 1),
        (realm.expired(Role::Agent, me), Renewal::IfStale, 1),
        (realm.credentials(Role::Agent, me), Renewal::Due, 1),
        // The desk asks for another where the one that was shown is of another process.
        (realm.credentials(Role::Agent, fresh_identity()), Renewal::IfStale, 1),
        (realm.credentials(Role::Driver, me), Renewal::IfStale, 1),
    ];
    for (at_hand, renewal, signatures) in cases {
        let (before, claims) = (realm.authority.issued(), claims(Role::Agent, me));
        let back = enrol::rejoin(&heads, at, token, &claims, &at_hand, renewal);
        let Rejoined { head, renewed, .. } = in_time(back).await.unwrap();
        let signed = realm.authority.issued() - before;
        assert_eq!((head, renewed, signed), (HEAD, signatures > 0, signatures), "{renewal:?}");
        assert!(at_hand.is_fresh());
    }
}

#[tokio::test]
async fn member_is_taken_back_with_a_valid_certificate_for_all_that_it_claims_and_no_other() {
    let office = Office::open().await;
    let (me, other) = (fresh_identity(), fresh_identity());
    let realm = &office.realm;
    let rejoin = async |shown: Option<&Credentials>, claims: Claims| {
        let desk = TokenRpcClient::connect_as(shown, office.address, Endpoint::Head, office.token());
        in_time(in_time(desk).await.unwrap().rejoin(&claims)).await
    };
    let valid = realm.credentials(Role::Driver, me);
    let back = rejoin(Some(&valid), claims(Role::Driver, me)).await.unwrap().unwrap();
    assert_eq!((back.head, back.cluster.as_str()), (HEAD, "test, back"));
    let later = HostUid { incarnation: Incarnation(me.incarnation.0 + 1), ..me };
    let both = Claims { hosts: vec![me, other], ..claims(Role::Driver, me) };
    for (shown, claims) in [
        (None, claims(Role::Driver, me)),
        (Some(realm.expired(Role::Driver, me)), claims(Role::Driver, me)),
        (Some(valid.clone()), claims(Role::Driver, other)),
        (Some(valid.clone()), claims(Role::Driver, later)),
        (Some(valid.clone()), claims(Role::Agent, me)),
        (Some(valid.clone()), both),
    ] {
        assert_eq!(rejoin(shown.as_ref(), claims.clone()).await.unwrap(), None, "{claims:?}");
    }
    let refused = rejoin(Some(&valid), claims(Role::Head, me)).await.unwrap_err();
    assert!(matches!(refused, TokenRpcError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn visitor_who_has_been_before_tries_all_addresses_of_the_head_and_says_which_one_answered() {
    let office = Office::open().await;
    let me = fresh_identity();
    let shown = office.realm.credentials(Role::Driver, me);
    // Nothing listens at the port of a listener that is gone.
    let gone = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (heads, claims) = ([gone, office.address], claims(Role::Driver, me));
    for renewal in [Renewal::Due, Renewal::IfStale] {
        let back = enrol::rejoin(&heads, gone, office.token(), &claims, &shown, renewal);
        assert_eq!(in_time(back).await.unwrap().head_at, office.address);
    }
}

#[tokio::test]
async fn visitor_is_enrolled_as_nothing_that_a_token_is_too_little_for() {
    let office = Office::open().await;
    let me = fresh_identity();
    let mut client = office.visit().await.unwrap();
    for (role, host) in [(Role::Head, me), (Role::Worker, me), (Role::Driver, HEAD), (Role::Agent, HEAD)] {
        let error = in_time(client.enrol(&claims(role, host))).await.unwrap_err();
        assert!(matches!(error, TokenRpcError::Refused { .. }), "{error}");
    }
    in_time(client.enrol(&claims(Role::Agent, me))).await.unwrap();
}

#[tokio::test]
async fn agents_desk_enrols_nobody() {
    let realm = Arc::new(TestCa::new());
    let credentials = realm.credentials(Role::Head, HEAD);
    let office = Office::with(realm, &credentials, NoHead).await;
    let mut client = office.visit().await.unwrap();
    let me = fresh_identity();
    let error = in_time(client.enrol(&claims(Role::Driver, me))).await.unwrap_err();
    assert!(error.to_string().contains("only a head enrols"), "{error}");
    let own = office.realm.credentials(Role::Driver, me);
    let client = TokenRpcClient::connect_as(Some(&own), office.address, Endpoint::Head, office.token());
    let error = in_time(client).await.unwrap().rejoin(&claims(Role::Driver, me)).await.unwrap_err();
    assert!(error.to_string().contains("only a head enrols"), "{error}");
}

#[tokio::test]
async fn wrong_secret_is_refused_and_the_text_says_so() {
    let office = Office::open().await;
    let error = office.visit_with(&office.other_secret()).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::WrongSecret), "{error}");
    assert!(error.to_string().starts_with("the token's secret is not this cluster's"), "{error}");
    office.is_at_peace().await;
}

#[tokio::test]
async fn token_of_another_cluster_is_refused_and_the_text_says_so() {
    let (office, other) = (Office::open().await, TestCa::new());
    let error = office.visit_with(other.authority.token()).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::OtherCluster { .. }), "{error}");
    let text = format!("the head at {} belongs to another cluster than the token", office.address);
    assert!(error.to_string().starts_with(&text), "{error}");
    office.is_at_peace().await;
}

#[tokio::test]
async fn desk_with_an_expired_certificate_is_not_believed() {
    let realm = Arc::new(TestCa::new());
    let expired = realm.expired(Role::Head, HEAD);
    let office = Office::with(Arc::clone(&realm), &expired, Echo(realm)).await;
    let error = office.visit().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("has expired"), "{error}");
}

#[tokio::test]
async fn desk_with_a_self_made_certificate_is_not_believed() {
    // It has the authority's certificate, the right names, and even the token.
    let realm = Arc::new(TestCa::new());
    let imitated = realm.imitated(Role::Head, HEAD);
    let office = Office::with(Arc::clone(&realm), &imitated, Echo(realm)).await;
    let error = office.visit().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("not from this cluster's authority"), "{error}");
}

#[tokio::test]
async fn no_member_of_the_cluster_passes_for_the_head() {
    for role in [Role::Agent, Role::Worker, Role::Driver] {
        let realm = Arc::new(TestCa::new());
        let credentials = realm.credentials(role, fresh_identity());
        let office = Office::with(Arc::clone(&realm), &credentials, Echo(realm)).await;
        let error = office.visit().await.unwrap_err();
        assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{role}: {error}");
    }
}

#[tokio::test]
async fn desk_that_does_not_know_the_secret_is_not_believed() {
    let realm = Arc::new(TestCa::new());
    let credentials = realm.credentials(Role::Head, HEAD);
    let acceptor = TlsAcceptor::from(credentials.token_rpc_server_config());
    let address = behind_a_door(|mut incoming| async move {
        let stream = TcpStream::from_std(incoming.recv().await.unwrap()).unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let opening: AuthRequest = frames::read(&mut stream, 1 << 12).await.unwrap().unwrap();
        // It sends back what it heard.
        frames::write(&mut stream, &AuthReply::Welcome { proof: opening.proof }, 1 << 12).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let token = realm.authority.token();
    let error = in_time(TokenRpcClient::connect_as(None, address, Endpoint::Head, token)).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::NotCertified { .. }), "{error}");
    assert!(error.to_string().contains("does not know the token's secret"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_apart() {
    let realm = TestCa::new();
    let door = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = door.local_addr().unwrap();
    let visit = TokenRpcClient::connect_as(None, address, Endpoint::Agent, realm.authority.token());
    let closing = async { drop(door.accept().await) };
    let (error, ()) = in_time(futures_util::future::join(visit, closing)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, TokenRpcError::ConnectionClosed { role: Role::Agent, .. }), "{error}");
    drop(door);
    let visit = TokenRpcClient::connect_as(None, address, Endpoint::Agent, realm.authority.token());
    let error = in_time(visit).await.unwrap_err();
    assert!(matches!(error, TokenRpcError::Connect { .. }), "{error}");
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// Comes to a desk by hand, as far as TLS goes.
async fn under_tls(office: &Office) -> Stream {
    let config: ClientConfig = token_rpc::client::config(*office.token().authority(), None).unwrap();
    let mut stream = TcpStream::connect(office.address).await.unwrap();
    stream.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
    let name = ServerName::try_from("head.roadshow").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn say(stream: &mut Stream, proof: &[u8]) -> Option<AuthReply> {
    let opening = AuthRequest { version: VERSION, proof: proof.to_vec() };
    frames::write(stream, &opening, 1 << 12).await.unwrap();
    in_time(frames::read(stream, 1 << 12)).await.ok().flatten()
}

#[tokio::test]
async fn proof_fits_no_other_connection() {
    let office = Office::open().await;
    let (mut one, mut other) = (under_tls(&office).await, under_tls(&office).await);
    let proof = office.token().prove(CLIENT, &binding(one.get_ref().1).unwrap());
    assert!(matches!(say(&mut other, &proof).await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    assert!(matches!(say(&mut one, &proof).await, Some(AuthReply::Welcome { .. })));
    // And none that the server made serves a client.
    let mut third = under_tls(&office).await;
    let proof = office.token().prove(SERVER, &binding(third.get_ref().1).unwrap());
    assert!(matches!(say(&mut third, &proof).await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    office.is_at_peace().await;
}

#[tokio::test]
async fn whoever_proves_nothing_is_not_heard() {
    let office = Office::open().await;
    let mut stream = under_tls(&office).await;
    frames::write(&mut stream, &TokenRequest::Service("hello"), 1 << 12).await.unwrap();
    let heard: Option<TokenReply<String>> = in_time(frames::read(&mut stream, 1 << 12)).await.ok().flatten();
    assert!(heard.is_none());
    let mut stream = under_tls(&office).await;
    assert!(matches!(say(&mut stream, b"").await, Some(AuthReply::Refused(AuthRefusal::Secret))));
    // Nor what is longer than a proof.
    let mut stream = under_tls(&office).await;
    let long = vec![0; TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX];
    frames::write(&mut stream, &long, 1 << 20).await.unwrap();
    assert!(!matches!(in_time(stream.read(&mut [0])).await, Ok(1..)));
    office.is_at_peace().await;
}

#[tokio::test]
async fn whoever_says_nothing_in_time_is_shown_out() {
    let office = Office::open().await;
    let mut stream = under_tls(&office).await;
    tokio::time::pause();
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    let mut raw = TcpStream::connect(office.address).await.unwrap();
    raw.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
    assert!(!matches!(raw.read(&mut [0]).await, Ok(1..)));
}

#[tokio::test]
async fn another_version_is_told_so() {
    let office = Office::open().await;
    let mut stream = under_tls(&office).await;
    let opening = AuthRequest { version: VERSION + 1, proof: vec![0; 32] };
    frames::write(&mut stream, &opening, 1 << 12).await.unwrap();
    let opened = in_time(frames::read(&mut stream, 1 << 12)).await.unwrap();
    assert!(matches!(opened, Some(AuthReply::Refused(AuthRefusal::Version { ours: VERSION }))));
}

#[tokio::test]
async fn garbage_is_shown_out() {
    let office = Office::open().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096]] {
        let mut raw = TcpStream::connect(office.address).await.unwrap();
        raw.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
        raw.write_all(garbage).await.unwrap();
        let mut said = Vec::new();
        // A reset is an end, too.
        let _ = in_time(raw.read_to_end(&mut said)).await;
        assert!(said.len() < 64, "{said:?}");
    }
    office.is_at_peace().await;
}

#[tokio::test]
async fn what_a_visitor_said_is_of_no_use_to_another() {
    let office = Office::open().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (on_the_way, hearing) = (listener.local_addr().unwrap(), Arc::clone(&heard));
    let to = office.address;
    tokio::spawn(async move {
        let (mut near, mut back) = listener.accept().await.unwrap().0.into_split();
        let (mut far, mut forth) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut far, &mut back).await });
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = near.read(&mut bytes).await {
            hearing.lock().unwrap().extend_from_slice(&bytes[..read]);
            forth.write_all(&bytes[..read]).await.unwrap();
        }
    });
    let mut client =
        in_time(TokenRpcClient::connect_as(None, on_the_way, Endpoint::Head, office.token())).await.unwrap();
    in_time(client.ask::<_, String>(&"a known word")).await.unwrap();
    let heard = heard.lock().unwrap().clone();
    assert!(!heard.windows(12).any(|window| window == b"a known word"));
    let mut replay = TcpStream::connect(office.address).await.unwrap();
    replay.write_all(&heard).await.unwrap();
    replay.shutdown().await.unwrap();
    let mut said = Vec::new();
    let _ = in_time(replay.read_to_end(&mut said)).await;
    assert!(!said.windows(12).any(|window| window == b"a known word"));
    office.is_at_peace().await;
}

#[tokio::test]
async fn crowd_that_says_nothing_keeps_nobody_out() {
    let office = Office::open().await;
    let mut crowd = Vec::new();
    for _ in 0..HANDSHAKES_OPEN_MAX + 50 {
        let mut stranger = TcpStream::connect(office.address).await.unwrap();
        stranger.write_all(&Route::HeadTokenRpc.preamble()).await.unwrap();
        crowd.push(stranger);
    }
    office.is_at_peace().await;
    drop(crowd);
}

#[tokio::test]
async fn one_more_than_the_desk_can_serve_is_told_so() {
    let office = Office::open().await;
    let mut served = Vec::new();
    for _ in 0..TOKEN_RPC_CONNECTIONS_MAX {
        served.push(office.visit().await.unwrap());
    }
    let error = office.visit().await.unwrap_err();
    assert!(matches!(error, TokenRpcError::Busy), "{error}");
    drop(served.pop());
    while office.visit().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_understood_or_too_long_costs_one_request() {
    let office = Office::open().await;
    let mut client = office.visit().await.unwrap();
    let error = in_time(client.ask::<_, String>(&7)).await.unwrap_err();
    assert!(error.to_string().contains("does not know that request"), "{error}");
    let error = in_time(client.ask::<_, String>(&"much")).await.unwrap_err();
    assert!(error.to_string().contains("ask for less"), "{error}");
    assert_eq!(in_time(client.ask::<_, String>(&"hello")).await.unwrap(), "hello");
}

#[tokio::test]
async fn visitor_that_asks_nothing_for_long_is_shown_out() {
    let office = Office::open().await;
    let mut client = office.visit().await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(2 * TOKEN_RPC_IDLE_TIMEOUT).await;
    assert!(client.ask::<_, String>(&"hello").await.is_err());
}
