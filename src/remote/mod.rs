//! Remote actors: typed addresses, requests and their retries, spawning, watching.
//!
//! Programs hold [`RemoteAddr`] instead of actix's `Addr`. The module knows the cluster only as the
//! host's placement, which selects the host of a new actor.

mod addr;
mod address;
mod args;
mod ask;
mod cluster_ref;
mod managed;
mod payload_hint;
mod recipient;
mod request;
mod retry;
mod runner;
mod spawn;
mod spawn_request;
mod watch;

pub use addr::RemoteAddr;
pub use cluster_ref::{ClusterRef, FindError};
pub use recipient::RemoteRecipient;
pub use request::{Request, TrySendError};
pub use retry::Retry;
pub use spawn::{Spawn, SpawnContext, SpawnError, SpawnRegistration, actor_services};
pub use spawn_request::SpawnRequest;
pub use watch::{Terminated, Watch};

pub(crate) use args::SharedArgs;
pub(crate) use ask::{ask_host_shared, call_host, call_service};
pub(crate) use spawn::{StartOutcome, start_incarnation, stop_on_host};
