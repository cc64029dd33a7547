//! Output of the workers on nodes, as their agents send it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::DriverShared;
use crate::background;
use crate::cluster::output::Display;
use crate::cluster::protocol::{FLUSH, Flush};
use crate::config::OUTPUT_AGENTS_TIMEOUT;
use crate::host::deadline_in;
use crate::id::HostUid;
use crate::observe::log;
use crate::registry::{Inbound, decode};
use crate::remote::call_host;
use crate::wire::CallFailure;

/// Receives output from an agent. The reply follows once the display has room, which slows the agent down.
pub(super) fn receive(display: &Display, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let output = match decode(&body) {
        Ok(output) => output,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    responder.release_credit();

    let display = display.clone();
    background::spawn(async move {
        match display.show(output).await {
            true => responder.reply(()),
            false => responder.fail(CallFailure::Closing),
        }
    });
}

/// Waits, for `within` at most, until the terminal shows what the workers have printed by now.
///
/// Agents get a part of that time only; lines that have arrived by then are shown even if an agent is silent.
pub(super) async fn flush(shared: &Arc<DriverShared>, within: Duration) {
    let until = Instant::now() + within;
    let agents_within = OUTPUT_AGENTS_TIMEOUT.min(within * 3 / 4);
    let agents: Vec<HostUid> = shared.view().agents.values().copied().collect();
    let asked = agents.into_iter().map(|agent| async move {
        let request = Flush { job: shared.job };
        let deadline = deadline_in(agents_within);
        let sent: Result<(), _> = call_host(&shared.control, agent, FLUSH, request, deadline).await;
        if let Err(error) = sent {
            log::debug!(%agent, %error, "the last lines of a node's workers may be in its logs only");
        }
    });
    // Each call has its own deadline; this bound holds even where one is not kept.
    drop(timeout(agents_within, join_all(asked)).await);
    shared.display.flush(until).await;
}
