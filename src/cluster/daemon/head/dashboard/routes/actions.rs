//! Actions: stop a job, kill an actor, drain a node.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::lists::unknown_code;
use super::session::json_body;
use crate::cluster::admin::{AdminError, Kind};
use crate::cluster::daemon::head::dashboard::reply::ApiError;
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, admin};
use crate::cluster::listing::hexadecimal;
use crate::cluster::model::{ActorKey, JobId, NodeId};

/// Body of a kill.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kill {
    /// Kills the worker of the actor, with all its actors.
    force: bool,
}

/// Kills an actor. The reply says that the kill has begun: the actor may still handle a message.
pub(super) async fn kill(
    shared: web::Data<Shared>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let Kill { force } = if body.is_empty() { Kill::default() } else { json_body(&request, &body)? };
    let actor = ActorKey(id_of(&id, Kind::Actors)?);
    let mut head = admin(&shared.source, Destination::Head);
    let killed = if force { head.kill_worker_of(actor).await } else { head.kill(actor).await };
    done(StatusCode::ACCEPTED, killed, Kind::Actors)
}

/// Drains a node. The reply says that the drain has begun: the jobs of the node run on.
pub(super) async fn drain(
    shared: web::Data<Shared>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let node = NodeId(id_of(&id, Kind::Nodes)?);
    let drained = admin(&shared.source, Destination::Head).drain(node).await;
    done(StatusCode::ACCEPTED, drained, Kind::Nodes)
}

/// Stops a job.
pub(super) async fn stop(shared: web::Data<Shared>, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let number = u32::try_from(id_of(&id, Kind::Jobs)?).map_err(|_| unknown(&id, Kind::Jobs))?;
    let stopped = admin(&shared.source, Destination::Head).stop_job(JobId(number)).await;
    done(StatusCode::OK, stopped, Kind::Jobs)
}

fn done(status: StatusCode, outcome: Result<(), AdminError>, kind: Kind) -> Result<HttpResponse, ApiError> {
    outcome.map_err(|error| ApiError::of(error, unknown_code(kind)))?;
    Ok(HttpResponse::build(status).json(json!({"done": true})))
}

fn id_of(text: &str, kind: Kind) -> Result<u64, ApiError> {
    hexadecimal(text).ok_or_else(|| unknown(text, kind))
}

fn unknown(text: &str, kind: Kind) -> ApiError {
    let message = format!("{text:?} is no id in hexadecimal digits; see /api/v0/{}", kind.name());
    ApiError::new(StatusCode::NOT_FOUND, unknown_code(kind), message)
}
