//! Limits of the operating system's sockets, against which the message layer is compared.
//!
//! The echo has the shape of a link without its message layer: no actor, no call table, no codec.
//!
//! ```text
//! frame:   length (4 bytes, big endian) | body
//! threads: one for each side; all frames that are queued leave in one write
//! memory:  one outgoing buffer, swapped with the one being written; one large read buffer
//! ```

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

/// Length of a small call's body in bytes: a short header and an integer.
pub(super) const SMALL_BYTES: usize = 24;

const LENGTH_BYTES: usize = 4;
const BUFFER_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;

/// Starts all servers, each on a thread of its own, and returns their ports.
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

/// Passes the frames of one connection at a time to `on_frame`.
fn serve_frames(
    name: &str,
    mut on_frame: impl FnMut(&FrameQueue, &[u8]) + Send + 'static,
) -> io::Result<u16> {
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
                // The writer waits on `filled` forever, and holds its half of the socket.
                writer.abort();
            }
        }))
    })?;
    Ok(port)
}

/// Echoes small frames with blocking sockets, one connection at a time.
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

/// Outgoing buffer of a link: filled by the reader's task, swapped out by the writer's.
struct FrameQueue {
    buffer: Mutex<BytesMut>,
    filled: Notify,
}

impl FrameQueue {
    fn push(&self, frame: &[u8]) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = buffer.is_empty();
        buffer.put_u32(frame.len() as u32);
        buffer.extend_from_slice(frame);
        drop(buffer);
        // A writer that finds frames left takes them without a second wake-up.
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn swap(&self, batch: &mut BytesMut) {
        std::mem::swap(batch, &mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn link(stream: TcpStream) -> io::Result<(OwnedReadHalf, Arc<FrameQueue>, JoinHandle<()>)> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let buffer = Mutex::new(BytesMut::with_capacity(BUFFER_BYTES));
    let outgoing = Arc::new(FrameQueue { buffer, filled: Notify::new() });
    let writer = tokio::task::spawn_local(write(writer, Arc::clone(&outgoing)));
    Ok((reader, outgoing, writer))
}

async fn write(mut socket: OwnedWriteHalf, outgoing: Arc<FrameQueue>) {
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

/// Reads frames into one buffer, and moves the unread rest to its front instead of allocating.
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

/// Returns the first frame of the bytes if it is complete.
fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Measures round trips of one small frame at a time.
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

/// Measures round trips with blocking sockets, without an event loop on either side.
pub(super) async fn blocking_round_trip(ports: Ports, time: Duration) -> io::Result<Timing> {
    let (reply, done) = oneshot::channel();
    thread::Builder::new().name("limit".to_owned()).spawn(move || {
        // The receiver is gone if the benchmark was interrupted.
        let _ = reply.send(block(ports, time));
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

/// Measures echoes of frames with `bytes` bytes, `in_flight` at a time.
pub(super) async fn echoes(
    ports: Ports,
    in_flight: usize,
    bytes: usize,
    time: Duration,
) -> io::Result<Count> {
    exchange(ports.echo, in_flight, bytes, time, |outgoing, answer, _| outgoing.push(answer)).await
}

/// Measures frames of `bytes` bytes that are each confirmed by a short one, `in_flight` at a time.
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

/// Calls `send` with each reply and a frame of `bytes` bytes, and starts with `in_flight` calls.
async fn exchange(
    port: u16,
    in_flight: usize,
    bytes: usize,
    time: Duration,
    send: fn(&FrameQueue, &[u8], &[u8]),
) -> io::Result<Count> {
    let (reader, outgoing, writer) = link(connect(port).await?)?;
    let frame = vec![7; bytes];
    for _ in 0..in_flight {
        // There is no reply yet; the frame has the same length as one.
        send(&outgoing, &frame, &frame);
    }
    let (reply, result) = oneshot::channel();
    let mut reply = Some(reply);
    let (start, mut count) = (Instant::now(), 0_u64);
    let reader = tokio::task::spawn_local(read(reader, move |answer| {
        count += 1;
        // Reading the clock costs more than a small echo.
        let reads_clock = bytes > BUFFER_BYTES / 4 || count.is_multiple_of(64);
        if reads_clock && start.elapsed() >= time {
            if let Some(reply) = reply.take() {
                // The receiver is gone if the benchmark was interrupted.
                let _ = reply.send(Count { count, elapsed: start.elapsed() });
            }
        } else if reply.is_some() {
            send(&outgoing, answer, &frame);
        }
    }));
    let result = result.await;
    // Both tasks hold the connection, and the server serves no other one until it ends.
    reader.abort();
    writer.abort();
    result.map_err(|_| io::Error::other("the raw echo closed its connection"))
}

/// Measures small one-way frames, until the server has counted the last one.
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
    // An empty frame asks for the count.
    stream.write_all(&[0; LENGTH_BYTES]).await?;
    let mut answer = [0; LENGTH_BYTES + size_of::<u64>()];
    stream.read_exact(&mut answer).await?;
    let elapsed = start.elapsed();
    match answer.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) {
        Some(counted) if counted == count => Ok(Count { count, elapsed }),
        counted => Err(io::Error::other(format!("{count} raw frames were sent and {counted:?} arrived"))),
    }
}
