//! Actor and tasks of the tests about processes.

use std::convert::Infallible;
use std::hint::spin_loop;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use actix::{Arbiter, System};
use roadshow::prelude::*;

/// Time that a handler or a task computes, longer than any test.
const COMPUTES: Duration = Duration::from_secs(60);

#[derive(RemoteActor)]
#[remote(handles(Pid, PidOf, Compute, Never, Stop, UseStack))]
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

/// Means by which user code stops more than its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub(super) enum StopTarget {
    System,
    /// Stops the system after the actor has stopped.
    SystemInStopped,
    Arbiter,
}

/// Lets the actor stop something.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) StopTarget);

impl Handler<Stop> for Worker {
    type Result = ();
    fn handle(&mut self, Stop(what): Stop, ctx: &mut Context<Self>) {
        match what {
            StopTarget::System => System::current().stop(),
            StopTarget::Arbiter => drop(Arbiter::current().stop()),
            StopTarget::SystemInStopped => {
                self.0 = true;
                ctx.stop();
            }
        }
    }
}

/// Uses this many bytes of the stack.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "usize")]
pub(super) struct UseStack(pub(super) usize);

impl Handler<UseStack> for Worker {
    type Result = usize;
    fn handle(&mut self, UseStack(bytes): UseStack, _: &mut Context<Self>) -> usize {
        use_stack(bytes)
    }
}

/// Asks the actor for the process of another one; `None` if that cannot be reached.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Option<u32>")]
pub(super) struct PidOf(pub(super) RemoteAddr<Worker>);

impl Handler<PidOf> for Worker {
    type Result = ResponseFuture<Option<u32>>;
    fn handle(&mut self, PidOf(other): PidOf, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { other.send(Pid).await.ok() })
    }
}

/// Asks for the process of the actor.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
pub(super) struct Pid;

impl Handler<Pid> for Worker {
    type Result = u32;
    fn handle(&mut self, _: Pid, _: &mut Context<Self>) -> u32 {
        std::process::id()
    }
}

/// Prints a line, and then blocks the actor's thread for a minute.
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

/// Request that is never answered; sends `Began` when its handler starts.
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

/// Actor that reports the start of a handler to its test.
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

/// Stops something from a task. A task has no actor that could stop, so `SystemInStopped` does nothing.
#[roadshow::task]
pub(super) fn stop(what: StopTarget) {
    match what {
        StopTarget::System => System::current().stop(),
        StopTarget::Arbiter => drop(Arbiter::current().stop()),
        StopTarget::SystemInStopped => {}
    }
}

/// Uses this many bytes of the stack of the task thread.
#[roadshow::task]
pub(super) fn use_stack_in_turn(bytes: usize) -> usize {
    use_stack(bytes)
}

/// Uses this many bytes of the stack of a pool thread.
#[roadshow::task(parallel = 1)]
pub(super) fn use_stack_in_pool(bytes: usize) -> usize {
    use_stack(bytes)
}

/// Recurses until it has used `bytes` bytes of the stack; returns the bytes used.
pub(super) fn use_stack(bytes: usize) -> usize {
    fn address(of: &[u8; 1024]) -> usize {
        std::ptr::from_ref(of) as usize
    }
    #[inline(never)]
    fn deeper(top: usize, bytes: usize) -> usize {
        let frame = std::hint::black_box([1; 1024]);
        let used = top.saturating_sub(address(&frame));
        if used < bytes { std::hint::black_box(deeper(top, bytes)) } else { used }
    }
    deeper(address(&std::hint::black_box([0; 1024])), bytes)
}

/// Position of a started process in the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData)]
pub(super) enum Starts {
    /// Child of the worker.
    Child,
    /// Child of a shell, which stays as well.
    Grandchild,
    /// Child in a separate session.
    Session,
    /// Daemon: in a separate session, without a parent.
    Daemon,
    /// Child in a separate session and an empty environment.
    Bare,
    /// Daemon with an empty environment.
    BareDaemon,
}

/// Starts a process that stays, and returns its pid.
#[roadshow::task]
pub(super) fn start_a_sleep(how: Starts) -> u32 {
    start(how)
}

#[expect(clippy::zombie_processes, reason = "the test is that nothing waits for it")]
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

/// Returns a variable of the worker's environment.
#[roadshow::task]
pub(super) fn variable(name: String) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

/// Returns the worker's limit of open files.
#[roadshow::task]
pub(super) fn open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Returns the process that runs the task.
#[roadshow::task]
pub(super) fn pid() -> u32 {
    std::process::id()
}

/// Prints a line to the worker's standard output.
#[roadshow::task]
pub(super) fn print_a_line() {
    println!("a task prints");
}

/// Prints a line, and then blocks the task thread for a minute.
#[roadshow::task]
pub(super) fn compute() {
    println!("a task computes");
    compute_for(COMPUTES);
}

/// Runs this executable as an ordinary program below a worker; returns its output.
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
