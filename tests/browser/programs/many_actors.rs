//! Program that keeps 10,000 actors and some tasks busy until it is stopped.

use std::convert::Infallible;
use std::time::Duration;

use roadshow::prelude::*;

/// Actors that the list of the page has to sort and cut.
const ACTORS: u64 = 10_000;
/// Actors that get messages in each round; all of them in turn.
const BUSY: usize = 100;
/// Steps of a task, which takes a part of a millisecond.
const STEPS: u64 = 100_000;

/// Pause between two rounds: the browser needs the processors too.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks for the sum of all numbers that a cell was given, this one included.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

/// Actor with one number.
#[derive(RemoteActor)]
#[remote(handles(Add))]
struct Cell(u64);

impl Actor for Cell {
    type Context = Context<Self>;
}

impl Spawn for Cell {
    type Args = u64;
    type Error = Infallible;

    fn spawn(start: u64, _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(start))
    }
}

impl Handler<Add> for Cell {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(number);
        self.0
    }
}

#[roadshow::task]
fn hash_steps(seed: u64) -> u64 {
    (0..STEPS).fold(seed, |hash, step| hash.rotate_left(5) ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[roadshow::main]
async fn main() -> Result<(), roadshow::Error> {
    let cluster = Cluster::init().await?;
    let mut cells = Vec::new();
    for number in 0..ACTORS {
        cells.push(cluster.spawn::<Cell>(number).await?);
    }
    println!("{} cells are alive", cells.len());
    let mut round = 0_u64;
    loop {
        let from = (round as usize * BUSY) % cells.len();
        for cell in &cells[from..from + BUSY] {
            // A test kills cells and workers: the others go on.
            if let Err(err) = cell.send(Add(round)).await {
                eprintln!("round {round}: {err}");
            }
        }
        match cluster.run_all([hash_steps::task(round)]).await {
            Ok(hashes) => println!("round {round}: {hashes:x?}"),
            Err(err) => eprintln!("round {round}: {err}"),
        }
        round += 1;
        actix::clock::sleep(PAUSE).await;
    }
}
