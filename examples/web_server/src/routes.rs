//! Paths of the server and their handlers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Result;
use axum::routing::{get, post};
use axum::{Json, Router};
use roadshow::Cluster;
use roadshow::prelude::*;

use crate::failure::Failure;
use crate::work::{Report, Visit, Visits, quotient, square};

/// Time limit of a request in the workers. The client then gets an error, and the work is cancelled.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// State of every request.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) visits: RemoteAddr<Visits>,
}

pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/workers", get(workers))
        .route("/square/{n}", get(square_of))
        .route("/quotient/{n}/{by}", get(quotient_of))
        .route("/visits/{page}", post(visit))
        .route("/report/{milliseconds}", get(report))
        .route("/visits", axum::routing::delete(close))
        .with_state(app)
}

/// Lists the worker processes.
async fn workers(State(app): State<App>) -> Json<Vec<u32>> {
    Json(app.cluster.workers().iter().map(|worker| worker.pid).collect())
}

async fn square_of(State(app): State<App>, Path(n): Path<u64>) -> Result<Json<u64>> {
    let square = app.cluster.run(square::task(n)).timeout(ANSWER_TIMEOUT).await.map_err(Failure::from)?;
    Ok(Json(square.ok_or((StatusCode::UNPROCESSABLE_ENTITY, "the square is too large\n"))?))
}

async fn quotient_of(State(app): State<App>, Path((n, by)): Path<(u64, u64)>) -> Result<Json<u64>, Failure> {
    Ok(Json(app.cluster.run(quotient::task(n, by)).timeout(ANSWER_TIMEOUT).await?))
}

async fn visit(State(app): State<App>, Path(page): Path<String>) -> Result<Json<u64>, Failure> {
    Ok(Json(app.visits.send(Visit(page)).timeout(ANSWER_TIMEOUT).await?))
}

async fn report(State(app): State<App>, Path(milliseconds): Path<u64>) -> Result<Json<u64>, Failure> {
    let takes = Duration::from_millis(milliseconds);
    // A report counts as a visit. The visit is counted first: messages from one process to one actor keep
    // their order.
    app.visits.tell(Visit("report".to_owned())).await.map_err(SendError::from)?;
    Ok(Json(app.visits.send(Report { takes }).timeout(ANSWER_TIMEOUT).await?))
}

/// Stops the actor; visits are not counted any more.
async fn close(State(app): State<App>) -> Result<StatusCode, Failure> {
    app.visits.stop().await?;
    Ok(StatusCode::NO_CONTENT)
}
