//! A bank whose workers are killed: `cargo run --release --example bank -- --kill-every 300ms`.
//!
//! First one durable actor has all accounts, then each account is a durable actor, and credits go by the outbox. Many
//! transfers run at the same time, each retried until it has a reply, while random worker processes are killed. The
//! audit checks at every look that no money is lost or made, and that each transfer happens exactly once. The exit code
//! is not zero if it finds an error.

mod accounts;
mod audit;

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::future::join_all;
use roadshow::observe::Chain;
use roadshow::prelude::*;
use roadshow::{DurableAddr, SendError};
use rustix::process::{Pid, Signal, kill_process};

use accounts::{Account, Bug, Ledger, Move, OneStatement, Order, Statement, Statements, Transfer};
use audit::{Audit, Seen};

/// Moves money between durable accounts while their workers are killed.
#[derive(Debug, Parser)]
struct Args {
    /// Number of transfers that run at the same time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    transfers: u32,
    /// Number of accounts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    accounts: u32,
    /// Number of worker processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Time during which new rounds of transfers begin, for each of the two banks
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "TIME")]
    run_for: Duration,
    /// Kill a random worker process at this interval, such as 300ms or 2s
    #[arg(long, value_parser = duration, value_name = "TIME")]
    kill_every: Option<Duration>,
    /// Seed of the transfers and of the kills
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Bug to inject, which the audit has to find
    #[arg(long)]
    plant: Option<Bug>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads a time such as `300ms` or `2s`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    match (digits.parse(), unit) {
        (Ok(number), "ms") => Ok(Duration::from_millis(number)),
        (Ok(number), "s") => Ok(Duration::from_secs(number)),
        _ => Err("give a number with `ms` or `s`".to_owned()),
    }
}

/// Time without a change after which money under way counts as lost.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Policy of every call, which outlasts any number of kills.
fn patiently() -> Retry {
    Retry::times(1000).delay(Duration::from_millis(5))
}

/// Accounts in one actor, or in an actor each.
enum Bank {
    Ledger(DurableAddr<Ledger>),
    Accounts(Vec<DurableAddr<Account>>),
}

impl Bank {
    async fn transfer(&self, order: Order) -> Result<bool, SendError> {
        match self {
            Self::Ledger(ledger) => ledger.send(Move(order)).retry(patiently()).await,
            Self::Accounts(accounts) => {
                let (from, to) = (&accounts[order.from as usize], accounts[order.to as usize].clone());
                from.send(Transfer { order, to }).retry(patiently()).await
            }
        }
    }

    /// Transfers as a program that repeats a call itself, without a key.
    async fn transfer_without_key(&self, order: Order) -> Result<bool, SendError> {
        loop {
            let sent = match self {
                Self::Ledger(ledger) => ledger.send(Move(order)).await,
                Self::Accounts(accounts) => {
                    let to = accounts[order.to as usize].clone();
                    accounts[order.from as usize].send(Transfer { order, to }).await
                }
            };
            match sent {
                Err(error) if error.is_not_delivered() || error.is_outcome_unknown() => {
                    actix_rt::time::sleep(Duration::from_millis(5)).await;
                }
                sent => return sent,
            }
        }
    }

    async fn statements(&self) -> Result<Vec<Statement>, SendError> {
        match self {
            Self::Ledger(ledger) => ledger.send(Statements).retry(patiently()).await,
            Self::Accounts(accounts) => {
                let asked = accounts.iter().map(|account| account.send(OneStatement).retry(patiently()));
                join_all(asked).await.into_iter().collect()
            }
        }
    }
}

/// Run of one bank.
struct Trial<'a> {
    args: &'a Args,
    cluster: &'a Cluster,
    bank: Bank,
    audit: RefCell<Audit>,
    kills: Cell<u32>,
}

impl Trial<'_> {
    /// Runs rounds of transfers, with looks and kills meanwhile; returns the time that the rounds took.
    async fn run(&self) -> Result<Duration, SendError> {
        let since = Instant::now();
        tokio::select! {
            // The transfers come last: they use up tokio's budget of this task, without which no timer fires.
            biased;
            () = self.kill_workers() => {}
            failed = self.looks() => return Err(failed),
            done = self.rounds() => done?,
        }
        let took = since.elapsed();
        self.settle().await?;
        Ok(took)
    }

    async fn rounds(&self) -> Result<(), SendError> {
        let since = Instant::now();
        let mut random = fastrand::Rng::with_seed(self.args.seed);
        loop {
            let transfers = (0..self.args.transfers).map(|_| {
                let order = self.audit.borrow_mut().order(&mut random, self.args.accounts);
                self.transfer(order)
            });
            for done in join_all(transfers).await {
                done?;
            }
            if since.elapsed() >= self.args.run_for {
                return Ok(());
            }
        }
    }

    async fn transfer(&self, order: Order) -> Result<(), SendError> {
        let is_done = match self.args.plant {
            Some(Bug::NoKeys) => self.bank.transfer_without_key(order).await?,
            _ => self.bank.transfer(order).await?,
        };
        let mut audit = self.audit.borrow_mut();
        match is_done {
            true => audit.acknowledged.push(order.id),
            false => audit.refused += 1,
        }
        Ok(())
    }

    /// Looks again and again, until a look fails.
    async fn looks(&self) -> SendError {
        loop {
            if let Err(error) = self.look().await {
                return error;
            }
            actix_rt::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self) -> Result<Seen, SendError> {
        let acknowledged = self.audit.borrow().acknowledged.len();
        let statements = self.bank.statements().await?;
        Ok(self.audit.borrow_mut().check(acknowledged, &statements))
    }

    /// Kills a random worker at each interval, without an end.
    async fn kill_workers(&self) {
        let Some(interval) = self.args.kill_every else { return std::future::pending().await };
        let mut random = fastrand::Rng::with_seed(self.args.seed);
        loop {
            actix_rt::time::sleep(interval).await;
            let mut workers = self.cluster.workers();
            workers.retain(|worker| worker.ended.is_none());
            let Some(worker) = random.choice(&workers) else { continue };
            // The worker may have ended meanwhile.
            let pid = i32::try_from(worker.pid).ok().and_then(Pid::from_raw);
            if pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
                self.kills.set(self.kills.get() + 1);
            }
        }
    }

    /// Waits until all credits have arrived, and checks that nothing comes after them.
    async fn settle(&self) -> Result<(), SendError> {
        let mut last = self.look().await?;
        let mut since = Instant::now();
        while !last.is_settled() && since.elapsed() < SETTLE_TIMEOUT {
            actix_rt::time::sleep(LOOK_INTERVAL).await;
            let look = self.look().await?;
            if look != last {
                (last, since) = (look, Instant::now());
            }
        }
        actix_rt::time::sleep(10 * LOOK_INTERVAL).await;
        let last = self.look().await?;
        self.audit.borrow_mut().check_end(&last);
        Ok(())
    }
}

/// Result of a trial.
#[derive(Serialize)]
struct Report {
    bank: &'static str,
    actors: usize,
    transfers: usize,
    refused: usize,
    kills: u32,
    looks: u64,
    most_under_way: i64,
    seconds: f64,
    errors: Vec<String>,
}

async fn trial(
    args: &Args,
    cluster: &Cluster,
    name: &'static str,
    bank: Bank,
) -> Result<Report, Box<dyn std::error::Error>> {
    let actors = match &bank {
        Bank::Ledger(_) => 1,
        Bank::Accounts(accounts) => accounts.len(),
    };
    let trial = Trial { args, cluster, bank, audit: RefCell::default(), kills: Cell::new(0) };
    let took = trial.run().await?;
    let audit = trial.audit.into_inner();
    Ok(Report {
        bank: name,
        actors,
        transfers: audit.acknowledged.len(),
        refused: audit.refused,
        kills: trial.kills.get(),
        looks: audit.looks,
        most_under_way: audit.most_under_way,
        seconds: took.as_secs_f64(),
        errors: audit.errors,
    })
}

async fn run(args: &Args) -> Result<Vec<Report>, Box<dyn std::error::Error>> {
    let cluster = Cluster::local(args.workers.into()).await?;
    let ledger = cluster.spawn_durable::<Ledger>((args.accounts as usize, args.plant)).await?;
    let one = trial(args, &cluster, "one actor", Bank::Ledger(ledger)).await?;

    let spawns = (0..args.accounts).map(|_| cluster.spawn_durable::<Account>(args.plant).into_future());
    let accounts = join_all(spawns).await.into_iter().collect::<Result<_, _>>()?;
    let many = trial(args, &cluster, "an actor each", Bank::Accounts(accounts)).await?;
    cluster.shutdown().await?;
    Ok(vec![one, many])
}

fn print(args: &Args, reports: &[Report]) {
    if args.json {
        return println!("{}", serde_json::json!({ "accounts": args.accounts, "banks": reports }));
    }
    println!(
        "{:14} {:>6} {:>9} {:>7} {:>5} {:>5} {:>14} {:>8} {:>6}",
        "bank", "actors", "transfers", "refused", "kills", "looks", "most under way", "a second", "errors"
    );
    for report in reports {
        println!(
            "{:14} {:>6} {:>9} {:>7} {:>5} {:>5} {:>14} {:>8.0} {:>6}",
            report.bank,
            report.actors,
            report.transfers,
            report.refused,
            report.kills,
            report.looks,
            report.most_under_way,
            report.transfers as f64 / report.seconds,
            report.errors.len()
        );
    }
}

#[roadshow::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let reports = match run(&args).await {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("error: {}", Chain(&*error));
            return ExitCode::FAILURE;
        }
    };
    print(&args, &reports);
    let errors: Vec<_> = reports.iter().flat_map(|report| &report.errors).collect();
    errors.iter().for_each(|error| eprintln!("error: {error}"));
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
