//! What the task of a link does with the session: frames in, bytes out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{ActiveLink, Peer, SlotId, State, now};
use crate::host::receive::{ReceivedBatch, SessionSink};
use crate::id::CallId;
use crate::registry::ReplyPath;
use crate::session::{DisconnectReason, Session, SessionError, WriteBatch};
use crate::transport::{FrameReader, LinkReader, ReadError};
use crate::wire::{CallHeader, Frame, FrameVisitor, ShortSlice, TellHeader, WireError};

impl Peer {
    /// Takes in every frame that has arrived whole; what they ask for is added to `inbox`.
    pub(in crate::host) fn receive(
        self: &Arc<Self>,
        up: &ActiveLink,
        frames: &mut FrameReader<LinkReader>,
        inbox: &mut ReceivedBatch,
    ) -> Result<(), DisconnectReason> {
        let now = now();
        let mut state = self.lock();
        if !state.is_current_link(up) {
            return Err(DisconnectReason::Superseded);
        }
        let State { session, answers, .. } = &mut *state;
        let drained =
            frames.drain(&mut FrameReceiver { session, now, to: SessionSink { peer: self, answers, inbox } });
        session.schedule_ack(now);
        drained?;
        up.touch(now.into());
        // A frame may have its answer at once: a call while this side leaves, the end of the last call.
        state.notify_writer_if_pending();
        if let Some(due) = state.session.poll_timeout() {
            self.arm_timer(&mut state, due);
        }
        inbox.wakers.extend(self.serve(&mut state));
        Ok(())
    }

    /// The peer waits no longer for a call of its own: wakes the future that works on it.
    pub(in crate::host) fn cancelled(&self, call: CallId) {
        self.has_cancelled.store(true, Ordering::Relaxed);
        let waker = self.lock().cancel_wakers.remove(&call);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what a look at the link says: whether the peer runs on the core of the link's thread.
    pub(in crate::host) fn sample_core(&self, shares_core: bool) {
        self.batching.sample(shares_core);
    }

    /// After so many bytes that were read the actors have their turn, though there may be more to read.
    pub(in crate::host) fn read_budget_bytes(&self) -> usize {
        self.batching.read_budget_bytes()
    }

    /// Tells who waits for a drain that frames have come in.
    pub(in crate::host) fn notify_progress(&self) {
        self.progress.notify_waiters();
    }

    /// Takes everything that waits to be written.
    pub(in crate::host) fn take_outgoing(&self, up: &ActiveLink, batch: &mut WriteBatch) {
        let mut state = self.lock();
        if state.is_current_link(up) {
            state.writer_notified = false;
            state.session.take_outgoing(batch);
        }
        self.serve_and_unlock(state);
    }

    /// So many bytes more are with the kernel. Says whether there is more to take.
    pub(in crate::host) fn on_written(&self, up: &ActiveLink, bytes: usize) -> bool {
        let mut state = self.lock();
        let carried = state.is_current_link(up);
        if carried {
            state.session.on_written(bytes);
        }
        let more = carried && state.session.has_outgoing();
        drop(state);
        self.progress.notify_waiters();
        more
    }
}

/// Where frames go as they are read.
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
        body: ShortSlice<'_>,
    ) -> Result<(), DisconnectReason> {
        Ok(self.session.receive_call(self.now, call, frame_bytes, body, &mut self.to)?)
    }

    #[inline(always)]
    fn tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: ShortSlice<'_>,
    ) -> Result<(), DisconnectReason> {
        Ok(self.session.receive_tell(tell, frame_bytes, body, &mut self.to)?)
    }

    /// An outcome goes to its caller here, while the lock is held in any case.
    #[inline(always)]
    fn reply(
        &mut self,
        call: CallId,
        frame_bytes: usize,
        body: ShortSlice<'_>,
    ) -> Result<(), DisconnectReason> {
        if let Some(ticket) = self.session.receive_reply(call, frame_bytes)?
            && let Some(waker) = self.to.answers.complete(ticket, body)
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

/// What a broken or misbehaving direction means for the link.
pub(in crate::host) fn disconnect_reason(error: &ReadError) -> DisconnectReason {
    match error {
        ReadError::Closed => DisconnectReason::Closed,
        ReadError::Io(error) => DisconnectReason::Io(error.to_string()),
        ReadError::Wire(error) => DisconnectReason::Protocol(error.to_string()),
    }
}
