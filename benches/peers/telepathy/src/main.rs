//! actix-telepathy: remote messages are one-way, so a call is a message there and a message back.
//!
//! The client matches them by an id, as an application of this framework has to.

mod actors;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use actix_telepathy::Node;
use actix_telepathy::prelude::*;
use anyhow::{Context as _, Result, bail};
use peers_harness::{ACTORS, Args, Client, Peer, free_port, ready};
use tokio::sync::{mpsc, oneshot};

use actors::{Body, Call, Counter, Plain, Replies, Tell};

/// Calls without a reply so far, by their id.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Body>>>>;

/// Time in which the system's actors register; the framework does not say when they have.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Actors(Arc<Shared>);

struct Shared {
    next: AtomicU64,
    waiting: Waiting,
    counters: Vec<RemoteAddr>,
    /// Address of the actor that takes the replies, as each server knows it.
    own: Vec<RemoteAddr>,
}

impl Actors {
    async fn request(&self, actor: usize, body: Body) -> Result<Body> {
        let shared = &*self.0;
        let id = shared.next.fetch_add(1, Relaxed);
        let (sender, reply) = oneshot::channel();
        shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        shared.counters[actor].do_send(Call { id, body, from: shared.own[actor / ACTORS].clone() });
        reply.await.context("the server left during the call")
    }

    async fn number(&self, actor: usize, body: Body) -> Result<u64> {
        match self.request(actor, body).await? {
            Body::Number(n) => Ok(n),
            _ => bail!("the reply is no number"),
        }
    }

    async fn bytes(&self, body: Body) -> Result<Vec<u8>> {
        match self.request(0, body).await? {
            Body::Bytes(bytes) | Body::Plain(Plain(bytes)) => Ok(bytes),
            _ => bail!("the reply has no bytes"),
        }
    }
}

impl Client for Actors {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        self.number(actor, Body::Number(n)).await
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        self.number(actor, Body::Count).await
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        self.0.counters[actor].do_send(Tell { n });
        Ok(())
    }

    async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.bytes(Body::Bytes(bytes)).await
    }

    async fn echo_plain(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.bytes(Body::Plain(Plain(bytes))).await
    }

    async fn reply(&self, size: u32) -> Result<Vec<u8>> {
        self.bytes(Body::Reply(size)).await
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        self.number(0, Body::Words(words)).await
    }
}

struct Telepathy;

impl Peer for Telepathy {
    type Client = Actors;

    async fn serve(_: Args) -> Result<()> {
        for number in 0..ACTORS {
            Counter::new(number).start();
        }
        let address = free_port()?;
        let _cluster = Cluster::new(address, Vec::new());
        tokio::time::sleep(SETTLE).await;
        ready(address)?;
        std::future::pending().await
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let (servers, waiting) = (args.servers.clone(), Waiting::default());
        // A node listens, too: its peers call it back by this port.
        let own = free_port()?;
        let (joined, mut nodes) = mpsc::channel(servers.len());
        Replies { waiting: waiting.clone(), joined }.start();
        // The subscription to new members is a message, which has to come before the first member.
        tokio::time::sleep(SETTLE).await;
        let _cluster = Cluster::new(own, servers.clone());
        let mut members: Vec<Node> = Vec::new();
        while members.len() < servers.len() {
            members.push(nodes.recv().await.context("the actor for members ended")?);
        }
        let (mut counters, mut replies) = (Vec::new(), Vec::new());
        for server in servers {
            let node =
                members.iter().find(|node| node.socket_addr == server).context("a server did not join")?;
            counters.extend((0..ACTORS).map(|number| node.get_remote_addr(actors::name(number))));
            let mut address = node.get_remote_addr(Replies::ACTOR_ID.to_owned());
            address.node.socket_addr = own;
            replies.push(address);
        }
        Ok(Actors(Arc::new(Shared { next: AtomicU64::new(0), waiting, counters, own: replies })))
    }
}

fn main() -> Result<()> {
    System::new().block_on(async { peers_harness::run::<Telepathy>(Args::from_env()?).await })
}
