//! One session with its links, and what must hold of it at any time.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use roadshow::config::{
    HANDSHAKE_FRAME_BYTES_MAX, QUEUE_OVERHEAD_BYTES, QUEUED_CALL_OVERHEAD_BYTES, WINDOW_BYTES_MIN,
};
use roadshow::host::{ReceivePath, SlotId};
use roadshow::session::{
    DisconnectReason, Event, Session, SessionError, SessionLimits, WriteBatch, WriteCertainty,
};
use roadshow::wire::{Encoded, Frame, FrameCodec, Resume, SessionParameters};
use roadshow_fuzz::Script;

use super::came::{Came, Counts};
use super::made::{Attempt, End, Ledger};
use super::message::{CHUNK_BYTES, TARGETS};

/// How many messages of a side may be so long that they are cut into chunks.
const LARGE_MAX: u32 = 16;

/// The bytes of a frame that says what has come, which are in no count.
const ACK_BYTES: usize = 16;

/// One session and what its user knows.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) limits: SessionLimits,
    pub(crate) session: Session<SlotId>,
    pub(super) path: ReceivePath,
    /// The attempts that have no outcome, by their slots.
    pub(super) open: BTreeMap<SlotId, Attempt>,
    batch: WriteBatch,
    /// What the kernel has, and the peer has not read.
    pub(crate) pipe: BytesMut,
    pub(crate) made: Ledger,
    pub(crate) came: Came,
    /// The table of types, if the peer's is another.
    pub(crate) table: Option<Vec<u8>>,
    /// Whether the peer keeps the protocol.
    pub(crate) strict: bool,
    /// Whether its user makes calls again that did not get lost.
    pub(super) wild: bool,
    /// How often the peer has reset the session, as far as is known here.
    pub(crate) peer_epoch: Option<u32>,
    pub(crate) leaving: bool,
    pub(crate) attached: bool,
    pub(super) large_left: u32,
    /// The bytes of all messages and answers.
    pub(crate) said_bytes: usize,
}

impl Side {
    /// A session with limits of the script's choice. `strict` if its peer keeps the protocol.
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
            parked_bytes_max: budget(script),
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
            made: Ledger::default(),
            came: Came::new(strict),
            table,
            strict,
            wild: script.byte() >= 128,
            peer_epoch: None,
            leaving: false,
            attached: false,
            large_left: LARGE_MAX,
            said_bytes: 0,
        }
    }

    /// What it tells a peer of itself.
    pub(crate) fn terms(&self) -> SessionParameters {
        SessionParameters {
            frame_bytes_max: self.limits.frame_bytes_max as u64,
            outgoing_bytes_max: self.limits.outgoing_bytes_max as u64,
            window_bytes: self.limits.window_bytes as u64,
            schema: 0,
        }
    }

    /// A link comes up.
    ///
    /// # Errors
    ///
    /// When the session does not take it, and has been reset.
    pub(crate) fn attach(&mut self, terms: &SessionParameters, resume: Resume) -> Result<(), SessionError> {
        let epoch = self.session.resume().epoch;
        let table = self.table.as_ref().map(|table| Encoded { message: table, attachments: &[] });
        let mut events = Vec::new();
        let attached = self.session.attach(terms, resume, table, &mut events);
        // Of a peer that was not heard of before nothing can end.
        let known = self.peer_epoch.replace(resume.epoch);
        let ends = [known.is_some_and(|known| known != resume.epoch), attached.is_err()];
        ends.into_iter().filter(|ends| *ends).for_each(|_| self.came.reset());
        self.note(events);
        // What was parked was not under way, and goes on.
        assert_eq!(self.made.open(), self.session.open_calls(), "calls that were under way end");
        assert_eq!(self.session.resume().epoch, epoch + u32::from(attached.is_err()));
        self.attached = attached.is_ok();
        self.pipe.clear();
        attached
    }

    /// The link is gone.
    pub(crate) fn detach(&mut self, known: WriteCertainty) {
        let before = (self.session.outgoing_bytes(), self.session.parked_bytes(), self.session.resume());
        self.session.detach(known);
        let after = (self.session.outgoing_bytes(), self.session.parked_bytes(), self.session.resume());
        assert_eq!(before, after, "everything is kept");
        self.batch.clear();
        self.attached = false;
    }

    /// The peer cannot be reached, if there is no link: what waits for one is given up.
    pub(crate) fn fail_queued(&mut self) {
        if !self.attached {
            let mut events = Vec::new();
            self.session.fail_queued(&DisconnectReason::Unreachable("no way".to_owned()), &mut events);
            self.note(events);
            assert_eq!(self.session.parked_bytes(), 0);
        }
    }

    /// The session ends, without a link.
    pub(crate) fn reset(&mut self, loss: &DisconnectReason) {
        let epoch = self.session.resume().epoch;
        let mut events = Vec::new();
        self.session.reset(loss, &mut events);
        self.came.reset();
        self.note(events);
        assert_eq!(self.made.open(), 0, "calls end with their session");
        assert_eq!((self.session.outgoing_bytes(), self.session.parked_bytes()), (0, 0));
        assert_eq!((self.session.charged_bytes(), self.session.owed_bytes()), (0, 0));
        assert_eq!(self.session.resume().epoch, epoch + 1);
    }

    /// The writer takes what is queued if it has nothing, and writes so many bytes of what it has.
    pub(crate) fn write(&mut self, bytes: usize) -> usize {
        if !self.batch.has_remaining() {
            let has_outgoing = self.session.has_outgoing();
            self.session.take_outgoing(&mut self.batch);
            assert_eq!(self.batch.has_remaining(), has_outgoing);
        }
        let bytes = self.write_untold(bytes);
        self.session.on_written(bytes);
        bytes
    }

    /// Writes of what the writer has, and does not tell the session. Returns how many bytes.
    pub(crate) fn write_untold(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.batch.remaining());
        self.pipe.extend_from_slice(&self.batch.copy_to_bytes(bytes));
        bytes
    }

    /// Takes the frames of one read, as a link does: from their bytes to the inbox.
    ///
    /// # Errors
    ///
    /// When the peer breaks the protocol.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<(), DisconnectReason> {
        let codec = FrameCodec::established(self.limits.frame_bytes_max);
        let mut bytes = BytesMut::new();
        let received = frames.into_iter().try_for_each(|frame| {
            frame.put(&mut bytes);
            let before = self.counts();
            let received = self.path.receive(&mut self.session, now, &codec, &mut bytes);
            match &received {
                Ok(()) => self.came.frame(frame, before, self.counts()),
                Err(_) => self.came.refused(self.session.resume().received),
            }
            received
        });
        self.path.end_read(&mut self.session, now, &mut self.came);
        self.note(Vec::new());
        received
    }

    fn counts(&self) -> Counts {
        [self.path.waiting(), self.session.inbound_calls(), self.session.cancelled_calls()]
    }

    /// Time has passed.
    pub(crate) fn pass(&mut self, now: Instant) {
        let mut events = Vec::new();
        self.session.on_timeout(now, &mut events);
        self.note(events);
        assert!(self.session.poll_timeout().is_none_or(|due| due > now));
    }

    /// Takes what the session says beside messages, and the outcomes that there are by now.
    fn note(&mut self, events: Vec<Event<SlotId>>) {
        for event in self.path.settle(events) {
            match self.came.event(event) {
                None => {}
                Some(Event::DeadLetters { count }) => self.made.dead_letters += count,
                Some(other) => panic!("{other:?} is new to this target"),
            }
        }
        let outcomes = self.open.keys().filter_map(|ticket| Some((*ticket, self.path.outcome(*ticket)?)));
        for (ticket, outcome) in outcomes.collect::<Vec<_>>() {
            let attempt = self.open.remove(&ticket).expect("a slot has one call");
            self.made.end(attempt, outcome.map_or_else(End::Failed, End::Replied));
        }
    }

    /// What holds between any two steps.
    pub(crate) fn check(&self) {
        let session = &self.session;
        assert_eq!(session.open_calls(), self.made.open());
        self.came.check(session.resume().received, self.counts(), session.accepted_bytes());
        assert!(self.made.dead_letters <= self.made.tells.len() as u64);
        assert!(session.unwritten_bytes() <= session.outgoing_bytes());
        let longest = self.limits.frame_bytes_max + QUEUED_CALL_OVERHEAD_BYTES + QUEUE_OVERHEAD_BYTES;
        let parked_bytes_max = self.limits.outgoing_bytes_max.max(longest);
        assert!(session.parked_bytes() <= parked_bytes_max, "{session:?}");
        assert!(self.attached || !session.has_outgoing());
        let idle = session.open_calls() == 0 && session.inbound_calls() == 0 && session.parked_bytes() == 0;
        assert!(!session.is_drained() || (idle && session.unwritten_bytes() == 0));
        assert!(session.is_drained() || !(idle && session.outgoing_bytes() == 0));
        if self.strict {
            assert!(session.outgoing_bytes() + ACK_BYTES >= self.batch.remaining());
            let windows = (TARGETS.len() * self.limits.window_bytes) as u64;
            assert!(session.accepted_bytes() + session.owed_bytes() <= windows);
        }
    }

    /// What holds when everything that can happen has happened, and nobody leaves.
    pub(crate) fn check_at_rest(&self) {
        let session = &self.session;
        assert!(session.is_drained(), "{session:?}");
        assert_eq!(session.outgoing_bytes(), 0, "all is acknowledged");
        assert!(self.came.is_done());
        assert_eq!((session.accepted_bytes(), session.cancelled_calls()), (0, 0));
    }
}
