//! coerce with `remote`: protobuf envelopes, and messages in JSON, as its derive has them.

mod actor;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use coerce::actor::message::{Handler, Message};
use coerce::actor::scheduler::ActorType;
use coerce::actor::system::ActorSystem;
use coerce::actor::{ActorRef, IntoActorId};
use coerce::remote::system::RemoteActorSystem;
use peers_harness::{ACTORS, Args, Client, Peer, free_port, ready};

use actor::{Bytes, Call, Count, Counter, Factory, Plain, Recipe, Reply, Tell, Words};

/// Time between two looks for an actor.
const LOOK: Duration = Duration::from_millis(20);

/// Name of an actor. Names are the cluster's, so the port of its server is part of it.
fn name(port: u16, actor: usize) -> String {
    format!("counter-{port}-{actor}")
}

/// Node of the cluster; its port is its id.
async fn node(port: u16) -> RemoteActorSystem {
    RemoteActorSystem::builder()
        .with_actor_system(ActorSystem::new())
        .with_id(port.into())
        .with_tag(format!("node-{port}"))
        .with_actors(|actors| actors.with_actor(Factory))
        .with_handlers(|handlers| {
            handlers
                .with_handler::<Counter, Call>("Counter.Call")
                .with_handler::<Counter, Count>("Counter.Count")
                .with_handler::<Counter, Tell>("Counter.Tell")
                .with_handler::<Counter, Bytes>("Counter.Bytes")
                .with_handler::<Counter, Plain>("Counter.Plain")
                .with_handler::<Counter, Reply>("Counter.Reply")
                .with_handler::<Counter, Words>("Counter.Words")
        })
        .build()
        .await
}

/// Joins the cluster of the first server; without one the node starts a cluster.
async fn join(system: &RemoteActorSystem, own: SocketAddr, servers: &[SocketAddr]) {
    let mut worker = system.clone().cluster_worker().listen_addr(own);
    if let Some(seed) = servers.first() {
        worker = worker.with_seed_addr(seed);
    }
    // Dropping the node would make it leave the cluster, so the process keeps it.
    std::mem::forget(worker.start().await);
}

#[derive(Clone)]
struct Actors {
    system: RemoteActorSystem,
    server: u64,
    counters: Vec<ActorRef<Counter>>,
}

impl Actors {
    async fn request<M: Message>(&self, actor: usize, message: M) -> Result<M::Result>
    where
        Counter: Handler<M>,
    {
        self.counters[actor].send(message).await.map_err(|error| anyhow!("{error}"))
    }
}

impl Client for Actors {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        self.request(actor, Call(n)).await
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        self.request(actor, Count).await
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        self.counters[actor].notify(Tell(n)).await.map_err(|error| anyhow!("{error}"))
    }

    async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.request(0, Bytes(bytes)).await
    }

    async fn echo_plain(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.request(0, Plain(bytes)).await
    }

    async fn reply(&self, size: u32) -> Result<Vec<u8>> {
        self.request(0, Reply(size)).await
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        self.request(0, Words(words)).await
    }

    async fn spawn(&self) -> Result<()> {
        let deployed = self.system.deploy_actor::<Factory>(None, Recipe, Some(self.server)).await;
        let counter = deployed.map_err(|error| anyhow!("{error:?}"))?;
        let reply = counter.send(Call(0)).await.map_err(|error| anyhow!("{error}"))?;
        ensure!(reply == 1, "the new actor gave a wrong reply");
        Ok(())
    }
}

struct Coerce;

impl Peer for Coerce {
    type Client = Actors;

    async fn serve(args: Args) -> Result<()> {
        // coerce does not report the port that a node has bound.
        let address = free_port()?;
        let system = node(address.port()).await;
        let mut counters = Vec::new();
        for actor in 0..ACTORS {
            let name = name(address.port(), actor);
            let counter = system.actor_system().new_actor(name, Counter::default(), ActorType::Tracked).await;
            counters.push(counter.map_err(|error| anyhow!("{error:?}"))?);
        }
        join(&system, address, &args.servers).await;
        ready(address)?;
        std::future::pending().await
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let own = free_port()?;
        let system = node(own.port()).await;
        join(&system, own, &args.servers).await;
        let mut counters = Vec::new();
        for address in &args.servers {
            for actor in 0..ACTORS {
                counters.push(find(&system, name(address.port(), actor)).await);
            }
        }
        let server = args.servers.first().map_or(0, |server| server.port().into());
        Ok(Actors { system, server, counters })
    }
}

/// Looks up an actor until it is registered. The caller's connect timeout ends the search.
async fn find(system: &RemoteActorSystem, name: String) -> ActorRef<Counter> {
    loop {
        match system.actor_ref(name.clone().into_actor_id()).await {
            Some(actor) => return actor,
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Coerce>()
}
