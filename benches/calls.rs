//! A call to an actor in another process, beside its limits in the same run: an actor of the same
//! program on another arbiter, and an echo over TCP between two processes without any framework.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use actix::Arbiter;
use criterion::{Criterion, Throughput};
use futures_util::future::join_all;
use roadshow::prelude::*;

/// Calls in flight where throughput is measured.
const IN_FLIGHT: u64 = 1024;

/// As many bytes as a small call has on the wire.
const ECHO_BYTES: usize = 48;

#[derive(RemoteActor)]
#[remote(handles(Add, EchoAt))]
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

/// Serves a plain TCP echo from the worker's process; the answer is the port.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u16, String>")]
struct EchoAt;

impl Handler<EchoAt> for Counter {
    type Result = Result<u16, String>;

    fn handle(&mut self, _: EchoAt, _ctx: &mut Context<Self>) -> Result<u16, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        std::thread::spawn(move || echo(&listener));
        Ok(port)
    }
}

fn echo(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; ECHO_BYTES];
    loop {
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
    }
}

fn round_trip(
    c: &mut Criterion,
    system: &actix::SystemRunner,
    remote: &RemoteAddr<Counter>,
    local: &Addr<Counter>,
) {
    let mut group = c.benchmark_group("round trip");
    group.bench_function("remote actor", |b| {
        b.iter(|| system.block_on(remote.send(Add(1))).expect("the worker lives"));
    });
    group.bench_function("limit: actix, other arbiter", |b| {
        b.iter(|| system.block_on(local.send(Add(1))).expect("the actor lives"));
    });
    let port = system.block_on(remote.send(EchoAt)).expect("the worker lives").expect("a port is free");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the echo listens");
    stream.set_nodelay(true).expect("TCP has TCP_NODELAY");
    let mut bytes = [7; ECHO_BYTES];
    group.bench_function("limit: blocking TCP echo", |b| {
        b.iter(|| {
            stream.write_all(&bytes).expect("the echo lives");
            stream.read_exact(&mut bytes).expect("the echo lives");
        });
    });
    group.finish();
}

fn in_flight(
    c: &mut Criterion,
    system: &actix::SystemRunner,
    remote: &RemoteAddr<Counter>,
    local: &Addr<Counter>,
) {
    let mut group = c.benchmark_group(format!("{IN_FLIGHT} calls at once"));
    group.throughput(Throughput::Elements(IN_FLIGHT));
    group.bench_function("remote actor", |b| {
        b.iter(|| system.block_on(join_all((0..IN_FLIGHT).map(|_| remote.send(Add(1))))));
    });
    group.bench_function("limit: actix, other arbiter", |b| {
        b.iter(|| system.block_on(join_all((0..IN_FLIGHT).map(|_| local.send(Add(1))))));
    });
    group.finish();
}

fn main() {
    roadshow::divert();
    let system = actix::System::new();
    let cluster = system.block_on(Cluster::local(1)).expect("a worker starts");
    let remote = system.block_on(async { cluster.spawn::<Counter>(0).await }).expect("the actor starts");
    let arbiter = Arbiter::new();
    let local = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter(0));
    let mut criterion = Criterion::default().configure_from_args();
    round_trip(&mut criterion, &system, &remote, &local);
    in_flight(&mut criterion, &system, &remote, &local);
    criterion.final_summary();
}
