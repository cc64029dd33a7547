//! Server: counters in the place of actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use peers_harness::{ACTORS, REPLY_BYTE};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::messages::{self, Blob, Body, Envelope, Number, Words};
use crate::service::counter_server::Counter;

/// Replies that wait for the stream at most.
const REPLIES_MAX: usize = 1024;

/// State of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<[AtomicU64; ACTORS]>);

impl Counters {
    fn of(&self, actor: u32) -> Result<&AtomicU64, Status> {
        self.0.get(actor as usize).ok_or_else(|| Status::not_found("there is no such actor"))
    }

    /// Handles a message of the stream; `None` for one without a reply.
    fn handle(&self, actor: u32, body: Body) -> Result<Option<Body>, Status> {
        let counter = self.of(actor)?;
        if !matches!(body, Body::Count(_)) {
            counter.fetch_add(1, Relaxed);
        }
        Ok(Some(match body {
            Body::Call(n) => Body::Call(n + 1),
            Body::Count(_) => Body::Count(counter.load(Relaxed)),
            Body::Tell(_) => return Ok(None),
            Body::Echo(bytes) => Body::Echo(bytes),
            Body::Reply(size) => Body::Echo(filled(size.into())),
            Body::Words(words) => Body::Call(words.words.len() as u64),
        }))
    }
}

fn filled(size: u64) -> Bytes {
    vec![REPLY_BYTE; size as usize].into()
}

#[tonic::async_trait]
impl Counter for Counters {
    async fn call(&self, request: Request<messages::Request>) -> Result<Response<Number>, Status> {
        let messages::Request { actor, n } = request.into_inner();
        self.of(actor)?.fetch_add(1, Relaxed);
        Ok(Response::new(Number { n: n + 1 }))
    }

    async fn count(&self, request: Request<messages::Request>) -> Result<Response<Number>, Status> {
        Ok(Response::new(Number { n: self.of(request.into_inner().actor)?.load(Relaxed) }))
    }

    async fn echo(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn reply(&self, request: Request<Number>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(Blob { bytes: filled(request.into_inner().n) }))
    }

    async fn words(&self, request: Request<Words>) -> Result<Response<Number>, Status> {
        Ok(Response::new(Number { n: request.into_inner().words.len() as u64 }))
    }

    type StreamStream = ReceiverStream<Result<Envelope, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let (counters, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(Envelope { id, actor, body: Some(body) })) = messages.message().await {
                let reply = match counters.handle(actor, body).transpose() {
                    Some(body) => body.map(|body| Envelope { id, actor, body: Some(body) }),
                    None => continue,
                };
                if replies.send(reply).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
