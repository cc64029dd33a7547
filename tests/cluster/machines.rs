//! Three machines that are connected only by a network.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{HostId, HostUid};
use roadshow::internals::transport::{Role, Route, host_name, host_name_as};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::fixtures::Friend;
use super::job::{Job, Order, SpawnOptions, counted, program, run};
use super::netns::{Capture, Network, listening_ports};
use super::proc::wait_for;
use super::test_cluster::{TestCluster, skipped};
use super::tokens::is_as_before;

/// Network with a number of machines; skips the test where there can be none.
macro_rules! network_or_skip {
    ($machines:expr) => {
        match Network::new($machines) {
            Ok(network) => network,
            Err(why) => {
                skipped(why);
                return;
            }
        }
    };
}

fn site(network: &Network, machines: usize) -> TestCluster {
    let mut site = TestCluster::head_under(network.under(0), &network.address(0), &["--num-cpus=1"]);
    for at in 1..machines {
        site.join_under(&network.under(at), &network.address(at), &["--num-cpus=1"]);
    }
    site
}

#[test]
fn program_runs_on_three_machines_and_the_network_carries_no_plain_text() {
    let network = network_or_skip!(3);
    let joining = network.capture();
    let site = site(&network, 3);
    let joining = joining.map(Capture::end);
    for (at, node) in site.nodes.iter().enumerate() {
        let address: SocketAddr = node.address.parse().unwrap();
        assert_eq!(address.ip().to_string(), network.address(at));
    }
    let (said, errors, status) = run(program(&site, "count 0"));
    assert!(status.success(), "{errors}");
    let pids = counted(&said);
    let nodes: BTreeSet<_> = pids.iter().map(|&pid| site.node_of(pid)).collect();
    assert_eq!(nodes, site.nodes.iter().map(|node| node.id.clone()).collect());

    let message = "a message that must not appear anywhere".repeat(10);
    let mut job = Job::join_with(program(&site, "obey"));
    // From here on, to leave out the executable: it was transferred before, and would be slow to search.
    let working = network.capture();
    for node in &site.nodes {
        job.spawn(&node.id, SpawnOptions::on(node));
        let take = Order::Take(node.id.clone(), message.clone());
        assert_eq!(job.number(take), message.len() as u64);
        let port = node.address.rsplit_once(':').unwrap().1.parse().unwrap();
        assert_eq!(listening_ports(node.agent()), BTreeSet::from([port]), "with a job that runs");
    }
    job.finish();

    let (joining, working) = match (joining, working) {
        (Ok(joining), Ok(working)) => (joining, working),
        (Err(error), _) | (_, Err(error)) => return println!("the traffic was not looked at: {error}"),
    };
    let control = b"what is sent in plain text is found";
    network.on(1, || {
        let socket = UdpSocket::bind((network.address(1), 0)).unwrap();
        socket.send_to(control, (network.address(2), 9)).unwrap();
    });
    let captured = [joining, working.end()].concat();
    println!("the network has carried {} bytes while nodes joined and actors worked", captured.len());
    let has = |text: &[u8]| captured.windows(text.len()).any(|window| window == text);
    // The control packet shows that the capture would have found plain text.
    assert!(has(control), "the capture of {} bytes lacks what was sent in plain text", captured.len());
    assert!(!has(&message.as_bytes()[..37]), "an actor's message is on the network in plain text");
    assert!(!has(&site.token.as_bytes()[60..80]), "the token is on the network in plain text");
}

/// Validity of certificates in seconds; a renewal is due after a third of it.
const SHORT_LIFE_SECONDS: u64 = 4;

#[test]
fn job_keeps_running_while_all_of_its_certificates_are_renewed() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build does not shorten the validity of certificates");
        return;
    }
    let network = network_or_skip!(2);
    let validity = format!("ROADSHOW_TEST_CERTIFICATE_SECONDS={SHORT_LIFE_SECONDS}");
    let under = [network.under(0), vec!["env".to_owned(), validity]].concat();
    let mut site = TestCluster::head_under(under, &network.address(0), &["--num-cpus=1"]);
    site.join_under(&network.under(1), &network.address(1), &["--num-cpus=1"]);
    let mut job = Job::join_with(program(&site, "obey"));
    let far = SpawnOptions { namespace: Some("far".to_owned()), ..SpawnOptions::named("far") };
    job.spawn("far", SpawnOptions { on: Some(site.nodes[1].id.clone()), ..far });
    job.spawn("near", SpawnOptions::on(&site.nodes[0]));
    let friend = |what| Order::Friend("near".to_owned(), what);
    job.number(friend(Friend::Find("far".to_owned(), "far".to_owned())));
    let never = job.begin(Order::Never("far".to_owned()));
    let (begun, mut sum) = (Instant::now(), 0);
    // After three validity periods no link is left that was made with a first or second certificate.
    wait_for("three validity periods have passed", || {
        assert_eq!(job.add("far", 1), sum + 1, "{}", job.errors());
        assert_eq!(job.number(friend(Friend::Add(1))), sum + 2, "{}", job.errors());
        sum += 2;
        (begun.elapsed() > 3 * Duration::from_secs(SHORT_LIFE_SECONDS)).then_some(())
    });
    println!("{sum} calls in {:?}", begun.elapsed());
    assert!(job.look(&never).is_none(), "a call that has no answer has one");
    assert!(site.list("nodes").iter().all(|node| node["state"] == "ALIVE"), "{:#?}", site.list("nodes"));
    job.spawn("new", SpawnOptions::on(&site.nodes[1]));
    assert_eq!(job.add("new", 1), 1);
    job.finish();
}

/// Certificate chain and key of a client.
struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl ClientIdentity {
    /// Issues a certificate for a host with the CA key from a state directory.
    fn signed(state: &Path, host: HostUid, valid_until: Duration) -> Self {
        let key = std::fs::read(state.join("authority.key")).unwrap();
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).unwrap();
        let authority = CertificateDer::from(std::fs::read(state.join("authority.crt")).unwrap());
        let issuer = Issuer::from_ca_cert_der(&authority, key).unwrap();
        let (params, key) = (params(host, valid_until), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self { chain: vec![certificate.der().clone(), authority], key }
    }

    fn self_signed(host: HostUid) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(host, A_DAY_AND_AN_HOUR).self_signed(&key).unwrap();
        Self { chain: vec![certificate.der().clone()], key }
    }
}

/// Certificate parameters with a validity that began one day ago.
fn params(host: HostUid, valid_for: Duration) -> CertificateParams {
    let names = [host_name(host), host_name_as(host, Role::Agent), Role::Agent.name()];
    let mut params = CertificateParams::new(names).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let day_before = SystemTime::now() - Duration::from_secs(24 * 3600);
    params.not_before = day_before.into();
    params.not_after = (day_before + valid_for).into();
    params
}

/// Accepts any server: these tests check if the server accepts the client.
#[derive(Debug)]
struct AcceptAnyServer;

impl ServerCertVerifier for AcceptAnyServer {
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
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
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
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Dials a host of the node, and describes the outcome: the TLS alert, bytes received, or that it waits.
fn dial_result(site: &TestCluster, route: HostId, identity: Option<ClientIdentity>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyServer));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(ClientIdentity { chain, key }) => {
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            config.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    // Without the protocol of links the server would refuse before it checks the certificate.
    config.alpn_protocols = vec![b"roadshow-host/1".to_vec()];
    let mut stream = TcpStream::connect(site.address.parse::<SocketAddr>().unwrap()).unwrap();
    // The preamble precedes TLS: the acceptor chooses the process before any handshake.
    stream.write_all(&Route::Host(route).preamble()).unwrap();
    let name = ServerName::try_from(Role::Agent.name()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    // Enough for an alert. A host that accepts the certificate waits for the client's next step.
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match StreamOwned::new(connection, stream).read(&mut [0; 100]) {
        Ok(count) => format!("{count} bytes"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => "it waits".to_owned(),
        Err(error) => error.to_string(),
    }
}

const A_DAY_AND_AN_HOUR: Duration = Duration::from_secs(25 * 3600);

/// Starts a node that is not on loopback, and checks how its agent answers a client with that identity.
fn off_loopback(
    identity: impl FnOnce(&TestCluster, HostUid) -> Option<ClientIdentity> + Send,
    expected: &[&str],
) {
    let network = network_or_skip!(1);
    let site = site(&network, 1);
    let agent = HostId(u64::from_str_radix(&site.nodes[0].id, 16).unwrap());
    let identity = identity(&site, fresh_identity());
    let result = network.on(0, || dial_result(&site, agent, identity));
    println!("the client gets: {result}");
    assert!(expected.iter().any(|expected| result.contains(expected)), "{result}");
    is_as_before(&site);
}

#[test]
fn off_loopback_a_certificate_of_the_cluster_is_accepted_up_to_the_proof_of_the_secret() {
    off_loopback(
        |site, host| Some(ClientIdentity::signed(&site.state(), host, A_DAY_AND_AN_HOUR)),
        &["it waits", "bytes"],
    );
}

#[test]
fn off_loopback_a_client_without_a_certificate_is_rejected() {
    off_loopback(|_, _| None, &["CertificateRequired"]);
}

#[test]
fn off_loopback_an_expired_certificate_is_rejected() {
    // The validity began a day ago, so it ended 23 hours ago.
    let an_hour = Duration::from_secs(3600);
    off_loopback(
        |site, host| Some(ClientIdentity::signed(&site.state(), host, an_hour)),
        &["CertificateExpired"],
    );
}

#[test]
fn off_loopback_a_self_signed_certificate_with_the_right_name_is_rejected() {
    let refusals = ["UnknownCA", "DecryptError", "BadCertificate"];
    off_loopback(|_, host| Some(ClientIdentity::self_signed(host)), &refusals);
}

#[test]
fn off_loopback_a_certificate_of_another_cluster_is_rejected() {
    let refusals = ["UnknownCA", "DecryptError", "BadCertificate"];
    let other = TestCluster::head(&["--num-cpus=0"]);
    off_loopback(|_, host| Some(ClientIdentity::signed(&other.state(), host, A_DAY_AND_AN_HOUR)), &refusals);
}

#[test]
fn off_loopback_plain_bytes_are_answered_by_nothing_but_a_close() {
    let network = network_or_skip!(1);
    let site = site(&network, 1);
    let agent = HostId(u64::from_str_radix(&site.nodes[0].id, 16).unwrap());
    network.on(0, || {
        for host in [agent, HostId::HEAD] {
            let mut stream = TcpStream::connect(site.address.parse::<SocketAddr>().unwrap()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // The start of a handshake without TLS, as on loopback.
            stream
                .write_all(
                    &[&Route::Host(host).preamble()[..], &[0, 0, 0, 64, 1, 0, 0, 0], &[7; 64]].concat(),
                )
                .unwrap();
            let mut received = Vec::new();
            match stream.read_to_end(&mut received) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            // At most a TLS alert.
            assert!(received.len() < 10, "{received:?}");
        }
    });
    is_as_before(&site);
}
