//! Maps each error to an HTTP status.
//!
//! The errors of the library say if the work was done, which a client has to know:
//!
//! | error | status | action of the client |
//! |---|---|---|
//! | not delivered | 503, with `Retry-After` | sends the request again |
//! | timeout | 504 | asks for the outcome, or sends the request again if that does no harm |
//! | panicked, outcome unknown | 500 | as for 504 |

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use roadshow::prelude::*;
use roadshow::{NotDelivered, OutcomeUnknown};

/// Error of a request.
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
        // Internal details stay in the log; a client only gets the status.
        let body = format!("{status}\n");
        match status {
            StatusCode::SERVICE_UNAVAILABLE => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}
