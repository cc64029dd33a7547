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
use super::{Backend, Cluster, InProcess, open_files};
use crate::cluster::launch::contract::WORKER_VARIABLE;
use crate::cluster::protocol::Variables;
use crate::config::{Limits, WORKERS_MAX};
use crate::observe::log;

/// Settings for starting or joining a cluster.
///
/// # Examples
///
/// ```
/// use roadshow::{Cluster, InProcess, Limits, Memory};
///
/// # #[roadshow::main]
/// # async fn main() -> Result<(), roadshow::Error> {
/// let mut limits = Limits::default();
/// limits.window_bytes = 4 << 20;
/// let network = InProcess::Memory(Memory::new(7));
/// let cluster = Cluster::builder().workers(2).limits(limits).in_process(network).start().await?;
/// assert_eq!(cluster.workers().len(), 2);
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
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
    /// Joins the cluster whose head is at `host:port`, and ignores the environment.
    ///
    /// All addresses that the name resolves to are tried. Together with [`local`](Self::local),
    /// [`in_process`](Self::in_process) or [`workers`](Self::workers), which start a cluster here, it is an error.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Adds a variable to the environment of the worker processes.
    ///
    /// On the nodes of a cluster, workers inherit nothing from the driver's environment but these variables. In a
    /// local cluster they inherit all of it and get these in addition. The last value of a name wins. Workers
    /// within this process share its environment, so [`in_process`](Self::in_process) with this is an error.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), roadshow::Error> {
    /// let cluster = roadshow::Cluster::builder().env("OMP_NUM_THREADS", "1").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the namespace of the job's names, to share them with other jobs. By default a job has its own.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Turns the folding of equal output lines of several workers on or off; on by default.
    ///
    /// It takes precedence over `ROADSHOW_DEDUP_LOGS`. Equal lines of one worker are all shown. With
    /// [`in_process`](Self::in_process) it has no effect: workers within this process print for themselves.
    #[must_use]
    pub fn dedup_logs(mut self, dedup: bool) -> Self {
        self.dedup_logs = Some(dedup);
        self
    }

    /// Starts a local cluster of worker processes, and ignores the environment.
    ///
    /// With [`in_process`](Self::in_process) it is an error: workers are either processes or threads.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Sets the number of workers of a local cluster, from 1 to 1,024; one a core by default.
    ///
    /// A program that joins a cluster through `ROADSHOW_ADDRESS` uses the workers of the nodes, whose number their
    /// operators set.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the limits of the hosts of the driver and of its workers; head and agents keep the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the stack size, in bytes, of each thread that runs handlers or tasks, on nodes too.
    ///
    /// The default is `ROADSHOW_STACK_BYTES`; without it the stack size of this program's main thread, at least
    /// 8 MiB. The kernel commits memory only as the stack grows.
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

    /// Starts or joins the cluster.
    ///
    /// # Errors
    ///
    /// As [`Cluster::init`], and [`ClusterError::Conflict`], [`ClusterError::Variable`] or
    /// [`ClusterError::StackSize`] for settings that are invalid.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the workers that were started.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        self.check()?;
        // Their readers treat a value that is not UTF-8 as unset. Here it is an error that the user sees.
        [log::VARIABLE, DEDUP_VARIABLE].into_iter().try_for_each(|name| driver::variable(name).map(drop))?;
        // Before anything is started: worker processes inherit the limit.
        open_files::raise_limit();
        let stack_bytes = stack::bytes(self.stack_bytes)?;
        if let Some(address) = self.address_to_join()? {
            let Self { limits, environment, namespace, dedup_logs, .. } = self;
            let options = JoinOptions { address, limits, environment, namespace, dedup_logs, stack_bytes };
            let (handle, remote) = driver::join(options).await?;
            return Ok(Cluster { handle, backend: Backend::Remote(remote) });
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
        Ok(Cluster { handle, backend: Backend::Local(local) })
    }

    /// Rejects settings that contradict each other.
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

    /// Address of the cluster to join; `None` for a local cluster. The program's settings take precedence over the
    /// environment.
    fn address_to_join(&self) -> Result<Option<String>, ClusterError> {
        match &self.address {
            Some(address) => Ok(Some(address.clone())),
            None if self.local || self.in_process.is_some() => Ok(None),
            None => driver::address(),
        }
    }
}

/// Rejects a variable that no process can have, or that Roadshow sets itself.
fn check_variable(name: &OsStr, value: &OsStr) -> Result<(), ClusterError> {
    let refused = |why| Err(ClusterError::Variable { name: name.to_string_lossy().into_owned(), why });
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
        return refused("a name is not empty and has neither '=' nor a zero byte in it");
    }
    if value.as_bytes().contains(&0) {
        return refused("a value has no zero byte in it");
    }
    // Workers need no token, and must not pass one on. A wrong role or mark would make a worker run `main`, or hide its
    // descendants from the process that ends them.
    let owned = |text: &str| is_secret(text) || [WORKER_VARIABLE, MARK_VARIABLE].contains(&text);
    match name.to_str().is_some_and(owned) {
        true => refused("it is Roadshow's own, which gives it to the processes that need it"),
        false => Ok(()),
    }
}

/// Number of workers that the environment requests; one a core by default.
fn default_workers() -> Result<usize, ClusterError> {
    let value = std::env::var_os("ROADSHOW_WORKERS").unwrap_or_default();
    // Empty counts as unset: scripts pass variables on that they were not given.
    if value.is_empty() {
        return Ok(std::thread::available_parallelism().map_or(1, Into::into));
    }
    let workers = value.to_str().and_then(|value| value.trim().parse().ok());
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| ClusterError::WorkersSetting { value: value.to_string_lossy().into_owned() })
}
