//! Connections that an acceptor routes, and connections that it rejects.

mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;
use crate::id::HostId;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const HERE: Route = Route::Host(HostId(7));

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("it ends in time")
}

/// Router with one host behind it, which records the requested routes.
#[derive(Debug)]
struct TestRouter {
    host: mpsc::Sender<net::TcpStream>,
    asked: Mutex<Vec<Route>>,
}

impl ConnectionRouter for TestRouter {
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError> {
        self.asked.lock().unwrap().push(route);
        match route {
            HERE => self.host.try_send(stream).map_err(|_| HandoffError::Full),
            _ => Err(HandoffError::Unknown),
        }
    }
}

struct TestAcceptor {
    acceptor: Arc<Acceptor>,
    router: Arc<TestRouter>,
    incoming: mpsc::Receiver<net::TcpStream>,
}

impl TestAcceptor {
    async fn start() -> Self {
        let (host, incoming) = mpsc::channel(1);
        let router = Arc::new(TestRouter { host, asked: Mutex::default() });
        let acceptor = Arc::new(Acceptor::bind(LOOPBACK).await.unwrap());
        let (accepting, routes) = (Arc::clone(&acceptor), Arc::clone(&router));
        tokio::spawn(async move { accepting.accept_loop(routes).await });
        Self { acceptor, router, incoming }
    }

    async fn dial(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.acceptor.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn assert_still_routes(&mut self) {
        let mut stream = self.dial(&HERE.preamble()).await;
        stream.write_all(b"hello").await.unwrap();
        let there = in_time(self.incoming.recv()).await.unwrap();
        let mut there = TcpStream::from_std(there).unwrap();
        let mut received = [0; 5];
        in_time(there.read_exact(&mut received)).await.unwrap();
        assert_eq!(&received, b"hello");
    }
}

async fn assert_closed(mut stream: TcpStream) {
    // A reset also counts as the end.
    assert!(!matches!(in_time(stream.read(&mut [0])).await, Ok(1..)));
}

#[tokio::test]
async fn connection_is_routed_by_its_preamble_without_loss_of_later_bytes() {
    let mut node = TestAcceptor::start().await;
    node.assert_still_routes().await;
    let whole = [&HERE.preamble()[..], b"hello"].concat();
    let stream = node.dial(&whole).await;
    let there = in_time(node.incoming.recv()).await.unwrap();
    let mut received = [0; 5];
    in_time(TcpStream::from_std(there).unwrap().read_exact(&mut received)).await.unwrap();
    assert_eq!((&received, node.acceptor.rejected()), (b"hello", 0));
    drop(stream);
}

#[tokio::test]
async fn connection_for_an_unknown_host_is_closed_and_counted() {
    let mut node = TestAcceptor::start().await;
    for route in [Route::HeadTokenRpc, Route::AgentTokenRpc, Route::Host(HostId(8))] {
        assert_closed(node.dial(&route.preamble()).await).await;
    }
    assert_eq!(node.acceptor.rejected(), 3);
    assert_eq!(
        *node.router.asked.lock().unwrap(),
        [Route::HeadTokenRpc, Route::AgentTokenRpc, Route::Host(HostId(8))]
    );
    node.assert_still_routes().await;
}

#[tokio::test]
async fn malformed_preamble_is_closed_and_not_routed() {
    let mut node = TestAcceptor::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\nHost: me\r\n\r\n"[..], &[0; 16], b"RDRT\0\x02\0\x01\0\0\0\0\0\0\0\0"]
    {
        assert_closed(node.dial(garbage).await).await;
    }
    let mut cut = node.dial(&HERE.preamble()[..15]).await;
    cut.shutdown().await.unwrap();
    assert_closed(cut).await;
    assert_eq!(node.acceptor.rejected(), 4);
    assert!(node.router.asked.lock().unwrap().is_empty());
    node.assert_still_routes().await;
}

#[tokio::test]
async fn connection_above_the_queue_limit_is_closed() {
    let mut node = TestAcceptor::start().await;
    let waits = node.dial(&HERE.preamble()).await;
    while node.router.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_closed(node.dial(&HERE.preamble()).await).await;
    assert_eq!(node.acceptor.rejected(), 1);
    in_time(node.incoming.recv()).await.unwrap();
    node.assert_still_routes().await;
    drop(waits);
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_preamble_is_closed_after_the_timeout() {
    let node = TestAcceptor::start().await;
    for start in [0, 1, 15] {
        let mut stream = node.dial(&HERE.preamble()[..start]).await;
        assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    }
    assert_eq!(node.acceptor.rejected(), 3);
}

#[tokio::test]
async fn flood_of_silent_connections_does_not_block_others() {
    let mut node = TestAcceptor::start().await;
    let mut idle = Vec::new();
    for _ in 0..HANDSHAKES_OPEN_MAX + 50 {
        idle.push(node.dial(b"").await);
    }
    node.assert_still_routes().await;
    drop(idle);
}
