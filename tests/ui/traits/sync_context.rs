//! Actor in a `SyncContext`, which needs its own thread pool; tasks are the alternative.

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Compute(u64);

#[derive(RemoteActor)]
#[remote(local, handles(Compute))]
struct Cruncher;

impl Actor for Cruncher {
    type Context = actix::SyncContext<Self>;
}

impl Handler<Compute> for Cruncher {
    type Result = u64;

    fn handle(&mut self, Compute(n): Compute, _: &mut Self::Context) -> u64 {
        n
    }
}

fn main() {}
