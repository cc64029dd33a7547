//! List of nodes.

use super::cursor::Position;
use super::reference::RowReference;
use super::{ClusterState, Listed, Reasons};
use crate::cluster::listing::Value;
use crate::cluster::model::{NodeId, NodeInfo, NodeState};

impl Listed for NodeInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        let Position { has_ended, at, row } = position;
        if has_ended {
            let ended = state.history.nodes.numbered().rev().map(|(number, _)| number);
            return Box::new(ended.skip_while(move |number| *number >= at).map(Position::ended));
        }
        // Nodes have no ordered index: they are few, so each slice sorts the ones that are left.
        let started = state.nodes.iter().map(|(id, node)| (node.joined.0, id.0));
        let mut nodes: Vec<(u64, u64)> = started.filter(|started| *started < (at, row)).collect();
        nodes.sort_unstable_by(|one, other| other.cmp(one));
        Box::new(nodes.into_iter().map(|(at, row)| Position { has_ended: false, at, row }))
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        if position.has_ended {
            let record = state.history.nodes.get(position.at);
            return record.map_or(Value::Nothing, |record| of_info(&record.info, key));
        }
        let Some(node) = state.nodes.get(&NodeId(position.row)) else { return Value::Nothing };
        match key {
            "node_id" => Value::Id(position.row),
            "state" => Value::Text(node.shown_state().word()),
            "address" => Value::Made(node.descriptor.address.to_string()),
            "hostname" => Value::Text(&node.descriptor.hostname),
            "pid" => Value::number(node.descriptor.pid),
            "is_head" => Value::Flag(node.descriptor.is_head),
            "workers" => Value::number(node.workers.len()),
            "actors" => Value::number(state.actors_on(node)),
            "session_dir" => Value::Text(&node.descriptor.session_dir),
            "started_ms" => Value::number(node.joined.0),
            _ => Value::Nothing,
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        match position.has_ended {
            true => state.history.nodes.get(position.at).map(|record| record.info.clone()),
            false => state.nodes.get(&NodeId(position.row)).map(|node| state.node_info(node)),
        }
    }

    fn matches(state: &ClusterState, text: &str) -> Vec<Position> {
        let reference = RowReference::new(text, 16);
        let living = state.nodes.iter().map(|(id, node)| {
            (
                Position { row: id.0, ..Position::living(node.joined.0) },
                (*id, node.descriptor.hostname.as_str()),
            )
        });
        let ended = state.history.nodes.numbered().rev().map(|(number, record)| {
            (Position::ended(number), (record.info.node_id, record.info.hostname.as_str()))
        });
        let mut all = reference.among(living, |(id, _)| id.0, |(_, hostname)| hostname == text);
        all.extend(reference.among(ended, |(id, _)| id.0, |(_, hostname)| hostname == text));
        all
    }
}

fn of_info<'a>(info: &'a NodeInfo, key: &str) -> Value<'a> {
    match key {
        "node_id" => Value::Id(info.node_id.0),
        "state" => Value::Text(NodeState::Dead.word()),
        "address" => Value::Made(info.address.to_string()),
        "hostname" => Value::Text(&info.hostname),
        "pid" => Value::number(info.pid),
        "is_head" => Value::Flag(info.is_head),
        "workers" => Value::number(info.workers),
        "actors" => Value::number(info.actors),
        "session_dir" => Value::Text(&info.session_dir),
        "started_ms" => Value::number(info.started_ms),
        _ => Value::text(info.cause.as_deref()),
    }
}
