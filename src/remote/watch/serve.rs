//! Service of a host that tells other hosts the ends of its actors.

use std::future::poll_fn;

use crate::background;
use crate::host::Host;
use crate::id::{Target, TypeHash};
use crate::registry::{Inbound, decode};
use crate::spec::End;
use crate::wire::CallFailure;

/// Service that replies with the end of an actor once it has ended.
pub(in crate::remote) const WATCH: TypeHash = TypeHash::of("roadshow::Watch");

/// Serves a watch until the actor ends, or the watcher is gone.
pub(in crate::remote) fn serve_watch(host: &Host, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<End>();
    let target = match decode::<Target>(&body) {
        Ok(target) => target,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    // It stays open for long, and the watcher has other calls to this host.
    responder.release_credit();
    let (watch, serving) = (host.watch_actor(target), host.clone());
    background::spawn_on(host.io(), async move {
        let end = tokio::select! {
            biased;
            end = watch => end,
            () = poll_fn(|task| responder.poll_abandoned(task)) => return,
            () = serving.closing() => None,
        };
        match end {
            Some(end) => responder.reply(end),
            // The watcher asks for the end of the host.
            None => responder.fail(CallFailure::Closing),
        }
    });
}
