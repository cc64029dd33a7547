//! Senders that wait for capacity, amid all other steps.

use super::*;
use crate::session::{Waiter, WaiterId};

/// A one-way message whose sender waits.
pub(super) struct Waiting {
    id: WaiterId,
    number: Number,
    padding: usize,
    /// Set once its sender was woken.
    woken: bool,
    /// Waiters that had a grant when this one queued again; they may send first.
    queued_behind: Vec<WaiterId>,
}

impl World {
    /// Sends a tell, or lets its sender wait.
    pub(super) fn tell_or_line_up(&mut self, side: usize, padding: usize, spares_queue: bool) {
        self.last += 1;
        let (number, side) = (self.last, &mut self.sides[side]);
        let frame_bytes = match side.session.over_soft_limit(TARGET).filter(|_| spares_queue) {
            Some(_) => frame_bytes_of(number, padding),
            None => match side.try_tell(number, padding) {
                Ok(()) => return,
                Err(frame_bytes) => frame_bytes,
            },
        };
        let id = side.session.line_up(TARGET, Waiter { frame_bytes, is_call: false, spares_queue }, None);
        side.waiting.push(Waiting { id, number, padding, woken: false, queued_behind: Vec::new() });
    }

    /// Polls a waiting sender, which sends if it has its turn.
    pub(super) fn poll_turn(&mut self, side: usize, nth: usize) {
        let side = &mut self.sides[side];
        if nth >= side.waiting.len() || !side.session.has_turn(side.waiting[nth].id) {
            return;
        }
        let mut waiting = side.waiting.remove(nth);
        let passes_none = side.waiting.iter().all(|other| {
            let waits = other.id < waiting.id && !side.session.has_turn(other.id);
            !waits || other.queued_behind.contains(&waiting.id)
        });
        side.session.begin_turn(waiting.id, TARGET);
        let sent = side.try_tell(waiting.number, waiting.padding);
        assert!(sent.is_err() || passes_none, "it passes no waiter");
        if let Err(frame_bytes) = sent {
            // Its reservation had expired, or the session was cleared: the grants given meanwhile stand.
            let granted = side.waiting.iter().filter(|other| side.session.has_turn(other.id));
            waiting.queued_behind = granted.map(|other| other.id).collect();
            let waiter = Waiter { frame_bytes, is_call: false, spares_queue: false };
            side.session.line_up(TARGET, waiter, Some(waiting.id));
            waiting.woken = false;
            side.waiting.push(waiting);
        }
        side.session.end_turn(TARGET);
    }

    /// Drops a waiting sender.
    pub(super) fn drop_waiter(&mut self, side: usize, nth: usize) {
        let side = &mut self.sides[side];
        if nth < side.waiting.len() {
            side.session.stop_waiting(side.waiting.remove(nth).id);
        }
    }

    /// Wakes the granted waiters, as a host does after each step.
    pub(super) fn serve(&mut self) {
        for side in &mut self.sides {
            for id in side.session.serve(self.now) {
                for waiting in side.waiting.iter_mut().filter(|waiting| waiting.id == id) {
                    waiting.woken = true;
                }
            }
            side.check_waiting();
        }
    }

    /// Lets all granted waiters send.
    pub(super) fn poll_all_turns(&mut self) {
        for side in [0, 1] {
            for nth in (0..self.sides[side].waiting.len()).rev() {
                self.poll_turn(side, nth);
            }
        }
        self.serve();
    }
}

impl Side {
    /// Sends a tell, or returns the frame's length if there is no capacity.
    pub(super) fn try_tell(&mut self, number: Number, padding: usize) -> Result<(), usize> {
        let message = (number, "x".repeat(padding));
        let sent = wire::encode(&message, 1 << 20, |body| self.session.tell(TARGET, MESSAGE, body)).unwrap();
        match sent {
            Ok(()) => {
                self.sent_tells.push(number);
                Ok(())
            }
            Err(Rejected::Full { size, .. }) => Err(size),
            Err(other) => panic!("{other}"),
        }
    }

    /// Returns whether a new message passes no waiter.
    pub(super) fn passes_none(&self) -> bool {
        self.waiting.iter().all(|waiting| self.session.has_turn(waiting.id))
    }

    fn check_waiting(&self) {
        for Waiting { id, woken, .. } in &self.waiting {
            assert!(*woken || !self.session.has_turn(*id), "{id:?} was granted and not woken");
        }
        let session = &self.session;
        let has_credit = session.charged_bytes() <= LIMITS.window_bytes as u64 / 2;
        let is_idle = session.send_queue_bytes() == 0
            && session.open_calls() < LIMITS.calls_open_max
            && (!self.attached || (session.outgoing_bytes() == 0 && has_credit));
        let any_turn = self.waiting.iter().any(|waiting| session.has_turn(waiting.id));
        assert!(
            !is_idle || self.waiting.is_empty() || any_turn,
            "both sides are idle, and senders wait for capacity"
        );
    }
}

fn frame_bytes_of(number: Number, padding: usize) -> usize {
    wire::encode(&(number, "x".repeat(padding)), 1 << 20, |body| wire::TellHeader::frame_bytes(body)).unwrap()
}
