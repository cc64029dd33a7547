//! ractor_cluster: actors are found through process groups.

mod actor;

use std::time::Duration;

use anyhow::{Result, bail};
use peers_harness::{ACTORS, Args, Client, Peer, free_port, ready};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, RpcReplyPort, pg};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage};

use actor::{Counter, Message, Words};

/// Longest frame: the default of 16 MiB is more than any load needs.
const FRAME_MAX: u64 = 64 << 20;

/// Time between two looks at a process group.
const LOOK: Duration = Duration::from_millis(10);

/// Name of an actor's group. Groups are the cluster's, so the port of its server is part of it.
fn group(port: u16, actor: usize) -> String {
    format!("counter-{port}-{actor}")
}

async fn node(port: u16) -> Result<ActorRef<NodeServerMessage>> {
    let mode = Some(NodeConnectionMode::Isolated);
    let node = NodeServer::new(port, "cookie".into(), format!("node-{port}"), "localhost".into(), None, mode)
        .with_listen_addr([127, 0, 0, 1].into())
        .with_max_inbound_frame_size(FRAME_MAX);
    Ok(Actor::spawn(None, node, ()).await?.0)
}

#[derive(Clone)]
struct Actors(Vec<ActorRef<Message>>);

impl Actors {
    async fn request<T: Send + 'static>(
        &self,
        actor: usize,
        message: impl FnOnce(RpcReplyPort<T>) -> Message,
        limit: Option<Duration>,
    ) -> Result<T> {
        match self.0[actor].call(message, limit).await? {
            CallResult::Success(reply) => Ok(reply),
            CallResult::Timeout => bail!("the call timed out"),
            CallResult::SenderError => bail!("the actor ended during the call"),
        }
    }
}

impl Client for Actors {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        self.request(actor, |reply| Message::Call(n, reply), None).await
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        self.request(actor, Message::Count, None).await
    }

    async fn call_timeout(&self, actor: usize, n: u64, limit: Duration) -> Result<u64> {
        self.request(actor, |reply| Message::Call(n, reply), Some(limit)).await
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        Ok(self.0[actor].cast(Message::Tell(n))?)
    }

    async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.request(0, |reply| Message::Echo(bytes, reply), None).await
    }

    async fn reply(&self, size: u32) -> Result<Vec<u8>> {
        self.request(0, |reply| Message::Reply(size, reply), None).await
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        self.request(0, |reply| Message::Words(Words(words), reply), None).await
    }
}

struct Ractor;

impl Peer for Ractor {
    type Client = Actors;

    async fn serve(_: Args) -> Result<()> {
        // ractor_cluster does not report the port that a node has bound.
        let address = free_port()?;
        let _node = node(address.port()).await?;
        for actor in 0..ACTORS {
            Actor::spawn(None, Counter, group(address.port(), actor)).await?;
        }
        ready(address)?;
        std::future::pending().await
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let node = node(free_port()?.port()).await?;
        let mut actors = Vec::new();
        for address in &args.servers {
            ractor_cluster::client_connect(&node, address).await?;
            for actor in 0..ACTORS {
                actors.push(member(group(address.port(), actor)).await);
            }
        }
        Ok(Actors(actors))
    }
}

/// Looks up a process group until it has an actor. The caller's connect timeout ends the search.
async fn member(group: String) -> ActorRef<Message> {
    loop {
        match pg::get_members(&group).pop() {
            Some(cell) => return cell.into(),
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Ractor>()
}
