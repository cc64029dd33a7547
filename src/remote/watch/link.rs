//! Links: each actor's host watches the other actor, and stops its own when that ends.

use crate::background;
use crate::config::ACTOR_NAME_BYTES_MAX;
use crate::host::{DisconnectReason, Host, LinkEntry, NotDelivered, NotLinked, OutcomeUnknown, SendError};
use crate::id::{Target, TypeHash};
use crate::registry::{Inbound, Responder, decode};
use crate::remote::call_host;
use crate::spec::{ActorLocation, End, EndReason};
use crate::wire::CallFailure;

/// Service that stops an actor of the host when another actor ends.
pub(in crate::remote) const LINK: TypeHash = TypeHash::of("roadshow::Link");

/// Arguments of [`LINK`]: actor of the host, location of the other one, and the other one's name for people.
type LinkArgs = (Target, ActorLocation, String);

/// Links two actors, each with its name for people.
pub(super) async fn link(
    here: Host,
    [(one, one_name), (other, other_name)]: [(ActorLocation, String); 2],
) -> Result<(), SendError> {
    if one == other {
        return Ok(());
    }
    let halves = [(one, (one.target, other, other_name)), (other, (other.target, one, one_name))];
    let [one, other] = halves.map(|(at, args): (ActorLocation, LinkArgs)| {
        call_host::<LinkArgs, ()>(&here, at.host, LINK, args, None)
    });
    match tokio::join!(one, other) {
        (Ok(()), Ok(())) => Ok(()),
        // The host of one has ended. The other half stops the survivor.
        (Err(error), Ok(())) | (Ok(()), Err(error)) if has_ended(&error) => Ok(()),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// True if the error says that the host of an address is no longer there.
fn has_ended(error: &SendError) -> bool {
    matches!(
        error,
        SendError::NotDelivered(
            NotDelivered::StaleHost { .. }
                | NotDelivered::Unreachable { reason: DisconnectReason::HostDown(_), .. }
        ) | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost {
            reason: DisconnectReason::HostDown(_),
            ..
        })
    )
}

/// Serves one half of a link; it lasts until either actor has ended.
pub(in crate::remote) fn serve_link(host: &Host, inbound: Inbound) {
    let (body, _, mut responder) = inbound.into_parts::<()>();
    let (target, other, name) = match decode::<LinkArgs>(&body) {
        Ok(args) => args,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    // Names of peers are kept for as long as the link.
    let name: String = name.chars().take(ACTOR_NAME_BYTES_MAX).collect();
    match host.enter_link(target, other) {
        Ok(entry) => {
            drop(background::spawn_on(host.io(), stop_with(host.clone(), entry, target, other, name)))
        }
        Err(NotLinked::Exists) => {}
        Err(NotLinked::TooMany) => {
            let text = "the host has too many links; watch the actors instead".to_owned();
            return responder.fail(CallFailure::Refused { text });
        }
    }
    responder.reply(());
}

/// Stops an actor of this host once the other one has ended.
async fn stop_with(host: Host, _entry: LinkEntry, target: Target, other: ActorLocation, name: String) {
    let end = tokio::select! {
        biased;
        _ = host.watch_actor(target) => return,
        () = host.closing() => return,
        end = super::lookup::end_of(&host, other) => end,
    };
    if let Ok(mailbox) = host.actors().find(target) {
        let end = End::new(EndReason::Linked, format!("it was linked with {name}, which ended: {end}"));
        mailbox.stop(Responder::discard(host.as_reply_path()), Box::new(end));
    }
}
