//! Route of a process to the current incarnation of the head.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::ControlRequest;
use crate::cluster::control_plane::state::{ControlError, ControlReply};
use crate::cluster::control_service::HeadHandle;
use crate::cluster::model::JobId;
use crate::host::{Host, PlacementError, SendError};
use crate::lock::RwLock;

/// Shared route to the head; empty until the first head is known.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct HeadRoute {
    pub(in crate::cluster) connection: Arc<RwLock<Option<HeadConnection>>>,
    /// Number of the next placement request of this host.
    pub(in crate::cluster) next_request_id: Arc<AtomicU64>,
    pub(in crate::cluster) job_over: Arc<JobOver>,
}

/// Reason why the job is over, once it is: no head answers its requests any more.
#[derive(Debug, Default)]
pub(in crate::cluster) struct JobOver {
    why: OnceLock<String>,
    /// Wakes those who wait, in the order of their waits. A `watch` wakes them in a random one.
    token: CancellationToken,
}

/// Connection to one incarnation of the head.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct HeadConnection {
    pub(in crate::cluster) head: HeadHandle,
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) tracks_all_actors: bool,
}

impl HeadRoute {
    /// Current connection, or an error if no head is known yet.
    pub(in crate::cluster) fn connection(&self) -> Result<HeadConnection, PlacementError> {
        let connection = self.connection.read();
        connection.clone().ok_or(PlacementError::NoWorker)
    }

    /// Fails the open requests, and all later ones: the job is over.
    pub(in crate::cluster) fn end_job(&self, why: &str) {
        // The first reason stands.
        let _ = self.job_over.why.set(why.to_owned());
        self.job_over.token.cancel();
    }

    /// Waits for the end of the job.
    async fn until_over(&self) -> PlacementError {
        self.job_over.token.cancelled().await;
        let why = self.job_over.why.get().map(String::as_str).unwrap_or_default();
        PlacementError::JobEnded { text: format!("the job is over: {why}") }
    }

    /// Sends a request, and repeats it to a new incarnation of the head. It fails when the job is over.
    ///
    /// A request is repeated if the old incarnation has not received it, or if `may_repeat` allows it to be
    /// handled twice.
    pub(in crate::cluster) async fn ask(
        self,
        host: Host,
        request: impl Fn(JobId) -> ControlRequest,
        may_repeat: bool,
    ) -> Result<ControlReply, PlacementError> {
        tokio::select! {
            biased;
            reply = self.ask_head(host, request, may_repeat) => reply,
            over = self.until_over() => Err(over),
        }
    }

    async fn ask_head(
        &self,
        host: Host,
        request: impl Fn(JobId) -> ControlRequest,
        may_repeat: bool,
    ) -> Result<ControlReply, PlacementError> {
        loop {
            // Read again in each round: another incarnation of the head may have become known since.
            let connection = self.connection()?;
            let reply = connection.head.clone().ask(host.clone(), request(connection.job)).await;
            let is_lost = reply.as_ref().is_err_and(|error| may_repeat || error.is_not_delivered());
            // A request to an earlier incarnation fails once the present one becomes known; only then is a
            // repetition useful.
            if !(is_lost && self.connection()?.head.differs_from(&connection.head)) {
                return placement_reply(reply);
            }
        }
    }
}

/// Maps the reply to the error that users see.
fn placement_reply(
    reply: Result<Result<ControlReply, ControlError>, SendError>,
) -> Result<ControlReply, PlacementError> {
    match reply {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(match error {
            ControlError::Infeasible(text) => PlacementError::Infeasible { text },
            ControlError::NameTaken(text) => PlacementError::NameTaken { text },
            ControlError::Unknown(text) => PlacementError::Unknown { text },
            ControlError::Refused(text) => PlacementError::Refused { text },
            ControlError::LowMemory(text) => PlacementError::LowMemory { text },
            ControlError::Panicked(text) => PlacementError::Panicked { text },
            ControlError::JobEnded(text) => PlacementError::JobEnded { text },
            error @ ControlError::NotPersisted(_) => PlacementError::NotPersisted { text: error.to_string() },
        }),
        Err(error) => Err(PlacementError::Head { text: error.to_string() }),
    }
}
