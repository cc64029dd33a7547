//! Export of spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! The standard variables apply, each with its own default: `OTEL_EXPORTER_OTLP_ENDPOINT`
//! (`http://localhost:4318`), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, and those of the batch processor. A worker on a node has those
//! that the driver passes with [`ClusterBuilder::env`](crate::ClusterBuilder::env).
//!
//! The endpoint is plain HTTP, as of a collector on the same machine; `https` is refused.
//!
//! Spans are queued and sent by a thread of their own. A full queue drops spans, and never delays a handler. A
//! collector that does not respond delays [`flush`](super::flush), and so the end of the driver, by up to five
//! seconds. A worker waits for half a second, and loses what was not sent by then.
//!
//! # Examples
//!
//! ```no_run
//! use roadshow::observe::trace::otlp;
//! use tracing_subscriber::filter::LevelFilter;
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! fn subscribe() {
//!     match otlp::layer("words") {
//!         Ok(spans) => tracing_subscriber::registry().with(LevelFilter::INFO).with(spans).init(),
//!         Err(error) => eprintln!("no spans are exported: {error}"),
//!     }
//! }
//!
//! // The same for workers, which are processes of their own.
//! roadshow::worker_setup!(subscribe);
//!
//! fn main() {
//!     roadshow::run_if_worker();
//!     subscribe();
//!     // ...
//!     roadshow::observe::trace::flush();
//! }
//! ```

use std::error::Error as StdError;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::{Propagator, PropagatorAlreadySet, TraceContext, set_propagator};

/// Variable with the name of the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Variables with the endpoint of the collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Error of an exporter that cannot be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A variable is invalid, or the HTTP client cannot be created.
    #[error("cannot create the exporter of spans; check the variables OTEL_EXPORTER_OTLP_..")]
    Exporter(#[source] Box<dyn StdError + Send + Sync>),
    /// The endpoint needs TLS.
    #[error(
        "spans are exported over plain HTTP: set {variable} to a collector on this machine, which may use TLS"
    )]
    Tls {
        /// Variable with the endpoint.
        variable: &'static str,
    },
    /// The process has a propagator.
    #[error(transparent)]
    Propagator(#[from] PropagatorAlreadySet),
}

/// Creates a layer that exports the spans of this process, and makes it the propagator of this process.
///
/// `OTEL_SERVICE_NAME` overrides `service`, the name of the program. The process id is an attribute of the
/// resource, so that workers can be told apart.
///
/// # Errors
///
/// When a variable is invalid, or when the process has a propagator.
pub fn layer<S>(service: &str) -> Result<impl Layer<S> + Send + Sync + use<S>, OtlpError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let is_tls =
        |variable: &str| std::env::var(variable).is_ok_and(|endpoint| endpoint.starts_with("https:"));
    if let Some(variable) = ENDPOINTS.into_iter().find(|variable| is_tls(variable)) {
        return Err(OtlpError::Tls { variable });
    }
    let exporter = SpanExporter::builder().with_http().build();
    let exporter = exporter.map_err(|error| OtlpError::Exporter(error.into()))?;
    let service = std::env::var(SERVICE_NAME).unwrap_or_else(|_| service.to_owned());
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("roadshow"));
    set_propagator(OpenTelemetry(provider))?;
    Ok(layer)
}

/// Propagator over the spans of OpenTelemetry.
struct OpenTelemetry(SdkTracerProvider);

impl Propagator for OpenTelemetry {
    fn current(&self) -> Option<TraceContext> {
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        let trace_id = u128::from_be_bytes(span.trace_id().to_bytes());
        let span_id = u64::from_be_bytes(span.span_id().to_bytes());
        TraceContext::new(trace_id, span_id, span.trace_flags().to_u8())
    }

    fn set_parent(&self, span: &Span, parent: TraceContext) {
        let parent = SpanContext::new(
            TraceId::from_bytes(parent.trace_id().to_be_bytes()),
            SpanId::from_bytes(parent.span_id().to_be_bytes()),
            TraceFlags::new(parent.flags()),
            true,
            TraceState::default(),
        );
        // Fails if the subscriber does not record the span.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }

    fn flush(&self) {
        if let Err(error) = self.0.force_flush() {
            tracing::warn!(%error, "some spans were not exported");
        }
    }
}
