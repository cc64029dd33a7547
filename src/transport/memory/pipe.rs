//! In-memory connection between the two ends of a link, with one queue for each direction.
//!
//! ```text
//!   dialler  --write--> [ piece @t1 | piece @t2 | End @t3 ] --read-->  listener
//!             <--read-- [ piece @t1 | ...                 ] <--write--
//! ```
//!
//! Each written piece is given its arrival time, which is never before that of the previous piece.
//! A reader sees a piece once the clock has reached that time. Wakers run after the lock is
//! released: they may poll the other end immediately.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::random::SplitMix64;
use crate::config::MEMORY_LINK_BYTES_MAX;

/// End of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PipeEnd {
    /// The end that connected.
    Dialer = 0,
    /// The end that accepted.
    Listener = 1,
}

impl PipeEnd {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// Result of a read or a write attempt.
pub(super) enum IoProgress<T> {
    Done(io::Result<T>),
    /// The waker is stored. Poll again at this moment even without a wake-up.
    Wait(Option<Instant>),
}

/// Both directions of one link.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Addresses of the dialler and of the listener.
    pub(super) ends: [SocketAddr; 2],
    state: Mutex<PipeState>,
}

#[derive(Debug)]
struct PipeState {
    /// Element `n` carries the data that end `n` writes.
    directions: [Direction; 2],
    cut: bool,
}

#[derive(Debug)]
struct Direction {
    latency: RangeInclusive<Duration>,
    rng: SplitMix64,
    /// Set while nothing may arrive.
    blocked: bool,
    /// Written data that is not read yet, with its arrival times.
    pieces: VecDeque<(Instant, PipeSegment)>,
    bytes: usize,
    last_arrival: Option<Instant>,
    /// Set once the writer has ended its stream.
    write_closed: bool,
    /// Time at which the writer learns that the reader is closed.
    reader_closed: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum PipeSegment {
    Data(Bytes),
    End,
    /// Close of an end that had unread data.
    Reset,
}

impl Direction {
    fn new(latency: RangeInclusive<Duration>, rng: SplitMix64, blocked: bool) -> Self {
        Self {
            latency,
            rng,
            blocked,
            pieces: VecDeque::new(),
            bytes: 0,
            last_arrival: None,
            write_closed: false,
            reader_closed: None,
            reader: None,
            writer: None,
        }
    }

    /// Returns the arrival time of something that is sent now: after everything sent before.
    fn arrival(&mut self, now: Instant) -> Instant {
        // A stream never reorders: a short latency is extended to the arrival of the previous
        // piece.
        let drawn = self.rng.duration(&self.latency);
        let arrival = now.checked_add(drawn).unwrap_or(now).max(self.last_arrival.unwrap_or(now));
        self.last_arrival = Some(arrival);
        arrival
    }

    fn push(&mut self, now: Instant, piece: PipeSegment) {
        let arrival = self.arrival(now);
        self.pieces.push_back((arrival, piece));
    }

    fn shut(&mut self, now: Instant, last: PipeSegment) {
        if !std::mem::replace(&mut self.write_closed, true) {
            self.push(now, last);
        }
    }

    /// Returns whether data has arrived and waits for the reader.
    fn has_arrived(&self, now: Instant) -> bool {
        let first = self.pieces.front();
        !self.blocked && first.is_some_and(|(at, piece)| *at <= now && matches!(piece, PipeSegment::Data(_)))
    }

    /// Reads the data that has arrived.
    fn read(&mut self, now: Instant, waker: &Waker, buf: &mut ReadBuf<'_>) -> IoProgress<()> {
        let before = buf.filled().len();
        let mut next = None;
        while !self.blocked && buf.remaining() > 0 {
            match self.pieces.front_mut() {
                Some((at, _)) if *at > now => {
                    next = Some(*at);
                    break;
                }
                Some((_, PipeSegment::Data(bytes))) => {
                    let taken = bytes.split_to(bytes.len().min(buf.remaining()));
                    if bytes.is_empty() {
                        self.pieces.pop_front();
                    }
                    self.bytes -= taken.len();
                    buf.put_slice(&taken);
                }
                // Data before a reset is delivered first. The next read reports the reset.
                Some((_, PipeSegment::Reset)) if buf.filled().len() == before => {
                    return IoProgress::Done(Err(ErrorKind::ConnectionReset.into()));
                }
                // Kept in the queue, for every later read.
                Some((_, PipeSegment::End | PipeSegment::Reset)) => return IoProgress::Done(Ok(())),
                None => break,
            }
        }
        if buf.filled().len() > before || buf.remaining() == 0 {
            return IoProgress::Done(Ok(()));
        }
        self.reader = Some(waker.clone());
        IoProgress::Wait(next)
    }

    /// Writes as much data as there is space for.
    fn write(&mut self, now: Instant, waker: &Waker, slices: &[IoSlice<'_>]) -> IoProgress<usize> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let space = wanted.min(MEMORY_LINK_BYTES_MAX - self.bytes);
        if space == 0 && wanted > 0 {
            self.writer = Some(waker.clone());
            // A writer that waits for space must still notice that the reader is closed.
            return IoProgress::Wait(self.reader_closed);
        }
        let mut data = BytesMut::with_capacity(space);
        for slice in slices {
            let part = slice.len().min(space - data.len());
            data.extend_from_slice(&slice[..part]);
        }
        if space > 0 {
            self.bytes += space;
            self.push(now, PipeSegment::Data(data.freeze()));
        }
        IoProgress::Done(Ok(space))
    }

    /// Closes the reading end; the writer learns of it at `known`.
    fn close_reader(&mut self, known: Instant) {
        self.reader_closed = Some(known);
        self.pieces.clear();
        self.bytes = 0;
    }
}

impl Pipe {
    pub(super) fn new(
        ends: [SocketAddr; 2],
        latency: &RangeInclusive<Duration>,
        rng: &mut SplitMix64,
        blocked: [bool; 2],
    ) -> Self {
        let directions = blocked.map(|blocked| Direction::new(latency.clone(), rng.split(), blocked));
        Self { ends, state: Mutex::new(PipeState { directions, cut: false }) }
    }

    /// Reads at `side` the data that the other end has written.
    pub(super) fn read(&self, side: PipeEnd, waker: &Waker, buf: &mut ReadBuf<'_>) -> IoProgress<()> {
        let mut state = self.lock();
        if state.cut {
            return IoProgress::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        let direction = state.direction(side.other());
        let progress = direction.read(Instant::now(), waker, buf);
        let freed = if let IoProgress::Done(Ok(())) = &progress { direction.writer.take() } else { None };
        drop(state);
        wake(freed);
        progress
    }

    /// Writes data at `side` for the other end.
    pub(super) fn write(&self, side: PipeEnd, waker: &Waker, slices: &[IoSlice<'_>]) -> IoProgress<usize> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.cut {
            return IoProgress::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        let close_is_blocked = state.direction(side.other()).blocked;
        let direction = state.direction(side);
        if direction.write_closed
            || (!close_is_blocked && direction.reader_closed.is_some_and(|known| known <= now))
        {
            return IoProgress::Done(Err(ErrorKind::BrokenPipe.into()));
        }
        let progress = match direction.write(now, waker, slices) {
            // The close of the other end is in its blocked direction: healing it wakes this writer.
            IoProgress::Wait(_) if close_is_blocked => IoProgress::Wait(None),
            progress => progress,
        };
        // Only a write wakes the reader: two ends that wait for space would keep each other awake
        // otherwise.
        let reader = if let IoProgress::Done(_) = &progress { direction.reader.take() } else { None };
        drop(state);
        wake(reader);
        progress
    }

    /// Ends the stream that `side` writes.
    pub(super) fn shut(&self, side: PipeEnd) {
        let mut state = self.lock();
        if state.cut {
            return;
        }
        let direction = state.direction(side);
        direction.shut(Instant::now(), PipeSegment::End);
        let reader = direction.reader.take();
        drop(state);
        wake(reader);
    }

    /// Closes the end at `side`. As with TCP, the other end sees a reset instead of an end of
    /// stream if unread data was left here.
    pub(super) fn close(&self, side: PipeEnd) {
        let now = Instant::now();
        let mut state = self.lock();
        // Linux sends a reset if a socket is closed with unread data, and tests must meet that
        // case.
        let unread = state.direction(side.other()).has_arrived(now);
        let direction = state.direction(side);
        direction.shut(now, if unread { PipeSegment::Reset } else { PipeSegment::End });
        // The close takes the latency of the link, as data does.
        let known = direction.arrival(now);
        state.direction(side.other()).close_reader(known);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    /// Breaks the link for both ends immediately. Data in flight is lost.
    pub(super) fn cut(&self) {
        self.change(|state| {
            state.cut = true;
            state.directions.iter_mut().for_each(|direction| direction.pieces.clear());
        });
    }

    /// Blocks or unblocks each direction, as `blocked` says.
    pub(super) fn set_blocked(&self, blocked: [bool; 2]) {
        self.change(|state| {
            for (direction, blocked) in state.directions.iter_mut().zip(blocked) {
                direction.blocked = blocked;
            }
        });
    }

    pub(super) fn set_latency(&self, latency: &RangeInclusive<Duration>) {
        self.change(|state| {
            state.directions.iter_mut().for_each(|direction| direction.latency = latency.clone())
        });
    }

    fn change(&self, change: impl FnOnce(&mut PipeState)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PipeState {
    fn direction(&mut self, writer: PipeEnd) -> &mut Direction {
        &mut self.directions[writer as usize]
    }

    /// Removes the wakers of all waiting readers and writers.
    fn wakers(&mut self) -> Vec<Waker> {
        self.directions
            .iter_mut()
            .flat_map(|direction| direction.reader.take().into_iter().chain(direction.writer.take()))
            .collect()
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
