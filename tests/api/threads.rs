//! `Send` and `Sync` of the public types, and a cluster on a runtime other than actix's.

use std::sync::Arc;
use std::time::Duration;

use roadshow::errors::{
    CredentialsError, DisconnectReason, ElfError, ExecutableError, HostError, Platform, PlatformMismatch,
    RegistryError, RequestError, Role, TokenRpcError,
};
use roadshow::prelude::*;
use roadshow::*;

use crate::fixtures::{Add, Clerk, Note};

/// Durable state.
#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Add))]
struct Tally(u64);

impl Durable for Tally {
    type Args = u64;
    type Event = u64;

    fn create(start: u64) -> Self {
        Self(start)
    }

    fn apply(&mut self, n: &u64) {
        self.0 += n;
    }
}

impl Decide<Add> for Tally {
    fn decide(&self, Add(n): Add, decision: &mut Decision<Self>) -> <Add as Message>::Result {
        decision.record(n);
        self.0 + n
    }
}

#[roadshow::task(type = Square)]
fn square(n: u64) -> u64 {
    n * n
}

fn send<T: Send + 'static>() {}

fn send_and_sync<T: Send + Sync + 'static>() {}

/// Takes a future like `tokio::spawn` on a multi-threaded runtime.
fn spawnable<F: Future<Output: Send> + Send + 'static>(_: fn() -> F) {}

/// Placeholder for a value; the test only has to compile.
fn any<T>() -> T {
    unreachable!("the future is never created")
}

#[test]
fn public_types_are_send_and_sync() {
    send_and_sync::<Cluster>();
    send_and_sync::<Arc<Cluster>>();
    send_and_sync::<ClusterBuilder>();
    send_and_sync::<ClusterRef>();
    send_and_sync::<WorkerInfo>();
    send_and_sync::<InProcess>();
    send_and_sync::<Limits>();
    send_and_sync::<Memory>();
    send_and_sync::<Platform>();
    send_and_sync::<Payload>();
    send_and_sync::<RemoteAddr<Clerk>>();
    send_and_sync::<RemoteRecipient<Add>>();
    send_and_sync::<SpawnContext<Clerk>>();
    send_and_sync::<Retry>();
    send_and_sync::<Restart>();
    send_and_sync::<RestartPlace>();
    send_and_sync::<Supervision>();
    send_and_sync::<NodeId>();
    send_and_sync::<Resources>();
    send_and_sync::<Strategy>();
    send_and_sync::<Lifetime>();
    send_and_sync::<End>();
    send_and_sync::<EndReason>();
    send_and_sync::<Terminated>();
    send_and_sync::<Task<Square>>();
    send_and_sync::<internals::host::Host>();
    send_and_sync::<DurableAddr<Tally>>();
    send_and_sync::<CallKey>();
    send_and_sync::<model::NodeInfo>();
    send_and_sync::<model::ActorInfo>();
    send_and_sync::<observe::HostSnapshot>();
}

#[test]
fn errors_are_send_and_sync() {
    send_and_sync::<Error>();
    send_and_sync::<ClusterError>();
    send_and_sync::<CredentialsError>();
    send_and_sync::<DisconnectReason>();
    send_and_sync::<RequestError>();
    send_and_sync::<Role>();
    send_and_sync::<RegistryError>();
    send_and_sync::<TokenRpcError>();
    send_and_sync::<ElfError>();
    send_and_sync::<ExecutableError>();
    send_and_sync::<PlatformMismatch>();
    send_and_sync::<FindError>();
    send_and_sync::<NotDelivered>();
    send_and_sync::<OutcomeUnknown>();
    send_and_sync::<PlacementError>();
    send_and_sync::<SendError>();
    send_and_sync::<SpawnError>();
    send_and_sync::<TaskError>();
    send_and_sync::<TrySendError<Add>>();
    send_and_sync::<HostError>();
}

#[test]
fn requests_are_send() {
    // Requests hold messages, arguments and closures, which need not be `Sync`.
    send::<Request<Add>>();
    send::<Watch>();
    send::<SpawnRequest<Clerk>>();
    // Their states and events need not be `Sync`.
    send::<DurableActor<Tally>>();
    send::<DurableSpawn<Tally>>();
    send::<DurableRequest<Tally, Add>>();
    send::<Decision<Tally>>();
    send::<RunTask<Square>>();
    send::<RunAll<'static, Square>>();
}

#[test]
fn futures_can_run_on_a_multi_threaded_runtime() {
    spawnable(Cluster::init);
    spawnable(|| Cluster::local(1));
    spawnable(|| Cluster::in_process(1));
    spawnable(|| Cluster::builder().start());
    spawnable(|| any::<Cluster>().shutdown());
    spawnable(|| async { any::<Arc<Cluster>>().nodes().await });
    spawnable(|| async { any::<Arc<Cluster>>().actors().await });
    spawnable(|| async { any::<Arc<Cluster>>().kill(any()).await });
    spawnable(|| async { any::<Arc<Cluster>>().actor::<Clerk>("clerk").await });
    spawnable(|| async { any::<Arc<Cluster>>().actor_in::<Clerk>("here", "clerk").await });
    spawnable(|| any::<ClusterRef>().spawn::<Clerk>(()).name("clerk").into_future());
    spawnable(|| any::<ClusterRef>().run(any::<Task<Square>>()).timeout(any()).into_future());
    spawnable(|| any::<ClusterRef>().run_all(any::<Vec<Task<Square>>>()).progress(|_, _| {}).into_future());
    spawnable(|| any::<RemoteAddr<Clerk>>().send(Add(1)).timeout(any::<Duration>()).retry(Retry::default()));
    spawnable(|| any::<RemoteAddr<Clerk>>().tell(Note(1)));
    spawnable(|| any::<ClusterRef>().spawn_durable::<Tally>(0).name("tally").into_future());
    spawnable(|| any::<DurableAddr<Tally>>().send(Add(1)).key("once").retry(Retry::default()));
    spawnable(|| any::<RemoteAddr<Clerk>>().stop());
    spawnable(|| any::<RemoteRecipient<Add>>().send(Add(1)));
    spawnable(|| any::<RemoteRecipient<Add>>().tell(Add(1)));
    spawnable(|| async {
        let cluster = Cluster::init().await?;
        let clerk = cluster.spawn::<Clerk>(()).await?;
        let sum = clerk.send(Add(2)).await?;
        cluster.shutdown().await?;
        Ok::<_, Error>(sum)
    });
}

/// Runs a future on a thread with a plain tokio runtime and no actix system.
fn on_plain_runtime<F: Future<Output: Send> + Send + 'static>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let thread = std::thread::spawn(move || {
        assert!(actix_rt::System::try_current().is_none());
        runtime.block_on(async { tokio::spawn(work).await.unwrap() })
    });
    thread.join().unwrap()
}

async fn use_all(cluster: Cluster) -> Result<(), Error> {
    let cluster = Arc::new(cluster);
    let clerk = cluster.spawn::<Clerk>(()).name("clerk").await?;
    assert_eq!(clerk.send(Add(2)).timeout(Duration::from_secs(30)).await?, 2);
    clerk.tell(Note(1)).await?;
    assert_eq!(cluster.actor::<Clerk>("clerk").await?, clerk);
    assert_eq!(cluster.run(Square::task(3)).timeout(Duration::from_secs(30)).await?, 9);
    assert_eq!(cluster.run_all((1..4).map(Square::task)).await?, [1, 4, 9]);
    assert_eq!(cluster.nodes().await?.len(), 1);
    for actor in cluster.actors().await? {
        cluster.kill(actor.actor_id).await?;
    }
    Arc::into_inner(cluster).unwrap().shutdown().await?;
    Ok(())
}

#[test]
fn a_cluster_of_processes_needs_no_actix_system_in_its_driver() {
    on_plain_runtime(async { use_all(Cluster::local(1).await?).await }).unwrap();
}

#[test]
fn an_in_process_cluster_needs_no_actix_system_in_its_driver() {
    on_plain_runtime(async { use_all(Cluster::in_process(2).await?).await }).unwrap();
}
