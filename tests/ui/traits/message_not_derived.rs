//! Plain actix message without `RemoteMessage`.

use roadshow::prelude::*;

#[derive(Message)]
#[rtype(result = "()")]
struct Local;

#[derive(RemoteActor)]
#[remote(local, handles(Local))]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<Local> for Node {
    type Result = ();

    fn handle(&mut self, _: Local, _: &mut Context<Self>) {}
}

fn main() {}
