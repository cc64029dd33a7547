//! `roadshow start`: starts a cluster's head, or joins this machine to a cluster.

mod dashboard;
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
use roadshow::daemon::{AgentOptions, DashboardStatus, JobUsers, LeaseOptions, UidRange};
use roadshow::internals::config::WORKERS_MAX;
use roadshow::model::Resources;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::cluster_args::Environment;
use crate::cli::token::{TokenFile, TokenText};
use crate::cli::values::{
    Custom, HostPort, LabelList, bytes, cores, custom, host, labels, name, port, seconds, switch,
};
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::session::{DaemonRole, NodeFile, NodeSession, SessionDir, SessionRoot, boot_id};

/// Default port of a head; the same as Ray's.
const HEAD_PORT: u16 = 6379;

/// Makes this machine a node of a new cluster or of an existing one.
///
/// The command returns when the node is ready, and prints the next steps; the node runs in the background. A node
/// listens on one TCP port and rejects connections without the cluster's token.
///
/// `--head` restarts a head that has died when it has the same state directory. The agent and workers of its node
/// keep running meanwhile, and only the head is started again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, group(ArgGroup::new("role").required(true).args(["head", "address"])))]
pub(crate) struct StartArgs {
    /// Start a new cluster, with its head on this machine.
    #[arg(long)]
    head: bool,
    /// Join the cluster whose head listens at this address.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<HostPort>,
    /// IP address advertised to other nodes [default: address of the route to the head]
    #[arg(long, alias = "node-ip-address", value_name = "IP", value_parser = host)]
    host: Option<IpAddr>,
    /// TCP port of the node; 0 picks a free one [default: 6379 with --head, else 0]
    #[arg(long, value_name = "N", value_parser = port)]
    port: Option<u16>,
    /// CPUs offered for actors; 0 schedules nothing on this node [default: all]
    #[arg(long, value_name = "N", value_parser = cores, allow_negative_numbers = true)]
    num_cpus: Option<f64>,
    /// Memory offered for actors, such as 8GiB [default: 70 % of what this machine or container has]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Other resources as a JSON object of numbers, such as '{"gpu": 1}'
    #[arg(long, value_name = "JSON", value_parser = custom)]
    resources: Option<Custom>,
    /// Labels of the node, such as zone=a,disk=ssd.
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = labels)]
    labels: Option<LabelList>,
    /// Name of the node [default: the machine's host name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    node_name: Option<String>,
    /// Directory for the head's persistent state [default: ~/.local/state/roadshow/head-PORT; with --port 0 a
    /// directory in the session]
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    state_dir: Option<PathBuf>,
    /// Seconds without a heartbeat after which the head gives a node no new actors [default: 3]
    ///
    /// At least 2, and less than --dead-after. A head that is restarted needs both options again.
    #[arg(long, value_name = "S", conflicts_with = "address", value_parser = seconds, allow_negative_numbers = true)]
    unreachable_after: Option<Duration>,
    /// Seconds without a heartbeat after which the head declares a node or a driver dead; at most 50 [default: 10]
    #[arg(long, value_name = "S", conflicts_with = "address", value_parser = seconds, allow_negative_numbers = true)]
    dead_after: Option<Duration>,
    /// Directory for the node's logs, sockets and job files [default: a new one below the directory for temporary
    /// files]
    ///
    /// The directory must be empty, or belong to a node that has ended: its logs and the state of its head stay.
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Run workers and submitted drivers as this user, a name or a uid; root only.
    ///
    /// Jobs can then neither read the cluster's secrets nor signal its daemons. They are not protected from each other.
    #[arg(long, value_name = "NAME", conflicts_with = "worker_uids")]
    worker_user: Option<String>,
    /// Run each job with a uid and gid of its own out of this range, such as 60000-60999; root only.
    ///
    /// Jobs are then protected from each other, too. No user or group may have an id in the range.
    #[arg(long, value_name = "FIRST-LAST")]
    worker_uids: Option<UidRange>,
    /// File with the cluster's token, or - for standard input [default: ROADSHOW_TOKEN]
    #[arg(long, value_name = "FILE", conflicts_with = "head")]
    token_file: Option<TokenFile>,
    /// Token of the cluster. Every user of this machine can read it in the process list: prefer ROADSHOW_TOKEN.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["head", "token_file"])]
    token: Option<TokenText>,
    /// Stay in the foreground: stop the node gracefully on SIGINT or SIGTERM, and end when a daemon ends.
    ///
    /// If the head alone ends, the agent and workers of its node keep running. Start the head again to use them.
    #[arg(long)]
    block: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Serve the dashboard, a web page of the cluster [default: 1 if it listens at a loopback address]
    ///
    /// It needs a command that was built with the feature `dashboard`. With --address the three options of the
    /// dashboard have no effect: the head serves it.
    #[arg(long, value_name = "0|1", value_parser = switch)]
    include_dashboard: Option<bool>,
    /// IP address of the dashboard; any but a loopback address is served over TLS [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    dashboard_host: Option<IpAddr>,
    /// TCP port of the dashboard; 0 picks a free one [default: 8265]
    #[arg(long, value_name = "N", value_parser = port)]
    dashboard_port: Option<u16>,
}

const EXAMPLES: &str = "\
Examples, on the first machine and on each of the others:
  roadshow start --head
  ROADSHOW_TOKEN=... roadshow start --address=10.0.0.5:6379

As root, with a uid for each job:
  roadshow start --head --worker-uids=60000-60999

Several nodes can run on one machine, each with its own port and session directory.";

/// Node that was started.
struct StartedNode {
    session: NodeSession,
    token: TokenText,
    /// Only the head was started, into an existing session.
    restarted: bool,
    /// Number of live nodes, if the head has reported it.
    nodes: Option<usize>,
    dashboard: DashboardStatus,
    children: Vec<(DaemonRole, Child)>,
}

pub(crate) async fn run(arguments: &StartArgs, output: &mut CliOutput<'_>) -> CliResult<()> {
    if arguments.token.is_some() {
        // /proc/PID/cmdline is readable for all users, unlike the environment.
        output.note("warning: every user of this machine can read --token in the list of processes; use ROADSHOW_TOKEN or --token-file");
    }
    // Before the start: an early Ctrl-C would otherwise kill this command and leave daemons without a record.
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = start(arguments) => started?,
        // Dropping the future drops `Daemon` and `StartGuard`, which kill and clean up.
        () = signals.any() => return Err(CliError::failed("the start was interrupted", "nothing is left running")),
    };
    match arguments.json {
        true => output.json(&messages::json(&started))?,
        false => output.print(&messages::page(&started, arguments.block))?,
    }
    if let Some(note) = dashboard::note(arguments, &started.dashboard) {
        output.note(&note);
    }
    match arguments.block {
        true => {
            let outcome = foreground::run_foreground(started, &mut signals, output).await;
            // Stopping removes the session directory, but not the links to it.
            SessionRoot::of_this_user().tidy();
            outcome
        }
        false => Ok(()),
    }
}

async fn start(arguments: &StartArgs) -> CliResult<StartedNode> {
    let context = StartContext {
        root: SessionRoot::of_this_user(),
        environment: Environment::read(),
        program: launch::this_program,
        // After a lease the head declares the node dead, so a longer wait is useless.
        patience: arguments.leases()?.dead_after(),
    };
    match &arguments.address {
        Some(address) => join::start(arguments, address, &context).await,
        None => head::start(arguments, &context).await,
    }
}

/// Environment of a start; tests replace the daemons by shell scripts.
struct StartContext {
    root: SessionRoot,
    environment: Environment,
    /// Builds the command that runs a daemon with the given working directory.
    program: fn(DaemonRole, &Path) -> Command,
    /// Maximum time in which the agent must rejoin a restarted head; zero skips the wait.
    patience: Duration,
}

impl StartArgs {
    /// Limits of the silence of nodes and drivers.
    fn leases(&self) -> CliResult<LeaseOptions> {
        let default = LeaseOptions::default();
        let unreachable = self.unreachable_after.unwrap_or(default.unreachable_after());
        LeaseOptions::new(unreachable, self.dead_after.unwrap_or(default.dead_after())).map_err(|error| {
            CliError::usage(
                error,
                "give --unreachable-after and --dead-after other values, or leave them out",
            )
        })
    }

    /// Resources that the node offers.
    fn all_resources(&self) -> Resources {
        let cores = self.num_cpus.unwrap_or_else(host_resources::cores);
        let memory = self.memory.unwrap_or_else(host_resources::memory);
        let resources = Resources::none().with(Resources::CPU, cores).with(Resources::MEMORY, memory as f64);
        // CPU and memory have options of their own and cannot be among these.
        let others = self.resources.iter().flat_map(|Custom(others)| others);
        others.fold(resources, |resources, (name, amount)| resources.with(name, *amount))
    }

    /// Number of prestarted workers: one for each CPU offered, 0 without CPUs.
    fn workers(&self) -> u32 {
        let cores = self.num_cpus.unwrap_or_else(host_resources::cores).ceil();
        // The clamped value is whole and small, so the cast is exact.
        cores.clamp(0.0, WORKERS_MAX as f64) as u32
    }

    fn agent(
        &self,
        session: &NodeSession,
        (host, port): (IpAddr, u16),
        heads: Vec<SocketAddr>,
        token: &TokenText,
    ) -> AgentOptions {
        AgentOptions {
            session_dir: session.dir.clone(),
            host,
            port,
            // The agent beside the head passes connections to it, and reaches it in this way itself.
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

/// Creates a session without processes.
fn create_session(
    session_dir: &SessionDir,
    head_address: Option<SocketAddr>,
    state_dir: Option<PathBuf>,
    job_users: JobUsers,
) -> CliResult<NodeSession> {
    let boot_id =
        boot_id().map_err(|error| CliError::failed(format!("cannot read /proc: {error}"), "mount it"))?;
    let node = NodeFile {
        boot_id,
        // Only a joining node knows the address of the head before it starts.
        is_head: head_address.is_none(),
        address: None,
        head_address,
        node_id: None,
        state_dir,
        job_users,
        processes: Vec::new(),
    };
    let session = NodeSession { dir: session_dir.dir.clone(), node };
    // A session directory that was left half-made would be refused by the next start as not empty.
    io_failure(&session, session.save()).inspect_err(|_| drop(clear(&session)))?;
    Ok(session)
}

/// Pending start: cleans up its session unless it is completed.
struct StartGuard<'a> {
    session: NodeSession,
    context: &'a StartContext,
    is_done: bool,
}

impl<'a> StartGuard<'a> {
    const fn new(session: NodeSession, context: &'a StartContext) -> Self {
        Self { session, context, is_done: false }
    }

    // Dropped on every error path and when the start is interrupted: the `select!` in `run` drops the future.
    fn done(mut self) -> NodeSession {
        self.is_done = true;
        self.session.clone()
    }
}

impl Drop for StartGuard<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            abandon(&self.session, self.context);
        }
    }
}

/// Removes the session of a failed start, but keeps logs that are not empty.
fn abandon(session: &NodeSession, context: &StartContext) {
    let has_log = |role| std::fs::metadata(session.log(role)).is_ok_and(|metadata| metadata.len() > 0);
    // `stop` and the next start remove what cannot be removed now.
    let _ = match has_log(DaemonRole::Head) || has_log(DaemonRole::Agent) {
        true => session.clean_secrets(),
        false => clear(session),
    };
    context.root.tidy();
}

/// Converts an I/O error of a session file.
fn io_failure<T>(session: &NodeSession, written: std::io::Result<T>) -> CliResult<T> {
    written.map_err(|error| {
        let text = format!("cannot write to {}: {error}", session.dir.display());
        CliError::failed(text, "free some space there, or give another directory with --session-dir")
    })
}

/// Removes a session without processes, but nothing that an earlier session has left in its directory.
fn clear(session: &NodeSession) -> std::io::Result<()> {
    // A --session-dir may have the state of an earlier head, which must survive a failed start.
    match session.has_more() {
        true => session.clean_secrets(),
        false => session.remove(false),
    }
}

/// Signals that ask the command to end.
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
