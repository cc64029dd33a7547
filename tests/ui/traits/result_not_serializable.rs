//! Message whose result cannot be serialized.

use roadshow::prelude::*;

struct Secret;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Secret")]
struct Tell;

fn main() {}
