//! Lists of workers and of tasks.

use super::cursor::Position;
use super::reference::RowReference;
use super::{ClusterState, Listed, Reasons};
use crate::cluster::control_plane::state::worker::LiveWorker;
use crate::cluster::listing::Value;
use crate::cluster::model::{JobId, NodeId, TaskCount, TaskInfo, WorkerId, WorkerState, WorkerSummary};
use crate::config::LIST_MEANT_MAX;

fn summary_at(state: &ClusterState, position: Position) -> Option<WorkerSummary> {
    if position.has_ended {
        return state.history.workers.get(position.at).map(|record| record.summary.clone());
    }
    let id = WorkerId(position.at);
    let worker = state.workers.get(&id)?;
    Some(worker.summary(id, state_of(worker), None))
}

/// Ids that the rows of a worker's tasks and messages have.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowOwner {
    pub(super) worker_id: WorkerId,
    pub(super) job_id: JobId,
    pub(super) node_id: NodeId,
}

/// Owner of the rows at a position. A filter asks for it row by row, so nothing is copied.
pub(super) fn owner_at(state: &ClusterState, position: Position) -> Option<RowOwner> {
    if position.has_ended {
        let WorkerSummary { worker_id, job_id, node_id, .. } =
            state.history.workers.get(position.at)?.summary;
        return Some(RowOwner { worker_id, job_id, node_id });
    }
    let worker_id = WorkerId(position.at);
    let worker = state.workers.get(&worker_id)?;
    Some(RowOwner { worker_id, job_id: worker.job, node_id: worker.node })
}

fn state_of(worker: &LiveWorker) -> WorkerState {
    match worker.member {
        _ if worker.suspended => WorkerState::Suspended,
        Some(_) => WorkerState::Alive,
        None => WorkerState::Starting,
    }
}

/// Task counts of the worker at a position.
fn tasks_at(state: &ClusterState, position: Position) -> &[TaskCount] {
    match position.has_ended {
        true => state.history.workers.get(position.at).map_or(&[], |record| &record.tasks),
        false => state.workers.get(&WorkerId(position.at)).map_or(&[], |worker| &worker.tasks),
    }
}

impl Listed for WorkerSummary {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        let Position { has_ended, at, .. } = position;
        if has_ended {
            let ended = state.history.workers.numbered().rev().map(|(number, _)| number);
            return Box::new(ended.skip_while(move |number| *number >= at).map(Position::ended));
        }
        Box::new(state.workers.keys_before(WorkerId(at)).map(|id| Position::living(id.0)))
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some(summary) = summary_at(state, position) else { return Value::Nothing };
        match key {
            "worker_id" => Value::Id(summary.worker_id.0),
            "state" => Value::Text(summary.state.word()),
            "job_id" => Value::Id(summary.job_id.0.into()),
            "node_id" => Value::Id(summary.node_id.0),
            "pid" => Value::number(summary.pid),
            "actors" => Value::number(summary.actors),
            "detached" => Value::id(summary.detached.map(|actor| actor.0)),
            "started_ms" => Value::numeric(summary.started_ms),
            "ended_ms" => Value::numeric(summary.ended_ms),
            _ => Value::made(summary.cause),
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        summary_at(state, position)
    }

    fn matches(state: &ClusterState, text: &str) -> Vec<Position> {
        let reference = RowReference::new(text, 16);
        let by_id = reference.id.map(WorkerId).filter(|id| state.workers.contains_key(id));
        // As for actors: ready workers are found through the ordered keys, ended ones by a scan of the
        // history.
        let by_prefix = reference.ids.clone().into_iter().flat_map(|ids| {
            state.workers.within(WorkerId(*ids.start())..=WorkerId(*ids.end())).take(LIST_MEANT_MAX)
        });
        let mut ids: Vec<WorkerId> = by_id.into_iter().chain(by_prefix).collect();
        ids.sort_unstable();
        ids.dedup();
        let living = ids.into_iter().map(|id| Position::living(id.0));
        let ended =
            state.history.workers.numbered().rev().map(|(number, record)| (Position::ended(number), record));
        living.chain(reference.among(ended, |record| record.summary.worker_id.0, |_| false)).collect()
    }
}

/// Positions of rows that workers have several of, after the given one.
///
/// The `row` of a position counts the rows of its worker from 1. Row 0 has no content: it lets a slice also end
/// among workers without rows.
pub(super) fn rows_of_workers<'a>(
    state: &'a ClusterState,
    position: Position,
    rows_at: impl Fn(Position) -> usize + 'a,
) -> Box<dyn Iterator<Item = Position> + 'a> {
    let Position { has_ended, at, row } = position;
    // A slice may have ended within a worker, whose remaining rows come first.
    let rest = (row > 0 && at < u64::MAX).then_some(at);
    let workers: Box<dyn Iterator<Item = u64>> = match has_ended {
        true => {
            let ended = state.history.workers.numbered().rev().map(|(number, _)| number);
            Box::new(ended.skip_while(move |number| *number >= at))
        }
        false => Box::new(state.workers.keys_before(WorkerId(at)).map(|id| id.0)),
    };
    Box::new(rest.into_iter().chain(workers).flat_map(move |worker| {
        let first = Position { has_ended, at: worker, row: 0 };
        let rows = rows_at(first) as u64;
        let end = if worker == at { row } else { rows + 1 };
        (0..end.min(rows + 1)).rev().map(move |row| Position { row, ..first })
    }))
}

/// Tasks, by worker and function.
impl Listed for TaskInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        rows_of_workers(state, position, |worker| tasks_at(state, worker).len())
    }

    fn is_there(_: &ClusterState, position: Position) -> bool {
        position.row > 0
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some((worker, count)) = function_at(state, position) else { return Value::Nothing };
        match key {
            "job_id" => Value::Id(worker.job_id.0.into()),
            "worker_id" => Value::Id(worker.worker_id.0),
            "node_id" => Value::Id(worker.node_id.0),
            "name" => Value::Text(&count.name),
            "queued" => Value::number(if position.has_ended { 0 } else { count.queued }),
            "running" => Value::number(if position.has_ended { 0 } else { count.running }),
            "finished" => Value::number(count.finished),
            "p50_us" => Value::numeric(count.p50_us),
            "p99_us" => Value::numeric(count.p99_us),
            _ => Value::number(if position.has_ended { ended_counts(count).failed } else { count.failed }),
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        let (worker, count) = function_at(state, position)?;
        let RowOwner { worker_id, job_id, node_id } = worker;
        let count = if position.has_ended { ended_counts(count) } else { count.clone() };
        Some(Self { job_id, worker_id, node_id, count })
    }

    /// Functions are searched by name through [`FunctionSearch`](super::FunctionSearch).
    fn matches(_: &ClusterState, _: &str) -> Vec<Position> {
        Vec::new()
    }
}

fn function_at(state: &ClusterState, position: Position) -> Option<(RowOwner, &TaskCount)> {
    let at = usize::try_from(position.row.checked_sub(1)?).ok()?;
    let count = tasks_at(state, position).get(at)?;
    Some((owner_at(state, position)?, count))
}

/// Task counts of an ended worker: tasks that had not finished have failed with it.
pub(super) fn ended_counts(count: &TaskCount) -> TaskCount {
    let lost = count.queued + count.running;
    TaskCount { queued: 0, running: 0, failed: count.failed + lost, ..count.clone() }
}
