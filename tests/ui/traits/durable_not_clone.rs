//! State that cannot be cloned, so that no snapshot can be made of it.

use roadshow::prelude::*;
use roadshow::Durable;

#[derive(Serialize, Deserialize, Durable)]
struct Counter(u64);

impl Durable for Counter {
    type Args = u64;
    type Event = u64;

    fn create(start: u64) -> Self {
        Self(start)
    }

    fn apply(&mut self, n: &u64) {
        self.0 += n;
    }
}

fn main() {}
