//! Actions of the user of a session.

use std::time::{Duration, Instant};

use roadshow::internals::config::{
    FAILURE_TEXT_CHARS_MAX, QUEUE_OVERHEAD_BYTES, QUEUED_CALL_OVERHEAD_BYTES, QUEUED_OVERHEAD_BYTES,
};
use roadshow::internals::id::{CallId, Target};
use roadshow::internals::session::{CreditCharge, Rejected, Retryable};
use roadshow::internals::wire::{CallFailure, CallHeader, TellHeader};
use roadshow_fuzz::Script;

use super::endpoint::Endpoint;
use super::message::{MESSAGE, Message, Number, TARGETS};
use super::received::Answer;
use super::sent::{AcceptedCall, Attempt, End};

/// State of a session before a message is sent.
#[derive(Debug)]
struct Waiting {
    calls: usize,
    outgoing: usize,
    queued: usize,
    has_room: bool,
    /// Bytes charged for a queued message in addition to its frame.
    overhead: usize,
}

impl Endpoint {
    /// Performs one action that a session's user or its writer may do at any time.
    pub(crate) fn act(&mut self, now: Instant, number: Number, script: &mut Script<'_>) {
        match script.one_of(20) {
            0..=3 => self.call(now, number, script),
            4 => self.retry_call(now, script),
            5..=7 => self.tell(number, script),
            8..=11 => self.answer(script),
            12..=13 => self.begin(script.byte().into()),
            14 => self.forget(script),
            15 => self.end_retries_of(script),
            16 => self.close(script),
            _ => {
                self.write(script.short().into());
            }
        }
    }

    fn call(&mut self, now: Instant, number: Number, script: &mut Script<'_>) {
        let target = TARGETS[script.one_of(TARGETS.len())];
        let retry = match script.byte() {
            how if how.is_multiple_of(2) => Retryable::First,
            // A retry of a call that is not retryable counts as a new call.
            how @ 192.. if !self.strict => Retryable::Again(self.sent.not_retryable(how.into())),
            _ => Retryable::Never,
        };
        self.attempt(now, Attempt { number, nth: 0 }, target, retry, script);
    }

    fn retry_call(&mut self, now: Instant, script: &mut Script<'_>) {
        let Some((call, last)) = self.sent.retryable(script.byte()) else { return };
        let may_be_retried = match self.sent.ends.get(&last) {
            Some(end) => end.is_loss() || self.retries_any,
            // The earlier attempt has no outcome yet, so this counts as a new call.
            None => !self.strict,
        };
        if may_be_retried {
            let target = match script.byte() {
                other @ 224.. if self.retries_any => TARGETS[usize::from(other) % TARGETS.len()],
                _ => self.sent.calls[&last].target,
            };
            self.attempt(now, self.sent.next_attempt(last.number), target, Retryable::Again(call), script);
        }
    }

    fn attempt(
        &mut self,
        now: Instant,
        attempt: Attempt,
        target: Target,
        retry: Retryable,
        script: &mut Script<'_>,
    ) {
        let deadline = match script.byte() {
            timeout @ 1..=100 => Some(now + Duration::from_micros(300 * u64::from(timeout))),
            // Longer than the timeout field of a frame can hold.
            101 => Some(now + Duration::from_secs(1 << 33)),
            _ => None,
        };
        let message = self.message(attempt.number, script);
        let low_watermark = (retry != Retryable::Never).then_some(CallId(0));
        let header = CallHeader {
            call: CallId(0),
            target,
            message: MESSAGE,
            timeout_ms: 0,
            low_watermark: low_watermark,
        };
        let frame_bytes = header.frame_bytes(message.as_encoded());
        let before = self.waiting(target, frame_bytes, true);
        let Self { path, session, .. } = self;
        match path.call(session, now, target, MESSAGE, deadline, retry, message.as_encoded().into()) {
            Ok((call, ticket)) => {
                assert!(self.open.insert(ticket, attempt).is_none(), "a slot has one call");
                self.sent.on_accepted(attempt, retry, AcceptedCall { call, target });
                self.check_accepted(frame_bytes, &before);
                assert!(before.calls < self.limits.calls_open_max);
            }
            Err(rejected) => self.check_rejected(&rejected, frame_bytes, &before),
        }
    }

    fn tell(&mut self, number: Number, script: &mut Script<'_>) {
        let target = TARGETS[script.one_of(TARGETS.len())];
        let message = self.message(number, script);
        let frame_bytes = TellHeader::frame_bytes(message.as_encoded());
        let before = self.waiting(target, frame_bytes, false);
        match self.session.tell(target, MESSAGE, message.as_encoded()) {
            Ok(()) => {
                self.sent.tells.insert(number, target);
                self.check_accepted(frame_bytes, &before);
            }
            Err(rejected) => self.check_rejected(&rejected, frame_bytes, &before),
        }
    }

    fn message(&mut self, number: Number, script: &mut Script<'_>) -> Message {
        let message = Message::new(number, &mut self.large_left, script);
        self.message_bytes += message.as_encoded().len();
        message
    }

    fn waiting(&self, target: Target, frame_bytes: usize, is_call: bool) -> Waiting {
        Waiting {
            calls: self.session.open_calls(),
            outgoing: self.session.outgoing_bytes(),
            queued: self.session.send_queue_bytes(),
            has_room: self.session.has_room_for(target, frame_bytes, is_call),
            overhead: if is_call { QUEUED_CALL_OVERHEAD_BYTES } else { QUEUED_OVERHEAD_BYTES },
        }
    }

    fn check_accepted(&self, frame_bytes: usize, before: &Waiting) {
        let now = (self.session.outgoing_bytes(), self.session.send_queue_bytes());
        let can_send_now = now == (before.outgoing + frame_bytes, before.queued);
        let queued = now.1.saturating_sub(before.queued);
        let alone = frame_bytes + before.overhead;
        let is_queued = now.0 == before.outgoing && [alone, alone + QUEUE_OVERHEAD_BYTES].contains(&queued);
        assert!(can_send_now || is_queued, "{now:?} after {before:?}");
        assert!(self.attached || !can_send_now);
        let (waiting, taken) = match can_send_now {
            true => (before.outgoing, frame_bytes),
            false => (before.queued, queued),
        };
        assert!(waiting == 0 || waiting + taken <= self.limits.outgoing_bytes_max, "{before:?}");
        assert!(before.has_room && frame_bytes <= self.limits.frame_bytes_max);
        assert!(!self.closing && !self.received.peer_closing);
    }

    fn check_rejected(&self, rejected: &Rejected, frame_bytes: usize, before: &Waiting) {
        let now = (self.session.outgoing_bytes(), self.session.send_queue_bytes());
        assert_eq!(now, (before.outgoing, before.queued), "a rejected message takes no capacity");
        match *rejected {
            Rejected::Full { size, waiting, limit } => {
                assert!(!before.has_room && size == frame_bytes);
                let is_of_calls = (waiting, limit) == (before.calls, self.limits.calls_open_max);
                assert!((is_of_calls && waiting >= limit) || (waiting > 0 && waiting + size > limit));
            }
            Rejected::TooLarge { size, limit } => assert!(size == frame_bytes && size > limit),
            Rejected::Closing => assert!(self.closing || self.received.peer_closing),
            _ => {}
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let (how, which) = (script.byte(), script.one_of(self.received.handlers()));
        if self.received.handlers() > 0 {
            self.answer_one(how, which, script);
        } else {
            let call = CallId(u64::MAX - u64::from(how));
            assert!(!self.session.fail(call, &CallFailure::NoReply), "it was never received");
        }
    }

    fn answer_one(&mut self, how: u8, which: usize, script: &mut Script<'_>) {
        let (running, charge) = self.received.finish(which);
        self.release(charge);
        let (call, number) = (running.call, running.number);
        let (answered, answer) = match how % 8 {
            0 => {
                let text = "ä".repeat(usize::from(how) * FAILURE_TEXT_CHARS_MAX / 128);
                let failure = CallFailure::NotHandled { actor: text.clone(), message: text };
                (self.session.fail(call, &failure), None)
            }
            1 => (self.session.fail(call, &CallFailure::NoReply), Some(Answer::NoReply)),
            _ => {
                let reply = self.message(number, script);
                let answered = self.session.reply(call, reply.as_encoded());
                (answered, Some(Answer::Reply(reply.into_body())))
            }
        };
        let owed = self.received.answered(&running, answer);
        assert_eq!(answered, owed, "call {number}");
        assert!(!self.strict || !self.session.fail(call, &CallFailure::NoReply), "call {number} is answered");
    }

    /// Answers all calls and releases all charges; returns true if there were any.
    pub(crate) fn answer_all(&mut self) -> bool {
        let mut any = false;
        while self.received.handlers() > 0 {
            any = true;
            self.answer_one(2, 0, &mut Script::new(&[u8::MAX]));
        }
        while let Some(charge) = self.received.take_charge(0) {
            any = true;
            self.release(Some(charge));
        }
        any
    }

    /// Releases a charge: a handler starts, or its message is dropped.
    fn begin(&mut self, which: usize) {
        let charge = self.received.take_charge(which);
        self.release(charge);
    }

    fn release(&mut self, charge: Option<CreditCharge>) {
        let Some(charge) = charge else { return };
        let credit_due = self.session.release_credit(charge);
        self.received.on_released(charge);
        assert!(!credit_due || !self.attached || self.session.has_outgoing());
    }

    fn forget(&mut self, script: &mut Script<'_>) {
        let Some((attempt, call)) = self.sent.attempt(script.byte()) else { return };
        match self.path.forget(&mut self.session, call) {
            Some(ticket) => {
                assert_eq!(self.open.remove(&ticket), Some(attempt));
                self.sent.end(attempt, End::Forgotten);
            }
            None => assert!(self.sent.ends.contains_key(&attempt), "{attempt:?} was open"),
        }
    }

    /// Ends the retries of a call that has an outcome.
    fn end_retries_of(&mut self, script: &mut Script<'_>) {
        let Some((call, last)) = self.sent.retryable(script.byte()) else { return };
        if !self.strict || self.sent.ends.contains_key(&last) {
            self.session.end_retries(call);
            self.sent.end_retries_of(call);
        }
    }

    fn close(&mut self, script: &mut Script<'_>) {
        // Rare, since most actions are impossible after it.
        match script.byte() {
            0..=7 => self.session.drain(&"ö".repeat(300)),
            8..=11 => self.session.finish("done"),
            _ => return,
        }
        self.closing = true;
    }
}
