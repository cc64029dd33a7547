//! Change of the configuration: seal, read, copy, complete, activate.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::{
    Active, Refusal, Refused, StateLog, Store, StoreError, StoreShared, Warnings, snapshot_parts, unexpected,
};
use crate::config::STATE_RETRY_DELAY;
use crate::durable::protocol::{PackedRecords, Position, Replaced, StatePage, StateReply, StateRequest};
use crate::observe::log;
use crate::spec::{HolderAddress, HolderId, HolderPlan};

/// Failed change of the configuration.
pub(super) enum Unestablished {
    Final(StoreError),
    /// Without these holders it may succeed.
    Without(Vec<HolderId>, String),
}

impl From<StoreError> for Unestablished {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

impl Store {
    /// Seals the plan's holders, brings all of them to the same content, and has the configuration activated.
    ///
    /// Returns the content if it is new, or was read.
    pub(super) async fn establish(
        &self,
        plan: &HolderPlan,
        created: Option<StateLog>,
        reads: bool,
    ) -> Result<Option<StateLog>, Unestablished> {
        let sealed = self.seal(plan).await?;
        let silent: Vec<_> =
            plan.holders.iter().map(|it| it.holder).filter(|it| !sealed.contains_key(it)).collect();
        if !silent.is_empty() {
            return Err(Unestablished::Without(silent, "a new holder does not answer".to_owned()));
        }
        let (position, mut log) = match (plan.is_first, created) {
            (true, created) => (Position::default(), created),
            (false, _) => {
                let (source, position) = best_source(plan, &sealed).ok_or_else(|| {
                    Unestablished::Without(Vec::new(), "no holder that has the state answers".to_owned())
                })?;
                let is_copied = plan.holders.iter().any(|it| sealed.get(&it.holder) != Some(&position));
                let log = match reads || is_copied {
                    true => Some(self.read(plan, source).await?),
                    false => None,
                };
                (position, log)
            }
        };
        if let Some(log) = &log {
            let copying = plan.holders.iter().map(|to| {
                let there = sealed.get(&to.holder).copied().unwrap_or_default();
                async move {
                    match !plan.is_first && there == position {
                        true => Ok(()),
                        false => self.copy(plan, *to, there, position, log).await,
                    }
                }
            });
            join_all(copying).await.into_iter().collect::<Result<(), _>>()?;
        }
        let next = log.as_ref().map_or(position.next, StateLog::next);
        self.activate(plan, next).await?;
        if !reads {
            log = None;
        }
        Ok(log)
    }

    /// Seals the plan's holders, and sources until one has answered. Returns the positions of those that have.
    async fn seal(&self, plan: &HolderPlan) -> Result<BTreeMap<HolderId, Position>, StoreError> {
        let addresses: BTreeMap<_, _> =
            plan.sources.iter().chain(&plan.holders).map(|address| (address.holder, *address)).collect();
        let sealing = addresses.into_values().map(|address| async move {
            let seal = StateRequest::Seal { key: plan.key, number: plan.number };
            (address.holder, self.request(address, seal).await)
        });
        let mut sealing: FuturesUnordered<_> = sealing.collect();
        let mut unanswered: Vec<_> = plan.holders.iter().map(|address| address.holder).collect();
        let mut positions = BTreeMap::new();
        while let Some((holder, sealed)) = sealing.next().await {
            unanswered.retain(|it| *it != holder);
            match sealed {
                Ok(StateReply::Sealed(position)) => drop(positions.insert(holder, position)),
                Err(Refusal::Final(error)) => return Err(error),
                Ok(_) | Err(Refusal::Full(_) | Refusal::Silent(_)) => {}
            }
            // One source has everything. The others may be on lost nodes, and are not waited for.
            if unanswered.is_empty() && (plan.is_first || best_source(plan, &positions).is_some()) {
                break;
            }
        }
        Ok(positions)
    }

    /// Reads the whole state from a holder.
    async fn read(&self, plan: &HolderPlan, from: HolderAddress) -> Result<StateLog, Unestablished> {
        let mut log = StateLog { snapshot: Vec::new(), first: 0, records: Vec::new() };
        let bytes_max = self.group_bytes_max() as u64;
        let mut position = Some(0);
        while let Some(at) = position {
            let request = StateRequest::Read { key: plan.key, number: plan.number, position: at, bytes_max };
            let page = match self.request(from, request).await {
                Ok(StateReply::Page(page)) => page,
                Ok(_) => return Err(unexpected().into()),
                Err(Refusal::Final(error)) => return Err(error.into()),
                Err(Refusal::Full(reason) | Refusal::Silent(reason)) => {
                    return Err(Unestablished::Without(vec![from.holder], reason));
                }
            };
            let StatePage { snapshot, first, records, next } = page;
            log.snapshot.extend(snapshot.into_iter().map(Bytes::from));
            if log.records.is_empty() {
                log.first = first;
            }
            log.records.extend(records.unpack().ok_or_else(unexpected)?);
            position = next;
        }
        Ok(log)
    }

    /// Brings a holder to the content of the source, which is at `position`.
    async fn copy(
        &self,
        plan: &HolderPlan,
        to: HolderAddress,
        there: Position,
        position: Position,
        log: &StateLog,
    ) -> Result<(), Unestablished> {
        let (key, number) = (plan.key, plan.number);
        // Copies of one configuration differ in their last records at most.
        let is_prefix = there.complete_in > 0
            && there.complete_in == position.complete_in
            && (log.first..=position.next).contains(&there.next);
        let from = if is_prefix { there.next } else { log.first };
        if !is_prefix {
            for part in snapshot_parts(log.first, &log.snapshot, Replaced::All) {
                self.send(to, StateRequest::Snapshot { key, number, part }).await?;
            }
        }
        let missing = usize::try_from(from - log.first).unwrap_or(usize::MAX);
        let mut records = log.records.get(missing..).unwrap_or_default();
        let mut first = from;
        while !records.is_empty() {
            let mut bytes = 0;
            let count = records.iter().take_while(|record| {
                bytes += record.len();
                bytes <= self.group_bytes_max()
            });
            let (group, rest) = records.split_at(count.count().max(1));
            let packed = PackedRecords::pack(group);
            self.send(to, StateRequest::Append { key, number, first, records: packed }).await?;
            first += group.len() as u64;
            records = rest;
        }
        Ok(())
    }

    /// Marks all copies as complete, and has the configuration activated.
    async fn activate(&self, plan: &HolderPlan, next: u64) -> Result<(), Unestablished> {
        let (key, number) = (plan.key, plan.number);
        let complete = || StateRequest::Complete { key, number, next };
        match self.on_all(&plan.holders, complete).await {
            Ok(()) => {}
            Err(Refused::Final(error)) => return Err(error.into()),
            Err(Refused::Full(reason)) => return Err(Unestablished::Without(Vec::new(), reason)),
            Err(Refused::Silent(holders, reason)) => return Err(Unestablished::Without(holders, reason)),
        }
        let StoreShared { host, actor, incarnation, .. } = &*self.shared;
        let mut warnings = Warnings::default();
        loop {
            let placement = host.placement().ok_or(StoreError::Closing)?;
            match placement.activate_holders(host, *actor, *incarnation, number).await {
                Ok(()) => break,
                Err(error) => self.check_control(&error)?,
            }
            .warn(&mut warnings, *actor);
            tokio::time::sleep(STATE_RETRY_DELAY).await;
        }
        let HolderPlan { holders, is_complete, .. } = plan.clone();
        let (had, has) = (self.is_complete(), holders.len());
        *self.shared.active.lock() = Some(Active { key, number, holders, is_complete });
        match (had, is_complete) {
            (true, false) => {
                log::warn!(%actor, copies = has, "a state has too few copies; it waits for a node")
            }
            (false, true) => log::info!(%actor, copies = has, "a state has all of its copies again"),
            _ => {}
        }
        Ok(())
    }

    /// Sends a holder of a plan a request that it must carry out.
    async fn send(&self, to: HolderAddress, request: StateRequest) -> Result<(), Unestablished> {
        match self.request(to, request).await {
            Ok(_) => Ok(()),
            Err(Refusal::Final(error)) => Err(error.into()),
            Err(Refusal::Full(reason) | Refusal::Silent(reason)) => {
                Err(Unestablished::Without(vec![to.holder], reason))
            }
        }
    }
}

/// Source with the most records. Any source has all that was acknowledged.
fn best_source(
    plan: &HolderPlan,
    sealed: &BTreeMap<HolderId, Position>,
) -> Option<(HolderAddress, Position)> {
    plan.sources
        .iter()
        .filter_map(|source| Some((*source, *sealed.get(&source.holder)?)))
        .filter(|(_, position)| position.complete_in > 0)
        .max_by_key(|(_, position)| *position)
}
