//! Route of a process to the current incarnation of the head.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ControlRequest;

use crate::cluster::control_plane::state::{Answer, ControlError};
use crate::cluster::control_service::HeadHandle;
use crate::cluster::model::JobId;
use crate::host::{Host, PlacementError, SendError};
use crate::lock::RwLock;

/// The way to the head, as it is by now; none before the first is known.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct HeadRoute {
    pub(in crate::cluster) access: Arc<RwLock<Option<HeadConnection>>>,
    /// How many places this host has asked for.
    pub(in crate::cluster) next_request_id: Arc<AtomicU64>,
}

/// The way to one life of the head.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct HeadConnection {
    pub(in crate::cluster) head: HeadHandle,
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) places_all: bool,
}

impl HeadRoute {
    pub(in crate::cluster) fn access(&self) -> Result<HeadConnection, PlacementError> {
        let access = self.access.read();
        access.clone().ok_or(PlacementError::NoWorker)
    }

    /// Asks the head, and the one that has taken its place meanwhile if it had not heard the question. One
    /// that may be heard twice is repeated in any case.
    pub(in crate::cluster) async fn ask(
        self,
        host: Host,
        question: impl Fn(JobId) -> ControlRequest,
        may_repeat: bool,
    ) -> Result<Answer, PlacementError> {
        loop {
            let access = self.access()?;
            let asked = access.head.clone().ask(host.clone(), question(access.job)).await;
            let lost = asked.as_ref().is_err_and(|error| may_repeat || error.is_not_delivered());
            // Who asked an earlier life is told when the present one becomes known.
            if !(lost && self.access()?.head.differs_from(&access.head)) {
                return answer(asked);
            }
        }
    }
}

pub(in crate::cluster) fn answer(
    asked: Result<Result<Answer, ControlError>, SendError>,
) -> Result<Answer, PlacementError> {
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(denied)) => Err(match denied {
            ControlError::Infeasible(text) => PlacementError::Infeasible { text },
            ControlError::NameTaken(text) => PlacementError::NameTaken { text },
            ControlError::Unknown(text) => PlacementError::Unknown { text },
            ControlError::JobEnded(text) => PlacementError::JobEnded { text },
            denied @ ControlError::NotPersisted(_) => {
                PlacementError::NotPersisted { text: denied.to_string() }
            }
        }),
        Err(error) => Err(PlacementError::Head { text: error.to_string() }),
    }
}
