//! Output of workers, sent by agents to the driver.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{JobId, NodeId};
use crate::id::TypeHash;

/// Service of drivers that receives the output of workers.
pub(in crate::cluster) const OUTPUT: TypeHash = TypeHash::of("roadshow::Output");

/// Service of agents that flushes pending output to the driver.
pub(in crate::cluster) const FLUSH: TypeHash = TypeHash::of("roadshow::Flush");

/// Lines that a worker has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OutputLines {
    pub(in crate::cluster) pid: u32,
    pub(in crate::cluster) node: NodeId,
    /// Label of the worker: the type name of its actors, or `worker`.
    pub(in crate::cluster) label: String,
    pub(in crate::cluster) stream: Stream,
    pub(in crate::cluster) lines: Vec<String>,
    /// Text after the last line break.
    pub(in crate::cluster) unfinished: Option<String>,
}

/// Request to send all pending output of a job. Answered once the driver has received it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct Flush {
    pub(in crate::cluster) job: JobId,
}

/// Output stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}
