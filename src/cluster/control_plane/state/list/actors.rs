//! List of actors.

use super::cursor::Position;
use super::reference::RowReference;
use super::{ClusterState, Listed, Reasons};
use crate::cluster::control_plane::state::actor::{Actor, ActorPhase};
use crate::cluster::control_plane::state::history::ActorRecord;
use crate::cluster::listing::Value;
use crate::cluster::model::{ActorInfo, ActorKey, ActorState, Lifetime, NodeId, WorkerId};
use crate::config::LIST_MEANT_MAX;

/// Actor at a position, alive or ended.
#[derive(Clone, Copy)]
struct ActorRow<'a> {
    key: ActorKey,
    actor: &'a Actor,
    record: Option<&'a ActorRecord>,
}

impl<'a> ActorRow<'a> {
    fn of(state: &'a ClusterState, position: Position) -> Option<Self> {
        if position.has_ended {
            let record = state.history.actors.get(position.at)?;
            return Some(Self { key: record.key, actor: &record.actor, record: Some(record) });
        }
        let key = ActorKey(position.at);
        Some(Self { key, actor: state.actors.get(&key)?, record: None })
    }

    fn state(self, state: &ClusterState) -> ActorState {
        match self.record {
            Some(_) => ActorState::Dead,
            None => state.state_of(self.key, self.actor),
        }
    }

    /// Node, worker and process id of the actor.
    fn place(self, state: &ClusterState) -> (Option<NodeId>, Option<WorkerId>, Option<u32>) {
        if let Some(record) = self.record {
            let (node, worker, pid) = record
                .at
                .map_or((None, None, None), |(node, worker, pid)| (Some(node), Some(worker), Some(pid)));
            return (node, worker, pid);
        }
        let worker = self.actor.phase.worker();
        let pid = worker.and_then(|worker| state.workers.get(&worker)).map(|worker| worker.pid);
        (state.node_of(self.actor.phase), worker, pid)
    }

    fn started(self) -> Option<u64> {
        Some(self.actor.started.0).filter(|started| *started > 0)
    }

    fn ended(self) -> Option<u64> {
        self.record.map(|record| record.ended.0)
    }

    /// Numbers of messages handled, and in the mailbox.
    fn counts(self, state: &ClusterState) -> (Option<u64>, Option<u32>) {
        match self.record {
            Some(record) => (record.handled, None),
            None => state.actor_counts.get(&self.key).copied().unzip(),
        }
    }

    fn cause(self, state: &ClusterState, reasons: &mut Reasons) -> Option<String> {
        match self.record {
            Some(record) => Some(record.end.text.clone()),
            None => state.pending_reason(self.key, self.actor, reasons),
        }
    }

    fn namespace(self, state: &'a ClusterState) -> &'a str {
        let job_namespace = || state.jobs.get(&self.actor.job).map(|job| job.descriptor.namespace.as_str());
        let named = self.actor.named.as_ref().map(|named| named.namespace.as_str());
        named.or_else(job_namespace).unwrap_or_default()
    }

    fn restarts(self, state: &ClusterState) -> u32 {
        match self.record {
            Some(record) => record.restarts,
            None => state.managed.get(&self.key).map_or(0, |managed| managed.restarts),
        }
    }

    fn restart_cause(self, state: &ClusterState) -> Option<String> {
        let managed = state.managed.get(&self.key)?;
        managed.restart_cause.as_ref().map(|end| end.text.clone())
    }

    fn lifetime(self) -> Lifetime {
        if self.actor.detached { Lifetime::Detached } else { Lifetime::Job }
    }
}

impl Listed for ActorInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        let Position { has_ended, at, .. } = position;
        if has_ended {
            let ended = state.history.actors.numbered().rev().map(|(number, _)| number);
            return Box::new(ended.skip_while(move |number| *number >= at).map(Position::ended));
        }
        Box::new(state.actors.keys_before(ActorKey(at)).map(|key| Position::living(key.0)))
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some(at) = ActorRow::of(state, position) else { return Value::Nothing };
        match key {
            "actor_id" => Value::Id(at.key.0),
            "class" => Value::Text(state.classes.name(at.actor.class)),
            "state" => Value::Text(at.state(state).word()),
            "job_id" => Value::Id(at.actor.job.0.into()),
            "name" => Value::text(at.actor.named.as_ref().map(|named| named.name.as_str())),
            "namespace" => Value::Text(at.namespace(state)),
            "lifetime" => Value::Text(at.lifetime().word()),
            "node_id" => Value::id(at.place(state).0.map(|node| node.0)),
            "worker_id" => Value::id(at.place(state).1.map(|worker| worker.0)),
            "pid" => Value::numeric(at.place(state).2),
            "started_ms" => Value::numeric(at.started()),
            "ended_ms" => Value::numeric(at.ended()),
            "restarts" => Value::numeric(Some(at.restarts(state))),
            "restart_cause" => Value::made(at.restart_cause(state)),
            "handled" => Value::numeric(at.counts(state).0),
            "mailbox" => Value::numeric(at.counts(state).1),
            _ => Value::made(at.cause(state, &mut Reasons::default())),
        }
    }

    fn row(state: &ClusterState, position: Position, reasons: &mut Reasons) -> Option<Self> {
        let at = ActorRow::of(state, position)?;
        let (node_id, worker_id, pid) = at.place(state);
        let (handled, mailbox) = at.counts(state);
        Some(Self {
            actor_id: at.key,
            class: state.classes.name(at.actor.class).to_owned(),
            state: at.state(state),
            job_id: at.actor.job,
            name: at.actor.named.as_ref().map(|named| named.name.clone()),
            namespace: at.namespace(state).to_owned(),
            lifetime: at.lifetime(),
            resources: state.schedule.taken(at.actor.shape),
            node_id,
            worker_id,
            pid,
            started_ms: at.started(),
            ended_ms: at.ended(),
            restarts: at.restarts(state),
            restart_cause: at.restart_cause(state),
            handled,
            mailbox,
            cause: at.cause(state, reasons),
        })
    }

    fn matches(state: &ClusterState, text: &str) -> Vec<Position> {
        let reference = RowReference::new(text, 16);
        let by_id = reference.id.map(ActorKey).filter(|key| state.actors.contains_key(key));
        // Alive actors may be a million, so they are found through indexes. The history is bounded and is
        // scanned.
        let by_name = state.names.owners(text);
        let by_prefix = reference.ids.clone().into_iter().flat_map(|ids| {
            state.actors.within(ActorKey(*ids.start())..=ActorKey(*ids.end())).take(LIST_MEANT_MAX)
        });
        let mut keys: Vec<ActorKey> = by_id.into_iter().chain(by_name).chain(by_prefix).collect();
        keys.sort_unstable();
        // An actor may match by its id and by its name.
        keys.dedup();
        let living = keys.into_iter().map(|key| Position::living(key.0));
        let ended =
            state.history.actors.numbered().rev().map(|(number, record)| (Position::ended(number), record));
        let is_name =
            |record: &ActorRecord| record.actor.named.as_ref().is_some_and(|named| named.name == text);
        living.chain(reference.among(ended, |record| record.key.0, is_name)).collect()
    }
}

/// Reason why a killed actor is not dead yet.
const KILLED_WHILE_CONSTRUCTING: &str =
    "it was killed and ends when its constructor returns, which may still run";

impl ClusterState {
    /// Explains why an actor is not alive; `None` if it is.
    pub(in crate::cluster::control_plane::state) fn pending_reason(
        &self,
        key: ActorKey,
        actor: &Actor,
        reasons: &mut Reasons,
    ) -> Option<String> {
        match actor.phase {
            ActorPhase::Alive(..) => None,
            _ if self.is_restarting(key) => self.restart_reason(key, actor, reasons),
            ActorPhase::BackingOff => None,
            ActorPhase::Assigned(_) if self.stopping.contains(&key) => {
                Some(KILLED_WHILE_CONSTRUCTING.to_owned())
            }
            ActorPhase::Assigned(_) => Some("it is assigned to a worker and not created yet".to_owned()),
            ActorPhase::Unaccounted => Some("its node has not rejoined since the head restarted".to_owned()),
            ActorPhase::Starting(worker) => Some(format!("worker {worker} is being started for it")),
            ActorPhase::AwaitingWorker(node) => {
                let pool = self.jobs.get(&actor.job).and_then(|job| job.pools.get(&node));
                let trouble = pool.and_then(|pool| self.crash_alert(node, pool));
                let trouble = trouble.map_or_else(String::new, |trouble| format!("; its {trouble}"));
                Some(format!("workers of its job are being started on node {node}{trouble}"))
            }
            // All actors of a queue wait for the same reason, so it is computed once for all of them.
            ActorPhase::Waiting => Some(reasons.of((actor.job, actor.shape), self)),
        }
    }
}
