//! Durable actors on a cluster of nodes: what they have acknowledged outlives workers, nodes and heads.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadshow::prelude::*;
use roadshow::{Decide, Decision, Durable, DurableAddr};
use rustix::process::Signal;

use super::job::{Job, Order, Reply};
use super::proc::{self, wait_for};
use super::test_cluster::TestCluster;

#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Deposit, Balance))]
pub(super) struct Account(u64);

#[derive(Serialize, Deserialize)]
pub(super) struct Deposited;

impl Durable for Account {
    type Args = ();
    type Event = Deposited;

    fn create((): ()) -> Self {
        Self(0)
    }

    fn apply(&mut self, Deposited: &Deposited) {
        self.0 += 1;
    }
}

/// Adds one, and returns the balance.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Deposit;

impl Decide<Deposit> for Account {
    fn decide(&self, Deposit: Deposit, decision: &mut Decision<Self>) -> u64 {
        decision.record(Deposited);
        self.0 + 1
    }
}

/// Returns the balance, and the id of the process.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(u64, u64)")]
pub(super) struct Balance;

impl Decide<Balance> for Account {
    fn decide(&self, Balance: Balance, _: &mut Decision<Self>) -> (u64, u64) {
        (self.0, std::process::id().into())
    }
}

/// Retries for as long as a test lasts.
pub(super) fn patiently() -> Retry {
    Retry::times(10_000).delay(Duration::from_millis(1))
}

/// Deposits from many callers for a time. Returns the number of deposits, and the longest time of one in milliseconds.
pub(super) async fn deposit(
    to: &DurableAddr<Account>,
    callers: u64,
    millis: u64,
) -> Result<Vec<u64>, String> {
    let until = Instant::now() + Duration::from_millis(millis);
    let calling = (0..callers).map(|_| async {
        let (mut calls, mut last, mut longest) = (0, 0, Duration::ZERO);
        while Instant::now() < until {
            let start = Instant::now();
            let balance = to.send(Deposit).retry(patiently()).await.map_err(|error| error.to_string())?;
            if balance <= last {
                return Err(format!("the balance was {balance} after {last}"));
            }
            (calls, last, longest) = (calls + 1, balance, longest.max(start.elapsed()));
        }
        Ok((calls, longest))
    });
    let (mut calls, mut longest) = (0, Duration::ZERO);
    for called in join_all(calling).await {
        let (more, time) = called?;
        (calls, longest) = (calls + more, longest.max(time));
    }
    Ok(vec![calls, longest.as_millis() as u64])
}

fn numbers(reply: Reply) -> (u64, u64) {
    match reply {
        Reply::Numbers(numbers) => (numbers[0], numbers[1]),
        other => panic!("{other:?}"),
    }
}

fn balance(job: &mut Job) -> (u64, u64) {
    numbers(job.reply(Order::Balance("a".to_owned())))
}

fn open(job: &mut Job, copies: Option<u8>) {
    let opened = job.reply(Order::Open("a".to_owned(), copies.and_then(NonZeroU8::new)));
    assert!(opened.is_done(), "{opened:?}");
}

/// Deposits while something happens; returns the number of deposits and the longest time of one.
fn deposit_while(job: &mut Job, millis: u64, happens: impl FnOnce(&mut Job)) -> (u64, Duration) {
    let before = balance(job).0;
    let depositing = job.begin(Order::Deposit("a".to_owned(), 8, millis));
    wait_for("deposits begin", || (balance(job).0 > before + 8).then_some(()));
    happens(job);
    let (calls, longest) = numbers(job.end_of(depositing));
    (calls, Duration::from_millis(longest))
}

#[test]
fn acknowledged_events_outlive_workers_nodes_and_the_head() {
    let mut site = TestCluster::pair();
    let third = site.join(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    open(&mut job, None);
    let mut total = 0;

    // Its worker is killed.
    let (_, pid) = balance(&mut job);
    let (calls, longest) = deposit_while(&mut job, 1000, |_| proc::kill(pid as u32));
    total += calls;
    println!("a worker was killed: {calls} deposits, the longest took {longest:?}");
    assert_eq!(balance(&mut job).0, total);

    // The head is killed, and started again. Deposits need no head.
    let head = site.nodes[0].head();
    let (calls, longest) = deposit_while(&mut job, 1500, |_| proc::kill(head));
    total += calls;
    println!("the head was killed: {calls} deposits, the longest took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    site.restart_head();
    wait_for("all nodes are back", || {
        site.list("nodes").iter().all(|node| node["state"] == "ALIVE").then_some(())
    });
    assert_eq!(balance(&mut job).0, total);

    // The node that it runs on stops with all of its processes: one of the two copies is there.
    let (_, pid) = balance(&mut job);
    let id = site.node_of(pid);
    let node = site.nodes.iter().chain([&third]).find(|node| node.id == id).unwrap().clone();
    let workers = proc::children(node.agent());
    let is_head_node = node.id == site.nodes[0].id;
    let stopped: Vec<u32> = workers.iter().copied().chain([node.agent()]).collect();
    if !is_head_node {
        let (calls, longest) = deposit_while(&mut job, 8000, |_| {
            stopped.iter().for_each(|pid| drop(proc::signal(*pid, Signal::STOP)));
        });
        total += calls;
        println!("a node was stopped: {calls} deposits, the longest took {longest:?}");
        assert!(longest < Duration::from_secs(8), "{longest:?}");
        stopped.iter().rev().for_each(|pid| drop(proc::signal(*pid, Signal::CONT)));
        assert_eq!(balance(&mut job).0, total);
    }
    let ended = job.reply(Order::StopAccount("a".to_owned()));
    assert!(ended.is_done(), "{ended:?}");
    job.finish();
}

#[test]
fn a_lost_copy_is_replaced_and_the_new_one_suffices() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    let (second, third) = (site.join(&["--num-cpus=0"]), site.join(&["--num-cpus=0"]));
    let mut job = Job::join(&site);
    open(&mut job, None);
    let mut total = deposit_while(&mut job, 500, |_| {}).0;
    // The actor's own node has a copy, and one of the others. One after the other is lost and comes back empty: each
    // time the copy on the actor's node is the source.
    for lost in [second, third] {
        let (calls, longest) = deposit_while(&mut job, 3000, |_| proc::kill(lost.agent()));
        total += calls;
        println!("an agent was killed: {calls} deposits, the longest took {longest:?}");
        assert_eq!(balance(&mut job).0, total);
        site.join(&["--num-cpus=0"]);
    }
    job.finish();
}

#[test]
fn a_required_number_of_copies_that_no_cluster_has_is_an_error() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let refused = job.reply(Order::Open("a".to_owned(), NonZeroU8::new(2)));
    assert!(refused.failure().contains("needs 2 nodes that hold states, and there are 1"), "{refused:?}");
    open(&mut job, Some(1));
    assert_eq!(balance(&mut job).0, 0);
    job.finish();
}
