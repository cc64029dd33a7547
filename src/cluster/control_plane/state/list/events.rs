//! List of events, newest first.

use super::cursor::Position;
use super::reference::RowReference;
use super::{ClusterState, Listed, Reasons};
use crate::cluster::listing::Value;
use crate::cluster::model::{EventId, EventInfo};

/// Event at a position: no event ever ends, so all positions are among the open rows.
fn event_at(state: &ClusterState, position: Position) -> Option<&EventInfo> {
    state.events.get(EventId(position.at)).filter(|_| !position.has_ended)
}

impl Listed for EventInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        if position.has_ended {
            return Box::new(std::iter::empty());
        }
        Box::new(state.events.before(EventId(position.at)).map(|event| Position::living(event.event_id.0)))
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some(event) = event_at(state, position) else { return Value::Nothing };
        match key {
            "event_id" => Value::Id(event.event_id.0),
            "time_ms" => Value::number(event.time_ms),
            "severity" => Value::Text(event.severity.word()),
            "kind" => Value::Text(event.kind.word()),
            "node_id" => Value::id(event.node_id.map(|node| node.0)),
            "worker_id" => Value::id(event.worker_id.map(|worker| worker.0)),
            "job_id" => Value::id(event.job_id.map(|job| job.0.into())),
            "actor_id" => Value::id(event.actor_id.map(|actor| actor.0)),
            _ => Value::Text(&event.text),
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        event_at(state, position).cloned()
    }

    fn matches(state: &ClusterState, text: &str) -> Vec<Position> {
        let reference = RowReference::new(text, 16);
        let all = state.events.iter().rev().map(|event| (Position::living(event.event_id.0), event));
        reference.among(all, |event| event.event_id.0, |_| false)
    }
}
