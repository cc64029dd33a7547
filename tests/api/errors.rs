//! Texts of errors: in `{}`, in a chain, and as printed by a `main`.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use roadshow::errors::{ElfError, ExecutableError, TokenRpcError};
use roadshow::internals::host::HostError;
use roadshow::internals::id::{HostId, HostUid, Incarnation};
use roadshow::internals::registry::RegistryError;
use roadshow::internals::session::{DisconnectReason, HandshakeError};
use roadshow::internals::transport::{CredentialsError, ReadError};
use roadshow::internals::wire::WireError;
use roadshow::observe::Chain;
use roadshow::words::{SolveError, TextError};
use roadshow::{
    ClusterError, FindError, NotDelivered, OutcomeUnknown, PlacementError, SendError, SpawnError, TaskError,
};

const HOST: HostUid = HostUid { host: HostId(1), incarnation: Incarnation(1) };
const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

fn registered_twice() -> RegistryError {
    RegistryError::Duplicate { name: "task t".into() }
}

/// Lists the variants of every public error that have a source.
fn errors() -> Vec<Box<dyn Error>> {
    let stopped = || NotDelivered::ActorStopped;
    let lost = || DisconnectReason::Io("the wire is cut".into());
    let mut errors: Vec<Box<dyn Error>> = vec![
        Box::new(SendError::from(stopped())),
        Box::new(SendError::from(NotDelivered::Unreachable { host: HOST, reason: lost() })),
        Box::new(SendError::from(OutcomeUnknown::NoReply)),
        Box::new(SendError::from(OutcomeUnknown::SessionLost { host: HOST, reason: lost() })),
        Box::new(NotDelivered::Unreachable { host: HOST, reason: lost() }),
        Box::new(OutcomeUnknown::SessionLost { host: HOST, reason: lost() }),
        Box::new(SpawnError::Placement {
            actor: "a",
            reason: PlacementError::Unknown { text: "none".into() },
        }),
        Box::new(SpawnError::NotDelivered { actor: "a", reason: stopped() }),
        Box::new(SpawnError::OutcomeUnknown { actor: "a", reason: OutcomeUnknown::NoReply }),
        Box::new(TaskError::NotDelivered { task: "t", reason: stopped() }),
        Box::new(TaskError::OutcomeUnknown { task: "t", reason: OutcomeUnknown::NoReply }),
        Box::new(TaskError::WorkersLost { task: "t", runs: 4, reason: OutcomeUnknown::NoReply }),
        Box::new(FindError::from(PlacementError::NoWorker)),
        Box::new(HostError::from(registered_twice())),
        Box::new(HostError::Listen { address: AT, source: broken() }),
        Box::new(HandshakeError::from(WireError::from(broken()))),
        Box::new(WireError::from(broken())),
        Box::new(ReadError::from(broken())),
        Box::new(ReadError::from(WireError::from(broken()))),
        Box::new(CredentialsError::Authority("it has expired".into())),
        Box::new(ElfError::from(broken())),
        Box::new(ExecutableError::Read { path: "p".into(), error: broken() }),
        Box::new(ExecutableError::NotProgram { path: "p".into(), error: ElfError::from(broken()) }),
        Box::new(token_rpc_error()),
        Box::new(TokenRpcError::from(CredentialsError::Authority("it has expired".into()))),
        Box::new(ClusterError::from(broken())),
        Box::new(ClusterError::from(HostError::from(registered_twice()))),
        Box::new(ClusterError::from(HostError::Listen { address: AT, source: broken() })),
        Box::new(ClusterError::from(token_rpc_error())),
        Box::new(ClusterError::from(ExecutableError::Read { path: "p".into(), error: broken() })),
        Box::new(ClusterError::Introduce { pid: 1, source: stopped().into() }),
        Box::new(SolveError::from(SendError::from(stopped()))),
        Box::new(TextError::from(SendError::from(stopped()))),
    ];
    // The common error type wraps the others without a text, so its chain must be the same.
    let any: [roadshow::Error; 7] = [
        ClusterError::from(HostError::Listen { address: AT, source: broken() }).into(),
        SpawnError::NotDelivered { actor: "a", reason: stopped() }.into(),
        FindError::from(PlacementError::NoWorker).into(),
        PlacementError::NoWorker.into(),
        stopped().into(),
        TaskError::NotDelivered { task: "t", reason: stopped() }.into(),
        broken().into(),
    ];
    errors.extend(any.map(|error| error.into()));
    errors
}

fn token_rpc_error() -> TokenRpcError {
    TokenRpcError::Connect { role: roadshow::internals::transport::Role::Head, address: AT, error: broken() }
}

#[test]
fn no_error_repeats_the_text_of_its_source() {
    for error in errors() {
        let mut texts = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(source) = cause {
            texts.push(source.to_string());
            cause = source.source();
        }
        for (at, text) in texts.iter().enumerate() {
            // A chain prints each text once, so a text within another would be read twice.
            let again = texts[..at].iter().find(|outer| outer.contains(text.as_str()));
            assert!(again.is_none(), "{text:?} is repeated in {texts:?}");
        }
        assert_eq!(Chain(&*error).to_string(), texts.join(": "));
    }
}

#[test]
fn the_chain_of_an_error_names_its_first_cause() {
    let causes =
        ["the disk is broken", "the wire is cut", "the actor has stopped", "no worker is left", "none"];
    let others = ["dropped the reply", "registered twice", "it has expired"];
    for error in errors() {
        let text = Chain(&*error).to_string();
        assert!(causes.iter().chain(&others).any(|cause| text.contains(cause)), "{text}");
    }
}

#[test]
fn a_main_that_returns_an_error_prints_all_of_it() {
    let cannot = "cannot listen on 127.0.0.1:1: the disk is broken";
    let error = ClusterError::from(HostError::Listen { address: AT, source: broken() });
    // `main` prints the `Debug` form.
    assert_eq!(format!("{error:?}"), cannot);
    assert_eq!(format!("{:?}", roadshow::Error::from(error)), cannot);
    let error = roadshow::Error::from(NotDelivered::ActorStopped);
    assert_eq!(format!("{error:?}"), "not delivered: the actor has stopped; spawn another");
}
