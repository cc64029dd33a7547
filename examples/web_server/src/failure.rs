//! The HTTP status of each error.
//!
//! Errors of the library say whether the work was done, which is what a client has to know:
//!
//! | error | status | the client |
//! |---|---|---|
//! | not delivered | 503, with `Retry-After` | may send the request again |
//! | the timeout passed | 504 | asks what has become of it, or sends it again if that does no harm |
//! | panicked, outcome unknown | 500 | as for 504 |

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use roadshow::prelude::*;
use roadshow::{NotDelivered, OutcomeUnknown};

/// Why a request has no answer.
pub(crate) struct Failure {
    status: StatusCode,
    text: String,
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let status = match &error {
            error if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            error if error.is_not_delivered() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let status = match &error {
            TaskError::NotDelivered { reason: NotDelivered::Expired, .. }
            | TaskError::OutcomeUnknown { reason: OutcomeUnknown::TimedOut, .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            TaskError::NotDelivered { .. } | TaskError::NoWorker { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, text } = self;
        eprintln!("{status}: {text}");
        // What went wrong inside is not the client's to know.
        let body = format!("{status}\n");
        match status {
            StatusCode::SERVICE_UNAVAILABLE => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}
