//! Senders that wait for room: they line up, are woken, send in their turn, or wait no more.

use std::time::Instant;

use roadshow::id::Target;
use roadshow::session::{Rejected, Retryable, Waiter, WaiterId};
use roadshow_fuzz::Script;

use super::made::Attempt;
use super::message::{Message, Number, TARGETS};
use super::side::Side;

/// A message whose sender waits for room.
#[derive(Debug)]
pub(crate) struct Waiting {
    place: WaiterId,
    target: Target,
    /// A one-way message if not a call.
    call: Option<Retryable>,
    message: Message,
    /// Whether its sender was woken since it lined up.
    woken: bool,
}

impl Side {
    /// A sender that can wait sends, or lines up.
    pub(crate) fn send_or_line_up(&mut self, now: Instant, number: Number, script: &mut Script<'_>) {
        let target = TARGETS[script.one_of(TARGETS.len())];
        let how = script.byte();
        let call = match how % 4 {
            0 => Some(Retryable::First),
            1 => Some(Retryable::Never),
            _ => None,
        };
        let spares_queue = how >= 128;
        let message = self.message(number, script);
        let is_over = self.session.over_soft_limit(target).is_some() && call.is_none();
        let may_send = self.leaving || self.came.peer_closing || !(spares_queue && is_over);
        let frame_bytes = match may_send {
            true => match self.send(now, number, target, call, &message, false) {
                Err(Rejected::Full { size, .. }) => size,
                _ => return,
            },
            false => roadshow::wire::TellHeader::frame_bytes(message.as_encoded()),
        };
        let waiter = Waiter { frame_bytes, is_call: call.is_some(), spares_queue };
        let place = self.session.line_up(target, waiter, None);
        self.waiting.push(Waiting { place, target, call, message, woken: false });
    }

    fn send(
        &mut self,
        now: Instant,
        number: Number,
        target: Target,
        call: Option<Retryable>,
        message: &Message,
        in_turn: bool,
    ) -> Result<(), Rejected> {
        match call {
            Some(repeat) => {
                let attempt = Attempt { number, nth: 0 };
                self.try_call(now, attempt, target, repeat, None, message, in_turn)
            }
            None => self.try_tell(number, target, message, in_turn),
        }
    }

    /// A sender that waits is polled: it sends if it has its turn, under the number of that moment. Says whether it
    /// waits no more.
    pub(crate) fn poll_turn(&mut self, now: Instant, number: Number, which: usize) -> bool {
        let nth = which % self.waiting.len().max(1);
        if self.waiting.get(nth).is_none_or(|waiting| !self.session.has_turn(waiting.place)) {
            return false;
        }
        let mut waiting = self.waiting.remove(nth);
        let Waiting { place, target, call, .. } = waiting;
        let mut before = self.waiting.iter().filter(|it| it.target == target && it.place < place);
        assert!(before.all(|it| self.session.has_turn(it.place)), "{place:?} passes one in its line");
        let message = waiting.message.with_number(number);
        self.session.begin_turn(place, target);
        let sent = self.send(now, number, target, call, &message, true);
        let is_full = if let Err(Rejected::Full { size, .. }) = sent {
            // From here on it waits for room alone.
            let waiter = Waiter { frame_bytes: size, is_call: call.is_some(), spares_queue: false };
            assert_eq!(self.session.line_up(target, waiter, Some(place)), place);
            waiting.woken = false;
            self.waiting.push(waiting);
            true
        } else {
            false
        };
        self.session.end_turn(target);
        self.serve(now);
        !is_full
    }

    /// A sender waits no more: it is forgotten.
    pub(crate) fn drop_waiter(&mut self, which: usize) {
        if !self.waiting.is_empty() {
            let dropped = self.waiting.remove(which % self.waiting.len());
            self.session.stop_waiting(dropped.place);
        }
    }

    /// Whether a sender that waits has its turn.
    pub(crate) fn has_turn(&self) -> bool {
        self.waiting.iter().any(|waiting| self.session.has_turn(waiting.place))
    }

    /// Wakes those that have room, as a host does behind each step.
    pub(crate) fn serve(&mut self, now: Instant) {
        if self.session.has_waiters() {
            let woken = self.session.serve(now);
            for waiting in self.waiting.iter_mut().filter(|waiting| woken.contains(&waiting.place)) {
                waiting.woken = true;
            }
        }
        for Waiting { place, woken, .. } in &self.waiting {
            assert!(*woken || !self.session.has_turn(*place), "{place:?} has its turn and sleeps");
        }
        assert!(!self.waiting.is_empty() || !self.session.has_waiters(), "one that waits no more is kept");
    }
}
