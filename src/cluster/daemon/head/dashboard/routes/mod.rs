//! Routes of the dashboard, a file for each group.

mod actions;
mod assets;
pub(super) mod lists;
mod live;
pub(super) mod logs;
mod session;
mod status;
mod timeline;

use actix_web::http::StatusCode;
use actix_web::web::{self, ServiceConfig, get, post};

use super::reply::{ApiError, JsonReply};

/// Adds all routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .route("/", get().to(assets::index))
        .route("/assets/{path:.*}", get().to(assets::asset))
        .route("/login", get().to(session::link))
        .route("/openapi.json", get().to(session::open_api))
        .route("/api/version", get().to(session::version))
        .route("/api/v0/session", get().to(session::session))
        .route("/api/v0/login", post().to(session::log_in))
        .route("/api/v0/logout", post().to(session::log_out))
        .route("/api/v0/status", get().to(status::status))
        .route("/api/v0/summary/{kind}", get().to(lists::summary))
        .route("/api/v0/series", get().to(live::series))
        .route("/api/v0/stream", get().to(live::stream))
        .route("/metrics", get().to(live::metrics))
        .route("/api/v0/timeline", get().to(timeline::timeline))
        .route("/api/v0/logs", get().to(logs::list))
        .route("/api/v0/logs/{node}/{file}", get().to(logs::read))
        .route("/api/v0/logs/{node}/{file}/download", get().to(logs::download))
        .route("/api/jobs/", get().to(lists::jobs))
        .route("/api/jobs/{id}", get().to(lists::job))
        .route("/api/jobs/{id}/logs", get().to(logs::of_job))
        .route("/api/jobs/{id}/stop", post().to(actions::stop))
        .route("/api/v0/actors/{id}/kill", post().to(actions::kill))
        .route("/api/v0/nodes/{id}/drain", post().to(actions::drain))
        // Behind the fixed paths, which these would match, too.
        .route("/api/v0/{kind}", get().to(lists::list))
        .route("/api/v0/{kind}/{id}", get().to(lists::row))
        .default_service(web::to(unknown_path));
}

async fn unknown_path() -> JsonReply {
    let text = "there is no such path or method; see /openapi.json";
    Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_path", text))
}
