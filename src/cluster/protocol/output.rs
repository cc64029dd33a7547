//! Output of workers, sent by agents to the driver.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{JobId, NodeId};
use crate::id::TypeHash;

/// What agents send to drivers: what workers write.
pub(in crate::cluster) const OUTPUT: TypeHash = TypeHash::of("roadshow::Output");

/// What drivers ask of agents: that they are sent what their workers have written by now.
pub(in crate::cluster) const FLUSH: TypeHash = TypeHash::of("roadshow::Flush");

/// Output of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(in crate::cluster) pid: u32,
    pub(in crate::cluster) node: NodeId,
    /// What lives in the worker: the name of a type of actors, or `worker`.
    pub(in crate::cluster) label: String,
    pub(in crate::cluster) stream: Stream,
    pub(in crate::cluster) lines: Vec<String>,
    /// The line behind them that has no end yet, as it stands.
    pub(in crate::cluster) unfinished: Option<String>,
}

/// A driver's request for the output of its job. It is answered when the driver has been sent all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct Flush {
    pub(in crate::cluster) job: JobId,
}

/// Which of a process's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Err,
}
