//! One link at work: frames in, frames out, until it breaks.
//!
//! One task a link, on the host's executor: it reads, hands over what came, and writes what waits.

use std::io;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::inbox::{Handover, Inbox};
use super::peer::{Lease, Peer, Ticket, Up, loss_of};
use super::{Destination, Host, scope};
use crate::config::GOODBYE_TIMEOUT;
use crate::id::{Target, TypeHash};
use crate::observe::log;
use crate::registry::{Run, panics};
use crate::session::{Batch, Event, LinkLoss};
use crate::transport::{DetachedLink, FrameReader, LinkReader, LinkWriter};
use crate::wire::CallFailure;

/// So often it is looked which core the peer runs on: it costs a system call.
const READS_PER_LOOK: u32 = 16;

/// A proven link on its way to the thread that serves it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) lease: Lease,
    pub(super) link: Box<dyn DetachedLink>,
    /// What the handshake read beyond its own frames.
    pub(super) read_already: BytesMut,
    pub(super) frame_bytes_max: usize,
}

impl Served {
    /// Serves the link until it ends, and says so to the peer's state.
    pub(super) async fn run(self) {
        let Self { lease, link, read_already, frame_bytes_max } = self;
        let Lease { peer, up } = &lease;
        let loss = match link.attach() {
            Err(error) => LinkLoss::Io(error.to_string()),
            Ok(link) => {
                let (reader, writer) = link.into_split();
                let frames = FrameReader::established(reader, frame_bytes_max, read_already);
                tokio::select! {
                    biased;
                    () = up.closed.cancelled() => LinkLoss::Shutdown,
                    // Before reading, which may use up all of the task's turn.
                    error = write(peer, up, writer) => LinkLoss::Io(error.to_string()),
                    loss = read(peer, up, frames) => loss,
                }
            }
        };
        lease.end(loss);
    }
}

async fn read(peer: &Arc<Peer>, up: &Up, mut frames: FrameReader<LinkReader>) -> LinkLoss {
    let mut inbox = Inbox::default();
    let (mut since_turn, mut reads) = (0, 0_u32);
    loop {
        if reads.is_multiple_of(READS_PER_LOOK) {
            peer.look(frames.get_ref().shares_core());
        }
        reads = reads.wrapping_add(1);
        let received = peer.receive(up, &mut frames, &mut inbox);
        inbox.wake.drain(..).for_each(Waker::wake);
        // What came before the fault is valid, and is handed over.
        let left = hand_over(peer, &mut inbox);
        peer.received();
        if let Some(loss) = received.err() {
            return loss;
        }
        if let Some(left) = left {
            // It waits for the word that all of it has come.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, peer.written(up)).await;
            return left;
        }
        if since_turn >= peer.turn_bytes() {
            since_turn = 0;
            tokio::task::yield_now().await;
        }
        match frames.fill().await {
            Ok(bytes) => since_turn += bytes,
            Err(error) => return loss_of(&error),
        }
    }
}

/// Passes on what frames asked for. Says so if the peer has taken its leave.
fn hand_over(peer: &Arc<Peer>, inbox: &mut Inbox) -> Option<LinkLoss> {
    if inbox.is_empty() {
        return None;
    }
    let Some(host) = peer.host() else { return Some(LinkLoss::Shutdown) };
    let mut route = Route { host: &host, peer, last: None, left: None };
    scope::within(&host, || inbox.hand_over(&mut route));
    route.left
}

/// The way of what was read together to its actors.
struct Route<'a> {
    host: &'a Host,
    peer: &'a Peer,
    /// Where the last messages went: the next often go there, too.
    last: Option<((Target, TypeHash), Destination)>,
    left: Option<LinkLoss>,
}

impl Handover for Route<'_> {
    fn run(&mut self, to: (Target, TypeHash), run: Run) {
        if let Some((last, destination)) = &self.last
            && *last == to
        {
            return destination.take(run);
        }
        let (target, message) = to;
        if let Some(text) = self.peer.disagreement(message) {
            return run.for_each(|inbound| inbound.fail(&CallFailure::Mismatch { text: text.to_owned() }));
        }
        match self.host.find(target, message) {
            Ok(Some(destination)) => {
                destination.take(run);
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

    fn event(&mut self, event: Event<Ticket>) {
        match event {
            Event::Schemas { body } => self.peer.learn_schemas(self.host, &body),
            Event::DeadLetters { count } => self.host.shared.count_dead_letters(count),
            Event::Cancelled { call } => self.peer.cancelled(call),
            Event::PeerLeaves { reason } => self.left = Some(LinkLoss::PeerLeft { reason }),
            // Messages come in runs, and these have their callers by now.
            Event::Call { .. } | Event::Tell { .. } | Event::Replied { .. } | Event::Failed { .. } => {}
        }
    }
}

async fn write(peer: &Peer, up: &Up, mut writer: LinkWriter) -> io::Error {
    let mut batch = Batch::default();
    loop {
        peer.take_outgoing(up, &mut batch);
        match write_batch(peer, up, &mut writer, &mut batch).await {
            Ok(true) => {}
            Ok(false) => up.bell.notified().await,
            Err(error) => return error,
        }
    }
}

/// Writes all of a batch. Says whether there is more to take by then.
async fn write_batch(
    peer: &Peer,
    up: &Up,
    writer: &mut (impl AsyncWrite + Unpin),
    batch: &mut Batch,
) -> io::Result<bool> {
    let mut more = false;
    while batch.has_remaining() {
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
        more = peer.wrote(up, written);
    }
    writer.flush().await?;
    Ok(more)
}
