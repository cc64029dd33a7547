//! Client: a task that writes, a task that reads, and the calls that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use peers_harness::{ACTORS, Client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::frame::{Frame, FrameReader, FrameWriter, Kind};

/// Messages that wait for the writer at most.
const WAITING_MAX: usize = 1024;

/// Connections to all servers.
#[derive(Clone)]
pub(crate) struct Links(Arc<[Link]>);

/// Connection to one server.
pub(crate) struct Link {
    waiting: Arc<Mutex<Calls>>,
    messages: mpsc::Sender<Frame>,
}

/// Open calls, by their number. A slot is free again when its reply has come, so a late reply finds no other call.
#[derive(Default)]
struct Calls {
    slots: Vec<Option<oneshot::Sender<Frame>>>,
    free: Vec<u32>,
    /// The connection has ended.
    closed: bool,
}

impl Calls {
    fn open(&mut self, reply: oneshot::Sender<Frame>) -> Option<u32> {
        if self.closed {
            return None;
        }
        let call = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[call as usize] = Some(reply);
        Some(call)
    }

    fn answer(&mut self, frame: Frame) {
        let slot = self.slots.get_mut(frame.call as usize).and_then(Option::take);
        if let Some(reply) = slot {
            self.free.push(frame.call);
            // The caller may have given up.
            let _ = reply.send(frame);
        }
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts both tasks.
    pub(crate) fn start(
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let waiting = Arc::new(Mutex::new(Calls::default()));
        let (messages, queue) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(FrameWriter::new(writer), queue));
        tokio::spawn(read_all(FrameReader::new(reader), waiting.clone()));
        Self { waiting, messages }
    }

    async fn call(&self, kind: Kind, actor: usize, number: u64, bytes: Bytes) -> Result<Frame> {
        let (sender, reply) = oneshot::channel();
        let call = lock(&self.waiting).open(sender).context("the connection has ended")?;
        self.messages.send(Frame { call, kind, actor: actor as u8, number, bytes }).await?;
        reply.await.context("the connection ended during the call")
    }
}

async fn write_all<W: AsyncWrite + Unpin>(mut writer: FrameWriter<W>, mut queue: mpsc::Receiver<Frame>) {
    let mut batch = Vec::with_capacity(WAITING_MAX);
    while queue.recv_many(&mut batch, WAITING_MAX).await > 0 {
        for frame in batch.drain(..) {
            if writer.feed(frame).await.is_err() {
                return;
            }
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

async fn read_all<R: AsyncRead + Unpin>(mut reader: FrameReader<R>, waiting: Arc<Mutex<Calls>>) {
    while let Ok(true) = reader.fill().await {
        let mut calls = lock(&waiting);
        while let Ok(Some(frame)) = reader.next() {
            calls.answer(frame);
        }
    }
    let mut calls = lock(&waiting);
    calls.closed = true;
    calls.slots.clear();
}

impl Links {
    pub(crate) fn new(links: Vec<Link>) -> Self {
        Self(links.into())
    }

    async fn request(&self, kind: Kind, actor: usize, number: u64, bytes: Bytes) -> Result<Frame> {
        self.0[actor / ACTORS].call(kind, actor % ACTORS, number, bytes).await
    }
}

impl Client for Links {
    type Bytes = Bytes;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        Ok(self.request(Kind::Call, actor, n, Bytes::new()).await?.number)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        Ok(self.request(Kind::Count, actor, 0, Bytes::new()).await?.number)
    }

    async fn tell(&self, actor: usize, n: u64) -> Result<()> {
        let frame = Frame {
            call: 0,
            kind: Kind::Tell,
            actor: (actor % ACTORS) as u8,
            number: n,
            bytes: Bytes::new(),
        };
        Ok(self.0[actor / ACTORS].messages.send(frame).await?)
    }

    async fn echo(&self, bytes: Bytes) -> Result<Bytes> {
        Ok(self.request(Kind::Echo, 0, 0, bytes).await?.bytes)
    }

    async fn reply(&self, size: u32) -> Result<Bytes> {
        Ok(self.request(Kind::Reply, 0, u64::from(size), Bytes::new()).await?.bytes)
    }

    async fn words(&self, words: Vec<String>) -> Result<u64> {
        let mut bytes = BytesMut::with_capacity(4 + words.iter().map(|word| 4 + word.len()).sum::<usize>());
        bytes.put_u32(words.len() as u32);
        for word in &words {
            bytes.put_u32(word.len() as u32);
            bytes.put_slice(word.as_bytes());
        }
        Ok(self.request(Kind::Words, 0, 0, bytes.freeze()).await?.number)
    }
}
