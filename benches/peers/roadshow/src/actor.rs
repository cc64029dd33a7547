//! Actor of the workers, and its messages.

use std::convert::Infallible;

use peers_harness::REPLY_BYTE;
use roadshow::prelude::*;
use roadshow::words::WordList;

/// Counts what it handles.
#[derive(Default, RemoteActor)]
#[remote(handles(Call, Count, Tell, Echo, EchoPlain, Reply, Words, List))]
pub(crate) struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Call(pub(crate) u64);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Count;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(crate) struct Tell(pub(crate) u64);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
pub(crate) struct Echo(pub(crate) Payload);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<u8>")]
pub(crate) struct EchoPlain(pub(crate) Vec<u8>);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
pub(crate) struct Reply(pub(crate) u32);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Words(pub(crate) Vec<String>);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct List(pub(crate) WordList);

impl Handler<Call> for Counter {
    type Result = u64;

    fn handle(&mut self, Call(n): Call, _: &mut Context<Self>) -> u64 {
        self.0 += 1;
        n + 1
    }
}

impl Handler<Count> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

impl Handler<Tell> for Counter {
    type Result = ();

    fn handle(&mut self, _: Tell, _: &mut Context<Self>) {
        self.0 += 1;
    }
}

impl Handler<Echo> for Counter {
    type Result = MessageResult<Echo>;

    fn handle(&mut self, Echo(bytes): Echo, _: &mut Context<Self>) -> Self::Result {
        MessageResult(bytes)
    }
}

impl Handler<EchoPlain> for Counter {
    type Result = Vec<u8>;

    fn handle(&mut self, EchoPlain(bytes): EchoPlain, _: &mut Context<Self>) -> Vec<u8> {
        bytes
    }
}

impl Handler<Reply> for Counter {
    type Result = MessageResult<Reply>;

    fn handle(&mut self, Reply(size): Reply, _: &mut Context<Self>) -> Self::Result {
        MessageResult(vec![REPLY_BYTE; size as usize].into())
    }
}

impl Handler<Words> for Counter {
    type Result = u64;

    fn handle(&mut self, Words(words): Words, _: &mut Context<Self>) -> u64 {
        words.len() as u64
    }
}

impl Handler<List> for Counter {
    type Result = u64;

    fn handle(&mut self, List(words): List, _: &mut Context<Self>) -> u64 {
        words.len() as u64
    }
}
