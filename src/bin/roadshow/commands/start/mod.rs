//! `roadshow start`: makes this machine a node, with the cluster's head or of a cluster that there is.

mod foreground;
mod head;
mod host_resources;
mod join;
mod launch;
mod messages;
mod state_dir;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use clap::ArgGroup;
use roadshow::config::{NODE_LEASE, WORKERS_MAX};
use roadshow::daemon::{AgentOptions, JobUsers, UidRange};
use roadshow::model::Resources;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::cluster_args::Environment;
use crate::cli::token::{TokenFile, TokenText};
use crate::cli::values::{
    Address, Custom, LabelList, bytes, cores, custom, host, labels, name, port, switch,
};
use crate::error::{CliError, CliResult};
use crate::output::Output;
use crate::session::{NodeFile, Role, Session, SessionDir, SessionRoot, boot_id};

/// Where a head listens unless it is told: Ray's port, as in the lecture.
const HEAD_PORT: u16 = 6379;

/// Makes this machine a node: the first one of a new cluster, or one more of a cluster that there is.
///
/// It goes into the background once the node is ready, and prints what to do next. A node uses one TCP port
/// and takes nothing from anybody without the cluster's token.
///
/// `--head` with the state directory of a head that has died goes on where that one was: if its node's agent
/// and workers still run, only the head is started again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, group(ArgGroup::new("role").required(true).args(["head", "address"])))]
pub(crate) struct Arguments {
    /// Start a new cluster, with its head on this machine.
    #[arg(long)]
    head: bool,
    /// Join the cluster whose head is there.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<Address>,
    /// By which IP address others reach this node; by default that of the way to them.
    #[arg(long, alias = "node-ip-address", value_name = "IP", value_parser = host)]
    host: Option<IpAddr>,
    /// The node's port; 0 for any that is free. 6379 with --head, else 0.
    #[arg(long, value_name = "N", value_parser = port)]
    port: Option<u16>,
    /// How many processors the node has for work; all that there are by default. With 0 it takes none.
    #[arg(long, value_name = "N", value_parser = cores, allow_negative_numbers = true)]
    num_cpus: Option<f64>,
    /// How much memory the node has for work, such as 8GiB; 70 % of what there is by default.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// What else the node has, as a JSON object of numbers, such as '{"gpu": 1}'.
    #[arg(long, value_name = "JSON", value_parser = custom)]
    resources: Option<Custom>,
    /// What the node is labelled with, such as zone=a,disk=ssd.
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = labels)]
    labels: Option<LabelList>,
    /// What the node is called; as its machine by default.
    #[arg(long, value_name = "NAME", value_parser = name)]
    node_name: Option<String>,
    /// Where the head keeps what it goes on from; ~/.local/state/roadshow/head-PORT by default, and within
    /// the session with --port 0.
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    state_dir: Option<PathBuf>,
    /// Where the node keeps logs, sockets and jobs' files; below the directory for temporary files by
    /// default. It must be empty, or that of a node that has ended: its logs stay, and a head's state.
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Run workers and submitted drivers as this user, given by name or uid; for root. Jobs cannot read the cluster's
    /// secrets then, nor signal its daemons. They are not protected from each other.
    #[arg(long, value_name = "NAME", conflicts_with = "worker_uids")]
    worker_user: Option<String>,
    /// Run each job as a uid, and gid, of its own of these, such as 60000-60999; for root. Jobs are protected from
    /// each other, too. No user or group may have one of them.
    #[arg(long, value_name = "FIRST-LAST")]
    worker_uids: Option<UidRange>,
    /// A file with the cluster's token, or - for the standard input; ROADSHOW_TOKEN by default.
    #[arg(long, value_name = "FILE", conflicts_with = "head")]
    token_file: Option<TokenFile>,
    /// The cluster's token. Every user of this machine can read it there: prefer one of the other ways.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["head", "token_file"])]
    token: Option<TokenText>,
    /// Stay in the foreground: end the node in order on SIGINT or SIGTERM, and end when a daemon does.
    ///
    /// When the head ends by itself, its node's agent and workers go on: start the head again to go on
    /// with them.
    #[arg(long)]
    block: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Accepted as in Ray; there is no dashboard yet.
    #[arg(long, value_name = "0|1", value_parser = switch)]
    include_dashboard: Option<bool>,
    /// Accepted as in Ray; there is no dashboard yet.
    #[arg(long, value_name = "IP")]
    dashboard_host: Option<IpAddr>,
    /// Accepted as in Ray; there is no dashboard yet.
    #[arg(long, value_name = "N", value_parser = port)]
    dashboard_port: Option<u16>,
}

const EXAMPLES: &str = "\
Examples, on the first machine and on each of the others:
  roadshow start --head
  ROADSHOW_TOKEN=... roadshow start --address=10.0.0.5:6379

As root, with a uid for each job:
  roadshow start --head --worker-uids=60000-60999

Several nodes may run on one machine, each with a port and a session of its own.";

/// What was said in the one line about the dashboard.
const NO_DASHBOARD: &str =
    "There is no dashboard yet; its options change nothing. `roadshow status` shows the cluster.";

/// A node that was started.
struct Started {
    session: Session,
    token: TokenText,
    /// Whether only the head was started, into a session that there was.
    restarted: bool,
    /// How many nodes live, if the head has said.
    nodes: Option<usize>,
    children: Vec<(Role, Child)>,
}

pub(crate) async fn run(arguments: &Arguments, output: &mut Output<'_>) -> CliResult<()> {
    if arguments.token.is_some() {
        output.note("warning: every user of this machine can read --token in the list of processes; use ROADSHOW_TOKEN or --token-file");
    }
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = start(arguments) => started?,
        // What was started is killed as its hold is dropped.
        () = signals.any() => return Err(CliError::failed("the start was interrupted", "nothing of it runs")),
    };
    match arguments.json {
        true => output.json(&messages::json(&started))?,
        false => output.print(&messages::page(&started, arguments.block))?,
    }
    if arguments.asks_for_a_dashboard() {
        match arguments.json {
            true => output.note(NO_DASHBOARD),
            false => output.print(&format!("\n{NO_DASHBOARD}\n"))?,
        }
    }
    match arguments.block {
        true => {
            let outcome = foreground::run_foreground(started, &mut signals, output).await;
            SessionRoot::of_this_user().tidy();
            outcome
        }
        false => Ok(()),
    }
}

async fn start(arguments: &Arguments) -> CliResult<Started> {
    let ground = StartContext {
        home: SessionRoot::of_this_user(),
        environment: Environment::read(),
        program: launch::this_program,
        patience: NODE_LEASE,
    };
    match &arguments.address {
        Some(address) => join::start(arguments, address, &ground).await,
        None => head::start(arguments, &ground).await,
    }
}

/// What a start finds, and what it starts.
struct StartContext {
    home: SessionRoot,
    environment: Environment,
    /// The program that is a daemon, in a directory.
    program: fn(Role, &Path) -> Command,
    /// How long the agent of a head that was started again may take to come back to it; with none at all it
    /// is not waited for.
    patience: Duration,
}

impl Arguments {
    fn asks_for_a_dashboard(&self) -> bool {
        self.include_dashboard == Some(true) || self.dashboard_host.is_some() || self.dashboard_port.is_some()
    }

    /// What the node has for work.
    fn all_resources(&self) -> Resources {
        let cores = self.num_cpus.unwrap_or_else(host_resources::cores);
        let memory = self.memory.unwrap_or_else(host_resources::memory);
        let resources = Resources::none().with(Resources::CPU, cores).with(Resources::MEMORY, memory as f64);
        let others = self.resources.iter().flat_map(|Custom(others)| others);
        others.fold(resources, |resources, (name, amount)| resources.with(name, *amount))
    }

    /// A worker for each processor that the node has for work, and none if it has none.
    fn workers(&self) -> u32 {
        let cores = self.num_cpus.unwrap_or_else(host_resources::cores).ceil();
        // Within the limit it is whole and small, so the cast is exact.
        cores.clamp(0.0, WORKERS_MAX as f64) as u32
    }

    fn agent(
        &self,
        session: &Session,
        (host, port): (IpAddr, u16),
        heads: Vec<SocketAddr>,
        token: &TokenText,
    ) -> AgentOptions {
        AgentOptions {
            session_dir: session.dir.clone(),
            host,
            port,
            head_socket: heads.is_empty().then(|| session.head_socket()),
            heads,
            token: token.reveal().to_owned(),
            node_name: self.node_name.clone().unwrap_or_else(host_resources::hostname),
            resources: self.all_resources(),
            labels: self.labels.clone().unwrap_or_default().0,
            workers: self.workers(),
            job_users: session.node.job_users.clone(),
        }
    }
}

/// A session of which nothing runs yet.
fn create_session(
    room: &SessionDir,
    head_address: Option<SocketAddr>,
    state_dir: Option<PathBuf>,
    job_users: JobUsers,
) -> CliResult<Session> {
    let boot_id =
        boot_id().map_err(|error| CliError::failed(format!("/proc cannot be read: {error}"), "mount it"))?;
    let node = NodeFile {
        boot_id,
        is_head: head_address.is_none(),
        address: None,
        head_address,
        node_id: None,
        state_dir,
        job_users,
        processes: Vec::new(),
    };
    let session = Session { dir: room.dir.clone(), node };
    // Where it cannot be written nothing is left that would be in the way of the next.
    io_failure(&session, session.save()).inspect_err(|_| drop(clear(&session)))?;
    Ok(session)
}

/// A start that is under way. One that fails, or is interrupted, abandons its session.
struct StartGuard<'a> {
    session: Session,
    ground: &'a StartContext,
    is_done: bool,
}

impl<'a> StartGuard<'a> {
    const fn new(session: Session, ground: &'a StartContext) -> Self {
        Self { session, ground, is_done: false }
    }

    fn done(mut self) -> Session {
        self.is_done = true;
        self.session.clone()
    }
}

impl Drop for StartGuard<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            abandon(&self.session, self.ground);
        }
    }
}

/// Removes the session of a start that came to nothing, but for logs in which there is something to read.
fn abandon(session: &Session, ground: &StartContext) {
    let has_words = |role| std::fs::metadata(session.log(role)).is_ok_and(|metadata| metadata.len() > 0);
    // What cannot be removed now is removed by `stop`, or gives way to the next start.
    let _ = match has_words(Role::Head) || has_words(Role::Agent) {
        true => session.clean_secrets(),
        false => clear(session),
    };
    ground.home.tidy();
}

/// What was to be written into a session.
fn io_failure<T>(session: &Session, written: std::io::Result<T>) -> CliResult<T> {
    written.map_err(|error| {
        let text = format!("cannot write to {}: {error}", session.dir.display());
        CliError::failed(text, "make room there, or give another directory with --session-dir")
    })
}

/// Removes a session that came to nothing. What an earlier one has left there is not its own.
fn clear(session: &Session) -> std::io::Result<()> {
    match session.has_more() {
        true => session.clean_secrets(),
        false => session.remove(false),
    }
}

/// The signals that ask the command to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> CliResult<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| CliError::failed(format!("cannot wait for signals: {error}"), ""))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
