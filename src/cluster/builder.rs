//! Settings of a cluster, and their checks before anything is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::driver::{self, JoinOptions};
use super::error::ClusterError;
use super::launch::descendants::MARK_VARIABLE;
use super::local::{self, LocalOptions};
use super::output::DEDUP_VARIABLE;
use super::protocol::is_secret;
use super::worker::stack;
use super::{Cluster, InProcess, Workers, open_files};
use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::protocol::Variables;
use crate::config::{Limits, WORKERS_MAX};
use crate::observe::log;

/// Settings of a cluster to be started.
#[derive(Clone, Debug, Default)]
pub struct ClusterBuilder {
    workers: Option<usize>,
    limits: Limits,
    in_process: Option<InProcess>,
    local: bool,
    address: Option<String>,
    environment: Variables,
    namespace: String,
    stack_bytes: Option<usize>,
    dedup_logs: Option<bool>,
}

impl ClusterBuilder {
    /// Joins the cluster whose head is at `host:port`, whatever the environment says.
    ///
    /// All addresses that a name stands for are tried. With [`local`](Self::local),
    /// [`in_process`](Self::in_process) or [`workers`](Self::workers) it is an error: they start a cluster here.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Gives the worker processes a variable of their environment.
    ///
    /// On a cluster's nodes they have nothing of the driver's environment but what is said here; in a local
    /// cluster they have all of it, and this beside it. The later value of a name counts. Workers within this
    /// process share its environment, so [`in_process`](Self::in_process) with this is an error.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The namespace of the job's names, to share them with other jobs; by default a job has its own.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Whether equal lines that several workers print are shown once and then counted; they are by default.
    ///
    /// It counts before `ROADSHOW_DEDUP_LOGS`. Lines of one worker are never folded against each other. With
    /// [`in_process`](Self::in_process) it changes nothing: workers within this process print themselves.
    #[must_use]
    pub fn dedup_logs(mut self, dedup: bool) -> Self {
        self.dedup_logs = Some(dedup);
        self
    }

    /// Starts a local cluster of worker processes, whatever the environment says.
    ///
    /// With [`in_process`](Self::in_process) it is an error: workers are the one or the other.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// How many workers to start in a local cluster; one a core by default.
    ///
    /// A program that joins because `ROADSHOW_ADDRESS` says so has the workers of the cluster's nodes, which are
    /// as many as their operators say.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Limits of the hosts of the driver and of its workers; head and agents keep the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The stack of each thread that runs handlers or tasks, in bytes, on nodes, too.
    ///
    /// By default `ROADSHOW_STACK_BYTES`; without it as much as the main thread of this program has, and at
    /// least 8 MiB. Memory is taken as far as a stack is used, not before.
    #[must_use]
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = Some(bytes);
        self
    }

    /// Makes the workers threads of this process, connected by `network`; see [`Cluster::in_process`].
    #[must_use]
    pub fn in_process(mut self, network: InProcess) -> Self {
        self.in_process = Some(network);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// As [`Cluster::init`], and [`ClusterError::Conflict`], [`ClusterError::Variable`] or
    /// [`ClusterError::StackSize`] for settings that cannot be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        self.check()?;
        // Those who read them later take one that is no text for one that is not set.
        [log::VARIABLE, DEDUP_VARIABLE].into_iter().try_for_each(|name| driver::variable(name).map(drop))?;
        open_files::raise_limit();
        let stack_bytes = stack::bytes(self.stack_bytes)?;
        if let Some(address) = self.address_to_join()? {
            let Self { limits, environment, namespace, dedup_logs, .. } = self;
            let options = JoinOptions { address, limits, environment, namespace, dedup_logs, stack_bytes };
            let (handle, remote) = driver::join(options).await?;
            return Ok(Cluster { handle, workers: Workers::Remote(remote) });
        }
        let workers = match self.workers {
            Some(0) => return Err(ClusterError::NoWorkers),
            Some(asked) if asked > WORKERS_MAX => {
                return Err(ClusterError::TooManyWorkers { asked, limit: WORKERS_MAX });
            }
            Some(workers) => workers,
            None => default_workers()?,
        };
        let Self { limits, environment, namespace, in_process, dedup_logs, .. } = self;
        let options =
            LocalOptions { workers, limits, environment, namespace, in_process, stack_bytes, dedup_logs };
        let (handle, local) = local::start(options).await?;
        Ok(Cluster { handle, workers: Workers::Local(local) })
    }

    /// Whether all that was said can be done.
    fn check(&self) -> Result<(), ClusterError> {
        let local = [
            (self.local, ".local()"),
            (self.in_process.is_some(), ".in_process(..)"),
            (self.workers.is_some(), ".workers(..)"),
        ];
        let conflict = |first, second, next| Err(ClusterError::Conflict { first, second, next });
        if let (Some(_), Some((_, second))) = (&self.address, local.into_iter().find(|(said, _)| *said)) {
            let next = "a cluster is joined or started here: leave out one of the two";
            return conflict(".address(..)", second, next);
        }
        if self.in_process.is_some() && self.local {
            let next = "workers are processes with the one and threads of this process with the other: leave out one";
            return conflict(".local()", ".in_process(..)", next);
        }
        if self.in_process.is_some() && !self.environment.is_empty() {
            let next = "workers within this process have its environment: set the variable for the whole process, \
                        or start worker processes with .local()";
            return conflict(".env(..)", ".in_process(..)", next);
        }
        self.environment.iter().try_for_each(|(name, value)| check_variable(name, value))
    }

    /// The cluster to join, if it is not to be a local one: what the program says counts before what the
    /// environment does.
    fn address_to_join(&self) -> Result<Option<String>, ClusterError> {
        match &self.address {
            Some(address) => Ok(Some(address.clone())),
            None if self.local || self.in_process.is_some() => Ok(None),
            None => driver::address(),
        }
    }
}

/// Whether a process can have a variable, and a worker may.
fn check_variable(name: &OsStr, value: &OsStr) -> Result<(), ClusterError> {
    let refused = |why| Err(ClusterError::Variable { name: name.to_string_lossy().into_owned(), why });
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
        return refused("a name is not empty and has neither '=' nor a zero byte in it");
    }
    if value.as_bytes().contains(&0) {
        return refused("a value has no zero byte in it");
    }
    let owned = |text: &str| is_secret(text) || [WORKER_VARIABLE, MARK_VARIABLE].contains(&text);
    match name.to_str().is_some_and(owned) {
        true => refused("it is Roadshow's own, which gives it to the processes that need it"),
        false => Ok(()),
    }
}

/// How many workers the environment asks for.
fn default_workers() -> Result<usize, ClusterError> {
    let value = std::env::var_os("ROADSHOW_WORKERS").unwrap_or_default();
    if value.is_empty() {
        return Ok(std::thread::available_parallelism().map_or(1, Into::into));
    }
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| ClusterError::WorkersSetting { value: value.to_string_lossy().into_owned() })
}
