//! Blocking waits for an answer within a synchronous handler or task.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use roadshow::prelude::*;
use roadshow::{Cluster, NotDelivered, OutcomeUnknown, Request, SendError};

use crate::fixtures::{Add, Clerk};
use crate::hosts::run;

/// Blocks this thread on a future, as `futures::executor::block_on` and `pollster::block_on` do.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // Parks the thread, and with it the actor system: nothing else on this thread can run.
            Poll::Pending => thread::park(),
        }
    }
}

/// Actor with handlers that block, and with similar handlers that do not.
#[derive(RemoteActor)]
#[remote(handles(Wait, Tell, WaitFor, WaitInSpawn, PollOnce, Later))]
struct Manager {
    cluster: ClusterRef,
    kept: FuturesUnordered<Request<Add>>,
}

impl Actor for Manager {
    type Context = Context<Self>;
}

impl Spawn for Manager {
    /// Clerk to call while the actor is spawned.
    type Args = Option<RemoteAddr<Clerk>>;
    type Error = SendError;

    fn spawn(ask: Self::Args, at: &SpawnContext<Self>) -> Result<Self, SendError> {
        if let Some(clerk) = &ask {
            block_on(clerk.send(Add(1)))?;
        }
        Ok(Self { cluster: at.cluster().clone(), kept: FuturesUnordered::new() })
    }
}

/// Blocks on a clerk within the handler; returns the error's text.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct Wait(RemoteAddr<Clerk>);

impl Handler<Wait> for Manager {
    type Result = Result<u64, String>;

    fn handle(&mut self, Wait(clerk): Wait, _: &mut Context<Self>) -> Result<u64, String> {
        block_on(clerk.send(Add(1))).map_err(|error| format!("{error:?}"))
    }
}

/// Sends one-way messages within the handler and blocks on each; returns the first error's text.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
struct Tell(RemoteAddr<Clerk>, u32);

impl Handler<Tell> for Manager {
    type Result = Result<(), String>;

    fn handle(&mut self, Tell(clerk, times): Tell, _: &mut Context<Self>) -> Self::Result {
        (0..times).try_for_each(|_| block_on(clerk.tell(Add(1)))).map_err(|error| format!("{error:?}"))
    }
}

/// Blocks on a task within the handler, next to another request; returns the error's text.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct WaitFor;

impl Handler<WaitFor> for Manager {
    type Result = Result<u64, String>;

    fn handle(&mut self, _: WaitFor, _: &mut Context<Self>) -> Result<u64, String> {
        let task = self.cluster.run(double::task(1));
        block_on(task.into_future()).map_err(|error| format!("{error:?}"))
    }
}

/// Blocks on a spawn within the handler; returns the error's text.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<RemoteAddr<Clerk>, String>")]
struct WaitInSpawn;

impl Handler<WaitInSpawn> for Manager {
    type Result = Result<RemoteAddr<Clerk>, String>;

    fn handle(&mut self, _: WaitInSpawn, _: &mut Context<Self>) -> Self::Result {
        block_on(self.cluster.spawn::<Clerk>(()).into_future()).map_err(|error| format!("{error:?}"))
    }
}

/// Sends a request, polls it once and keeps it; returns the answers that have arrived.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<Result<u64, String>>")]
struct PollOnce(Option<RemoteAddr<Clerk>>);

impl Handler<PollOnce> for Manager {
    type Result = Vec<Result<u64, String>>;

    fn handle(&mut self, PollOnce(clerk): PollOnce, _: &mut Context<Self>) -> Self::Result {
        self.kept.extend(clerk.map(|clerk| clerk.send(Add(1))));
        let mut arrived = Vec::new();
        // Polls without blocking, so this is no deadlock although the request is pending.
        while let Some(Some(answer)) = self.kept.next().now_or_never() {
            arrived.push(answer.map_err(|error| error.to_string()));
        }
        arrived
    }
}

/// Awaits requests outside of the handler, in every way that actix offers.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct Later(RemoteAddr<Clerk>);

impl Handler<Later> for Manager {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, Later(clerk): Later, ctx: &mut Context<Self>) -> Self::Result {
        // The requests are created here, but polled only after the handler has returned.
        let (first, second, third) = (clerk.send(Add(1)), clerk.send(Add(1)), clerk.send(Add(1)));
        ctx.spawn(first.into_actor(self).map(|_, _, _| ()));
        // `wait` suspends the actor until the answer arrives, which needs the thread as well.
        ctx.wait(second.into_actor(self).map(|_, _, _| ()));
        let spawned = tokio::task::spawn_local(third);
        let last = clerk.send(Add(1));
        Box::pin(async move {
            spawned.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            tokio::select! {
                answer = last => answer.map_err(|error| error.to_string()),
                () = std::future::pending() => Ok(0),
            }
        })
    }
}

#[roadshow::task]
fn double(n: u64) -> u64 {
    2 * n
}

#[roadshow::task]
fn ask(clerk: RemoteAddr<Clerk>) -> Result<u64, String> {
    block_on(clerk.send(Add(1))).map_err(|error| format!("{error:?}"))
}

#[roadshow::task]
fn ask_all(clerk: RemoteAddr<Clerk>) -> Vec<Result<u64, String>> {
    let requests = (0..3).map(|_| clerk.send(Add(1)));
    let answers = block_on(futures_util::future::join_all(requests));
    answers.into_iter().map(|answer| answer.map_err(|error| format!("{error:?}"))).collect()
}

#[roadshow::task]
fn ask_when_sent(clerk: RemoteAddr<Clerk>) -> Result<u64, String> {
    // A request that is sent already must be detected as well.
    let request = clerk.try_send(Add(1)).map_err(|error| error.to_string())?;
    block_on(request).map_err(|error| format!("{error:?}"))
}

// Parallel tasks run on a thread pool, so blocking there stops no actor.
#[roadshow::task(parallel = 2)]
fn ask_beside(clerk: RemoteAddr<Clerk>) -> Result<u64, String> {
    block_on(clerk.send(Add(1))).map_err(|error| format!("{error:?}"))
}

fn deadlock() -> String {
    format!("{:?}", SendError::from(OutcomeUnknown::Deadlock))
}

#[test]
fn a_handler_that_blocks_on_an_answer_of_its_own_thread_gets_an_error() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let [here, there] = [(), ()].map(|()| cluster.spawn::<Clerk>(()));
        let (here, there) = (here.await.unwrap(), there.await.unwrap());
        let manager = cluster.spawn::<Manager>(None).await.unwrap();
        // The two clerks run in different workers: a local and a remote answer both need this thread.
        for clerk in [&here, &there] {
            let asked = manager.send(Wait(clerk.clone())).await.unwrap();
            assert_eq!(asked, Err(deadlock()), "of {clerk}");
        }
        let text = manager.send(WaitFor).await.unwrap().unwrap_err();
        assert!(text.contains("OutcomeUnknown") && text.contains("Deadlock"), "{text}");
        let text = manager.send(WaitInSpawn).await.unwrap().unwrap_err();
        assert!(text.contains("Deadlock"), "{text}");
        // The error must leave the thread usable for everything else on it.
        assert!(here.send(Add(0)).await.is_ok() && there.send(Add(0)).await.is_ok());
        assert_eq!(cluster.run(double::task(2)).await.unwrap(), 4);
        cluster.shutdown().await.unwrap();
    });
}

/// An exhausted tokio budget and a full window both make a future pending. Neither may be mistaken for a
/// deadlock.
#[test]
fn a_handler_that_blocks_on_one_way_messages_succeeds_until_the_queue_is_full() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let manager = cluster.spawn::<Manager>(None).await.unwrap();
        let [one, other] = [(), ()].map(|()| cluster.spawn::<Clerk>(()));
        for clerk in [one.await.unwrap(), other.await.unwrap()] {
            assert_eq!(clerk.send(Add(0)).await.unwrap(), 0);
            // More than a window holds, and less than a send queue.
            assert_eq!(manager.send(Tell(clerk.clone(), 40_000)).await.unwrap(), Ok(()));
            // All of them arrive, but a call of another sender may be handled first.
            let all = async { while clerk.send(Add(0)).await.unwrap() < 40_000 {} };
            tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
            assert_eq!(clerk.send(Add(0)).await.unwrap(), 40_000);
            let full = manager.send(Tell(clerk.clone(), 1_000_000)).await.unwrap();
            assert!(
                matches!(&full, Ok(())) || full == Err(format!("{:?}", NotDelivered::Deadlock)),
                "{full:?}"
            );
            // The error must leave the thread usable.
            assert!(clerk.send(Add(0)).await.is_ok());
        }
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn an_actor_that_blocks_in_its_spawn_function_fails_to_spawn() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let clerk = cluster.spawn::<Clerk>(()).await.unwrap();
        let error = cluster.spawn::<Manager>(Some(clerk)).await.unwrap_err().to_string();
        assert!(error.contains("on the very thread"), "{error}");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_task_that_blocks_on_an_answer_gets_an_error_and_a_parallel_task_the_answer() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let clerk = cluster.spawn::<Clerk>(()).await.unwrap();
        assert_eq!(cluster.run(ask::task(clerk.clone())).await.unwrap(), Err(deadlock()));
        assert_eq!(cluster.run(ask_when_sent::task(clerk.clone())).await.unwrap(), Err(deadlock()));
        let all = cluster.run(ask_all::task(clerk.clone())).await.unwrap();
        assert_eq!(all, [Err(deadlock()), Err(deadlock()), Err(deadlock())]);
        assert!(cluster.run(ask_beside::task(clerk)).await.unwrap().is_ok());
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_handler_that_polls_kept_requests_without_blocking_gets_the_answers() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let (clerk, manager) = (cluster.spawn::<Clerk>(()).await, cluster.spawn::<Manager>(None).await);
        let (clerk, manager) = (clerk.unwrap(), manager.unwrap());
        let mut arrived = manager.send(PollOnce(Some(clerk.clone()))).await.unwrap();
        while arrived.is_empty() {
            // Each poll returns to the event loop, which can then receive the answer.
            arrived = manager.send(PollOnce(None)).await.unwrap();
        }
        assert_eq!(arrived, [Ok(1)]);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn requests_awaited_outside_of_the_handler_get_their_answers() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let clerk = cluster.spawn::<Clerk>(()).await.unwrap();
        let manager = cluster.spawn::<Manager>(None).await.unwrap();
        assert!(manager.send(Later(clerk.clone())).await.unwrap().is_ok());
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn deadlock_errors_name_the_alternatives() {
    let texts = [SendError::from(NotDelivered::Deadlock), OutcomeUnknown::Deadlock.into()];
    for text in texts.map(|error| error.to_string()) {
        assert!(text.contains("`ResponseFuture`") && text.contains("parallel = n"), "{text}");
    }
}
