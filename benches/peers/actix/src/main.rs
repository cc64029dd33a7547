//! actix within one process: the limit of whatever is built on it.
//!
//! The actors are on an arbiter of their own. With the variant `same` they are on the thread of the callers.

use actix::prelude::*;
use anyhow::{Result, bail, ensure};
use peers_harness::proc::pin_thread;
use peers_harness::{ACTORS, Args, Client, Peer, REPLY_BYTE};

#[derive(Default)]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(u64)]
struct Call(u64);

#[derive(Message)]
#[rtype(u64)]
struct Count;

#[derive(Message)]
#[rtype(result = "()")]
struct Tell;

#[derive(Message)]
#[rtype(result = "Vec<u8>")]
struct Echo(Vec<u8>);

#[derive(Message)]
#[rtype(result = "Vec<u8>")]
struct Reply(u32);

#[derive(Message)]
#[rtype(u64)]
struct Words(Vec<String>);

impl Handler<Call> for Counter {
    type Result = u64;

    fn handle(&mut self, Call(n): Call, _: &mut Context<Self>) -> u64 {
        self.0 += 1;
        n + 1
    }
}

impl Handler<Count> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

impl Handler<Tell> for Counter {
    type Result = ();

    fn handle(&mut self, _: Tell, _: &mut Context<Self>) {
        self.0 += 1;
    }
}

impl Handler<Echo> for Counter {
    type Result = Vec<u8>;

    fn handle(&mut self, Echo(bytes): Echo, _: &mut Context<Self>) -> Vec<u8> {
        bytes
    }
}

impl Handler<Reply> for Counter {
    type Result = Vec<u8>;

    fn handle(&mut self, Reply(size): Reply, _: &mut Context<Self>) -> Vec<u8> {
        vec![REPLY_BYTE; size as usize]
    }
}

impl Handler<Words> for Counter {
    type Result = u64;

    fn handle(&mut self, Words(words): Words, _: &mut Context<Self>) -> u64 {
        words.len() as u64
    }
}

#[derive(Clone)]
struct Actors {
    counters: Vec<Addr<Counter>>,
    arbiter: ArbiterHandle,
}

impl Client for Actors {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.counters[actor].send(Call(n)).await?)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        Ok(self.counters[actor].send(Count).await?)
    }

    async fn call_timeout(&self, actor: usize, n: u64, limit: std::time::Duration) -> Result<u64> {
        Ok(self.counters[actor].send(Call(n)).timeout(limit).await?)
    }

    async fn tell(&self, actor: usize, _: u64) -> Result<()> {
        self.counters[actor].do_send(Tell);
        Ok(())
    }

    async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.counters[0].send(Echo(bytes)).await?)
    }

    async fn reply(&self, size: u32) -> Result<Vec<u8>> {
        Ok(self.counters[0].send(Reply(size)).await?)
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        Ok(self.counters[0].send(Words(words)).await?)
    }

    async fn spawn(&self) -> Result<()> {
        let counter = Counter::start_in_arbiter(&self.arbiter, |_| Counter::default());
        ensure!(counter.send(Call(0)).await? == 1, "the new actor gave a wrong reply");
        Ok(())
    }
}

struct InProcess;

impl Peer for InProcess {
    type Client = Actors;

    async fn serve(_: Args) -> Result<()> {
        bail!("the actors live in the client; there is no server to start")
    }

    async fn connect(args: &Args) -> Result<Actors> {
        let arbiter = match args.variant.as_str() {
            "same" => Arbiter::current(),
            _ => Arbiter::new().handle(),
        };
        if let (Some(core), "") = (args.server_core, args.variant.as_str()) {
            arbiter.spawn_fn(move || pin_thread(core).expect("the runner may use this core"));
        }
        let start = |_| Counter::start_in_arbiter(&arbiter, |_| Counter::default());
        Ok(Actors { counters: (0..args.server_count * ACTORS).map(start).collect(), arbiter })
    }
}

fn main() -> Result<()> {
    System::new().block_on(async { peers_harness::run::<InProcess>(Args::from_env()?).await })
}
