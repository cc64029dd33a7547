//! Message that the actor does not list, next to the one that it lists.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Ping;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct First;

#[derive(RemoteActor)]
#[remote(local, handles(First))]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<First> for Node {
    type Result = ();

    fn handle(&mut self, _: First, _: &mut Context<Self>) {}
}

async fn ping(node: RemoteAddr<Node>) -> Result<(), SendError> {
    node.send(Ping).await
}

fn main() {}
