//! What the user of a session made of calls and tells, and what became of them.

use std::collections::BTreeMap;

use roadshow::id::{CallId, Target};
use roadshow::session::{CallError, DisconnectReason, Retryable};
use roadshow::wire::Body;

use super::came::{Answer, Came};
use super::message::{Number, TARGETS};

/// One attempt at a call, which is also its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) number: Number,
    /// How often the call was made before.
    pub(crate) nth: u32,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum End {
    Replied(Body),
    Failed(CallError),
    Forgotten,
}

impl End {
    /// Whether it ended because the session did.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Failed(CallError::NotDelivered(_) | CallError::OutcomeUnknown(_)))
    }
}

/// An attempt that the session has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) call: CallId,
    pub(crate) target: Target,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) calls: BTreeMap<Attempt, Made>,
    pub(crate) ends: BTreeMap<Attempt, End>,
    /// The calls that may be made again, with the last attempt under each number that the session gave.
    repeatable: BTreeMap<CallId, Attempt>,
    pub(crate) tells: BTreeMap<Number, Target>,
    pub(crate) dead_letters: u64,
    /// The highest number that the session has given a call.
    last_call: u64,
}

impl Ledger {
    /// The session has taken a call.
    pub(crate) fn made(&mut self, attempt: Attempt, repeat: Retryable, made: Made) {
        let again = match repeat {
            Retryable::Again(call) if self.may_be_made(call) => Some(call),
            _ => None,
        };
        if let Some(call) = again {
            assert_eq!(made.call, call, "a call keeps its number");
        } else {
            assert!(made.call.0 > self.last_call, "numbers are not used again");
            self.last_call = made.call.0;
        }
        if repeat != Retryable::Never {
            self.repeatable.insert(made.call, attempt);
        }
        assert!(self.calls.insert(attempt, made).is_none(), "{attempt:?} is made once");
    }

    /// Whether a call may be made again under that number.
    fn may_be_made(&self, call: CallId) -> bool {
        self.repeatable.get(&call).is_some_and(|last| self.ends.contains_key(last))
    }

    /// One of the calls that may be made again, and the last attempt at it.
    pub(crate) fn repeatable(&self, which: u8) -> Option<(CallId, Attempt)> {
        let which = usize::from(which) % self.repeatable.len().max(1);
        self.repeatable.iter().nth(which).map(|(call, last)| (*call, *last))
    }

    /// A number under which no call may be made again: it was given, or will be, or never will.
    pub(crate) fn not_repeatable(&self, which: u64) -> CallId {
        let call = CallId(self.last_call.saturating_sub(4) + which % 8);
        if self.repeatable.contains_key(&call) { CallId(u64::MAX) } else { call }
    }

    /// A call will not be made again.
    pub(crate) fn end_repeats(&mut self, call: CallId) {
        self.repeatable.remove(&call);
    }

    /// One of the attempts whose number is no other attempt's by now.
    pub(crate) fn attempt(&self, which: u8) -> Option<(Attempt, CallId)> {
        let which = usize::from(which) % self.calls.len().max(1);
        let (attempt, made) = self.calls.iter().nth(which)?;
        let mut later =
            self.calls.range(attempt..).skip(1).take_while(|(later, _)| later.number == attempt.number);
        let is_last = later.all(|(_, later)| later.call != made.call);
        is_last.then_some((*attempt, made.call))
    }

    /// An attempt has ended.
    pub(crate) fn end(&mut self, attempt: Attempt, end: End) {
        assert!(self.calls.contains_key(&attempt), "{attempt:?} was never accepted");
        let text = format!("{end:?}");
        let before = self.ends.insert(attempt, end);
        assert!(before.is_none(), "{attempt:?} ends twice: {before:?}, {text}");
    }

    /// How many attempts have not ended.
    pub(crate) fn open(&self) -> usize {
        self.calls.len() - self.ends.len()
    }

    /// A further attempt at a call.
    pub(crate) fn next_attempt(&self, number: Number) -> Attempt {
        let last = self.last_attempt(number);
        Attempt { number, nth: last.map_or(0, |(last, _)| last.nth + 1) }
    }

    /// The last attempt at a call.
    fn last_attempt(&self, number: Number) -> Option<(Attempt, Made)> {
        let mut made = self.calls.range(Attempt { number, nth: 0 }..=Attempt { number, nth: u32::MAX });
        made.next_back().map(|(attempt, made)| (*attempt, *made))
    }

    /// Compares, when everything has come to its end, with what has come to the peer. `lossless` if
    /// links alone have broken, and nobody has left.
    pub(crate) fn check(&self, peer: &Came, lossless: bool) {
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
        let told = peer.seen.iter().filter(|(_, number)| self.tells.contains_key(number)).count() as u64;
        assert!(told + self.dead_letters <= self.tells.len() as u64, "no delivered tell is a dead letter");
        if lossless {
            assert_eq!(told + self.dead_letters, self.tells.len() as u64, "a break loses nothing");
        }
    }

    fn check_failed(&self, attempt: Attempt, failed: &CallError, peer: &Came, lossless: bool) {
        let again = Attempt { nth: attempt.nth + 1, ..attempt };
        let is_only = attempt.nth == 0 && !self.calls.contains_key(&again);
        let answer = peer.answers.get(&attempt.number);
        let seen = peer.seen.iter().any(|(_, number)| *number == attempt.number);
        match failed {
            CallError::Remote(failure) if failure.handler_ran() => {
                assert!(
                    answer.is_some_and(|answer| answer.may_be_told_as(failure)),
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
        assert!(!lossless || !lost, "{attempt:?}: {failed}, and links only broke");
    }

    /// What was sent to one actor comes in order and once, but for calls that are made again.
    fn check_order(&self, peer: &Came) {
        for target in TARGETS {
            let once = |number: &Number| match self.last_attempt(*number) {
                Some((Attempt { nth: 0, .. }, made)) => {
                    assert_eq!(made.target, target, "call {number}");
                    true
                }
                Some(_) => false,
                None => {
                    assert_eq!(self.tells.get(number), Some(&target), "nothing comes that was not sent");
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
