//! Test programs: this executable, re-executed as a driver that joins a cluster and follows its test.
//!
//!
//! ```text
//! test                                  program (ROADSHOW_TEST_ROLE="obey")
//!   stdin:   [number, Order]    ----->    a task for each order
//!   stdout:  "reply: [number, Reply]" <-  number 0 reports the join
//! ```
//!
//! Other roles run a fixed script without a conversation, for programs that the cluster starts itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU8;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::System;
use futures_util::future::join_all;
use roadshow::prelude::*;
use roadshow::{DurableAddr, Lifetime, Resources, SpawnRequest, Strategy};

use super::durable::{Account, Balance, deposit, patiently};
use super::fixtures::{
    Add, Announce, Attempt, Compute, Finish, Friend, Itself, Mark, Never, Pid, Print, SumActor, Take,
    Variable, attempt, leave_daemons, leave_files, look_at_itself, pid, print_ticks, show_progress,
    start_sleeps, stop_system, use_stack,
};
use super::proc::{self, PATIENCE};
use super::test_cluster::{Node, TestCluster, isolate, text};

/// Environment variable with the role of a program.
pub(super) const ROLE: &str = "ROADSHOW_TEST_ROLE";

/// Environment variable with variables for the workers of a program.
const WORKERS_HAVE: &str = "ROADSHOW_TEST_ENV";

/// Arguments with which the test harness runs [`drive`] alone.
pub(super) const ARGUMENTS: [&str; 3] = ["job::drive", "--exact", "--nocapture"];

const MARK: &str = "reply: ";

/// Options of a spawn, as the builder has them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SpawnOptions {
    pub(super) start: u64,
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) get_if_exists: bool,
    pub(super) resources: Vec<(String, f64)>,
    pub(super) on: Option<String>,
    pub(super) label: Option<(String, String)>,
    pub(super) pack: bool,
    pub(super) detached: bool,
    /// Restarts the actor after failures.
    pub(super) restarts: bool,
    /// Restarts it only once the earlier incarnation has certainly ended.
    pub(super) exclusive: bool,
}

/// Operation for a program. Actors are named as in their spawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Spawn(String, Box<SpawnOptions>),
    Find(String, String, Option<String>),
    Add(String, u64),
    Pid(String),
    Take(String, String),
    Never(String),
    Compute(String),
    Print(String, String, u64),
    Variable(String, String),
    Finish(String),
    /// Makes the present incarnation of an actor announce its end.
    Announce(String),
    /// Calls another actor from within an actor.
    Friend(String, Friend),
    /// Spawns actors and drops each spawn some microseconds later than the one before.
    GiveUp(u64, Box<SpawnOptions>),
    /// Runs a number of tasks; returns the processes that ran them.
    Tasks(u64),
    /// Performs operations in a task; returns their error numbers.
    Attempt(Vec<Attempt>),
    /// Returns the self-description of a worker.
    LookAtItself,
    /// Creates files in a task.
    LeaveFiles,
    /// Spawns a number of actors concurrently; returns the milliseconds it took, and their processes.
    Many(u64),
    /// Returns the process ids of the workers.
    Workers,
    /// Starts processes from a task that keep running.
    StartSleeps,
    /// Starts daemons from a task that exit soon.
    LeaveDaemons,
    /// Stops the actix system of a worker from a task.
    StopSystem,
    /// Uses a number of bytes of a task's stack.
    UseStack(u64),
    /// Waits for the end of an actor; returns reason and text.
    Watch(String),
    /// Waits for the end of the node with that id.
    WatchNode(String),
    /// Waits for the end of the job with that id.
    WatchJob(String),
    /// Links two actors.
    Link(String, String),
    /// Lets an actor write its incarnation to a file again and again.
    Mark(String, String),
    /// Spawns a durable account with a name, with the required number of copies if there is one.
    Open(String, Option<NonZeroU8>),
    /// Finds a durable account by its name.
    FindAccount(String),
    /// Deposits one by one from as many callers for some milliseconds; returns the number of deposits and the longest
    /// time of one in milliseconds.
    Deposit(String, u64, u64),
    /// Returns the balance and the process of an account.
    Balance(String),
    StopAccount(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Number(u64),
    Numbers(Vec<u64>),
    Text(Option<String>),
    Attempts(Vec<Result<(), i32>>),
    Itself(Itself),
    Failed(String),
}

impl Reply {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    #[track_caller]
    pub(super) fn failure(&self) -> &str {
        match self {
            Self::Failed(error) => error,
            other => panic!("it does not fail: {other:?}"),
        }
    }
}

#[test]
fn drive() {
    // A normal test run has no role, and the test passes without doing anything.
    let Ok(role) = std::env::var(ROLE) else { return };
    let (name, how) = role.split_once(' ').unwrap_or((&role, ""));
    match name {
        "obey" => System::new().block_on(obey()),
        "count" => System::new().block_on(count(how)),
        "linger" => System::new().block_on(linger(how)),
        "try" => System::new().block_on(try_things(how)),
        "stay" => System::new().block_on(stay()),
        "print" => System::new().block_on(print()),
        "progress" => System::new().block_on(progress()),
        _ => panic!("no such role: {role}"),
    }
}

async fn join() -> Result<Cluster, roadshow::ClusterError> {
    let mut builder = Cluster::builder();
    for (name, value) in std::env::var(WORKERS_HAVE)
        .iter()
        .flat_map(|all| all.split(','))
        .filter_map(|one| one.split_once('='))
    {
        builder = builder.env(name, value);
    }
    builder.start().await
}

fn say(text: &str) {
    // The harness prints "test ... " without a line end before the test runs.
    println!("\n{MARK}{text}");
}

/// Joins, sums numbers with an actor on each worker, and ends with the given exit code.
///
/// Prints the sum and the processes of the actors.
async fn count(code: &str) {
    let cluster = Cluster::init().await.unwrap();
    let workers = cluster.workers().len();
    let actors = join_all((0..workers).map(|_| cluster.spawn::<SumActor>(0).into_future())).await;
    let actors: Vec<_> = actors.into_iter().map(Result::unwrap).collect();
    for n in 0..1000 {
        actors[n % workers].tell(Add(n as u64)).await.unwrap();
    }
    let sums = join_all(actors.iter().map(|actor| actor.send(Add(0)))).await;
    let sum: u64 = sums.into_iter().map(Result::unwrap).sum();
    let pids = join_all(actors.iter().map(|actor| actor.send(Pid))).await;
    let pids: Vec<_> = pids.into_iter().map(|pid| pid.unwrap().to_string()).collect();
    say(&format!("the sum is {sum}, by {}", pids.join(" ")));
    eprintln!("that was all");
    cluster.shutdown().await.unwrap();
    let _ = std::io::stdout().flush();
    // Exits here, since the harness would end with its own code.
    std::process::exit(code.parse().unwrap());
}

/// Joins, shuts its cluster down, uses a second one, and works on without any until it ends with the given code.
async fn linger(how: &str) {
    let (seconds, code) = how.split_once(' ').unwrap();
    let cluster = Cluster::init().await.unwrap();
    // The second program is another job, although it inherits the environment of this one.
    let mut other = Command::new(std::env::current_exe().unwrap());
    let other = other.args(ARGUMENTS).env(ROLE, "count 0").output().unwrap();
    assert!(other.status.success(), "{}", text(&other.stderr));
    let actor = cluster.spawn::<SumActor>(1).await.unwrap();
    assert_eq!(actor.send(Add(1)).await, Ok(2));
    cluster.shutdown().await.unwrap();
    let second = Cluster::init().await.unwrap();
    let actor = second.spawn::<SumActor>(2).await.unwrap();
    assert_eq!(actor.send(Add(2)).await, Ok(4));
    second.shutdown().await.unwrap();
    say("it works on");
    tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
    say("it is done");
    let _ = std::io::stdout().flush();
    std::process::exit(code.parse().unwrap());
}

/// Environment variable with the operations that a submitted program tries, as JSON.
pub(super) const ATTEMPTS: &str = "ROADSHOW_TEST_ATTEMPTS";

/// Joins, performs operations that should be denied, prints the results and its self-description, and counts.
async fn try_things(code: &str) {
    let attempts: Vec<Attempt> = serde_json::from_str(&std::env::var(ATTEMPTS).unwrap()).unwrap();
    let tried: Vec<_> = attempts.iter().map(Attempt::make).collect();
    say(&serde_json::to_string(&(tried, Itself::look())).unwrap());
    count(code).await;
}

/// Joins, and runs until it is killed.
async fn stay() {
    let cluster = Cluster::init().await.unwrap();
    let actor = cluster.spawn::<SumActor>(0).await.unwrap();
    say(&format!("it stays, with {}", actor.send(Pid).await.unwrap()));
    std::future::pending().await
}

/// Joins, makes workers print, and ends immediately: output may still be in flight.
async fn print() {
    let cluster = Cluster::init().await.unwrap();
    let workers = cluster.workers().len() as u64;
    let actors = join_all((0..workers).map(|n| cluster.spawn::<SumActor>(n).into_future())).await;
    for actor in &actors {
        // The harness of this executable leaves an unfinished line in each worker.
        actor.as_ref().unwrap().send(Print("\neach".to_owned(), 3)).await.unwrap();
    }
    cluster.run(print_ticks::task()).await.unwrap();
    cluster.shutdown().await.unwrap();
    std::process::exit(0);
}

/// Joins, makes a worker print a progress bar, and ends.
async fn progress() {
    let cluster = Cluster::init().await.unwrap();
    cluster.run(show_progress::task(200)).await.unwrap();
    cluster.shutdown().await.unwrap();
    std::process::exit(0);
}

/// Actors of a program by name.
type Actors = Rc<RefCell<HashMap<String, RemoteAddr<SumActor>>>>;

/// Durable accounts of a program by name.
type Accounts = Rc<RefCell<HashMap<String, DurableAddr<Account>>>>;

/// Performs orders until its standard input ends.
async fn obey() {
    let cluster = match join().await {
        Ok(cluster) => Rc::new(cluster),
        Err(error) => {
            say(&serde_json::to_string(&(0, Reply::Failed(error.to_string()))).unwrap());
            return;
        }
    };
    // Reply number 0 reports that the program has joined.
    say(&serde_json::to_string(&(0, Reply::Done)).unwrap());
    // Reading standard input blocks, so it has a thread of its own.
    let (sender, mut orders) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let order: (u64, Order) = serde_json::from_str(&line).unwrap();
            if sender.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let (actors, accounts) = (Actors::default(), Accounts::default());
    while let Some((number, order)) = orders.recv().await {
        let (cluster, actors, accounts) = (Rc::clone(&cluster), Rc::clone(&actors), Rc::clone(&accounts));
        // Concurrently: a call that never returns must not delay later orders.
        actix_rt::spawn(async move {
            let reply = follow(&cluster, &actors, &accounts, order).await.unwrap_or_else(Reply::Failed);
            say(&serde_json::to_string(&(number, reply)).unwrap());
        });
    }
    // Fails while an order still runs; the program then ends without a shutdown.
    if let Ok(cluster) = Rc::try_unwrap(cluster) {
        cluster.shutdown().await.unwrap();
    }
}

fn ended(end: &roadshow::End) -> Reply {
    Reply::Text(Some(format!("{:?}: {end}", end.reason)))
}

async fn follow(
    cluster: &Cluster,
    actors: &Actors,
    accounts: &Accounts,
    order: Order,
) -> Result<Reply, String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let actor = |name: &str| actors.borrow().get(name).cloned().ok_or_else(|| format!("there is no {name}"));
    let store = |name: String, actor: RemoteAddr<SumActor>| {
        actors.borrow_mut().insert(name, actor);
        Reply::Done
    };
    let account = |name: &str| {
        accounts.borrow().get(name).cloned().ok_or_else(|| format!("there is no account {name}"))
    };
    Ok(match order {
        Order::Open(name, copies) => {
            let spawn = cluster.spawn_durable::<Account>(()).name(name.as_str());
            let spawn = match copies {
                Some(copies) => spawn.copies(copies),
                None => spawn,
            };
            let opened = spawn.await.map_err(text)?;
            accounts.borrow_mut().insert(name, opened);
            Reply::Done
        }
        Order::FindAccount(name) => {
            let found = cluster.durable_actor(&name).await.map_err(text)?;
            accounts.borrow_mut().insert(name, found);
            Reply::Done
        }
        Order::Deposit(name, callers, millis) => {
            Reply::Numbers(deposit(&account(&name)?, callers, millis).await?)
        }
        Order::Balance(name) => {
            let (balance, pid) = account(&name)?.send(Balance).retry(patiently()).await.map_err(text)?;
            Reply::Numbers(vec![balance, pid])
        }
        Order::StopAccount(name) => {
            account(&name)?.stop().await.map_err(text)?;
            Reply::Done
        }
        Order::Spawn(name, options) => store(name, options.spawn(cluster).await.map_err(text)?),
        Order::Find(name, actor, None) => store(name, cluster.actor(&actor).await.map_err(text)?),
        Order::Find(name, actor, Some(namespace)) => {
            store(name, cluster.actor_in(&namespace, &actor).await.map_err(text)?)
        }
        Order::Add(to, n) => Reply::Number(actor(&to)?.send(Add(n)).await.map_err(text)?),
        Order::Pid(of) => Reply::Number(actor(&of)?.send(Pid).await.map_err(text)?),
        Order::Take(to, message) => Reply::Number(actor(&to)?.send(Take(message)).await.map_err(text)?),
        Order::Mark(by, file) => {
            actor(&by)?.send(Mark(file)).await.map_err(text)?;
            Reply::Done
        }
        Order::Compute(to) => {
            actor(&to)?.send(Compute).await.map_err(text)?;
            Reply::Done
        }
        Order::Never(to) => {
            actor(&to)?.send(Never).await.map_err(text)?;
            Reply::Done
        }
        Order::Print(by, line, times) => {
            actor(&by)?.send(Print(line, times)).await.map_err(text)?;
            Reply::Done
        }
        Order::Variable(of, name) => Reply::Text(actor(&of)?.send(Variable(name)).await.map_err(text)?),
        Order::Finish(name) => {
            actor(&name)?.send(Finish).await.map_err(text)?;
            Reply::Done
        }
        Order::Announce(name) => {
            actor(&name)?.send(Announce).await.map_err(text)?;
            Reply::Done
        }
        Order::Friend(of, what) => Reply::Number(actor(&of)?.send(what).await.map_err(text)??),
        Order::GiveUp(times, options) => {
            for n in 0..times {
                let spawning = options.clone().spawn(cluster);
                // A completed spawn is stopped here. The test checks that a dropped one leaves nothing allocated.
                if let Ok(spawned) = tokio::time::timeout(Duration::from_micros(50 * n), spawning).await {
                    spawned.map_err(text)?.stop().await.map_err(text)?;
                }
            }
            Reply::Done
        }
        Order::Tasks(times) => {
            Reply::Numbers(cluster.run_all((0..times).map(|_| pid::task())).await.map_err(text)?)
        }
        Order::Many(count) => {
            let begun = Instant::now();
            let spawned = join_all((0..count).map(|n| cluster.spawn::<SumActor>(n).into_future())).await;
            let took = begun.elapsed();
            let actors = spawned.into_iter().collect::<Result<Vec<_>, _>>().map_err(text)?;
            let pids = join_all(actors.iter().map(|actor| actor.send(Pid))).await;
            let pids = pids.into_iter().collect::<Result<Vec<_>, _>>().map_err(text)?;
            Reply::Numbers([vec![took.as_millis() as u64], pids].concat())
        }
        Order::StartSleeps => Reply::Numbers(cluster.run(start_sleeps::task()).await.map_err(text)?),
        Order::LeaveDaemons => Reply::Numbers(cluster.run(leave_daemons::task()).await.map_err(text)?),
        Order::StopSystem => cluster.run(stop_system::task()).await.map(|()| Reply::Done).map_err(text)?,
        Order::Attempt(attempts) => {
            Reply::Attempts(cluster.run(attempt::task(attempts)).await.map_err(text)?)
        }
        Order::LookAtItself => Reply::Itself(cluster.run(look_at_itself::task()).await.map_err(text)?),
        Order::LeaveFiles => cluster.run(leave_files::task()).await.map(|()| Reply::Done).map_err(text)?,
        Order::UseStack(bytes) => Reply::Number(cluster.run(use_stack::task(bytes)).await.map_err(text)?),
        Order::Watch(of) => {
            let of = actor(&of)?;
            let terminated = cluster.watch(&of).await;
            assert!(terminated.is(&of));
            ended(&terminated.end)
        }
        Order::WatchNode(node) => ended(&cluster.watch_node(node.parse().unwrap()).await),
        Order::WatchJob(job) => ended(&cluster.watch_job(job.parse().unwrap()).await),
        Order::Link(one, other) => {
            cluster.link(&actor(&one)?, &actor(&other)?).await.map_err(text)?;
            Reply::Done
        }
        Order::Workers => {
            let workers = cluster.workers().into_iter().filter(|worker| worker.ended.is_none());
            Reply::Numbers(workers.map(|worker| worker.pid.into()).collect())
        }
    })
}

impl SpawnOptions {
    pub(super) fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    pub(super) fn restarting() -> Self {
        Self { restarts: true, ..Self::default() }
    }

    pub(super) fn exclusive() -> Self {
        Self { exclusive: true, ..Self::restarting() }
    }

    pub(super) fn with(name: &str, amount: f64) -> Self {
        Self { resources: vec![(name.to_owned(), amount)], ..Self::default() }
    }

    pub(super) fn on(node: &Node) -> Self {
        Self { on: Some(node.id.clone()), ..Self::default() }
    }

    fn spawn(self, cluster: &Cluster) -> impl Future<Output = Result<RemoteAddr<SumActor>, SpawnError>> {
        let mut request: SpawnRequest<SumActor> = cluster.spawn::<SumActor>(self.start);
        if let Some(name) = self.name {
            request = request.name(name);
        }
        if let Some(namespace) = self.namespace {
            request = request.namespace(namespace);
        }
        if self.get_if_exists {
            request = request.get_if_exists();
        }
        if !self.resources.is_empty() {
            let all = self.resources.iter();
            request = request.resources(all.fold(Resources::none(), |all, (name, n)| all.with(name, *n)));
        }
        if let Some(node) = self.on {
            request = request.node(node.parse().unwrap());
        }
        if let Some((name, value)) = self.label {
            request = request.label(name, value);
        }
        if self.pack {
            request = request.strategy(Strategy::Pack);
        }
        if self.restarts {
            let policy = Restart::on_failure();
            request = request.restart(if self.exclusive { policy.exclusive() } else { policy });
        }
        if self.detached {
            request = request.lifetime(Lifetime::Detached);
        }
        request.into_future()
    }
}

/// Running program. Dropping it kills it.
pub(super) struct Job {
    child: Child,
    orders: Option<ChildStdin>,
    replies: Arc<(Mutex<HashMap<u64, Reply>>, Condvar)>,
    /// Finishes at the end of the standard output.
    reader: JoinHandle<()>,
    errors: Arc<Mutex<String>>,
    last: u64,
}

/// Handle of an order whose reply is pending.
#[derive(Debug)]
#[must_use = "a reply must be awaited"]
pub(super) struct Pending(u64);

/// Builds a program for a cluster, which finds the token by itself.
pub(super) fn program(site: &TestCluster, role: &str) -> Command {
    program_under(site, &site.nodes[0].under, role)
}

pub(super) fn program_under(site: &TestCluster, under: &[String], role: &str) -> Command {
    let executable = std::env::current_exe().unwrap();
    let mut command = match under.split_first() {
        None => Command::new(executable),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(executable);
            command
        }
    };
    command.args(ARGUMENTS).current_dir(site.home());
    isolate(&mut command, site.home());
    command.env(ROLE, role).env("ROADSHOW_ADDRESS", &site.address);
    command
}

impl Job {
    /// Starts a program that joins.
    #[track_caller]
    pub(super) fn join(site: &TestCluster) -> Self {
        Self::join_with(program(site, "obey"))
    }

    #[track_caller]
    pub(super) fn join_with(command: Command) -> Self {
        match Self::start(command) {
            Ok(job) => job,
            Err(error) => panic!("the program cannot join: {error}"),
        }
    }

    /// Starts a program, and returns its error if it cannot join.
    #[track_caller]
    pub(super) fn start(command: Command) -> Result<Self, String> {
        let mut job = Self::launch(command);
        match job.wait_for_reply(&Pending(0)) {
            Reply::Failed(error) => Err(error),
            _ => Ok(job),
        }
    }

    /// Starts a program without waiting for it to join.
    #[track_caller]
    pub(super) fn launch(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let replies = Arc::<(Mutex<HashMap<u64, Reply>>, Condvar)>::default();
        let errors = Arc::<Mutex<String>>::default();
        let reader = listen(child.stdout.take().unwrap(), Arc::clone(&replies));
        gather(child.stderr.take().unwrap(), Arc::clone(&errors));
        let orders = child.stdin.take();
        Self { child, orders, replies, reader, errors, last: 0 }
    }

    /// Sends an order without waiting for the reply.
    pub(super) fn begin(&mut self, order: Order) -> Pending {
        self.last += 1;
        let line = serde_json::to_string(&(self.last, order)).unwrap();
        writeln!(self.orders.as_mut().unwrap(), "{line}").unwrap();
        Pending(self.last)
    }

    /// Reply, if it has arrived.
    pub(super) fn look(&self, pending: &Pending) -> Option<Reply> {
        self.replies.0.lock().unwrap().get(&pending.0).cloned()
    }

    #[track_caller]
    pub(super) fn end_of(&mut self, pending: Pending) -> Reply {
        self.wait_for_reply(&pending)
    }

    #[track_caller]
    fn wait_for_reply(&mut self, pending: &Pending) -> Reply {
        let until = Instant::now() + PATIENCE;
        loop {
            {
                let (replies, arrived) = &*self.replies;
                let replies = replies.lock().unwrap();
                if let Some(reply) = replies.get(&pending.0) {
                    return reply.clone();
                }
                // The timeout is for a program that ends without a reply, which notifies nothing.
                drop(arrived.wait_timeout(replies, Duration::from_millis(100)).unwrap());
            }
            let ended = self.child.try_wait().unwrap();
            let late = Instant::now() > until;
            // The last replies may still be in the pipe when the process has ended.
            let silent = ended.is_some() && self.reader.is_finished();
            if (late || silent) && self.look(pending).is_none() {
                panic!("no reply to {pending:?}; ended: {ended:?}; {}", self.errors());
            }
        }
    }

    #[track_caller]
    pub(super) fn reply(&mut self, order: Order) -> Reply {
        let pending = self.begin(order);
        self.wait_for_reply(&pending)
    }

    /// Sends an order that must succeed.
    #[track_caller]
    pub(super) fn does(&mut self, order: Order) {
        let shown = format!("{order:?}");
        match self.reply(order) {
            Reply::Done => {}
            other => panic!("{shown}: {other:?}; {}", self.errors()),
        }
    }

    #[track_caller]
    pub(super) fn number(&mut self, order: Order) -> u64 {
        let shown = format!("{order:?}");
        match self.reply(order) {
            Reply::Number(number) => number,
            other => panic!("{shown}: {other:?}; {}", self.errors()),
        }
    }

    #[track_caller]
    pub(super) fn numbers(&mut self, order: Order) -> Vec<u64> {
        let shown = format!("{order:?}");
        match self.reply(order) {
            Reply::Numbers(numbers) => numbers,
            other => panic!("{shown}: {other:?}; {}", self.errors()),
        }
    }

    /// Sends an order that must fail, and returns the error.
    #[track_caller]
    pub(super) fn fails(&mut self, order: Order) -> String {
        let shown = format!("{order:?}");
        match self.reply(order) {
            Reply::Failed(error) => error,
            other => panic!("{shown}: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn spawn(&mut self, name: &str, options: SpawnOptions) {
        self.does(Order::Spawn(name.to_owned(), Box::new(options)));
    }

    /// Process id of an actor.
    #[track_caller]
    pub(super) fn pid_of(&mut self, name: &str) -> u64 {
        self.number(Order::Pid(name.to_owned()))
    }

    #[track_caller]
    pub(super) fn add(&mut self, to: &str, n: u64) -> u64 {
        self.number(Order::Add(to.to_owned(), n))
    }

    /// Process id of the program itself.
    pub(super) fn driver(&self) -> u32 {
        self.child.id()
    }

    /// Standard error of the program so far.
    pub(super) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Ends the program gracefully, and waits for its exit.
    #[track_caller]
    pub(super) fn finish(mut self) {
        self.end_of_input();
    }

    /// Like [`Job::finish`], for a program that something else owns.
    #[track_caller]
    pub(super) fn end_of_input(&mut self) {
        drop(self.orders.take());
        let status = self.wait();
        assert!(status.success(), "{status}; {}", self.errors());
    }

    #[track_caller]
    pub(super) fn wait(&mut self) -> ExitStatus {
        proc::wait_for("the program ends", || self.child.try_wait().unwrap())
    }

    /// Kills the program, with its calls still in flight.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Both fail only for a program that was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(
    stdout: impl Read + Send + 'static,
    replies: Arc<(Mutex<HashMap<u64, Reply>>, Condvar)>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The harness prints lines of its own to the same stream.
            let Some(reply) = line.strip_prefix(MARK) else { continue };
            let (number, reply) = serde_json::from_str(reply).unwrap();
            replies.0.lock().unwrap().insert(number, reply);
            replies.1.notify_all();
        }
    })
}

fn gather(mut stderr: impl Read + Send + 'static, errors: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        // The pipe must be drained, or the program blocks on a full one.
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut bytes) {
            errors.lock().unwrap().push_str(&text(&bytes[..count]));
        }
    });
}

/// Marked lines in the output of a program.
pub(super) fn said(stdout: &str) -> Vec<String> {
    stdout.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned).collect()
}

/// Runs a program with a scripted role to its end.
#[track_caller]
pub(super) fn run(command: Command) -> (Vec<String>, String, ExitStatus) {
    let mut command = command;
    command.stdin(Stdio::null());
    let output = super::test_cluster::output(command);
    (said(&text(&output.stdout)), text(&output.stderr), output.status)
}

/// Checks the sum of a `count`, and returns the processes of its actors.
#[track_caller]
pub(super) fn counted(said: &[String]) -> Vec<u64> {
    let pids = said.iter().find_map(|line| line.strip_prefix("the sum is 499500, by "));
    let pids = pids.unwrap_or_else(|| panic!("no sum, or another: {said:?}"));
    pids.split(' ').map(|pid| pid.parse().unwrap()).collect()
}
