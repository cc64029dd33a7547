//! Driver that makes calls at a fixed pace, for a measurement of what else costs them processor time.
//!
//! Each line of its standard input is a number of milliseconds. For that time it makes 100 calls in each millisecond,
//! and then prints the number of calls and the milliseconds that they took.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use roadshow::prelude::*;

/// Calls of one tick; with a tick of a millisecond these are 100,000 calls a second.
const CALLS_PER_TICK: usize = 100;
const TICK: Duration = Duration::from_millis(1);

/// Adds a number.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

/// Actor with a sum.
#[derive(RemoteActor)]
#[remote(handles(Add))]
struct Subject(u64);

impl Actor for Subject {
    type Context = Context<Self>;
}

impl Spawn for Subject {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(0))
    }
}

impl Handler<Add> for Subject {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(number);
        self.0
    }
}

/// Makes calls for a number of ticks, at most two ticks of them at a time. A late tick is caught up with.
async fn make_calls(subject: &RemoteAddr<Subject>, ticks: u64) -> Result<u64, Box<dyn Error>> {
    let mut open = VecDeque::with_capacity(2 * CALLS_PER_TICK);
    let mut interval = actix::clock::interval(TICK);
    for _ in 0..ticks {
        interval.tick().await;
        for _ in 0..CALLS_PER_TICK {
            open.push_back(subject.try_send(Add(1))?);
        }
        while open.len() > CALLS_PER_TICK {
            open.pop_front().expect("the queue has more than one tick").await?;
        }
    }
    for rest in open {
        rest.await?;
    }
    Ok(ticks * CALLS_PER_TICK as u64)
}

#[roadshow::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::init().await?;
    let subject = cluster.spawn::<Subject>(()).await?;
    println!("ready");
    // The thread may block: heartbeats and links have threads of their own.
    for line in stdin().lock().lines() {
        let ticks = line?.trim().parse()?;
        let begun = Instant::now();
        let calls = make_calls(&subject, ticks).await?;
        println!("{calls} {}", begun.elapsed().as_millis());
        stdout().flush()?;
    }
    cluster.shutdown().await?;
    Ok(())
}
