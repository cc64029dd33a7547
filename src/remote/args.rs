//! Arguments of a call to a host: a value that its caller keeps, or one that several calls share.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{self, Body, EncodeError, Encoded};

/// Arguments of a call.
pub(super) trait Args: Send {
    /// Passes the encoded arguments to `then`.
    fn encoded<R>(&self, limit: usize, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, EncodeError>;
}

/// Value that the caller keeps, also for further calls. Exclusive, since the value need not be `Sync`.
pub(super) struct KeptArgs<'a, T>(pub(super) &'a mut T);

impl<T: Serialize + DeserializeOwned + Send> Args for KeptArgs<'_, T> {
    #[inline]
    fn encoded<R>(&self, limit: usize, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, EncodeError> {
        wire::encode_message(&*self.0, limit, then)
    }
}

/// Value that was encoded once for calls to many hosts.
#[derive(Clone, Debug)]
pub(crate) struct SharedArgs(Arc<Body>);

impl SharedArgs {
    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if it cannot be encoded, or takes more than `limit` bytes.
    pub(crate) fn new<T: Serialize + DeserializeOwned>(value: &T, limit: usize) -> Result<Self, EncodeError> {
        wire::encode_message(value, limit, |body| {
            // Copied out of the thread's encode buffer, which the next message reuses.
            let message = Bytes::copy_from_slice(body.message).into();
            Self(Arc::new(Body { message, attachments: body.attachments.into(), trace: None }))
        })
    }
}

impl Args for SharedArgs {
    fn encoded<R>(&self, limit: usize, then: impl FnOnce(Encoded<'_>) -> R) -> Result<R, EncodeError> {
        match self.0.len() {
            size if size > limit => Err(EncodeError::TooLarge { size, limit }),
            _ => Ok(then(self.0.as_encoded())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde::{Deserialize, Serializer};

    use super::*;

    static ENCODED: AtomicUsize = AtomicUsize::new(0);

    #[derive(Deserialize)]
    struct Counted(u32);

    impl Serialize for Counted {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            ENCODED.fetch_add(1, Ordering::Relaxed);
            serializer.serialize_newtype_struct("Counted", &self.0)
        }
    }

    #[test]
    fn shared_arguments_are_encoded_once() {
        let shared = SharedArgs::new(&Counted(7), 64).unwrap();
        for _ in 0..1000 {
            let decoded = shared.clone().encoded(64, |body| wire::decode::<Counted>(body).map(|it| it.0));
            assert_eq!(decoded.unwrap().unwrap(), 7);
        }
        assert_eq!(ENCODED.load(Ordering::Relaxed), 1);
        assert!(matches!(shared.encoded(0, |_| ()), Err(EncodeError::TooLarge { .. })));
    }
}
