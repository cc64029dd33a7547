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
pub(super) enum Side {
    /// The end that connected.
    Dialer = 0,
    /// The end that accepted.
    Listener = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// Result of a read or a write attempt.
pub(super) enum Progress<T> {
    Done(io::Result<T>),
    /// The waker is stored. Poll again at this moment even without a wake-up.
    Wait(Option<Instant>),
}

/// Both directions of one link.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Addresses of the dialler and of the listener.
    pub(super) ends: [SocketAddr; 2],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Element `n` carries the data that end `n` writes.
    lanes: [Direction; 2],
    cut: bool,
}

#[derive(Debug)]
struct Direction {
    latency: RangeInclusive<Duration>,
    rng: SplitMix64,
    /// Set while nothing may arrive.
    blocked: bool,
    /// Written data that is not read yet, with its arrival times.
    pieces: VecDeque<(Instant, Piece)>,
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
enum Piece {
    Data(Bytes),
    End,
    /// Close of an end that had unread data.
    Reset,
}

impl Direction {
    fn new(latency: RangeInclusive<Duration>, draws: SplitMix64, held: bool) -> Self {
        Self {
            latency,
            rng: draws,
            blocked: held,
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
        let drawn = self.rng.duration(&self.latency);
        let arrival = now.checked_add(drawn).unwrap_or(now).max(self.last_arrival.unwrap_or(now));
        self.last_arrival = Some(arrival);
        arrival
    }

    fn push(&mut self, now: Instant, piece: Piece) {
        let arrival = self.arrival(now);
        self.pieces.push_back((arrival, piece));
    }

    fn shut(&mut self, now: Instant, last: Piece) {
        if !std::mem::replace(&mut self.write_closed, true) {
            self.push(now, last);
        }
    }

    /// Returns whether data has arrived and waits for the reader.
    fn has_arrived(&self, now: Instant) -> bool {
        let first = self.pieces.front();
        !self.blocked && first.is_some_and(|(at, piece)| *at <= now && matches!(piece, Piece::Data(_)))
    }

    /// Reads the data that has arrived.
    fn read(&mut self, now: Instant, waker: &Waker, buf: &mut ReadBuf<'_>) -> Progress<()> {
        let before = buf.filled().len();
        let mut next = None;
        while !self.blocked && buf.remaining() > 0 {
            match self.pieces.front_mut() {
                Some((at, _)) if *at > now => {
                    next = Some(*at);
                    break;
                }
                Some((_, Piece::Data(bytes))) => {
                    let taken = bytes.split_to(bytes.len().min(buf.remaining()));
                    if bytes.is_empty() {
                        self.pieces.pop_front();
                    }
                    self.bytes -= taken.len();
                    buf.put_slice(&taken);
                }
                Some((_, Piece::Reset)) if buf.filled().len() == before => {
                    return Progress::Done(Err(ErrorKind::ConnectionReset.into()));
                }
                // Kept in the queue, for every later read.
                Some((_, Piece::End | Piece::Reset)) => return Progress::Done(Ok(())),
                None => break,
            }
        }
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Progress::Done(Ok(()));
        }
        self.reader = Some(waker.clone());
        Progress::Wait(next)
    }

    /// Writes as much data as there is space for.
    fn write(&mut self, now: Instant, waker: &Waker, slices: &[IoSlice<'_>]) -> Progress<usize> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = wanted.min(MEMORY_LINK_BYTES_MAX - self.bytes);
        if room == 0 && wanted > 0 {
            self.writer = Some(waker.clone());
            return Progress::Wait(self.reader_closed);
        }
        let mut data = BytesMut::with_capacity(room);
        for slice in slices {
            let part = slice.len().min(room - data.len());
            data.extend_from_slice(&slice[..part]);
        }
        if room > 0 {
            self.bytes += room;
            self.push(now, Piece::Data(data.freeze()));
        }
        Progress::Done(Ok(room))
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
        draws: &mut SplitMix64,
        held: [bool; 2],
    ) -> Self {
        let lanes = held.map(|held| Direction::new(latency.clone(), draws.split(), held));
        Self { ends, state: Mutex::new(State { lanes, cut: false }) }
    }

    /// Reads at `side` the data that the other end has written.
    pub(super) fn read(&self, side: Side, waker: &Waker, buf: &mut ReadBuf<'_>) -> Progress<()> {
        let mut state = self.lock();
        if state.cut {
            return Progress::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        let lane = state.lane(side.other());
        let progress = lane.read(Instant::now(), waker, buf);
        let room_made = if let Progress::Done(Ok(())) = &progress { lane.writer.take() } else { None };
        drop(state);
        wake(room_made);
        progress
    }

    /// Writes data at `side` for the other end.
    pub(super) fn write(&self, side: Side, waker: &Waker, slices: &[IoSlice<'_>]) -> Progress<usize> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.cut {
            return Progress::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        let news_held = state.lane(side.other()).blocked;
        let lane = state.lane(side);
        if lane.write_closed || (!news_held && lane.reader_closed.is_some_and(|known| known <= now)) {
            return Progress::Done(Err(ErrorKind::BrokenPipe.into()));
        }
        let progress = match lane.write(now, waker, slices) {
            // The close of the other end is in its blocked direction: healing it wakes this writer.
            Progress::Wait(_) if news_held => Progress::Wait(None),
            progress => progress,
        };
        // Only a write wakes the reader: two ends that wait for space would keep each other awake
        // otherwise.
        let reader = if let Progress::Done(_) = &progress { lane.reader.take() } else { None };
        drop(state);
        wake(reader);
        progress
    }

    /// Ends the stream that `side` writes.
    pub(super) fn shut(&self, side: Side) {
        let mut state = self.lock();
        if state.cut {
            return;
        }
        let lane = state.lane(side);
        lane.shut(Instant::now(), Piece::End);
        let reader = lane.reader.take();
        drop(state);
        wake(reader);
    }

    /// Closes the end at `side`. As with TCP, the other end sees a reset instead of an end of
    /// stream if unread data was left here.
    pub(super) fn close(&self, side: Side) {
        let now = Instant::now();
        let mut state = self.lock();
        let unread = state.lane(side.other()).has_arrived(now);
        let lane = state.lane(side);
        lane.shut(now, if unread { Piece::Reset } else { Piece::End });
        let known = lane.arrival(now);
        state.lane(side.other()).close_reader(known);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    /// Breaks the link for both ends immediately. Data in flight is lost.
    pub(super) fn cut(&self) {
        self.change(|state| {
            state.cut = true;
            state.lanes.iter_mut().for_each(|lane| lane.pieces.clear());
        });
    }

    /// Blocks or unblocks each direction, as `held` says.
    pub(super) fn set_blocked(&self, held: [bool; 2]) {
        self.change(|state| {
            for (lane, held) in state.lanes.iter_mut().zip(held) {
                lane.blocked = held;
            }
        });
    }

    pub(super) fn set_latency(&self, latency: &RangeInclusive<Duration>) {
        self.change(|state| state.lanes.iter_mut().for_each(|lane| lane.latency = latency.clone()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lane(&mut self, writer: Side) -> &mut Direction {
        &mut self.lanes[writer as usize]
    }

    /// Removes the wakers of all waiting readers and writers.
    fn wakers(&mut self) -> Vec<Waker> {
        self.lanes
            .iter_mut()
            .flat_map(|lane| lane.reader.take().into_iter().chain(lane.writer.take()))
            .collect()
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
