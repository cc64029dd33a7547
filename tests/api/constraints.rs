//! Placement options of actors in a local cluster: names, resources, lifetimes.

use std::convert::Infallible;
use std::time::Duration;

use roadshow::model::ActorState;
use roadshow::prelude::*;
use roadshow::{Cluster, FindError, Lifetime, PlacementError, Resources, SpawnError};

use crate::fixtures::{Add, Clerk};
use crate::hosts::run;

/// Polls a condition until it is true.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

/// Second actor type.
#[derive(RemoteActor)]
#[remote(local)]
struct Other;

impl Actor for Other {
    type Context = Context<Self>;
}

/// Actor that spawns a named clerk from its own process.
#[derive(RemoteActor)]
#[remote(handles(SpawnNamed))]
struct Manager(ClusterRef);

impl Actor for Manager {
    type Context = Context<Self>;
}

impl Spawn for Manager {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(at.cluster().clone()))
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Option<RemoteAddr<Clerk>>")]
struct SpawnNamed(String);

impl Handler<SpawnNamed> for Manager {
    type Result = ResponseFuture<Option<RemoteAddr<Clerk>>>;

    fn handle(&mut self, SpawnNamed(name): SpawnNamed, _: &mut Context<Self>) -> Self::Result {
        let cluster = self.0.clone();
        Box::pin(async move { cluster.spawn::<Clerk>(()).name(name).await.ok() })
    }
}

#[test]
fn resource_options_add_up_in_any_order() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let gpu = || Resources::none().with("gpu", 2.0);
        let spawn = || cluster.spawn::<Clerk>(());
        let rejected = [
            spawn().num_cpus(1.0).resources(gpu()).await,
            spawn().resources(gpu()).num_cpus(1.0).await,
            spawn().resources(Resources::none().with(Resources::CPU, 1.0)).resources(gpu()).await,
            spawn().num_cpus(7.0).resources(gpu().with(Resources::CPU, 1.0)).await,
        ];
        for rejected in rejected.map(|spawned| spawned.unwrap_err().to_string()) {
            // No worker has a GPU, so the error lists everything that was requested.
            assert!(rejected.contains("cpu 1, gpu 2"), "{rejected}");
        }
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actor_is_found_by_its_name_until_it_ends() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let clerk = cluster.spawn::<Clerk>(()).name("clerk").await.unwrap();
        assert_eq!(cluster.actor::<Clerk>("clerk").await.unwrap(), clerk);
        let taken = cluster.spawn::<Clerk>(()).name("clerk").await.unwrap_err();
        assert!(
            matches!(&taken, SpawnError::Placement { reason: PlacementError::NameTaken { .. }, .. }),
            "{taken}"
        );
        let same = cluster.spawn::<Clerk>(()).name("clerk").get_if_exists().await.unwrap();
        assert_eq!(same, clerk);
        assert!(matches!(cluster.actor::<Other>("clerk").await, Err(FindError::OtherType { .. })));
        assert!(matches!(cluster.actor_in::<Clerk>("elsewhere", "clerk").await, Err(FindError::NotFound(_))));

        clerk.stop().await.unwrap();
        // The name becomes free when the worker has reported the end.
        until(async || cluster.actor::<Clerk>("clerk").await.is_err()).await;
        let next = cluster.spawn::<Clerk>(()).name("clerk").await.unwrap();
        assert_eq!(next.send(Add(2)).await.unwrap(), 2, "it is a new actor");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actor_spawns_others_by_name_from_another_process() {
    run(async {
        let cluster = Cluster::local(2).await.unwrap();
        let manager = cluster.spawn::<Manager>(()).await.unwrap();
        let spawned = manager.send(SpawnNamed("clerk".to_owned())).await.unwrap().unwrap();
        assert_eq!(cluster.actor::<Clerk>("clerk").await.unwrap(), spawned);
        assert_eq!(manager.send(SpawnNamed("clerk".to_owned())).await.unwrap(), None, "the name is taken");
        assert_eq!(spawned.send(Add(3)).await.unwrap(), 3);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actor_waits_for_used_resources_and_is_rejected_for_missing_ones() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let node = cluster.nodes().await.unwrap().remove(0);
        let all = f64::from(node.resources.0[Resources::CPU]);

        let first = cluster.spawn::<Clerk>(()).num_cpus(all).await.unwrap();
        let asking = cluster.spawn::<Clerk>(()).num_cpus(all);
        // A request that is given up must not take the resources later.
        let late = asking.timeout(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(late, SpawnError::PlacementTimedOut { .. }), "{late}");
        let (second, ()) = tokio::join!(async { cluster.spawn::<Clerk>(()).num_cpus(all).await }, async {
            let expect_waiting = async || {
                let actors = cluster.actors().await.unwrap();
                // The cause shows that the request waits for resources, and not for its start.
                actors.iter().any(|actor| actor.state == ActorState::PendingCreation && actor.cause.is_some())
            };
            until(expect_waiting).await;
            first.stop().await.unwrap();
        });
        assert_eq!(second.unwrap().send(Add(1)).await.unwrap(), 1);

        let never =
            cluster.spawn::<Clerk>(()).resources(Resources::none().with("gpu", 1.0)).await.unwrap_err();
        assert!(
            matches!(&never, SpawnError::Placement { reason: PlacementError::Infeasible { .. }, .. }),
            "{never}"
        );
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn detached_actor_of_a_local_cluster_ends_with_it_and_can_be_killed() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let clerk = cluster.spawn::<Clerk>(()).name("clerk").lifetime(Lifetime::Detached).await.unwrap();
        assert_eq!(clerk.send(Add(1)).await.unwrap(), 1);
        let listed = cluster.actors().await.unwrap();
        let actor = listed.iter().find(|actor| actor.name.as_deref() == Some("clerk")).unwrap();
        cluster.kill(actor.actor_id).await.unwrap();
        until(async || clerk.send(Add(1)).await.is_err()).await;
        // The record of an ended actor may still exist or not.
        assert!(matches!(cluster.kill(actor.actor_id).await, Err(PlacementError::Unknown { .. }) | Ok(())));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn name_options_without_a_name_are_rejected() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        for request in
            [cluster.spawn::<Clerk>(()).get_if_exists(), cluster.spawn::<Clerk>(()).namespace("shared")]
        {
            let rejected = request.await.unwrap_err();
            let SpawnError::Placement { reason: PlacementError::Infeasible { .. }, .. } = &rejected else {
                panic!("{rejected}")
            };
            assert!(rejected.to_string().contains("give the actor one with name(..)"), "{rejected}");
        }
        cluster.shutdown().await.unwrap();
    });
}
