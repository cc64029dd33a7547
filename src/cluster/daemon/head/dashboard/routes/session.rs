//! Routes of the log-in: version, session, log-in by token or link, log-out.

use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::cluster::daemon::head::dashboard::access::Login;
use crate::cluster::daemon::head::dashboard::guard::{address_of, refused, session_of};
use crate::cluster::daemon::head::dashboard::reply::{ApiError, JsonReply, reply};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::config::DASHBOARD_SESSION_VALID;

/// Version of the rows and paths of the API.
const SCHEMA: u32 = 1;

/// Description of the API.
const OPEN_API: &str = include_str!("../openapi.json");

/// Query of a log-in link.
#[derive(Debug, Deserialize)]
pub(super) struct Ticket {
    #[serde(default)]
    ticket: String,
}

/// Body of a log-in.
#[derive(Deserialize)]
pub(super) struct Credentials {
    token: String,
}

pub(super) async fn open_api() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(OPEN_API)
}

pub(super) async fn version() -> JsonReply {
    reply(json!({"version": env!("CARGO_PKG_VERSION"), "schema": SCHEMA}))
}

pub(super) async fn session(shared: web::Data<Shared>, request: HttpRequest) -> JsonReply {
    let session = session_of(&shared, request.headers());
    let is_valid = session.is_some_and(|session| shared.access.is_session(Instant::now(), session));
    reply(json!({"logged_in": is_valid, "tls": shared.is_tls, "user": null}))
}

/// Exchanges the ticket of a link for a session, and goes to the page.
pub(super) async fn link(
    shared: web::Data<Shared>,
    query: web::Query<Ticket>,
) -> Result<HttpResponse, ApiError> {
    let mut response = HttpResponse::SeeOther();
    response.insert_header((header::LOCATION, "/"));
    // A used link opens the page, which asks for a log-in unless the browser has a session already.
    if let Some(session) = shared.access.redeem(Instant::now(), &query.ticket) {
        response.insert_header((header::SET_COOKIE, cookie(&shared, &session)));
    }
    Ok(response.finish())
}

pub(super) async fn log_in(
    shared: web::Data<Shared>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let Credentials { token } = json_body(&request, &body)?;
    match shared.access.log_in(Instant::now(), address_of(&request), token.trim()) {
        Login::Session(session) => {
            let mut response = HttpResponse::NoContent();
            Ok(response.insert_header((header::SET_COOKIE, cookie(&shared, &session))).finish())
        }
        login => Err(refused(&login)),
    }
}

pub(super) async fn log_out(shared: web::Data<Shared>, request: HttpRequest) -> HttpResponse {
    if let Some(session) = session_of(&shared, request.headers()) {
        shared.access.log_out(Instant::now(), session);
    }
    let ended = format!("{}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict", shared.cookie);
    HttpResponse::NoContent().insert_header((header::SET_COOKIE, ended)).finish()
}

/// Decodes the JSON body of a request.
///
/// # Errors
///
/// [`ApiError`] if the body has another content type, or other fields.
pub(super) fn json_body<T: for<'a> Deserialize<'a>>(
    request: &HttpRequest,
    body: &[u8],
) -> Result<T, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|text| text.split(';').next() == Some("application/json"));
    if !is_json {
        let text = "the body must be JSON, with the header Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", text));
    }
    serde_json::from_slice(body).map_err(|error| {
        // The error names a position and a field; it has no part of a token.
        ApiError::new(StatusCode::BAD_REQUEST, "bad_body", format!("{error}; see /openapi.json"))
    })
}

fn cookie(shared: &Shared, session: &str) -> String {
    let secure = if shared.is_tls { "; Secure" } else { "" };
    let seconds = DASHBOARD_SESSION_VALID.as_secs();
    let name = &shared.cookie;
    format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}
