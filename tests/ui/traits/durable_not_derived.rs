//! State that does not derive `Durable`.

use roadshow::prelude::*;
use roadshow::Durable;

#[derive(Clone, Serialize, Deserialize)]
struct Underived(u64);

impl Durable for Underived {
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
