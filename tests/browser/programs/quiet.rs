//! Program whose numbers stand still: actors in every state that a table shows, messages, and tasks of which some
//! fail. Then it waits for a place that never becomes free.

use std::convert::Infallible;
use std::future::pending;

use actix::ActorFutureExt;
use roadshow::prelude::*;

/// Actors that handle messages.
const COUNTERS: u64 = 12;
/// Actors that take most of a node. One more than there are nodes waits for a place.
const HEAVY: u64 = 3;
/// CPUs of one of these, of the four that each node offers.
const HEAVY_CPUS: f64 = 2.5;
/// Messages that wait in the mailbox of the actor that handles none.
const WAITING: u64 = 5;

/// Adds a number.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

/// Makes the actor handle no further message.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Hold;

/// Makes the actor panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Break;

/// Actor with a sum.
#[derive(RemoteActor)]
#[remote(handles(Add, Hold, Break))]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(start: u64, _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(start))
    }
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(number);
        self.0
    }
}

impl Handler<Hold> for Counter {
    type Result = ();

    fn handle(&mut self, _: Hold, ctx: &mut Context<Self>) {
        ctx.wait(actix::fut::wrap_future::<_, Self>(pending::<()>()).map(|(), _, _| ()));
    }
}

impl Handler<Break> for Counter {
    type Result = ();

    fn handle(&mut self, _: Break, _: &mut Context<Self>) {
        panic!("asked to `break`");
    }
}

#[roadshow::task]
fn halve(number: u64) -> u64 {
    number / 2
}

#[roadshow::task]
fn divide(number: u64) -> u64 {
    assert!(!number.is_multiple_of(4), "four divides {number}");
    100 / number
}

#[roadshow::main]
async fn main() -> Result<(), roadshow::Error> {
    let cluster = Cluster::init().await?;
    let mut counters = Vec::new();
    for number in 0..COUNTERS {
        let counter = match number {
            0 => cluster.spawn::<Counter>(number).name("first").await?,
            _ => cluster.spawn::<Counter>(number).await?,
        };
        // Each has another number of messages, so that no two rows are equal.
        for step in 0..1000 + 7 * number {
            counter.send(Add(step)).await?;
        }
        counters.push(counter);
    }
    let [broken, held, ..] = &counters[1..] else { unreachable!("there are more") };
    // The call fails with the actor.
    let _ = broken.send(Break).await;
    held.send(Hold).await?;
    for step in 0..WAITING {
        held.tell(Add(step)).await?;
    }
    cluster.run_all((0..200).map(halve::task)).await?;
    for number in 1..=40 {
        // One of four panics.
        let _ = cluster.run(divide::task(number)).await;
    }
    let mut heavy = Vec::new();
    for number in 0..HEAVY {
        heavy.push(cluster.spawn::<Counter>(number).num_cpus(HEAVY_CPUS).await?);
    }
    println!("quiet");
    cluster.spawn::<Counter>(0).num_cpus(HEAVY_CPUS).await?;
    Ok(())
}
