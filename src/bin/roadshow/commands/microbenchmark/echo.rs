//! The limits: what the operating system's sockets do when nothing else is in the way.
//!
//! The echo has the shape of a link, and nothing of a message layer: one thread a side, frames with a
//! length before them, one outgoing buffer that is swapped out and written whole, one large buffer to
//! read into. No actor, no table of calls, no codec.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener as BlockingListener, TcpStream as BlockingStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use super::measure::{Count, Timing, percentiles};
use super::workload::Ports;

/// What a small call takes behind its length: a short header and an integer.
pub(super) const SMALL_BYTES: usize = 24;

const LENGTH_BYTES: usize = 4;
const BUFFER_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;

/// Serves all that the limits need, each on a thread of its own, and tells the ports.
pub(super) fn serve() -> io::Result<Ports> {
    let echo = serve_frames("echo", |outgoing, frame| outgoing.push(frame))?;
    let mut count = 0_u64;
    let count = serve_frames("count", move |outgoing, frame| {
        if frame.is_empty() {
            outgoing.push(&std::mem::take(&mut count).to_be_bytes());
        } else {
            count += 1;
        }
    })?;
    Ok(Ports { echo, blocking: serve_blocking()?, count })
}

/// Hears of the frames of one connection at a time.
fn serve_frames(name: &str, mut on_frame: impl FnMut(&Outgoing, &[u8]) + Send + 'static) -> io::Result<u16> {
    let listener = BlockingListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name(name.to_owned()).spawn(move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (reader, outgoing, writer) = link(listener.accept().await?.0)?;
                read(reader, |frame| on_frame(&outgoing, frame)).await;
                // It waits for more to write, and holds what was written.
                writer.abort();
            }
        }))
    })?;
    Ok(port)
}

/// Echoes small frames, one connection at a time.
fn serve_blocking() -> io::Result<u16> {
    let listener = BlockingListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::Builder::new().name("blocking".to_owned()).spawn(move || -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut frame = small_frame();
            while stream.read_exact(&mut frame).and_then(|()| stream.write_all(&frame)).is_ok() {}
        }
    })?;
    Ok(port)
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

fn link(stream: TcpStream) -> io::Result<(OwnedReadHalf, Arc<Outgoing>, JoinHandle<()>)> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let buffer = Mutex::new(BytesMut::with_capacity(BUFFER_BYTES));
    let outgoing = Arc::new(Outgoing { buffer, filled: Notify::new() });
    let writer = tokio::task::spawn_local(write(writer, Arc::clone(&outgoing)));
    Ok((reader, outgoing, writer))
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

/// Reads into one buffer and moves what is left to its front, so that nothing is allocated on the way.
async fn read(mut socket: OwnedReadHalf, mut on_frame: impl FnMut(&[u8])) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut start, mut end) = (0, 0);
    loop {
        match socket.read(&mut buffer[end..]).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => end += bytes,
        }
        while let Some(frame) = first_frame(&buffer[start..end]) {
            on_frame(frame);
            start += LENGTH_BYTES + frame.len();
        }
        if buffer.len() - end < READ_BYTES || start == end {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
        }
        if buffer.len() - end < READ_BYTES {
            buffer.resize(2 * buffer.len(), 0);
        }
    }
}

/// The frame with which some bytes begin, once all of it is there.
fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Round trips of one small frame at a time.
pub(super) async fn round_trip(ports: Ports, time: Duration) -> io::Result<Timing> {
    let mut stream = connect(ports.echo).await?;
    let mut frame = small_frame();
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&frame).await?;
        stream.read_exact(&mut frame).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// The same by sockets that block, without an event loop on either side.
pub(super) async fn blocking_round_trip(ports: Ports, time: Duration) -> io::Result<Timing> {
    let (tell, done) = oneshot::channel();
    thread::Builder::new().name("limit".to_owned()).spawn(move || {
        // Nobody waits any more when the benchmark was interrupted.
        let _ = tell.send(block(ports, time));
    })?;
    done.await.map_err(io::Error::other)?
}

fn block(ports: Ports, time: Duration) -> io::Result<Timing> {
    let mut stream = BlockingStream::connect((Ipv4Addr::LOCALHOST, ports.blocking))?;
    stream.set_nodelay(true)?;
    let mut frame = small_frame();
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&frame)?;
        stream.read_exact(&mut frame)?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

fn small_frame() -> Vec<u8> {
    let mut frame = vec![7; LENGTH_BYTES + SMALL_BYTES];
    frame[..LENGTH_BYTES].copy_from_slice(&(SMALL_BYTES as u32).to_be_bytes());
    frame
}

/// Echoes with so many frames of `bytes` under way.
pub(super) async fn echoes(
    ports: Ports,
    in_flight: usize,
    bytes: usize,
    time: Duration,
) -> io::Result<Count> {
    exchange(ports.echo, in_flight, bytes, time, |outgoing, answer, _| outgoing.push(answer)).await
}

/// Frames of `bytes` that are each confirmed by a short one, with so many under way.
pub(super) async fn confirmed(
    ports: Ports,
    in_flight: usize,
    bytes: usize,
    time: Duration,
) -> io::Result<Count> {
    exchange(ports.count, in_flight, bytes, time, |outgoing, _, frame| {
        outgoing.push(frame);
        outgoing.push(&[]);
    })
    .await
}

/// Calls `send`, with the last answer and a frame of so many bytes, so often that many are under way.
async fn exchange(
    port: u16,
    in_flight: usize,
    bytes: usize,
    time: Duration,
    send: fn(&Outgoing, &[u8], &[u8]),
) -> io::Result<Count> {
    let (reader, outgoing, writer) = link(connect(port).await?)?;
    let frame = vec![7; bytes];
    for _ in 0..in_flight {
        // What is like an answer, where there is none yet.
        send(&outgoing, &frame, &frame);
    }
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let (start, mut count) = (Instant::now(), 0_u64);
    let reader = tokio::task::spawn_local(read(reader, move |answer| {
        count += 1;
        // Reading the clock costs more than an echo: look at it now and then.
        let look = bytes > BUFFER_BYTES / 4 || count.is_multiple_of(64);
        if look && start.elapsed() >= time {
            if let Some(tell) = tell.take() {
                // Nobody waits any more when the other side has gone away meanwhile.
                let _ = tell.send(Count { count, elapsed: start.elapsed() });
            }
        } else if tell.is_some() {
            send(&outgoing, answer, &frame);
        }
    }));
    let told = told.await;
    // Both hold the connection, which the other side serves until it ends.
    reader.abort();
    writer.abort();
    told.map_err(|_| io::Error::other("the raw echo went away"))
}

/// Small frames that go one way, until the other side has counted the last.
pub(super) async fn one_way(ports: Ports, time: Duration) -> io::Result<Count> {
    let mut stream = connect(ports.count).await?;
    let (frame, mut batch) = (small_frame(), Vec::with_capacity(BUFFER_BYTES));
    let (start, mut count) = (Instant::now(), 0_u64);
    while count == 0 || start.elapsed() < time {
        batch.clear();
        while batch.len() + frame.len() <= BUFFER_BYTES {
            batch.extend_from_slice(&frame);
            count += 1;
        }
        stream.write_all(&batch).await?;
    }
    stream.write_all(&[0; LENGTH_BYTES]).await?;
    let mut answer = [0; LENGTH_BYTES + size_of::<u64>()];
    stream.read_exact(&mut answer).await?;
    let elapsed = start.elapsed();
    match answer.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) {
        Some(counted) if counted == count => Ok(Count { count, elapsed }),
        counted => Err(io::Error::other(format!("{count} raw frames were sent and {counted:?} arrived"))),
    }
}
