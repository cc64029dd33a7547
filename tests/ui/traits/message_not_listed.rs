//! Message that the actor handles but does not list, next to listed ones.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Ping;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct First;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Second;

#[derive(RemoteActor)]
#[remote(local, handles(First, Second))]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<Ping> for Node {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {}
}

impl Handler<First> for Node {
    type Result = ();

    fn handle(&mut self, _: First, _: &mut Context<Self>) {}
}

impl Handler<Second> for Node {
    type Result = ();

    fn handle(&mut self, _: Second, _: &mut Context<Self>) {}
}

fn ping(node: &RemoteAddr<Node>) {
    node.do_send(Ping);
}

fn main() {}
