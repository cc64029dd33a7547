//! Why a cluster cannot start, or did not end in order.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::executable::ExecutableError;
use super::security::token_rpc::TokenRpcError;
use crate::config::{STACK_BYTES_LEAST, STACK_BYTES_MAX, WORKERS_MAX};
use crate::host::{HostError, SendError};
use crate::id::HostUid;
use crate::observe::Chain;
use crate::transport::explained;

/// Why a cluster cannot start, or did not end in order.
///
/// Its `Debug` form is its text with its causes: that is what `main` and `unwrap` print, and where a newcomer
/// learns what to do next.
#[derive(Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A cluster of no workers was asked for.
    #[error("a cluster needs at least one worker; ask for one or more")]
    NoWorkers,
    /// More workers were asked for than one machine can be meant to have.
    #[error(
        "{asked} workers were asked for, and the limit is {limit}; ask for about as many as there are cores"
    )]
    TooManyWorkers {
        /// How many.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// `ROADSHOW_WORKERS` is no number of workers.
    #[error(
        "ROADSHOW_WORKERS is {value:?}; set it to a number of worker processes from 1 to {WORKERS_MAX}, or unset it"
    )]
    WorkersSetting {
        /// Its value.
        value: String,
    },
    /// Two settings exclude each other.
    #[error("{first} and {second} exclude each other: {next}")]
    Conflict {
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// Workers cannot have a variable of that name or value in their environment.
    #[error("the workers' environment cannot have the variable {name:?}: {why}")]
    Variable {
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// The size of the stack cannot be used.
    #[error(
        "{from} asks for a stack of {value:?} bytes; ask for a number of bytes from {STACK_BYTES_LEAST} to \
         {STACK_BYTES_MAX}"
    )]
    StackSize {
        /// Where it was given.
        from: &'static str,
        /// As it was given.
        value: String,
    },
    /// A variable of this program's environment cannot be understood.
    #[error("{variable} is {value:?}, which {why}; set it anew, or unset it")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value, as far as it is text.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The address of a cluster's head cannot be used.
    #[error(
        "{address:?} is no address of a cluster: {why}; give host:port, as `roadshow start --head` printed it"
    )]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing says what lets this program into the cluster.
    #[error(
        "no token for the cluster at {address}; set ROADSHOW_TOKEN to what `roadshow start --head` printed, or \
         ROADSHOW_TOKEN_FILE to a file that has it"
    )]
    NoToken {
        /// Where the head is.
        address: SocketAddr,
    },
    /// A node that runs jobs as other users has let this program in once, as its job's driver.
    #[error(
        "this program was submitted to a node that runs jobs as other users, which gives its first cluster alone a \
         place; join no second one, and start no program that joins, or set ROADSHOW_TOKEN_FILE to a file with the token"
    )]
    OneCluster,
    /// The token cannot be used.
    #[error("the token in {from}: {why}")]
    Token {
        /// Where it was found.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// The head does not take this program, or cannot be reached.
    #[error(transparent)]
    Enrol(#[from] TokenRpcError),
    /// The head did not take the job.
    #[error("the cluster at {address} did not take the job: {why}")]
    Head {
        /// Where the head is.
        address: String,
        /// Why.
        why: String,
    },
    /// The cluster has no node that takes work.
    #[error(
        "the cluster at {address} has no node that takes work; start one with `roadshow start --address={address}`"
    )]
    NoNodes {
        /// Where the head is.
        address: SocketAddr,
    },
    /// No node of the cluster can run this program.
    #[error("no node of the cluster can run this program: {why}")]
    NotProvisioned {
        /// Why one of them cannot.
        why: String,
    },
    /// This program's own executable cannot be read, to be sent along.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// The program would run its own `main` again in every worker.
    #[error(
        "this program has no entry point for workers; put #[roadshow::main] on main, call roadshow::run_if_worker() first in it, \
         or put roadshow::worker_test!() beside tests"
    )]
    NoWorkerEntry,
    /// What the program has each worker do first has panicked.
    #[error("the worker_setup! in line {line} of {module} panicked: {text}")]
    Setup {
        /// The module that has registered it.
        module: &'static str,
        /// Where in its file.
        line: u32,
        /// The panic.
        text: String,
    },
    /// A worker cannot be started.
    #[error("cannot start a worker process")]
    Start {
        /// The operating system's words, and the limit that was reached.
        source: io::Error,
    },
    /// A worker ended, or failed, before it could be called.
    #[error("worker process {pid} did not get ready: {cause}")]
    Worker {
        /// The process.
        pid: u32,
        /// How it ended, or what it reported.
        cause: String,
    },
    /// A worker did not get ready in time.
    #[error("worker process {pid} was not ready within {limit:?}")]
    WorkerStartTimeout {
        /// The process.
        pid: u32,
        /// How long it had.
        limit: Duration,
    },
    /// The driver's own host cannot start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A worker cannot be told about the others.
    #[error("worker process {pid} cannot be told about the cluster")]
    Introduce {
        /// The process.
        pid: u32,
        /// Why.
        source: SendError,
    },
    /// Workers did not end in time after they were asked to.
    #[error("worker processes {pids:?} did not end within {limit:?} and were killed")]
    WorkerKilled {
        /// The processes.
        pids: Vec<u32>,
        /// How long they had.
        limit: Duration,
    },
    /// Workers that are threads of this process did not end in time after they were asked to.
    #[error(
        "workers {hosts:?} did not end within {limit:?}: a handler or task still computes; their threads end after it"
    )]
    WorkerBusy {
        /// The hosts of their actors.
        hosts: Vec<HostUid>,
        /// How long they had.
        limit: Duration,
    },
}

impl ClusterError {
    pub(super) fn head(address: &str, why: &str) -> Self {
        Self::Head { address: address.to_owned(), why: why.to_owned() }
    }
}

impl From<io::Error> for ClusterError {
    fn from(source: io::Error) -> Self {
        Self::Start { source: explained(source) }
    }
}

impl fmt::Debug for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}
