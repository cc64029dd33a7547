//! Two hosts with TLS links, from message to reply.

use actix::prelude::*;
use bytes::BytesMut;
use roadshow::prelude::*;

use super::*;
use crate::config::Limits;
use crate::host::{Executor, Host, HostConfig};
use crate::id::LinkId;
use crate::remote::actor_services;
use crate::session::{DialAttempt, Handshake, HandshakeConfig, HandshakeError, Secret, Step};
use crate::transport::FrameReader;
use crate::wire::{Purpose, Refusal, Resume, SessionParameters};

const SECRET: [u8; 32] = [7; 32];

#[derive(Default, RemoteActor)]
#[remote(local, handles(Add))]
struct Adder(u64);

impl Actor for Adder {
    type Context = Context<Self>;
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handler<Add> for Adder {
    type Result = u64;

    fn handle(&mut self, Add(more): Add, _: &mut Context<Self>) -> u64 {
        self.0 += more;
        self.0
    }
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(in_time(test));
}

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

/// Starts a host with `identity`, whatever its credentials contain.
async fn start(
    identity: HostUid,
    routed: Routed,
    listen: Option<SocketAddr>,
    limits: Limits,
) -> (Host, ClusterRef) {
    let host = Host::start(HostConfig {
        identity,
        secret: Secret::from_bytes(SECRET),
        limits,
        transport: Arc::new(routed),
        listen,
        io: tokio::runtime::Handle::current(),
        executor: Executor::Arbiter(Arbiter::current()),
        services: Box::new(actor_services),
    })
    .await
    .unwrap();
    let cluster = ClusterRef::new(host.clone());
    (host, cluster)
}

/// A host with an acceptor and an actor.
struct TestServer {
    ca: TestCa,
    identity: HostUid,
    address: SocketAddr,
    host: Host,
    adder: RemoteAddr<Adder>,
}

impl TestServer {
    async fn start(limits: Limits) -> Self {
        let (ca, identity) = (TestCa::new(), fresh_identity());
        let Node { address, routed, .. } = Node::of(identity, ca.credentials(Role::Worker, identity)).await;
        let (host, cluster) = start(identity, routed, Some(address), limits).await;
        let adder = cluster.register(Adder::default().start());
        Self { ca, identity, address, host, adder }
    }

    /// Starts a host with this identity and these credentials, which has the actor's address.
    async fn client_with(&self, me: HostUid, credentials: Credentials, limits: Limits) -> TestClient {
        let (host, cluster) = start(me, dialer(credentials), None, limits).await;
        host.add_peer(self.identity, self.address);
        let adder = cluster.bind(&self.adder);
        TestClient { host, adder }
    }

    async fn assert_healthy(&self) {
        let me = fresh_identity();
        let client = self.client_with(me, self.ca.credentials(Role::Driver, me), Limits::default()).await;
        client.adder.send(Add(0)).await.unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.host.abort();
    }
}

struct TestClient {
    host: Host,
    adder: RemoteAddr<Adder>,
}

impl Drop for TestClient {
    fn drop(&mut self) {
        self.host.abort();
    }
}

#[test]
fn hosts_exchange_messages_over_tls_and_know_their_roles() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let me = fresh_identity();
        assert_eq!(server.host.role_of(me), None);
        let credentials = server.ca.credentials(Role::Driver, me);
        let client = server.client_with(me, credentials, Limits::default()).await;
        assert_eq!(client.adder.send(Add(40)).await, Ok(40));
        assert_eq!(client.adder.send(Add(2)).await, Ok(42));
        assert_eq!(server.host.role_of(me), Some(Role::Driver));
        assert_eq!(client.host.role_of(server.identity), Some(Role::Worker));
        assert_eq!(server.host.is_certified(me, "driver.roadshow"), Some(true));
        assert_eq!(server.host.is_certified(me, "head.roadshow"), Some(false));
    });
}

#[test]
fn host_on_loopback_has_no_certificate_and_no_role() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let (me, you) = (fresh_identity(), fresh_identity());
        let Node { address, routed, .. } = Node::of(you, server.ca.credentials(Role::Worker, you)).await;
        let (there, cluster) =
            start(you, Routed { is_plain, ..routed }, Some(address), Limits::default()).await;
        let adder = cluster.register(Adder::default().start());
        let plain = Routed::dial_only(server.ca.credentials(Role::Driver, me));
        let (here, cluster) = start(me, plain, None, Limits::default()).await;
        here.add_peer(you, address);
        assert_eq!(cluster.bind(&adder).send(Add(1)).await, Ok(1));
        assert_eq!((here.role_of(you), there.role_of(me)), (None, None));
        assert_eq!(there.is_certified(me, "driver.roadshow"), None);
        there.abort();
        here.abort();
    });
}

#[test]
fn heartbeats_keep_a_silent_tls_link_alive() {
    run(async {
        let quick = || {
            limits(|limits| {
                limits.heartbeat_interval = Duration::from_millis(50);
                limits.heartbeat_timeout = Duration::from_secs(1);
            })
        };
        let server = TestServer::start(quick()).await;
        let me = fresh_identity();
        let client = server.client_with(me, server.ca.credentials(Role::Driver, me), quick()).await;
        client.adder.send(Add(1)).await.unwrap();
        // Twice the heartbeat timeout.
        tokio::time::sleep(Duration::from_millis(2200)).await;
        assert_eq!(client.adder.send(Add(1)).await, Ok(2));
        for peers in [client.host.snapshot().peers, server.host.snapshot().peers] {
            assert_eq!(peers.iter().map(|peer| (peer.linked, peer.links)).collect::<Vec<_>>(), [(true, 1)]);
        }
    });
}

#[test]
fn large_messages_pass_over_tls() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let me = fresh_identity();
        let client = server.client_with(me, server.ca.credentials(Role::Driver, me), Limits::default()).await;
        let calls = (0..2000).map(|_| client.adder.send(Add(1)));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.into_iter().map(Result::unwrap).eq(1..=2000));
    });
}

#[test]
fn host_with_the_certificate_of_another_is_refused_with_a_reason() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let (me, other) = (fresh_identity(), fresh_identity());
        let credentials = server.ca.credentials(Role::Driver, other);
        let client = server.client_with(me, credentials, Limits::default()).await;
        let error = client.adder.send(Add(1)).await.unwrap_err();
        assert!(error.is_not_delivered(), "{error}");
        let text = format!("the link's certificate is not for host {me}");
        assert!(error.to_string().contains(&text), "{error}");
        assert!(server.host.snapshot().peers.is_empty());
        server.assert_healthy().await;
    });
}

#[test]
fn refused_certificate_has_its_own_reason() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let (me, other) = (fresh_identity(), fresh_identity());
        let routed = dialer(server.ca.credentials(Role::Driver, other));
        let link = routed.connect(server.address, server.identity).await.unwrap();
        let error = shake(link, me, server.identity).await.unwrap_err();
        let HandshakeError::Refused { reason, proven, .. } = error else { panic!("{error}") };
        assert_eq!((reason, proven), (Refusal::Certificate, true));
        // A valid certificate alone is not enough either: the secret is verified as well.
        server.assert_healthy().await;
    });
}

#[test]
fn rejected_certificates_fail_the_first_connection_early() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let me = fresh_identity();
        let expired = server.ca.expired(Role::Driver, me);
        let client = server.client_with(me, expired, Limits::default()).await;
        let error = client.adder.send(Add(1)).await.unwrap_err();
        assert!(error.is_not_delivered() && error.to_string().contains("has expired"), "{error}");
        let other = TestCa::new().credentials(Role::Driver, me);
        let client = server.client_with(me, other, Limits::default()).await;
        let error = client.adder.send(Add(1)).await.unwrap_err();
        assert!(error.is_not_delivered() && error.to_string().contains("authority"), "{error}");
        server.assert_healthy().await;
    });
}

#[test]
fn link_is_replaced_when_a_certificate_expires_and_calls_continue() {
    run(async {
        let server = TestServer::start(Limits::default()).await;
        let me = fresh_identity();
        // Validity ends at a full second.
        let mine = server.ca.ending_in(Duration::from_secs(3), Role::Driver, me);
        let client = server.client_with(me, mine.clone(), Limits::default()).await;
        assert_eq!(client.adder.send(Add(1)).await.unwrap(), 1);
        server.ca.renew(&mine, Role::Driver, me);
        let links = || client.host.snapshot().peers[0].links;
        assert_eq!(links(), 1);
        let mut sum = 1;
        while links() == 1 {
            sum += 1;
            assert_eq!(client.adder.send(Add(1)).await.unwrap(), sum);
        }
        assert_eq!(client.adder.send(Add(1)).await.unwrap(), sum + 1);
        assert_eq!(client.host.snapshot().dead_letters, 0);
    });
}

#[test]
fn silent_connections_do_not_block_others() {
    run(async {
        let server = TestServer::start(limits(|limits| {
            limits.handshakes_open_max = 4;
            // They would stay open for the whole test.
            limits.handshake_timeout = Duration::from_secs(3600);
        }))
        .await;
        let mut connections = Vec::new();
        for at in 0..40 {
            let mut connection = TcpStream::connect(server.address).await.unwrap();
            connection.write_all(&Route::Host(server.identity.host).preamble()).await.unwrap();
            if at % 2 == 0 {
                // The first bytes of a handshake.
                connection.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
            }
            connections.push(connection);
        }
        server.assert_healthy().await;
        drop(connections);
    });
}

#[test]
fn silent_connection_is_closed() {
    run(async {
        let server =
            TestServer::start(limits(|limits| limits.handshake_timeout = Duration::from_millis(100))).await;
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        connection.write_all(&Route::Host(server.identity.host).preamble()).await.unwrap();
        // A reset is accepted as well.
        assert!(!matches!(connection.read(&mut [0]).await, Ok(1..)));
        server.assert_healthy().await;
    });
}

async fn shake(link: Box<dyn Link>, me: HostUid, to: HostUid) -> Result<(), HandshakeError> {
    let terms = SessionParameters {
        frame_bytes_max: 1 << 20,
        outgoing_bytes_max: 1 << 20,
        window_bytes: 1 << 20,
        schema: 0,
    };
    let config = HandshakeConfig { local: me, secret: Secret::from_bytes(SECRET), terms, timeout: PATIENCE };
    let attempt = DialAttempt {
        to,
        purpose: Purpose::Link,
        link: LinkId(1),
        replaces: LinkId::NONE,
        resume: Resume::default(),
    };
    let now = std::time::Instant::now();
    let mut handshake = Handshake::connect(now, config, attempt, [1; 32]);
    let mut frames = FrameReader::handshake(link);
    loop {
        let mut bytes = BytesMut::new();
        while let Some(frame) = handshake.poll_transmit() {
            frame.put(&mut bytes);
        }
        frames.get_mut().write_all(&bytes).await.unwrap();
        frames.get_mut().flush().await.unwrap();
        if let Step::Established(_) = handshake.receive(now, frames.next().await.unwrap())? {
            return Ok(());
        }
    }
}
