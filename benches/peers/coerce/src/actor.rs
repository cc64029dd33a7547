//! Actor and its messages.

use async_trait::async_trait;
use coerce::actor::context::ActorContext;
use coerce::actor::message::{Handler, Message, MessageUnwrapErr, MessageWrapErr};
use coerce::actor::{Actor, ActorCreationErr, ActorFactory, ActorRecipe};
use peers_harness::REPLY_BYTE;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Counts what it handles.
#[derive(Default)]
pub(crate) struct Counter(u64);

impl Actor for Counter {}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, MessageWrapErr> {
    serde_json::to_vec(value).map_err(|_| MessageWrapErr::SerializationErr)
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, MessageUnwrapErr> {
    serde_json::from_slice(json).map_err(|_| MessageUnwrapErr::DeserializationErr)
}

/// Declares messages in JSON, as coerce's own derive makes them. The derive supports no result type but `()`.
macro_rules! json_messages {
    ($($(#[$doc:meta])* $name:ident $(($field:ty))? => $result:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $name $((pub(crate) $field))?;

        impl Message for $name {
            type Result = $result;

            fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
                encode(self)
            }

            fn from_bytes(json: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
                decode(&json)
            }

            fn read_remote_result(json: Vec<u8>) -> Result<$result, MessageUnwrapErr> {
                decode(&json)
            }

            fn write_remote_result(result: $result) -> Result<Vec<u8>, MessageWrapErr> {
                encode(&result)
            }
        }
    )*};
}

json_messages! {
    Call(u64) => u64;
    Count => u64;
    Tell(u64) => ();
    Words(Vec<String>) => u64;
    /// Bytes in JSON: a list of numbers.
    Plain(Vec<u8>) => Vec<u8>;
}

/// Bytes that are sent as they are.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Message for Bytes {
    type Result = Vec<u8>;

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self(bytes))
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<Vec<u8>, MessageUnwrapErr> {
        Ok(bytes)
    }

    fn write_remote_result(result: Vec<u8>) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(result)
    }
}

/// Request whose reply is sent as it is.
pub(crate) struct Reply(pub(crate) u32);

impl Message for Reply {
    type Result = Vec<u8>;

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        let size = bytes.first_chunk().ok_or(MessageUnwrapErr::DeserializationErr)?;
        Ok(Self(u32::from_be_bytes(*size)))
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<Vec<u8>, MessageUnwrapErr> {
        Ok(bytes)
    }

    fn write_remote_result(result: Vec<u8>) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(result)
    }
}

#[async_trait]
impl Handler<Call> for Counter {
    async fn handle(&mut self, Call(n): Call, _: &mut ActorContext) -> u64 {
        self.0 += 1;
        n + 1
    }
}

#[async_trait]
impl Handler<Count> for Counter {
    async fn handle(&mut self, _: Count, _: &mut ActorContext) -> u64 {
        self.0
    }
}

#[async_trait]
impl Handler<Tell> for Counter {
    async fn handle(&mut self, _: Tell, _: &mut ActorContext) {
        self.0 += 1;
    }
}

#[async_trait]
impl Handler<Bytes> for Counter {
    async fn handle(&mut self, Bytes(bytes): Bytes, _: &mut ActorContext) -> Vec<u8> {
        bytes
    }
}

#[async_trait]
impl Handler<Plain> for Counter {
    async fn handle(&mut self, Plain(bytes): Plain, _: &mut ActorContext) -> Vec<u8> {
        bytes
    }
}

#[async_trait]
impl Handler<Reply> for Counter {
    async fn handle(&mut self, Reply(size): Reply, _: &mut ActorContext) -> Vec<u8> {
        vec![REPLY_BYTE; size as usize]
    }
}

#[async_trait]
impl Handler<Words> for Counter {
    async fn handle(&mut self, Words(words): Words, _: &mut ActorContext) -> u64 {
        words.len() as u64
    }
}

/// Arguments of a new counter: none.
pub(crate) struct Recipe;

impl ActorRecipe for Recipe {
    fn read_from_bytes(_: &Vec<u8>) -> Option<Self> {
        Some(Self)
    }

    fn write_to_bytes(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

/// Makes counters for other nodes.
#[derive(Clone)]
pub(crate) struct Factory;

#[async_trait]
impl ActorFactory for Factory {
    type Actor = Counter;
    type Recipe = Recipe;

    async fn create(&self, _: Recipe) -> Result<Counter, ActorCreationErr> {
        Ok(Counter::default())
    }
}
