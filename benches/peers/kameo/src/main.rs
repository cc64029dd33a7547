//! kameo with `remote`: libp2p over TCP with noise and yamux; actors are looked up by name.

mod actor;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use kameo::actor::{RemoteActorRef, Spawn};
use kameo::remote::{Behaviour, messaging};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, multiaddr::Protocol, noise, tcp, yamux};
use peers_harness::{ACTORS, Args, Client, Peer, ready};
use tokio::sync::mpsc;

use actor::{Bytes, Call, Count, Counter, Plain, Reply, Words};

/// Calls of one peer at a time; the default is 100, fewer than a load has.
const STREAMS_MAX: usize = 4096;

/// Longest request and reply; the default for requests is 1 MiB, a little less than a load needs.
const MESSAGE_MAX: u64 = 64 << 20;

/// Time for which a connection without messages stays.
const IDLE: Duration = Duration::from_secs(3600);

/// Time between two look-ups of a name.
const LOOK: Duration = Duration::from_millis(20);

/// Name of an actor. Names are the swarm's, so the port of its server is part of it.
fn name(port: u16, actor: usize) -> String {
    format!("counter-{port}-{actor}")
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Swarm as kameo's `bootstrap` makes it, without QUIC and mDNS, and with the limits above.
fn swarm() -> Result<Swarm<Behaviour>> {
    let config = messaging::Config::default()
        .with_max_concurrent_streams(STREAMS_MAX)
        .with_request_size_maximum(MESSAGE_MAX)
        .with_response_size_maximum(MESSAGE_MAX);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| Behaviour::new(key.public().to_peer_id(), config))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build();
    swarm.behaviour().init_global();
    Ok(swarm)
}

/// Runs a swarm, and tells of the addresses that it listens on.
fn drive(mut swarm: Swarm<Behaviour>, listening: mpsc::Sender<Multiaddr>) {
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                // The receiver reads one address, and may be dropped afterwards.
                SwarmEvent::NewListenAddr { address, .. } => drop(listening.try_send(address)),
                SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } if endpoint.is_dialer() => {
                    swarm.add_peer_address(peer_id, endpoint.get_remote_address().clone());
                }
                _ => {}
            }
        }
    });
}

#[derive(Clone)]
struct Actors(Vec<RemoteActorRef<Counter>>);

impl Client for Actors {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.0[actor].ask(&Call(n)).send().await?)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        Ok(self.0[actor].ask(&Count).send().await?)
    }

    async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.0[0].ask(&Bytes(bytes)).send().await?.0)
    }

    async fn echo_plain(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.0[0].ask(&Plain(bytes)).send().await?.0)
    }

    async fn reply(&self, size: u32) -> Result<Vec<u8>> {
        Ok(self.0[0].ask(&Reply(size)).send().await?.0)
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        Ok(self.0[0].ask(&Words(words)).send().await?)
    }
}

struct Kameo;

impl Peer for Kameo {
    type Client = Actors;

    async fn serve(_: Args) -> Result<()> {
        let mut swarm = swarm()?;
        swarm.listen_on(multiaddr((Ipv4Addr::LOCALHOST, 0).into()))?;
        let (sender, mut listening) = mpsc::channel(1);
        drive(swarm, sender);
        let address = listening.recv().await.context("the swarm has ended")?;
        let port =
            address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
        let port = port.context("the swarm listens on no TCP port")?;
        for actor in 0..ACTORS {
            Counter::spawn(Counter::default()).register(name(port, actor)).await?;
        }
        ready(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        std::future::pending().await
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let mut swarm = swarm()?;
        for address in &args.servers {
            swarm.dial(multiaddr(*address))?;
        }
        drive(swarm, mpsc::channel(1).0);
        let mut actors = Vec::new();
        for address in &args.servers {
            for actor in 0..ACTORS {
                actors.push(find(name(address.port(), actor)).await);
            }
        }
        Ok(Actors(actors))
    }
}

/// Looks up an actor until it is registered. The caller's connect timeout ends the search.
async fn find(name: String) -> RemoteActorRef<Counter> {
    loop {
        match RemoteActorRef::lookup(name.as_str()).await {
            Ok(Some(actor)) => return actor,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Kameo>()
}
