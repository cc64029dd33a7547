//! This executable, started again as a program that joins a cluster and does what its test says.
//!
//! Orders are lines of JSON on its standard input, replies lines on its standard output. What a program
//! is to do of its own, where nobody can talk to it, is in an environment variable.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::System;
use futures_util::future::join_all;
use roadshow::prelude::*;
use roadshow::{Lifetime, Resources, SpawnRequest, Strategy};

use super::cast::{
    Add, Attempt, Compute, Finish, Friend, Itself, Keeper, Never, Pid, Print, Take, Variable, attempt,
    leave_daemons, leave_files, look_at_itself, pid, print_ticks, show_progress, start_sleeps, stop_system,
    use_stack,
};
use super::proc::{self, PATIENCE};
use super::site::{Node, TestCluster, isolate, text};

/// What a program is to do.
pub(super) const ROLE: &str = "ROADSHOW_TEST_ROLE";

/// The variables of the environment of its workers.
const WORKERS_HAVE: &str = "ROADSHOW_TEST_ENV";

/// How the test harness starts it.
pub(super) const ARGUMENTS: [&str; 3] = ["job::drive", "--exact", "--nocapture"];

const MARK: &str = "reply: ";

/// What an actor is to be, in the words of the builder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) start: u64,
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) get_if_exists: bool,
    pub(super) resources: Vec<(String, f64)>,
    pub(super) on: Option<String>,
    pub(super) label: Option<(String, String)>,
    pub(super) pack: bool,
    pub(super) detached: bool,
}

/// What a program is told to do. Actors are called as they were when they were spawned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Spawn(String, Box<Wish>),
    Find(String, String, Option<String>),
    Add(String, u64),
    Pid(String),
    Take(String, String),
    Never(String),
    Compute(String),
    Print(String, String, u64),
    Variable(String, String),
    Finish(String),
    /// What an actor is to do with another.
    Friend(String, Friend),
    /// So many spawns with that wish, each given up some microseconds later than the one before.
    GiveUp(u64, Box<Wish>),
    /// A task on each worker, several times; the processes that ran one.
    Tasks(u64),
    /// A task that tries these, and gives the numbers of the errors.
    Attempt(Vec<Attempt>),
    /// What a worker's process says of itself: its status and its environment.
    LookAtItself,
    /// A task that leaves files.
    LeaveFiles,
    /// So many actors at once; how many milliseconds that took, and their processes.
    Many(u64),
    /// The workers' processes.
    Workers,
    /// Processes that a task starts and that stay.
    StartSleeps,
    /// Processes that a task leaves behind, and that end.
    LeaveDaemons,
    /// A task that ends its worker.
    StopSystem,
    /// A task that uses so many bytes of its stack.
    UseStack(u64),
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
    // The harness may have begun a line.
    println!("\n{MARK}{text}");
}

/// Joins, and counts how often each letter is in a text, with an actor on each worker: a program like any.
/// It prints the answer and the processes that had a part in it, and ends with the code that is asked for.
async fn count(code: &str) {
    let cluster = Cluster::init().await.unwrap();
    let workers = cluster.workers().len();
    let actors = join_all((0..workers).map(|_| cluster.spawn::<Keeper>(0).into_future())).await;
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
    std::process::exit(code.parse().unwrap());
}

/// Joins and counts, has another program and a second cluster of its own count, and works on without any
/// cluster; ends with the code that is asked for.
async fn linger(how: &str) {
    let (seconds, code) = how.split_once(' ').unwrap();
    let cluster = Cluster::init().await.unwrap();
    // It is a job of its own, although it inherits the variables of this one.
    let mut other = Command::new(std::env::current_exe().unwrap());
    let other = other.args(ARGUMENTS).env(ROLE, "count 0").output().unwrap();
    assert!(other.status.success(), "{}", text(&other.stderr));
    let actor = cluster.spawn::<Keeper>(1).await.unwrap();
    assert_eq!(actor.send(Add(1)).await, Ok(2));
    cluster.shutdown().await.unwrap();
    let second = Cluster::init().await.unwrap();
    let actor = second.spawn::<Keeper>(2).await.unwrap();
    assert_eq!(actor.send(Add(2)).await, Ok(4));
    second.shutdown().await.unwrap();
    say("it works on");
    tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
    say("it is done");
    let _ = std::io::stdout().flush();
    std::process::exit(code.parse().unwrap());
}

/// What a submitted program tries, as JSON.
pub(super) const ATTEMPTS: &str = "ROADSHOW_TEST_ATTEMPTS";

/// Joins, tries what it should not, and counts; says what became of it, and what its process is.
async fn try_things(code: &str) {
    let attempts: Vec<Attempt> = serde_json::from_str(&std::env::var(ATTEMPTS).unwrap()).unwrap();
    let tried: Vec<_> = attempts.iter().map(Attempt::make).collect();
    say(&serde_json::to_string(&(tried, Itself::look())).unwrap());
    count(code).await;
}

/// Joins, and stays until it is ended.
async fn stay() {
    let cluster = Cluster::init().await.unwrap();
    let actor = cluster.spawn::<Keeper>(0).await.unwrap();
    say(&format!("it stays, with {}", actor.send(Pid).await.unwrap()));
    std::future::pending().await
}

/// Joins, has workers print, and ends at once.
async fn print() {
    let cluster = Cluster::init().await.unwrap();
    let workers = cluster.workers().len() as u64;
    let actors = join_all((0..workers).map(|n| cluster.spawn::<Keeper>(n).into_future())).await;
    for actor in &actors {
        // The harness of this executable has begun a line in each worker.
        actor.as_ref().unwrap().send(Print("\neach".to_owned(), 3)).await.unwrap();
    }
    cluster.run(print_ticks::task()).await.unwrap();
    cluster.shutdown().await.unwrap();
    std::process::exit(0);
}

/// Joins, has a worker show its progress, and ends.
async fn progress() {
    let cluster = Cluster::init().await.unwrap();
    cluster.run(show_progress::task(200)).await.unwrap();
    cluster.shutdown().await.unwrap();
    std::process::exit(0);
}

/// The actors that a program has.
type Cast = Rc<RefCell<HashMap<String, RemoteAddr<Keeper>>>>;

/// Does what it is told until its input ends.
async fn obey() {
    let cluster = match join().await {
        Ok(cluster) => Rc::new(cluster),
        Err(error) => {
            say(&serde_json::to_string(&(0, Reply::Failed(error.to_string()))).unwrap());
            return;
        }
    };
    say(&serde_json::to_string(&(0, Reply::Done)).unwrap());
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let order: (u64, Order) = serde_json::from_str(&line).unwrap();
            if tell.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let cast = Cast::default();
    while let Some((number, order)) = told.recv().await {
        let (cluster, cast) = (Rc::clone(&cluster), Rc::clone(&cast));
        actix_rt::spawn(async move {
            let reply = follow(&cluster, &cast, order).await.unwrap_or_else(Reply::Failed);
            say(&serde_json::to_string(&(number, reply)).unwrap());
        });
    }
    if let Ok(cluster) = Rc::try_unwrap(cluster) {
        cluster.shutdown().await.unwrap();
    }
}

async fn follow(cluster: &Cluster, cast: &Cast, order: Order) -> Result<Reply, String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let actor = |name: &str| cast.borrow().get(name).cloned().ok_or_else(|| format!("there is no {name}"));
    let mine = |name: String, actor: RemoteAddr<Keeper>| {
        cast.borrow_mut().insert(name, actor);
        Reply::Done
    };
    Ok(match order {
        Order::Spawn(name, wish) => mine(name, wish.spawn(cluster).await.map_err(text)?),
        Order::Find(name, actor, None) => mine(name, cluster.actor(&actor).await.map_err(text)?),
        Order::Find(name, actor, Some(namespace)) => {
            mine(name, cluster.actor_in(&namespace, &actor).await.map_err(text)?)
        }
        Order::Add(to, n) => Reply::Number(actor(&to)?.send(Add(n)).await.map_err(text)?),
        Order::Pid(of) => Reply::Number(actor(&of)?.send(Pid).await.map_err(text)?),
        Order::Take(to, message) => Reply::Number(actor(&to)?.send(Take(message)).await.map_err(text)?),
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
        Order::Finish(who) => {
            actor(&who)?.send(Finish).await.map_err(text)?;
            Reply::Done
        }
        Order::Friend(of, what) => Reply::Number(actor(&of)?.send(what).await.map_err(text)??),
        Order::GiveUp(times, wish) => {
            for n in 0..times {
                let spawning = wish.clone().spawn(cluster);
                // One that has come to be is stopped; what is dropped is looked at by the test.
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
            let spawned = join_all((0..count).map(|n| cluster.spawn::<Keeper>(n).into_future())).await;
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
        Order::Workers => {
            let workers = cluster.workers().into_iter().filter(|worker| worker.ended.is_none());
            Reply::Numbers(workers.map(|worker| worker.pid.into()).collect())
        }
    })
}

impl Wish {
    pub(super) fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    pub(super) fn with(name: &str, amount: f64) -> Self {
        Self { resources: vec![(name.to_owned(), amount)], ..Self::default() }
    }

    pub(super) fn on(node: &Node) -> Self {
        Self { on: Some(node.id.clone()), ..Self::default() }
    }

    fn spawn(self, cluster: &Cluster) -> impl Future<Output = Result<RemoteAddr<Keeper>, SpawnError>> {
        let mut request: SpawnRequest<Keeper> = cluster.spawn::<Keeper>(self.start);
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
        if self.detached {
            request = request.lifetime(Lifetime::Detached);
        }
        request.into_future()
    }
}

/// A program that runs. Dropping it ends it.
pub(super) struct Job {
    child: Child,
    orders: Option<ChildStdin>,
    replies: Arc<(Mutex<HashMap<u64, Reply>>, Condvar)>,
    /// Finishes at the end of the standard output.
    reader: JoinHandle<()>,
    errors: Arc<Mutex<String>>,
    last: u64,
}

/// A reply that is to come.
#[derive(Debug)]
#[must_use = "a reply is waited for"]
pub(super) struct Pending(u64);

/// A program for a cluster, which finds the token by itself.
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
    /// A program that has joined.
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

    /// A program that has joined, or what it says about that.
    #[track_caller]
    pub(super) fn start(command: Command) -> Result<Self, String> {
        let mut job = Self::launch(command);
        match job.wait_for_reply(&Pending(0)) {
            Reply::Failed(error) => Err(error),
            _ => Ok(job),
        }
    }

    /// A program that may not have joined yet.
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

    /// Has the program begin with something.
    pub(super) fn begin(&mut self, order: Order) -> Pending {
        self.last += 1;
        let line = serde_json::to_string(&(self.last, order)).unwrap();
        writeln!(self.orders.as_mut().unwrap(), "{line}").unwrap();
        Pending(self.last)
    }

    /// Its reply, if it is there.
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
                let (replies, came) = &*self.replies;
                let replies = replies.lock().unwrap();
                if let Some(reply) = replies.get(&pending.0) {
                    return reply.clone();
                }
                // It is looked at again soon, since the program may end without a word.
                drop(came.wait_timeout(replies, Duration::from_millis(100)).unwrap());
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

    /// Has it done, which has to succeed.
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

    /// Has it tried, which has to fail; gives the error's text.
    #[track_caller]
    pub(super) fn fails(&mut self, order: Order) -> String {
        let shown = format!("{order:?}");
        match self.reply(order) {
            Reply::Failed(error) => error,
            other => panic!("{shown}: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn spawn(&mut self, name: &str, wish: Wish) {
        self.does(Order::Spawn(name.to_owned(), Box::new(wish)));
    }

    /// The process of an actor.
    #[track_caller]
    pub(super) fn pid_of(&mut self, name: &str) -> u64 {
        self.number(Order::Pid(name.to_owned()))
    }

    #[track_caller]
    pub(super) fn add(&mut self, to: &str, n: u64) -> u64 {
        self.number(Order::Add(to.to_owned(), n))
    }

    /// What it has written to its standard error.
    pub(super) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Lets it end, and waits for it.
    #[track_caller]
    pub(super) fn finish(mut self) {
        self.end_of_input();
    }

    /// The same for one that is held by something else.
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

    /// Kills it, and leaves what it has begun.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
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
            let Some(reply) = line.strip_prefix(MARK) else { continue };
            let (number, reply) = serde_json::from_str(reply).unwrap();
            replies.0.lock().unwrap().insert(number, reply);
            replies.1.notify_all();
        }
    })
}

fn gather(mut stderr: impl Read + Send + 'static, errors: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut bytes) {
            errors.lock().unwrap().push_str(&text(&bytes[..count]));
        }
    });
}

/// What a program says that nobody talks to.
pub(super) fn said(stdout: &str) -> Vec<String> {
    stdout.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned).collect()
}

/// Runs a program that has a role of its own to its end.
#[track_caller]
pub(super) fn run(command: Command) -> (Vec<String>, String, ExitStatus) {
    let mut command = command;
    command.stdin(Stdio::null());
    let output = super::site::output(command);
    (said(&text(&output.stdout)), text(&output.stderr), output.status)
}

/// The processes that a count was made by, once its sum is checked.
#[track_caller]
pub(super) fn counted(said: &[String]) -> Vec<u64> {
    let pids = said.iter().find_map(|line| line.strip_prefix("the sum is 499500, by "));
    let pids = pids.unwrap_or_else(|| panic!("no sum, or another: {said:?}"));
    pids.split(' ').map(|pid| pid.parse().unwrap()).collect()
}
