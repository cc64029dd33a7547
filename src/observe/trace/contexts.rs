//! Layer that gives each span a trace context, and the propagator over it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Span, Subscriber, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Propagator, TraceContext, set_propagator};

/// Flags of the traces that begin here: recorded.
const FLAGS: u8 = 1;

/// Layer of a `tracing-subscriber` registry that gives each span a W3C trace context.
///
/// It records nothing: other layers do. Spans that its filters exclude have no context. See [`layer`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ContextLayer;

/// Creates a layer that gives each span a trace context, and makes it the propagator of this process.
///
/// It has no effect on a subscriber that is not based on `tracing_subscriber::Registry`, and none on messages if
/// the process has another propagator.
#[must_use]
pub fn layer() -> ContextLayer {
    // A second layer of this kind, or of a test, uses the same propagator.
    let _ = set_propagator(SpanContexts);
    ContextLayer
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ContextLayer {
    fn on_new_span(&self, _attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<TraceContext>().copied());
        let context = parent.map_or_else(root, child);
        // Not `insert`, which panics if the subscriber has the layer twice.
        span.extensions_mut().replace(context);
    }
}

/// Propagator over the contexts of [`ContextLayer`].
struct SpanContexts;

impl Propagator for SpanContexts {
    fn current(&self) -> Option<TraceContext> {
        dispatcher::get_default(|dispatch| {
            let id = dispatch.current_span().id()?.clone();
            registry(dispatch)?.span(&id)?.extensions().get::<TraceContext>().copied()
        })
    }

    fn set_parent(&self, span: &Span, parent: TraceContext) {
        span.with_subscriber(|(id, dispatch)| {
            if let Some(span) = registry(dispatch).and_then(|registry| registry.span(id)) {
                span.extensions_mut().replace(child(parent));
            }
        });
    }
}

fn registry(dispatch: &Dispatch) -> Option<&Registry> {
    dispatch.downcast_ref()
}

/// Context of a span that begins a trace.
fn root() -> TraceContext {
    let trace_id = u128::from(random()) << 64 | u128::from(random());
    // Neither id is zero.
    TraceContext::new(trace_id | 1, random() | 1, FLAGS).expect("ids with a bit that is set")
}

/// Context of a span below `parent`.
fn child(parent: TraceContext) -> TraceContext {
    TraceContext::new(parent.trace_id(), random() | 1, parent.flags()).expect("ids with a bit that is set")
}

/// Random number of SplitMix64, with a seed of its own in each thread.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Runs `test` with a subscriber that has the layer.
    fn with_layer(test: impl FnOnce()) {
        let _ = layer();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(ContextLayer), test);
    }

    #[test]
    fn spans_of_a_trace_share_its_id_and_differ_in_their_own() {
        with_layer(|| {
            assert_eq!(SpanContexts.current(), None);
            let outer = tracing::info_span!("outer").entered();
            let outer_context = SpanContexts.current().unwrap();
            {
                let _inner = tracing::info_span!("inner").entered();
                let inner_context = SpanContexts.current().unwrap();
                assert_eq!(inner_context.trace_id(), outer_context.trace_id());
                assert_ne!(inner_context.span_id(), outer_context.span_id());
            }
            drop(outer);
            let _other = tracing::info_span!("other").entered();
            assert_ne!(SpanContexts.current().unwrap().trace_id(), outer_context.trace_id());
        });
    }

    #[test]
    fn a_span_of_another_process_becomes_the_parent() {
        with_layer(|| {
            let remote = TraceContext::new(7, 9, 0).unwrap();
            let _local = tracing::info_span!("local").entered();
            let span = tracing::info_span!(parent: None, "handler");
            SpanContexts.set_parent(&span, remote);
            let _entered = span.entered();
            let context = SpanContexts.current().unwrap();
            assert_eq!((context.trace_id(), context.flags()), (7, 0));
            assert_ne!(context.span_id(), 9);
        });
    }
}
