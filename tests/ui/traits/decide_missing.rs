//! Message that a durable state lists but does not decide.

use roadshow::prelude::*;
use roadshow::Durable;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Add(u64);

#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Add))]
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
