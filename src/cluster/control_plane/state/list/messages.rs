//! List of messages, by worker, class and message type.

use super::cursor::Position;
use super::workers::{RowOwner, owner_at, rows_of_workers};
use super::{ClusterState, Listed, Reasons};
use crate::cluster::listing::Value;
use crate::cluster::model::{MessageCount, MessageInfo, WorkerId};

/// Message counts of the worker at a position.
fn messages_at(state: &ClusterState, position: Position) -> &[MessageCount] {
    match position.has_ended {
        true => state.history.workers.get(position.at).map_or(&[], |record| &record.statistics.messages),
        false => state.workers.get(&WorkerId(position.at)).map_or(&[], |worker| &worker.statistics.messages),
    }
}

fn message_at(state: &ClusterState, position: Position) -> Option<(RowOwner, &MessageCount)> {
    let at = usize::try_from(position.row.checked_sub(1)?).ok()?;
    let count = messages_at(state, position).get(at)?;
    Some((owner_at(state, position)?, count))
}

impl Listed for MessageInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        rows_of_workers(state, position, |worker| messages_at(state, worker).len())
    }

    fn is_there(_: &ClusterState, position: Position) -> bool {
        position.row > 0
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some((worker, count)) = message_at(state, position) else { return Value::Nothing };
        match key {
            "job_id" => Value::Id(worker.job_id.0.into()),
            "worker_id" => Value::Id(worker.worker_id.0),
            "node_id" => Value::Id(worker.node_id.0),
            "class" => Value::Text(&count.class),
            "message" => Value::Text(&count.message),
            "handled" => Value::number(count.handled),
            "p50_us" => Value::numeric(count.p50_us),
            _ => Value::numeric(count.p99_us),
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        let (worker, count) = message_at(state, position)?;
        let RowOwner { worker_id, job_id, node_id } = worker;
        Some(Self { job_id, worker_id, node_id, count: count.clone() })
    }

    /// A message has no id: it is found by filters.
    fn matches(_: &ClusterState, _: &str) -> Vec<Position> {
        Vec::new()
    }
}
