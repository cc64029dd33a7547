//! The actor and the tasks that the tests about processes run.

use std::convert::Infallible;
use std::hint::spin_loop;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use actix::{Arbiter, System};
use roadshow::prelude::*;

/// How long a handler or a task computes: longer than any test.
const COMPUTES: Duration = Duration::from_secs(60);

#[derive(RemoteActor)]
#[remote(handles(Pid, Compute, Never, Stop, UseStack))]
pub(super) struct Worker(bool);

impl Actor for Worker {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        if self.0 {
            System::current().stop();
        }
    }
}

impl Spawn for Worker {
    type Args = ();
    type Error = Infallible;
    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(false))
    }
}

/// How user code ends more than an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub(super) enum Stops {
    System,
    /// The system, when the actor has stopped.
    SystemInTheEnd,
    Arbiter,
}

/// Has the actor do so.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Stops);

impl Handler<Stop> for Worker {
    type Result = ();
    fn handle(&mut self, Stop(what): Stop, ctx: &mut Context<Self>) {
        match what {
            Stops::System => System::current().stop(),
            Stops::Arbiter => drop(Arbiter::current().stop()),
            Stops::SystemInTheEnd => {
                self.0 = true;
                ctx.stop();
            }
        }
    }
}

/// Uses so many bytes of the stack.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "usize")]
pub(super) struct UseStack(pub(super) usize);

impl Handler<UseStack> for Worker {
    type Result = usize;
    fn handle(&mut self, UseStack(bytes): UseStack, _: &mut Context<Self>) -> usize {
        use_stack(bytes)
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

/// Does it as a task; one task does nothing when its actor ends.
#[roadshow::task]
pub(super) fn stop(what: Stops) {
    match what {
        Stops::System => System::current().stop(),
        Stops::Arbiter => drop(Arbiter::current().stop()),
        Stops::SystemInTheEnd => {}
    }
}

/// Uses so many bytes of the stack of the thread of tasks.
#[roadshow::task]
pub(super) fn use_stack_in_turn(bytes: usize) -> usize {
    use_stack(bytes)
}

/// Uses so many bytes of the stack of a thread of the pool.
#[roadshow::task(parallel = 1)]
pub(super) fn use_stack_in_pool(bytes: usize) -> usize {
    use_stack(bytes)
}

/// Goes so deep; gives how deep it was.
pub(super) fn use_stack(bytes: usize) -> usize {
    fn place(of: &[u8; 1024]) -> usize {
        std::ptr::from_ref(of) as usize
    }
    #[inline(never)]
    fn deeper(top: usize, bytes: usize) -> usize {
        let frame = std::hint::black_box([1; 1024]);
        let used = top.saturating_sub(place(&frame));
        if used < bytes { std::hint::black_box(deeper(top, bytes)) } else { used }
    }
    deeper(place(&std::hint::black_box([0; 1024])), bytes)
}

/// How a task starts a process that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub(super) enum Starts {
    /// As a child.
    Child,
    /// As the child of a shell, which stays as well.
    Grandchild,
    /// As a child with a session of its own.
    Session,
    /// As a daemon: with a session of its own, and with no parent left.
    Daemon,
    /// As a child with a session of its own and an empty environment.
    Bare,
    /// As a daemon with an empty environment.
    BareDaemon,
}

/// Starts a process that stays, and gives its number.
#[roadshow::task]
pub(super) fn start_a_sleep(how: Starts) -> u32 {
    start(how)
}

#[expect(clippy::zombie_processes, reason = "whoever starts it does not see its end: that is tested")]
pub(super) fn start(how: Starts) -> u32 {
    const STAYS: &str = "sh -c 'echo $$; exec sleep 98765'";
    let script = match how {
        Starts::Child => STAYS.to_owned(),
        Starts::Grandchild => format!("{STAYS} & wait"),
        Starts::Session => format!("exec setsid {STAYS}"),
        Starts::Daemon => format!("(setsid {STAYS} &)"),
        Starts::Bare => format!("exec env -i setsid {STAYS}"),
        Starts::BareDaemon => format!("(env -i setsid {STAYS} &)"),
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = shell.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

/// A variable of the worker's environment.
#[roadshow::task]
pub(super) fn variable(name: String) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

/// How many files the worker may have open.
#[roadshow::task]
pub(super) fn open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
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
