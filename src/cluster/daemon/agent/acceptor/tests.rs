//! Who gets in at a door, and who does not.

mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;
use crate::id::HostId;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);
const HERE: Route = Route::Host(HostId(7));

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it ends in time")
}

/// One host and a desk.
#[derive(Debug)]
struct House {
    host: mpsc::Sender<net::TcpStream>,
    asked: Mutex<Vec<Route>>,
}

impl ConnectionRouter for House {
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError> {
        self.asked.lock().unwrap().push(route);
        match route {
            HERE => self.host.try_send(stream).map_err(|_| HandoffError::Full),
            _ => Err(HandoffError::Unknown),
        }
    }
}

struct Open {
    door: Arc<Acceptor>,
    house: Arc<House>,
    incoming: mpsc::Receiver<net::TcpStream>,
}

impl Open {
    async fn door() -> Self {
        let (host, incoming) = mpsc::channel(1);
        let house = Arc::new(House { host, asked: Mutex::default() });
        let door = Arc::new(Acceptor::bind(LOOPBACK).await.unwrap());
        let (opened, rooms) = (Arc::clone(&door), Arc::clone(&house));
        tokio::spawn(async move { opened.accept_loop(rooms).await });
        Self { door, house, incoming }
    }

    async fn knock(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.door.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn is_at_peace(&mut self) {
        let mut stream = self.knock(&HERE.preamble()).await;
        stream.write_all(b"hello").await.unwrap();
        let there = in_time(self.incoming.recv()).await.unwrap();
        let mut there = TcpStream::from_std(there).unwrap();
        let mut said = [0; 5];
        in_time(there.read_exact(&mut said)).await.unwrap();
        assert_eq!(&said, b"hello");
    }
}

async fn is_shown_out(mut stream: TcpStream) {
    // A reset is an end, too.
    assert!(!matches!(in_time(stream.read(&mut [0])).await, Ok(1..)));
}

#[tokio::test]
async fn connection_goes_where_its_preamble_says_and_no_byte_behind_that_is_lost() {
    let mut open = Open::door().await;
    open.is_at_peace().await;
    let whole = [&HERE.preamble()[..], b"hello"].concat();
    let stream = open.knock(&whole).await;
    let there = in_time(open.incoming.recv()).await.unwrap();
    let mut said = [0; 5];
    in_time(TcpStream::from_std(there).unwrap().read_exact(&mut said)).await.unwrap();
    assert_eq!((&said, open.door.rejected()), (b"hello", 0));
    drop(stream);
}

#[tokio::test]
async fn connection_for_nobody_here_is_closed_and_counted() {
    let mut open = Open::door().await;
    for route in [Route::HeadTokenRpc, Route::AgentTokenRpc, Route::Host(HostId(8))] {
        is_shown_out(open.knock(&route.preamble()).await).await;
    }
    assert_eq!(open.door.rejected(), 3);
    assert_eq!(
        *open.house.asked.lock().unwrap(),
        [Route::HeadTokenRpc, Route::AgentTokenRpc, Route::Host(HostId(8))]
    );
    open.is_at_peace().await;
}

#[tokio::test]
async fn connection_that_is_none_of_the_clusters_is_closed_and_nobody_hears_of_it() {
    let mut open = Open::door().await;
    for garbage in [&b"GET / HTTP/1.1\r\nHost: me\r\n\r\n"[..], &[0; 16], b"RDRT\0\x02\0\x01\0\0\0\0\0\0\0\0"]
    {
        is_shown_out(open.knock(garbage).await).await;
    }
    let mut cut = open.knock(&HERE.preamble()[..15]).await;
    cut.shutdown().await.unwrap();
    is_shown_out(cut).await;
    assert_eq!(open.door.rejected(), 4);
    assert!(open.house.asked.lock().unwrap().is_empty());
    open.is_at_peace().await;
}

#[tokio::test]
async fn one_more_than_a_host_has_room_for_is_closed() {
    let mut open = Open::door().await;
    let waits = open.knock(&HERE.preamble()).await;
    while open.house.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    is_shown_out(open.knock(&HERE.preamble()).await).await;
    assert_eq!(open.door.rejected(), 1);
    in_time(open.incoming.recv()).await.unwrap();
    open.is_at_peace().await;
    drop(waits);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_say_in_time_for_whom_it_is_is_shown_out() {
    let open = Open::door().await;
    for start in [0, 1, 15] {
        let mut stream = open.knock(&HERE.preamble()[..start]).await;
        assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    }
    assert_eq!(open.door.rejected(), 3);
}

#[tokio::test]
async fn crowd_that_says_nothing_keeps_nobody_out() {
    let mut open = Open::door().await;
    let mut crowd = Vec::new();
    for _ in 0..HANDSHAKES_OPEN_MAX + 50 {
        crowd.push(open.knock(b"").await);
    }
    open.is_at_peace().await;
    drop(crowd);
}
