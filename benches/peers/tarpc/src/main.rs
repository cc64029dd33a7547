//! tarpc over TCP with bincode, as its examples set it up.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt;
use peers_harness::{ACTORS, Args, Client, Peer, REPLY_BYTE, ready};
use serde_bytes::ByteBuf;
use tarpc::client::Config;
use tarpc::context::{self, Context};
use tarpc::serde_transport::tcp;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;

/// Service of one server.
#[tarpc::service]
trait Service {
    async fn call(actor: u32, n: u64) -> u64;
    async fn count(actor: u32) -> u64;
    async fn echo(bytes: ByteBuf) -> ByteBuf;
    async fn echo_plain(bytes: Vec<u8>) -> Vec<u8>;
    async fn reply(size: u32) -> ByteBuf;
    async fn words(words: Vec<String>) -> u64;
}

#[derive(Clone, Default)]
struct Counters(Arc<[AtomicU64; ACTORS]>);

impl Service for Counters {
    async fn call(self, _: Context, actor: u32, n: u64) -> u64 {
        self.0[actor as usize].fetch_add(1, Relaxed);
        n + 1
    }

    async fn count(self, _: Context, actor: u32) -> u64 {
        self.0[actor as usize].load(Relaxed)
    }

    async fn echo(self, _: Context, bytes: ByteBuf) -> ByteBuf {
        bytes
    }

    async fn echo_plain(self, _: Context, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    async fn reply(self, _: Context, size: u32) -> ByteBuf {
        vec![REPLY_BYTE; size as usize].into()
    }

    async fn words(self, _: Context, words: Vec<String>) -> u64 {
        words.len() as u64
    }
}

#[derive(Clone)]
struct Clients(Arc<[ServiceClient]>);

/// Context whose deadline is that far away. Every call of tarpc has one; the default is 10 s.
fn within(limit: Duration) -> Context {
    let mut context = context::current();
    context.deadline = Instant::now() + limit;
    context
}

impl Client for Clients {
    type Bytes = ByteBuf;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.0[actor / ACTORS].call(context::current(), (actor % ACTORS) as u32, n).await?)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        Ok(self.0[actor / ACTORS].count(context::current(), (actor % ACTORS) as u32).await?)
    }

    async fn call_timeout(&self, actor: usize, n: u64, limit: Duration) -> Result<u64> {
        Ok(self.0[actor / ACTORS].call(within(limit), (actor % ACTORS) as u32, n).await?)
    }

    async fn echo(&self, bytes: ByteBuf) -> Result<ByteBuf> {
        Ok(self.0[0].echo(context::current(), bytes).await?)
    }

    async fn echo_plain(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.0[0].echo_plain(context::current(), bytes).await?)
    }

    async fn reply(&self, size: u32) -> Result<ByteBuf> {
        Ok(self.0[0].reply(context::current(), size).await?)
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        Ok(self.0[0].words(context::current(), words).await?)
    }
}

struct Tarpc;

impl Peer for Tarpc {
    type Client = Clients;

    async fn serve(_: Args) -> Result<()> {
        let mut incoming = tcp::listen((Ipv4Addr::LOCALHOST, 0), Bincode::default).await?;
        let counters = Counters::default();
        ready(incoming.local_addr())?;
        while let Some(transport) = incoming.next().await {
            let calls = BaseChannel::with_defaults(transport?).execute(counters.clone().serve());
            tokio::spawn(calls.for_each(|call| async {
                tokio::spawn(call);
            }));
        }
        Ok(())
    }

    async fn connect(args: &Args) -> Result<Clients> {
        let mut clients = Vec::new();
        for address in &args.servers {
            let transport = tcp::connect(address, Bincode::default).await?;
            clients.push(ServiceClient::new(Config::default(), transport).spawn());
        }
        Ok(Clients(clients.into()))
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Tarpc>()
}
