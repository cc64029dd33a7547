//! Driver of a link: reads, dispatches and writes frames until the link ends.
//!
//! A link has one task on the host's executor, so that reader and writer need no synchronization.

use std::io;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::busy_poll::BusyPoll;
use super::coalescing::{Coalescing, PendingOutput};
use super::peer::{ActiveLink, LinkGuard, Peer, SlotId, disconnect_reason};
use super::receive::{InboundSink, ReceivedBatch};
use super::{Destination, Host, decode_context};
use crate::config::GOODBYE_TIMEOUT;
use crate::id::{Target, TypeHash};
use crate::observe::log;
use crate::registry::{MessageBatch, panics};
use crate::session::{DisconnectReason, Event, WriteBatch};
use crate::transport::{DetachedLink, FrameReader, LinkReader};
use crate::wire::CallFailure;

/// Consecutive writes of a link after which its reader runs, even if there is more output.
///
/// While other threads queue messages and the socket accepts everything, the writer alone would use up
/// the task's budget in tokio, which is 128 operations. Replies and acknowledgements would stay unread.
const WRITES_PER_TURN: u32 = 16;

/// Reads between two samples of the peer's CPU core; each sample costs a system call.
const READS_PER_CORE_SAMPLE: u32 = 16;

/// Link of an authenticated peer, ready to be driven.
#[derive(Debug)]
pub(super) struct LinkDriver {
    pub(super) guard: LinkGuard,
    pub(super) link: Box<dyn DetachedLink>,
    /// Bytes that the handshake has read beyond its own frames.
    pub(super) leftover: BytesMut,
    pub(super) frame_bytes_max: usize,
}

impl LinkDriver {
    /// Drives the link until it ends, and reports the reason to the peer's state.
    pub(super) async fn run(self) {
        let Self { guard, link, leftover, frame_bytes_max } = self;
        let LinkGuard { peer, up } = &guard;
        // Registers the socket with this thread's reactor.
        let loss = match link.attach() {
            Err(error) => DisconnectReason::Io(error.to_string()),
            Ok(link) => {
                let (reader, writer) = link.into_split();
                let frames = FrameReader::established(reader, frame_bytes_max, leftover);
                let outgoing = SessionOutput { peer, up };
                tokio::select! {
                    biased;
                    () = up.closed.cancelled() => DisconnectReason::Shutdown,
                    // Polled before the reader, which may use up the task's budget. The writer itself
                    // yields.
                    error = write(&outgoing, writer) => DisconnectReason::Io(error.to_string()),
                    loss = read(peer, up, frames) => loss,
                }
            }
        };
        guard.end(loss);
    }
}

async fn read(peer: &Arc<Peer>, up: &ActiveLink, mut frames: FrameReader<LinkReader>) -> DisconnectReason {
    let mut inbox = ReceivedBatch::default();
    let (mut since_yield, mut reads) = (0, 0_u32);
    let mut busy_poll = BusyPoll::new(peer.busy_poll_limit(frames.get_ref()));
    loop {
        if reads.is_multiple_of(READS_PER_CORE_SAMPLE) {
            peer.sample_core(frames.get_ref().shares_core());
        }
        reads = reads.wrapping_add(1);
        let received = peer.receive(up, &mut frames, &mut inbox);
        // Before the messages are dispatched: callers on other threads continue while handlers run
        // here.
        inbox.wakers.drain(..).for_each(Waker::wake);
        // Frames before the fault are valid, and are dispatched.
        let peer_closed = dispatch(peer, &mut inbox);
        peer.notify_progress();
        if let Some(loss) = received.err() {
            return loss;
        }
        if let Some(peer_closed) = peer_closed {
            // A closing peer waits for the acknowledgement of its last frames.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, peer.written(up)).await;
            return peer_closed;
        }
        if since_yield >= peer.read_budget_bytes() {
            since_yield = 0;
            tokio::task::yield_now().await;
        }
        match busy_poll.wait(!peer.shares_core(), frames.fill()).await {
            Ok(bytes) => {
                since_yield += bytes;
                peer.count_read(bytes);
            }
            Err(error) => return disconnect_reason(&error),
        }
    }
}

/// Dispatches received messages; returns the reason if the peer has closed.
fn dispatch(peer: &Arc<Peer>, inbox: &mut ReceivedBatch) -> Option<DisconnectReason> {
    if inbox.is_empty() {
        return None;
    }
    let Some(host) = peer.host() else { return Some(DisconnectReason::Shutdown) };
    // Destinations are cached for one read only: an actor may stop before the next one.
    let mut route = Dispatcher { host: &host, peer, last: None, peer_closed: None };
    // Entered once for all messages of the read, since entering the scope is not free.
    decode_context::within(&host, || inbox.dispatch_all(&mut route));
    route.peer_closed
}

/// Dispatcher of one read's messages to their actors.
struct Dispatcher<'a> {
    host: &'a Host,
    peer: &'a Peer,
    /// Destination of the previous batch, which is mostly that of the next one, too.
    last: Option<((Target, TypeHash), Destination)>,
    peer_closed: Option<DisconnectReason>,
}

impl InboundSink for Dispatcher<'_> {
    fn messages(&mut self, to: (Target, TypeHash), messages: MessageBatch) {
        if let Some((last, destination)) = &self.last
            && *last == to
        {
            return destination.deliver(messages);
        }
        let (target, message) = to;
        // A destination is cached only after this check, so cached ones need no check.
        if let Some(text) = self.peer.schema_mismatch(message) {
            return messages
                .for_each(|inbound| inbound.fail(&CallFailure::Mismatch { text: text.to_owned() }));
        }
        match self.host.find(target, message) {
            Ok(Some(destination)) => {
                destination.deliver(messages);
                self.last = Some((to, destination));
            }
            // A panic in a host service fails its message, and the link goes on.
            Ok(None) => messages.for_each(|inbound| {
                if let Err(text) = panics::catch(|| self.host.deliver(target, message, inbound)) {
                    let message = self.host.registry().name_of(message);
                    log::warn!(message, text, "a delivery panicked");
                }
            }),
            Err(failure) => messages.for_each(|inbound| inbound.fail(&failure)),
        }
    }

    fn event(&mut self, event: Event<SlotId>) {
        match event {
            Event::Schemas { body } => self.peer.learn_schemas(self.host, &body),
            Event::DeadLetters { count } => self.host.shared.count_dead_letters(count),
            Event::Cancelled { call } => self.peer.cancelled(call),
            Event::PeerClosing { reason } => self.peer_closed = Some(DisconnectReason::PeerClosed { reason }),
            // Messages arrive through `messages`, and outcomes are stored in their slots by now.
            Event::Call { .. } | Event::Tell { .. } | Event::Replied { .. } | Event::Failed { .. } => {}
        }
    }
}

/// Source of a link's outgoing bytes, replaced in tests.
trait WriteSource {
    /// Takes all outgoing bytes.
    fn take(&self, batch: &mut WriteBatch);

    /// Records that `bytes` more are in the kernel; returns true if there is more output.
    fn wrote(&self, bytes: usize) -> bool;

    /// Waits until there may be output.
    async fn more(&self);

    /// Returns the output that waits for the writer.
    fn pending(&self) -> PendingOutput;

    /// Returns whether the peer runs on this core, as far as samples show.
    fn shares_core(&self) -> bool;
}

/// Outgoing bytes of a peer's session.
struct SessionOutput<'a> {
    peer: &'a Peer,
    up: &'a ActiveLink,
}

impl WriteSource for SessionOutput<'_> {
    fn take(&self, batch: &mut WriteBatch) {
        self.peer.take_outgoing(self.up, batch);
    }

    fn wrote(&self, bytes: usize) -> bool {
        self.peer.on_written(self.up, bytes)
    }

    async fn more(&self) {
        self.up.writable.notified().await;
    }

    fn pending(&self) -> PendingOutput {
        self.peer.pending_output()
    }

    fn shares_core(&self) -> bool {
        self.peer.shares_core()
    }
}

async fn write(source: &impl WriteSource, mut writer: impl AsyncWrite + Unpin) -> io::Error {
    let (mut batch, mut writes) = (WriteBatch::default(), 0);
    let mut coalescing = Coalescing::default();
    loop {
        coalescing.wait(source.shares_core(), || source.pending()).await;
        source.take(&mut batch);
        match write_batch(source, &mut writer, &mut batch, &mut writes).await {
            Ok(true) => {}
            Ok(false) => {
                source.more().await;
                writes = 0;
            }
            Err(error) => return error,
        }
    }
}

/// Writes a whole batch; returns true if there is more output by then.
async fn write_batch(
    source: &impl WriteSource,
    writer: &mut (impl AsyncWrite + Unpin),
    batch: &mut WriteBatch,
    writes: &mut u32,
) -> io::Result<bool> {
    let mut more = false;
    while batch.has_remaining() {
        // The reader is polled only when this future returns pending.
        if *writes == WRITES_PER_TURN {
            *writes = 0;
            tokio::task::yield_now().await;
        }
        *writes += 1;
        // A single contiguous piece needs no vectored write.
        let written = if batch.chunk().len() == batch.remaining() {
            let written = writer.write(batch.chunk()).await?;
            batch.advance(written);
            written
        } else {
            writer.write_buf(batch).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        more = source.wrote(written);
    }
    writer.flush().await?;
    Ok(more)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tokio::task::coop::{consume_budget, poll_proceed};

    use super::*;

    /// Source that other threads fill as fast as it is emptied.
    #[derive(Default)]
    struct Full {
        writes: Cell<u32>,
    }

    impl WriteSource for Full {
        fn take(&self, batch: &mut WriteBatch) {
            batch.push(bytes::Bytes::from_static(b"frame"));
        }

        fn wrote(&self, _: usize) -> bool {
            self.writes.set(self.writes.get() + 1);
            true
        }

        async fn more(&self) {}

        fn pending(&self) -> PendingOutput {
            PendingOutput { bytes: 1, frames: 1 }
        }

        fn shares_core(&self) -> bool {
            false
        }
    }

    /// Socket that accepts everything and, like tokio's, charges each write to the task's budget.
    struct Socket;

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            ready!(poll_proceed(task)).made_progress();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_link_is_read_even_if_there_is_always_more_to_write() {
        const READS: u32 = 100;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let writes = local.block_on(&runtime, async {
            let link = tokio::task::spawn_local(async {
                let source = Full::default();
                let reading = async {
                    for _ in 0..READS {
                        consume_budget().await;
                    }
                };
                tokio::select! {
                    biased;
                    error = write(&source, Socket) => panic!("{error}"),
                    // By then the writer must have run for no more than its turns between the reads.
                    () = reading => {}
                    () = async {
                        while source.writes.get() < 100_000 {
                            tokio::task::yield_now().await;
                        }
                    } => {}
                }
                source.writes.get()
            });
            link.await.unwrap()
        });
        assert!(writes <= READS * WRITES_PER_TURN, "{READS} reads took {writes} writes");
    }
}
