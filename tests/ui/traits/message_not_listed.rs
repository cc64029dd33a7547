//! A message that the actor handles and does not list.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Ping;

#[derive(RemoteActor)]
#[remote(local)]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<Ping> for Node {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {}
}

fn ping(node: &RemoteAddr<Node>) {
    node.do_send(Ping);
}

fn main() {}
