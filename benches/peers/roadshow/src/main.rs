//! Roadshow: a local cluster of workers, which the client starts itself.
//!
//! With the variant `tls` the workers belong to a node, whose hosts and driver use TLS.

mod actor;
mod node;

use anyhow::{Result, bail, ensure};
use peers_harness::proc::pin_process;
use peers_harness::{ACTORS, Args, Client, Peer};
use roadshow::words::WordList;
use roadshow::{Cluster, ClusterRef, Payload, RemoteAddr, Retry};

use actor::{Call, Count, Counter, Echo, EchoPlain, List, Reply, Tell, Words};

/// Actors that are spawned at most for each that is used.
const SPAWNS_PER_ACTOR_MAX: usize = 16;

struct Roadshow;

#[derive(Clone)]
struct Actors {
    cluster: ClusterRef,
    workers: Vec<u32>,
    counters: Vec<RemoteAddr<Counter>>,
}

impl Client for Actors {
    type Bytes = Payload;
    type WordList = WordList;

    fn servers(&self) -> Vec<u32> {
        self.workers.clone()
    }

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.counters[actor].send(Call(n)).await?)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        Ok(self.counters[actor].send(Count).await?)
    }

    async fn call_timeout(&self, actor: usize, n: u64, limit: std::time::Duration) -> Result<u64> {
        Ok(self.counters[actor].send(Call(n)).timeout(limit).await?)
    }

    async fn call_retry(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.counters[actor].send(Call(n)).retry(Retry::default()).await?)
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        Ok(self.counters[actor].tell(Tell(n)).await?)
    }

    async fn echo(&self, bytes: Payload) -> Result<Payload> {
        Ok(self.counters[0].send(Echo(bytes)).await?)
    }

    async fn echo_plain(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.counters[0].send(EchoPlain(bytes)).await?)
    }

    async fn reply(&self, size: u32) -> Result<Payload> {
        Ok(self.counters[0].send(Reply(size)).await?)
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        Ok(self.counters[0].send(Words(words)).await?)
    }

    fn make_word_list(words: &[String]) -> Result<WordList> {
        Ok(WordList::from_words(words)?)
    }

    async fn word_list(&self, words: WordList) -> Result<u64> {
        Ok(self.counters[0].send(List(words)).await?)
    }

    async fn spawn(&self) -> Result<()> {
        let counter = self.cluster.spawn::<Counter>(()).await?;
        ensure!(counter.send(Call(0)).await? == 1, "the new actor gave a wrong reply");
        Ok(())
    }
}

impl Peer for Roadshow {
    type Client = Actors;

    async fn serve(args: Args) -> Result<()> {
        ensure!(args.variant == "tls", "the client starts the workers; there is no server to start");
        node::run(&args).await
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let cluster = match args.variant.as_str() {
            "tls" => Cluster::init().await?,
            _ => Cluster::local(args.server_count).await?,
        };
        // It lives as long as the process, and its workers end with that.
        let cluster = Box::leak(Box::new(cluster));
        let workers: Vec<u32> = cluster.workers().iter().map(|worker| worker.pid).collect();
        ensure!(workers.len() == args.server_count, "there are {} workers", workers.len());
        if let Some(core) = args.server_core {
            for worker in &workers {
                pin_process(*worker, core)?;
            }
        }
        let counters = spawn_on_each(cluster, workers.len()).await?;
        Ok(Actors { cluster: cluster.handle(), workers, counters })
    }
}

/// Spawns actors until each worker has enough, and returns them in the order of workers.
///
/// A local cluster takes the workers in turn; with a head, the head chooses.
async fn spawn_on_each(cluster: &Cluster, workers: usize) -> Result<Vec<RemoteAddr<Counter>>> {
    let mut hosts = Vec::<Vec<RemoteAddr<Counter>>>::new();
    for _ in 0..workers * ACTORS * SPAWNS_PER_ACTOR_MAX {
        let counter = cluster.spawn::<Counter>(()).await?;
        match hosts.iter_mut().find(|host| host[0].host() == counter.host()) {
            Some(host) if host.len() == ACTORS => {}
            Some(host) => host.push(counter),
            None => hosts.push(vec![counter]),
        }
        if hosts.len() == workers && hosts.iter().all(|host| host.len() == ACTORS) {
            return Ok(hosts.concat());
        }
    }
    bail!("the actors are on {} workers of {workers}, and not evenly", hosts.len())
}

#[roadshow::main]
async fn main() -> Result<()> {
    peers_harness::run::<Roadshow>(Args::from_env()?).await
}
