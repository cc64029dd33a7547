//! Calls, payloads, spawns and tasks in another process. The limits in the same run are actors of the same
//! program on another arbiter, and a TCP echo between two processes without any framework.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use actix::{Arbiter, System, SystemRunner};
use criterion::{Criterion, Throughput};
use futures_util::future::join_all;
use roadshow::prelude::*;

/// Calls in flight when throughput is measured.
const IN_FLIGHT: u64 = 1024;

/// Number of actors spawned concurrently.
const SPAWNED: u64 = 64;

/// Size of a small call on the wire, in bytes.
const SMALL_BYTES: usize = 48;

const PAYLOAD_BYTES: usize = 64 << 10;

#[derive(RemoteActor)]
#[remote(handles(Add, EchoBack, EchoAt))]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(start: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(start))
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _ctx: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
struct EchoBack(Payload);

impl Handler<EchoBack> for Counter {
    type Result = MessageResult<EchoBack>;

    fn handle(&mut self, EchoBack(bytes): EchoBack, _ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(bytes)
    }
}

/// Starts a plain TCP echo of this many bytes in the worker's process; the answer is the port.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u16, String>")]
struct EchoAt(usize);

impl Handler<EchoAt> for Counter {
    type Result = Result<u16, String>;

    fn handle(&mut self, EchoAt(bytes): EchoAt, _ctx: &mut Context<Self>) -> Result<u16, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        std::thread::spawn(move || echo(&listener, bytes));
        Ok(port)
    }
}

fn echo(listener: &TcpListener, bytes: usize) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    // Nagle's algorithm would delay small echoes, and the limit would be too low.
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; bytes];
    loop {
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
    }
}

#[roadshow::task]
fn increment(n: u64) -> u64 {
    n.wrapping_add(1)
}

/// Measured actors, and the baselines.
struct Fixture {
    system: SystemRunner,
    cluster: Cluster,
    remote: RemoteAddr<Counter>,
    arbiter: Arbiter,
    local: Addr<Counter>,
}

impl Fixture {
    fn start() -> Self {
        let system = System::new();
        let cluster = system.block_on(Cluster::local(1)).expect("a worker starts");
        let remote = system.block_on(async { cluster.spawn::<Counter>(0).await }).expect("the actor starts");
        let arbiter = Arbiter::new();
        let local = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter(0));
        Self { system, cluster, remote, arbiter, local }
    }

    /// Connects to a plain echo in the worker's process.
    fn echo(&self, bytes: usize) -> TcpStream {
        let port = self.system.block_on(self.remote.send(EchoAt(bytes))).expect("the worker is alive");
        let stream = TcpStream::connect(("127.0.0.1", port.expect("a port is free")));
        let stream = stream.expect("the echo listens");
        stream.set_nodelay(true).expect("TCP has TCP_NODELAY");
        stream
    }
}

fn echoed(stream: &mut TcpStream, bytes: &mut [u8]) {
    stream.write_all(bytes).expect("the echo is alive");
    stream.read_exact(bytes).expect("the echo is alive");
}

fn round_trip(c: &mut Criterion, fixture: &Fixture) {
    let Fixture { system, cluster, remote, local, .. } = fixture;
    let mut group = c.benchmark_group("round trip");
    group.bench_function("remote actor", |b| {
        b.iter(|| system.block_on(remote.send(Add(1))).expect("the worker is alive"));
    });
    group.bench_function("task", |b| {
        b.iter(|| {
            let answer = system.block_on(async { cluster.run(increment::task(1)).await });
            assert_eq!(answer.expect("the worker is alive"), 2);
        });
    });
    group.bench_function("limit: actix, other arbiter", |b| {
        b.iter(|| system.block_on(local.send(Add(1))).expect("the actor is alive"));
    });
    let (mut stream, mut bytes) = (fixture.echo(SMALL_BYTES), [7; SMALL_BYTES]);
    group.bench_function("limit: blocking TCP echo", |b| b.iter(|| echoed(&mut stream, &mut bytes)));
    group.finish();
}

fn in_flight(c: &mut Criterion, fixture: &Fixture) {
    let Fixture { system, cluster, remote, local, .. } = fixture;
    let mut group = c.benchmark_group(format!("{IN_FLIGHT} concurrent calls"));
    group.throughput(Throughput::Elements(IN_FLIGHT));
    group.bench_function("remote actor", |b| {
        b.iter(|| {
            let answers = system.block_on(join_all((0..IN_FLIGHT).map(|_| remote.send(Add(1)))));
            assert!(answers.iter().all(Result::is_ok), "every call is answered");
        });
    });
    group.bench_function("tasks", |b| {
        b.iter(|| {
            let tasks = (0..IN_FLIGHT).map(increment::task);
            let answers = system.block_on(async { cluster.run_all(tasks).await });
            assert_eq!(answers.expect("the worker is alive").last(), Some(&IN_FLIGHT));
        });
    });
    group.bench_function("limit: actix, other arbiter", |b| {
        b.iter(|| {
            let answers = system.block_on(join_all((0..IN_FLIGHT).map(|_| local.send(Add(1)))));
            assert!(answers.iter().all(Result::is_ok), "every call is answered");
        });
    });
    group.finish();
}

fn payload(c: &mut Criterion, fixture: &Fixture) {
    let mut group = c.benchmark_group("echo of 64 KiB");
    // The payload is sent and returned.
    group.throughput(Throughput::Bytes(2 * PAYLOAD_BYTES as u64));
    let payload = Payload::from(vec![7; PAYLOAD_BYTES]);
    group.bench_function("remote actor", |b| {
        b.iter(|| {
            let answer = fixture.system.block_on(fixture.remote.send(EchoBack(payload.clone())));
            assert_eq!(answer.expect("the worker is alive").len(), PAYLOAD_BYTES);
        });
    });
    let (mut stream, mut bytes) = (fixture.echo(PAYLOAD_BYTES), vec![7; PAYLOAD_BYTES]);
    group.bench_function("limit: blocking TCP echo", |b| b.iter(|| echoed(&mut stream, &mut bytes)));
    group.finish();
}

/// Spawns actors concurrently; each answers once and is stopped.
fn spawn(c: &mut Criterion, fixture: &Fixture) {
    let mut group = c.benchmark_group(format!("{SPAWNED} actors spawned concurrently, called and stopped"));
    group.throughput(Throughput::Elements(SPAWNED));
    let spawn_and_stop = |n| async move {
        let actor = fixture.cluster.spawn::<Counter>(n).await.expect("the worker is alive");
        assert_eq!(actor.send(Add(1)).await.expect("the actor is alive"), n + 1);
        actor.stop().await.expect("the worker is alive");
    };
    group.bench_function("remote actors", |b| {
        b.iter(|| fixture.system.block_on(join_all((0..SPAWNED).map(spawn_and_stop))));
    });
    let spawn_and_stop_local = |n| async move {
        let actor = Counter::start_in_arbiter(&fixture.arbiter.handle(), move |_| Counter(n));
        // An actor without addresses stops by itself.
        assert_eq!(actor.send(Add(1)).await.expect("the actor is alive"), n + 1);
    };
    group.bench_function("limit: actix, other arbiter", |b| {
        b.iter(|| fixture.system.block_on(join_all((0..SPAWNED).map(spawn_and_stop_local))));
    });
    group.finish();
}

fn main() {
    // Workers run this executable as well, and must not start the benches.
    roadshow::run_if_worker();
    let fixture = Fixture::start();
    let mut criterion = Criterion::default().configure_from_args();
    round_trip(&mut criterion, &fixture);
    in_flight(&mut criterion, &fixture);
    payload(&mut criterion, &fixture);
    spawn(&mut criterion, &fixture);
    fixture.system.block_on(fixture.cluster.shutdown()).expect("the cluster stops");
    criterion.final_summary();
}
