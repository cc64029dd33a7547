//! Actor and its messages.

use kameo::message::{Context, Message};
use kameo::{Actor, RemoteActor, Reply as KameoReply, remote_message};
use peers_harness::REPLY_BYTE;
use serde::{Deserialize, Serialize};

/// Counts what it handles.
#[derive(Actor, RemoteActor, Default)]
pub(crate) struct Counter(u64);

#[derive(Serialize, Deserialize)]
pub(crate) struct Call(pub(crate) u64);

#[derive(Serialize, Deserialize)]
pub(crate) struct Count;

#[derive(Serialize, Deserialize, KameoReply)]
pub(crate) struct Bytes(#[serde(with = "serde_bytes")] pub(crate) Vec<u8>);

/// Bytes without an attribute: each is a number to serde.
#[derive(Serialize, Deserialize, KameoReply)]
pub(crate) struct Plain(pub(crate) Vec<u8>);

#[derive(Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) u32);

#[derive(Serialize, Deserialize)]
pub(crate) struct Words(pub(crate) Vec<String>);

#[remote_message]
impl Message<Call> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Call(n): Call, _: &mut Context<Self, u64>) -> u64 {
        self.0 += 1;
        n + 1
    }
}

#[remote_message]
impl Message<Count> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Count, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

#[remote_message]
impl Message<Bytes> for Counter {
    type Reply = Bytes;

    async fn handle(&mut self, bytes: Bytes, _: &mut Context<Self, Bytes>) -> Bytes {
        bytes
    }
}

#[remote_message]
impl Message<Plain> for Counter {
    type Reply = Plain;

    async fn handle(&mut self, bytes: Plain, _: &mut Context<Self, Plain>) -> Plain {
        bytes
    }
}

#[remote_message]
impl Message<Reply> for Counter {
    type Reply = Bytes;

    async fn handle(&mut self, Reply(size): Reply, _: &mut Context<Self, Bytes>) -> Bytes {
        Bytes(vec![REPLY_BYTE; size as usize])
    }
}

#[remote_message]
impl Message<Words> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Words(words): Words, _: &mut Context<Self, u64>) -> u64 {
        words.len() as u64
    }
}
