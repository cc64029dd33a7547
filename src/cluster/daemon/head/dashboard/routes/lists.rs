//! Routes of the tables: lists, single rows and summaries, all with the rows of the command's `--json`.

use actix_web::http::StatusCode;
use actix_web::web;
use serde_json::{Value, json};

use crate::cluster::admin::{AdminReply, AdminRequest, Filter, Kind, Query, Sort};
use crate::cluster::daemon::head::dashboard::reply::{ApiError, JsonReply, reply};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, admin};
use crate::cluster::listing::hexadecimal;
use crate::config::LIST_ROWS_MAX;

/// Rows of a page unless the request has a limit.
const ROWS: usize = 100;

/// Parameters of a URL's query, in order; a name may repeat.
pub(super) type Parameters = Vec<(String, String)>;

/// Lists a page of a table.
pub(super) async fn list(
    shared: web::Data<Shared>,
    kind: web::Path<String>,
    parameters: web::Query<Parameters>,
) -> JsonReply {
    let kind = kind_of(&kind)?;
    let query = query(&parameters)?;
    query.check(kind).map_err(|error| ApiError::bad_query(error.to_string()))?;
    // Before the rows: rows that are newer than their version are loaded once more, and older ones would stay.
    let (snapshot, time_ms) = (shared.source.versions().snapshot(), shared.source.now_ms());
    let page = page(&shared, kind, query).await?;
    let total = page.total();
    reply(json!({"snapshot": snapshot, "time_ms": time_ms, "total": total, "rows": page.rows}))
}

/// Finds the row of a complete id.
pub(super) async fn row(shared: web::Data<Shared>, path: web::Path<(String, String)>) -> JsonReply {
    let (kind, id) = path.into_inner();
    let kind = kind_of(&kind)?;
    let (snapshot, time_ms) = (shared.source.versions().snapshot(), shared.source.now_ms());
    let row = find(&shared, kind, &id).await?;
    reply(json!({"snapshot": snapshot, "time_ms": time_ms, "row": row}))
}

/// Lists all jobs, at the path that Ray has for them.
pub(super) async fn jobs(shared: web::Data<Shared>) -> JsonReply {
    let query = Query { limit: LIST_ROWS_MAX, ..Query::default() };
    reply(Value::Array(page(&shared, Kind::Jobs, query).await?.rows))
}

/// Finds one job, at the path that Ray has for it.
pub(super) async fn job(shared: web::Data<Shared>, id: web::Path<String>) -> JsonReply {
    reply(find(&shared, Kind::Jobs, &id).await?)
}

/// Counts the actors of each class, or the tasks of each function.
pub(super) async fn summary(shared: web::Data<Shared>, kind: web::Path<String>) -> JsonReply {
    let snapshot = shared.source.versions().snapshot();
    let mut head = admin(&shared.source, Destination::Head);
    let (rows, more) = match kind.as_str() {
        "actors" => {
            let counts = head.classes().await?;
            (json!(counts.rows), counts.more)
        }
        "tasks" => {
            let counts = head.functions(None).await?;
            (json!(counts.rows), counts.more)
        }
        _ => return Err(unknown_table(&kind, "actors, tasks")),
    };
    reply(json!({"snapshot": snapshot, "rows": rows, "more": more}))
}

/// Page of a table as JSON.
pub(in crate::cluster::daemon::head::dashboard) struct Rows {
    pub(in crate::cluster::daemon::head::dashboard) rows: Vec<Value>,
    /// Cursor of the next page.
    pub(in crate::cluster::daemon::head::dashboard) next: Option<String>,
    more: u64,
    skipped: u64,
}

impl Rows {
    /// Number of rows that pass the filters.
    pub(in crate::cluster::daemon::head::dashboard) fn total(&self) -> u64 {
        self.skipped + self.rows.len() as u64 + self.more
    }

    /// Adds the page that follows.
    pub(in crate::cluster::daemon::head::dashboard) fn append(&mut self, mut page: Self) {
        self.rows.append(&mut page.rows);
        (self.next, self.more) = (page.next, page.more);
    }
}

/// Requests a page. The reply is taken apart as JSON, so that every table and every field is passed on.
pub(in crate::cluster::daemon::head::dashboard) async fn page(
    shared: &Shared,
    of: Kind,
    query: Query,
) -> Result<Rows, ApiError> {
    let mut head = admin(&shared.source, Destination::Head);
    let answered = head.ask(AdminRequest::List { of, query }).await?;
    rows_of(&answered).ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_GATEWAY,
            "unexpected_reply",
            "the head's reply is no list; restart the head",
        )
    })
}

fn rows_of(answered: &AdminReply) -> Option<Rows> {
    // Serde names the variant: {"Nodes": {"rows": [..], "next": .., "more": .., "skipped": ..}}.
    let Value::Object(variant) = serde_json::to_value(answered).ok()? else { return None };
    let mut page = variant.into_iter().next()?.1;
    let number = |field: Option<&Value>| field.and_then(Value::as_u64).unwrap_or(0);
    let (more, skipped) = (number(page.get("more")), number(page.get("skipped")));
    let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    match page.get_mut("rows")?.take() {
        Value::Array(rows) => Some(Rows { rows, next, more, skipped }),
        _ => None,
    }
}

/// Finds the row of a complete id.
pub(super) async fn find(shared: &Shared, kind: Kind, id: &str) -> Result<Value, ApiError> {
    let key = kind.keys().next().unwrap_or_default();
    let wanted = hexadecimal(id);
    let rows = match wanted {
        Some(_) => page(shared, kind, Query::called(id)).await?.rows,
        None => Vec::new(),
    };
    let is_wanted = |row: &Value| row.get(key).and_then(Value::as_str).and_then(hexadecimal) == wanted;
    rows.into_iter().find(is_wanted).ok_or_else(|| {
        let text = format!("no {} has the id {id:?}; see /api/v0/{}", singular(kind), kind.name());
        ApiError::new(StatusCode::NOT_FOUND, unknown_code(kind), text)
    })
}

/// Code of the error about an unknown row.
pub(super) fn unknown_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Nodes => "unknown_node",
        Kind::Jobs => "unknown_job",
        Kind::Actors => "unknown_actor",
        Kind::Workers => "unknown_worker",
        Kind::Tasks => "unknown_task",
    }
}

fn singular(kind: Kind) -> &'static str {
    kind.name().trim_end_matches('s')
}

fn kind_of(name: &str) -> Result<Kind, ApiError> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| unknown_table(name, &Kind::ALL.map(Kind::name).join(", ")))
}

fn unknown_table(name: &str, tables: &str) -> ApiError {
    let text = format!("there is no table {name:?}; the tables are {tables}");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_table", text)
}

/// Query of the parameters of a URL.
fn query(parameters: &Parameters) -> Result<Query, ApiError> {
    let mut query = Query { limit: ROWS, count: true, ..Query::default() };
    for (name, value) in parameters {
        match name.as_str() {
            "filter" => query.filters.push(filter(value)?),
            "search" => query.contains = Some(value.clone()).filter(|text| !text.is_empty()),
            "sort" => query.sort = Some(sort(value)).filter(|_| !value.is_empty()),
            "limit" => query.limit = number(name, value, LIST_ROWS_MAX)?,
            "offset" => query.offset = number(name, value, usize::MAX)?,
            _ => {
                let text = format!(
                    "there is no parameter {name:?}; there are filter, search, sort, limit and offset"
                );
                return Err(ApiError::bad_query(text));
            }
        }
    }
    Ok(query)
}

fn filter(text: &str) -> Result<Filter, ApiError> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(ApiError::bad_query(format!(
            "a filter is {text:?}, and must be KEY=VALUE or KEY!=VALUE"
        )));
    };
    let (key, is_equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
    Ok(Filter { key: key.to_owned(), value: value.to_owned(), is_equal })
}

fn sort(text: &str) -> Sort {
    let (key, is_descending) = text.strip_prefix('-').map_or((text, false), |key| (key, true));
    Sort { key: key.to_owned(), is_descending }
}

/// Parses a number of a query, up to a maximum.
pub(super) fn number(name: &str, value: &str, max: usize) -> Result<usize, ApiError> {
    value.parse().ok().filter(|number| *number <= max).ok_or_else(|| {
        let limit = if max == usize::MAX { String::new() } else { format!(" up to {max}") };
        ApiError::bad_query(format!("{name} is {value:?}, and must be a number{limit}"))
    })
}
