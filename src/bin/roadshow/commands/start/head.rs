//! Starts a head with the agent of its node, or restarts the head alone while the agent still runs.
//!
//! ```text
//!             head runs          -> error: already running
//! state dir   head dead, agent runs -> restart_head: the agent and its workers rejoin
//!             both dead, or no session -> start_fresh: a new session, the old state
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use roadshow::daemon::{
    AgentOptions, AgentReady, DashboardOptions, DashboardStatus, HeadOptions, HeadReady, LeaseOptions,
};
use roadshow::model::{NodeInfo, NodeState};

use super::launch::Daemon;
use super::state_dir::LockedStateDir;
use super::{
    HEAD_PORT, StartArgs, StartContext, StartGuard, StartedNode, create_session, dashboard, host_resources,
    io_failure, users,
};
use crate::cli::cluster_args::{AdminConnector, ClusterTarget};
use crate::cli::token::TokenText;
use crate::error::{CliError, CliResult};
use crate::session::{DaemonRole, NodeSession, STATE};

/// Time for a killed process to exit on a busy machine.
const EXIT_WAIT: Duration = Duration::from_secs(1);

pub(super) async fn start(arguments: &StartArgs, context: &StartContext) -> CliResult<StartedNode> {
    let port = arguments.port.unwrap_or(HEAD_PORT);
    let state_path = match &arguments.state_dir {
        Some(path) => Some(path.clone()),
        // Port 0 gives another port at each start, so no later start could find the state by it.
        None if port == 0 => None,
        None => Some(LockedStateDir::default_path(port)?),
    };
    // Before the session is read: two starts with one state directory would both find no head running.
    let locked = state_path.as_deref().map(LockedStateDir::lock).transpose()?;
    if let Some((state, session)) = locked.as_ref().and_then(|state| Some((state, state.session()?))) {
        wait_for_exit(&session).await;
        match (session.live_process(DaemonRole::Head), session.live_process(DaemonRole::Agent)) {
            (Some(head), _) => return Err(already_running(&session, head.pid)),
            (None, Some(_)) => return restart_head(arguments, state, session, context).await,
            (None, None) => {}
        }
    }
    let host = arguments.host.unwrap_or_else(host_resources::own_address);
    let dashboard = dashboard::options(arguments, host)?;
    // Before the session is created, so that a refusal leaves nothing behind.
    let job_users = users::of_jobs(arguments, host, &[])?;
    let session_dir = context.root.create(arguments.session_dir.as_deref())?;
    let state = locked.map_or_else(|| LockedStateDir::lock(&session_dir.dir.join(STATE)), Ok)?;
    let mut guard =
        StartGuard::new(create_session(&session_dir, None, Some(state.path.clone()), job_users)?, context);
    users::make_passable(&guard.session.node.job_users, &context.root, &session_dir)?;
    let (token, dashboard, children) =
        start_fresh(arguments, &state, &mut guard.session, (host, dashboard), context).await?;
    Ok(StartedNode { session: guard.done(), token, restarted: false, nodes: None, dashboard, children })
}

/// Starts both into a fresh session.
async fn start_fresh(
    arguments: &StartArgs,
    state: &LockedStateDir,
    session: &mut NodeSession,
    (host, dashboard): (IpAddr, Option<DashboardOptions>),
    context: &StartContext,
) -> CliResult<(TokenText, DashboardStatus, Vec<(DaemonRole, Child)>)> {
    let port = arguments.port.unwrap_or(HEAD_PORT);
    // Before the daemons start: another start must find the session even if this command is killed.
    state.record(session)?;
    let (mut head, token, dashboard) =
        start_head(session, state, (dashboard, arguments.leases()?), context).await?;
    let options = arguments.agent(session, (host, port), Vec::new(), &token);
    // An agent whose head has ended would wait for it until its own timeout.
    let (agent, AgentReady { address, node_id }) = tokio::select! {
        started = start_agent(session, &options, context) => started?,
        ended = head.ended() => return Err(ended),
    };
    // The agent chooses the port if it is 0, so the address is known only now.
    (session.node.address, session.node.head_address) = (Some(address), Some(address));
    session.node.node_id = Some(node_id);
    io_failure(session, session.save())?;
    let children = [(DaemonRole::Head, head.detach()), (DaemonRole::Agent, agent.detach())];
    let children = children.into_iter().filter_map(|(role, child)| Some((role, child?))).collect();
    Ok((token, dashboard, children))
}

/// Starts only the head, into the session whose agent still runs.
async fn restart_head(
    arguments: &StartArgs,
    state: &LockedStateDir,
    mut session: NodeSession,
    context: &StartContext,
) -> CliResult<StartedNode> {
    let address = check_restartable(arguments, &session)?;
    let served = dashboard::options(arguments, address.ip())?;
    let (mut head, token, dashboard) =
        start_head(&mut session, state, (served, arguments.leases()?), context).await?;
    session.node.head_address = Some(address);
    io_failure(&session, session.save())?;
    let target = ClusterTarget::new(vec![address], token.clone());
    let is_back = tokio::select! {
        is_back = wait_for_own_node(&target, context.patience) => is_back,
        ended = head.ended() => return Err(ended),
    };
    let children = head.detach().map(|child| (DaemonRole::Head, child)).into_iter().collect();
    match is_back {
        true => Ok(StartedNode { session, token, restarted: true, nodes: None, dashboard, children }),
        false => Err(CliError::failed(
            format!(
                "the head runs, but the agent of its node has not rejoined within {} s",
                context.patience.as_secs()
            ),
            format!(
                "see {}, or run `roadshow stop` and start both again",
                session.log(DaemonRole::Agent).display()
            ),
        )),
    }
}

/// Checks that the arguments fit the running agent, and returns its address.
fn check_restartable(arguments: &StartArgs, session: &NodeSession) -> CliResult<SocketAddr> {
    let next = "`roadshow stop` stops that agent and its workers; then start all again";
    let address = session
        .node
        .address
        .ok_or_else(|| CliError::failed("the head has died before its agent was ready", next))?;
    let differs = |option: &str| {
        let text =
            format!("the head has died, but its agent still runs at {address}; {option} differs from it");
        CliError::failed(text, next)
    };
    // Port 0 accepts any port, so also that of the running agent.
    if arguments.port.is_some_and(|port| port != 0 && port != address.port()) {
        return Err(differs("--port"));
    }
    if arguments.host.is_some_and(|host| host != address.ip()) {
        return Err(differs("--host"));
    }
    if let Some(option) = users::differ(arguments, &session.node.job_users)? {
        return Err(differs(option));
    }
    let asked: Option<PathBuf> =
        arguments.session_dir.as_ref().map(|dir| dir.canonicalize().unwrap_or_default());
    match asked.is_some_and(|dir| dir != session.dir) {
        true => Err(differs("--session-dir")),
        false => Ok(address),
    }
}

/// Waits until the agent of the head's node has rejoined, and returns false on timeout.
async fn wait_for_own_node(head: &impl AdminConnector, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    if patience.is_zero() {
        return true;
    }
    loop {
        // Until the agent has rejoined it cannot pass connections on, so errors are expected.
        if let Ok(mut client) = head.head().await
            && let Ok(nodes) = client.all::<NodeInfo>(Vec::new()).await
            && nodes
                .iter()
                .any(|node| node.is_head && matches!(node.state, NodeState::Alive | NodeState::Draining))
        {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start_head(
    session: &mut NodeSession,
    state: &LockedStateDir,
    (served, leases): (Option<DashboardOptions>, LeaseOptions),
    context: &StartContext,
) -> CliResult<(Daemon, TokenText, DashboardStatus)> {
    let options = HeadOptions {
        state_dir: state.path.clone(),
        session_dir: session.dir.clone(),
        agent_socket: session.head_socket(),
        dashboard: served,
        leases,
    };
    let command = (context.program)(DaemonRole::Head, &session.dir);
    let mut head = Daemon::start(command, DaemonRole::Head, &options, &session.log(DaemonRole::Head))?;
    record_process(session, &head)?;
    let HeadReady { token, dashboard } = head.ready().await?;
    let token = token
        .parse()
        .map_err(|error| CliError::failed(format!("the head sent an invalid token: {error}"), ""))?;
    io_failure(session, session.save_token(&token))?;
    Ok((head, token, dashboard))
}

/// Starts an agent, and waits until its node has joined.
pub(super) async fn start_agent(
    session: &mut NodeSession,
    options: &AgentOptions,
    context: &StartContext,
) -> CliResult<(Daemon, AgentReady)> {
    let command = (context.program)(DaemonRole::Agent, &session.dir);
    let mut agent = Daemon::start(command, DaemonRole::Agent, options, &session.log(DaemonRole::Agent))?;
    record_process(session, &agent)?;
    let ready = agent.ready().await?;
    Ok((agent, ready))
}

/// Waits for a head that was just killed: it seems to live until the last of its threads has exited.
async fn wait_for_exit(session: &NodeSession) {
    if let Some(head) = session.live_process(DaemonRole::Head).and_then(|record| record.open()) {
        head.has_ended(EXIT_WAIT).await;
    }
}

/// Records the process before it is ready, so that `stop` finds it if this command is killed.
fn record_process(session: &mut NodeSession, daemon: &Daemon) -> CliResult<()> {
    // A daemon that has ended already reports the reason when `ready` is awaited.
    let Some(record) = daemon.record() else { return Ok(()) };
    let written = session.add_process(record);
    io_failure(session, written)
}

fn already_running(session: &NodeSession, pid: u32) -> CliError {
    let at = session.node.address.map_or_else(String::new, |address| format!(" at {address}"));
    CliError::failed(
        format!("a head with this state directory already runs{at} (process {pid})"),
        "`roadshow stop` stops it; for another cluster give another --port or --state-dir",
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use clap::{Args, FromArgMatches};
    use roadshow::daemon::JobUsers;

    use super::*;
    use crate::cli::cluster_args::Environment;
    use crate::commands::stop::{StopOptions, stop};
    use crate::session::tests::{Scratch, node};
    use crate::session::{Process, SessionRoot};

    fn arguments(given: &[&str]) -> StartArgs {
        let command = StartArgs::augment_args(clap::Command::new("start"));
        let matches = command.get_matches_from([&["start", "--head"], given].concat());
        StartArgs::from_arg_matches(&matches).unwrap()
    }

    /// Shell scripts that report readiness immediately, whatever their options.
    fn shells(role: DaemonRole, dir: &Path) -> Command {
        let ready = match role {
            DaemonRole::Head => r#"{"token":"rs1_abc"}"#,
            DaemonRole::Agent => r#"{"address":"127.0.0.1:7","node_id":"0000000000000009"}"#,
        };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo '{{\"ready\":{ready}}}'; exec sleep 1000")]).current_dir(dir);
        command
    }

    fn context(scratch: &Scratch) -> StartContext {
        let root = SessionRoot::at(scratch.0.join("home"));
        StartContext { root, environment: Environment::default(), program: shells, patience: Duration::ZERO }
    }

    fn process(session: &NodeSession, role: DaemonRole) -> Process {
        session.live_process(role).unwrap().open().unwrap()
    }

    fn kill(children: &mut [(DaemonRole, Child)], role: DaemonRole) {
        let (_, child) = children.iter_mut().find(|(other, _)| *other == role).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn dead_head_is_restarted_into_its_session() {
        let scratch = Scratch::new();
        let context = context(&scratch);
        let state = scratch.0.join("state");
        let arguments = arguments(&["--state-dir", state.to_str().unwrap()]);
        let mut first = start(&arguments, &context).await.unwrap();
        let read = NodeSession::read(&first.session.dir).unwrap();
        assert_eq!(read, first.session);
        assert_eq!(read.token().unwrap().reveal(), "rs1_abc");
        assert_eq!(read.node.head_address, Some(SocketAddr::from(([127, 0, 0, 1], 7))));
        assert_eq!(context.root.sessions(), [read]);
        let agent = process(&first.session, DaemonRole::Agent);

        let refused = start(&arguments, &context).await.err().unwrap().to_string();
        assert!(refused.contains("already runs at 127.0.0.1:7"), "{refused}");

        kill(&mut first.children, DaemonRole::Head);
        let mut second = start(&arguments, &context).await.unwrap();
        assert!(second.restarted && second.session.dir == first.session.dir);
        assert_eq!(second.session.live_process(DaemonRole::Agent).unwrap().pid, agent.pid);
        assert_ne!(
            second.session.live_process(DaemonRole::Head),
            first.session.live_process(DaemonRole::Head)
        );

        stop(&second.session, StopOptions { grace: None, keep_logs: false }).unwrap();
        assert!(!second.session.dir.exists() && state.exists());
        for (_, child) in first.children.iter_mut().chain(&mut second.children) {
            child.wait().unwrap();
        }

        let mut third = start(&arguments, &context).await.unwrap();
        assert!(!third.restarted);
        stop(&third.session, StopOptions { grace: None, keep_logs: false }).unwrap();
        kill(&mut third.children, DaemonRole::Head);
        kill(&mut third.children, DaemonRole::Agent);
    }

    #[tokio::test]
    async fn failed_start_leaves_no_process() {
        let scratch = Scratch::new();
        let program = |role, dir: &Path| match role {
            DaemonRole::Head => shells(role, dir),
            DaemonRole::Agent => {
                let mut command = Command::new("sh");
                command
                    .args(["-c", r#"echo '{"failed":{"code":1,"why":"the port is taken; give another"}}'"#]);
                command
            }
        };
        let context = StartContext { program, ..context(&scratch) };
        let failure = start(&arguments(&["--port=0"]), &context).await.err().unwrap();
        assert_eq!(failure.to_string(), "the agent cannot start: the port is taken; give another");
        assert!(!scratch.0.join("home").exists());
    }

    #[tokio::test]
    async fn exit_of_head_while_agent_starts_is_noticed_immediately() {
        let scratch = Scratch::new();
        let program = |role, _: &Path| {
            let mut command = Command::new("sh");
            command.args([
                "-c",
                match role {
                    DaemonRole::Head => {
                        r#"echo '{"ready":{"token":"rs1_abc"}}'; sleep 0.1; echo 'out of it' >&2"#
                    }
                    DaemonRole::Agent => "exec sleep 1000",
                },
            ]);
            command
        };
        let context = StartContext { program, ..context(&scratch) };
        let failure = start(&arguments(&["--port=0"]), &context).await.err().unwrap().to_string();
        assert!(
            failure.starts_with("the head ended before its node was ready: exit status: 0 (out of it)"),
            "{failure}"
        );
        let left = context.root.sessions();
        assert!(left.len() == 1 && !left[0].is_alive() && left[0].token().is_none());
    }

    #[tokio::test]
    async fn failed_start_keeps_state_of_an_earlier_head() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("session");
        let kept = dir.join(STATE).join("head.redb");
        for path in [dir.join(STATE), dir.join("node.new")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(&kept, "jobs").unwrap();
        let arguments = arguments(&["--port=0", "--session-dir", dir.to_str().unwrap()]);
        // A directory stands where the session file is written.
        let failure = start(&arguments, &context(&scratch)).await.err().unwrap().to_string();
        assert!(failure.starts_with("cannot write to"), "{failure}");
        assert!(kept.exists());
    }

    #[tokio::test]
    async fn failed_start_keeps_logs() {
        let scratch = Scratch::new();
        let program = |_, _: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo words >&2"]);
            command
        };
        let context = StartContext { program, ..context(&scratch) };
        let failure = start(&arguments(&["--port=0"]), &context).await.err().unwrap();
        assert!(
            failure.to_string().starts_with("the head ended before it was ready: exit status: 0 (words);"),
            "{failure}"
        );
        let left = context.root.sessions();
        assert!(left.len() == 1 && !left[0].is_alive());
        // With port 0 the state is in the session directory.
        assert_eq!(left[0].node.state_dir, Some(left[0].dir.join("state")));
    }

    #[test]
    fn head_restarts_only_with_options_of_its_agent() {
        let scratch = Scratch::new();
        let mut session = NodeSession { dir: scratch.0.canonicalize().unwrap(), node: node(7, &[]) };
        let dir = scratch.0.to_str().unwrap();
        for given in [&[][..], &["--port=7"], &["--port=0"], &["--host=127.0.0.1"], &["--session-dir", dir]] {
            assert!(check_restartable(&arguments(given), &session).is_ok(), "{given:?}");
        }
        let others =
            ["--port=8", "--host=127.0.0.2", "--session-dir=elsewhere", "--worker-uids=5-6"].map(|it| [it]);
        for given in others {
            let refused = check_restartable(&arguments(&given), &session).unwrap_err().to_string();
            assert!(refused.contains("127.0.0.1:7") && refused.contains("roadshow stop"), "{refused}");
        }
        // The agent keeps its users when the command names none.
        session.node.job_users = JobUsers::EachJob("5-6".parse().unwrap());
        for given in [&[][..], &["--worker-uids=5-6"]] {
            assert!(check_restartable(&arguments(given), &session).is_ok(), "{given:?}");
        }
        assert!(check_restartable(&arguments(&["--worker-uids=5-7"]), &session).is_err());
    }

    #[test]
    fn agent_options_follow_the_arguments() {
        let given = [
            "--num-cpus=1.5",
            "--memory=1KiB",
            "--resources={\"gpu\": 2}",
            "--labels=zone=a",
            "--node-name=n",
        ];
        let arguments = arguments(&given);
        let scratch = Scratch::new();
        let session = NodeSession { dir: scratch.0.clone(), node: node(7, &[]) };
        let options =
            arguments.agent(&session, ([127, 0, 0, 1].into(), 0), Vec::new(), &"t".parse().unwrap());
        assert_eq!(options.resources.to_string(), "cpu 1.5, gpu 2, memory 1024");
        assert_eq!((options.workers, options.node_name.as_str()), (2, "n"));
        assert_eq!(options.labels["zone"], "a");
        assert_eq!(options.head_socket, Some(session.head_socket()));
        assert_eq!(StartArgs { num_cpus: Some(0.0), ..arguments }.workers(), 0);
    }
}
