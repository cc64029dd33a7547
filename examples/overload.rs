//! Eight senders flood a slow actor: `cargo run --release --example overload -- --seconds 60`.
//!
//! No message is lost, each sender's messages are handled in order, and no process grows, since each sender
//! waits for capacity. The example prints the resident memory of every process meanwhile.

use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::future::{join, join_all};
use roadshow::observe::Chain;
use roadshow::prelude::*;

/// Floods a slow actor and shows the memory of every process.
#[derive(Debug, Parser)]
struct Args {
    /// Duration of the flood, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Number of senders: half in the driver, half in a worker
    #[arg(long, default_value_t = 8)]
    senders: u64,
    /// Computing time of the actor for each message, in microseconds
    #[arg(long, default_value_t = 50)]
    micros: u64,
    /// Content of each message, in bytes
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Actor that computes for each parcel, and checks the order of each sender's parcels.
#[derive(RemoteActor)]
#[remote(handles(Parcel, Handled))]
struct Slow {
    micros: u64,
    last: HashMap<u64, u64>,
}

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Spawn for Slow {
    type Args = u64;
    type Error = Infallible;

    fn spawn(micros: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { micros, last: HashMap::new() })
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Parcel {
    sender: u64,
    number: u64,
    content: Payload,
}

impl Handler<Parcel> for Slow {
    type Result = ();

    fn handle(&mut self, parcel: Parcel, _ctx: &mut Context<Self>) {
        let last = self.last.entry(parcel.sender).or_default();
        assert_eq!(parcel.number, *last + 1, "a parcel of sender {} is lost, or out of order", parcel.sender);
        *last = parcel.number;
        let since = Instant::now();
        while since.elapsed() < Duration::from_micros(self.micros) {
            std::hint::spin_loop();
        }
    }
}

/// Asks for the number of handled parcels.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Handled;

impl Handler<Handled> for Slow {
    type Result = u64;

    fn handle(&mut self, _: Handled, _ctx: &mut Context<Self>) -> u64 {
        self.last.values().sum()
    }
}

/// Sender in a worker.
#[derive(RemoteActor)]
#[remote(handles(Flood))]
struct Sender;

impl Actor for Sender {
    type Context = Context<Self>;
}

impl Spawn for Sender {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Sends parcels for `seconds` seconds; returns their number.
#[derive(Clone, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct Flood {
    to: RemoteAddr<Slow>,
    sender: u64,
    seconds: u64,
    bytes: usize,
}

impl Handler<Flood> for Sender {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, flood: Flood, _ctx: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { flood.send().await.map_err(|error| error.to_string()) })
    }
}

impl Flood {
    async fn send(self) -> Result<u64, roadshow::NotDelivered> {
        // All messages share one buffer: the measured memory is that of the library and not of the
        // example.
        let content = Payload::from(vec![b'x'; self.bytes]);
        let (since, mut number) = (Instant::now(), 0);
        while since.elapsed() < Duration::from_secs(self.seconds) {
            number += 1;
            self.to.tell(Parcel { sender: self.sender, number, content: content.clone() }).await?;
        }
        Ok(number)
    }
}

/// Returns the resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Samples the memory of each process at an interval, without an end.
async fn watch(pids: &[u32], every: Duration, print: bool, samples: &mut Vec<Vec<u64>>) {
    let mut tick = actix_rt::time::interval(every);
    loop {
        tick.tick().await;
        let sample: Vec<_> = pids.iter().map(|pid| resident_kib(*pid)).collect();
        if print {
            println!("{:>6.1} s  KiB resident: {sample:?}", samples.len() as f64 * every.as_secs_f64());
        }
        samples.push(sample);
    }
}

#[roadshow::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::local(2).await?;
    let slow = cluster.spawn::<Slow>(args.micros).await?;
    let sender = cluster.spawn::<Sender>(()).await?;
    let flood = |sender| Flood { to: slow.clone(), sender, seconds: args.seconds, bytes: args.bytes };

    let pids: Vec<_> =
        [std::process::id()].into_iter().chain(cluster.workers().iter().map(|worker| worker.pid)).collect();
    // 20 samples, so that the first tenth of the time, which is left out, has two of them.
    let every = Duration::from_secs_f64(args.seconds as f64 / 20.0);
    let mut samples = Vec::new();
    let here = join_all((0..args.senders / 2).map(|number| flood(number).send()));
    let there = join_all((args.senders / 2..args.senders).map(|number| sender.send(flood(number))));
    let (here, there) = tokio::select! {
        // The senders are polled first: once they are done, the result must not lose to another sample.
        biased;
        sent = join(here, there) => sent,
        () = watch(&pids, every, !args.json, &mut samples) => return Err("the watch ended".into()),
    };
    let mut sent = 0;
    for number in here {
        sent += number?;
    }
    for number in there {
        sent += number??;
    }
    // The last one-way messages of the worker's senders may still be in flight.
    let mut handled = slow.send(Handled).await?;
    while handled < sent {
        let before = handled;
        actix_rt::time::sleep(Duration::from_secs(1)).await;
        handled = slow.send(Handled).await?;
        // No progress within a second means that the rest is lost. The example then reports the
        // difference.
        if handled == before {
            break;
        }
    }
    let dead_letters = cluster.snapshot().dead_letters;
    cluster.shutdown().await?;
    report(&args, sent, handled, dead_letters, &samples);
    if handled == sent { Ok(()) } else { Err(format!("{sent} were sent and {handled} handled").into()) }
}

/// Reports for each process the memory after a tenth of the time, and the maximum after that.
fn report(args: &Args, sent: u64, handled: u64, dead_letters: u64, samples: &[Vec<u64>]) {
    // Buffers and connections grow in the first tenth; a leak would grow after it.
    let settled = &samples[samples.len() / 10..];
    let early = settled.first().cloned().unwrap_or_default();
    let most: Vec<_> = (0..early.len())
        .map(|process| settled.iter().map(|sample| sample[process]).max().unwrap_or(0))
        .collect();
    if args.json {
        let report = serde_json::json!({
            "seconds": args.seconds, "sent": sent, "handled": handled, "dead_letters": dead_letters,
            "resident_kib_early": early, "resident_kib_most": most,
        });
        return println!("{report}");
    }
    println!("{sent} sent, {handled} handled, {dead_letters} dead letters");
    println!(
        "KiB resident (driver, workers): {early:?} after a tenth of the time, {most:?} at most after that"
    );
}
