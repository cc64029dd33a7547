//! Routes of the dashboard, a file for each group.

mod assets;
mod session;

use actix_web::http::StatusCode;
use actix_web::web::{self, ServiceConfig, get, post};

use super::reply::{ApiError, JsonReply};

/// Adds all routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .route("/", get().to(assets::index))
        .route("/assets/{path:.*}", get().to(assets::asset))
        .route("/login", get().to(session::link))
        .route("/api/version", get().to(session::version))
        .route("/api/v0/session", get().to(session::session))
        .route("/api/v0/login", post().to(session::log_in))
        .route("/api/v0/logout", post().to(session::log_out))
        .default_service(web::to(unknown_path));
}

async fn unknown_path() -> JsonReply {
    let text = "there is no such path or method; see /openapi.json";
    Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_path", text))
}
