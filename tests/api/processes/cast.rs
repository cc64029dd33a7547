//! The actor and the tasks that the tests about processes run.

use std::convert::Infallible;
use std::hint::spin_loop;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use roadshow::prelude::*;

/// How long a handler or a task computes: longer than any test.
const COMPUTES: Duration = Duration::from_secs(60);

#[derive(RemoteActor)]
#[remote(handles(Pid, Compute, Never))]
pub(super) struct Worker;

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Spawn for Worker {
    type Args = ();
    type Error = Infallible;
    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Asks for the process that the actor lives in.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
pub(super) struct Pid;

impl Handler<Pid> for Worker {
    type Result = u32;
    fn handle(&mut self, _: Pid, _: &mut Context<Self>) -> u32 {
        std::process::id()
    }
}

/// Takes the actor's thread for a minute, after it has said so.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Compute;

impl Handler<Compute> for Worker {
    type Result = ();
    fn handle(&mut self, _: Compute, _: &mut Context<Self>) {
        println!("a handler computes");
        compute_for(COMPUTES);
    }
}

/// Has no answer; tells `began` that its handler has begun.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Never {
    pub(super) began: RemoteRecipient<Began>,
}

impl Handler<Never> for Worker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, Never { began }: Never, _: &mut Context<Self>) -> ResponseFuture<()> {
        Box::pin(async move {
            began.tell(Began).await.unwrap();
            std::future::pending().await
        })
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Began;

/// Hears that a handler has begun.
#[derive(RemoteActor)]
#[remote(local, handles(Began))]
pub(super) struct Listener(pub(super) tokio::sync::mpsc::Sender<()>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Began> for Listener {
    type Result = ();
    fn handle(&mut self, _: Began, _: &mut Context<Self>) {
        self.0.try_send(()).unwrap();
    }
}

/// The process that runs it.
#[roadshow::task]
pub(super) fn pid() -> u32 {
    std::process::id()
}

/// Prints as if it were in the driver.
#[roadshow::task]
pub(super) fn print_a_line() {
    println!("a task prints");
}

/// Takes the thread of tasks for a minute, after it has said so.
#[roadshow::task]
pub(super) fn compute() {
    println!("a task computes");
    compute_for(COMPUTES);
}

/// Runs this executable as a program that happens to run below a worker; gives what it printed.
#[roadshow::task]
pub(super) fn start_a_program() -> Result<String, String> {
    let inherited = std::env::var_os("ROADSHOW_WORKER").is_some();
    let mut program = Command::new("/proc/self/exe");
    program.args(["roadshow_worker", "--exact", "--test-threads=1"]).stderr(Stdio::null());
    let output = program.output().map_err(|err| err.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    match (inherited, output.status.success()) {
        (true, true) => Ok(printed.into_owned()),
        _ => Err(format!("inherited: {inherited}, {}, printed {printed}", output.status)),
    }
}

fn compute_for(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        spin_loop();
    }
}
