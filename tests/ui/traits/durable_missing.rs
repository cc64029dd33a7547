//! State that derives `Durable` and does not implement it.

use roadshow::prelude::*;
use roadshow::Durable;

#[derive(Clone, Serialize, Deserialize, Durable)]
struct Counter(u64);

fn main() {}
