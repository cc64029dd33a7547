//! Output of a successful start, in the order of Ray's.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use roadshow::daemon::DashboardStatus;
use roadshow::model::NodeId;
use serde::Serialize;

use super::StartedNode;
use crate::output::table::count;

/// Machine-readable result of a start.
#[derive(Debug, Serialize)]
pub(super) struct Json {
    address: Option<SocketAddr>,
    node_id: Option<NodeId>,
    /// Token for nodes that join; only from a head.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    session_dir: PathBuf,
    pids: Vec<u32>,
    head_address: Option<SocketAddr>,
    /// Link that logs one browser in to the dashboard; only from a head that serves one.
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard: Option<String>,
}

pub(super) fn json(started: &StartedNode) -> Json {
    let node = &started.session.node;
    Json {
        address: node.address,
        node_id: node.node_id,
        token: node.is_head.then(|| started.token.reveal().to_owned()),
        session_dir: started.session.dir.clone(),
        pids: started.session.pids(),
        head_address: node.head_address,
        dashboard: link(started).map(str::to_owned),
    }
}

fn link(started: &StartedNode) -> Option<&str> {
    match &started.dashboard {
        DashboardStatus::Serving { link } => Some(link),
        _ => None,
    }
}

/// Human-readable result of a start.
pub(super) fn page(started: &StartedNode, stays: bool) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = match started.session.node.is_head {
        true => head(&mut page, started),
        false => member(&mut page, started),
    };
    let _ = match stays {
        true => writeln!(page, "\nThe node runs until Ctrl-C, which stops it gracefully."),
        false => Ok(()),
    };
    page
}

fn head(page: &mut String, started: &StartedNode) -> std::fmt::Result {
    let node = &started.session.node;
    let address = node.address.map_or_else(String::new, |address| address.to_string());
    let token = started.token.reveal();
    writeln!(page, "Local node address: {address}\n")?;
    title(
        page,
        if started.restarted {
            "Roadshow head restarted; its node and workers kept running."
        } else {
            "Roadshow head started."
        },
    )?;
    writeln!(page, "\nNext steps")?;
    // The printed command would fail on another machine.
    if node.address.is_some_and(|address| address.ip().is_loopback()) {
        writeln!(page, "  Only this machine can reach {address}; for other machines start with --host.\n")?;
    }
    step(
        page,
        "To add a node to this cluster, run on it",
        &format!("ROADSHOW_TOKEN='{token}' roadshow start --address='{address}'"),
    )?;
    step(page, "To connect a program on this machine", &format!("ROADSHOW_ADDRESS='{address}' ./program"))?;
    writeln!(page, "  On another machine it also needs ROADSHOW_TOKEN.\n")?;
    step(
        page,
        "To run a program on the cluster",
        &format!("roadshow job submit --address='{address}' -- ./program"),
    )?;
    step(page, "To see the state of the cluster", "roadshow status")?;
    if let Some(link) = link(started) {
        writeln!(
            page,
            "  To watch the cluster in a browser, open this link; it is valid once, for ten minutes"
        )?;
        writeln!(page, "    Dashboard: {link}\n")?;
    }
    end(page, started)
}

fn member(page: &mut String, started: &StartedNode) -> std::fmt::Result {
    let node = &started.session.node;
    let or_none =
        |address: Option<SocketAddr>| address.map_or_else(String::new, |address| address.to_string());
    writeln!(page, "Local node address: {}\n", or_none(node.address))?;
    title(page, &format!("Joined the cluster at {}.", or_none(node.head_address)))?;
    if let Some(id) = node.node_id {
        writeln!(page, "\nNode id: {id}")?;
    }
    if let Some(nodes) = started.nodes {
        writeln!(page, "The cluster has {}.", count(nodes, "node"))?;
    }
    writeln!(page, "\nNext steps")?;
    step(page, "To see the state of the cluster", "roadshow status")?;
    end(page, started)
}

fn end(page: &mut String, started: &StartedNode) -> std::fmt::Result {
    step(page, "To stop everything on this machine", "roadshow stop")?;
    writeln!(page, "  Logs are in {}", started.session.dir.join("logs").display())
}

fn title(page: &mut String, title: &str) -> std::fmt::Result {
    let line = "-".repeat(title.len());
    writeln!(page, "{line}\n{title}\n{line}")
}

fn step(page: &mut String, what: &str, command: &str) -> std::fmt::Result {
    writeln!(page, "  {what}\n    {command}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::session::tests::node;
    use crate::session::{DaemonRole, NodeSession, ProcessRecord};

    fn started(is_head: bool) -> StartedNode {
        let mut node = node(7, &[]);
        node.is_head = is_head;
        node.processes = vec![ProcessRecord { role: DaemonRole::Agent, pid: 9, start_ticks: 1 }];
        node.head_address = Some(SocketAddr::from(([10, 0, 0, 5], 6379)));
        let session = NodeSession { dir: PathBuf::from("dir"), node };
        StartedNode {
            session,
            token: "rs1_abc".parse().unwrap(),
            restarted: false,
            nodes: Some(2),
            dashboard: DashboardStatus::Off,
            children: Vec::new(),
        }
    }

    #[test]
    fn head_prints_next_steps_in_the_order_of_ray() {
        let page = page(&started(true), false);
        let parts = [
            "Local node address: 127.0.0.1:7\n",
            "Roadshow head started.",
            "Next steps",
            "    ROADSHOW_TOKEN='rs1_abc' roadshow start --address='127.0.0.1:7'\n",
            "    ROADSHOW_ADDRESS='127.0.0.1:7' ./program\n",
            "    roadshow job submit --address='127.0.0.1:7' -- ./program\n",
            "    roadshow status\n",
            "    roadshow stop\n",
        ];
        let mut from = 0;
        for part in parts {
            let at = page[from..]
                .find(part)
                .unwrap_or_else(|| panic!("{part:?} is missing or too early in\n{page}"));
            from += at + part.len();
        }
    }

    #[test]
    fn head_prints_the_link_to_its_dashboard() {
        let link = "http://127.0.0.1:8265/login?ticket=1";
        let mut started = started(true);
        assert!(!page(&started, false).contains("Dashboard"));
        assert_eq!(serde_json::to_value(json(&started)).unwrap().get("dashboard"), None);
        started.dashboard = DashboardStatus::Serving { link: link.to_owned() };
        assert!(page(&started, false).contains(&format!("    Dashboard: {link}\n")));
        assert_eq!(serde_json::to_value(json(&started)).unwrap()["dashboard"], link);
    }

    #[test]
    fn member_prints_the_cluster_that_it_joined() {
        let page = page(&started(false), true);
        for part in ["Joined the cluster at 10.0.0.5:6379.", "has 2 nodes", "roadshow stop", "until Ctrl-C"] {
            assert!(page.contains(part), "{page}");
        }
        assert!(!page.contains("rs1_abc"), "{page}");
    }

    #[test]
    fn json_is_one_object_with_a_token_only_from_a_head() {
        let json = |is_head| serde_json::to_value(json(&started(is_head))).unwrap();
        let head: Value = json(true);
        assert_eq!(head["address"], "127.0.0.1:7");
        assert_eq!(head["node_id"], "0000000000000007");
        assert_eq!(head["token"], "rs1_abc");
        assert_eq!(head["session_dir"], "dir");
        assert_eq!(head["pids"], serde_json::json!([9]));
        assert_eq!(json(false).get("token"), None);
        assert_eq!(json(false)["head_address"], "10.0.0.5:6379");
    }
}
