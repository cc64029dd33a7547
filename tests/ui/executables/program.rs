//! Program with one host, built in two editions: the later one has `--cfg later`.
//!
//! As `serve` it has an actor and runs tasks until its standard input ends. As `call ADDRESS` it calls the
//! host at that address and prints the answers.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix::{Arbiter, System};
use roadshow::internals::host::{Executor, Host, HostConfig, Assignment, Placement, PlacementResult, TaskSlot};
use roadshow::internals::id::{HostId, HostUid, Incarnation};
use roadshow::prelude::*;
use roadshow::internals::remote::actor_services;
use roadshow::internals::session::Secret;
use roadshow::internals::task::TaskService;
use roadshow::internals::transport::Tcp;
use roadshow::internals::spec::ActorSpec;
use roadshow::{Limits, TaskFn};

/// Declared equally in both editions.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Total;

/// Declared differently in the two editions.
#[cfg(not(later))]
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

#[cfg(later)]
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u32);

/// Declared equally, except for a type within it.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct AddAll(Vec<(Step, Option<Step>)>);

#[cfg(not(later))]
#[derive(Serialize, Deserialize, RemoteData)]
struct Step {
    up: u64,
    down: u64,
}

#[cfg(later)]
#[derive(Serialize, Deserialize, RemoteData)]
struct Step {
    down: u64,
    up: u64,
}

#[derive(RemoteActor)]
#[remote(handles(Total, Add, AddAll))]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(total: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(total))
    }
}

impl Handler<Total> for Counter {
    type Result = u64;

    fn handle(&mut self, Total: Total, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.0 += u64::from(n);
        self.0
    }
}

impl Handler<AddAll> for Counter {
    type Result = u64;

    fn handle(&mut self, AddAll(steps): AddAll, _: &mut Context<Self>) -> u64 {
        self.0 += steps.iter().map(|(step, _)| step.up - step.down).sum::<u64>();
        self.0
    }
}

#[roadshow::task]
fn double(n: u64) -> u64 {
    2 * n
}

#[cfg(not(later))]
#[roadshow::task]
fn halve(n: u64) -> u64 {
    n / 2
}

#[cfg(later)]
#[roadshow::task]
fn halve(n: u64) -> (u64, bool) {
    (n / 2, n % 2 == 1)
}

const SERVES: HostUid = HostUid { host: HostId(1), incarnation: Incarnation(1) };
const CALLS: HostUid = HostUid { host: HostId(2), incarnation: Incarnation(1) };

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("serve"), None) => serve(),
        (Some("call"), Some(address)) => {
            let address = address.parse()?;
            System::new().block_on(async move { call(start(CALLS).await?, address).await })
        }
        _ => Err("say `serve` or `call ADDRESS`".into()),
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let system = System::new();
    let host = system.block_on(start(SERVES))?;
    println!("{}", host.address().ok_or("it listens")?);
    // The host has its own threads.
    std::io::stdin().read_line(&mut String::new())?;
    println!("dead letters: {}", host.snapshot().dead_letters);
    Ok(())
}

async fn start(identity: HostUid) -> Result<Host, Box<dyn Error>> {
    let io = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = io.handle().clone();
    std::thread::spawn(move || io.block_on(std::future::pending::<()>()));
    let tasks = TaskService::new(handle.clone());
    let config = HostConfig {
        identity,
        secret: Secret::from_bytes([7; 32]),
        limits: Limits::default(),
        transport: Arc::new(Tcp),
        listen: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)),
        io: handle,
        executor: Executor::Arbiter(Arbiter::new().handle()),
        services: Box::new(move |host, name, inbound| {
            if [double::HASH, halve::HASH].contains(&name) {
                tasks.run(host, name, inbound);
            } else {
                actor_services(host, name, inbound);
            }
        }),
    };
    Ok(Host::start(config).await?)
}

async fn call(host: Host, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    host.add_peer(SERVES, address);
    host.set_placement(Arc::new(There));
    let cluster = ClusterRef::new(host.clone());
    let counter = cluster.spawn::<Counter>(40).await?;
    println!("total: {:?}", counter.send(Total).await);
    println!("add: {:?}", counter.send(Add(2)).await);
    println!("add all: {:?}", counter.send(AddAll(vec![(Step { up: 3, down: 1 }, None)])).await);
    println!("add, without an answer: {:?}", counter.tell(Add(2)).await);
    println!("total: {:?}", counter.send(Total).await);
    println!("double: {:?}", cluster.run(double::task(21)).await);
    println!("halve: {:?}", cluster.run(halve::task(21)).await);
    println!("links: {:?}", host.snapshot().peers.iter().map(|peer| peer.links).collect::<Vec<_>>());
    Ok(())
}

/// Placement of everything on the host that serves.
#[derive(Debug)]
struct There;

impl Placement for There {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        PlacementResult::Now(Ok(Assignment { host: SERVES, actor: None, alive: None }))
    }

    fn place_task(&self, _avoided: &[HostUid]) -> Option<TaskSlot> {
        Some(TaskSlot::take(SERVES, Arc::new(AtomicUsize::new(0))))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}
