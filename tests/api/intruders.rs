//! Unauthenticated connections: each is closed in time and cheaply, and members are still served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use roadshow::Limits;
use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{ActorIncarnation, CallId, HostId, HostUid, LinkId, Target};
use roadshow::internals::session::HandshakeError;
use roadshow::internals::wire::{
    Call, Frame, Hello, Proof, Purpose, Refusal, Refused, Resume, SessionParameters, VERSION,
};
use roadshow::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixtures::{Add, Clerk, Note, Notes};
use crate::hosts::{Plan, TestHost, limits, run};
use crate::raw::{Raw, body_of};

/// Handshake timeout of these hosts; a member's handshake takes some milliseconds.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Additional delay allowed on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

fn guarded() -> Limits {
    limits(|limits| limits.handshake_timeout = TIMEOUT)
}

/// Host with an actor, and a member that talks to it.
struct GuardedHost {
    site: TestHost,
    near: RemoteAddr<Clerk>,
    member: TestHost,
    clerk: RemoteAddr<Clerk>,
}

impl GuardedHost {
    async fn start(limits: Limits) -> Self {
        let (site, member) = (Plan { limits, ..Plan::default() }.start().await, TestHost::start().await);
        let near = site.serve(Clerk::default);
        member.knows(&site);
        let clerk = member.cluster.bind(&near);
        clerk.send(Add(1)).await.unwrap();
        Self { site, near, member, clerk }
    }

    async fn connect(&self, bytes: &[u8]) -> Unauthenticated {
        Unauthenticated::connect(self.site.address(), bytes).await
    }

    /// Checks that a member keeps its link, a new one can join, and no unauthenticated message was handled.
    async fn still_serves_members(&self) {
        self.clerk.send(Add(1)).await.unwrap();
        // A full accept queue would reject new members and keep old links.
        let newcomer = TestHost::start().await;
        newcomer.knows(&self.site);
        newcomer.cluster.bind(&self.near).send(Add(1)).await.unwrap();
        // Unauthenticated peers send notes only.
        assert_eq!(self.near.send(Notes).await, Ok(vec![]));
        assert_eq!(self.site.dead_letters() + self.member.dead_letters(), 0);
    }
}

/// Connection of a peer that need not know the protocol.
struct Unauthenticated {
    stream: TcpStream,
    since: Instant,
}

impl Unauthenticated {
    async fn connect(at: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let since = Instant::now();
        // An error is expected: the host may close the connection before it reads everything.
        let _ = stream.write_all(bytes).await;
        Self { stream, since }
    }

    /// Waits until the host closes the connection, within the time limit, and returns the bytes received.
    async fn closed(mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let end = self.stream.read_to_end(&mut received);
        // A reset closes the connection, too.
        let _ = tokio::time::timeout(TIMEOUT + SLACK, end)
            .await
            .expect("an unauthenticated connection is closed in time");
        assert!(self.since.elapsed() < TIMEOUT + SLACK);
        assert!(
            received.len() <= 512,
            "an unauthenticated peer receives at most 512 bytes, not {}",
            received.len()
        );
        received
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.put(&mut bytes);
    bytes.to_vec()
}

fn hello(to: HostUid) -> Hello {
    let (from, link) = (fresh_identity(), LinkId(5));
    Hello {
        version: VERSION,
        from,
        to,
        link,
        replaces: LinkId::NONE,
        purpose: Purpose::Link,
        terms: SessionParameters {
            frame_bytes_max: 1 << 20,
            outgoing_bytes_max: 1 << 20,
            window_bytes: 1 << 20,
            schema: 0,
        },
        resume: Resume::default(),
        nonce: [3; 32],
    }
}

/// Sends bytes to a host and checks that it closes the connection, with a refusal if the bytes are valid
/// enough for one.
async fn is_closed(bytes: impl Fn(HostUid) -> Vec<u8>, refusal: Option<Refusal>) {
    let guarded_host = GuardedHost::start(guarded()).await;
    let received = guarded_host.connect(&bytes(guarded_host.site.identity())).await.closed().await;
    if let Some(refusal) = refusal {
        let text = String::from_utf8_lossy(&received).into_owned();
        // The byte after the header, which has 8 bytes.
        assert_eq!(received.get(8), Some(&refusal.number()), "{text}");
    }
    guarded_host.still_serves_members().await;
}

#[test]
fn noise_is_rejected() {
    run(is_closed(|_| (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), None));
}

#[test]
fn an_http_request_is_rejected() {
    run(is_closed(|_| b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), None));
}

#[test]
fn an_announced_huge_frame_is_rejected() {
    run(is_closed(|_| [&[0xff; 4][..], &[1, 0, 0, 0], b"RDSH"].concat(), None));
}

#[test]
fn a_silent_connection_is_closed() {
    run(is_closed(|_| Vec::new(), None));
}

#[test]
fn a_connection_that_stops_within_a_frame_is_closed() {
    run(is_closed(|to| bytes_of(&Frame::Hello(Box::new(hello(to))))[..40].to_vec(), None));
}

#[test]
fn a_connection_that_stops_within_the_handshake_is_closed() {
    run(is_closed(|to| bytes_of(&Frame::Hello(Box::new(hello(to)))), None));
}

#[test]
fn a_call_before_the_handshake_is_rejected() {
    run(is_closed(|_| call_an_actor(), None));
}

#[test]
fn a_call_in_place_of_the_proof_is_rejected() {
    run(is_closed(|to| [bytes_of(&Frame::Hello(Box::new(hello(to)))), call_an_actor()].concat(), None));
}

fn call_an_actor() -> Vec<u8> {
    let target = Target { actor: roadshow::internals::id::ActorId(1), incarnation: ActorIncarnation(0) };
    let body = body_of(&Note(666));
    bytes_of(&Frame::Call(Call {
        call: CallId(1),
        target,
        message: Note::HASH,
        timeout_ms: 0,
        low_watermark: None,
        body,
    }))
}

#[test]
fn a_hello_for_another_host_is_refused_with_the_reason() {
    let elsewhere = |to: HostUid| hello(HostUid { host: HostId(to.host.0 ^ 1), ..to });
    run(is_closed(move |to| bytes_of(&Frame::Hello(Box::new(elsewhere(to)))), Some(Refusal::WrongHost)));
}

#[test]
fn a_hello_of_another_version_is_refused_with_the_reason() {
    let later = |to| Hello { version: VERSION + 1, ..hello(to) };
    run(is_closed(move |to| bytes_of(&Frame::Hello(Box::new(later(to)))), Some(Refusal::Version)));
}

#[test]
fn a_hello_with_the_host_s_own_identity_is_rejected() {
    let mirror = |to| Hello { from: to, ..hello(to) };
    run(is_closed(move |to| bytes_of(&Frame::Hello(Box::new(mirror(to)))), Some(Refusal::Malformed)));
}

#[test]
fn a_wrong_secret_is_detected_on_both_sides() {
    run(async {
        let guarded_host = GuardedHost::start(guarded()).await;
        let outcome = Raw::connect_with(&guarded_host.site, [9; 32]).await.map(|_| ());
        assert!(matches!(outcome, Err(HandshakeError::WrongSecret)), "{outcome:?}");
        guarded_host.still_serves_members().await;
    });
}

#[test]
fn a_guessed_proof_is_refused_with_the_reason() {
    run(async {
        let guarded_host = GuardedHost::start(guarded()).await;
        // Without the secret, a peer can only guess.
        let guess = Frame::Proof(Proof { proof: [0; 32] });
        let bytes =
            [bytes_of(&Frame::Hello(Box::new(hello(guarded_host.site.identity())))), bytes_of(&guess)]
                .concat();
        let received = guarded_host.connect(&bytes).await.closed().await;
        let refused = Refused { reason: Refusal::Secret, text: HandshakeError::WrongSecret.to_string() };
        let refused = bytes_of(&Frame::Refused(refused));
        assert!(received.ends_with(&refused), "{}", String::from_utf8_lossy(&received));
        guarded_host.still_serves_members().await;
    });
}

#[test]
fn a_replayed_handshake_opens_no_second_link() {
    run(async {
        let guarded_host = GuardedHost::start(guarded()).await;
        let recorded = Raw::recorded_handshake(&guarded_host.site).await;
        let received = guarded_host.connect(&recorded).await.closed().await;
        let text = String::from_utf8_lossy(&received).into_owned();
        // The host's nonce differs in each handshake, so an old proof does not fit.
        assert!(text.contains("does not know the secret"), "{text}");
        guarded_host.still_serves_members().await;
    });
}

#[test]
fn many_silent_connections_keep_no_member_out() {
    const CROWD: usize = 300;
    run(async {
        let crowded = limits(|limits| {
            limits.handshakes_open_max = 8;
            // No timeout within the test: only the limit on open handshakes can make space for members.
            limits.handshake_timeout = Duration::from_secs(3600);
        });
        let guarded_host = GuardedHost::start(crowded).await;
        let crowd = join_all((0..CROWD).map(|_| guarded_host.connect(b""))).await;
        guarded_host.still_serves_members().await;
        // All but the last eight are closed to make space. The kernel's order of accepting decides which
        // those are.
        let mut ends: FuturesUnordered<_> = crowd.into_iter().map(Unauthenticated::closed).collect();
        for _ in 0..CROWD - 8 {
            assert_eq!(ends.next().await, Some(vec![]));
        }
        guarded_host.still_serves_members().await;
        drop(ends);
    });
}

/// Returns the resident memory of a process, in bytes.
fn resident(pid: u32) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn unauthenticated_connections_use_little_memory_of_a_worker() {
    const STRANGERS: usize = 200;
    run(async {
        let mut cluster = Cluster::builder().workers(1);
        cluster = cluster.limits(guarded());
        let cluster = cluster.start().await.unwrap();
        let worker = cluster.workers().remove(0);
        let clerk = cluster.spawn::<Clerk>(()).await.unwrap();
        // After the first spawn, which allocates as well.
        let before = resident(worker.pid);
        // Each announces the maximum length of a frame, and half of them also send 100 kB of it.
        // A host that allocates by the announced length would need gigabytes.
        let longest = [&[0xff; 4][..], &[1, 0, 0, 0], b"RDSH"].concat();
        let long: Vec<u8> = [&longest[..], &vec![7; 100_000]].concat();
        let at = worker.address;
        let knocks =
            (0..STRANGERS).map(|n| Unauthenticated::connect(at, if n % 2 == 0 { &longest } else { &long }));
        let strangers = join_all(knocks).await;
        join_all(strangers.into_iter().map(Unauthenticated::closed)).await;
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        let grown = resident(worker.pid).saturating_sub(before);
        assert!(grown < 8 << 20, "{STRANGERS} strangers cost {grown} bytes");
        cluster.shutdown().await.unwrap();
    });
}
