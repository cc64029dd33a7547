//! Requests of one incarnation to the holder of its state, repeated until they have an answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::journal::Group;
use super::protocol::{
    Durability, PackedRecords, STATE, StateError, StatePage, StateReply, StateRequest, StateResult,
};
use crate::config::STATE_RETRY_DELAY;
use crate::host::{Host, PlacementError};
use crate::id::{ActorIncarnation, HostUid, Target};
use crate::observe::log;
use crate::remote::call_service;
use crate::spec::ActorKey;

/// Holder of an actor's state, as the present incarnation reaches it.
#[derive(Clone, Debug)]
pub(super) struct Store {
    host: Host,
    holder: HostUid,
    actor: ActorKey,
    epoch: ActorIncarnation,
    durability: Durability,
}

/// Reason why an incarnation cannot go on with its state.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    /// Its state belongs to a later incarnation.
    #[error("a later incarnation of the actor has its state")]
    Fenced,
    /// The state cannot be read or written.
    #[error("its state is not available: {0}")]
    Failed(String),
    /// This process ends.
    #[error("its host is shutting down")]
    Closing,
}

/// Interval of warnings about a request that is repeated.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

impl Store {
    /// Finds the holder of an actor's state.
    pub(super) async fn find(
        host: Host,
        actor: ActorKey,
        epoch: ActorIncarnation,
        durability: Durability,
    ) -> Result<Self, StoreError> {
        let placement = host.placement().ok_or(PlacementError::NoWorker);
        let found = match placement {
            Ok(placement) => placement.state_holder(&host, Some(actor)).await,
            Err(error) => Err(error),
        };
        let holder = found.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { host, holder, actor, epoch, durability })
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn actor(&self) -> ActorKey {
        self.actor
    }

    /// Begins the epoch, and the reading of the state.
    pub(super) async fn open(&self) -> Result<StateReader<'_>, StoreError> {
        let (actor, epoch) = (self.actor, self.epoch);
        let page = self.page(&mut StateRequest::Open { actor, epoch }).await?;
        Ok(StateReader { store: self, first: page.first, page: Some(page) })
    }

    async fn page(&self, request: &mut StateRequest) -> Result<StatePage, StoreError> {
        match self.request(request).await? {
            StateReply::Page(page) => Ok(page),
            StateReply::Stored => Err(unexpected()),
        }
    }

    /// Stores a group.
    pub(super) async fn append(self, group: Group) -> Result<(), StoreError> {
        let Self { actor, epoch, durability, .. } = self;
        let records = PackedRecords::pack(&group.records);
        let mut request = StateRequest::Append { actor, epoch, first: group.first, records, durability };
        self.request(&mut request).await.map(drop)
    }

    /// Stores a snapshot of the state before the record `up_to`.
    pub(super) async fn snapshot(&self, up_to: u64, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let Self { actor, epoch, durability, .. } = *self;
        let count = parts.len();
        for (index, bytes) in parts.into_iter().enumerate() {
            let (part, is_last) = (index as u32, index + 1 == count);
            let bytes = bytes.into();
            let mut request =
                StateRequest::Snapshot { actor, epoch, up_to, part, bytes, is_last, durability };
            self.request(&mut request).await?;
        }
        Ok(())
    }

    /// Sends a request until the holder carries it out or refuses it for good.
    ///
    /// Requests may be repeated: an append that was carried out already has no effect.
    async fn request(&self, request: &mut StateRequest) -> Result<StateReply, StoreError> {
        let mut warned = None::<Instant>;
        loop {
            let sent = call_service(&self.host, self.holder, Target::HOST, STATE, request, None).await;
            let reason = match sent {
                Ok(StateResult::Ok(reply)) => return Ok(reply),
                Ok(Err(StateError::Fenced)) => return Err(StoreError::Fenced),
                Ok(Err(StateError::Failed { text })) => return Err(StoreError::Failed(text)),
                Ok(Err(StateError::Full { text })) => text,
                Err(_) if self.host.is_closing() => return Err(StoreError::Closing),
                Err(error) => error.to_string(),
            };
            if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                log::warn!(actor = %self.actor, reason, "the state of an actor cannot be stored; its callers wait");
                warned = Some(Instant::now());
            }
            tokio::time::sleep(STATE_RETRY_DELAY).await;
        }
    }
}

/// Pages of a state, in order.
pub(super) struct StateReader<'a> {
    store: &'a Store,
    /// Number of the first record.
    first: u64,
    /// Page that is not consumed.
    page: Option<StatePage>,
}

impl StateReader<'_> {
    /// Reads the parts of the snapshot; none if the actor has no state yet.
    pub(super) async fn take_snapshot(&mut self) -> Result<Vec<Bytes>, StoreError> {
        let mut parts = Vec::new();
        while let Some(page) = &mut self.page {
            parts.extend(page.snapshot.drain(..).map(Bytes::from));
            if !page.records.is_empty() || page.next.is_none() {
                // The first records follow on the page of the last part, or on the next one.
                self.first = page.first;
                break;
            }
            self.advance().await?;
        }
        Ok(parts)
    }

    /// Number of the first record after the snapshot.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Records of the next page; `None` after the last one.
    pub(super) async fn next_records(&mut self) -> Result<Option<Vec<Bytes>>, StoreError> {
        let Some(page) = &mut self.page else { return Ok(None) };
        let records = std::mem::take(&mut page.records).unpack().ok_or_else(unexpected)?;
        self.advance().await?;
        Ok(Some(records))
    }

    async fn advance(&mut self) -> Result<(), StoreError> {
        let Store { actor, epoch, .. } = *self.store;
        self.page = match self.page.take().and_then(|page| page.next) {
            Some(position) => {
                Some(self.store.page(&mut StateRequest::Read { actor, epoch, position }).await?)
            }
            None => None,
        };
        Ok(())
    }
}

fn unexpected() -> StoreError {
    StoreError::Failed("its holder sent an unexpected reply".to_owned())
}
