//! Trace contexts of messages: the `tracing` spans of a driver, of handlers and of tasks form one tree.
//!
//! A [`Propagator`] connects the library to whatever records the spans of a process. If there is one, a message
//! carries the W3C trace context of the span in which it is sent. The receiver then opens a span for the handler
//! or the task, as a child of that span: `handle` with the fields `actor`, `message` and `trace_id`, or `task`
//! with `function` and `trace_id`. Both are at level INFO, with the target `roadshow::trace`. They cover the
//! futures of handlers that return `ResponseFuture` or `ResponseActFuture`.
//!
//! A message that is sent outside of all spans carries no context, and its handler gets no span. Without a
//! propagator a message costs a load and a few branches. A message with a context is not packed with short ones.
//!
//! | recorder | propagator |
//! |---|---|
//! | logs of `tracing-subscriber` | [`layer`] |
//! | OpenTelemetry, exported by OTLP | `otlp::layer`, with the feature `otlp` |
//! | any other | an implementation of [`Propagator`] for [`set_propagator`] |
//!
//! Driver and workers are processes of their own. Each sets up its subscriber: the driver in `main`, workers
//! with [`worker_setup!`](crate::worker_setup).
//!
//! # Examples
//!
//! ```no_run
//! use roadshow::observe::trace;
//! use roadshow::prelude::*;
//! use tracing::Instrument;
//! use tracing_subscriber::filter::LevelFilter;
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! fn subscribe() {
//!     let logs = tracing_subscriber::fmt::layer();
//!     tracing_subscriber::registry().with(LevelFilter::INFO).with(logs).with(trace::layer()).init();
//! }
//!
//! roadshow::worker_setup!(subscribe);
//!
//! #[roadshow::task]
//! fn square(n: u64) -> u64 {
//!     tracing::info!(n, "squared"); // Shows the span of the task, with the trace id of the driver's span.
//!     n * n
//! }
//!
//! #[roadshow::main]
//! async fn main() -> Result<(), roadshow::Error> {
//!     subscribe();
//!     let cluster = Cluster::init().await?;
//!     let squares = cluster.run_all((1..=4).map(square::task)).into_future();
//!     println!("{:?}", squares.instrument(tracing::info_span!("squares")).await?);
//!     Ok(cluster.shutdown().await?)
//! }
//! ```

mod contexts;
#[cfg(feature = "otlp")]
pub mod otlp;

use std::fmt;
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::Span;
use tracing::field::Empty;
use tracing::span::EnteredSpan;

pub use crate::id::{InvalidTraceContext, TraceContext};
pub use contexts::{ContextLayer, layer};

/// Target of the spans of handlers and tasks.
const TARGET: &str = "roadshow::trace";

/// Connection to what records the spans of a process.
pub trait Propagator: Send + Sync + 'static {
    /// Returns the context of the span that is current on this thread.
    ///
    /// Called for each message that is sent. `None` sends no context.
    fn current(&self) -> Option<TraceContext>;

    /// Makes a span of another process the parent of `span`, which was never entered.
    fn set_parent(&self, span: &Span, parent: TraceContext);

    /// Exports the spans that have ended; may block.
    ///
    /// Called before a worker ends, and by [`flush`].
    fn flush(&self) {}
}

/// Propagator of this process.
static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Error of a process that has a propagator already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this process has a propagator already; set one, and use one of the layers that set it")]
pub struct PropagatorAlreadySet;

/// Sets the propagator of this process, for its whole life.
///
/// # Errors
///
/// When the process has one already.
pub fn set_propagator(propagator: impl Propagator) -> Result<(), PropagatorAlreadySet> {
    PROPAGATOR.set(Box::new(propagator)).map_err(|_| PropagatorAlreadySet)
}

/// Exports the spans of this process that have ended, and may block until they have left.
///
/// `#[roadshow::main]` calls it after `main`. A worker calls it when it ends, and waits for at most
/// half a second.
pub fn flush() {
    if let Some(propagator) = PROPAGATOR.get() {
        propagator.flush();
    }
}

/// [`flush`] on a thread of its own, for which it waits for a bounded time.
pub(crate) fn flush_within(limit: Duration) {
    if PROPAGATOR.get().is_none() {
        return;
    }
    let (report_end, ended) = sync_channel(1);
    let flushing = thread::Builder::new().name("roadshow-flush".to_owned()).spawn(move || {
        flush();
        // The receiver is gone once the time has passed.
        let _ = report_end.send(());
    });
    if flushing.is_ok() {
        let _ = ended.recv_timeout(limit);
    }
}

/// Makes a span of another process the parent of `span`, which was never entered. Without a propagator it does
/// nothing.
///
/// The parent may come from the `traceparent` header of a request.
pub fn set_parent(span: &Span, parent: TraceContext) {
    if let Some(propagator) = PROPAGATOR.get() {
        propagator.set_parent(span, parent);
    }
}

/// Context of the current span, which a message would carry; `None` without a propagator or a span.
///
/// Use its text form as the `traceparent` header of a request to another system.
#[inline]
#[must_use]
pub fn current() -> Option<TraceContext> {
    PROPAGATOR.get().and_then(|propagator| propagator.current())
}

/// Span in which futures of a handler run: the current one, or a disabled one without a propagator.
#[inline]
pub(crate) fn current_span() -> Span {
    if PROPAGATOR.get().is_some() { Span::current() } else { Span::none() }
}

/// Enters a span for the handler of a message with this context.
#[inline]
pub(crate) fn enter_handler(
    context: Option<Box<TraceContext>>,
    actor: &'static str,
    message: &'static str,
) -> Option<EnteredSpan> {
    context.map(|context| handler_span(*context, actor, message).entered())
}

#[cold]
fn handler_span(context: TraceContext, actor: &'static str, message: &'static str) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "handle",
        otel.name = %Call(actor, message),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        actor,
        message,
        trace_id = %TraceId(context),
    );
    with_parent(span, context)
}

/// Enters a span for a task whose call has this context.
pub(crate) fn enter_task(context: Option<Box<TraceContext>>, function: &'static str) -> Option<EnteredSpan> {
    let context = context?;
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "task",
        otel.name = short(function),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        function,
        trace_id = %TraceId(*context),
    );
    Some(with_parent(span, *context).entered())
}

fn with_parent(span: Span, context: TraceContext) -> Span {
    set_parent(&span, context);
    span
}

/// Records a panic in the span of its handler or task.
pub(crate) fn record_panic(span: &Span, text: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", text);
}

/// Name of a handler's span.
struct Call(&'static str, &'static str);

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", short(self.0), short(self.1))
    }
}

struct TraceId(TraceContext);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.trace_id())
    }
}

/// Last segment of a path.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}
