//! Input and output of a link's task: received frames into the session, outgoing bytes out of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{ActiveLink, Peer, PeerState, SlotId, now};
use crate::host::coalescing::PendingOutput;
use crate::host::receive::{ReceivedBatch, SessionSink};
use crate::id::CallId;
use crate::registry::ReplyPath;
use crate::session::{DisconnectReason, Session, SessionError, WriteBatch};
use crate::transport::{FrameReader, LinkReader, ReadError};
use crate::wire::{CallHeader, Frame, FrameVisitor, IncomingBody, TellHeader, WireError};

impl Peer {
    /// Receives every complete frame; messages for actors are added to `inbox`.
    pub(in crate::host) fn receive(
        self: &Arc<Self>,
        up: &ActiveLink,
        frames: &mut FrameReader<LinkReader>,
        inbox: &mut ReceivedBatch,
    ) -> Result<(), DisconnectReason> {
        let now = now();
        let mut state = self.lock();
        // The peer resends unacknowledged frames on the newer link. Read here as well, they would be
        // received twice.
        if !state.is_current_link(up) {
            return Err(DisconnectReason::Superseded);
        }
        let PeerState { session, reply_slots, .. } = &mut *state;
        let drained = frames.drain(&mut FrameReceiver {
            session,
            now,
            to: SessionSink { peer: self, reply_slots, inbox },
        });
        // Once for each read, since one ACK covers all of its frames. Before `drained?`, because
        // frames before a violation count as received.
        session.schedule_ack(now);
        drained?;
        up.touch(now.into());
        // A frame may produce output immediately: a call while this side closes, or the end of the last
        // call.
        state.notify_writer_if_pending();
        if let Some(due) = state.session.poll_timeout() {
            self.arm_timer(&mut state, due);
        }
        inbox.wakers.extend(self.serve(&mut state));
        drop(state);
        self.traffic.add_received(inbox.messages());
        Ok(())
    }

    /// Counts bytes that a link has read.
    pub(in crate::host) fn count_read(&self, bytes: usize) {
        self.traffic.add_read(bytes);
    }

    /// Wakes the future of a call that the peer has cancelled.
    pub(in crate::host) fn cancelled(&self, call: CallId) {
        // Before the wake-up: the woken future checks this flag first.
        self.has_cancelled.store(true, Ordering::Relaxed);
        let waker = self.lock().cancel_wakers.remove(&call);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Records whether the peer runs on the core of the link's thread.
    pub(in crate::host) fn sample_core(&self, shares_core: bool) {
        self.batching.sample(shares_core);
    }

    /// True if the peer runs on the core of the link's thread, as far as samples show.
    pub(in crate::host) fn shares_core(&self) -> bool {
        self.batching.shares_core()
    }

    /// Time for which the reader of a link polls for input before its thread sleeps.
    pub(in crate::host) fn busy_poll_limit(&self, reader: &LinkReader) -> Duration {
        // A link in memory has input when its peer runs, which may be on this very thread.
        let limits = self.host().map(|host| host.limits().busy_poll);
        limits.filter(|_| reader.is_socket()).unwrap_or_default()
    }

    /// Bytes that the link reads before the actors run, even if more input is available.
    pub(in crate::host) fn read_budget_bytes(&self) -> usize {
        self.batching.read_budget_bytes()
    }

    /// Notifies waiters of a drain that frames have arrived.
    pub(in crate::host) fn notify_progress(&self) {
        self.progress.notify_waiters();
    }

    /// Output that waits for the writer.
    pub(in crate::host) fn pending_output(&self) -> PendingOutput {
        let state = self.lock();
        PendingOutput { bytes: state.session.unwritten_bytes(), frames: state.session.frames_appended() }
    }

    /// Takes all outgoing bytes.
    pub(in crate::host) fn take_outgoing(&self, up: &ActiveLink, batch: &mut WriteBatch) {
        let mut state = self.lock();
        if state.is_current_link(up) {
            // Under the same lock as the take: a frame that is queued later notifies the writer again.
            state.writer_notified = false;
            state.session.take_outgoing(batch);
        }
        self.serve_and_unlock(state);
    }

    /// Records that `bytes` more are in the kernel; returns true if there is more output.
    pub(in crate::host) fn on_written(&self, up: &ActiveLink, bytes: usize) -> bool {
        let mut state = self.lock();
        let current = state.is_current_link(up);
        if current {
            state.session.on_written(bytes);
        }
        let more = current && state.session.has_outgoing();
        let messages = std::mem::take(&mut state.messages_uncounted);
        drop(state);
        self.traffic.add_write(bytes, messages);
        self.progress.notify_waiters();
        more
    }
}

/// Visitor that passes frames to the session as they are decoded.
pub(super) struct FrameReceiver<'a, O = Peer> {
    pub(super) session: &'a mut Session<SlotId>,
    pub(super) now: Instant,
    pub(super) to: SessionSink<'a, O>,
}

impl<O: ReplyPath + 'static> FrameVisitor for FrameReceiver<'_, O> {
    type Error = DisconnectReason;

    #[inline(always)]
    fn call(
        &mut self,
        call: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), DisconnectReason> {
        Ok(self.session.receive_call(self.now, call, frame_bytes, body, &mut self.to)?)
    }

    #[inline(always)]
    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), DisconnectReason> {
        Ok(self.session.receive_tell(tell, frame_bytes, body, &mut self.to)?)
    }

    /// Stores a reply in its slot right here, since the lock is held anyway.
    #[inline(always)]
    fn reply(
        &mut self,
        call: CallId,
        frame_bytes: usize,
        body: impl IncomingBody,
    ) -> Result<(), DisconnectReason> {
        if let Some(ticket) = self.session.receive_reply(call, frame_bytes)?
            && let Some(waker) = self.to.reply_slots.complete(ticket, body)
        {
            self.to.inbox.wakers.push(waker);
        }
        Ok(())
    }

    fn other(&mut self, frame: Frame) -> Result<(), DisconnectReason> {
        Ok(self.session.receive(self.now, frame, &mut self.to)?)
    }
}

impl From<SessionError> for DisconnectReason {
    fn from(error: SessionError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<WireError> for DisconnectReason {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<ReadError> for DisconnectReason {
    fn from(error: ReadError) -> Self {
        disconnect_reason(&error)
    }
}

/// Reason of a disconnect for a read error.
pub(in crate::host) fn disconnect_reason(error: &ReadError) -> DisconnectReason {
    match error {
        ReadError::Closed => DisconnectReason::Closed,
        ReadError::Io(error) => DisconnectReason::Io(error.to_string()),
        ReadError::Wire(error) => DisconnectReason::Protocol(error.to_string()),
    }
}
