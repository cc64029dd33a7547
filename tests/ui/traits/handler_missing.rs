//! Message that the actor lists but does not handle.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Ping;

#[derive(RemoteActor)]
#[remote(local, handles(Ping))]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

fn main() {}
