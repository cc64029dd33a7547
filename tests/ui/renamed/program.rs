//! Program that has the crate as `rs`.

use std::convert::Infallible;

use rs::prelude::*;

#[derive(RemoteMessage, Serialize, Deserialize)]
#[remote(crate = "rs", result = "Vec<Price>")]
#[serde(crate = "rs::serde")]
struct List {
    at_most: usize,
    picture: Payload,
}

#[derive(Serialize, Deserialize, RemoteData)]
#[remote(crate = rs)]
#[serde(crate = "rs::serde")]
struct Price {
    cents: u64,
}

#[derive(RemoteActor)]
#[remote(crate = "rs", handles(List))]
struct Shop {
    prices: Vec<u64>,
}

impl Actor for Shop {
    type Context = Context<Self>;
}

impl Spawn for Shop {
    type Args = Vec<u64>;
    type Error = Infallible;

    fn spawn(prices: Vec<u64>, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { prices })
    }
}

impl Handler<List> for Shop {
    type Result = Vec<Price>;

    fn handle(&mut self, List { at_most, picture: _ }: List, _: &mut Context<Self>) -> Vec<Price> {
        self.prices.iter().take(at_most).map(|cents| Price { cents: *cents }).collect()
    }
}

mod inner {
    #[rs::task(crate = ::rs, parallel = 2)]
    pub(super) fn total(prices: Vec<super::Price>) -> u64 {
        prices.iter().map(|price| price.cents).sum()
    }
}

rs::worker_test!();

#[rs::main(crate = "rs")]
async fn main() -> Result<(), rs::Error> {
    #[rs::task(crate = "rs")]
    fn total() -> u64 {
        0
    }

    let cluster = Cluster::init().await?;
    let shop = cluster.spawn::<Shop>(vec![1, 2]).await?;
    let listed = shop.send(List { at_most: 1, picture: Payload::default() }).await?;
    cluster.run(inner::total::task(listed)).await?;
    cluster.run(total::task()).await?;
    cluster.shutdown().await?;
    Ok(())
}
