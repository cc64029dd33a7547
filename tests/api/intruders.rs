//! Strangers at a host's door: each is shown out in time and with little effort, and members are served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use roadshow::Limits;
use roadshow::host::fresh_identity;
use roadshow::id::{ActorIncarnation, CallId, HostId, HostUid, LinkId, Target};
use roadshow::prelude::*;
use roadshow::session::HandshakeError;
use roadshow::wire::{
    Call, Frame, Hello, Proof, Purpose, Refusal, Refused, Resume, SessionParameters, VERSION,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cast::{Add, Clerk, Note, Notes};
use crate::hosts::{Plan, TestHost, limits, run};
use crate::raw::{Raw, body_of};

/// What a stranger may take; a member takes some milliseconds.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How much later a busy machine may notice.
const SLACK: Duration = Duration::from_secs(10);

fn guarded() -> Limits {
    limits(|limits| limits.handshake_timeout = TIMEOUT)
}

/// A host with an actor, and a member that talks to it.
struct House {
    site: TestHost,
    near: RemoteAddr<Clerk>,
    member: TestHost,
    clerk: RemoteAddr<Clerk>,
}

impl House {
    async fn start(limits: Limits) -> Self {
        let (site, member) = (Plan { limits, ..Plan::default() }.start().await, TestHost::start().await);
        let near = site.serve(Clerk::default);
        member.knows(&site);
        let clerk = member.cluster.bind(&near);
        clerk.send(Add(1)).await.unwrap();
        Self { site, near, member, clerk }
    }

    async fn knock(&self, bytes: &[u8]) -> Stranger {
        Stranger::knock(self.site.address(), bytes).await
    }

    /// A member goes on over its link, another one gets in, and no stranger's message was handled.
    async fn is_at_peace(&self) {
        self.clerk.send(Add(1)).await.unwrap();
        let newcomer = TestHost::start().await;
        newcomer.knows(&self.site);
        newcomer.cluster.bind(&self.near).send(Add(1)).await.unwrap();
        assert_eq!(self.near.send(Notes).await, Ok(vec![]));
        assert_eq!(self.site.dead_letters() + self.member.dead_letters(), 0);
    }
}

/// A connection of somebody who need not know the protocol.
struct Stranger {
    stream: TcpStream,
    since: Instant,
}

impl Stranger {
    async fn knock(at: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let since = Instant::now();
        // What is refused early need not be read.
        let _ = stream.write_all(bytes).await;
        Self { stream, since }
    }

    /// Waits for the end of the connection, which comes in time; gives what was said until then.
    async fn shown_out(mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let end = self.stream.read_to_end(&mut heard);
        // A reset is an end, too.
        let _ = tokio::time::timeout(TIMEOUT + SLACK, end).await.expect("a stranger is shown out in time");
        assert!(self.since.elapsed() < TIMEOUT + SLACK);
        assert!(heard.len() <= 512, "a stranger hears little, and not {} bytes", heard.len());
        heard
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

/// What a stranger says, and the refusal that it hears, if it spoke well enough for one.
async fn is_shown_out(words: impl Fn(HostUid) -> Vec<u8>, refusal: Option<Refusal>) {
    let house = House::start(guarded()).await;
    let heard = house.knock(&words(house.site.identity())).await.shown_out().await;
    if let Some(refusal) = refusal {
        let text = String::from_utf8_lossy(&heard).into_owned();
        assert_eq!(heard.get(8), Some(&refusal.number()), "{text}");
    }
    house.is_at_peace().await;
}

#[test]
fn noise_is_shown_out() {
    run(is_shown_out(
        |_| (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        None,
    ));
}

#[test]
fn a_browser_is_shown_out() {
    run(is_shown_out(|_| b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), None));
}

#[test]
fn whoever_announces_a_huge_frame_is_shown_out() {
    run(is_shown_out(|_| [&[0xff; 4][..], &[1, 0, 0, 0], b"RDSH"].concat(), None));
}

#[test]
fn whoever_says_nothing_is_shown_out() {
    run(is_shown_out(|_| Vec::new(), None));
}

#[test]
fn whoever_stops_in_the_middle_of_a_frame_is_shown_out() {
    run(is_shown_out(|to| bytes_of(&Frame::Hello(Box::new(hello(to))))[..40].to_vec(), None));
}

#[test]
fn whoever_stops_in_the_middle_of_the_handshake_is_shown_out() {
    run(is_shown_out(|to| bytes_of(&Frame::Hello(Box::new(hello(to)))), None));
}

#[test]
fn whoever_calls_before_the_handshake_is_shown_out() {
    run(is_shown_out(|_| call_an_actor(), None));
}

#[test]
fn whoever_calls_instead_of_proving_is_shown_out() {
    run(is_shown_out(|to| [bytes_of(&Frame::Hello(Box::new(hello(to)))), call_an_actor()].concat(), None));
}

fn call_an_actor() -> Vec<u8> {
    let target = Target { actor: roadshow::id::ActorId(1), incarnation: ActorIncarnation(0) };
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
fn whoever_wants_another_host_is_told_so() {
    let elsewhere = |to: HostUid| hello(HostUid { host: HostId(to.host.0 ^ 1), ..to });
    run(is_shown_out(move |to| bytes_of(&Frame::Hello(Box::new(elsewhere(to)))), Some(Refusal::WrongHost)));
}

#[test]
fn whoever_speaks_another_version_is_told_so() {
    let later = |to| Hello { version: VERSION + 1, ..hello(to) };
    run(is_shown_out(move |to| bytes_of(&Frame::Hello(Box::new(later(to)))), Some(Refusal::Version)));
}

#[test]
fn whoever_claims_to_be_the_host_itself_is_shown_out() {
    let mirror = |to| Hello { from: to, ..hello(to) };
    run(is_shown_out(move |to| bytes_of(&Frame::Hello(Box::new(mirror(to)))), Some(Refusal::Malformed)));
}

#[test]
fn whoever_knows_another_secret_is_found_out_on_either_side() {
    run(async {
        let house = House::start(guarded()).await;
        let outcome = Raw::connect_with(&house.site, [9; 32]).await.map(|_| ());
        assert!(matches!(outcome, Err(HandshakeError::WrongSecret)), "{outcome:?}");
        house.is_at_peace().await;
    });
}

#[test]
fn whoever_guesses_the_proof_is_refused_and_told_why() {
    run(async {
        let house = House::start(guarded()).await;
        let guess = Frame::Proof(Proof { proof: [0; 32] });
        let words =
            [bytes_of(&Frame::Hello(Box::new(hello(house.site.identity())))), bytes_of(&guess)].concat();
        let heard = house.knock(&words).await.shown_out().await;
        let refused = Refused { reason: Refusal::Secret, text: HandshakeError::WrongSecret.to_string() };
        let refused = bytes_of(&Frame::Refused(refused));
        assert!(heard.ends_with(&refused), "{}", String::from_utf8_lossy(&heard));
        house.is_at_peace().await;
    });
}

#[test]
fn a_handshake_that_was_overheard_opens_no_second_link() {
    run(async {
        let house = House::start(guarded()).await;
        let overheard = Raw::overheard(&house.site).await;
        let heard = house.knock(&overheard).await.shown_out().await;
        let text = String::from_utf8_lossy(&heard).into_owned();
        assert!(text.contains("does not know the secret"), "{text}");
        house.is_at_peace().await;
    });
}

#[test]
fn a_crowd_that_says_nothing_keeps_no_member_out() {
    const CROWD: usize = 300;
    run(async {
        let crowded = limits(|limits| {
            limits.handshakes_open_max = 8;
            // It would stand there for the whole test.
            limits.handshake_timeout = Duration::from_secs(3600);
        });
        let house = House::start(crowded).await;
        let crowd = join_all((0..CROWD).map(|_| house.knock(b""))).await;
        house.is_at_peace().await;
        // All but the last have to make room; who those are is the kernel's to say.
        let mut ends: FuturesUnordered<_> = crowd.into_iter().map(Stranger::shown_out).collect();
        for _ in 0..CROWD - 8 {
            assert_eq!(ends.next().await, Some(vec![]));
        }
        house.is_at_peace().await;
        drop(ends);
    });
}

/// The memory that a process has, in bytes.
fn resident(pid: u32) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn strangers_cost_a_worker_no_memory_to_speak_of() {
    const STRANGERS: usize = 200;
    run(async {
        let mut cluster = Cluster::builder().workers(1);
        cluster = cluster.limits(guarded());
        let cluster = cluster.start().await.unwrap();
        let worker = cluster.workers().remove(0);
        let clerk = cluster.spawn::<Clerk>(()).await.unwrap();
        let before = resident(worker.pid);
        // Each announces as much as the frame's length can say, and half of them go on for a while.
        let longest = [&[0xff; 4][..], &[1, 0, 0, 0], b"RDSH"].concat();
        let long: Vec<u8> = [&longest[..], &vec![7; 100_000]].concat();
        let at = worker.address;
        let knocks = (0..STRANGERS).map(|n| Stranger::knock(at, if n % 2 == 0 { &longest } else { &long }));
        let strangers = join_all(knocks).await;
        join_all(strangers.into_iter().map(Stranger::shown_out)).await;
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        let grown = resident(worker.pid).saturating_sub(before);
        assert!(grown < 8 << 20, "{STRANGERS} strangers cost {grown} bytes");
        cluster.shutdown().await.unwrap();
    });
}
