//! A session with its links, and its invariants.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use roadshow::internals::config::{
    HANDSHAKE_FRAME_BYTES_MAX, QUEUE_OVERHEAD_BYTES, QUEUED_CALL_OVERHEAD_BYTES, WINDOW_BYTES_MIN,
};
use roadshow::internals::host::{ReceivePath, SlotId};
use roadshow::internals::session::{
    DisconnectReason, Event, Session, SessionError, SessionLimits, WriteBatch, WriteCertainty,
};
use roadshow::internals::wire::{Encoded, Frame, FrameCodec, Resume, SessionParameters};
use roadshow_fuzz::Script;

use super::message::{CHUNK_BYTES, TARGETS};
use super::received::{Counts, Received};
use super::sent::{Attempt, End, Sent};

/// Maximum number of messages of a side that are long enough for chunks.
const LARGE_MAX: u32 = 16;

/// Length of an ACK frame in bytes; no counter includes it.
const ACK_BYTES: usize = 16;

/// A session and the knowledge of its user.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) limits: SessionLimits,
    pub(crate) session: Session<SlotId>,
    pub(super) path: ReceivePath,
    /// Attempts without an outcome, by their slots.
    pub(super) open: BTreeMap<SlotId, Attempt>,
    batch: WriteBatch,
    /// Bytes written to the kernel that the peer has not read.
    pub(crate) pipe: BytesMut,
    pub(crate) sent: Sent,
    pub(crate) received: Received,
    /// Schema table, if it differs from the peer's.
    pub(crate) table: Option<Vec<u8>>,
    /// Set if the peer keeps the protocol.
    pub(crate) strict: bool,
    /// Set if the user also retries calls that were not lost.
    pub(super) retries_any: bool,
    /// Last known epoch of the peer's session.
    pub(crate) peer_epoch: Option<u32>,
    pub(crate) closing: bool,
    pub(crate) attached: bool,
    pub(super) large_left: u32,
    /// Total length of all messages and answers, in bytes.
    pub(crate) message_bytes: usize,
}

impl Endpoint {
    /// Creates a session with limits chosen by the script. `strict` if its peer keeps the protocol.
    pub(crate) fn new(script: &mut Script<'_>, strict: bool) -> Self {
        let budget = |script: &mut Script<'_>| match usize::from(script.byte()) {
            small @ 0..192 => 8 * small,
            large => (large - 191) * CHUNK_BYTES / 8,
        };
        let limits = SessionLimits {
            outgoing_bytes_max: budget(script),
            frame_bytes_max: match usize::from(script.short()) {
                near @ 0xf000.. => CHUNK_BYTES - 64 + near % 128,
                limit => HANDSHAKE_FRAME_BYTES_MAX + 16 * limit,
            },
            window_bytes: WINDOW_BYTES_MIN + 32 * usize::from(script.byte()),
            send_queue_bytes_max: budget(script),
            calls_open_max: 1 + usize::from(script.byte()) / 4,
            chunk_bytes: CHUNK_BYTES,
            ..SessionLimits::default()
        };
        let table = match script.byte() {
            0..128 => None,
            short @ 128..224 => Some(vec![short; short.into()]),
            long => Some(vec![long; usize::from(long) * CHUNK_BYTES / 240]),
        };
        Self {
            limits,
            session: Session::new(limits),
            path: ReceivePath::default(),
            open: BTreeMap::new(),
            batch: WriteBatch::default(),
            pipe: BytesMut::new(),
            sent: Sent::default(),
            received: Received::new(strict),
            table,
            strict,
            retries_any: script.byte() >= 128,
            peer_epoch: None,
            closing: false,
            attached: false,
            large_left: LARGE_MAX,
            message_bytes: 0,
        }
    }

    /// Returns the parameters sent to the peer.
    pub(crate) fn terms(&self) -> SessionParameters {
        SessionParameters {
            frame_bytes_max: self.limits.frame_bytes_max as u64,
            outgoing_bytes_max: self.limits.outgoing_bytes_max as u64,
            window_bytes: self.limits.window_bytes as u64,
            schema: 0,
        }
    }

    /// Attaches a new link.
    ///
    /// # Errors
    ///
    /// When the session rejects the link; the session is then reset.
    pub(crate) fn attach(&mut self, terms: &SessionParameters, resume: Resume) -> Result<(), SessionError> {
        let epoch = self.session.resume().epoch;
        let table = self.table.as_ref().map(|table| Encoded::of(table));
        let mut events = Vec::new();
        let attached = self.session.attach(terms, resume, table, &mut events);
        // A peer seen for the first time has no earlier epoch that could end.
        let known = self.peer_epoch.replace(resume.epoch);
        let ends = [known.is_some_and(|known| known != resume.epoch), attached.is_err()];
        ends.into_iter().filter(|ends| *ends).for_each(|_| self.received.reset());
        self.collect(events);
        // Calls queued for credit were never sent, and survive the end of the epoch.
        assert_eq!(self.sent.open(), self.session.open_calls(), "calls that were sent end");
        assert_eq!(self.session.resume().epoch, epoch + u32::from(attached.is_err()));
        self.attached = attached.is_ok();
        self.pipe.clear();
        attached
    }

    /// Detaches the link.
    pub(crate) fn detach(&mut self, known: WriteCertainty) {
        let before = (self.session.outgoing_bytes(), self.session.send_queue_bytes(), self.session.resume());
        self.session.detach(known);
        let after = (self.session.outgoing_bytes(), self.session.send_queue_bytes(), self.session.resume());
        assert_eq!(before, after, "a detached session keeps everything");
        self.batch.clear();
        self.attached = false;
    }

    /// Fails the queued messages of a session without a link, as for an unreachable peer.
    pub(crate) fn fail_queued(&mut self) {
        if !self.attached {
            let mut events = Vec::new();
            self.session.fail_queued(&DisconnectReason::Unreachable("no route".to_owned()), &mut events);
            self.collect(events);
            assert_eq!(self.session.send_queue_bytes(), 0);
        }
    }

    /// Resets the session, which has no link.
    pub(crate) fn reset(&mut self, loss: &DisconnectReason) {
        let epoch = self.session.resume().epoch;
        let mut events = Vec::new();
        self.session.reset(loss, &mut events);
        self.received.reset();
        self.collect(events);
        assert_eq!(self.sent.open(), 0, "calls end with their session");
        assert_eq!((self.session.outgoing_bytes(), self.session.send_queue_bytes()), (0, 0));
        assert_eq!((self.session.charged_bytes(), self.session.owed_bytes()), (0, 0));
        assert_eq!(self.session.resume().epoch, epoch + 1);
    }

    /// Takes the queued frames if the batch is empty, and writes up to `bytes` bytes of it.
    pub(crate) fn write(&mut self, bytes: usize) -> usize {
        if !self.batch.has_remaining() {
            let has_outgoing = self.session.has_outgoing();
            self.session.take_outgoing(&mut self.batch);
            assert_eq!(self.batch.has_remaining(), has_outgoing);
        }
        let bytes = self.write_unreported(bytes);
        self.session.on_written(bytes);
        bytes
    }

    /// Writes from the batch without reporting it to the session, and returns the number of bytes.
    pub(crate) fn write_unreported(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.batch.remaining());
        self.pipe.extend_from_slice(&self.batch.copy_to_bytes(bytes));
        bytes
    }

    /// Receives the frames of one read, as a link does: from their bytes to the inbox.
    ///
    /// # Errors
    ///
    /// When the peer violates the protocol.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<(), DisconnectReason> {
        let codec = FrameCodec::established(self.limits.frame_bytes_max);
        // Each frame is received alone, so that the model can compare the counters before and after it.
        let mut bytes = BytesMut::new();
        let received = frames.into_iter().try_for_each(|frame| {
            frame.put(&mut bytes);
            let before = self.counts();
            let received = self.path.receive(&mut self.session, now, &codec, &mut bytes);
            match &received {
                Ok(()) => self.received.frame(frame, before, self.counts()),
                Err(_) => self.received.on_rejected(self.session.resume().received),
            }
            received
        });
        self.path.end_read(&mut self.session, now, &mut self.received);
        self.collect(Vec::new());
        received
    }

    fn counts(&self) -> Counts {
        [self.path.waiting(), self.session.inbound_calls(), self.session.cancelled_calls()]
    }

    /// Advances the clock of the session.
    pub(crate) fn advance(&mut self, now: Instant) {
        let mut events = Vec::new();
        self.session.on_timeout(now, &mut events);
        self.collect(events);
        assert!(self.session.poll_timeout().is_none_or(|due| due > now));
    }

    /// Collects the session's events and the outcomes available by now.
    fn collect(&mut self, events: Vec<Event<SlotId>>) {
        for event in self.path.settle(events) {
            match self.received.event(event) {
                None => {}
                Some(Event::DeadLetters { count }) => self.sent.dead_letters += count,
                Some(other) => panic!("{other:?} is new to this target"),
            }
        }
        let outcomes = self.open.keys().filter_map(|ticket| Some((*ticket, self.path.outcome(*ticket)?)));
        for (ticket, outcome) in outcomes.collect::<Vec<_>>() {
            let attempt = self.open.remove(&ticket).expect("a slot has one call");
            self.sent.end(attempt, outcome.map_or_else(End::Failed, End::Replied));
        }
    }

    /// Checks the invariants that hold between any two steps.
    pub(crate) fn check(&self) {
        let session = &self.session;
        assert_eq!(session.open_calls(), self.sent.open());
        self.received.check(session.resume().received, self.counts(), session.accepted_bytes());
        assert!(self.sent.dead_letters <= self.sent.tells.len() as u64);
        assert!(session.unwritten_bytes() <= session.outgoing_bytes());
        let longest = self.limits.frame_bytes_max + QUEUED_CALL_OVERHEAD_BYTES + QUEUE_OVERHEAD_BYTES;
        let send_queue_bytes_max = self.limits.outgoing_bytes_max.max(longest);
        assert!(session.send_queue_bytes() <= send_queue_bytes_max, "{session:?}");
        assert!(self.attached || !session.has_outgoing());
        let idle =
            session.open_calls() == 0 && session.inbound_calls() == 0 && session.send_queue_bytes() == 0;
        assert!(!session.is_drained() || (idle && session.unwritten_bytes() == 0));
        assert!(session.is_drained() || !(idle && session.outgoing_bytes() == 0));
        if self.strict {
            assert!(session.outgoing_bytes() + ACK_BYTES >= self.batch.remaining());
            let windows = (TARGETS.len() * self.limits.window_bytes) as u64;
            assert!(session.accepted_bytes() + session.owed_bytes() <= windows);
        }
    }

    /// Checks the state after everything has finished without a goodbye.
    pub(crate) fn check_at_rest(&self) {
        let session = &self.session;
        assert!(session.is_drained(), "{session:?}");
        assert_eq!(session.outgoing_bytes(), 0, "all is acknowledged");
        assert!(self.received.is_done());
        assert_eq!((session.accepted_bytes(), session.cancelled_calls()), (0, 0));
    }
}
