//! Errors of starting and of ending a cluster.

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

/// Failure to start a cluster, or to end it gracefully.
///
/// `Debug` shows the text with its causes, since `main` and `unwrap` print that, and it names the next step.
#[derive(Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Zero workers were requested.
    #[error("a cluster needs at least one worker; ask for one or more")]
    NoWorkers,
    /// More workers were requested than the limit allows.
    #[error("{asked} workers were requested, and the limit is {limit}; request about one for each core")]
    TooManyWorkers {
        /// Requested number.
        asked: usize,
        /// Largest number.
        limit: usize,
    },
    /// `ROADSHOW_WORKERS` is not a number of workers.
    #[error(
        "ROADSHOW_WORKERS is {value:?}; set it to a number of worker processes from 1 to {WORKERS_MAX}, or unset it"
    )]
    WorkersSetting {
        /// Value of the variable.
        value: String,
    },
    /// Two settings exclude each other.
    #[error("{first} and {second} exclude each other: {next}")]
    Conflict {
        /// First setting.
        first: &'static str,
        /// Second setting.
        second: &'static str,
        /// Next step.
        next: &'static str,
    },
    /// The workers' environment cannot have a variable of this name or value.
    #[error("the workers' environment cannot have the variable {name:?}: {why}")]
    Variable {
        /// Name of the variable.
        name: String,
        /// Reason.
        why: &'static str,
    },
    /// The stack size is out of range or not a number.
    #[error(
        "{from} asks for a stack of {value:?} bytes; ask for a number of bytes from {STACK_BYTES_LEAST} to \
         {STACK_BYTES_MAX}"
    )]
    StackSize {
        /// Setting or variable that holds the value.
        from: &'static str,
        /// Value as given.
        value: String,
    },
    /// An environment variable of this program is malformed.
    #[error("{variable} is {value:?}, which {why}; set it anew, or unset it")]
    Environment {
        /// Name of the variable.
        variable: &'static str,
        /// Value; bytes that are not UTF-8 are replaced.
        value: String,
        /// Reason.
        why: &'static str,
    },
    /// The address of the cluster's head is malformed or does not resolve.
    #[error(
        "{address:?} is no address of a cluster: {why}; give host:port, as `roadshow start --head` printed it"
    )]
    Address {
        /// Address as given.
        address: String,
        /// Reason.
        why: String,
    },
    /// No token for the cluster was found.
    #[error(
        "no token for the cluster at {address}; set ROADSHOW_TOKEN to what `roadshow start --head` printed, or \
         ROADSHOW_TOKEN_FILE to a file that has it"
    )]
    NoToken {
        /// Address of the head.
        address: SocketAddr,
    },
    /// A node that runs jobs as other users has already admitted this program once, as its job's driver.
    #[error(
        "this program was submitted to a node that runs jobs as other users, which admits it to its first cluster \
         only; join no second cluster, and start no program that joins one, or set ROADSHOW_TOKEN_FILE to a file with \
         the token"
    )]
    OneCluster,
    /// The token is malformed or cannot be read.
    #[error("the token in {from}: {why}")]
    Token {
        /// Variable or file that holds the token.
        from: String,
        /// Reason.
        why: String,
    },
    /// The head rejects this program, or cannot be reached.
    #[error(transparent)]
    Enrol(#[from] TokenRpcError),
    /// The head did not accept the job.
    #[error("the cluster at {address} did not take the job: {why}")]
    Head {
        /// Address of the head.
        address: String,
        /// Reason.
        why: String,
    },
    /// The cluster has no node that accepts work.
    #[error(
        "the cluster at {address} has no node that takes work; start one with `roadshow start --address={address}`"
    )]
    NoNodes {
        /// Address of the head.
        address: SocketAddr,
    },
    /// No node of the cluster can run this program.
    #[error("no node of the cluster can run this program: {why}")]
    NotProvisioned {
        /// Reason, for one of the nodes.
        why: String,
    },
    /// This program's own executable cannot be read, so it cannot be sent to the nodes.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// The program would run its own `main` again in every worker.
    #[error(
        "this program has no entry point for workers; put #[roadshow::main] on main, call roadshow::run_if_worker() \
         first in it, or put roadshow::worker_test!() beside tests"
    )]
    NoWorkerEntry,
    /// A set-up function of the program panicked in a worker.
    #[error("the worker_setup! in line {line} of {module} panicked: {text}")]
    Setup {
        /// Module that registered the function.
        module: &'static str,
        /// Line of the registration.
        line: u32,
        /// Panic message.
        text: String,
    },
    /// The operating system did not start a worker process.
    #[error("cannot start a worker process")]
    Start {
        /// Error of the operating system, with the limit that was reached.
        source: io::Error,
    },
    /// A worker process ended or failed before it was ready.
    #[error("worker process {pid} did not get ready: {cause}")]
    Worker {
        /// Process id.
        pid: u32,
        /// Exit status, or the worker's own report.
        cause: String,
    },
    /// A worker process was not ready in time.
    #[error("worker process {pid} was not ready within {limit:?}")]
    WorkerStartTimeout {
        /// Process id.
        pid: u32,
        /// Time limit.
        limit: Duration,
    },
    /// The driver's own host cannot start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A worker could not be sent the list of the cluster's members.
    #[error("worker process {pid} could not be sent the cluster's members")]
    Introduce {
        /// Process id.
        pid: u32,
        /// Reason.
        source: SendError,
    },
    /// Worker processes did not end in time after a stop request.
    #[error("worker processes {pids:?} did not end within {limit:?} and were killed")]
    WorkerKilled {
        /// Process ids.
        pids: Vec<u32>,
        /// Time limit.
        limit: Duration,
    },
    /// Worker threads of this process did not end in time after a stop request.
    #[error(
        "workers {hosts:?} did not end within {limit:?}: a handler or task still computes; their threads end after it"
    )]
    WorkerBusy {
        /// Hosts of the workers' actors.
        hosts: Vec<HostUid>,
        /// Time limit.
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
