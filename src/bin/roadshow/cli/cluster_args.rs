//! Cluster selection: address and token from arguments, environment or sessions, and the token RPC to it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::OnceLock;

use roadshow::admin::{Admin, AdminEndpoint, AdminError, AdminTransport, TokenRpcClient};

use crate::cli::token::{HOW_TO_GET_ONE, TokenFile, TokenText};
use crate::cli::values::HostPort;
use crate::error::{CliError, CliResult};
use crate::session::{Session, SessionRoot};

/// Arguments that select a cluster.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Address of the head [default: ROADSHOW_ADDRESS, else your newest session on this machine]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<HostPort>,
    /// File with the cluster's token, or - for standard input [default: ROADSHOW_TOKEN, else the token of your session with that address]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<TokenFile>,
}

/// Environment variables that select a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    address: Option<OsString>,
    token: Option<OsString>,
}

impl Environment {
    pub(crate) fn read() -> Self {
        // `ROADSHOW_TOKEN= roadshow ...` is the usual way to unset a variable for one command.
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self { address: read("ROADSHOW_ADDRESS"), token: read("ROADSHOW_TOKEN") }
    }

    fn address(&self) -> CliResult<Option<HostPort>> {
        let Some(value) = &self.address else { return Ok(None) };
        let parsed = value.to_str().ok_or_else(|| "it is not text".to_owned()).and_then(str::parse);
        parsed.map(Some).map_err(|error| {
            CliError::usage(format!("ROADSHOW_ADDRESS is {value:?}: {error}"), "correct it, or unset it")
        })
    }

    fn token(&self) -> CliResult<Option<TokenText>> {
        let Some(value) = &self.token else { return Ok(None) };
        let parsed = value.to_str().ok_or_else(|| "it is not text".to_owned()).and_then(str::parse);
        parsed.map(Some).map_err(|error| {
            CliError::refused(format!("ROADSHOW_TOKEN is no token: {error}"), HOW_TO_GET_ONE)
        })
    }
}

/// Selected cluster: the head's addresses and the token.
#[derive(Clone, Debug)]
pub(crate) struct ClusterTarget {
    /// Addresses of the head, at least one, in the order of the attempts.
    addresses: Vec<SocketAddr>,
    /// Address of the first successful connection.
    // Later connections go to the same address: a name may resolve to two machines, and a list that is read in
    // pages must come from one of them.
    answered: OnceLock<SocketAddr>,
    token: TokenText,
}

impl ClusterArgs {
    /// Resolves the arguments to a cluster.
    pub(crate) fn target(&self) -> CliResult<ClusterTarget> {
        self.find(&Environment::read(), &SessionRoot::of_this_user().sessions())
    }

    fn find(&self, environment: &Environment, sessions: &[Session]) -> CliResult<ClusterTarget> {
        let addresses =
            match self.address.clone().map_or_else(|| environment.address(), |given| Ok(Some(given)))? {
                Some(address) => address.resolve()?,
                None => vec![newest(sessions)?],
            };
        let token = find_token(self.token_file.as_ref(), environment, sessions, &addresses)?;
        Ok(ClusterTarget::new(addresses, token))
    }
}

/// Finds the token of the cluster at one of these addresses.
pub(crate) fn find_token(
    file: Option<&TokenFile>,
    environment: &Environment,
    sessions: &[Session],
    addresses: &[SocketAddr],
) -> CliResult<TokenText> {
    if let Some(file) = file {
        return file.read();
    }
    if let Some(token) = environment.token()? {
        return Ok(token);
    }
    // A living session wins: its address may have belonged to another cluster before. The sort is stable, so
    // the newest stays first among equals.
    let is_meant = |address: Option<SocketAddr>| address.is_some_and(|address| addresses.contains(&address));
    let known = sessions
        .iter()
        .filter(|session| is_meant(session.node.head_address) || is_meant(session.node.address));
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|session| !session.is_alive());
    known.into_iter().find_map(Session::token).ok_or_else(|| {
        let at = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        CliError::refused(format!("there is no token for the cluster at {at}"), HOW_TO_GET_ONE)
    })
}

fn newest(sessions: &[Session]) -> CliResult<SocketAddr> {
    let living = sessions.iter().filter(|session| session.is_alive());
    living.filter_map(|session| session.node.head_address).next().ok_or_else(|| {
        CliError::unreachable(
            "no cluster of yours runs on this machine",
            "start one with `roadshow start --head`, or give --address or ROADSHOW_ADDRESS",
        )
    })
}

/// Opens token RPC connections to the processes of a cluster.
pub(crate) trait AdminConnector {
    type Exchange: AdminTransport;

    /// Address of the head.
    fn head_address(&self) -> SocketAddr;

    async fn open(
        &self,
        endpoint: AdminEndpoint,
        address: SocketAddr,
    ) -> Result<Admin<Self::Exchange>, AdminError>;

    async fn head(&self) -> CliResult<Admin<Self::Exchange>> {
        Ok(self.open(AdminEndpoint::Head, self.head_address()).await?)
    }

    async fn agent(&self, address: SocketAddr) -> CliResult<Admin<Self::Exchange>> {
        Ok(self.open(AdminEndpoint::Agent, address).await?)
    }
}

impl AdminConnector for ClusterTarget {
    type Exchange = TokenRpcClient;

    fn head_address(&self) -> SocketAddr {
        self.answered.get().copied().unwrap_or(self.addresses[0])
    }

    async fn open(
        &self,
        endpoint: AdminEndpoint,
        address: SocketAddr,
    ) -> Result<Admin<TokenRpcClient>, AdminError> {
        let is_open = endpoint == AdminEndpoint::Head && self.answered.get().is_none();
        let addresses = if is_open { &self.addresses[..] } else { &[address] };
        let (address, admin) = Admin::connect_any(endpoint, addresses, self.token.reveal()).await?;
        if is_open {
            self.answered.get_or_init(|| address);
        }
        Ok(admin)
    }
}

impl ClusterTarget {
    pub(crate) const fn new(addresses: Vec<SocketAddr>, token: TokenText) -> Self {
        Self { addresses, answered: OnceLock::new(), token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::session::tests::{Scratch, node};
    use crate::session::{Role, write_private};

    const UNSET: &Environment = &Environment { address: None, token: None };

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Two sessions, the newer one first: a dead one on port 2 and a live one on port 1.
    fn sessions(scratch: &Scratch) -> Vec<Session> {
        let made = |port: u16, pids: &[(Role, u32)]| {
            let dir = scratch.0.join(port.to_string());
            std::fs::create_dir(&dir).unwrap();
            let session = Session { dir, node: node(port, pids) };
            session.save_token(&format!("session{port}").parse().unwrap()).unwrap();
            session
        };
        vec![made(2, &[]), made(1, &[(Role::Agent, std::process::id())])]
    }

    fn cluster_args(address: Option<&str>, token_file: Option<&str>) -> ClusterArgs {
        ClusterArgs {
            address: address.map(|address| address.parse().unwrap()),
            token_file: token_file.map(|file| file.parse().unwrap()),
        }
    }

    fn environment(address: &str, token: &str) -> Environment {
        Environment { address: Some(address.into()), token: Some(token.into()) }
    }

    #[test]
    fn address_comes_from_argument_then_environment_then_live_session() {
        let scratch = Scratch::new();
        let sessions = sessions(&scratch);
        let environment = environment("127.0.0.1:8", "word");
        let found = |cluster_args: ClusterArgs, environment| {
            cluster_args.find(environment, &sessions).unwrap().head_address()
        };
        assert_eq!(found(cluster_args(Some("127.0.0.1:9"), None), &environment), at(9));
        assert_eq!(found(cluster_args(None, None), &environment), at(8));
        assert_eq!(found(cluster_args(None, None), UNSET), at(1));
    }

    #[test]
    fn token_comes_from_file_then_environment_then_session_at_the_address() {
        let scratch = Scratch::new();
        let sessions = sessions(&scratch);
        let path = scratch.0.join("file");
        write_private(&path, b"file\n").unwrap();
        let environment = environment("127.0.0.1:2", "word");
        let found =
            |cluster_args: ClusterArgs, environment| cluster_args.find(environment, &sessions).unwrap().token;
        assert_eq!(found(cluster_args(None, path.to_str()), &environment).reveal(), "file");
        assert_eq!(found(cluster_args(None, None), &environment).reveal(), "word");
        assert_eq!(found(cluster_args(Some("127.0.0.1:2"), None), UNSET).reveal(), "session2");
        assert_eq!(found(cluster_args(None, None), UNSET).reveal(), "session1");
    }

    #[test]
    fn missing_cluster_and_missing_token_have_their_own_exit_codes() {
        let code = |cluster_args: ClusterArgs, environment: &Environment| {
            cluster_args.find(environment, &[]).unwrap_err().code
        };
        assert_eq!(code(cluster_args(None, None), UNSET), exit::UNREACHABLE);
        assert_eq!(code(cluster_args(Some("127.0.0.1:9"), None), UNSET), exit::REFUSED);
        assert_eq!(code(cluster_args(None, None), &environment("nowhere", "word")), exit::USAGE);
        assert_eq!(code(cluster_args(None, None), &environment("127.0.0.1:9", "two words")), exit::REFUSED);
    }
}
