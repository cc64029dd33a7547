//! Actor and its messages.

use peers_harness::REPLY_BYTE;
use ractor::{Actor, ActorProcessingErr, ActorRef, BytesConvertable, RpcReplyPort, pg};
use ractor_cluster::RactorClusterMessage;

/// List of words. Each type brings its own encoding, and this is a plain one: lengths and text.
pub(crate) struct Words(pub(crate) Vec<String>);

impl BytesConvertable for Words {
    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.iter().map(|word| 4 + word.len()).sum());
        for word in &self.0 {
            bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        let (mut words, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((length, tail)) = rest.split_first_chunk() {
            let (word, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            words.push(str::from_utf8(word).expect("the client encoded text").to_owned());
            rest = tail;
        }
        Self(words)
    }
}

#[derive(RactorClusterMessage)]
pub(crate) enum Message {
    #[rpc]
    Call(u64, RpcReplyPort<u64>),
    #[rpc]
    Count(RpcReplyPort<u64>),
    Tell(u64),
    #[rpc]
    Echo(Vec<u8>, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Reply(u32, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Words(Words, RpcReplyPort<u64>),
}

/// Counts what it handles; its argument is its group.
pub(crate) struct Counter;

impl Actor for Counter {
    type Msg = Message;
    type State = u64;
    type Arguments = String;

    async fn pre_start(&self, myself: ActorRef<Message>, group: String) -> Result<u64, ActorProcessingErr> {
        pg::join(group, vec![myself.get_cell()]);
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        if !matches!(message, Message::Count(_)) {
            *count += 1;
        }
        match message {
            Message::Call(n, reply) => reply.send(n + 1)?,
            Message::Count(reply) => reply.send(*count)?,
            Message::Tell(_) => {}
            Message::Echo(bytes, reply) => reply.send(bytes)?,
            Message::Reply(size, reply) => reply.send(vec![REPLY_BYTE; size as usize])?,
            Message::Words(words, reply) => reply.send(words.0.len() as u64)?,
        }
        Ok(())
    }
}
