//! A message that cannot be turned into bytes.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage)]
#[rtype(result = "()")]
struct Stay;

fn main() {}
