//! Holders of one actor's state, as its present incarnation uses them: configurations, appends, snapshots.
//!
//! ```text
//!   propose (control plane: persisted) -> seal -> read from one source -> copy to the others -> complete
//!     -> activate (control plane: persisted) -> append ...
//!          '<------ a holder does not answer, or there are too few copies
//! ```
//! Appends go to all holders, and count as stored when all have them. A change of the configuration that has begun is
//! carried through: a sealed holder refuses the appends of the configuration before it.
//!
//! | file | contents |
//! |---|---|
//! | `mod` | requests of the actor, and single requests to holders |
//! | `establish` | the steps from a proposed configuration to an active one |

mod establish;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use thiserror::Error;

use establish::Unestablished;

use super::journal::Group;
use super::protocol::{
    PackedRecords, Replaced, STATE, SnapshotPart, StateError, StateReply, StateRequest, StateResult,
};
use crate::config::{STATE_GROUP_BYTES_MAX, STATE_HOLDER_TIMEOUT, STATE_RECORD_BYTES_MAX, STATE_RETRY_DELAY};
use crate::host::{Host, PlacementError};
use crate::id::{ActorIncarnation, Target};
use crate::lock::Mutex;
use crate::observe::log;
use crate::remote::call_service;
use crate::spec::{ActorKey, Copies, HolderAddress, HolderId, HolderPlan, HolderRequest, StateKey};

/// Holders of an actor's state.
#[derive(Clone, Debug)]
pub(super) struct Store {
    shared: Arc<StoreShared>,
}

#[derive(Debug)]
struct StoreShared {
    host: Host,
    actor: ActorKey,
    incarnation: ActorIncarnation,
    copies: Copies,
    active: Mutex<Option<Active>>,
}

/// Active configuration.
#[derive(Clone, Debug)]
struct Active {
    key: StateKey,
    number: u64,
    holders: Vec<HolderAddress>,
    is_complete: bool,
}

/// Content of a state: a snapshot in parts, and the records after it.
#[derive(Clone, Debug)]
pub(super) struct StateLog {
    pub(super) snapshot: Vec<Bytes>,
    /// Number of the first record.
    pub(super) first: u64,
    pub(super) records: Vec<Bytes>,
}

impl StateLog {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// Reason why an incarnation cannot go on with its state.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    /// Its state belongs to a later incarnation, or is gone.
    #[error("a later incarnation of the actor has its state")]
    Fenced,
    /// The state cannot be read or written.
    #[error("its state is not available: {0}")]
    Failed(String),
    /// This process ends.
    #[error("its host is shutting down")]
    Closing,
}

/// Outcome of a request that a holder has not carried out.
enum Refusal {
    Final(StoreError),
    /// There is no room now.
    Full(String),
    /// No answer.
    Silent(String),
}

/// Shortest time between two warnings about the same state.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Warnings about a state that cannot be stored now, of which most are left out.
#[derive(Default)]
struct Warnings(Option<Instant>);

impl Warnings {
    fn warn(&mut self, actor: ActorKey, reason: &str) {
        if self.0.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            log::warn!(%actor, reason, "the state of an actor cannot be stored; its callers wait");
            self.0 = Some(Instant::now());
        }
    }
}

impl Store {
    pub(super) fn new(host: Host, actor: ActorKey, incarnation: ActorIncarnation, copies: Copies) -> Self {
        let active = Mutex::new(None);
        Self { shared: Arc::new(StoreShared { host, actor, incarnation, copies, active }) }
    }

    pub(super) fn host(&self) -> &Host {
        &self.shared.host
    }

    pub(super) fn actor(&self) -> ActorKey {
        self.shared.actor
    }

    /// Maximum size of a record, in bytes. Two fit into a frame, with what is around them.
    pub(super) fn record_bytes_max(&self) -> usize {
        STATE_RECORD_BYTES_MAX.min(self.host().limits().frame_bytes_max / 2)
    }

    /// Maximum size of a group of records, and of a part of a snapshot, in bytes.
    pub(super) fn group_bytes_max(&self) -> usize {
        STATE_GROUP_BYTES_MAX.min(self.host().limits().frame_bytes_max / 4)
    }

    /// True if there are as many copies as the actor wants.
    pub(super) fn is_complete(&self) -> bool {
        self.shared.active.lock().as_ref().is_none_or(|active| active.is_complete)
    }

    /// Begins this incarnation's use of the state. `create` makes the content of a new one.
    pub(super) async fn open(
        &self,
        create: impl FnOnce() -> Result<Vec<Bytes>, String>,
    ) -> Result<StateLog, StoreError> {
        let (mut create, mut created) = (Some(create), None);
        let (mut suspects, mut warnings) = (Vec::new(), Warnings::default());
        loop {
            let Some(plan) = self.propose(&mut suspects, false).await? else {
                return Err(StoreError::Failed("the control plane proposed no holders".to_owned()));
            };
            if let Some(create) = create.take_if(|_| plan.is_first) {
                let snapshot = create().map_err(StoreError::Failed)?;
                created = Some(StateLog { snapshot, first: 0, records: Vec::new() });
            }
            match self.establish(&plan, created.clone(), true).await {
                Ok(Some(log)) => return Ok(log),
                Ok(None) => return Err(StoreError::Failed("no holder has the state".to_owned())),
                Err(Unestablished::Final(error)) => return Err(error),
                Err(Unestablished::Without(holders, reason)) => {
                    warnings.warn(self.actor(), &reason);
                    suspects.extend(holders);
                    tokio::time::sleep(STATE_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Stores a group on all holders. Those that do not answer are replaced.
    pub(super) async fn append(self, group: Group) -> Result<(), StoreError> {
        let records = PackedRecords::pack(&group.records);
        let mut warnings = Warnings::default();
        loop {
            let Some(Active { key, number, holders, .. }) = self.active() else {
                return Err(StoreError::Closing);
            };
            let append = || {
                let (first, records) = (group.first, records.clone());
                StateRequest::Append { key, number, first, records }
            };
            let stored = self.on_all(&holders, append).await;
            match stored {
                Ok(()) => return Ok(()),
                Err(Refused::Final(error)) => return Err(error),
                Err(Refused::Full(reason)) => {
                    warnings.warn(self.actor(), &reason);
                    tokio::time::sleep(STATE_RETRY_DELAY).await;
                }
                Err(Refused::Silent(suspects, reason)) => {
                    log::warn!(actor = %self.actor(), reason, "a holder of a state does not answer");
                    self.reconfigure(suspects, false).await?;
                }
            }
        }
    }

    /// Stores a snapshot of the state before the record `up_to`. A snapshot that a change of the configuration has
    /// overtaken is dropped.
    pub(super) async fn snapshot(self, up_to: u64, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let Some(Active { key, number, holders, .. }) = self.active() else {
            return Err(StoreError::Closing);
        };
        for part in snapshot_parts(up_to, &parts, Replaced::Earlier) {
            let request = || StateRequest::Snapshot { key, number, part: part.clone() };
            match self.on_all(&holders, request).await {
                Ok(()) => {}
                // By a change of the configuration. If a later incarnation made it, the next append ends this one.
                Err(Refused::Final(StoreError::Fenced)) => return Ok(()),
                Err(Refused::Final(error)) => return Err(error),
                // The log goes on, and the next snapshot replaces it.
                Err(Refused::Full(reason) | Refused::Silent(_, reason)) => {
                    log::debug!(actor = %self.actor(), reason, "a snapshot is dropped");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Checks whether there are nodes for all copies. Nothing waits for it: the head may be away.
    pub(super) async fn can_repair(self) -> bool {
        let StoreShared { host, copies, .. } = &*self.shared;
        let Some(placement) = host.placement() else { return false };
        placement.check_holders(host, Copies { is_required: true, ..*copies }).await.is_ok()
    }

    /// Adds a holder to a state that has too few, if that is possible.
    pub(super) async fn repair(self) -> Result<(), StoreError> {
        self.reconfigure(Vec::new(), true).await
    }

    /// Changes the configuration, without the suspects if that is possible.
    async fn reconfigure(
        &self,
        mut suspects: Vec<HolderId>,
        mut only_if_better: bool,
    ) -> Result<(), StoreError> {
        let mut warnings = Warnings::default();
        loop {
            let Some(plan) = self.propose(&mut suspects, only_if_better).await? else { return Ok(()) };
            // Holders may be sealed from here on, so another configuration must follow even if it is no better.
            only_if_better = false;
            match self.establish(&plan, None, false).await {
                Ok(_) => return Ok(()),
                Err(Unestablished::Final(error)) => return Err(error),
                Err(Unestablished::Without(holders, reason)) => {
                    warnings.warn(self.actor(), &reason);
                    suspects.extend(holders);
                    tokio::time::sleep(STATE_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Requests the next configuration, until there is one.
    async fn propose(
        &self,
        suspects: &mut Vec<HolderId>,
        only_if_better: bool,
    ) -> Result<Option<HolderPlan>, StoreError> {
        let StoreShared { host, actor, incarnation, copies, .. } = &*self.shared;
        let mut warnings = Warnings::default();
        loop {
            let placement = host.placement().ok_or(StoreError::Closing)?;
            let request = HolderRequest {
                actor: *actor,
                incarnation: *incarnation,
                copies: *copies,
                suspects: suspects.clone(),
                only_if_better,
            };
            match placement.propose_holders(host, request).await {
                Ok(plan) => return Ok(plan),
                Err(error) => self.check_control(&error)?,
            }
            .warn(&mut warnings, *actor);
            // A suspect may be the only one left, and may answer by now.
            suspects.clear();
            tokio::time::sleep(STATE_RETRY_DELAY).await;
        }
    }

    /// Sends all holders a request, and waits for all of them.
    async fn on_all(
        &self,
        holders: &[HolderAddress],
        request: impl Fn() -> StateRequest,
    ) -> Result<(), Refused> {
        let answers = join_all(holders.iter().map(|holder| self.request(*holder, request()))).await;
        let (mut full, mut silent) = (None, None::<(Vec<_>, _)>);
        for (holder, answer) in holders.iter().zip(answers) {
            match answer {
                Ok(_) => {}
                Err(Refusal::Final(error)) => return Err(Refused::Final(error)),
                Err(Refusal::Full(reason)) => full = Some(reason),
                Err(Refusal::Silent(reason)) => {
                    silent.get_or_insert_with(|| (Vec::new(), reason)).0.push(holder.holder);
                }
            }
        }
        match (silent, full) {
            (None, None) => Ok(()),
            (Some((holders, reason)), _) => Err(Refused::Silent(holders, reason)),
            (None, Some(reason)) => Err(Refused::Full(reason)),
        }
    }

    /// Sends a holder a request once.
    async fn request(&self, to: HolderAddress, mut request: StateRequest) -> Result<StateReply, Refusal> {
        let host = &self.shared.host;
        let deadline = Some(tokio::time::Instant::now().into_std() + STATE_HOLDER_TIMEOUT);
        let answer = call_service(host, to.host, Target::HOST, STATE, &mut request, deadline).await;
        match answer {
            Ok(StateResult::Ok(reply)) => Ok(reply),
            Ok(Err(StateError::Fenced)) => Err(Refusal::Final(StoreError::Fenced)),
            Ok(Err(StateError::Failed { text })) => Err(Refusal::Final(StoreError::Failed(text))),
            Ok(Err(StateError::Full { text })) => Err(Refusal::Full(text)),
            Err(_) if host.is_closing() => Err(Refusal::Final(StoreError::Closing)),
            Err(error) => Err(Refusal::Silent(format!("holder {}: {error}", to.holder))),
        }
    }

    /// Checks an error of the control plane: `Err` if it is final, otherwise the reason for another attempt.
    fn check_control(&self, error: &PlacementError) -> Result<Reason, StoreError> {
        match error {
            // It is not the present incarnation, or the actor has ended.
            PlacementError::Unknown { .. } => Err(StoreError::Fenced),
            PlacementError::JobEnded { .. } | PlacementError::NoWorker => Err(StoreError::Closing),
            _ if self.shared.host.is_closing() => Err(StoreError::Closing),
            error => Ok(Reason(error.to_string())),
        }
    }

    fn active(&self) -> Option<Active> {
        self.shared.active.lock().clone()
    }
}

/// Reason why a request to the control plane is repeated.
struct Reason(String);

impl Reason {
    fn warn(&self, warnings: &mut Warnings, actor: ActorKey) {
        warnings.warn(actor, &self.0);
    }
}

/// Outcome of a request to all holders that not all have carried out.
enum Refused {
    Final(StoreError),
    Full(String),
    /// No answer of these holders.
    Silent(Vec<HolderId>, String),
}

fn snapshot_parts(
    up_to: u64,
    parts: &[Bytes],
    replaces: Replaced,
) -> impl Iterator<Item = SnapshotPart> + '_ {
    let count = parts.len();
    (0..).zip(parts).map(move |(index, bytes)| SnapshotPart {
        up_to,
        index,
        is_last: index as usize + 1 == count,
        replaces,
        bytes: bytes.clone().into(),
    })
}

fn unexpected() -> StoreError {
    StoreError::Failed("its holder sent an unexpected reply".to_owned())
}

#[cfg(test)]
mod tests;
