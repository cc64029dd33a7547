//! A message whose answer cannot be turned into bytes.

use roadshow::prelude::*;

struct Secret;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Secret")]
struct Tell;

fn main() {}
