//! List of jobs.

use super::cursor::Position;
use super::reference::RowReference;
use super::{ClusterState, Listed, Reasons};
use crate::cluster::listing::Value;
use crate::cluster::model::{JobId, JobInfo};

fn job_at(state: &ClusterState, position: Position) -> Option<JobId> {
    // Ended jobs stay in the table of jobs; the history only records the order of their ends.
    match position.has_ended {
        true => state.history.jobs.get(position.at).copied(),
        false => u32::try_from(position.at).ok().map(JobId),
    }
}

impl Listed for JobInfo {
    fn behind(state: &ClusterState, position: Position) -> Box<dyn Iterator<Item = Position> + '_> {
        let Position { has_ended, at, .. } = position;
        if has_ended {
            let ended = state.history.jobs.numbered().rev().map(|(number, _)| number);
            return Box::new(ended.skip_while(move |number| *number >= at).map(Position::ended));
        }
        let before = JobId(u32::try_from(at).unwrap_or(u32::MAX));
        Box::new(state.open_jobs.range(..before).rev().map(|job| Position::living(job.0.into())))
    }

    fn field<'a>(state: &'a ClusterState, position: Position, key: &str) -> Value<'a> {
        let Some((id, job)) = job_at(state, position).and_then(|id| Some((id, state.jobs.get(&id)?))) else {
            return Value::Nothing;
        };
        match key {
            "job_id" => Value::Id(id.0.into()),
            "state" => Value::Text(job.state.word()),
            "entrypoint" => Value::Text(&job.descriptor.entrypoint),
            "hostname" => Value::Text(&job.descriptor.hostname),
            "pid" => Value::number(job.descriptor.pid),
            "runs_on" => Value::id(job.descriptor.runs_on.map(|node| node.0)),
            "started_ms" => Value::number(job.started.0),
            "ended_ms" => job.ended.map_or(Value::Nothing, |ended| Value::number(ended.0)),
            "exit_code" => job.exit_code.map_or(Value::Nothing, Value::number),
            _ => Value::text(job.message.as_deref()),
        }
    }

    fn row(state: &ClusterState, position: Position, _: &mut Reasons) -> Option<Self> {
        let job_id = job_at(state, position)?;
        let job = state.jobs.get(&job_id)?;
        Some(Self {
            job_id,
            state: job.state,
            entrypoint: job.descriptor.entrypoint.clone(),
            hostname: job.descriptor.hostname.clone(),
            pid: job.descriptor.pid,
            runs_on: job.descriptor.runs_on,
            started_ms: job.started.0,
            ended_ms: job.ended.map(|ended| ended.0),
            exit_code: job.exit_code,
            message: job.message.clone(),
        })
    }

    fn matches(state: &ClusterState, text: &str) -> Vec<Position> {
        let reference = RowReference::new(text, 8);
        let open = state.open_jobs.iter().map(|job| (Position::living(job.0.into()), *job));
        let ended = state.history.jobs.numbered().rev().map(|(number, job)| (Position::ended(number), *job));
        let mut all = reference.among(open, |job| job.0.into(), |_| false);
        all.extend(reference.among(ended, |job| job.0.into(), |_| false));
        all
    }
}
