//! Actors of both sides, and their messages.

use actix::prelude::*;
use actix_broker::BrokerSubscribe;
use actix_telepathy::prelude::*;
use actix_telepathy::{AddrRequest, AddrResolver, Node};
use peers_harness::REPLY_BYTE;
use serde::{Deserialize, Serialize};
use std::sync::PoisonError;
use tokio::sync::mpsc;

use crate::Waiting;

/// Messages that an actor's mailbox takes. A full one loses messages without a word.
const MAILBOX: usize = 1 << 20;

#[derive(RemoteMessage, Serialize, Deserialize)]
#[with_source(from)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) body: Body,
    pub(crate) from: RemoteAddr,
}

#[derive(RemoteMessage, Serialize, Deserialize)]
pub(crate) struct Reply {
    id: u64,
    body: Body,
}

#[derive(RemoteMessage, Serialize, Deserialize)]
pub(crate) struct Tell {
    pub(crate) n: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Body {
    Number(u64),
    Count,
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Plain(Plain),
    Reply(u32),
    Words(Vec<String>),
}

/// Bytes without an attribute: each is a number to serde.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plain(pub(crate) Vec<u8>);

/// Name under which a server's actor is registered.
pub(crate) fn name(number: usize) -> String {
    format!("counter-{number}")
}

/// Counts what it handles.
#[derive(RemoteActor)]
#[remote_messages(Call, Tell)]
pub(crate) struct Counter {
    number: usize,
    count: u64,
}

impl Counter {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, count: 0 }
    }
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
        // `register` takes the name of the type, of which there is one.
        let request = AddrRequest::Register(context.address().recipient(), name(self.number));
        AddrResolver::from_registry().do_send(request);
    }
}

impl Handler<Call> for Counter {
    type Result = ();

    fn handle(&mut self, call: Call, _: &mut Context<Self>) {
        let body = match call.body {
            Body::Count => Body::Number(self.count),
            body => {
                self.count += 1;
                answer(body)
            }
        };
        call.from.do_send(Reply { id: call.id, body });
    }
}

fn answer(body: Body) -> Body {
    match body {
        Body::Number(n) => Body::Number(n + 1),
        Body::Reply(size) => Body::Bytes(vec![REPLY_BYTE; size as usize]),
        Body::Words(words) => Body::Number(words.len() as u64),
        body => body,
    }
}

impl Handler<Tell> for Counter {
    type Result = ();

    fn handle(&mut self, _: Tell, _: &mut Context<Self>) {
        self.count += 1;
    }
}

/// Takes the replies in the client, and tells of servers that join.
#[derive(RemoteActor)]
#[remote_messages(Reply)]
pub(crate) struct Replies {
    pub(crate) waiting: Waiting,
    pub(crate) joined: mpsc::Sender<Node>,
}

impl Actor for Replies {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
        self.register(context.address().recipient());
        self.subscribe_system_async::<ClusterLog>(context);
    }
}

impl Handler<Reply> for Replies {
    type Result = ();

    fn handle(&mut self, reply: Reply, _: &mut Context<Self>) {
        let call = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.id);
        if let Some(call) = call {
            // The caller may have given up.
            let _ = call.send(reply.body);
        }
    }
}

impl Handler<ClusterLog> for Replies {
    type Result = ();

    fn handle(&mut self, log: ClusterLog, _: &mut Context<Self>) {
        match log {
            // The channel has room for all servers.
            ClusterLog::NewMember(node) => drop(self.joined.try_send(node)),
            ClusterLog::MemberLeft(_) => self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear(),
        }
    }
}

impl ClusterListener for Replies {}
