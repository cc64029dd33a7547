//! The limits: what the operating system's sockets do when nothing else is in the way.
//!
//! The echo has the shape of a link, and nothing of a message layer: one thread a side, frames with a
//! length before them, one outgoing buffer that is swapped out and written whole, one large buffer to
//! read into. No actor, no table of calls, no codec.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use super::measure::{Timing, percentiles};

/// What a small call takes behind its length: a short header and an integer.
pub(super) const SMALL_BYTES: usize = 24;

const LENGTH_BYTES: usize = 4;
const BUFFER_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;

/// Runs a future on a thread of its own, as the only thing that its runtime does.
async fn alone<F, R>(work: impl FnOnce() -> F + Send + 'static) -> io::Result<R>
where
    F: Future<Output = io::Result<R>>,
    R: Send + 'static,
{
    let (tell, done) = oneshot::channel();
    thread::Builder::new().name("limit".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Nobody waits any more when the benchmark was interrupted.
        let _ = tell.send(runtime.and_then(|runtime| runtime.block_on(LocalSet::new().run_until(work()))));
    })?;
    done.await.map_err(io::Error::other)?
}

/// Serves echoes on a thread of its own, and tells the port.
pub(super) fn serve() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name("echo".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(LocalSet::new().run_until(accept(listener)))
    })?;
    Ok(port)
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (reader, outgoing) = link(listener.accept().await?.0)?;
        tokio::task::spawn_local(read(reader, move |frame| outgoing.push(frame)));
    }
}

struct Outgoing {
    buffer: Mutex<BytesMut>,
    filled: Notify,
}

impl Outgoing {
    fn push(&self, frame: &[u8]) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = buffer.is_empty();
        buffer.put_u32(frame.len() as u32);
        buffer.extend_from_slice(frame);
        drop(buffer);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn swap(&self, batch: &mut BytesMut) {
        std::mem::swap(batch, &mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn link(stream: TcpStream) -> io::Result<(OwnedReadHalf, Arc<Outgoing>)> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let buffer = Mutex::new(BytesMut::with_capacity(BUFFER_BYTES));
    let outgoing = Arc::new(Outgoing { buffer, filled: Notify::new() });
    tokio::task::spawn_local(write(writer, Arc::clone(&outgoing)));
    Ok((reader, outgoing))
}

async fn write(mut socket: OwnedWriteHalf, outgoing: Arc<Outgoing>) {
    let mut batch = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        outgoing.filled.notified().await;
        loop {
            outgoing.swap(&mut batch);
            if batch.is_empty() {
                break;
            }
            if socket.write_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    }
}

async fn read(mut socket: OwnedReadHalf, mut on_frame: impl FnMut(&[u8])) {
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        buffer.reserve(READ_BYTES);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(length) = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize) {
            if buffer.len() < LENGTH_BYTES + length {
                break;
            }
            buffer.advance(LENGTH_BYTES);
            on_frame(&buffer.split_to(length));
        }
    }
}

/// Round trips of one small frame at a time, in microseconds.
pub(super) async fn round_trip(address: SocketAddr, time: Duration) -> io::Result<Timing> {
    alone(move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut frame = small_frame();
        let (mut taken, start) = (Vec::new(), Instant::now());
        while start.elapsed() < time {
            let sent = Instant::now();
            stream.write_all(&frame).await?;
            stream.read_exact(&mut frame).await?;
            taken.push(sent.elapsed());
        }
        Ok(percentiles(taken))
    })
    .await
}

/// The same by sockets that block, without an event loop on this side.
pub(super) async fn blocking_round_trip(address: SocketAddr, time: Duration) -> io::Result<Timing> {
    alone(move || async move {
        let mut stream = BlockingStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut frame = small_frame();
        let (mut taken, start) = (Vec::new(), Instant::now());
        while start.elapsed() < time {
            let sent = Instant::now();
            stream.write_all(&frame)?;
            stream.read_exact(&mut frame)?;
            taken.push(sent.elapsed());
        }
        Ok(percentiles(taken))
    })
    .await
}

fn small_frame() -> Vec<u8> {
    let mut frame = vec![7; LENGTH_BYTES + SMALL_BYTES];
    frame[..LENGTH_BYTES].copy_from_slice(&(SMALL_BYTES as u32).to_be_bytes());
    frame
}

/// Echoes a second with so many frames of `bytes` under way.
pub(super) async fn rate(
    address: SocketAddr,
    in_flight: usize,
    bytes: usize,
    time: Duration,
) -> io::Result<f64> {
    alone(move || async move {
        let (reader, outgoing) = link(TcpStream::connect(address).await?)?;
        let frame = vec![7; bytes];
        for _ in 0..in_flight {
            outgoing.push(&frame);
        }
        let (tell, rate) = oneshot::channel();
        let mut tell = Some(tell);
        let (start, mut count) = (Instant::now(), 0_u64);
        tokio::task::spawn_local(read(reader, move |frame| {
            count += 1;
            // Reading the clock costs more than an echo: look at it now and then.
            let look = bytes > BUFFER_BYTES / 4 || count.is_multiple_of(64);
            if look && start.elapsed() >= time {
                if let Some(tell) = tell.take() {
                    let _ = tell.send(count as f64 / start.elapsed().as_secs_f64());
                }
            } else if tell.is_some() {
                outgoing.push(frame);
            }
        }));
        rate.await.map_err(|_| io::Error::other("the echo went away"))
    })
    .await
}
