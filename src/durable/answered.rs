//! Replies to calls that may be repeated, by key: a repeated call gets the stored reply, and is not decided again.
//!
//! Two kinds of keys:
//!
//! - A *caller* numbers its calls, and says with each the lowest number that is open. Replies below it are dropped.
//! - A key by [`.key(..)`](super::DurableRequest::key) comes from the user, and its reply is kept for
//!   [`KEYS_KEPT`]. So is the entry of a caller after its last call.
//!
//! The table is a part of the state: it is in the snapshot, and replay fills it. So time comes from the records.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{ANSWERED_CALLERS_MAX, ANSWERED_KEYS_MAX, KEYS_KEPT};
use crate::id::TypeHash;
use crate::wire::Payload;

/// Identity of a caller: one process's use of one address, or a durable actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CallerId(pub(super) u64, pub(super) u64);

/// Key of a call that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Key {
    /// Number of a caller's call, and the lowest number that the caller has open.
    Numbered { caller: CallerId, number: u64, lowest_open: u64 },
    /// Key that the user has chosen.
    Named(String),
}

/// Call that was decided, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) key: Key,
    /// Type of the message.
    pub(super) message: TypeHash,
    /// Encoded reply.
    pub(super) reply: Payload,
    /// Time of the decision, in seconds since 1970.
    pub(super) at_secs: u64,
}

/// State of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    New,
    /// The encoded reply to the same call.
    Answered(Bytes),
    /// The call had its reply, which is no longer known.
    Expired,
    /// The key belongs to a message of another type.
    OtherMessage,
}

/// Stored replies of an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnsweredCalls {
    callers: HashMap<CallerId, CallerEntry>,
    /// Callers by the time of their last call.
    idle: BTreeSet<(u64, CallerId)>,
    named: HashMap<String, Reply>,
    /// Named keys by their time.
    ages: BTreeSet<(u64, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct CallerEntry {
    lowest_open: u64,
    last_at_secs: u64,
    replies: BTreeMap<u64, Reply>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reply {
    message: TypeHash,
    bytes: Payload,
    at_secs: u64,
}

impl Reply {
    fn found(&self, message: TypeHash) -> Found {
        match self.message == message {
            true => Found::Answered(self.bytes.clone().into()),
            false => Found::OtherMessage,
        }
    }
}

impl AnsweredCalls {
    /// Looks up the key of a call.
    pub(super) fn find(&self, key: &Key, message: TypeHash) -> Found {
        match key {
            Key::Numbered { caller, number, .. } => match self.callers.get(caller) {
                None => Found::New,
                Some(entry) => match entry.replies.get(number) {
                    Some(reply) => reply.found(message),
                    None if *number < entry.lowest_open => Found::Expired,
                    None => Found::New,
                },
            },
            Key::Named(name) => self.named.get(name).map_or(Found::New, |reply| reply.found(message)),
        }
    }

    /// Adds a decided call, and drops what is too old or not needed any more.
    pub(super) fn add(&mut self, answer: Answer) {
        let Answer { key, message, reply: bytes, at_secs } = answer;
        let reply = Reply { message, bytes, at_secs };
        match key {
            Key::Numbered { caller, number, lowest_open } => {
                let entry = self.callers.entry(caller).or_default();
                self.idle.remove(&(entry.last_at_secs, caller));
                entry.last_at_secs = entry.last_at_secs.max(at_secs);
                self.idle.insert((entry.last_at_secs, caller));
                if lowest_open > entry.lowest_open {
                    entry.lowest_open = lowest_open;
                    entry.replies = entry.replies.split_off(&lowest_open);
                }
                entry.replies.insert(number, reply);
            }
            Key::Named(name) => {
                if let Some(earlier) = self.named.insert(name.clone(), reply) {
                    self.ages.remove(&(earlier.at_secs, name.clone()));
                }
                self.ages.insert((at_secs, name));
            }
        }
        self.expire(at_secs);
    }

    fn expire(&mut self, now_secs: u64) {
        let kept_since = now_secs.saturating_sub(KEYS_KEPT.as_secs());
        while self.idle.len() > ANSWERED_CALLERS_MAX
            || self.idle.first().is_some_and(|(at, _)| *at < kept_since)
        {
            let Some((_, caller)) = self.idle.pop_first() else { break };
            self.callers.remove(&caller);
        }
        while self.ages.len() > ANSWERED_KEYS_MAX || self.ages.first().is_some_and(|(at, _)| *at < kept_since)
        {
            let Some((_, name)) = self.ages.pop_first() else { break };
            self.named.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: TypeHash = TypeHash(1);
    const CALLER: CallerId = CallerId(1, 2);

    fn numbered(number: u64, lowest_open: u64) -> Key {
        Key::Numbered { caller: CALLER, number, lowest_open }
    }

    fn answer(key: Key, reply: &'static [u8], at_secs: u64) -> Answer {
        Answer { key, message: ADD, reply: Bytes::from_static(reply).into(), at_secs }
    }

    fn answered(reply: &'static [u8]) -> Found {
        Found::Answered(Bytes::from_static(reply))
    }

    #[test]
    fn a_caller_finds_its_replies_until_it_has_them() {
        let mut calls = AnsweredCalls::default();
        for number in 0..3 {
            assert_eq!(calls.find(&numbered(number, 0), ADD), Found::New);
            calls.add(answer(numbered(number, 0), b"reply", 1));
        }
        assert_eq!(calls.find(&numbered(1, 0), ADD), answered(b"reply"));
        assert_eq!(calls.find(&numbered(1, 0), TypeHash(2)), Found::OtherMessage);
        // Call 2 is the lowest open one.
        calls.add(answer(numbered(5, 2), b"later", 1));
        assert_eq!(calls.find(&numbered(1, 0), ADD), Found::Expired);
        assert_eq!(calls.find(&numbered(2, 2), ADD), answered(b"reply"));
        // A late number that was never decided is new.
        assert_eq!(calls.find(&numbered(4, 2), ADD), Found::New);
        // An older watermark, from a call that was overtaken, changes nothing.
        calls.add(answer(numbered(4, 0), b"overtaken", 1));
        assert_eq!(calls.find(&numbered(1, 0), ADD), Found::Expired);
        let other = Key::Numbered { caller: CallerId(1, 3), number: 1, lowest_open: 0 };
        assert_eq!(calls.find(&other, ADD), Found::New);
    }

    #[test]
    fn named_keys_and_idle_callers_expire() {
        let mut calls = AnsweredCalls::default();
        let named = |name: &str| Key::Named(name.to_owned());
        calls.add(answer(named("a"), b"1", 1000));
        calls.add(answer(numbered(0, 0), b"2", 1000));
        calls.add(answer(named("b"), b"3", 1000 + KEYS_KEPT.as_secs()));
        assert_eq!(calls.find(&named("a"), ADD), answered(b"1"));
        calls.add(answer(named("b"), b"3", 1001 + KEYS_KEPT.as_secs()));
        assert_eq!(calls.find(&named("a"), ADD), Found::New);
        assert_eq!(calls.find(&numbered(0, 0), ADD), Found::New);
        assert_eq!(calls.find(&named("b"), ADD), answered(b"3"));
        assert_eq!(
            (calls.callers.len(), calls.idle.len(), calls.named.len(), calls.ages.len()),
            (0, 0, 1, 1)
        );
    }

    #[test]
    fn the_number_of_entries_is_limited() {
        let mut calls = AnsweredCalls::default();
        for number in 0..=ANSWERED_KEYS_MAX as u64 {
            calls.add(answer(Key::Named(number.to_string()), b"", number));
        }
        for number in 0..=ANSWERED_CALLERS_MAX as u64 {
            let key = Key::Numbered { caller: CallerId(0, number), number: 0, lowest_open: 0 };
            calls.add(answer(key, b"", number));
        }
        assert_eq!((calls.named.len(), calls.ages.len()), (ANSWERED_KEYS_MAX, ANSWERED_KEYS_MAX));
        assert_eq!((calls.callers.len(), calls.idle.len()), (ANSWERED_CALLERS_MAX, ANSWERED_CALLERS_MAX));
        assert_eq!(calls.find(&Key::Named("0".to_owned()), ADD), Found::New);
    }
}
