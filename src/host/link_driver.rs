//! One link at work: frames in, frames out, until it breaks.
//!
//! One task a link, on the host's executor: it reads, hands over what came, and writes what waits.

use std::io;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

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

/// Writes of a link in a row after which its reader has a turn, though there is more to write.
///
/// While other threads queue messages and the socket takes all, the writer alone would use up what tokio lets a
/// task do in one turn, which is 128 such operations: answers and acknowledgements would lie unread.
const WRITES_PER_TURN: u32 = 16;

/// So often it is looked which core the peer runs on: it costs a system call.
const READS_PER_CORE_SAMPLE: u32 = 16;

/// A proven link on its way to the thread that serves it.
#[derive(Debug)]
pub(super) struct LinkDriver {
    pub(super) lease: LinkGuard,
    pub(super) link: Box<dyn DetachedLink>,
    /// What the handshake read beyond its own frames.
    pub(super) leftover: BytesMut,
    pub(super) frame_bytes_max: usize,
}

impl LinkDriver {
    /// Serves the link until it ends, and says so to the peer's state.
    pub(super) async fn run(self) {
        let Self { lease, link, leftover, frame_bytes_max } = self;
        let LinkGuard { peer, up } = &lease;
        let loss = match link.attach() {
            Err(error) => DisconnectReason::Io(error.to_string()),
            Ok(link) => {
                let (reader, writer) = link.into_split();
                let frames = FrameReader::established(reader, frame_bytes_max, leftover);
                let outgoing = Outgoing { peer, up };
                tokio::select! {
                    biased;
                    () = up.closed.cancelled() => DisconnectReason::Shutdown,
                    // Before reading, which may use up all of the task's turn. It gives way to reading itself.
                    error = write(&outgoing, writer) => DisconnectReason::Io(error.to_string()),
                    loss = read(peer, up, frames) => loss,
                }
            }
        };
        lease.end(loss);
    }
}

async fn read(peer: &Arc<Peer>, up: &ActiveLink, mut frames: FrameReader<LinkReader>) -> DisconnectReason {
    let mut inbox = ReceivedBatch::default();
    let (mut since_turn, mut reads) = (0, 0_u32);
    loop {
        if reads.is_multiple_of(READS_PER_CORE_SAMPLE) {
            peer.sample_core(frames.get_ref().shares_core());
        }
        reads = reads.wrapping_add(1);
        let received = peer.receive(up, &mut frames, &mut inbox);
        inbox.wakers.drain(..).for_each(Waker::wake);
        // What came before the fault is valid, and is handed over.
        let left = dispatch(peer, &mut inbox);
        peer.notify_progress();
        if let Some(loss) = received.err() {
            return loss;
        }
        if let Some(left) = left {
            // It waits for the word that all of it has come.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, peer.written(up)).await;
            return left;
        }
        if since_turn >= peer.read_budget_bytes() {
            since_turn = 0;
            tokio::task::yield_now().await;
        }
        match frames.fill().await {
            Ok(bytes) => since_turn += bytes,
            Err(error) => return disconnect_reason(&error),
        }
    }
}

/// Passes on what frames asked for. Says so if the peer has taken its leave.
fn dispatch(peer: &Arc<Peer>, inbox: &mut ReceivedBatch) -> Option<DisconnectReason> {
    if inbox.is_empty() {
        return None;
    }
    let Some(host) = peer.host() else { return Some(DisconnectReason::Shutdown) };
    let mut route = Dispatcher { host: &host, peer, last: None, peer_closed: None };
    decode_context::within(&host, || inbox.dispatch_all(&mut route));
    route.peer_closed
}

/// The way of what was read together to its actors.
struct Dispatcher<'a> {
    host: &'a Host,
    peer: &'a Peer,
    /// Where the last messages went: the next often go there, too.
    last: Option<((Target, TypeHash), Destination)>,
    peer_closed: Option<DisconnectReason>,
}

impl InboundSink for Dispatcher<'_> {
    fn run(&mut self, to: (Target, TypeHash), run: MessageBatch) {
        if let Some((last, destination)) = &self.last
            && *last == to
        {
            return destination.deliver(run);
        }
        let (target, message) = to;
        if let Some(text) = self.peer.schema_mismatch(message) {
            return run.for_each(|inbound| inbound.fail(&CallFailure::Mismatch { text: text.to_owned() }));
        }
        match self.host.find(target, message) {
            Ok(Some(destination)) => {
                destination.deliver(run);
                self.last = Some((to, destination));
            }
            // A panic of user code on the way costs that message and not the link.
            Ok(None) => run.for_each(|inbound| {
                if let Err(text) = panics::catch(|| self.host.deliver(target, message, inbound)) {
                    let message = self.host.registry().name_of(message);
                    log::warn!(message, text, "a delivery panicked");
                }
            }),
            Err(failure) => run.for_each(|inbound| inbound.fail(&failure)),
        }
    }

    fn event(&mut self, event: Event<SlotId>) {
        match event {
            Event::Schemas { body } => self.peer.learn_schemas(self.host, &body),
            Event::DeadLetters { count } => self.host.shared.count_dead_letters(count),
            Event::Cancelled { call } => self.peer.cancelled(call),
            Event::PeerClosing { reason } => self.peer_closed = Some(DisconnectReason::PeerClosed { reason }),
            // Messages come in runs, and these have their callers by now.
            Event::Call { .. } | Event::Tell { .. } | Event::Replied { .. } | Event::Failed { .. } => {}
        }
    }
}

/// Where a link's writer gets its bytes.
trait Source {
    /// Takes everything that waits to be written.
    fn take(&self, batch: &mut WriteBatch);

    /// So many bytes more are with the kernel. Says whether there is more to take.
    fn wrote(&self, bytes: usize) -> bool;

    /// Waits until there may be something to take.
    async fn more(&self);
}

/// What the session has for a link.
struct Outgoing<'a> {
    peer: &'a Peer,
    up: &'a ActiveLink,
}

impl Source for Outgoing<'_> {
    fn take(&self, batch: &mut WriteBatch) {
        self.peer.take_outgoing(self.up, batch);
    }

    fn wrote(&self, bytes: usize) -> bool {
        self.peer.on_written(self.up, bytes)
    }

    async fn more(&self) {
        self.up.writable.notified().await;
    }
}

async fn write(source: &impl Source, mut writer: impl AsyncWrite + Unpin) -> io::Error {
    let (mut batch, mut writes) = (WriteBatch::default(), 0);
    loop {
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

/// Writes all of a batch. Says whether there is more to take by then.
async fn write_batch(
    source: &impl Source,
    writer: &mut (impl AsyncWrite + Unpin),
    batch: &mut WriteBatch,
    writes: &mut u32,
) -> io::Result<bool> {
    let mut more = false;
    while batch.has_remaining() {
        if *writes == WRITES_PER_TURN {
            *writes = 0;
            tokio::task::yield_now().await;
        }
        *writes += 1;
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

    /// A source that other threads fill as fast as it is emptied.
    #[derive(Default)]
    struct Full {
        writes: Cell<u32>,
    }

    impl Source for Full {
        fn take(&self, batch: &mut WriteBatch) {
            batch.push(bytes::Bytes::from_static(b"frame"));
        }

        fn wrote(&self, _: usize) -> bool {
            self.writes.set(self.writes.get() + 1);
            true
        }

        async fn more(&self) {}
    }

    /// A socket that takes all, as tokio's do: each write counts for the task's turn.
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
    fn a_link_is_read_also_while_there_is_always_more_to_write() {
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
                    // By then the writer is to have stood in the way no longer than its turns are.
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
