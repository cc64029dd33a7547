//! `roadshow kill`: stops an actor, and reports the result.
//!
//! ```text
//! kill          ask the actor to stop; it stops between two messages
//! kill --force  kill its worker, with all other actors there
//!   then poll the actor's state until it is DEAD or the timeout has passed
//! ```

use std::time::Duration;

use roadshow::admin::{Admin, AdminTransport};
use roadshow::internals::config::WORKER_STOP_TIMEOUT;
use roadshow::model::{ActorInfo, ActorState, WorkerState, WorkerSummary};
use serde_json::json;
use tokio::time::Instant;

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::error::{CliError, CliResult};
use crate::exit;
use crate::output::CliOutput;
use crate::output::table::count;

/// Shortest and longest pause between two queries for the actor's state; the pause doubles.
const POLL_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// Stops an actor, and waits until it has ended and its resources are free.
///
/// An actor stops between two messages. A handler or constructor that computes or blocks runs on until it returns.
/// In that case the command ends with code 6 after the timeout, and the actor stays ALIVE, or PENDING_CREATION
/// while its constructor runs. It is DEAD when its code or its worker has ended. `--force` kills such an actor.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow kill counter")]
pub(crate) struct KillArgs {
    /// Id of the actor, or its name.
    #[arg(value_name = "ACTOR")]
    actor: String,
    /// Seconds to wait for the end of the actor.
    #[arg(long, value_name = "S", default_value = "5", value_parser = crate::cli::values::seconds,
        allow_negative_numbers = true)]
    timeout: Duration,
    /// Kill the actor's worker, with all other actors in it. A detached actor has a worker of its own.
    #[arg(long)]
    force: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &KillArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    let actor = &resolve_at_head::<ActorInfo, _>(&mut head, &arguments.actor).await?;
    // Before the kill, which may end the worker: a dead worker is not reported.
    let worker_summary = worker_of(actor, &mut head).await?;
    match arguments.force {
        true => head.kill_worker_of(actor.actor_id).await?,
        false => head.kill(actor.actor_id).await?,
    }
    let still = state_after(actor, arguments.timeout, &mut head).await?;
    let has_ended = still == ActorState::Dead;
    // Without --force the worker keeps running, so its other actors are of no interest.
    let killed = worker_summary.as_ref().filter(|_| arguments.force);
    let (id, class) = (actor.actor_id, &actor.class);
    if arguments.json {
        let worker = killed.map(|worker_summary| worker_summary.worker_id);
        output.json(&json!({ "killed": id, "ended": has_ended, "worker_killed": worker }))?;
    } else if has_ended {
        let with = killed.map_or_else(String::new, |worker_summary| {
            let seconds = WORKER_STOP_TIMEOUT.as_secs_f64();
            format!(
                " with its worker {} and {} there; the process is gone within {seconds} s",
                worker_summary.worker_id,
                others(worker_summary, actor)
            )
        });
        output.print(&format!("The actor {id} ({class}) has ended{with}.\n"))?;
    }
    if has_ended {
        return Ok(());
    }
    let seconds = arguments.timeout.as_secs_f64();
    let (text, ends) = match still {
        ActorState::PendingCreation => (
            format!(
                "the actor {id} ({class}) was killed, and its constructor may still run after {seconds} s"
            ),
            "it ends when its constructor returns",
        ),
        _ => (
            format!("the actor {id} ({class}) was asked to end, and still runs after {seconds} s"),
            "it ends when its handler returns",
        ),
    };
    let next = match &worker_summary {
        Some(worker_summary) => {
            format!(
                "{ends}; --force kills its worker {} with {} there",
                worker_summary.worker_id,
                others(worker_summary, actor)
            )
        }
        None => ends.to_owned(),
    };
    Err(CliError::new(exit::STILL_RUNS, text, next))
}

/// Worker in which the actor runs, if any.
async fn worker_of<E: AdminTransport>(
    actor: &ActorInfo,
    head: &mut Admin<E>,
) -> CliResult<Option<WorkerSummary>> {
    let Some(id) = actor.worker_id.filter(|_| actor.state != ActorState::Dead) else { return Ok(None) };
    let worker = head.row::<WorkerSummary>(id, id.0).await?;
    Ok(worker.filter(|worker| worker.state != WorkerState::Dead))
}

/// Number of other actors in its worker, with the noun.
fn others(worker_summary: &WorkerSummary, actor: &ActorInfo) -> String {
    // The worker's count has only actors that are alive, so an actor under construction is not in it.
    let itself = usize::from(actor.state == ActorState::Alive);
    match worker_summary.actors.saturating_sub(itself) {
        0 => "no other actor".to_owned(),
        others => count(others, "other actor"),
    }
}

/// State of the actor once it is dead, or after the limit.
async fn state_after<E: AdminTransport>(
    actor: &ActorInfo,
    limit: Duration,
    head: &mut Admin<E>,
) -> CliResult<ActorState> {
    let until = Instant::now() + limit;
    let [mut pause, longest] = POLL_PAUSES;
    loop {
        let now = head.row::<ActorInfo>(actor.actor_id, actor.actor_id.0).await?;
        // The head keeps a limited history of dead actors, so a missing one is dead.
        let state = now.map_or(ActorState::Dead, |now| now.state);
        let left = until.saturating_duration_since(Instant::now());
        if state == ActorState::Dead || left.is_zero() {
            return Ok(state);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (2 * pause).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use roadshow::admin::{AdminReply, AdminRequest};
    use roadshow::model::ActorKey;

    use super::*;
    use crate::test_cluster::FakeCluster;

    async fn kill(cluster: &FakeCluster, actor: &str, force: bool, json: bool) -> (CliResult<()>, String) {
        let cluster_args = ClusterArgs { address: None, token_file: None };
        let timeout = Duration::from_secs(5);
        let arguments = KillArgs { actor: actor.to_owned(), timeout, force, json, cluster_args };
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        (outcome, out)
    }

    fn has_asked(cluster: &FakeCluster, request: &AdminRequest) -> bool {
        cluster.requests().contains(request)
    }

    #[tokio::test]
    async fn actor_is_killed_by_its_name() {
        for (actor, json, expected) in [
            ("counter", false, "The actor 0000000000000001 (app::Counter) has ended.\n"),
            ("1", true, "\"ended\": true,\n  \"killed\": \"0000000000000001\",\n  \"worker_killed\": null\n"),
        ] {
            let cluster = FakeCluster::new();
            let (outcome, out) = kill(&cluster, actor, false, json).await;
            outcome.unwrap();
            assert!(out.contains(expected), "{out}");
            assert!(has_asked(&cluster, &AdminRequest::Kill { actor: ActorKey(1) }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn busy_actor_is_reported_with_an_exit_code_of_its_own() {
        for json in [false, true] {
            let cluster = FakeCluster::new();
            cluster.state().actors_are_busy = true;
            let begun = Instant::now();
            let (outcome, out) = kill(&cluster, "counter", false, json).await;
            let failure = outcome.unwrap_err();
            assert_eq!((failure.code, out.contains("\"ended\": false")), (exit::STILL_RUNS, json));
            let expected = "the actor 0000000000000001 (app::Counter) was asked to end, and still runs after \
                            5 s; it ends when its handler returns; --force kills its worker \
                            0000000000000001 with no other actor there";
            assert_eq!(failure.to_string(), expected);
            assert_eq!(begun.elapsed(), Duration::from_secs(5));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn busy_constructor_is_reported() {
        let cluster = FakeCluster::new();
        cluster.state().actors_are_busy = true;
        cluster.state().actors_are_constructing = true;
        let failure = kill(&cluster, "counter", false, false).await.0.unwrap_err();
        let expected = "the actor 0000000000000001 (app::Counter) was killed, and its constructor may still run \
                        after 5 s; it ends when its constructor returns; --force kills its worker \
                        0000000000000001 with 1 other actor there";
        assert_eq!((failure.code, failure.to_string().as_str()), (exit::STILL_RUNS, expected));
    }

    #[tokio::test]
    async fn force_kills_the_actor_with_its_worker() {
        let cluster = FakeCluster::new();
        cluster.state().actors_are_busy = true;
        let (outcome, out) = kill(&cluster, "counter", true, false).await;
        outcome.unwrap();
        let expected = "The actor 0000000000000001 (app::Counter) has ended with its worker 0000000000000001 \
                        and no other actor there; the process is gone within 2 s.\n";
        assert_eq!(out, expected);
        assert!(has_asked(&cluster, &AdminRequest::KillWorkerOf { actor: ActorKey(1) }));
        assert!(!has_asked(&cluster, &AdminRequest::Kill { actor: ActorKey(1) }));
    }

    #[test]
    fn other_actors_of_the_worker_are_counted() {
        let mut worker_summary = crate::test_cluster::workers().remove(0);
        let mut actor = crate::test_cluster::actors().remove(0);
        assert_eq!(others(&worker_summary, &actor), "no other actor");
        worker_summary.actors = 3;
        assert_eq!(others(&worker_summary, &actor), "2 other actors");
        actor.state = ActorState::PendingCreation;
        assert_eq!(others(&worker_summary, &actor), "3 other actors");
    }

    #[tokio::test]
    async fn refusal_of_the_head_is_the_error_of_the_command() {
        let cluster = FakeCluster::new();
        cluster.state().done = AdminReply::Failed { text: "it is dead already".to_owned(), unknown: false };
        let (outcome, out) = kill(&cluster, "2", false, false).await;
        assert_eq!((outcome.unwrap_err().code, out.as_str()), (exit::FAILED, ""));
    }
}
