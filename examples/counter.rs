//! The shortest complete program with a remote actor: a counter in another process.
#![cfg_attr(rustfmt, rustfmt_skip)] // One line for each thought, as on a slide.

use std::convert::Infallible;

use roadshow::prelude::*;

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")] struct Add(u64);
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")] struct Total;

#[derive(RemoteActor)]
#[remote(handles(Add, Total))] struct Counter(u64);
impl Actor for Counter { type Context = Context<Self>; }
impl Spawn for Counter {
    type Args = u64; type Error = Infallible;
    fn spawn(start: u64, _: &SpawnContext<Self>) -> Result<Self, Infallible> { Ok(Self(start)) }
}
impl Handler<Add> for Counter { type Result = ();
    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) { self.0 += n; }
}
impl Handler<Total> for Counter { type Result = u64;
    fn handle(&mut self, _: Total, _: &mut Context<Self>) -> u64 { self.0 }
}

#[roadshow::main]
async fn main() -> Result<(), roadshow::Error> {
    let cluster = Cluster::init().await?;
    let counter = cluster.spawn::<Counter>(40).await?;
    counter.send(Add(2)).await?;
    println!("{}", counter.send(Total).await?);
    Ok(())
}
