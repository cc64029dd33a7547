//! Unauthenticated connections: they are rejected, and do not harm members.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use roadshow::internals::config::{HANDSHAKE_TIMEOUT, HANDSHAKES_OPEN_MAX};
use roadshow::internals::id::HostId;
use roadshow::internals::transport::{Role, Route};
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::job::{Job, SpawnOptions, program};
use super::test_cluster::{TestCluster, refused};
use super::tokens::is_as_before;

/// Maximum time until a node closes a connection.
const CLOSED_WITHIN: Duration = HANDSHAKE_TIMEOUT.saturating_mul(4);

fn address(site: &TestCluster) -> SocketAddr {
    site.address.parse().unwrap()
}

fn dial(site: &TestCluster) -> TcpStream {
    let stream = TcpStream::connect(address(site)).unwrap();
    stream.set_read_timeout(Some(CLOSED_WITHIN)).unwrap();
    stream
}

/// Waits until the peer has closed the connection, and returns the bytes received before.
#[track_caller]
fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => received,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => received,
        Err(error) => panic!("it is not closed within {CLOSED_WITHIN:?}: {error}"),
    }
}

/// Route to the agent of the head's node.
fn agent(site: &TestCluster) -> Route {
    Route::Host(HostId(u64::from_str_radix(&site.nodes[0].id, 16).unwrap()))
}

#[test]
fn silent_connections_are_closed_and_keep_no_member_out() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    // More connections than the node allows before their handshake.
    let silent: Vec<_> = (0..HANDSHAKES_OPEN_MAX + 50).map(|_| dial(&site)).collect();
    let routes = [Route::HeadTokenRpc, Route::AgentTokenRpc, Route::Host(HostId::HEAD), agent(&site)];
    let half_open: Vec<_> = routes
        .map(|route| {
            let mut stream = dial(&site);
            stream.write_all(&route.preamble()).unwrap();
            stream
        })
        .into();
    // While all of these connections are open.
    is_as_before(&site);
    for stream in silent {
        assert_eq!(closed(stream), b"");
    }
    half_open.into_iter().for_each(|stream| drop(closed(stream)));
}

#[test]
fn connections_with_invalid_bytes_are_closed() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut random = vec![0; 64 << 10];
    fastrand::Rng::with_seed(1).fill(&mut random);
    let preambles = [
        Vec::new(),
        Route::HeadTokenRpc.preamble().to_vec(),
        Route::AgentTokenRpc.preamble().to_vec(),
        Route::Host(HostId::HEAD).preamble().to_vec(),
        Route::Host(HostId(7)).preamble().to_vec(),
        agent(&site).preamble().to_vec(),
    ];
    for preamble in preambles {
        for said in [&b"GET / HTTP/1.1\r\nHost: roadshow\r\n\r\n"[..], &random, &[0; 5000], &[255; 5000]] {
            let mut stream = dial(&site);
            // The node may close the connection before all of it is written.
            let _ = stream.write_all(&[&preamble, said].concat());
            let received = closed(stream);
            assert!(received.len() < 1000, "{} bytes to an unauthenticated peer", received.len());
        }
    }
    is_as_before(&site);
}

/// Starts a TLS server with its own certificate, and records the bytes that its clients send.
fn impostor(certificates: Vec<Vec<u8>>, key: &KeyPair) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates.into_iter().map(Into::into).collect();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    config.alpn_protocols = vec![b"roadshow-token-rpc/1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let record = Arc::clone(&received);
    // The thread is never joined; it ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = record_client(stream, Arc::clone(&config), &record);
        }
    });
    (address, received)
}

fn record_client(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    record: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    let mut preamble = [0; roadshow::internals::transport::PREAMBLE_BYTES];
    stream.read_exact(&mut preamble)?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut bytes = [0; 1024];
    let count = rustls::StreamOwned::new(connection, stream).read(&mut bytes)?;
    record.lock().unwrap().extend_from_slice(&bytes[..count]);
    Ok(())
}

/// Self-signed certificate with the names of the head's and an agent's token RPC.
fn self_signed() -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([Role::Head.name(), Role::Agent.name()]).unwrap();
    (params.self_signed(&key).unwrap().der().to_vec(), key)
}

#[test]
fn self_signed_certificate_with_the_head_s_name_is_rejected_by_clients() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let (certificate, key) = self_signed();
    let authority = std::fs::read(site.state().join("authority.crt")).unwrap();
    // Alone, twice, and with the cluster's real CA certificate, which is public.
    let chains = [
        (vec![certificate.clone()], "another cluster"),
        (vec![certificate.clone(), certificate.clone()], "another cluster"),
        (vec![certificate, authority], "token's cluster"),
    ];
    for (chain, expected) in chains {
        let (at, received) = impostor(chain, &key);
        let at = at.to_string();
        for arguments in [&["list", "nodes"][..], &["start", "--host=127.0.0.1"]] {
            let (code, said) = refused(site.roadshow(&[arguments, &["--address", &at]].concat()));
            assert!(code == 4 && said.contains(expected), "{code}: {said}");
        }
        let mut command = program(&site, "obey");
        command.env("ROADSHOW_ADDRESS", &at).env("ROADSHOW_TOKEN", &site.token);
        let Err(said) = Job::start(command) else { panic!("the program joins an impostor") };
        assert!(said.contains(expected), "{said}");
        assert_eq!(received.lock().unwrap().as_slice(), b"", "the impostor has received data");
    }
    is_as_before(&site);
}

/// Bytes that the clients of a proxy have sent, one entry for each connection.
type Recorded = Arc<Mutex<Vec<Vec<u8>>>>;

/// Starts a proxy that records the bytes of its clients.
fn recording_proxy(to: SocketAddr) -> (SocketAddr, Recorded) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let recorded = Recorded::default();
    let all = Arc::clone(&recorded);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let number = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                forward(client, server, |said| {
                    all.lock().unwrap()[number].extend_from_slice(said);
                })
            });
        }
    });
    (at, recorded)
}

fn forward(mut client: TcpStream, mut server: TcpStream, mut record: impl FnMut(&[u8])) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        record(&bytes[..count]);
        if server.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn replayed_handshake_is_rejected() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let (proxy, recorded) = recording_proxy(address(&site));
    let mut command = program(&site, "obey");
    command.env("ROADSHOW_ADDRESS", proxy.to_string()).env("ROADSHOW_TOKEN", &site.token);
    let mut job = Job::join_with(command);
    job.spawn("a", SpawnOptions::default());
    assert_eq!(job.add("a", 1), 1);
    job.finish();
    let recorded = recorded.lock().unwrap().clone();
    let begins = |route: Route| recorded.iter().any(|said| said.starts_with(&route.preamble()));
    assert!(
        begins(Route::HeadTokenRpc) && begins(Route::Host(HostId::HEAD)),
        "the program did not connect through the proxy"
    );
    let (jobs, actors) = (site.list("jobs"), site.list("actors"));
    for said in recorded {
        let mut stream = dial(&site);
        // The node may close the connection before all of it is written.
        let _ = stream.write_all(&said);
        let received = closed(stream);
        println!("{} bytes replayed, {} received", said.len(), received.len());
        assert!(received.len() < 4000, "{} bytes to a replay", received.len());
    }
    assert_eq!((site.list("jobs"), site.list("actors")), (jobs, actors));
    assert_eq!(site.list("nodes")[0]["state"], "ALIVE");
}
