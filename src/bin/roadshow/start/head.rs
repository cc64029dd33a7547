//! Starting a head and the agent of its node, or the head alone if the agent still runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use roadshow::daemon::{AgentOptions, AgentReady, HeadOptions, HeadReady};

use super::launch::{Daemon, this_program};
use super::state_dir::StateDir;
use super::{Arguments, HEAD_PORT, Started, fresh, machine, noted};
use crate::failure::{Failure, Outcome};
use crate::session::{Home, Role, Session};
use crate::token::TokenText;

pub(super) async fn start(arguments: &Arguments) -> Outcome<Started> {
    let port = arguments.port.unwrap_or(HEAD_PORT);
    let state_path = match &arguments.state_dir {
        Some(path) => Some(path.clone()),
        // Nobody could name the port of a head that takes any.
        None if port == 0 => None,
        None => Some(StateDir::default_path(port)?),
    };
    let held = state_path.as_deref().map(StateDir::hold).transpose()?;
    if let Some((state, session)) = held.as_ref().and_then(|state| Some((state, state.session()?))) {
        match (session.living_as(Role::Head), session.living_as(Role::Agent)) {
            (Some(head), _) => return Err(lives_already(&session, head.pid)),
            (None, Some(_)) => return again(arguments, state, session).await,
            (None, None) => {}
        }
    }
    let dir = Home::of_this_user().create(arguments.session_dir.as_deref())?;
    let state = held.map_or_else(|| StateDir::hold(&dir.join("state")), Ok)?;
    let mut session = fresh(dir, None, Some(state.path.clone()))?;
    state.remember(&session)?;
    let (head, token) = start_head(&mut session, &state).await?;
    let host = arguments.host.unwrap_or_else(machine::own_address);
    let options = arguments.agent(&session, (host, port), None, &token);
    let (agent, AgentReady { address, node_id }) = start_agent(&mut session, &options).await?;
    (session.node.address, session.node.head_address) = (Some(address), Some(address));
    session.node.node_id = Some(node_id);
    noted(&session, session.save())?;
    let children = [(Role::Head, head.let_go()), (Role::Agent, agent.let_go())];
    let children = children.into_iter().filter_map(|(role, child)| Some((role, child?))).collect();
    Ok(Started { session, token, again: false, nodes: None, children })
}

/// Starts only the head, into the session whose agent still runs.
async fn again(arguments: &Arguments, state: &StateDir, mut session: Session) -> Outcome<Started> {
    let address = may_go_on(arguments, &session)?;
    let (head, token) = start_head(&mut session, state).await?;
    session.node.head_address = Some(address);
    noted(&session, session.save())?;
    let children = head.let_go().map(|child| (Role::Head, child)).into_iter().collect();
    Ok(Started { session, token, again: true, nodes: None, children })
}

/// Whether the session can be what is asked for now; gives its address.
fn may_go_on(arguments: &Arguments, session: &Session) -> Outcome<SocketAddr> {
    let next = "`roadshow stop` ends that agent and its workers, so that all can be started anew";
    let address = session
        .node
        .address
        .ok_or_else(|| Failure::failed("the agent of the head that has died was never ready", next))?;
    let differs = |option: &str| {
        let text = format!(
            "the agent of the head that has died still runs at {address}, and {option} asks for another"
        );
        Failure::failed(text, next)
    };
    if arguments.port.is_some_and(|port| port != 0 && port != address.port()) {
        return Err(differs("--port"));
    }
    if arguments.host.is_some_and(|host| host != address.ip()) {
        return Err(differs("--host"));
    }
    let asked: Option<PathBuf> =
        arguments.session_dir.as_ref().map(|dir| dir.canonicalize().unwrap_or_default());
    match asked.is_some_and(|dir| dir != session.dir) {
        true => Err(differs("--session-dir")),
        false => Ok(address),
    }
}

async fn start_head(session: &mut Session, state: &StateDir) -> Outcome<(Daemon, TokenText)> {
    let options = HeadOptions {
        state_dir: state.path.clone(),
        session_dir: session.dir.clone(),
        agent_socket: session.head_socket(),
    };
    let command = this_program(Role::Head, &session.dir);
    let mut head = Daemon::start(command, Role::Head, &options, &session.log(Role::Head))?;
    remember(session, &head)?;
    let HeadReady { token } = head.ready().await?;
    let token =
        token.parse().map_err(|error| Failure::failed(format!("the head's token is none: {error}"), ""))?;
    noted(session, session.save_token(&token))?;
    Ok((head, token))
}

/// Starts an agent, and waits until its node has joined.
pub(super) async fn start_agent(
    session: &mut Session,
    options: &AgentOptions,
) -> Outcome<(Daemon, AgentReady)> {
    let command = this_program(Role::Agent, &session.dir);
    let mut agent = Daemon::start(command, Role::Agent, options, &session.log(Role::Agent))?;
    remember(session, &agent)?;
    let ready = agent.ready().await?;
    Ok((agent, ready))
}

/// Notes the process at once, so that `stop` finds it whatever becomes of this one.
fn remember(session: &mut Session, daemon: &Daemon) -> Outcome<()> {
    // A daemon that has ended already says why when it is waited for.
    let Some(record) = daemon.record() else { return Ok(()) };
    let written = session.remember(record);
    noted(session, written)
}

fn lives_already(session: &Session, pid: u32) -> Failure {
    let at = session.node.address.map_or_else(String::new, |address| format!(" at {address}"));
    Failure::failed(
        format!("a head with this state directory runs already{at} (process {pid})"),
        "`roadshow stop` ends it; another one needs a --port or --state-dir of its own",
    )
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::session::tests::{Scratch, node};

    fn arguments(given: &[&str]) -> Arguments {
        let command = Arguments::augment_args(Command::new("start"));
        let matches = command.get_matches_from([&["start", "--head"], given].concat());
        Arguments::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_head_goes_on_only_where_it_was() {
        let scratch = Scratch::new();
        let session = Session { dir: scratch.0.canonicalize().unwrap(), node: node(7, &[]) };
        let dir = scratch.0.to_str().unwrap();
        let same = [&[][..], &["--port=7"], &["--port=0"], &["--host=127.0.0.1"], &["--session-dir", dir]];
        for given in same {
            assert!(may_go_on(&arguments(given), &session).is_ok(), "{given:?}");
        }
        for given in [&["--port=8"], &["--host=127.0.0.2"], &["--session-dir=elsewhere"]] {
            let refused = may_go_on(&arguments(given), &session).unwrap_err().to_string();
            assert!(refused.contains("127.0.0.1:7") && refused.contains("roadshow stop"), "{refused}");
        }
    }

    #[test]
    fn a_node_has_what_it_is_said_to_have() {
        let given = [
            "--num-cpus=1.5",
            "--memory=1KiB",
            "--resources={\"gpu\": 2}",
            "--labels=zone=a",
            "--node-name=n",
        ];
        let arguments = arguments(&given);
        let scratch = Scratch::new();
        let session = Session { dir: scratch.0.clone(), node: node(7, &[]) };
        let options = arguments.agent(&session, ([127, 0, 0, 1].into(), 0), None, &"t".parse().unwrap());
        assert_eq!(options.resources.to_string(), "cpu 1.5, gpu 2, memory 1024");
        assert_eq!((options.workers, options.node_name.as_str()), (2, "n"));
        assert_eq!(options.labels["zone"], "a");
        assert_eq!(options.head_socket, Some(session.head_socket()));
        assert_eq!(Arguments { num_cpus: Some(0.0), ..arguments }.workers(), 0);
    }
}
