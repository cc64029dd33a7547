//! Program that has the crate from `company`.

use std::convert::Infallible;

use company::everything::prelude::*;
use company::everything::worker_test;

#[derive(RemoteMessage, Serialize, Deserialize)]
#[remote(crate = "company::framework", result = Result<u64, String>)]
#[serde(crate = "company::framework::serde")]
struct Add(u64);

#[derive(RemoteActor)]
#[remote(crate = company::everything, handles(Add))]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(total: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(total))
    }
}

impl Handler<Add> for Counter {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Self::Result {
        self.0 += n;
        let total = self.0;
        Box::pin(async move { Ok(total) })
    }
}

company::task_that_doubles!(double);

worker_test!();

#[company::framework::main(crate = "company::framework")]
async fn main() -> Result<(), company::framework::Error> {
    let cluster = Cluster::init().await?;
    let counter = cluster.spawn::<Counter>(cluster.run(double::task(1)).await?).await?;
    assert_eq!(counter.send(Add(2)).await?, Ok(4));
    cluster.shutdown().await?;
    Ok(())
}
