//! Replies of the dashboard: JSON, errors, and the headers of all of them.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};
use thiserror::Error;

use crate::cluster::admin::AdminError;

/// Content Security Policy of every reply: only this server's own files, and no inline code.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'none'; frame-ancestors 'none'; \
     base-uri 'none'";

/// Headers of every reply.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers that protect a reply in a browser. Replies are not stored, unless their route says otherwise.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Error reply: a code for programs, and a text that says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    /// Error of an admin request about an object whose kind names the code, such as `unknown_actor`.
    pub(super) fn of(error: AdminError, unknown: &'static str) -> Self {
        let (status, code) = match &error {
            AdminError::Unknown(_) => (StatusCode::NOT_FOUND, unknown),
            AdminError::Failed(_) => (StatusCode::CONFLICT, "not_possible"),
            AdminError::Refused(_) | AdminError::Unreachable(_) | AdminError::Lost { .. } => {
                (StatusCode::BAD_GATEWAY, "unreachable")
            }
            _ => (StatusCode::BAD_GATEWAY, "unexpected_reply"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        Self::of(error, "unknown")
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let seconds = if self.status == StatusCode::TOO_MANY_REQUESTS { "60" } else { "1" };
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        let mut response = response.json(json!({"error": {"code": self.code, "message": self.message}}));
        // Errors may leave the server without the guard, which adds the headers to other replies.
        secure(response.headers_mut());
        response
    }
}

/// JSON reply.
pub(super) type JsonReply = Result<actix_web::web::Json<Value>, ApiError>;

/// Wraps a value as a JSON reply.
pub(super) fn reply(value: Value) -> JsonReply {
    Ok(actix_web::web::Json(value))
}
