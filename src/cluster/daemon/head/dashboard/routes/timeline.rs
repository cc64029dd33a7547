//! Route of the timeline of a job.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::lists::{Parameters, number};
use crate::cluster::admin::JobTimeline;
use crate::cluster::daemon::head::dashboard::reply::ApiError;
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, admin};
use crate::cluster::listing::hexadecimal;
use crate::cluster::model::JobId;
use crate::config::TIMELINE_SPANS_MAX;

/// Code of the error about an unknown job.
const UNKNOWN: &str = "unknown_job";

/// Sends the timeline of a job as the command writes it.
pub(super) async fn timeline(
    shared: web::Data<Shared>,
    parameters: web::Query<Parameters>,
) -> Result<HttpResponse, ApiError> {
    let (mut job, mut limit) = (None, TIMELINE_SPANS_MAX);
    for (name, value) in parameters.iter() {
        match name.as_str() {
            "job_id" => job = Some(job_id(value)?),
            "limit" => limit = number(name, value, TIMELINE_SPANS_MAX)?,
            _ => {
                let text = format!("there is no parameter {name:?}; there are job_id and limit");
                return Err(ApiError::bad_query(text));
            }
        }
    }
    let job = job.ok_or_else(|| ApiError::bad_query("the parameter job_id is missing"))?;
    let mut head = admin(&shared.source, Destination::Head);
    let gathered = JobTimeline::gather(&mut head, job).await;
    let mut timeline = gathered.map_err(|error| ApiError::of(error, UNKNOWN))?;
    timeline.spans.thin(limit);
    // Not by way of a tree of values, which would take ten times the memory of the text.
    let text = serde_json::to_string(&timeline.trace());
    let text = text.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_reply", error.to_string())
    })?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    let id = hexadecimal(text).and_then(|id| u32::try_from(id).ok());
    id.map(JobId).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, UNKNOWN, format!("no job has the id {text:?}; see /api/v0/jobs"))
    })
}
