//! Client: calls of one stream, or unary calls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use peers_harness::{ACTORS, Client, unsupported};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::messages::{Blob, Body, Envelope, Number, Request, Words};
use crate::service::counter_client::CounterClient;

/// Messages that wait for the stream at most.
const MESSAGES_MAX: usize = 1024;

/// Connections to all servers.
#[derive(Clone)]
pub(crate) enum Tonic {
    Stream(Arc<[Stream]>),
    Unary(Arc<[CounterClient<Channel>]>),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Body>>>>;

/// Stream to one server.
pub(crate) struct Stream {
    next: AtomicU64,
    waiting: Waiting,
    messages: mpsc::Sender<Envelope>,
}

impl Stream {
    async fn open(mut client: CounterClient<Channel>) -> Result<Self> {
        let (messages, stream) = mpsc::channel(MESSAGES_MAX);
        let waiting = Waiting::default();
        let mut replies = client.stream(ReceiverStream::new(stream)).await?.into_inner();
        let answered = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(Envelope { id, body: Some(body), .. })) = replies.message().await {
                let call = answered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(call) = call {
                    // The caller may have given up.
                    let _ = call.send(body);
                }
            }
            answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Self { next: AtomicU64::new(0), waiting, messages })
    }

    async fn call(&self, actor: usize, body: Body) -> Result<Body> {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, reply) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.tell(id, actor, body).await?;
        reply.await.context("the stream ended during the call")
    }

    async fn tell(&self, id: u64, actor: usize, body: Body) -> Result<()> {
        Ok(self.messages.send(Envelope { id, actor: (actor % ACTORS) as u32, body: Some(body) }).await?)
    }
}

impl Tonic {
    pub(crate) async fn connect(servers: &[SocketAddr], unary: bool) -> Result<Self> {
        let (mut streams, mut clients) = (Vec::new(), Vec::new());
        for address in servers {
            let client = CounterClient::connect(format!("http://{address}")).await?;
            match unary {
                true => clients.push(client),
                false => streams.push(Stream::open(client).await?),
            }
        }
        Ok(if unary { Self::Unary(clients.into()) } else { Self::Stream(streams.into()) })
    }

    async fn number(streams: &[Stream], actor: usize, body: Body) -> Result<u64> {
        match streams[actor / ACTORS].call(actor, body).await? {
            Body::Call(n) | Body::Count(n) => Ok(n),
            other => bail!("the reply is no number: {other:?}"),
        }
    }

    async fn bytes(streams: &[Stream], body: Body) -> Result<Bytes> {
        match streams[0].call(0, body).await? {
            Body::Echo(bytes) => Ok(bytes),
            other => bail!("the reply has no bytes: {other:?}"),
        }
    }
}

fn request(actor: usize, n: u64) -> Request {
    Request { actor: (actor % ACTORS) as u32, n }
}

impl Client for Tonic {
    type Bytes = Bytes;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        match self {
            Self::Stream(streams) => Self::number(streams, actor, Body::Call(n)).await,
            Self::Unary(clients) => {
                Ok(clients[actor / ACTORS].clone().call(request(actor, n)).await?.into_inner().n)
            }
        }
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        match self {
            Self::Stream(streams) => Self::number(streams, actor, Body::Count(0)).await,
            Self::Unary(clients) => {
                Ok(clients[actor / ACTORS].clone().count(request(actor, 0)).await?.into_inner().n)
            }
        }
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        match self {
            Self::Stream(streams) => streams[actor / ACTORS].tell(0, actor, Body::Tell(n)).await,
            Self::Unary(_) => unsupported(),
        }
    }

    async fn echo(&self, bytes: Bytes) -> Result<Bytes> {
        match self {
            Self::Stream(streams) => Self::bytes(streams, Body::Echo(bytes)).await,
            Self::Unary(clients) => Ok(clients[0].clone().echo(Blob { bytes }).await?.into_inner().bytes),
        }
    }

    async fn reply(&self, size: u32) -> Result<Bytes> {
        match self {
            Self::Stream(streams) => Self::bytes(streams, Body::Reply(size)).await,
            Self::Unary(clients) => {
                Ok(clients[0].clone().reply(Number { n: size.into() }).await?.into_inner().bytes)
            }
        }
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        match self {
            Self::Stream(streams) => Self::number(streams, 0, Body::Words(Words { words })).await,
            Self::Unary(clients) => Ok(clients[0].clone().words(Words { words }).await?.into_inner().n),
        }
    }
}
