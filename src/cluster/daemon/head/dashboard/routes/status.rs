//! Overview of the cluster.

use actix_web::web;
use serde_json::json;

use crate::cluster::admin::ClusterStatus;
use crate::cluster::daemon::head::dashboard::reply::{JsonReply, reply};
use crate::cluster::daemon::head::dashboard::server::Shared;
use crate::cluster::daemon::head::dashboard::source::{Destination, admin};

pub(super) async fn status(shared: web::Data<Shared>) -> JsonReply {
    let (snapshot, time_ms) = (shared.source.versions().snapshot(), shared.source.now_ms());
    let mut status = ClusterStatus::read(&mut admin(&shared.source, Destination::Head), None).await?;
    // The head has no port: the agent of its node accepts connections for it.
    status.address = status.nodes.iter().find(|node| node.is_head).map(|node| node.address);
    let mut value = json!(status);
    value["snapshot"] = json!(snapshot);
    value["time_ms"] = json!(time_ms);
    reply(value)
}
