//! Watches of actors in worker processes that end.

use std::convert::Infallible;

use actix::System;
use roadshow::End;
use roadshow::prelude::*;
use rustix::process::Signal;
use tokio::time::timeout;

use super::driver::PATIENCE;
use super::process_table::signal;
use crate::hosts::poll_once;

/// Actor that ends its process.
#[derive(RemoteActor)]
#[remote(handles(Die, PidOfMortal))]
struct Mortal;

impl Actor for Mortal {
    type Context = Context<Self>;
}

impl Spawn for Mortal {
    type Args = ();
    type Error = Infallible;
    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Ends the process.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
enum Die {
    Exit(i32),
    Abort,
    Kill,
}

impl Handler<Die> for Mortal {
    type Result = ();
    fn handle(&mut self, how: Die, _: &mut Context<Self>) {
        match how {
            Die::Exit(code) => std::process::exit(code),
            Die::Abort => std::process::abort(),
            Die::Kill => signal(std::process::id(), Signal::KILL).unwrap(),
        }
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct PidOfMortal;

impl Handler<PidOfMortal> for Mortal {
    type Result = u32;
    fn handle(&mut self, _: PidOfMortal, _: &mut Context<Self>) -> u32 {
        std::process::id()
    }
}

async fn end_by(cluster: &Cluster, how: Die) -> End {
    let mortal = cluster.spawn::<Mortal>(()).await.unwrap();
    let pid = mortal.send(PidOfMortal).await.unwrap();
    let mut watch = cluster.watch(&mortal);
    assert!(poll_once(&mut watch).await.is_pending());
    mortal.do_send(how);
    let terminated = timeout(PATIENCE, watch).await.unwrap();
    assert!(terminated.end.text.contains(&format!("worker {pid}")), "{}", terminated.end);
    let late = timeout(PATIENCE, cluster.watch(&mortal)).await.unwrap();
    assert_eq!(late, terminated);
    terminated.end
}

#[test]
fn the_end_of_a_worker_process_is_the_end_of_its_actors() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        for (how, reason) in [
            (Die::Kill, EndReason::Signalled(Signal::KILL.as_raw())),
            (Die::Exit(7), EndReason::Exited(7)),
            (Die::Abort, EndReason::Signalled(Signal::ABORT.as_raw())),
        ] {
            let end = end_by(&cluster, how).await;
            assert_eq!(end.reason, reason, "{end}");
        }
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_link_stops_the_actor_on_another_worker_when_one_worker_is_killed() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let [one, other] =
            [cluster.spawn::<Mortal>(()).await.unwrap(), cluster.spawn::<Mortal>(()).await.unwrap()];
        cluster.link(&one, &other).await.unwrap();
        one.do_send(Die::Kill);
        let end = timeout(PATIENCE, cluster.watch(&other)).await.unwrap().end;
        assert_eq!(end.reason, EndReason::Linked);
        assert!(end.text.contains("Mortal@") && end.text.contains("SIGKILL"), "{end}");
        // A worker that replaces the killed one has never heard of it, and asks the driver.
        let late = cluster.spawn::<Mortal>(()).await.unwrap();
        let later = cluster.spawn::<Mortal>(()).await.unwrap();
        for survivor in [&late, &later] {
            cluster.link(survivor, &one).await.unwrap();
            let end = timeout(PATIENCE, cluster.watch(survivor)).await.unwrap().end;
            assert_eq!(end.reason, EndReason::Linked);
            assert!(end.text.contains("SIGKILL"), "{end}");
        }
        cluster.shutdown().await.unwrap();
    });
}
