//! Actor and tasks of the test programs.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use roadshow::prelude::*;
use rustix::fs::OFlags;

/// Actor that keeps a sum, and the address of another actor that it has found.
#[derive(RemoteActor)]
#[remote(handles(Add, Pid, Take, Never, Compute, Print, Variable, Finish, Friend, Announce, Mark))]
pub(super) struct SumActor {
    sum: u64,
    incarnation: u32,
    cluster: ClusterRef,
    friend: Option<RemoteAddr<Self>>,
    announces_end: bool,
}

impl Actor for SumActor {
    type Context = Context<Self>;
}

/// Line of an actor that announces its end.
pub(super) const ENDED: &str = "an actor that announces its end has ended";

impl Drop for SumActor {
    fn drop(&mut self) {
        if self.announces_end {
            println!("{ENDED}");
        }
    }
}

/// The sum to begin with of an actor whose constructor does not return.
pub(super) const CONSTRUCTS_FOR_EVER: u64 = u64::MAX;

impl Spawn for SumActor {
    type Args = u64;
    type Error = Infallible;
    fn spawn(start: u64, at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        if start == CONSTRUCTS_FOR_EVER {
            println!("its constructor computes");
            loop {
                // Blocks the thread without using the CPU, which other tests need.
                std::thread::park();
            }
        }
        Ok(Self {
            sum: start,
            incarnation: at.incarnation(),
            cluster: at.cluster().clone(),
            friend: None,
            announces_end: false,
        })
    }
}

/// Adds to the sum, and returns it.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Add(pub(super) u64);

impl Handler<Add> for SumActor {
    type Result = u64;
    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.sum += n;
        self.sum
    }
}

/// Returns the id of the actor's process.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Pid;

impl Handler<Pid> for SumActor {
    type Result = u64;
    fn handle(&mut self, _: Pid, _: &mut Context<Self>) -> u64 {
        std::process::id().into()
    }
}

/// Returns the length of a text.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Take(pub(super) String);

impl Handler<Take> for SumActor {
    type Result = u64;
    fn handle(&mut self, Take(text): Take, _: &mut Context<Self>) -> u64 {
        text.len() as u64
    }
}

/// Call that never returns a reply.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Never;

impl Handler<Never> for SumActor {
    type Result = ResponseActFuture<Self, ()>;
    fn handle(&mut self, _: Never, _: &mut Context<Self>) -> ResponseActFuture<Self, ()> {
        println!("it has begun");
        Box::pin(std::future::pending().into_actor(self))
    }
}

/// Call that blocks its thread forever.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Compute;

impl Handler<Compute> for SumActor {
    type Result = ();
    fn handle(&mut self, _: Compute, _: &mut Context<Self>) {
        // Printed, so that the test knows that the handler runs: no reply tells it.
        println!("it computes");
        loop {
            std::thread::park();
        }
    }
}

/// Appends a line with the actor's incarnation to a file, now and every 20 ms from now on.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Mark(pub(super) String);

impl Handler<Mark> for SumActor {
    type Result = ();
    fn handle(&mut self, Mark(path): Mark, ctx: &mut Context<Self>) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        let mut mark = move |actor: &Self| writeln!(file, "{}", actor.incarnation).unwrap();
        mark(self);
        ctx.run_interval(Duration::from_millis(20), move |actor, _| mark(actor));
    }
}

/// Prints a line to both streams, a number of times.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Print(pub(super) String, pub(super) u64);

impl Handler<Print> for SumActor {
    type Result = ();
    fn handle(&mut self, Print(line, times): Print, _: &mut Context<Self>) {
        for _ in 0..times {
            println!("{line} out");
            eprintln!("{line} err");
        }
    }
}

/// Returns a variable of the worker's environment.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Option<String>")]
pub(super) struct Variable(pub(super) String);

impl Handler<Variable> for SumActor {
    type Result = Option<String>;
    fn handle(&mut self, Variable(name): Variable, _: &mut Context<Self>) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Makes this incarnation of the actor print a line when it ends.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Announce;

impl Handler<Announce> for SumActor {
    type Result = ();
    fn handle(&mut self, _: Announce, _: &mut Context<Self>) {
        self.announces_end = true;
    }
}

/// Stops the actor from within.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Finish;

impl Handler<Finish> for SumActor {
    type Result = ();
    fn handle(&mut self, _: Finish, context: &mut Context<Self>) {
        context.stop();
    }
}

/// Request to an actor to call another one.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
pub(super) enum Friend {
    /// Finds the other actor by namespace and name.
    Find(String, String),
    Add(u64),
    Never,
}

impl Handler<Friend> for SumActor {
    type Result = ResponseActFuture<Self, Result<u64, String>>;
    fn handle(&mut self, what: Friend, _: &mut Context<Self>) -> Self::Result {
        let (cluster, friend) = (self.cluster.clone(), self.friend.clone());
        let done = async move {
            let friend = match (&what, friend) {
                (Friend::Find(namespace, name), _) => {
                    cluster.actor_in(namespace, name).await.map_err(|error| error.to_string())?
                }
                (_, Some(friend)) => friend,
                (_, None) => return Err("it has not found another actor".to_owned()),
            };
            let said = match what {
                Friend::Find(..) => Ok(0),
                Friend::Add(n) => friend.send(Add(n)).await,
                Friend::Never => friend.send(Never).await.map(|()| 0),
            };
            said.map(|said| (friend, said)).map_err(|error| error.to_string())
        };
        Box::pin(done.into_actor(self).map(|done, this, _| {
            let (friend, said) = done?;
            this.friend = Some(friend);
            Ok(said)
        }))
    }
}

/// Operation that isolation must deny to a process of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Attempt {
    Read(PathBuf),
    Write(PathBuf),
    List(PathBuf),
    Connect(PathBuf),
    Signal(u32),
}

impl Attempt {
    /// Performs the operation, and returns the error number of a failure.
    pub(super) fn make(&self) -> Result<(), i32> {
        let done = match self {
            Self::Read(path) => File::open(path).and_then(|mut file| file.read(&mut [0]).map(drop)),
            Self::Write(path) => File::options().append(true).open(path).map(drop),
            Self::List(path) => std::fs::read_dir(path).map(drop),
            Self::Connect(path) => UnixStream::connect(path).map(drop),
            Self::Signal(pid) => {
                let process = rustix::process::Pid::from_raw((*pid).try_into().unwrap()).unwrap();
                // Signal 0: the kernel checks permission, and delivers nothing.
                rustix::process::test_kill_process(process).map_err(std::io::Error::from)
            }
        };
        done.map_err(|error| error.raw_os_error().unwrap_or_default())
    }
}

/// Performs operations that should be denied.
#[roadshow::task]
pub(super) fn attempt(attempts: Vec<Attempt>) -> Vec<Result<(), i32>> {
    attempts.iter().map(Attempt::make).collect()
}

/// Self-description of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Itself {
    pub(super) status: String,
    pub(super) environment: Vec<(String, String)>,
    /// Open files inherited across exec, without the standard streams.
    pub(super) inherited: Vec<String>,
}

impl Itself {
    pub(super) fn look() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let names = descriptors.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_inherited = |name: &String| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
            // Files that the process has opened itself are close-on-exec.
            flags.is_some_and(|flags| u32::from_str_radix(flags, 8).unwrap() & OFlags::CLOEXEC.bits() == 0)
        };
        let inherited = names.filter(|name| name.parse::<u32>().unwrap() > 2).filter(is_inherited);
        Self {
            status: std::fs::read_to_string("/proc/self/status").unwrap(),
            environment: std::env::vars().collect(),
            inherited: inherited.collect(),
        }
    }
}

/// Returns the self-description of the worker.
#[roadshow::task]
pub(super) fn look_at_itself() -> Itself {
    Itself::look()
}

/// Creates a world-readable file in the job's directory, and one among the temporary files.
#[roadshow::task]
pub(super) fn leave_files() {
    for path in [PathBuf::from("result"), std::env::temp_dir().join("temporary")] {
        std::fs::write(&path, "words").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    }
}

/// Returns the process id of the worker.
#[roadshow::task]
pub(super) fn pid() -> u64 {
    std::process::id().into()
}

/// Prints one line several times, then another line, then text without a line end.
#[roadshow::task]
pub(super) fn print_ticks() {
    for _ in 0..3 {
        println!("tick");
    }
    println!("last words");
    print!("no end");
    std::io::stdout().flush().unwrap();
}

/// Prints a progress bar, one step every 10 ms.
#[roadshow::task]
pub(super) fn show_progress(steps: u64) {
    println!();
    for step in 0..steps {
        print!("\rstep {step}");
        std::io::stdout().flush().unwrap();
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Starts processes that keep running, in all ways by which a supervisor could lose track; returns their ids.
#[roadshow::task]
pub(super) fn start_sleeps() -> Vec<u64> {
    const STAYS: &str = "sh -c 'echo $$; exec sleep 98765'";
    let scripts = [
        STAYS.to_owned(),
        format!("{STAYS} & wait"),
        format!("exec setsid {STAYS}"),
        format!("(setsid {STAYS} &)"),
        format!("exec env -i setsid {STAYS}"),
        format!("(env -i setsid {STAYS} &)"),
    ];
    scripts.map(|script| start(&script)).to_vec()
}

#[expect(clippy::zombie_processes, reason = "the parent must not see its end: that is tested")]
fn start(script: &str) -> u64 {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = shell.spawn().unwrap();
    let mut line = String::new();
    // The line has the process id of the sleep: `exec` keeps that of the shell.
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

/// Starts daemons that exit soon, and returns their process ids.
#[roadshow::task]
pub(super) fn leave_daemons() -> Vec<u64> {
    (0..3).map(|_| start("(setsid sh -c 'echo $$' &)")).collect()
}

/// Stops the actix system of the worker, as user code can.
#[roadshow::task]
pub(super) fn stop_system() {
    actix::System::current().stop();
}

/// Uses a number of bytes of the stack.
#[roadshow::task]
pub(super) fn use_stack(bytes: u64) -> u64 {
    fn address(of: &[u8; 1024]) -> usize {
        std::ptr::from_ref(of) as usize
    }
    #[inline(never)]
    fn deeper(top: usize, bytes: u64) -> u64 {
        // Without `black_box` the compiler could turn the recursion into a loop.
        let frame = std::hint::black_box([1; 1024]);
        let used = top.saturating_sub(address(&frame)) as u64;
        if used < bytes { std::hint::black_box(deeper(top, bytes)) } else { used }
    }
    deeper(address(&std::hint::black_box([0; 1024])), bytes)
}
