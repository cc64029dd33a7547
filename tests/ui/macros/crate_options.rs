//! Option for the path of the crate.

use roadshow::prelude::*;

#[roadshow::task(crate = 1)]
fn number() {}

#[roadshow::task(crate = roadshow, crate = "roadshow")]
fn twice() {}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u8")]
#[remote(result = "u8")]
struct Both;

fn main() {}
