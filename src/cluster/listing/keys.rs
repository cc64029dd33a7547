//! Tables of the head, and the fields by which their rows can be filtered.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{ActorState, EventKind, JobState, Lifetime, NodeState, Severity, WorkerState};

/// Table of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nodes of the cluster.
    Nodes,
    /// Jobs of the cluster.
    Jobs,
    /// Actors of all jobs.
    Actors,
    /// Workers of all jobs.
    Workers,
    /// Tasks, by function and worker.
    Tasks,
    /// Messages, by class, message type and worker.
    Messages,
    /// Events of the cluster.
    Events,
}

/// Type of a row's field, which decides how a filter value is parsed and compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyKind {
    Id,
    Number,
    Flag,
    Text,
    /// Fixed set of names.
    Word(&'static [&'static str]),
}

pub(super) type Keys = &'static [(&'static str, KeyKind)];

const NODE_KEYS: Keys = &[
    ("node_id", KeyKind::Id),
    ("state", KeyKind::Word(NodeState::WORDS)),
    ("address", KeyKind::Text),
    ("hostname", KeyKind::Text),
    ("pid", KeyKind::Number),
    ("is_head", KeyKind::Flag),
    ("workers", KeyKind::Number),
    ("actors", KeyKind::Number),
    ("session_dir", KeyKind::Text),
    ("started_ms", KeyKind::Number),
    ("cause", KeyKind::Text),
];

const JOB_KEYS: Keys = &[
    ("job_id", KeyKind::Id),
    ("state", KeyKind::Word(JobState::WORDS)),
    ("entrypoint", KeyKind::Text),
    ("hostname", KeyKind::Text),
    ("pid", KeyKind::Number),
    ("runs_on", KeyKind::Id),
    ("started_ms", KeyKind::Number),
    ("ended_ms", KeyKind::Number),
    ("exit_code", KeyKind::Number),
    ("message", KeyKind::Text),
];

const ACTOR_KEYS: Keys = &[
    ("actor_id", KeyKind::Id),
    ("class", KeyKind::Text),
    ("state", KeyKind::Word(ActorState::WORDS)),
    ("job_id", KeyKind::Id),
    ("name", KeyKind::Text),
    ("namespace", KeyKind::Text),
    ("lifetime", KeyKind::Word(Lifetime::WORDS)),
    ("node_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("pid", KeyKind::Number),
    ("started_ms", KeyKind::Number),
    ("ended_ms", KeyKind::Number),
    ("restarts", KeyKind::Number),
    ("restart_cause", KeyKind::Text),
    ("handled", KeyKind::Number),
    ("mailbox", KeyKind::Number),
    ("cause", KeyKind::Text),
];

const WORKER_KEYS: Keys = &[
    ("worker_id", KeyKind::Id),
    ("state", KeyKind::Word(WorkerState::WORDS)),
    ("job_id", KeyKind::Id),
    ("node_id", KeyKind::Id),
    ("pid", KeyKind::Number),
    ("actors", KeyKind::Number),
    ("detached", KeyKind::Id),
    ("started_ms", KeyKind::Number),
    ("ended_ms", KeyKind::Number),
    ("cause", KeyKind::Text),
];

const TASK_KEYS: Keys = &[
    ("job_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("node_id", KeyKind::Id),
    ("name", KeyKind::Text),
    ("queued", KeyKind::Number),
    ("running", KeyKind::Number),
    ("finished", KeyKind::Number),
    ("failed", KeyKind::Number),
    ("p50_us", KeyKind::Number),
    ("p99_us", KeyKind::Number),
];

const MESSAGE_KEYS: Keys = &[
    ("job_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("node_id", KeyKind::Id),
    ("class", KeyKind::Text),
    ("message", KeyKind::Text),
    ("handled", KeyKind::Number),
    ("p50_us", KeyKind::Number),
    ("p99_us", KeyKind::Number),
];

const EVENT_KEYS: Keys = &[
    ("event_id", KeyKind::Id),
    ("time_ms", KeyKind::Number),
    ("severity", KeyKind::Word(Severity::WORDS)),
    ("kind", KeyKind::Word(EventKind::WORDS)),
    ("node_id", KeyKind::Id),
    ("worker_id", KeyKind::Id),
    ("job_id", KeyKind::Id),
    ("actor_id", KeyKind::Id),
    ("text", KeyKind::Text),
];

impl Kind {
    /// All tables.
    pub const ALL: [Self; 7] =
        [Self::Nodes, Self::Jobs, Self::Actors, Self::Workers, Self::Tasks, Self::Messages, Self::Events];

    /// Name of the table, in lower case.
    #[cfg(feature = "cli")]
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Jobs => "jobs",
            Self::Actors => "actors",
            Self::Workers => "workers",
            Self::Tasks => "tasks",
            Self::Messages => "messages",
            Self::Events => "events",
        }
    }

    pub(super) const fn forms(self) -> Keys {
        match self {
            Self::Nodes => NODE_KEYS,
            Self::Jobs => JOB_KEYS,
            Self::Actors => ACTOR_KEYS,
            Self::Workers => WORKER_KEYS,
            Self::Tasks => TASK_KEYS,
            Self::Messages => MESSAGE_KEYS,
            Self::Events => EVENT_KEYS,
        }
    }

    /// Names of the fields that rows can be filtered by. The suffix `_id` of a key is optional.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        self.forms().iter().map(|(key, _)| *key)
    }
}
