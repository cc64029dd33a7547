//! Starts the agent of a node that joins an existing cluster.

use std::net::SocketAddr;

use roadshow::admin::{Admin, AdminEndpoint, check_token};
use roadshow::daemon::{AgentOptions, AgentReady, DashboardStatus};
use roadshow::model::{NodeInfo, NodeState};

use super::head::start_agent;
use super::launch::Daemon;
use super::{
    StartArgs, StartContext, StartGuard, StartedNode, create_session, host_resources, io_failure, users,
};
use crate::cli::cluster_args::{AdminConnector, ClusterTarget, find_token};
use crate::cli::token::TokenText;
use crate::cli::values::HostPort;
use crate::error::CliResult;
use crate::session::{DaemonRole, NodeSession};

pub(super) async fn start(
    arguments: &StartArgs,
    address: &HostPort,
    context: &StartContext,
) -> CliResult<StartedNode> {
    let root = &context.root;
    let mut heads = address.resolve()?;
    let token = match &arguments.token {
        Some(token) => token.clone(),
        None => find_token(arguments.token_file.as_ref(), &context.environment, &root.sessions(), &heads)?,
    };
    // Checked here so that a mistyped token fails before a session and a process are made.
    check_token(token.reveal())?;
    let head = answering(&mut heads, &token).await;
    let host = arguments
        .host
        // The route to the head, since a cluster may have a network of its own.
        .or_else(|| host_resources::address_towards(head))
        .unwrap_or_else(host_resources::own_address);
    // Before the session is created, so that a refusal leaves nothing behind.
    let job_users = users::of_jobs(arguments, host, &heads)?;
    let session_dir = root.create(arguments.session_dir.as_deref())?;
    let mut guard = StartGuard::new(create_session(&session_dir, Some(head), None, job_users)?, context);
    users::make_passable(&guard.session.node.job_users, root, &session_dir)?;
    let address = (host, arguments.port.unwrap_or(0));
    let options = arguments.agent(&guard.session, address, heads, &token);
    let agent = join(&mut guard.session, &token, &options, context).await?;
    let session = guard.done();
    let nodes = living_nodes(&ClusterTarget::new(vec![head], token.clone())).await;
    let children = agent.detach().map(|child| (DaemonRole::Agent, child)).into_iter().collect();
    Ok(StartedNode { session, token, restarted: false, nodes, dashboard: DashboardStatus::Off, children })
}

/// Finds the address at which the head answers, and moves it to the front.
///
/// The route to it decides which address this node advertises. If no address answers yet, the agent
/// keeps trying all of them.
async fn answering(heads: &mut [SocketAddr], token: &TokenText) -> SocketAddr {
    // A single address needs no probe: the agent dials it anyway.
    if heads.len() > 1
        && let Ok((head, _)) = Admin::connect_any(AdminEndpoint::Head, heads, token.reveal()).await
    {
        heads.sort_by_key(|address| *address != head);
    }
    heads[0]
}

/// Starts the agent into a new session.
async fn join(
    session: &mut NodeSession,
    token: &TokenText,
    options: &AgentOptions,
    context: &StartContext,
) -> CliResult<Daemon> {
    io_failure(session, session.save_token(token))?;
    let (agent, AgentReady { address, node_id }) = start_agent(session, options, context).await?;
    (session.node.address, session.node.node_id) = (Some(address), Some(node_id));
    io_failure(session, session.save())?;
    Ok(agent)
}

/// Number of live nodes, or nothing if the head cannot be asked: the node has joined in either case.
async fn living_nodes(head: &impl AdminConnector) -> Option<usize> {
    let nodes: Vec<NodeInfo> = head.head().await.ok()?.all(Vec::new()).await.ok()?;
    Some(nodes.iter().filter(|node| node.state != NodeState::Dead).count())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::cli::cluster_args::Environment;
    use crate::commands::stop::{StopOptions, stop};
    use crate::exit;
    use crate::session::SessionRoot;
    use crate::session::tests::Scratch;
    use crate::test_cluster::FakeCluster;
    use clap::{Args, FromArgMatches};

    /// Token with a valid checksum that belongs to no cluster.
    const TOKEN: &str =
        "rs1_a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqoymvj6iq";

    /// Script that copies its options into its log.
    fn shell(_: DaemonRole, dir: &Path) -> Command {
        let script = r#"cat >&2; echo '{"ready":{"address":"127.0.0.1:8","node_id":"0000000000000008"}}'; exec sleep 1000"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(dir);
        command
    }

    async fn joined(given: &[&str], context: &StartContext) -> CliResult<StartedNode> {
        let command = StartArgs::augment_args(clap::Command::new("start"));
        let matches = command.get_matches_from([&["start", "--address=127.0.0.1:1"], given].concat());
        let arguments = StartArgs::from_arg_matches(&matches).unwrap();
        start(&arguments, arguments.address.as_ref().unwrap(), context).await
    }

    #[tokio::test]
    async fn node_joins_with_a_token_and_its_session_has_the_cluster_s_address() {
        let scratch = Scratch::new();
        let root = SessionRoot::at(scratch.0.join("home"));
        let context = StartContext {
            root,
            environment: Environment::default(),
            program: shell,
            patience: Duration::ZERO,
        };
        for given in [&[][..], &["--token=rs1_abc"]] {
            let refused = joined(given, &context).await.err().unwrap();
            assert_eq!(refused.code, exit::REFUSED, "{given:?}");
        }

        let mut started = joined(&["--token", TOKEN], &context).await.unwrap();
        let [session] = &context.root.sessions()[..] else { panic!("there is not one session") };
        assert_eq!(*session, started.session);
        let head = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!((session.node.is_head, session.node.head_address), (false, Some(head)));
        assert_eq!(session.token().unwrap().reveal(), TOKEN);
        let received: AgentOptions =
            serde_json::from_slice(&std::fs::read(session.log(DaemonRole::Agent)).unwrap()).unwrap();
        assert_eq!((received.heads, received.host, received.port), (vec![head], head.ip(), 0));
        assert_eq!((received.token.as_str(), received.head_socket), (TOKEN, None));

        // A second node of the same machine finds the token in the first one's session.
        let mut another = joined(&[], &context).await.unwrap();
        for started in [&mut started, &mut another] {
            stop(&started.session, StopOptions { grace: None, keep_logs: false }).unwrap();
            started.children[0].1.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn live_nodes_are_counted() {
        assert_eq!(living_nodes(&FakeCluster::new()).await, Some(2));
    }
}
