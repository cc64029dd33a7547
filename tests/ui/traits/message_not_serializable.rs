//! Message that cannot be serialized.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage)]
#[rtype(result = "()")]
struct Stay;

fn main() {}
