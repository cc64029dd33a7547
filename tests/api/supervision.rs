//! Trees of restartable actors: children end with their parents, restart together, and fail upwards.

use roadshow::prelude::*;
use roadshow::{NotDelivered, Supervision};

use crate::hosts::{run, until};
use crate::restarts::{Add, Counter, Fail, Incarnation, args, created, soon};

/// Waits for the given incarnation of a counter.
async fn reaches(counter: &RemoteAddr<Counter>, incarnation: u32) {
    while counter.send(Incarnation).await != Ok(incarnation) {
        tokio::task::yield_now().await;
    }
}

/// Waits for the end of an actor, and returns its text.
async fn end_of(counter: &RemoteAddr<Counter>) -> String {
    loop {
        match counter.send(Incarnation).await {
            Err(SendError::NotDelivered(NotDelivered::ActorEnded { text })) => return text,
            Err(SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })) => {
                return reason.to_string();
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn children_end_with_the_incarnation_of_their_parent() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let parent = cluster.spawn::<Counter>(args(100)).restart(soon()).await.unwrap();
        let child = cluster.spawn::<Counter>(args(101)).restart(soon()).child_of(&parent).await.unwrap();
        let grandchild = cluster.spawn::<Counter>(args(102)).restart(soon()).child_of(&child).await.unwrap();
        parent.send(Fail).await.unwrap_err();
        let text = end_of(&grandchild).await;
        assert!(text.contains("its parent") && text.contains("asked to fail"), "{text}");
        end_of(&child).await;
        // The next incarnation of the parent can have its own.
        reaches(&parent, 2).await;
        let next = cluster.spawn::<Counter>(args(103)).restart(soon()).child_of(&parent).await.unwrap();
        assert_eq!(next.send(Add(1)).await, Ok(1));
        parent.stop().await.unwrap();
        assert!(end_of(&next).await.contains("has ended"));
        assert_eq!([100, 101, 102, 103].map(created), [2, 1, 1, 1]);
        let late = cluster.spawn::<Counter>(args(104)).restart(soon()).child_of(&parent).await.unwrap_err();
        assert!(late.to_string().contains("or it has ended"), "{late}");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn siblings_restart_together_as_their_parent_says() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        for (first, strategy, expected) in [
            (110, Supervision::OneForOne, [1, 2, 1]),
            (120, Supervision::OneForAll, [2, 2, 2]),
            (130, Supervision::RestForOne, [1, 2, 2]),
        ] {
            let parent =
                cluster.spawn::<Counter>(args(first)).restart(soon()).supervise(strategy).await.unwrap();
            let mut children = Vec::new();
            for id in first + 1..first + 4 {
                let child = cluster.spawn::<Counter>(args(id)).restart(soon()).child_of(&parent);
                children.push(child.await.unwrap());
            }
            children[1].send(Fail).await.unwrap_err();
            for (child, incarnation) in children.iter().zip(expected) {
                reaches(child, incarnation).await;
            }
            assert_eq!(parent.send(Incarnation).await, Ok(1), "{strategy:?}");
        }
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn child_that_fails_for_good_fails_its_parent_and_an_essential_one_its_job() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let root = cluster.spawn::<Counter>(args(140)).restart(soon().at_most(1)).essential().await.unwrap();
        let child = async || {
            let child = cluster.spawn::<Counter>(args(141)).restart(soon().at_most(0)).child_of(&root);
            child.await.unwrap()
        };
        let plain = cluster.spawn::<Counter>(args(142)).await.unwrap();
        child().await.send(Fail).await.unwrap_err();
        // The first failure restarts the root, the second one ends it and the job.
        reaches(&root, 2).await;
        assert_eq!(plain.send(Add(1)).await, Ok(1));
        child().await.send(Fail).await.unwrap_err();
        let refused = loop {
            match cluster.spawn::<Counter>(args(143)).name("late").await {
                Err(refused @ SpawnError::Placement { .. }) => break refused.to_string(),
                _ => tokio::task::yield_now().await,
            }
        };
        assert!(
            refused.contains("essential")
                && refused.contains("its descendant")
                && refused.contains("asked to fail"),
            "{refused}"
        );
        until(|| !plain.connected()).await;
        assert!(plain.send(Add(1)).await.unwrap_err().to_string().contains("the job is over"));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn child_needs_a_policy_and_a_restartable_parent() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let plain = cluster.spawn::<Counter>(args(150)).await.unwrap();
        let refused = cluster.spawn::<Counter>(args(151)).child_of(&plain).await.unwrap_err();
        assert!(refused.to_string().contains("needs a restart policy"), "{refused}");
        let refused = cluster.spawn::<Counter>(args(151)).restart(soon()).child_of(&plain).await.unwrap_err();
        assert!(refused.to_string().contains("no restartable actor"), "{refused}");
        assert_eq!(created(151), 0);
        cluster.shutdown().await.unwrap();
    });
}
