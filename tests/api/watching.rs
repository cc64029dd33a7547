//! Watchers get one end with its cause, and linked actors end together.

use std::convert::Infallible;
use std::time::Duration;

use actix::System;
use futures_util::future::join_all;
use roadshow::internals::id::{ActorId, HostId, HostUid, Incarnation};
use roadshow::prelude::*;
use roadshow::{End, InProcess, Limits, Memory, NodeId, Terminated, model};
use tokio::sync::mpsc;

use crate::hosts::{Gate, Pair, TestHost, limits, poll_once, run, until};
use crate::proxy::{Cut, Proxy, links};
use crate::raw::Raw;

/// Actor that ends as it is asked to.
#[derive(Default, RemoteActor)]
#[remote(handles(Ping, Fall, Leave, EndThread, Pass))]
struct Ward(Gate);

impl Actor for Ward {
    type Context = Context<Self>;
}

impl Spawn for Ward {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Ping;

impl Handler<Ping> for Ward {
    type Result = ();
    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {}
}

/// Panics.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Fall;

impl Handler<Fall> for Ward {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("the ward fell");
    }
}

/// Stops by itself.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Ward {
    type Result = ();
    fn handle(&mut self, _: Leave, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Ends the thread of the actor, and so its worker.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct EndThread;

impl Handler<EndThread> for Ward {
    type Result = ();
    fn handle(&mut self, _: EndThread, _: &mut Context<Self>) {
        System::current().stop();
    }
}

/// Blocks the thread until the gate opens.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Pass;

impl Handler<Pass> for Ward {
    type Result = ();
    fn handle(&mut self, _: Pass, _: &mut Context<Self>) {
        self.0.pass();
    }
}

/// Actor of this process that passes on what it is told.
#[derive(RemoteActor)]
#[remote(local, handles())]
struct Watcher(mpsc::Sender<Terminated>);

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Handler<Terminated> for Watcher {
    type Result = ();
    fn handle(&mut self, terminated: Terminated, _: &mut Context<Self>) {
        self.0.try_send(terminated).unwrap();
    }
}

/// Networks between the threads of a cluster.
fn networks() -> [InProcess; 2] {
    [InProcess::Memory(Memory::new(0)), InProcess::Tcp]
}

async fn start(workers: usize, network: InProcess) -> Cluster {
    let short_drain = limits(|limits: &mut Limits| limits.drain_timeout = Duration::from_millis(10));
    Cluster::builder().workers(workers).limits(short_drain).in_process(network).start().await.unwrap()
}

/// Spawns an actor, and lets it end after a watch began, or before one begins.
async fn end_of(cluster: &Cluster, early: bool, end: impl AsyncFnOnce(&RemoteAddr<Ward>)) -> End {
    let ward = cluster.spawn::<Ward>(()).await.unwrap();
    let mut watch = cluster.watch(&ward);
    if early {
        assert!(poll_once(&mut watch).await.is_pending());
        // Behind the watch in the order of calls to that host.
        cluster.spawn::<Ward>(()).await.unwrap();
    }
    end(&ward).await;
    let terminated = watch.await;
    assert!(terminated.is(&ward));
    terminated.end
}

#[test]
fn watchers_get_the_cause_of_an_end_whether_they_watch_before_it_or_after() {
    run(async {
        for (network, early) in
            networks().into_iter().zip([true, false]).chain(networks().into_iter().zip([false, true]))
        {
            let cluster = start(1, network).await;
            let left = end_of(&cluster, early, async |ward| ward.send(Leave).await.unwrap()).await;
            assert_eq!((left.reason, left.text.as_str()), (EndReason::Stopped, "it stopped"));
            let fell = end_of(&cluster, early, async |ward| drop(ward.send(Fall).await)).await;
            assert_eq!(fell.reason, EndReason::Panicked);
            assert!(fell.text.starts_with("it panicked: the ward fell (at "), "{fell}");
            let stopped = end_of(&cluster, early, async |ward| ward.stop().await.unwrap()).await;
            assert_eq!(stopped.reason, EndReason::Killed);
            assert!(stopped.text.starts_with("it was stopped by host "), "{stopped}");
            cluster.shutdown().await.unwrap();
        }
    });
}

#[test]
fn an_actor_that_the_cluster_kills_ends_as_killed() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let ward = cluster.spawn::<Ward>(()).name("ward").await.unwrap();
        let watch = cluster.watch(&ward);
        for actor in cluster.actors().await.unwrap() {
            cluster.kill(actor.actor_id).await.unwrap();
        }
        assert_eq!(watch.await.end.reason, EndReason::Killed);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn ends_of_actors_that_were_only_registered_are_seen_as_well() {
    run(async {
        let pair = Pair::start().await;
        for far in [true, false] {
            let cluster = if far { &pair.here.cluster } else { &pair.there.cluster };
            let left = cluster.bind(&pair.there.serve(Ward::default));
            let mut watch = cluster.watch(&left);
            assert!(poll_once(&mut watch).await.is_pending());
            until(|| pair.there.host.snapshot().watches == 1).await;
            left.send(Leave).await.unwrap();
            assert_eq!(watch.await.end.reason, EndReason::Stopped);
            let fallen = cluster.bind(&pair.there.serve(Ward::default));
            let mut watch = cluster.watch(&fallen);
            assert!(poll_once(&mut watch).await.is_pending());
            until(|| pair.there.host.snapshot().watches == 1).await;
            fallen.send(Fall).await.unwrap_err();
            let end = watch.await.end;
            assert!(end.reason == EndReason::Panicked && end.text.contains("the ward fell"), "{end:?}");
            let stopped = cluster.bind(&pair.there.serve(Ward::default));
            let mut watch = cluster.watch(&stopped);
            assert!(poll_once(&mut watch).await.is_pending());
            until(|| pair.there.host.snapshot().watches == 1).await;
            stopped.stop().await.unwrap();
            assert_eq!(watch.await.end.reason, EndReason::Killed);
            // Seen by the first watch, so a later one finds it.
            assert_eq!(cluster.watch(&stopped).await.end.reason, EndReason::Killed);
            // This one had no watch.
            let unseen = cluster.bind(&pair.there.serve(Ward::default));
            unseen.send(Leave).await.unwrap();
            until(|| !pair.there.cluster.bind(&unseen).connected()).await;
            assert_eq!(cluster.watch(&unseen).await.end.reason, EndReason::Unknown);
        }
    });
}

#[test]
fn a_watch_outlives_broken_links() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let ward = pair.serve(Ward::default);
        let mut watch = pair.here.cluster.watch(&ward);
        assert!(poll_once(&mut watch).await.is_pending());
        for broken in 1..4 {
            ward.send(Ping).await.unwrap();
            proxy.cut(Cut::Reset);
            until(|| links(&pair.here, &pair.there) > broken).await;
        }
        assert!(poll_once(&mut watch).await.is_pending());
        ward.send(Leave).await.unwrap();
        assert_eq!(watch.await.end.reason, EndReason::Stopped);
    });
}

#[test]
fn a_dropped_watch_leaves_nothing_behind() {
    run(async {
        let pair = Pair::start().await;
        let spawned = pair.here.cluster.spawn::<Ward>(()).await.unwrap();
        let registered = pair.serve(Ward::default);
        for ward in [&spawned, &registered] {
            let watches: Vec<_> = (0..10).map(|_| pair.here.cluster.watch(ward)).collect();
            let mut watches = join_all(watches);
            assert!(poll_once(&mut watches).await.is_pending());
            until(|| pair.there.host.snapshot().watches == 10).await;
            drop(watches);
            until(|| pair.there.host.snapshot().watches == 0).await;
            until(|| pair.here.calls_open() == 0).await;
            ward.send(Ping).await.unwrap();
        }
        // An attachment was released, and a later watch gets another one.
        let mut watch = pair.here.cluster.watch(&registered);
        assert!(poll_once(&mut watch).await.is_pending());
        until(|| pair.there.host.snapshot().watches == 1).await;
        registered.send(Leave).await.unwrap();
        assert_eq!(watch.await.end.reason, EndReason::Stopped);
    });
}

#[test]
fn watches_of_a_host_that_is_gone_end_at_the_host_of_the_actor() {
    run(async {
        let pair = Pair::start().await;
        let ward = pair.here.cluster.spawn::<Ward>(()).await.unwrap();
        let mut watch = pair.here.cluster.watch(&ward);
        assert!(poll_once(&mut watch).await.is_pending());
        until(|| pair.there.host.snapshot().watches == 1).await;
        pair.there.host.mark_peer_down(pair.here.identity(), "a test says so");
        until(|| pair.there.host.snapshot().watches == 0).await;
    });
}

#[test]
fn a_thousand_watchers_get_the_same_end() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let ward = cluster.spawn::<Ward>(()).await.unwrap();
        let mut watches = join_all((0..1000).map(|_| cluster.watch(&ward)));
        assert!(poll_once(&mut watches).await.is_pending());
        ward.send(Fall).await.unwrap_err();
        let ends = watches.await;
        assert!(
            ends.iter().all(|it| it.end.reason == EndReason::Panicked && *it == ends[0]),
            "{:?}",
            ends[0]
        );
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_watching_actor_gets_one_message_while_a_dropped_one_is_not_kept_alive() {
    run(async {
        let pair = Pair::start().await;
        let ward = pair.here.cluster.spawn::<Ward>(()).await.unwrap();
        let (sender, mut told) = mpsc::channel(10);
        let watcher = Watcher(sender).start();
        pair.here.cluster.watch(&ward).notify(watcher.clone());
        let (sender, mut untold) = mpsc::channel(10);
        let dropped = Watcher(sender).start();
        pair.here.cluster.watch(&ward).notify(dropped.clone());
        until(|| pair.there.host.snapshot().watches == 2).await;
        drop(dropped);
        // The actor ends without its last address, and its watch with it.
        assert_eq!(untold.recv().await, None);
        until(|| pair.there.host.snapshot().watches == 1).await;
        ward.send(Leave).await.unwrap();
        assert!(told.recv().await.unwrap().is(&ward));
        pair.here.cluster.watch(&ward).notify(watcher.clone());
        assert!(told.recv().await.unwrap().is(&ward), "a second watch tells it once more");
        drop(watcher);
        assert_eq!(told.recv().await, None);
    });
}

#[test]
fn a_registered_actor_that_watches_others_has_its_own_end() {
    run(async {
        let pair = Pair::start().await;
        let ward = pair.here.cluster.spawn::<Ward>(()).await.unwrap();
        let (sender, _told) = mpsc::channel(10);
        let watcher = Watcher(sender).start();
        // Before and after its own attachment for the watch.
        pair.here.cluster.watch(&ward).notify(watcher.clone());
        let watched = pair.here.cluster.register(watcher.clone());
        let mut watch = pair.here.cluster.watch(&watched);
        assert!(poll_once(&mut watch).await.is_pending());
        until(|| pair.here.host.snapshot().watches == 1).await;
        pair.here.cluster.watch(&ward).notify(watcher);
        until(|| pair.there.host.snapshot().watches == 2).await;
        watched.stop().await.unwrap();
        assert_eq!(watch.await.end.reason, EndReason::Killed);
        until(|| pair.there.host.snapshot().watches == 0).await;
    });
}

#[test]
fn a_watch_is_told_while_the_watching_thread_is_blocked() {
    run(async {
        let pair = Pair::start().await;
        let gate = Gate::default();
        let blocked = pair.there.serve({
            let gate = gate.clone();
            move || Ward(gate)
        });
        let blocked = pair.here.cluster.bind(&blocked);
        let ward = pair.there.cluster.bind(&pair.here.serve(Ward::default));
        let mut watch = pair.there.cluster.watch(&ward);
        assert!(poll_once(&mut watch).await.is_pending());
        until(|| pair.here.host.snapshot().watches == 1).await;
        let passing = blocked.try_send(Pass).unwrap();
        gate.reached_by(1).await;
        ward.do_send(Leave);
        let other = pair.here.cluster.bind(&ward);
        other.send(Leave).await.unwrap();
        gate.open();
        assert_eq!(watch.await.end.reason, EndReason::Stopped);
        passing.await.unwrap();
    });
}

#[test]
fn watches_resolve_with_the_end_of_the_worker() {
    run(async {
        for network in networks() {
            let cluster = start(2, network).await;
            let (ward, other) =
                (cluster.spawn::<Ward>(()).await.unwrap(), cluster.spawn::<Ward>(()).await.unwrap());
            let mut watch = cluster.watch(&ward);
            assert!(poll_once(&mut watch).await.is_pending());
            ward.do_send(EndThread);
            let end = watch.await.end;
            assert!(end.reason == EndReason::Exited(1) && end.text.starts_with("worker "), "{end:?}");
            // Also when it is long gone.
            assert_eq!(cluster.watch(&ward).await.end, end);
            assert!(poll_once(&mut cluster.watch(&other)).await.is_pending());
            cluster.shutdown().await.unwrap();
        }
    });
}

#[test]
fn watches_of_unknown_actors_and_hosts_resolve() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let ward = cluster.spawn::<Ward>(()).await.unwrap();
        let nowhere = HostUid { host: HostId(99), incarnation: Incarnation(1) };
        let stale = HostUid { incarnation: Incarnation(ward.host().incarnation.0 - 1), ..ward.host() };
        for (host, actor) in [(ward.host(), 99), (nowhere, 1), (stale, 1)] {
            let unknown = Raw::addr_of::<Ward>(host, actor);
            let end = cluster.watch(&unknown).await.end;
            assert_eq!(end.reason, EndReason::Unknown, "{end}");
        }
        assert_eq!(ward.actor(), ActorId(1));
        cluster.shutdown().await.unwrap();
        let site = TestHost::start().await;
        let end = site.cluster.watch(&Raw::addr_of::<Ward>(nowhere, 1)).await.end;
        assert_eq!(end.reason, EndReason::Unknown, "{end}");
    });
}

#[test]
fn a_shutdown_resolves_watches_and_does_not_wait_for_them() {
    run(async {
        // The drain timeout would be noticed by the time limit of the test.
        let long_drain = limits(|limits: &mut Limits| limits.drain_timeout = Duration::from_secs(3600));
        let network = InProcess::Memory(Memory::new(0));
        let cluster =
            Cluster::builder().workers(2).limits(long_drain).in_process(network).start().await.unwrap();
        let (one, other) =
            (cluster.spawn::<Ward>(()).await.unwrap(), cluster.spawn::<Ward>(()).await.unwrap());
        cluster.link(&one, &other).await.unwrap();
        let handle = cluster.handle();
        let (mut watch, job) = (handle.watch(&one), handle.watch_job(model::JobId(1)));
        assert!(poll_once(&mut watch).await.is_pending());
        let mut job = Box::pin(job);
        assert!(poll_once(&mut job).await.is_pending());
        cluster.shutdown().await.unwrap();
        assert_eq!(watch.await.end.reason, EndReason::JobEnded);
        assert_eq!(job.await.reason, EndReason::JobEnded);
        assert_eq!(handle.watch(&other).await.end.reason, EndReason::JobEnded);
    });
}

#[test]
fn linked_actors_end_together_and_with_the_worker_of_the_other() {
    run(async {
        for network in networks() {
            let cluster = start(3, network).await;
            let mut wards = Vec::new();
            for _ in 0..6 {
                wards.push(cluster.spawn::<Ward>(()).await.unwrap());
            }
            for (one, other) in [(0, 1), (2, 3), (4, 5)] {
                cluster.link(&wards[one], &wards[other]).await.unwrap();
                cluster.link(&wards[one], &wards[other]).await.unwrap();
            }
            cluster.link(&wards[0], &wards[0]).await.unwrap();
            wards[1].send(Fall).await.unwrap_err();
            let end = cluster.watch(&wards[0]).await.end;
            assert_eq!(end.reason, EndReason::Linked);
            assert!(end.text.contains("Ward@") && end.text.contains("the ward fell"), "{end}");
            // The third worker ends, with `wards[2]` and `wards[5]`.
            wards[2].do_send(EndThread);
            for ward in [&wards[3], &wards[4]] {
                assert_eq!(cluster.watch(ward).await.end.reason, EndReason::Linked);
            }
            // A link with an actor that is gone stops the other one.
            let late = cluster.spawn::<Ward>(()).await.unwrap();
            cluster.link(&wards[0], &late).await.unwrap();
            assert_eq!(cluster.watch(&late).await.end.reason, EndReason::Linked);
            let later = cluster.spawn::<Ward>(()).await.unwrap();
            cluster.link(&wards[2], &later).await.unwrap();
            assert_eq!(cluster.watch(&later).await.end.reason, EndReason::Linked);
            cluster.shutdown().await.unwrap();
        }
    });
}

#[test]
fn unknown_nodes_and_jobs_have_ended() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        assert_eq!(cluster.watch_node(NodeId(99)).await.reason, EndReason::Unknown);
        assert_eq!(cluster.watch_job(model::JobId(99)).await.reason, EndReason::Unknown);
        cluster.shutdown().await.unwrap();
    });
}
