//! Names of the states, as JSON, tables and filters show them.

use super::{ActorState, EventKind, JobState, Lifetime, NodeState, Severity, WorkerState};

macro_rules! words {
    ($($state:ident { $($variant:ident = $word:literal),* })*) => {
        $(
            impl $state {
                /// Names of all states, as in JSON.
                pub(in crate::cluster) const WORDS: &'static [&'static str] = &[$($word),*];

                /// Name of this state, as in JSON.
                pub(in crate::cluster) const fn word(self) -> &'static str {
                    match self { $(Self::$variant => $word),* }
                }
            }
        )*

        #[cfg(test)]
        mod tests {
            use super::*;

            // Serde derives its names from the variants; filters and tables use the constants. This keeps
            // the two in step.
            #[test]
            fn names_match_json() {
                $($(assert_eq!(serde_json::to_value($state::$variant).unwrap(), $word);)*)*
                $($(assert_eq!($state::$variant.word(), $word);)*)*
            }
        }
    };
}

words! {
    NodeState { Alive = "ALIVE", Draining = "DRAINING", Rejoining = "REJOINING", Dead = "DEAD" }
    JobState {
        Pending = "PENDING", Running = "RUNNING", Stopped = "STOPPED", Succeeded = "SUCCEEDED",
        Failed = "FAILED"
    }
    ActorState {
        PendingCreation = "PENDING_CREATION", Alive = "ALIVE", Restarting = "RESTARTING", Dead = "DEAD"
    }
    WorkerState { Starting = "STARTING", Alive = "ALIVE", Suspended = "SUSPENDED", Dead = "DEAD" }
    Lifetime { Job = "JOB", Detached = "DETACHED" }
    Severity { Info = "INFO", Warning = "WARNING", Error = "ERROR" }
    EventKind {
        HeadStarted = "HEAD_STARTED", NodeJoined = "NODE_JOINED", NodeDraining = "NODE_DRAINING",
        NodeDead = "NODE_DEAD", WorkerDied = "WORKER_DIED", JobSubmitted = "JOB_SUBMITTED",
        JobStarted = "JOB_STARTED", JobEnded = "JOB_ENDED", ActorDied = "ACTOR_DIED",
        ActorRestarted = "ACTOR_RESTARTED"
    }
}
