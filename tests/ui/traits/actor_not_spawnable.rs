//! An actor that nobody knows how to make elsewhere.

use roadshow::prelude::*;

#[derive(RemoteActor)]
struct Node;

impl Actor for Node {
    type Context = Context<Self>;
}

fn main() {}
