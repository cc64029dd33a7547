//! Hint in the log that a message may contain bytes that would be cheaper as a [`Payload`](crate::Payload).

use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::observe::log;
use crate::registry::RemoteMessage;
use crate::wire::Encoded;

/// Encoded length of a message from which a declared list of bytes is worth a hint.
///
/// serde writes and reads such a list byte by byte: 4 to 10 ns for each on both sides together.
const HINT_BYTES_MIN: usize = 64 << 10;

/// Logs a hint, once for each message type, if a long message declares a `Vec<u8>`.
#[inline]
pub(super) fn check<M: RemoteMessage>(body: Encoded<'_>) {
    // A comparison for each message; the declaration is searched for long ones only.
    if body.message.len() >= HINT_BYTES_MIN {
        check_long(M::HASH, M::NAME, M::SCHEMA, body.message.len());
    }
}

#[cold]
fn check_long(hash: TypeHash, message: &'static str, schema: &'static str, bytes: usize) {
    if declares_list_of_bytes(schema) && is_first(hash) {
        log::debug!(
            message,
            bytes,
            "a long message declares a `Vec<u8>`, which serde encodes byte by byte; if it is long, declare it as `Payload`, or with \
             `#[serde(with = \"serde_bytes\")]`"
        );
    }
}

/// Returns whether the message, as opposed to its result, declares a list of bytes in serde's own form.
fn declares_list_of_bytes(schema: &str) -> bool {
    let message = schema.split(" -> ").next().unwrap_or(schema);
    message.contains("Vec<u8>") && !message.contains("serde_bytes")
}

fn is_first(hash: TypeHash) -> bool {
    static LOGGED: Mutex<FxHashSet<TypeHash>> = Mutex::new(FxHashSet::with_hasher(FxBuildHasher));
    // Bounded by the number of message types of the executable.
    LOGGED.lock().insert(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_of_bytes_in_the_message_itself_is_worth_a_hint() {
        for (schema, expected) in [
            ("struct Image(Vec<u8>) -> ()", true),
            ("struct Image{name:String,bytes:Vec<u8>} -> Vec<u8>", true),
            ("struct Load(String) -> Vec<u8>", false),
            ("struct Image(Payload) -> Payload", false),
            ("struct Image{#[serde(with=\"serde_bytes\")] bytes:Vec<u8>} -> ()", false),
        ] {
            assert_eq!(declares_list_of_bytes(schema), expected, "{schema}");
        }
    }

    #[test]
    fn each_type_is_logged_once() {
        let (first, second) = (TypeHash(0x9a11_0ad1), TypeHash(0x9a11_0ad2));
        assert_eq!([first, second, first].map(is_first), [true, true, false]);
    }
}
