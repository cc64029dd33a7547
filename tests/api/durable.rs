//! Durable actors: what they have acknowledged outlives their incarnations, and each message is decided once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadshow::prelude::*;
use roadshow::{Decide, Decision, Durable, DurableAddr, NotDelivered};
use rustix::process::Signal;

use crate::hosts::run;
use crate::processes::process_table::signal;

/// Account that transfers money to others.
#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Deposit, Credit, Balance, Transfer, Crash, Record, Keep, Pid))]
struct Account {
    owner: u32,
    balance: i64,
    /// Number of deposits and credits.
    entries: u64,
    ballast: Payload,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Added(i64),
    Kept(Payload),
    /// Panics as the given switch says.
    Poison(Poison),
}

/// Event that cannot be applied.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
enum Poison {
    Always,
    /// When [`REPLAY_FAILS`] is set.
    OnReplay,
}

static REPLAY_FAILS: AtomicBool = AtomicBool::new(false);
static REPLAYS_FAILED: AtomicU32 = AtomicU32::new(0);
/// Number of states that were created for owner 77.
static CREATED: AtomicU32 = AtomicU32::new(0);

impl Durable for Account {
    type Args = u32;
    type Event = Event;

    fn create(owner: u32) -> Self {
        if owner == 77 {
            CREATED.fetch_add(1, Ordering::SeqCst);
        }
        Self { owner, balance: 0, entries: 0, ballast: Payload::default() }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Added(amount) => {
                self.balance += amount;
                self.entries += u64::from(*amount > 0);
            }
            Event::Kept(ballast) => self.ballast = ballast.clone(),
            Event::Poison(Poison::OnReplay) if !REPLAY_FAILS.load(Ordering::SeqCst) => {}
            Event::Poison(Poison::OnReplay) => {
                REPLAYS_FAILED.fetch_add(1, Ordering::SeqCst);
                panic!("it cannot be applied again");
            }
            Event::Poison(Poison::Always) => panic!("it cannot be applied"),
        }
    }
}

/// Adds money from outside; returns the balance.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "i64")]
struct Deposit(i64);

impl Decide<Deposit> for Account {
    fn decide(&self, Deposit(amount): Deposit, decision: &mut Decision<Self>) -> i64 {
        decision.record(Event::Added(amount));
        self.balance + amount
    }
}

/// Adds money from another account.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Credit(i64);

impl Decide<Credit> for Account {
    fn decide(&self, Credit(amount): Credit, decision: &mut Decision<Self>) {
        decision.record(Event::Added(amount));
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(i64, u64, usize)")]
struct Balance;

impl Decide<Balance> for Account {
    fn decide(&self, Balance: Balance, _: &mut Decision<Self>) -> (i64, u64, usize) {
        (self.balance, self.entries, self.ballast.len())
    }
}

/// Sends money to another account, if there is enough.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
struct Transfer {
    to: DurableAddr<Account>,
    amount: i64,
}

impl Decide<Transfer> for Account {
    fn decide(&self, Transfer { to, amount }: Transfer, decision: &mut Decision<Self>) -> bool {
        let is_covered = self.balance >= amount;
        if is_covered {
            decision.record(Event::Added(-amount));
            decision.send(&to, Credit(amount));
        }
        is_covered
    }
}

/// Makes the decision panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Crash;

impl Decide<Crash> for Account {
    fn decide(&self, Crash: Crash, decision: &mut Decision<Self>) {
        decision.record(Event::Added(1_000_000));
        panic!("asked to crash");
    }
}

/// Records a poison.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Record(Poison);

impl Decide<Record> for Account {
    fn decide(&self, Record(poison): Record, decision: &mut Decision<Self>) {
        decision.record(Event::Poison(poison));
    }
}

/// Replaces the ballast.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Keep(Payload);

impl Decide<Keep> for Account {
    fn decide(&self, Keep(ballast): Keep, decision: &mut Decision<Self>) {
        decision.record(Event::Kept(ballast));
    }
}

/// Returns the id of the process.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Pid;

impl Decide<Pid> for Account {
    fn decide(&self, Pid: Pid, _: &mut Decision<Self>) -> u32 {
        std::process::id()
    }
}

/// Retries for as long as a test lasts.
fn patiently() -> Retry {
    Retry::times(1000).delay(Duration::from_millis(1))
}

#[test]
fn the_state_outlives_a_panic_and_the_panicking_decision_changes_nothing() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let account = cluster.spawn_durable::<Account>(77).await.unwrap();
        assert_eq!(account.send(Deposit(40)).await.unwrap(), 40);
        for round in 1..=3 {
            let crashed = account.send(Crash).retry(patiently()).await.unwrap_err();
            assert!(
                matches!(&crashed, SendError::Panicked { text } if text.contains("asked to crash")),
                "{crashed}"
            );
            assert_eq!(account.send(Deposit(1)).await.unwrap(), 40 + round);
        }
        assert_eq!(account.send(Balance).await.unwrap(), (43, 4, 0));
        assert_eq!(CREATED.load(Ordering::SeqCst), 1, "the state is created once");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn an_event_that_cannot_be_applied_is_not_stored() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).await.unwrap();
        account.send(Deposit(40)).await.unwrap();
        let failed = account.send(Record(Poison::Always)).await.unwrap_err();
        assert!(
            matches!(&failed, SendError::Panicked { text } if text.contains("cannot be applied")),
            "{failed}"
        );
        assert_eq!(account.send(Balance).await.unwrap(), (40, 1, 0));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_state_that_cannot_be_replayed_ends_the_actor_without_a_loop_of_restarts() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).await.unwrap();
        account.send(Record(Poison::OnReplay)).await.unwrap();
        REPLAY_FAILS.store(true, Ordering::SeqCst);
        account.send(Crash).await.unwrap_err();
        let end = cluster.watch(account.actor()).await.end;
        assert_eq!(end.reason, EndReason::StateFailed, "{end}");
        assert!(end.text.contains("record 0") && end.text.contains("cannot be applied again"), "{end}");
        let late = account.send(Balance).await.unwrap_err();
        assert!(matches!(late, SendError::NotDelivered(NotDelivered::ActorEnded { .. })), "{late}");
        assert_eq!(REPLAYS_FAILED.load(Ordering::SeqCst), 1);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_key_of_the_user_is_decided_once() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).await.unwrap();
        for _ in 0..3 {
            assert_eq!(account.send(Deposit(40)).key("salary").await.unwrap(), 40);
            account.send(Crash).await.unwrap_err();
        }
        assert_eq!(account.send(Deposit(2)).key("gift").await.unwrap(), 42);
        let other = account.send(Credit(2)).key("gift").await.unwrap_err();
        assert!(matches!(&other, SendError::NotDelivered(NotDelivered::Refused { .. })), "{other}");
        let long = account.send(Credit(2)).key("k".repeat(129)).await.unwrap_err();
        assert!(long.to_string().contains("129 bytes"), "{long}");
        assert_eq!(account.send(Balance).await.unwrap(), (42, 2, 0));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_stop_comes_after_the_replies_before_it_and_removes_the_state() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).name("a").await.unwrap();
        // In one future: each call is polled before the stop.
        let deposits = join_all((0..100).map(|_| account.send(Deposit(1))));
        let (replies, stopped) = futures_util::future::join(deposits, account.stop()).await;
        stopped.unwrap();
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        let end = cluster.watch(account.actor()).await.end;
        assert_eq!(end.reason, EndReason::Killed, "{end}");
        account.send(Balance).await.unwrap_err();
        // A later actor of the same name starts empty.
        let later = cluster.spawn_durable::<Account>(1).name("a").await.unwrap();
        assert_eq!(later.send(Balance).await.unwrap(), (0, 0, 0));
        let found = cluster.durable_actor::<Account>("a").await.unwrap();
        assert_eq!(found, later);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn snapshots_replace_long_logs_and_large_states_are_restored() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).await.unwrap();
        for size in [300_000, 900_000, 9_000_000, 5_000_000, 20] {
            for round in 0..4 {
                account.send(Keep(vec![round; size].into())).await.unwrap();
                account.send(Deposit(1)).retry(patiently()).await.unwrap();
            }
            account.send(Crash).await.unwrap_err();
            assert_eq!(account.send(Balance).await.unwrap().2, size);
        }
        assert_eq!(account.send(Balance).await.unwrap(), (20, 20, 20));
        cluster.shutdown().await.unwrap();
    });
}

/// Kills the worker of an account, whichever it is now.
async fn kill_worker(of: &DurableAddr<Account>) {
    let Ok(Ok(pid)) = tokio::time::timeout(Duration::from_secs(10), of.send(Pid)).await else { return };
    // It may have ended meanwhile.
    let _ = signal(pid, Signal::KILL);
}

#[test]
fn retried_calls_are_decided_once_while_workers_are_killed() {
    run(async {
        let cluster = Cluster::local(2).await.unwrap();
        let account = cluster.spawn_durable::<Account>(1).await.unwrap();
        let until = Instant::now() + Duration::from_secs(2);
        let callers: Vec<_> = (0..32)
            .map(|_| {
                let account = account.clone();
                actix_rt::spawn(async move {
                    let (mut calls, mut last) = (0, 0);
                    while Instant::now() < until {
                        let balance = account.send(Deposit(1)).retry(patiently()).await.unwrap();
                        assert!(balance > last, "{balance} after {last}");
                        (calls, last) = (calls + 1, balance);
                    }
                    calls
                })
            })
            .collect();
        let mut kills = 0;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(150)).await;
            kill_worker(&account).await;
            kills += 1;
        }
        let calls: i64 = join_all(callers).await.into_iter().map(Result::unwrap).sum();
        assert!(kills >= 3 && calls > 100, "{kills} kills, {calls} calls");
        assert_eq!(account.send(Balance).retry(patiently()).await.unwrap(), (calls, calls as u64, 0));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn transfers_by_the_outbox_happen_once_while_workers_are_killed() {
    run(async {
        let cluster = Cluster::local(3).await.unwrap();
        let accounts = join_all((0..5).map(|owner| {
            let spawning = cluster.spawn_durable::<Account>(owner);
            async move { spawning.await.unwrap() }
        }))
        .await;
        for account in &accounts {
            account.send(Deposit(1000)).retry(patiently()).await.unwrap();
        }
        let transfers = (0..300).map(|n: usize| {
            let (from, to) = (accounts[n % 5].clone(), accounts[(n * 7 + 1 + n / 5) % 5].clone());
            actix_rt::spawn(async move {
                tokio::time::sleep(Duration::from_millis(n as u64 * 5)).await;
                from.send(Transfer { to, amount: 3 }).retry(patiently()).await.unwrap()
            })
        });
        let transfers: Vec<_> = transfers.collect();
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            kill_worker(&accounts[round % 5]).await;
        }
        let done = join_all(transfers).await.into_iter().map(Result::unwrap).filter(|done| *done).count();
        assert_eq!(done, 300);
        // The last messages are on their way.
        let totals = async || {
            let balances =
                join_all(accounts.iter().map(|account| account.send(Balance).retry(patiently()))).await;
            balances
                .into_iter()
                .map(Result::unwrap)
                .fold((0, 0), |sum, (balance, entries, _)| (sum.0 + balance, sum.1 + entries))
        };
        while totals().await != (5000, 305) {
            let (sum, entries) = totals().await;
            assert!(sum <= 5000 && entries <= 305, "{sum}, {entries}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Nothing comes a second time.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(totals().await, (5000, 305));
        cluster.shutdown().await.unwrap();
    });
}
