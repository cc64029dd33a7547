//! Message that a durable state does not decide.

use roadshow::prelude::*;
use roadshow::{Durable, DurableAddr};

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Add(u64);

#[derive(Clone, Serialize, Deserialize, Durable)]
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

fn add(counter: &DurableAddr<Counter>) {
    drop(counter.send(Add(1)));
}

fn main() {}
