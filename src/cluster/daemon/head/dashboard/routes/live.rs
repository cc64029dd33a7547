//! Routes of the history, the event stream and the metrics.

use std::time::Instant;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::lists::Parameters;
use crate::cluster::daemon::head::dashboard::guard::session_of;
use crate::cluster::daemon::head::dashboard::history::{History, TimeAxis, series};
use crate::cluster::daemon::head::dashboard::metrics;
use crate::cluster::daemon::head::dashboard::reply::{ApiError, JsonReply, reply};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::listing::hexadecimal;
use crate::cluster::model::NodeId;

/// Age of a sample, in milliseconds, beyond which it is no answer of `/metrics`.
const SAMPLE_AGE_MS_MAX: u64 = 60_000;

/// Parameters of a request for series.
#[derive(Debug)]
struct SeriesQuery {
    range: String,
    /// Numbers of the series; all if there are none.
    names: Vec<usize>,
    node: Option<NodeId>,
}

/// Shows series over a range.
pub(super) async fn series(shared: web::Data<Shared>, parameters: web::Query<Parameters>) -> JsonReply {
    let query = series_query(&parameters)?;
    let history = shared.history();
    let Some(axis) = history.range(&query.range) else {
        let text = format!("there is no range {:?}; the ranges are 15m, 1h and 24h", query.range);
        return Err(ApiError::bad_query(text));
    };
    let is_known = query.node.is_none_or(|node| history.nodes().any(|known| known == node));
    if !is_known {
        let text = "the history has no series of this node; see /api/v0/nodes";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_node", text));
    }
    let wanted = |number: &usize| query.names.is_empty() || query.names.contains(number);
    let count = if query.node.is_some() { series::OF_NODES } else { series::COUNT };
    let shown: Vec<_> =
        (0..count).filter(wanted).filter_map(|number| one(&history, &axis, query.node, number)).collect();
    reply(json!({"time_ms": axis.time_ms, "series": shown}))
}

fn one(history: &History, axis: &TimeAxis, node: Option<NodeId>, number: usize) -> Option<Value> {
    let (name, unit) = series::name(number);
    let values = history.points(axis, node, number)?;
    Some(json!({"name": name, "node_id": node, "unit": unit, "values": values}))
}

fn series_query(parameters: &Parameters) -> Result<SeriesQuery, ApiError> {
    let mut query = SeriesQuery { range: "15m".to_owned(), names: Vec::new(), node: None };
    for (name, value) in parameters {
        match name.as_str() {
            "range" => query.range.clone_from(value),
            "name" => {
                let number = series::number(value);
                query.names.push(number.ok_or_else(|| {
                    let names = (0..series::COUNT).map(|number| series::name(number).0).collect::<Vec<_>>();
                    ApiError::bad_query(format!(
                        "there is no series {value:?}; there are {}",
                        names.join(", ")
                    ))
                })?);
            }
            "node" => {
                let id = hexadecimal(value).map(NodeId);
                query.node = Some(id.ok_or_else(|| ApiError::bad_query(format!("{value:?} is no node id")))?);
            }
            _ => {
                let text = format!("there is no parameter {name:?}; there are range, name and node");
                return Err(ApiError::bad_query(text));
            }
        }
    }
    Ok(query)
}

/// Opens an event stream.
pub(super) async fn stream(
    shared: web::Data<Shared>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let session = session_of(&shared, request.headers());
    let session = session.filter(|session| shared.access.is_session(Instant::now(), session));
    let Some(events) = shared.broadcaster.subscribe(session.map(str::to_owned)) else {
        let text = "too many pages watch the cluster; close one";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text));
    };
    let events = stream::unfold(events, async |mut events| Some((events.recv().await?, events)));
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        // Proxies must pass each event on.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events.map(Ok::<_, ApiError>)))
}

/// Shows the metrics of the latest sample.
pub(super) async fn metrics(shared: web::Data<Shared>) -> Result<HttpResponse, ApiError> {
    let Some(observation) = shared.observation() else {
        let text = "the first sample is being taken; try again in two seconds";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_sample", text));
    };
    // Alerts about missing series must fire if the samples have stopped.
    let age_ms = shared.source.now_ms().saturating_sub(observation.sample.time_ms);
    if age_ms > SAMPLE_AGE_MS_MAX {
        let text = "the last sample is over a minute old; see the head's log";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_sample", text));
    }
    let text = metrics::text(&observation, shared.broadcaster.len());
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, metrics::CONTENT_TYPE)).body(text))
}
