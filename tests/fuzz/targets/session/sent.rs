//! Model of the calls and tells that the user of a session sent, and of their outcomes.

use std::collections::BTreeMap;

use roadshow::internals::id::{CallId, Target};
use roadshow::internals::session::{CallError, DisconnectReason, Retryable};
use roadshow::internals::wire::Body;

use super::message::{Number, TARGETS};
use super::received::{Answer, Received};

/// An attempt at a call; it is also the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) number: Number,
    /// Number of earlier attempts at the call.
    pub(crate) nth: u32,
}

/// Outcome of an attempt.
#[derive(Debug)]
pub(crate) enum End {
    Replied(Body),
    Failed(CallError),
    Forgotten,
}

impl End {
    /// Returns true if the attempt ended with its session.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Failed(CallError::NotDelivered(_) | CallError::OutcomeUnknown(_)))
    }
}

/// Attempt that the session has accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptedCall {
    pub(crate) call: CallId,
    pub(crate) target: Target,
}

/// Model of everything sent by the user.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) calls: BTreeMap<Attempt, AcceptedCall>,
    pub(crate) ends: BTreeMap<Attempt, End>,
    /// Retryable calls, each with its last attempt, by the call id from the session.
    retryable: BTreeMap<CallId, Attempt>,
    pub(crate) tells: BTreeMap<Number, Target>,
    pub(crate) dead_letters: u64,
    /// Highest call id that the session has used.
    last_call: u64,
}

impl Sent {
    /// Records a call that the session has accepted.
    pub(crate) fn on_accepted(&mut self, attempt: Attempt, retry: Retryable, accepted: AcceptedCall) {
        let again = match retry {
            Retryable::Again(call) if self.may_be_retried(call) => Some(call),
            _ => None,
        };
        if let Some(call) = again {
            assert_eq!(accepted.call, call, "a call keeps its number");
        } else {
            assert!(accepted.call.0 > self.last_call, "numbers are not used again");
            self.last_call = accepted.call.0;
        }
        if retry != Retryable::Never {
            self.retryable.insert(accepted.call, attempt);
        }
        assert!(self.calls.insert(attempt, accepted).is_none(), "{attempt:?} is made once");
    }

    /// Tests if a call may be retried under this id.
    fn may_be_retried(&self, call: CallId) -> bool {
        self.retryable.get(&call).is_some_and(|last| self.ends.contains_key(last))
    }

    /// Returns a retryable call and its last attempt.
    pub(crate) fn retryable(&self, which: u8) -> Option<(CallId, Attempt)> {
        let which = usize::from(which) % self.retryable.len().max(1);
        self.retryable.iter().nth(which).map(|(call, last)| (*call, *last))
    }

    /// Returns an id under which no call may be retried: a used one, a future one, or one that never comes.
    pub(crate) fn not_retryable(&self, which: u64) -> CallId {
        let call = CallId(self.last_call.saturating_sub(4) + which % 8);
        if self.retryable.contains_key(&call) { CallId(u64::MAX) } else { call }
    }

    /// Records that a call will not be retried.
    pub(crate) fn end_retries_of(&mut self, call: CallId) {
        self.retryable.remove(&call);
    }

    /// Returns an attempt whose call id belongs to no later attempt.
    pub(crate) fn attempt(&self, which: u8) -> Option<(Attempt, CallId)> {
        let which = usize::from(which) % self.calls.len().max(1);
        let (attempt, made) = self.calls.iter().nth(which)?;
        let mut later =
            self.calls.range(attempt..).skip(1).take_while(|(later, _)| later.number == attempt.number);
        let is_last = later.all(|(_, later)| later.call != made.call);
        is_last.then_some((*attempt, made.call))
    }

    /// Records the outcome of an attempt.
    pub(crate) fn end(&mut self, attempt: Attempt, end: End) {
        assert!(self.calls.contains_key(&attempt), "{attempt:?} was never accepted");
        let text = format!("{end:?}");
        let before = self.ends.insert(attempt, end);
        assert!(before.is_none(), "{attempt:?} ends twice: {before:?}, {text}");
    }

    /// Returns the number of attempts without an outcome.
    pub(crate) fn open(&self) -> usize {
        self.calls.len() - self.ends.len()
    }

    /// Returns a further attempt at a call.
    pub(crate) fn next_attempt(&self, number: Number) -> Attempt {
        let last = self.last_attempt(number);
        Attempt { number, nth: last.map_or(0, |(last, _)| last.nth + 1) }
    }

    /// Returns the last attempt at a call.
    fn last_attempt(&self, number: Number) -> Option<(Attempt, AcceptedCall)> {
        let mut made = self.calls.range(Attempt { number, nth: 0 }..=Attempt { number, nth: u32::MAX });
        made.next_back().map(|(attempt, made)| (*attempt, *made))
    }

    /// Compares the final state with what the peer received. `lossless` if only links broke and neither
    /// side closed.
    pub(crate) fn check(&self, peer: &Received, lossless: bool) {
        for attempt in self.calls.keys() {
            match self.ends.get(attempt).expect("every call that was accepted ends") {
                End::Replied(body) => {
                    assert_eq!(peer.answers.get(&attempt.number), Some(&Answer::Reply(body.clone())));
                }
                End::Failed(failed) => self.check_failed(*attempt, failed, peer, lossless),
                End::Forgotten => {}
            }
        }
        self.check_order(peer);
        let delivered = peer.seen.iter().filter(|(_, number)| self.tells.contains_key(number)).count() as u64;
        assert!(
            delivered + self.dead_letters <= self.tells.len() as u64,
            "no delivered tell is a dead letter"
        );
        if lossless {
            assert_eq!(delivered + self.dead_letters, self.tells.len() as u64, "a broken link loses nothing");
        }
    }

    fn check_failed(&self, attempt: Attempt, failed: &CallError, peer: &Received, lossless: bool) {
        let again = Attempt { nth: attempt.nth + 1, ..attempt };
        let is_only = attempt.nth == 0 && !self.calls.contains_key(&again);
        let answer = peer.answers.get(&attempt.number);
        let seen = peer.seen.iter().any(|(_, number)| *number == attempt.number);
        match failed {
            CallError::Remote(failure) if failure.handler_ran() => {
                assert!(
                    answer.is_some_and(|answer| answer.may_be_reported_as(failure)),
                    "{attempt:?}: {failure}"
                );
            }
            CallError::Remote(failure) => {
                assert!(answer.is_none() || !is_only, "{attempt:?}: {failure}, and {answer:?}");
            }
            failed if failed.is_safe_to_retry() => {
                assert!(!seen || !is_only, "{attempt:?}: {failed}, and it was delivered");
            }
            _ => {}
        }
        let unreachable = matches!(failed, CallError::NotDelivered(DisconnectReason::Unreachable(_)));
        let lost =
            matches!(failed, CallError::NotDelivered(_) | CallError::OutcomeUnknown(_)) && !unreachable;
        assert!(!lossless || !lost, "{attempt:?}: {failed}, although only links broke");
    }

    /// Checks that each actor received its messages once and in order, except for retried calls.
    fn check_order(&self, peer: &Received) {
        for target in TARGETS {
            let once = |number: &Number| match self.last_attempt(*number) {
                Some((Attempt { nth: 0, .. }, made)) => {
                    assert_eq!(made.target, target, "call {number}");
                    true
                }
                Some(_) => false,
                None => {
                    assert_eq!(self.tells.get(number), Some(&target), "only sent messages arrive");
                    true
                }
            };
            let to_it = peer.seen.iter().filter(|(to, _)| *to == target).map(|(_, number)| *number);
            let once: Vec<Number> = to_it.filter(once).collect();
            assert!(once.is_sorted_by(|one, next| one < next), "once and in order: {once:?}");
        }
        assert!(peer.seen.iter().all(|(target, _)| TARGETS.contains(target)));
    }
}
