//! Traces: a span of each request, below which those of handlers and tasks are.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use roadshow::observe::trace::{self, otlp};
use tracing::Instrument;
use tracing::field::Empty;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

// Workers export their own spans.
roadshow::worker_setup!(subscribe);

/// Exports the spans of this process.
pub(crate) fn subscribe() {
    match otlp::layer("web_server") {
        Ok(spans) => tracing_subscriber::registry().with(LevelFilter::INFO).with(spans).init(),
        Err(error) => eprintln!("no spans are exported: {error}"),
    }
}

/// Handles a request in a span, whose parent is that of the client if it sends a `traceparent`.
pub(crate) async fn of_request(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let name = format!("{} {path}", request.method());
    let span = tracing::info_span!("request", otel.name = name, otel.kind = "server", status = Empty);
    let parent = request.headers().get("traceparent").and_then(|parent| parent.to_str().ok()?.parse().ok());
    if let Some(parent) = parent {
        trace::set_parent(&span, parent);
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    response
}
