//! Checks of every request before its route: host, origin, method, log-in, and the number of requests.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, ResponseError, web};
use tokio::sync::Semaphore;

use super::access::Login;
use super::reply::{ApiError, secure};
use super::server::Shared;
use crate::config::DASHBOARD_REQUEST_TIMEOUT;

/// Header that every POST must have. A form or a link of another site cannot set it.
pub(super) const ACTION_HEADER: HeaderName = HeaderName::from_static("x-roadshow-action");

/// Header in which browsers say where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Paths that need no log-in, beside the embedded files.
const OPEN: &[&str] = &["/", "/login", "/openapi.json", "/api/version", "/api/v0/session", "/api/v0/login"];

/// Middleware around all routes.
pub(super) async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let data = (request.app_data::<web::Data<Shared>>(), request.app_data::<web::Data<Semaphore>>());
    let (Some(shared), Some(requests)) = data else {
        unreachable!("the server has both");
    };
    let (shared, requests) = (shared.clone(), requests.clone());
    let checked = check(&shared, &request).and_then(|()| {
        // Open paths need no permit. They are answered from memory, and a client without a log-in must not use up the
        // permits of those who have one.
        let needs_permit = !is_open(request.path());
        let permit = needs_permit.then(|| requests.try_acquire()).transpose();
        permit.map_err(|_| {
            let text = "the dashboard handles too many requests; try again in a second";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
        })
    });
    let _permit = match checked {
        Ok(permit) => permit,
        Err(error) => return Ok(request.into_response(error.error_response()).map_into_right_body()),
    };
    let Ok(replied) = tokio::time::timeout(DASHBOARD_REQUEST_TIMEOUT, next.call(request)).await else {
        let text = format!("no reply within {} s; try again", DASHBOARD_REQUEST_TIMEOUT.as_secs());
        return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text).into());
    };
    let mut response = replied?;
    secure(response.headers_mut());
    Ok(response.map_into_left_body())
}

fn check(shared: &Shared, request: &ServiceRequest) -> Result<(), ApiError> {
    let (headers, method, path) = (request.headers(), request.method(), request.path());
    check_host(shared, request.request())?;
    check_site(headers, path)?;
    match *method {
        Method::GET => {}
        Method::POST if headers.get(ACTION_HEADER).is_some_and(|value| value == "1") => {}
        Method::POST => {
            let text = "a request that changes something needs the header X-Roadshow-Action: 1";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "no_action_header", text));
        }
        _ => {
            let text = "the dashboard takes GET and POST; see /openapi.json";
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", text));
        }
    }
    if is_open(path) { Ok(()) } else { check_log_in(shared, request.request()) }
}

/// Returns true for a path that needs no log-in.
///
/// The router decodes escapes, and this path is not decoded. So the test is for what is open: an escaped spelling of
/// another path needs a log-in, too.
fn is_open(path: &str) -> bool {
    path.starts_with("/assets/") || OPEN.contains(&path)
}

/// Checks the host that the request names, and that its origin is the page of that host.
fn check_host(shared: &Shared, request: &HttpRequest) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = single(headers, &header::HOST);
    let is_allowed = host.is_some_and(|host| shared.hosts.is_host(host))
        // A target with a host of its own takes precedence over the header.
        && request.uri().host().is_none_or(|host| shared.hosts.is_host(host));
    if !is_allowed {
        let text =
            "the dashboard is not known by this host name; use the address that `roadshow dashboard` prints";
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", text));
    }
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    match origin {
        Some(origin) if !shared.hosts.is_origin(origin, host.unwrap_or_default()) => {
            let text = "pages of other origins may not use the dashboard";
            Err(ApiError::new(StatusCode::FORBIDDEN, "other_origin", text))
        }
        _ => Ok(()),
    }
}

/// Refuses requests that a browser makes for a page of another site, except to open the dashboard.
fn check_site(headers: &HeaderMap, path: &str) -> Result<(), ApiError> {
    let is_entry = matches!(path, "/" | "/login");
    match headers.get(FETCH_SITE).map(|site| site.to_str().unwrap_or_default()) {
        Some("cross-site" | "same-site") if !is_entry => {
            let text = "pages of other origins may not use the dashboard";
            Err(ApiError::new(StatusCode::FORBIDDEN, "other_origin", text))
        }
        _ => Ok(()),
    }
}

fn check_log_in(shared: &Shared, request: &HttpRequest) -> Result<(), ApiError> {
    let now = Instant::now();
    if session_of(shared, request.headers()).is_some_and(|session| shared.access.is_session(now, session)) {
        return Ok(());
    }
    let bearer = single(request.headers(), &header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = bearer else {
        let text = "log in with the cluster's token, or with the link that `roadshow dashboard` prints";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "not_logged_in", text));
    };
    shared.access.check_bearer(now, address_of(request), token.trim()).map_err(|login| refused(&login))
}

/// Error of a log-in that has failed.
pub(super) fn refused(login: &Login) -> ApiError {
    match login {
        Login::TooMany => {
            let text = "too many log-ins have failed; wait a minute, or use the link that `roadshow dashboard` prints";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_log_ins", text)
        }
        _ => {
            let text = "the token is wrong; copy it again, or use the link that `roadshow dashboard` prints";
            ApiError::new(StatusCode::UNAUTHORIZED, "wrong_token", text)
        }
    }
}

/// Session id in the cookies of a request.
pub(super) fn session_of<'a>(shared: &Shared, headers: &'a HeaderMap) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == shared.cookie).map(|(_, session)| session)
}

/// Address of the client.
pub(super) fn address_of(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

/// Value of a header that occurs once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
