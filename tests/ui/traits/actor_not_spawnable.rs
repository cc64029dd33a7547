//! Actor without `Spawn`.

use roadshow::prelude::*;

#[derive(RemoteActor)]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

fn main() {}
