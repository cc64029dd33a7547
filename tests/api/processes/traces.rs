//! Trace contexts between a driver, actors and tasks of a worker process.

use std::convert::Infallible;

use roadshow::observe::trace::{self, TraceContext};
use roadshow::prelude::*;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::driver::{Driver, report};
use super::tracing::SETUP;

/// Value of [`SETUP`] for a worker with trace contexts.
pub(super) const SPANS: &str = "spans";

/// Installs a subscriber with trace contexts.
pub(super) fn subscribe() {
    tracing_subscriber::registry().with(trace::layer()).init();
}

/// Context of the current span, in the text form.
type Seen = Option<String>;

fn seen() -> Seen {
    trace::current().map(|context| context.to_string())
}

#[derive(RemoteActor)]
#[remote(handles(Look, LookLater, LookInActor, LookAhead, Told, Fail))]
struct Watcher {
    told: Seen,
}

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Spawn for Watcher {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { told: None })
    }
}

/// Returns the context of the handler, and then the one of an earlier one-way message.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(Seen, Seen)")]
struct Look;

impl Handler<Look> for Watcher {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Context<Self>) -> Self::Result {
        MessageResult((seen(), self.told.take()))
    }
}

/// Returns the contexts before and after a future waits.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(Seen, Seen)")]
struct LookLater;

impl Handler<LookLater> for Watcher {
    type Result = ResponseFuture<(Seen, Seen)>;

    fn handle(&mut self, _: LookLater, _: &mut Context<Self>) -> Self::Result {
        let before = seen();
        Box::pin(async {
            tokio::task::yield_now().await;
            (before, seen())
        })
    }
}

/// [`LookLater`] with a future in the actor's context.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(Seen, Seen)")]
struct LookInActor;

impl Handler<LookInActor> for Watcher {
    type Result = ResponseActFuture<Self, (Seen, Seen)>;

    fn handle(&mut self, _: LookInActor, _: &mut Context<Self>) -> Self::Result {
        let before = seen();
        Box::pin(tokio::task::yield_now().into_actor(self).map(|(), _, _| (before, seen())))
    }
}

/// Returns the context of the handler, and the one of another actor that it calls.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<Seen>")]
struct LookAhead(RemoteAddr<Watcher>);

impl Handler<LookAhead> for Watcher {
    type Result = ResponseFuture<Vec<Seen>>;

    fn handle(&mut self, LookAhead(other): LookAhead, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            let here = seen();
            let (there, _) = other.send(Look).await.unwrap_or_default();
            vec![here, there]
        })
    }
}

/// Is recorded for the next [`Look`].
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Told;

impl Handler<Told> for Watcher {
    type Result = ();

    fn handle(&mut self, _: Told, _: &mut Context<Self>) {
        self.told = seen();
    }
}

/// Ends the actor with a panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Fail;

impl Handler<Fail> for Watcher {
    type Result = ();

    fn handle(&mut self, _: Fail, _: &mut Context<Self>) {
        panic!("as asked");
    }
}

#[roadshow::task]
fn look() -> Option<String> {
    seen()
}

#[roadshow::task(parallel = 2)]
fn look_in_pool() -> Option<String> {
    seen()
}

/// Driver: reports the contexts of all kinds of messages within one span, and outside of it.
pub(super) async fn drive(_: &str) {
    subscribe();
    let cluster = Cluster::local(1).await.unwrap();
    let [watcher, other] = [cluster.spawn::<Watcher>(()).await.unwrap(), cluster.spawn(()).await.unwrap()];
    let look_around = async || {
        let mut all = vec![seen()];
        watcher.tell(Told).await.unwrap();
        for pair in [
            watcher.send(Look).await.unwrap(),
            watcher.send(LookLater).await.unwrap(),
            watcher.send(LookInActor).await.unwrap(),
        ] {
            all.extend([pair.0, pair.1]);
        }
        all.extend(watcher.send(LookAhead(other.clone())).await.unwrap());
        all.push(cluster.run(look::task()).await.unwrap());
        all.push(cluster.run(look_in_pool::task()).await.unwrap());
        all
    };
    let outside = look_around().await;
    report(format!("outside {outside:?}"));
    let inside = look_around().instrument(tracing::info_span!("driver")).await;
    for context in inside {
        report(format!("inside {}", context.unwrap_or_default()));
    }
    // The span of a handler that panics is left as well.
    async {
        watcher.send(Fail).await.unwrap_err();
    }
    .instrument(tracing::info_span!("failure"))
    .await;
    report(format!("after {:?}", other.send(Look).await.unwrap()));
    cluster.shutdown().await.unwrap();
    std::process::exit(0);
}

#[test]
fn handlers_and_tasks_are_in_the_trace_of_their_caller() {
    let mut command = Driver::command("traces");
    command.env(SETUP, SPANS);
    let mut driver = Driver::start(command);
    let outside = driver.next_report();
    assert!(outside.contains("None") && !outside.contains("Some"), "{outside}");
    let seen: Vec<TraceContext> = (0..11)
        .map(|_| {
            driver.next_report().strip_prefix("inside ").expect("a context").parse().expect("a traceparent")
        })
        .collect();
    assert_eq!(driver.next_report(), "after (None, None)");
    driver.wait();
    assert!(
        seen.iter().all(|context| context.trace_id() == seen[0].trace_id() && context.is_sampled()),
        "{seen:?}"
    );
    // Each handler has one span, before and after its future waits: (3, 4) and (5, 6).
    let mut spans: Vec<_> = seen.iter().map(|context| context.span_id()).collect();
    assert_eq!((spans[3], spans[5]), (spans[4], spans[6]));
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 9, "{seen:?}");
}
