//! Logs of daemons, workers and drivers, read from the agents that have them.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lists::{Parameters, find, number};
use crate::cluster::admin::{Admin, AdminError, LogFile, LogFrom, LogText};
use crate::cluster::daemon::head::dashboard::reply::{ApiError, JsonReply, reply};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, SourceTransport, admin};
use crate::cluster::listing::{Kind, hexadecimal};
use crate::cluster::model::{NodeId, NodeInfo, NodeState};
use crate::config::{DASHBOARD_DOWNLOAD_BYTES_MAX, LOG_PART_BYTES_MAX, LOGS_LISTED_MAX};

/// Agents that are asked at one time.
const AGENTS_ASKED: usize = 16;

/// Lines of a log unless the request says otherwise.
const LINES: u64 = 1000;

/// Lists the logs of all nodes that can be reached.
pub(super) async fn list(shared: web::Data<Shared>) -> JsonReply {
    let nodes = living_nodes(&shared).await?;
    let (mut logs, mut unreachable, mut more) = (Vec::new(), Vec::new(), 0);
    for nodes in nodes.chunks(AGENTS_ASKED) {
        let asked = nodes.iter().map(async |node| (node.node_id, agent(&shared, node).log_files().await));
        for (node, files) in join_all(asked).await {
            let Ok(files) = files else {
                unreachable.push(node);
                continue;
            };
            // Bounded, since a node may list as many alone.
            let room = LOGS_LISTED_MAX - logs.len();
            more += files.len().saturating_sub(room);
            logs.extend(files.iter().take(room).map(|file| shown(node, file)));
        }
    }
    reply(json!({"logs": logs, "unreachable": unreachable, "more": more}))
}

/// Reads a part of a log: its last lines, or what follows an offset.
pub(super) async fn read(
    shared: web::Data<Shared>,
    path: web::Path<(String, String)>,
    parameters: web::Query<Parameters>,
) -> JsonReply {
    let mut from = LogFrom::Tail(LINES);
    for (name, value) in parameters.iter() {
        match name.as_str() {
            "tail" => from = LogFrom::Tail(number(name, value, usize::MAX)? as u64),
            "offset" => from = LogFrom::Offset(number(name, value, usize::MAX)? as u64),
            _ => {
                let text = format!("there is no parameter {name:?}; there are tail and offset");
                return Err(ApiError::bad_query(text));
            }
        }
    }
    let (node, file) = path.into_inner();
    let mut agent = agent(&shared, &living_node(&shared, &node).await?);
    let LogText { text, offset } = agent.log(file, from).await.map_err(of_log)?;
    reply(json!({"text": text, "offset": offset}))
}

/// Sends a whole log as a file.
pub(super) async fn download(
    shared: web::Data<Shared>,
    downloads: web::Data<Downloads>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (node, file) = path.into_inner();
    let node = living_node(&shared, &node).await?;
    let permit = Arc::clone(&downloads.0).try_acquire_owned().map_err(|_| {
        let text = "other logs are being downloaded; try again when they are done";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
    })?;
    let mut agent = agent(&shared, &node);
    // The first part is read before the reply starts, so that an unknown log is an error and not an empty file.
    let first = agent.log(file.clone(), LogFrom::Offset(0)).await.map_err(of_log)?;
    let attachment = format!("attachment; filename=\"{}\"", file.replace(['"', '\\', '\r', '\n'], "_"));
    let rest = Download { agent, file, first: Some(first), at: 0, _permit: permit };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .insert_header((header::CONTENT_DISPOSITION, attachment))
        .streaming(stream::unfold(rest, Download::next)))
}

/// Reads the output of a job's driver, at the path that Ray has for it.
pub(super) async fn of_job(shared: web::Data<Shared>, id: web::Path<String>) -> JsonReply {
    let job = find(&shared, Kind::Jobs, &id).await?;
    let job_id = job.get("job_id").and_then(Value::as_str).and_then(hexadecimal);
    // Only the driver of a submitted job has logs: the user's terminal has the output of any other.
    let Some(node) = job.get("runs_on").and_then(Value::as_str) else { return reply(json!({"logs": ""})) };
    let mut agent = agent(&shared, &living_node(&shared, node).await?);
    let mut logs = String::new();
    for file in agent.log_files().await? {
        let is_driver = file.worker.is_none() && file.job.map(|job| u64::from(job.0)) == job_id;
        if is_driver && logs.len() < LOG_PART_BYTES_MAX {
            logs += &agent.log(file.file, LogFrom::Tail(LINES)).await.map_err(of_log)?.text;
        }
    }
    reply(json!({"logs": logs}))
}

/// Permits of the downloads at one time.
pub(in crate::cluster::daemon::head::dashboard) struct Downloads(
    pub(in crate::cluster::daemon::head::dashboard) Arc<Semaphore>,
);

/// Log that is being sent.
struct Download {
    agent: Admin<SourceTransport>,
    file: String,
    first: Option<LogText>,
    at: u64,
    _permit: OwnedSemaphorePermit,
}

impl Download {
    async fn next(mut self) -> Option<(Result<web::Bytes, ApiError>, Self)> {
        // A log that is written faster than it is sent has no end of its own.
        if self.at >= DASHBOARD_DOWNLOAD_BYTES_MAX {
            return None;
        }
        let part = match self.first.take() {
            Some(first) => Ok(first),
            None => self.agent.log(self.file.clone(), LogFrom::Offset(self.at)).await,
        };
        match part {
            Ok(LogText { text, offset }) if !text.is_empty() && offset > self.at => {
                self.at = offset;
                Some((Ok(web::Bytes::from(text)), self))
            }
            Ok(_) => None,
            // The connection breaks, so that the browser shows an incomplete download.
            Err(error) => {
                self.at = DASHBOARD_DOWNLOAD_BYTES_MAX;
                Some((Err(of_log(error)), self))
            }
        }
    }
}

fn shown(node: NodeId, file: &LogFile) -> Value {
    json!({
        "node_id": node, "file": file.file, "worker_id": file.worker, "job_id": file.job, "size": file.size,
    })
}

fn of_log(error: AdminError) -> ApiError {
    ApiError::of(error, "unknown_log")
}

fn agent(shared: &Shared, node: &NodeInfo) -> Admin<SourceTransport> {
    admin(&shared.source, Destination::Agent(node.address))
}

async fn living_nodes(shared: &Shared) -> Result<Vec<NodeInfo>, ApiError> {
    let nodes = admin(&shared.source, Destination::Head).all::<NodeInfo>(Vec::new()).await?;
    Ok(nodes.into_iter().filter(|node| node.state != NodeState::Dead).collect())
}

/// Finds a node whose agent can be asked.
async fn living_node(shared: &Shared, id: &str) -> Result<NodeInfo, ApiError> {
    let unknown = |text: String| ApiError::new(StatusCode::NOT_FOUND, "unknown_node", text);
    let wanted = hexadecimal(id).map(NodeId);
    let rows = match wanted {
        Some(_) => admin(&shared.source, Destination::Head).meant::<NodeInfo>(id).await?,
        None => Vec::new(),
    };
    match rows.into_iter().find(|node| Some(node.node_id) == wanted) {
        Some(node) if node.state == NodeState::Dead => Err(unknown(format!(
            "the node {id} is dead; its logs may be on {} in {}",
            node.hostname, node.session_dir
        ))),
        Some(node) => Ok(node),
        None => Err(unknown(format!("no node has the id {id:?}; see /api/v0/nodes"))),
    }
}
